"""The README's commands and options exist, and what it shows of the API runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sincut.cli import main
from sincut.config.presets import PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text()


def shell_lines() -> list[str]:
    """Every `sincut …` command of the README's shell blocks, continuation lines joined."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", README, flags=re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("sincut ")]


def test_there_are_commands() -> None:
    assert {line.split()[1] for line in shell_lines()} >= {"train", "translate", "info", "import"}


@pytest.mark.parametrize("line", shell_lines())
def test_commands_and_options_exist(line: str) -> None:
    _, command, *words = line.split()
    if command.startswith("-"):
        return
    options = {name for p in main.commands[command].params for name in (*p.opts, *p.secondary_opts)}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in options, word


def test_every_command_and_preset_is_documented() -> None:
    for name in main.commands:
        assert f"sincut {name}" in README
    for name in PRESETS:
        assert f"`{name}`" in README


def test_the_make_targets_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)`|^make (\w+)$", README, flags=re.MULTILINE)):
        assert f"\n{''.join(target)}:" in makefile


def test_the_map_of_files_is_true() -> None:
    root = Path(__file__).parents[1]
    mapped = re.findall(r"^\| `([\w/]+\.py|[\w/]+/)` \|", README, flags=re.MULTILINE)
    for path in mapped:
        assert (root / path).exists(), path
    for path in (
        p for folder in ("sincut", "sincut/files", "kernels") for p in root.glob(f"{folder}/*.py")
    ):
        assert path.name == "__init__.py" or str(path.relative_to(root)) in mapped, path


def test_pictures_and_pages_that_it_shows_exist() -> None:
    root = Path(__file__).parents[1]
    for path in re.findall(r"\]\(([\w/.-]+)\)", README):
        assert (root / path).exists(), path


def test_nothing_was_left_to_fill_in() -> None:
    assert not re.findall(r"\b[A-Z]{3,}_[A-Z]+\b", README)
