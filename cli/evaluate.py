"""``sincut evaluate``."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from sincut.cli.console import Console
from sincut.cli.options import NAME, PATH, image_options, part_options
from sincut.config.parts import PartSettings
from sincut.errors import SincutError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from sincut.evaluation.evaluate import Evaluation
    from sincut.evaluation.figures import Figures
    from sincut.evaluation.folders import FolderEvaluation
    from sincut.evaluation.set_distances import Measured

    _Found = TypeVar("_Found", Evaluation, FolderEvaluation)

# By name: how it is headed, what it means, and to how many digits it is told.
_DISTANCES = {
    "KID_lite": (
        "KID-lite ↓",
        "distance of the set to the styles, EfficientNet-Lite0's features",
        4,
    ),
    "KID_lite_crops": ("crops ↓", "KID-lite of a square of 224 pixels from each image's middle", 4),
    "KID": ("KID ↓", "distance of the set to the styles by --features, whatever their number", 4),
    "FID": ("FID ↓", "the same for large sets; fewer images have a larger one", 2),
}


@click.command()
@click.argument("content", type=PATH)
@click.argument("style", type=PATH)
# As text: the keys of the result are the paths as they were typed.
@click.argument("outputs", nargs=-1, required=True, metavar="OUTPUT...", type=NAME)
@click.option(
    "--anchors", is_flag=True, help="Measure simple colour transfers and style blocks as well."
)
@click.option(
    "--model",
    metavar="RUN_OR_MODEL",
    type=PATH,
    help="Measure how well this run or model file leaves the style image as it is.",
)
@click.option(
    "--plot",
    metavar="FILE.png",
    type=PATH,
    help="Draw the outputs among the anchors (implies --anchors).",
)
@click.option(
    "-o",
    "--output",
    "kept",
    metavar="FILE.json",
    type=PATH,
    help="Keep the figures as JSON in a file, which is written before anything is printed.",
)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option(
    "--features",
    metavar="FILE",
    type=PATH,
    help="Measure folders by KID and FID of this network's features. A TorchScript file, and its "
    "code is run. It takes float32 (N, 3, 299, 299), RGB of 0 to 255, and returns (N, D).",
)
@image_options
@part_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    content: Path,
    style: Path,
    outputs: tuple[str, ...],
    anchors: bool,
    model: Path | None,
    plot: Path | None,
    kept: Path | None,
    force: bool,
    features: Path | None,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Measure translations OUTPUT of CONTENT towards STYLE.

    Prints colour, texture and a two-sample test against the style, and two figures of structure
    against the content. Everything is compared at its own size.

    Given three folders, OUTPUT holds a translation of every image of CONTENT, of the same name with
    any ending. Prints the structure image by image, and how far the translations as a set are from
    the images of STYLE.
    """
    from sincut.evaluation.evaluate import evaluate as evaluate_files
    from sincut.evaluation.folders import are_folders, evaluate_folders
    from sincut.evaluation.plot import check_plot, draw_plane

    console = Console(quiet=False, as_json=as_json)
    if kept is not None:
        _check_kept(kept, [content, style, *map(Path, outputs)], force=force)
    values = {name: value for name, value in fields.items() if value is not None}
    if are_folders(content, style, outputs):
        for_files: dict[str, object] = {"--anchors": anchors, "--model": model, "--plot": plot}
        for_files["--force"] = force and kept is None
        for field in dataclasses.fields(PartSettings):
            for_files[f"--{field.name.replace('_', '-')}"] = values.get(field.name)
        _refuse("folders", for_files)
        with console.progress() as update:
            of_folders = evaluate_folders(
                content, style, outputs[0], features=features, on_progress=update, **values
            )
        _tell(of_folders, _print_folders, as_json, kept)
        return
    _refuse("files", {"--features": features})
    with console.progress() as update:
        if plot is not None:
            check_plot(plot, [content, style, *outputs], force=force)
        found = evaluate_files(
            content,
            style,
            outputs,
            model=model,
            anchors=anchors or plot is not None,
            on_progress=update,
            **values,
        )
        if plot is not None:
            draw_plane(found, plot)
    _tell(found, _print_table, as_json, kept)


def _refuse(given: str, options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value:
            other = "files" if given == "folders" else "folders"
            raise SincutError(f"{option} is for {other}, got {given}; try without it")


def _check_kept(path: Path, inputs: Sequence[Path], *, force: bool) -> None:
    from sincut.files import check_file, check_free

    check_file(path)
    if path.suffix.lower() != ".json":
        raise SincutError(
            f"figures are kept in a JSON file, got {path}; try {path.with_suffix('.json').name}"
        )
    check_free(path, force=force, inputs=inputs)


def _tell(found: _Found, show: Callable[[_Found], None], as_json: bool, kept: Path | None) -> None:
    text = json.dumps(found.to_dict(), allow_nan=False)
    if kept is not None:
        from sincut.files import write_text

        write_text(kept, f"{text}\n")
    try:
        for path, notice in found.notices:
            click.echo(printable(f"Note on {path}: {notice}."), err=True)
        if as_json:
            click.echo(text)
        else:
            show(found)
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads this has left
            raise
        where = "measure again with -o FILE.json" if kept is None else f"they are in {kept}"
        raise SincutError(f"the figures cannot be printed ({error.strerror}); {where}") from None


def _print_folders(found: FolderEvaluation) -> None:
    from rich.text import Text

    from sincut.runs.report_page import FIGURES

    columns = {name: (*FIGURES[name], 3) for name in ("C1", "C2")}
    columns |= {name: _DISTANCES[name] for name in found.distances}
    table = _table([label for label, *_ in columns.values()])
    for path, structure in found.images.items():
        table.add_row(Text(printable(path)), f"{structure.C1:.3f}", f"{structure.C2:.3f}")
    table.add_section()

    def add(name: str, values: dict[str, Measured], style: str | None = None) -> None:
        cells = []
        for column, (_, _, digits) in columns.items():
            value = values.get(column)
            numbers = () if value is None else (value.mean, value.std)
            cells.append(" ± ".join(f"{n:.{digits}f}" for n in numbers if n is not None))
        table.add_row(name, *cells, style=style)

    add("all translations", {**found.summary(), **found.distances})
    if found.distances:
        add("anchor: the contents as they are", found.anchor, "dim")
        add("floor: half of the styles to the other", found.floor, "dim")
    _print(table)
    for label, meaning, _ in columns.values():
        click.echo(f"{label:<10}  {meaning}")
    click.echo("↓ lower is better, ↑ higher is. No one of them says enough alone.")


def _table(columns: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("output", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    from rich.console import Console as Terminal

    terminal = Terminal(highlight=False)
    if not terminal.is_terminal:
        terminal.width = 1000  # what is read by a program or a file is not folded
    terminal.print(table)


def _print_table(found: Evaluation) -> None:
    from rich.text import Text

    from sincut.runs.report_page import FIGURES

    table = _table([name for name, _ in FIGURES.values()])
    if found.anchors:
        table.add_column("beyond")

    def add(name: str, figures: Figures, beyond: str, style: str | None = None) -> None:
        cells = [f"{getattr(figures, field):.3f}" for field in FIGURES]
        table.add_row(
            Text(printable(name)), *cells, *([beyond] if found.anchors else []), style=style
        )

    for path, figures in found.outputs.items():
        add(path, figures, "yes" if found.anchors and found.beyond(path) else "no")
    table.add_section()
    for name, figures in found.anchors.items():
        add(f"anchor: {name}", figures, "", style="dim")
    _print(table)
    if found.identity is not None:
        it = found.identity
        click.echo(
            f"Identity, G(style) against the style: L1 {it.L1:.3f}, PSNR {it.PSNR:.1f} dB, "
            f"C1 {it.C1:.3f}, S2 {it.S2:.3f}."
        )
    for name, meaning in FIGURES.values():
        click.echo(f"{name:<10}  {meaning}")
    if found.anchors:
        line = "better than the line IDT → 16-px blocks → 64-px blocks in C1 and S3"
        click.echo(f"{'beyond':<10}  {line}")
    click.echo("↓ lower is better, ↑ higher is. No one of them says enough alone.")
