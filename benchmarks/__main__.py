"""``python -m benchmarks``: one command per measurement, and ``all``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def main() -> None:
    """Measure what the project claims."""


json_option = click.option(
    "--json", "target", type=click.Path(path_type=Path), help="Write the rows to this file, too."
)


@main.command()
@json_option
def aot(target: Path | None) -> None:
    """Compile every kernel configuration ahead of time and print what ptxas says."""
    from benchmarks.aot import table
    from benchmarks.record import print_table

    rows = table()
    print_table(rows)
    if target is not None:
        target.write_text(json.dumps(rows, indent=2) + "\n")


@main.command("patch-nce")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Time torch.compile, too.")
@json_option
def patch_nce(device: str, compiled: bool, target: Path | None) -> None:
    """PatchNCE, forward and backward: ours against eager, torch.compile and the floor."""
    import torch

    from benchmarks.patch_nce import measure, same_curve
    from benchmarks.record import print_table, write_result

    types = [torch.bfloat16, torch.float32] if device == "cuda" else [torch.float32]
    rows = [row for dtype in types for row in measure(device, dtype, compiled=compiled)]
    print_table(rows)
    if device == "cuda":
        curve = same_curve(device, steps=100)
        print_table([curve])
        rows.append({"method": "training curve", **curve})
    if target is not None:
        write_result(target, device, rows)


@main.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@json_option
def crops(device: str, target: Path | None) -> None:
    """A step's crops: ours against resizing the whole image with Pillow for every crop."""
    from benchmarks.crops import measure
    from benchmarks.record import print_table, write_result

    rows = measure(device)
    print_table(rows)
    if target is not None:
        write_result(target, device, rows)


@main.command()
@click.argument("result", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="PNG file.")
def plot(result: Path, output: Path) -> None:
    """Draw RESULT, a patch-nce.json: time and memory against the number of rows."""
    from benchmarks.plot import plot

    plot(result, output)


@main.command("all")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.pass_context
def everything(context: click.Context, device: str, output: Path) -> None:
    """Run every measurement and write one JSON file each."""
    output.mkdir(parents=True, exist_ok=True)
    context.invoke(aot, target=output / "aot.json")
    context.invoke(patch_nce, device=device, compiled=True, target=output / "patch-nce.json")
    context.invoke(crops, device=device, target=output / "crops.json")
    context.invoke(plot, result=output / "patch-nce.json", output=output / "patch-nce.png")


if __name__ == "__main__":
    main()
