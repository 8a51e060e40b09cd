"""The pages say what is true: commands, options, settings, files and links of theirs exist."""

from __future__ import annotations

import ast
import dataclasses
import pkgutil
import re

import pytest
from click.testing import CliRunner

import sincut
from sincut.cli import main
from sincut.config.presets import FOLDER_PRESETS, PRESETS
from sincut.config.training import FolderConfig, PairConfig
from tests.test_architecture import ROOT, WINGS

README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
WITH_RULES = {**PAGES, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()}
TEXT = "\n".join(PAGES.values())
MAKE_SETTINGS_ANEW = "sincut info --settings > docs/settings.md"


def shell_lines() -> list[str]:
    """Every `sincut …` command of the shell blocks, continuation lines joined."""
    found = []
    for page in PAGES.values():
        blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", page, flags=re.DOTALL)
        text = "\n".join(blocks).replace("\\\n", " ")
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
        found += [line for line in lines if line.startswith("sincut ")]
    return list(dict.fromkeys(found))


def python_names() -> list[str]:
    """Every `sincut.NAME` of the page on Python."""
    page = PAGES["docs/python.md"]
    return sorted(set(re.findall(r"\bsincut(?:\.[A-Za-z]\w*)+", page)))


def heading_anchors(page: str) -> set[str]:
    """What links to headings of a page end with, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_commands() -> None:
    assert {line.split()[1] for line in shell_lines()} == set(main.commands)


@pytest.mark.parametrize("line", shell_lines())
def test_commands_and_options_exist(line: str) -> None:
    _, command, *words = line.split()
    if command.startswith("-"):
        return
    options = {name for p in main.commands[command].params for name in (*p.opts, *p.secondary_opts)}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in options, word


def test_settings_in_the_pages_are_fields() -> None:
    names = set(re.findall(r"--set\s+(\w+)=", TEXT))
    fields = {f.name for kind in (PairConfig, FolderConfig) for f in dataclasses.fields(kind)}
    assert names
    assert names - {"name"} <= fields


def test_the_readme_names_every_command_and_the_pages_every_preset() -> None:
    for name in main.commands:
        assert f"sincut {name}" in README
    for name in {**PRESETS, **FOLDER_PRESETS}:
        assert f"`{name}`" in TEXT


def test_the_page_of_settings_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(main, ["info", "--settings"]).output
    assert PAGES["docs/settings.md"] == printed, f"write it anew: {MAKE_SETTINGS_ANEW}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "info takes a run folder, a model file or --settings, got none"),
        (["run", "--settings"], "--settings stands alone, got run with it"),
        (["--settings", "--json"], "--settings stands alone, got --json with it"),
    ],
)
def test_info_takes_either_a_run_or_settings(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["info", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {message}; try sincut info --settings\n"


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)`|^make (\w+)\b", TEXT, flags=re.MULTILINE))
    assert targets
    for target in targets:
        assert f"\n{''.join(target)}:" in makefile


def test_the_extras_exist() -> None:
    """Those of the README's table, of commands that install one, and of errors that name one."""
    setup = next(
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.keyword) and node.arg == "extras_require"
    )
    assert isinstance(setup.value, ast.Dict)
    there = {key.value for key in setup.value.keys if isinstance(key, ast.Constant)}
    (table,) = re.findall(r"\| extra \|.*\n\|---.*\n((?:\|.*\n)+)", README)
    named = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`(\w+)`(?: \(|,)", row.split("|")[1])
    }
    named |= {name for names in re.findall(r"\.\[([\w,]+)\]", TEXT) for name in names.split(",")}
    for path in (ROOT / "sincut").rglob("*.py"):
        called = r'library\(\s*"[^"]+",\s*"[^"]+",\s*"(\w+)"'
        named |= set(re.findall(called, path.read_text()))
    assert len(named) >= 10
    assert named <= there
    assert there - named == {"test", "dev"}


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > (125 if line.startswith("|") else 110)] == []


def test_the_map_of_wings_is_true() -> None:
    """The README's map has a row for every wing, in the order of the wings, from the top down."""
    floors = {}
    for floor, line in enumerate(WINGS):
        for wing in line:
            path = wing.replace(".", "/")
            path = path.replace("sincut/kernels", "kernels").replace("sincut/cli", "cli")
            floors[f"{path}/" if (ROOT / path).is_dir() else f"{path}.py"] = floor
    rows = re.findall(r"^\| `([\w/]+/|[\w/]+\.py)` \|", README, flags=re.MULTILINE)
    assert sorted(rows) == sorted(floors)
    assert [floors[row] for row in rows] == sorted(floors.values())
    folders = {p for p in (ROOT / "sincut").iterdir() if p.is_dir() and not p.is_symlink()}
    packages = {f"sincut/{p.name}/" for p in folders if (p / "__init__.py").exists()}
    assert packages | {"kernels/", "cli/", "benchmarks/", "tests/"} <= set(rows)


def test_modules_in_the_rows_of_the_map_exist() -> None:
    for wing, text in re.findall(r"^\| `([\w/]+/)` \| (.*) \|$", README, flags=re.MULTILINE):
        for name in re.findall(r"`([\w/.-]+(?:\.py|/))`", text):
            assert (ROOT / wing / name).exists() or (ROOT / name).exists(), f"{wing}{name}"


@pytest.mark.parametrize("name", WITH_RULES)
def test_paths_of_modules_exist(name: str) -> None:
    folders = "sincut|kernels|cli|tests|benchmarks"
    for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w/.-]*\w/?)", WITH_RULES[name]):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", WITH_RULES)
def test_links_and_pictures_exist(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", WITH_RULES[name]):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in heading_anchors(target.read_text()), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    for name in PAGES:
        assert name == "README.md" or f"]({name})" in README, name


@pytest.mark.parametrize("name", python_names())
def test_what_the_page_on_python_names_exists(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None


def test_the_page_on_python_names_everything_public() -> None:
    assert {f"sincut.{name}" for name in sincut.__all__} <= set(python_names())


def test_nothing_was_left_to_fill_in() -> None:
    for name, page in WITH_RULES.items():
        assert not re.findall(r"\b(?:TODO|FIXME|(?!SLURM_)[A-Z]{3,}_[A-Z]+)\b", page), name
