"""``sincut report``."""

from __future__ import annotations

from pathlib import Path

import click

from sincut.cli.console import Console
from sincut.cli.options import PATH, field_option, quiet_option
from sincut.config.translating import TranslateConfig
from sincut.units import byte_text


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "-o",
    "--output",
    metavar="FILE.html",
    type=PATH,
    help="File to write.  [default: report.html in the run folder]",
)
@click.option(
    "--content",
    type=PATH,
    help="The run's content, image or folder, where it is neither here nor beside the run.",
)
@click.option("--style", type=PATH, help="The run's style, likewise.")
@click.option(
    "--result",
    type=PATH,
    help="A translation of the content to show, instead of one made for the report.",
)
@click.option(
    "--figures/--no-figures",
    default=None,
    help="Measure the result and the anchors.  [default: up to 2 megapixels an image]",
)
@field_option(TranslateConfig, "device")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def report(
    run: Path,
    output: Path | None,
    content: Path | None,
    style: Path | None,
    result: Path | None,
    figures: bool | None,
    device: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write what RUN came to as one HTML file that opens from disk, without a network.

    Before and after under a slider, crops, previews, curves, figures, settings, and the command
    that repeats the run.
    """
    console = Console(quiet=quiet, as_json=as_json)
    with console.progress() as update:
        from sincut.runs.reporting import report as make

        made = make(
            run,
            output,
            content=content,
            style=style,
            result=result,
            figures=figures,
            device=device or "auto",
            force=force,
            on_progress=update,
        )
    record = {"path": str(made.path), "bytes": made.size, "figures": made.figures}
    console.record({**record, "anchors": made.anchors})
    console.line(f"Report: {made.path} ({byte_text(made.size)})")
