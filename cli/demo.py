"""``sincut demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sincut.cli.console import Console
from sincut.cli.options import PATH, field_option, quiet_option
from sincut.cli.train import listener
from sincut.config.training import PairConfig
from sincut.units import duration


@click.command()
@click.option(
    "-o",
    "--output",
    default="sincut-demo",
    show_default=True,
    type=PATH,
    help="Folder to write.",
)
@click.option(
    "--folders", is_flag=True, help="Make two folders of images instead, and train cut-small."
)
@field_option(PairConfig, "steps", default="of draft, or of cut-small")
@field_option(PairConfig, "seed")
@field_option(PairConfig, "device")
@click.option("--force", is_flag=True, help="Make it again in a folder that holds one.")
@quiet_option
def demo(output: Path, folders: bool, force: bool, quiet: bool, **fields: str | None) -> None:
    """Make an example pair, train the preset draft on it, translate, and say where it all is.

    With --folders: two folders of images that do not belong together in pairs.
    """
    changes: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    console = Console(quiet=quiet, as_json=False)
    with console.progress() as update:
        from sincut.demo.make import make_demo, make_folder_demo

        make = make_folder_demo if folders else make_demo
        result = make(output, force=force, listener=listener(console, update), **changes)
    if result.signal:
        console.line(f"Interrupted after step {max(result.step, 0)}; to make it again: --force")
        sys.exit(128 + result.signal)
    console.line(f"Made in {duration(result.seconds)}. Look at them:")
    for name, path in result.pictures.items():
        console.line(f"  {name:<8} {path}")
    if result.report:
        console.line(f"  {'report':<8} {result.report}")
