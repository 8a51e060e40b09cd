"""``sincut evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sincut.cli.console import Console

if TYPE_CHECKING:
    from sincut.evaluation.evaluate import Evaluation
    from sincut.evaluation.figures import Figures


@click.command()
@click.argument("content", type=click.Path(path_type=Path))
@click.argument("style", type=click.Path(path_type=Path))
# As text: the keys of the result are the paths as they were typed.
@click.argument("outputs", nargs=-1, required=True, metavar="OUTPUT...", type=click.Path())
@click.option(
    "--anchors", is_flag=True, help="Measure simple colour transfers and style blocks as well."
)
@click.option(
    "--model",
    metavar="RUN_OR_MODEL",
    type=click.Path(path_type=Path),
    help="Measure how well this run or model file leaves the style image as it is.",
)
@click.option(
    "--plot",
    metavar="FILE.png",
    type=click.Path(path_type=Path),
    help="Draw the outputs among the anchors (implies --anchors).",
)
@click.option("--force", is_flag=True, help="Overwrite an existing plot.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    content: Path,
    style: Path,
    outputs: tuple[str, ...],
    anchors: bool,
    model: Path | None,
    plot: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure translations OUTPUT of CONTENT towards STYLE.

    Prints colour, texture and a two-sample test against the style, and two figures of structure
    against the content. Everything is compared at its own size.
    """
    console = Console(quiet=False, as_json=as_json)
    with console.progress() as update:
        from sincut.evaluation.evaluate import evaluate as run
        from sincut.evaluation.plot import check_plot, draw_plane

        if plot is not None:
            check_plot(plot, [content, style, *outputs], force=force)
        found = run(
            content,
            style,
            outputs,
            model=model,
            anchors=anchors or plot is not None,
            on_progress=update,
        )
        if plot is not None:
            draw_plane(found, plot)
    for path, notice in found.notices:
        click.echo(f"Note on {path}: {notice}.", err=True)
    if as_json:
        click.echo(json.dumps(found.to_dict(), allow_nan=False))
    else:
        _print_table(found)


def _print_table(found: Evaluation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    from sincut.runs.report_page import FIGURES

    table = Table(box=SIMPLE_HEAD)
    table.add_column("output", overflow="fold")
    for name, _ in FIGURES.values():
        table.add_column(name, justify="right", no_wrap=True)
    if found.anchors:
        table.add_column("beyond")

    def add(name: str, figures: Figures, beyond: str, style: str | None = None) -> None:
        cells = [f"{getattr(figures, field):.3f}" for field in FIGURES]
        table.add_row(Text(name), *cells, *([beyond] if found.anchors else []), style=style)

    for path, figures in found.outputs.items():
        add(path, figures, "yes" if found.anchors and found.beyond(path) else "no")
    table.add_section()
    for name, figures in found.anchors.items():
        add(f"anchor: {name}", figures, "", style="dim")
    terminal = Terminal(highlight=False)
    if not terminal.is_terminal:
        terminal.width = 1000  # what is read by a program or a file is not folded
    terminal.print(table)
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
