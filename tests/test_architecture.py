"""Imports point down, the command line starts light, everything is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Which floor a module stands on; it may import from lower floors, and within its own package.
FLOORS = {
    "sincut": 0,  # the package itself: the version, and lazy access to the public functions
    "sincut.errors": 0,
    "sincut.signals": 0,
    "sincut.units": 0,
    "sincut.images.bit_depth": 0,
    "sincut.files": 0,  # the folder itself
    "sincut.translation.tiling": 0,
    "sincut.images.metadata": 0,
    "sincut.images.writing.layout": 0,
    "sincut.kernels": 0,
    "sincut.config": 1,
    "sincut.data.colour_transfer": 1,
    "sincut.images.profiles": 1,
    "sincut.evaluation.figures": 1,
    "sincut.example": 1,
    "sincut.models.textures": 1,
    "sincut.data.random_numbers": 1,
    "sincut.images.writing.part_file": 1,
    "sincut.files_": 1,
    "sincut.images.reading.rows": 1,
    "sincut.pages.viewer": 1,
    "sincut.images.reading.pillow": 2,
    "sincut.images.writing.png": 2,
    "sincut.images.writing.tiff": 2,
    "sincut.images.reading.tiff": 2,
    "sincut.images.reading.samples": 2,
    "sincut.evaluation.anchors": 2,
    "sincut.models.layers": 2,
    "sincut.training.losses": 2,
    "sincut.data.crops": 2,
    "sincut.compute.cuda_graph": 2,
    "sincut.compute.devices": 2,
    "sincut.translation.guided_upsampling": 2,
    "sincut.images.reading.source": 3,
    "sincut.images.writing.writer": 3,
    "sincut.translation.deep_zoom_page": 4,
    "sincut.pages": 4,
    "sincut.runs.live_page": 5,
    "sincut.runs.model_card": 5,
    "sincut.runs.tensorboard": 5,
    "sincut.data.matching": 3,
    "sincut.checkpoint": 3,
    "sincut.models.published": 3,
    "sincut.runs.folder": 3,
    "sincut.training": 4,
    "sincut.translation.inputs": 4,
    "sincut.translation.tiles": 4,
    "sincut.translation.bands": 5,
    "sincut.runs.final_colours": 5,
    "sincut.translation.plan": 6,
    "sincut.translation.one_image": 7,
    "sincut.translation": 8,
    "sincut.runs.estimate": 7,
    "sincut.evaluation": 9,
    "sincut.translation.export": 9,
    "sincut.inspection.findings": 1,
    "sincut.pages.heat_maps": 1,
    "sincut.inspection.similarity_pictures": 2,
    "sincut.inspection": 9,
    "sincut.inspection.inspect": 10,
    "sincut.runs.report": 10,
    "sincut.ablation.page": 10,
    "sincut.ablation.trials": 11,
    "sincut.ablation.folder": 12,
    "sincut.ablation": 13,
    "sincut.runs.recorder": 11,
    "sincut.runs.train": 12,
    "sincut.demo": 13,
    "sincut.cli": 14,
    "sincut.__main__": 15,
    "tests": 16,
    "benchmarks": 15,
}
PACKAGES = (
    "sincut.kernels",
    "sincut.example",
    "sincut.pages.viewer",
    "sincut.pages",
    "sincut.cli",
    "tests",
    "benchmarks",
)
WITHOUT_TORCH = (
    "errors",
    "units",
    "depth",
    "tiling",
    "config",
    "colour",
    "quality",
    "anchors",
    "files.metadata",
    "files.layout",
    "files.profiles",
    "files.partfile",
    "files.places",
    "files.rows",
    "files.viewer",
    "files.images",
    "files.encoders",
    "files.tiffs",
    "files.tiff_source",
    "files.samples",
    "files.sources",
    "files.outputs",
    "files.deepzoom",
    "runfolder",
    "pages",
    "pages.charts",
    "pages.pictures",
    "pages.report",
    "findings",
    "heat",
    "inspect_pictures",
    "live",
    "card",
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


def place(module: str) -> str:
    """The entry of FLOORS that a module belongs to."""
    for package in PACKAGES:
        if module == package or module.startswith(f"{package}."):
            return package
    return module


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


def test_every_module_has_a_floor() -> None:
    assert {place(name) for name in ALL_MODULES} <= set(FLOORS)
    assert all(floor in map(place, ALL_MODULES) or floor == "benchmarks" for floor in FLOORS)


@pytest.mark.parametrize("module", [name for name in sorted(ALL_MODULES) if name != "sincut"])
def test_imports_point_down(module: str) -> None:
    here = place(module)
    for imported in imports(ALL_MODULES[module]):
        if imported.split(".")[0] not in ("sincut", "tests", "benchmarks"):
            continue
        there = place(imported)
        assert here == there or FLOORS[there] < FLOORS[here], f"{module} imports {imported}"


def test_the_package_itself_imports_nothing_at_once() -> None:
    assert not [
        name
        for name in imports(ALL_MODULES["sincut"], top_level_only=True)
        if name.startswith("sincut")
    ]


def test_kernels_know_nothing_of_sincut() -> None:
    for name, path in ALL_MODULES.items():
        if place(name) == "sincut.kernels":
            assert all(i.startswith("sincut.kernels") for i in imports(path) if "sincut" in i)


def test_commands_import_only_light_modules_at_once() -> None:
    light = {"sincut", "sincut.errors", "sincut.config", "sincut.units"}
    for name, path in ALL_MODULES.items():
        if place(name) == "sincut.cli":
            for imported in imports(path, top_level_only=True):
                if imported.startswith("sincut"):
                    assert imported in light or place(imported) == "sincut.cli", (name, imported)


def loaded_after(statement: str) -> set[str]:
    """The top-level packages in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(output.stdout.split())


def test_the_command_line_loads_neither_torch_nor_numpy() -> None:
    assert not loaded_after("import sincut.cli") & {"torch", "numpy", "PIL", "rich", "triton"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_low_floors_do_not_load_torch(module: str) -> None:
    assert "torch" not in loaded_after(f"import sincut.{module}")


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
