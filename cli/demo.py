"""``sincut demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sincut.cli.console import Console
from sincut.cli.options import field_option, quiet_option
from sincut.cli.train import listener
from sincut.config.training import PairConfig
from sincut.units import duration


@click.command()
@click.option(
    "-o",
    "--output",
    default="sincut-demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to write.",
)
@field_option(PairConfig, "steps", default="of draft")
@field_option(PairConfig, "seed")
@field_option(PairConfig, "device")
@click.option("--force", is_flag=True, help="Make it again in a folder that holds one.")
@quiet_option
def demo(output: Path, force: bool, quiet: bool, **fields: str | None) -> None:
    """Make an example pair, train the preset draft on it, translate, and say where it all is."""
    changes: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    console = Console(quiet=quiet, as_json=False)
    with console.progress() as update:
        from sincut.demo.make import make_demo

        result = make_demo(output, force=force, listener=listener(console, update), **changes)
    if result.signal:
        console.line(f"Interrupted after step {max(result.step, 0)}; to make it again: --force")
        sys.exit(128 + result.signal)
    console.line(f"Made in {duration(result.seconds)}. Look at them:")
    for name, path in result.pictures.items():
        console.line(f"  {name:<8} {path}")
    if result.report:
        console.line(f"  {'report':<8} {result.report}")
