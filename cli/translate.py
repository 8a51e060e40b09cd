"""``sincut translate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sincut.cli.console import Console, duration
from sincut.cli.options import field_option, json_option, quiet_option
from sincut.config import TranslateConfig

if TYPE_CHECKING:
    from sincut.translation import Progress, Translated


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Image file for one input; a folder for several.",
)
@field_option(TranslateConfig, "tile", metavar="PIXELS|auto|whole")
@field_option(TranslateConfig, "border")
@field_option(TranslateConfig, "seed")
@field_option(TranslateConfig, "device")
@field_option(TranslateConfig, "precision")
@field_option(TranslateConfig, "max_pixels")
@field_option(TranslateConfig, "strip_metadata")
@field_option(TranslateConfig, "verify")
@field_option(TranslateConfig, "force")
@quiet_option
@json_option
def translate(
    model: Path,
    inputs: tuple[Path, ...],
    output: Path,
    quiet: bool,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Translate INPUTS with a run folder or model file MODEL, at their full size.

    The image is worked on in tiles; the result is the same for every tile size.
    """
    console = Console(quiet=quiet, as_json=as_json)
    options = {name: value for name, value in fields.items() if value is not None}
    with console.progress() as update:
        from sincut.translation import translate as run

        def on_tile(progress: Progress) -> None:
            text = f"{progress.path.name} ({progress.index} of {progress.count})"
            update(text, progress.done, progress.total)

        run(
            model,
            inputs,
            output,
            on_tile=on_tile,
            on_image=lambda done: tell(console, done),
            **options,
        )


def tell(console: Console, done: Translated) -> None:
    """One line, or record, per written image."""
    console.record(
        {
            "event": "translated",
            "input": str(done.input),
            "output": str(done.output),
            "width": done.width,
            "height": done.height,
            "tiles": done.tiles,
            "seconds": round(done.seconds, 3),
            "notices": list(done.notices),
            "difference": done.difference,
        }
    )
    for notice in done.notices:
        console.line(f"Note on {done.input}: {notice}.")
    console.line(
        f"{done.output}: {done.width}×{done.height} in {duration(done.seconds)}, "
        f"{done.tiles} tile{'s' if done.tiles > 1 else ''}"
    )
    if done.difference is not None:
        console.line(f"Tiles with twice the halo differ by at most {done.difference:.2g} of 255.")
