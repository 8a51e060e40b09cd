"""``python -m benchmarks``: one command per measurement, and ``all``."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sincut.config.presets import PRESETS

_PAPER = ["--preset", "paper"]


@click.group()
def main() -> None:
    """Measure what the project claims."""


device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True
)
json_option = click.option(
    "--json", "target", type=click.Path(path_type=Path), help="Write the rows to this file, too."
)


def presets_option(default: str) -> Callable[[Any], Any]:
    """``--preset``, repeatable; what it is when not given is said and left to the command."""
    return click.option(
        "--preset",
        "presets",
        type=click.Choice(list(PRESETS)),
        multiple=True,
        help=f"Repeatable.  [default: {default}]",
    )


@main.command()
@click.option("--for", "targets", type=int, multiple=True, help="90 for sm_90a; repeatable.  [all]")
@json_option
def aot(targets: tuple[int, ...], target: Path | None) -> None:
    """Compile every kernel configuration ahead of time and print what ptxas says."""
    from benchmarks.aot import TARGETS, table
    from benchmarks.record import print_table

    if unknown := set(targets) - set(TARGETS):
        raise click.BadParameter(
            f"{min(unknown)} is none of {', '.join(map(str, TARGETS))}", param_hint="--for"
        )
    rows = table(targets or tuple(TARGETS))
    print_table(rows)
    if target is not None:
        target.write_text(json.dumps(rows, indent=2) + "\n")


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
def seams(target: Path) -> None:
    """Draw what statistics of each tile do to a network that normalises (docs/seams.jpg)."""
    from benchmarks.seams import seams as draw

    click.echo(f"Tiles differ from one piece by at most {draw(target):g} of 255.")


@main.command("patch-nce")
@device_option
@click.option(
    "--type",
    "types",
    type=click.Choice(["bfloat16", "float32"]),
    multiple=True,
    help="Repeatable.  [default: float32; on CUDA both]",
)
@click.option("--compile/--no-compile", "compiled", default=True, help="Time torch.compile, too.")
@json_option
def patch_nce(device: str, types: tuple[str, ...], compiled: bool, target: Path | None) -> None:
    """PatchNCE, forward and backward: ours against eager, torch.compile and the floor."""
    import torch

    from benchmarks.patch_nce import measure, same_curve
    from benchmarks.record import print_table, write_result

    rows: list[dict[str, Any]] = []

    def keep(found: list[dict[str, Any]]) -> None:
        """Write at once: a run that is cut off has not been for nothing."""
        rows.extend(found)
        print_table(found)
        if target is not None:
            write_result(target, device, rows)

    for name in types or (("bfloat16", "float32") if device == "cuda" else ("float32",)):
        measure(device, getattr(torch, name), compiled=compiled, on_shape=keep)
    if device == "cuda":
        keep([{"method": "training curve", **same_curve(device, steps=100)}])


@main.command()
@device_option
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
@click.argument("presets", nargs=-1, required=True, type=click.Choice(list(PRESETS)))
@device_option
@click.option("--rows", default=40, show_default=True, help="Kernels that are printed.")
@json_option
def profile(presets: tuple[str, ...], device: str, rows: int, target: Path | None) -> None:
    """Where a training step's time goes: eager, recorded, kernel by kernel, beside a floor."""
    from benchmarks.profile import measure
    from benchmarks.record import print_table, write_result

    results = []
    for preset in presets:
        results.append(measure(preset, device, _tell))
        print_table(results[-1]["kernels"][:rows])
        if target is not None:
            write_result(target, device, results)


@main.command()
@json_option
def configurations(target: Path | None) -> None:
    """PatchNCE's launches, every candidate, timed on this GPU (needs CUDA)."""
    import torch

    from benchmarks.configurations import measure
    from benchmarks.record import write_result

    rows: list[dict[str, Any]] = []

    def told(row: dict[str, Any]) -> None:
        _tell(row)
        rows.append(row)
        if target is not None:
            write_result(target, "cuda", rows)

    for dtype in (torch.bfloat16, torch.float32):
        measure(dtype, told)


@main.command("train-step")
@device_option
@presets_option("published; on CUDA also paper")
@click.option("--steps", type=click.IntRange(1), help="Timed steps of ours, about.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Time torch.compile, too.")
@click.option("--changes", "by_change", is_flag=True, help="What each change of ours brings.")
@json_option
def train_step(
    device: str,
    presets: tuple[str, ...],
    steps: int | None,
    compiled: bool,
    by_change: bool,
    target: Path | None,
) -> None:
    """A training step: ours against the published one, written out literally.

    With --changes instead: ours with one change taken away at a time.
    """
    from benchmarks.record import print_table, write_result
    from benchmarks.train_step import changes, example_pair, measure

    pair = example_pair()
    rows = []
    for preset in presets or (("published", "paper") if device == "cuda" else ("published",)):
        if by_change:
            found = changes(preset, device, pair, steps=steps)
        else:
            found = measure(preset, device, pair, steps=steps, compiled=compiled)
        click.echo(f"{preset}: {found[0]['shapes']}")
        hidden = ("preset", "shapes")
        print_table([{k: v for k, v in row.items() if k not in hidden} for row in found])
        rows += found
        if target is not None:
            write_result(target, device, rows)


@main.command("folder-step")
@device_option
@click.option("--size", type=click.IntRange(32), default=256, show_default=True, help="Of crops.")
@click.option("--channels", type=click.IntRange(1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(1), help="Turns of every method.")
@json_option
def folder_step(
    device: str, size: int, channels: int, rounds: int | None, target: Path | None
) -> None:
    """A step on two folders: ours against CUT, FastCUT and CycleGAN, written out literally."""
    from benchmarks.folder_step import measure
    from benchmarks.record import print_table, write_result

    rows = measure(device, size=size, channels=channels, rounds=rounds)
    print_table(rows)
    if target is not None:
        write_result(target, device, rows)


@main.command("time-to-quality")
@device_option
@presets_option("draft; on CUDA paper")
@click.option("--content", type=click.Path(path_type=Path, exists=True), help="Image file.")
@click.option("--style", type=click.Path(path_type=Path, exists=True), help="Image file.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--minutes", type=float, help="Fit the length of every run to this.")
@click.option("--evaluations", type=click.IntRange(1), default=8, show_default=True)
@click.option("--every", type=float, help="Seconds of training between evaluations instead.")
@click.option("--both-directions", is_flag=True, help="The style as the content, too.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder.")
def time_to_quality(
    device: str,
    presets: tuple[str, ...],
    content: Path | None,
    style: Path | None,
    seeds: int,
    minutes: float | None,
    evaluations: int,
    every: float | None,
    both_directions: bool,
    output: Path,
) -> None:
    """Figures of quality against seconds of training: rows, a plot, the last translations."""
    from benchmarks.time_to_quality import Moments, write
    from benchmarks.train_step import example_pair
    from sincut.data.pair import Pair
    from sincut.images.reading.open import read_picture

    if content is not None and style is not None:
        pair = Pair(read_picture(content).rgb, read_picture(style).rgb)
    elif content is None and style is None:
        pair = example_pair()
    else:
        raise click.UsageError("give both --content and --style, or neither")
    chosen = list(presets) or ["paper" if device == "cuda" else "draft"]
    write(
        chosen,
        pair,
        device,
        output,
        seeds=seeds,
        minutes=dict.fromkeys(chosen, minutes) if minutes is not None else {},
        moments=Moments(evaluations, every),
        both_directions=both_directions,
        tell=_tell,
    )


@main.command()
@device_option
@click.option(
    "--channels",
    type=click.IntRange(1),
    multiple=True,
    help="Of the generator; repeatable.  [default: 4 and 16; on CUDA 40]",
)
@click.option(
    "--largest",
    type=click.IntRange(1),
    help="Largest image in megapixels: 1, 4, 16, 100, 400, 1074.  [default: 16; on CUDA 1074]",
)
@click.option("--fewer", is_flag=True, help="Leave out images of 4 and 400 megapixels.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="Turns of every method, up to 100 megapixels.  [default: 2; on CUDA 1]",
)
@click.option("--bits", type=click.Choice(["8", "16"]), default="8", show_default=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where images are written and removed again.  [default: the system's]",
)
@json_option
def translate(
    device: str,
    channels: tuple[int, ...],
    largest: int | None,
    fewer: bool,
    rounds: int | None,
    bits: str,
    folder: Path | None,
    target: Path | None,
) -> None:
    """Translating files: sincut against the bare network and against one forward of the whole."""
    from benchmarks.translate import (
        CHANNELS,
        FEWER_SIDES,
        LARGEST,
        ROUNDS,
        Settings,
        report,
        sides_up_to,
    )

    sides = sides_up_to(largest or LARGEST[device])
    if fewer:
        sides = [side for side in sides if side in FEWER_SIDES]
    place = folder or Path(tempfile.gettempdir())
    settings = Settings(device, place, sides, rounds or ROUNDS[device], bits=int(bits), tell=_tell)
    report(channels or CHANNELS[device], settings, target)


@main.command()
@click.option("--side", type=click.IntRange(64), default=8192, show_default=True, help="Pixels.")
@click.option("--channels", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--workers", "counts", type=click.IntRange(1), multiple=True, help="[default: 1 and 2]"
)
@click.option(
    "--cluster",
    "clusters",
    type=click.IntRange(1),
    multiple=True,
    help="Workers of a dask cluster of this machine, too.",
)
@click.option("--norms", is_flag=True, help="A network that normalises over the whole image.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the images are made and removed.  [default: the system's]",
)
@json_option
def shares(
    side: int,
    channels: int,
    counts: tuple[int, ...],
    clusters: tuple[int, ...],
    norms: bool,
    rounds: int,
    folder: Path | None,
    target: Path | None,
) -> None:
    """One image by several processes: equal, how much faster, and simulated up to 64.

    A gigapixel in turns: --side 32768 --channels 4 --rounds 2.
    """
    from benchmarks.record import print_table, write_result
    from benchmarks.shares import Way, measure

    ways = [Way(count) for count in counts or (1, 2)] + [Way(count, True) for count in clusters]
    place = folder or Path(tempfile.gettempdir())
    rows = measure(side, channels, ways, rounds, place, norms, click.echo)
    print_table(rows)
    if target is not None:
        write_result(target, "cpu", rows)


@main.command()
@click.argument("result", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="PNG file.")
def plot(result: Path, output: Path) -> None:
    """Draw RESULT, a patch-nce.json: time and memory against the number of rows."""
    from benchmarks.plot import plot

    plot(result, output)


def parts(device: str, output: Path) -> dict[str, tuple[str, list[str]]]:
    """What ``all`` runs: by name, what it writes in ``output``, and the command without that.

    What matters most comes first, as the time on a GPU may be short.
    """
    cuda = device == "cuda"
    # Short presets as they are, the long one in a short form; without a GPU one that ends at all.
    fitted = [] if cuda else ["--minutes", "2"]
    changed = [*_PAPER, "--steps", "500"] if cuda else ["--preset", "draft"]
    channels = ["--channels", "40" if cuda else "16"]
    found = {
        "profile": ("profile.json", ["profile", *(["paper", "fast"] if cuda else ["draft"])]),
        "train-step-paper": ("train-step-paper.json", ["train-step", *_PAPER, "--no-compile"]),
        "fast-to-quality": ("fast-to-quality", ["time-to-quality", "--preset", "fast"]),
        "draft-to-quality": ("draft-to-quality", ["time-to-quality", "--preset", "draft", *fitted]),
        "patch-nce": ("patch-nce.json", ["patch-nce"]),
        "plot": ("patch-nce.png", ["plot", str(output / "patch-nce.json")]),
        "crops": ("crops.json", ["crops"]),
        "changes": ("train-step-changes.json", ["train-step", "--changes", *changed]),
        "translate": ("translate.json", ["translate", "--fewer", *channels]),
        "train-step": ("train-step.json", ["train-step"]),
        "folder-step": ("folder-step.json", ["folder-step"]),
        "paper-to-quality": ("paper-to-quality", ["time-to-quality", *_PAPER, "--minutes", "2"]),
        "aot": ("aot.json", ["aot"]),
    }
    if not cuda:  # where a step of `paper` takes seconds, and one of `fast` a second
        for name in ("train-step-paper", "fast-to-quality", "paper-to-quality"):
            del found[name]
    if cuda:
        found["configurations"] = ("configurations.json", ["configurations"])
    for name, (_, command) in found.items():
        if name not in ("aot", "plot", "configurations"):
            command += ["--device", device]
    return found


@main.command("all")
@device_option
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--part", "only", multiple=True, help="Only this one; repeatable.")
def everything(device: str, output: Path, only: tuple[str, ...]) -> None:
    """Run every measurement, each in a process of its own, and write one result each.

    A part whose result is there is left out, so that an interrupted run can be gone on with. One
    that fails is named at the end, and the exit code is 1.
    """
    output = output.resolve()
    chosen = parts(device, output)
    for name in only:
        if name not in chosen:
            raise click.UsageError(
                f"--part must be one of {', '.join(chosen)}, got {name}; try --part crops"
            )
    begun = output / "begun"  # what is half written must not look like a result
    begun.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, (file, command) in chosen.items():
        if only and name not in only:
            continue
        if (output / file).exists():
            click.echo(f"{name}: {output / file} is there")
            continue
        click.echo(f"{name}: python -m benchmarks {' '.join(command)}")
        flag = "--json" if file.endswith(".json") else "--output"
        whole = [sys.executable, "-m", "benchmarks", *command, flag, str(begun / file)]
        if subprocess.run(whole, cwd=Path(__file__).parents[1]).returncode:
            failed.append(name)
        else:
            (begun / file).replace(output / file)
    with contextlib.suppress(OSError):  # something failed half way, and may be looked at
        begun.rmdir()
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def _tell(row: dict[str, Any]) -> None:
    click.echo(json.dumps(row))


if __name__ == "__main__":
    main()
