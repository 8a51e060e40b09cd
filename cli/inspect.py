"""``sincut inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sincut.cli.console import Console
from sincut.cli.options import PATH, field_option, json_option, quiet_option
from sincut.config.translating import InspectConfig, TranslateConfig
from sincut.errors import printable

if TYPE_CHECKING:
    from sincut.inspection.findings import Inspection


@click.command()
@click.argument("run", type=PATH)
@click.argument("image", type=PATH)
@click.option(
    "--at",
    "points",
    metavar="X,Y",
    multiple=True,
    required=True,
    help="A point of the result, in pixels of the upright image; may be given up to 32 times.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    help="Folder to write: index.html, sheet.png, inspect.json and all maps as PNG.",
)
@field_option(InspectConfig, "width")
@field_option(InspectConfig, "seed")
@field_option(TranslateConfig, "tile")
@field_option(TranslateConfig, "device")
@click.option("--force", is_flag=True, help="Make it again in a folder that holds an inspection.")
@json_option
@quiet_option
def inspect(
    run: Path,
    image: Path,
    points: tuple[str, ...],
    output: Path,
    width: str | None,
    seed: str | None,
    tile: str | None,
    device: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what the network RUN recognises in IMAGE.

    For every point of the result a map of its similarity to the places of the image, in every layer
    that PatchNCE compares; principal components of the features; and how often the right place wins
    against others. Look at index.html in the folder.
    """
    console = Console(quiet=quiet, as_json=as_json)
    with console.progress() as update:
        from sincut.inspection.inspect import inspect as make

        found = make(
            run,
            image,
            points,
            output,
            width=width,
            seed=seed,
            tile=tile,
            device=device,
            force=force,
            on_progress=update,
        )
    if not quiet:
        for notice in found.notices:
            click.echo(printable(f"Note on {image}: {notice}."), err=True)
    console.record({"output": str(output), **found.to_dict()})
    for line in _lines(found, output):
        console.line(line)


def _lines(found: Inspection, output: Path) -> list[str]:
    """What was found, for a person."""
    lines = []
    for number, (x, y) in enumerate(found.points):
        told = []
        for layer in found.layers:
            match = layer.matches[number]
            told.append(f"layer {layer.layer} {match.where} (rank {match.rank})")
        lines.append(f"Point {x},{y}: {'; '.join(told)}")
    for layer in found.layers:
        shares = [f"{value:.1%} among {n + 1}" for n, value in layer.accuracy.items()]
        wins = f"the right place wins {', '.join(shares)} ({layer.queries} queries)"
        lines.append(f"Layer {layer.layer}: {wins if shares else 'too few places to ask'}")
    return [*lines, f"Look at {output / 'index.html'}"]
