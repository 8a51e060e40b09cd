"""All words of the app's pages: one JSON file a language, the same names in each. No torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path

HERE = Path(__file__).parent
# As their speakers call them.
LANGUAGES = {"en": "English", "de": "Deutsch", "ko": "한국어", "zh-Hant": "繁體中文"}


@functools.lru_cache
def words_of(language: str) -> dict[str, str]:
    """The words by name; ``{}`` in one is where a value goes."""
    words: dict[str, str] = json.loads((HERE / f"{language}.json").read_text(encoding="utf-8"))
    return words


def chosen(cookie: str, accepted: str) -> str:
    """The language that was chosen on a page, or else the first that the browser asks for."""
    if cookie in LANGUAGES:
        return cookie
    for part in accepted.split(","):
        asked = part.partition(";")[0].strip().lower()
        if asked in ("zh-tw", "zh-hk", "zh-mo") or asked.startswith("zh-hant"):
            return "zh-Hant"
        if (short := asked.partition("-")[0]) in LANGUAGES:
            return short
    return "en"
