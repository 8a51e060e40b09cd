"""``sincut export``."""

from __future__ import annotations

from pathlib import Path

import click

from sincut.cli.console import Console
from sincut.cli.options import PATH, field_option, json_option, quiet_option
from sincut.config.translating import TranslateConfig
from sincut.errors import printable


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL", type=PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=PATH,
    help="File to write, .onnx or .pt2.",
)
@click.option(
    "--format",
    metavar="onnx|torch-export",
    default="auto",
    help="What to write.  [default: by the output's ending]",
)
@click.option(
    "--noise",
    metavar="off|input",
    default="off",
    help="The noise that sincut translate adds: left out, or an input.  [default: off]",
)
@field_option(TranslateConfig, "border")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@quiet_option
@json_option
def export(
    model: Path,
    output: Path,
    format: str,
    noise: str,
    border: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a trained model for other programs.

    The file takes an image of any size as float32 sRGB from 0 to 1, (batch, 3, height, width), and
    gives its translation in the same form. It runs without sincut: .onnx in ONNX Runtime and other
    runtimes, .pt2 in PyTorch.
    """
    from sincut.translation.export import export as run
    from sincut.units import byte_text

    console = Console(quiet=quiet, as_json=as_json)
    options = {} if border is None else {"border": border}
    written = run(model, output, format=format, noise=noise, force=force, **options)
    for notice in written.notices:
        if not quiet:
            click.echo(printable(f"Note on {output}: {notice}."), err=True)
    console.record(written.to_dict())
    console.line(f"{output}: {written.format}, {byte_text(written.bytes)}")
    for kind, shapes in (("input", written.inputs), ("output", written.outputs)):
        for name, shape in shapes.items():
            sides = ", ".join(map(str, shape))
            console.line(f"  {kind} {name}: float32 ({sides}){_meaning(written.noise_sizes, name)}")
    rows, columns = written.smallest_size
    beyond = "zeros" if written.border == "zero" else "its own border"
    if written.halo:
        beyond = f"{written.halo} mirrored pixels"
    console.line(f"  any size from {columns}×{rows}; beyond the image the network sees {beyond}")
    if written.difference is not None:
        console.line(
            f"  on a trial image it differs from sincut by {written.difference:.1g} (white is 1)"
        )


def _meaning(noise_sizes: dict[str, tuple[str, str]], name: str) -> str:
    if name not in noise_sizes:
        return ", sRGB from 0 to 1"
    return ", at least {} × {}".format(*noise_sizes[name])
