"""The words of the pages: the same names in every language, and none that is missing."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette", reason='the app needs the extra app: pip install ".[app]"')

from sincut.app.choices import _PARTS
from sincut.app.pages import STATIC
from sincut.app.texts import HERE, LANGUAGES, chosen, words_of

TEMPLATES = sorted((HERE.parent / "templates").glob("*.html"))
SCRIPTS = [path for path in STATIC.values() if path.parent.name == "static"]


def test_every_language_has_a_file() -> None:
    assert {path.stem for path in HERE.glob("*.json")} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_have_the_same_words_with_the_same_places_for_values(language: str) -> None:
    english, words = words_of("en"), words_of(language)
    assert list(words) == list(english)
    for name, text in words.items():
        assert text.strip()
        assert text.count("{}") == english[name].count("{}"), name


def test_every_word_that_is_used_exists_and_every_one_is_used() -> None:
    text = "\n".join(path.read_text() for path in (*TEMPLATES, *SCRIPTS) if path.suffix != ".css")
    used = set(re.findall(r"\bt\.(\w+)", text)) | set(re.findall(r"\bsay\(\s*\"(\w+)\"", text))
    words = set(words_of("en"))
    assert used <= words
    assert not words & set(dir(dict))  # a template would take the method
    prefixes = ("part_", "state_", "phase_", "about_", "drop_")  # names that are put together
    alone = {word for word in words - used if not word.startswith(prefixes)}
    assert all(re.search(rf"\"{word}\"", text) for word in alone), alone
    assert {f"part_{part}" for part in _PARTS} <= words


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", "en"),
        ("de", "ko", "de"),
        ("../../etc", "ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("", "fr,de-AT;q=0.7", "de"),
        ("", "zh-TW,zh;q=0.9", "zh-Hant"),
        ("", "zh-CN,en", "en"),
        ("", "xx;q=nonsense,,;", "en"),
    ],
)
def test_the_language_is_the_one_chosen_or_asked_for(
    cookie: str, accepted: str, language: str
) -> None:
    assert chosen(cookie, accepted) == language
