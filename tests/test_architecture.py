"""Imports point down, the command line starts light, everything is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The wings from the top down. What stands in a line may import from the lines below, and within its
# own wing without circles; never from a line above, nor from a neighbour on the same line.
WINGS = (
    ("tests",),
    ("benchmarks",),
    ("sincut.__main__",),
    ("sincut.cli",),
    ("sincut.app",),
    ("sincut.ablation", "sincut.demo"),
    ("sincut.runs",),
    ("sincut.evaluation", "sincut.inspection"),
    ("sincut.training", "sincut.translation"),
    ("sincut.data",),
    ("sincut.images", "sincut.models"),
    ("sincut.compute",),
    ("sincut.config",),
    ("sincut.pages",),
    ("sincut.files", "sincut.signals", "sincut.units"),
    ("sincut.errors", "sincut.version"),
    ("sincut.kernels",),
)


def modules() -> dict[str, Path]:
    """Every Python file of the repository by its module's name."""
    found = {}
    for folder, package in (
        ("sincut", "sincut"),
        ("kernels", "sincut.kernels"),
        ("cli", "sincut.cli"),
        ("tests", "tests"),
        ("benchmarks", "benchmarks"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT / folder)
            if folder == "sincut" and inside.parts[0] in ("kernels", "cli"):
                continue  # links to the folders that are read by themselves
            name = ".".join([package, *inside.with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found


def wing(module: str) -> str | None:
    """The wing that a module belongs to; the package itself, with its public names, has none."""
    for line in WINGS:
        for name in line:
            if module == name or module.startswith(f"{name}."):
                return name
    return None


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules of this project that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {name for name in names if name in ALL_MODULES}
            found |= known
            if known != names:
                found.add(node.module)
    return found


ALL_MODULES = modules()
FLOOR = {name: floor for floor, line in enumerate(reversed(WINGS)) for name in line}


def test_every_module_is_in_a_wing() -> None:
    assert {name for name in ALL_MODULES if wing(name) is None} == {"sincut"}
    assert set(map(wing, ALL_MODULES)) - {None} == set(FLOOR)


@pytest.mark.parametrize("module", [name for name in sorted(ALL_MODULES) if name != "sincut"])
def test_imports_point_down(module: str) -> None:
    here = wing(module)
    for imported in imports(ALL_MODULES[module]) & set(ALL_MODULES) - {"sincut"}:
        there = wing(imported)
        assert here == there or FLOOR[there] < FLOOR[here], f"{module} imports {imported}"


def test_there_is_no_circle() -> None:
    graph = {name: imports(path) - {"sincut"} for name, path in ALL_MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_few_modules_stand_directly_in_the_package() -> None:
    alone = {path.name for path in (ROOT / "sincut").glob("*.py")} - {"__init__.py"}
    assert len(alone) <= 6


def test_the_package_itself_imports_nothing_at_once() -> None:
    at_once = imports(ALL_MODULES["sincut"], top_level_only=True)
    assert {name for name in at_once if name.startswith("sincut")} == {"sincut.version"}


def test_kernels_know_nothing_of_sincut() -> None:
    for name, path in ALL_MODULES.items():
        if wing(name) == "sincut.kernels":
            assert all(i.startswith("sincut.kernels") for i in imports(path) if "sincut" in i)


def test_commands_import_only_light_modules_at_once() -> None:
    light = {"sincut", "sincut.errors", "sincut.units", "sincut.version"}
    for name, path in ALL_MODULES.items():
        if wing(name) == "sincut.cli":
            for imported in imports(path, top_level_only=True):
                if imported.startswith("sincut") and imported not in light:
                    assert wing(imported) in ("sincut.cli", "sincut.config"), (name, imported)


def loaded_after(statement: str) -> set[str]:
    """The top-level packages in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(output.stdout.split())


def test_the_command_line_loads_neither_torch_nor_numpy() -> None:
    assert not loaded_after("import sincut.cli") & {"torch", "numpy", "PIL", "rich", "triton"}


def test_what_needs_no_torch_does_not_load_it() -> None:
    """Whatever says so in its docstring, and whole wings, module by module."""
    wings = ("sincut.config", "sincut.pages", "sincut.images", "sincut.files", "sincut.units")
    wanted = [
        name
        for name, path in ALL_MODULES.items()
        if wing(name) in wings
        or "No torch" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]
    wanted += ["sincut.evaluation.figures", "sincut.evaluation.anchors", "sincut.runs.folder"]
    wanted += ["sincut.runs.model_card", "sincut.runs.events", "sincut.translation.tiling"]
    assert len(wanted) > 30
    code = f"""
import importlib, sys
for name in {wanted!r}:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_folders_at_the_top_are_the_packages() -> None:
    import sincut.cli
    import sincut.kernels

    for package in (sincut.cli, sincut.kernels):
        assert package.__file__ is not None
        name = package.__name__.split(".")[1]
        assert (ROOT / "sincut" / name).is_symlink()
        assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"


@pytest.mark.parametrize(
    "path", sorted(ALL_MODULES.values()), ids=lambda p: str(p.relative_to(ROOT))
)
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.is_relative_to(ROOT / "tests"):
        return
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
    for node in tree.body:
        bodies = [node] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bodies = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        for function in bodies:
            if not function.name.startswith("_"):
                assert ast.get_docstring(function), function.name


# Why these are longer: a kernel's body is one program, and a page's is mostly its text.
LONGER = {"_with_tile", "attend", "finish_query", "_page"}


@pytest.mark.parametrize(
    "path", sorted(set(ALL_MODULES.values())), ids=lambda p: str(p.relative_to(ROOT))
)
def test_functions_are_short(path: Path) -> None:
    """At most sixty lines, the docstring not counted."""
    if path.is_relative_to(ROOT / "tests"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name not in LONGER:
            text = ast.get_docstring(node)
            lines = (node.end_lineno or 0) - node.lineno - len((text or "").splitlines())
            assert lines <= 60, f"{node.name} has {lines} lines"
