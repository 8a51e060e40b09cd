"""``sincut translate``."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sincut.cli.console import Console
from sincut.cli.options import PATH, field_option, json_option, quiet_option
from sincut.config.translating import TranslateConfig
from sincut.units import byte_text, duration

if TYPE_CHECKING:
    from sincut.translation.one_image import Translated
    from sincut.translation.plan import Plan
    from sincut.translation.shards import Share
    from sincut.translation.translate import Progress

_EVERY = 1.0  # seconds between records of how many tiles are done


@click.command()
@click.argument("model", type=PATH)
@click.argument("inputs", nargs=-1, required=True, type=PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    help="Image file for one input (.tif .png .jpg .webp .dzi .ome.zarr); a folder for several.",
)
@field_option(TranslateConfig, "working_width", metavar="PIXELS")
@field_option(TranslateConfig, "strength")
@field_option(TranslateConfig, "brushwork")
@field_option(TranslateConfig, "mask", default="none", metavar="IMAGE")
@field_option(TranslateConfig, "level")
@field_option(TranslateConfig, "region", metavar="X,Y,W,H")
@field_option(TranslateConfig, "workers")
@field_option(TranslateConfig, "shard", metavar="I/N")
@field_option(TranslateConfig, "cluster", metavar="ADDRESS")
@field_option(TranslateConfig, "range", metavar="LOW,HIGH|auto|full|learned")
@field_option(TranslateConfig, "bands", default="the first ones", metavar="R,G,B")
@field_option(TranslateConfig, "other_bands")
@field_option(TranslateConfig, "depth")
@field_option(TranslateConfig, "compression")
@field_option(TranslateConfig, "pyramid")
@field_option(TranslateConfig, "ome_zarr")
@field_option(TranslateConfig, "strip_metadata")
@field_option(TranslateConfig, "dry_run")
@field_option(TranslateConfig, "resume")
@field_option(TranslateConfig, "skip_existing")
@field_option(TranslateConfig, "force")
@field_option(TranslateConfig, "max_memory", metavar="AMOUNT")
@field_option(TranslateConfig, "max_pixels")
@field_option(TranslateConfig, "tile", metavar="PIXELS|auto|whole")
@field_option(TranslateConfig, "verify")
@field_option(TranslateConfig, "border")
@field_option(TranslateConfig, "seed")
@field_option(TranslateConfig, "device")
@field_option(TranslateConfig, "precision")
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

    INPUTS are image files, folders of them, or quoted patterns. An image is read, worked on and
    written piece by piece, so it may be larger than memory; the result is the same for every size
    of the pieces. What was interrupted goes on with the same command and --resume.
    """
    console = Console(quiet=quiet, as_json=as_json)
    options = {name: value for name, value in fields.items() if value is not None}
    with console.progress() as update:
        from sincut.translation.translate import translate as run

        told = time.monotonic()

        def on_tile(progress: Progress) -> None:
            nonlocal told
            text = f"{progress.path.name} ({progress.index} of {progress.count})"
            update(text, progress.done, progress.total)
            if time.monotonic() - told >= _EVERY:
                told = time.monotonic()
                tiles = {"done": progress.done, "total": progress.total}
                console.record({"event": "tiles", "input": str(progress.path), **tiles})

        run(
            model,
            inputs,
            output,
            on_plan=lambda plan: tell_plan(console, plan),
            on_tile=on_tile,
            on_image=lambda done: tell(console, done),
            on_skip=lambda target: tell_skipped(console, target),
            on_failure=lambda source, why: tell_failed(console, source, why),
            on_share=lambda share: tell_share(console, share),
            **options,
        )


def tell_plan(console: Console, plan: Plan) -> None:
    """One line, or record, before an image is worked on."""
    record = dataclasses.asdict(plan)
    record |= {"input": str(plan.input), "output": str(plan.output)}
    console.record({"event": "plan", **record})
    tiles = f"{plan.tiles} tile{'s' if plan.tiles > 1 else ''} of {plan.tile} pixels"
    if plan.working is not None:
        tiles += f", the network at {plan.working[0]}×{plan.working[1]}"
    if plan.done:
        tiles += f", {plan.done} of {plan.bands} {plan.part}s done before"
    if plan.passes > 1:
        tiles += f", {plan.passes} passes"
    memory = f"{byte_text(plan.host_bytes)} of memory"
    if plan.workers > 1:
        memory += f" in each of {plan.workers} processes"
    if plan.device_bytes:
        memory += f" and {byte_text(plan.device_bytes)} on the GPU"
    scratch = f", scratch {byte_text(plan.scratch_bytes)}" if plan.scratch_bytes else ""
    time = "" if plan.seconds is None else f", {duration(plan.seconds)}"
    console.line(
        f"{plan.input}: {plan.width}×{plan.height}, {plan.depth}; {tiles}; at most {memory}, "
        f"{byte_text(plan.disk_bytes)} of disk ({byte_text(plan.free_bytes)} free)"
        f"{scratch}{time}"
    )


def tell_skipped(console: Console, target: Path) -> None:
    """One line, or record, per output that is left as it is."""
    console.record({"event": "skipped", "output": str(target)})
    console.line(f"{target} is there already; skipped.")


def tell_share(console: Console, share: Share) -> None:
    """One line, or record, when a process has done its share and others have not."""
    record = {"shard": share.shard, "done": share.done, "total": share.total}
    record |= {"output": str(share.output), "notices": list(share.notices)}
    console.record({"event": "share", **record})
    for notice in share.notices:
        console.line(f"Note on {share.output}: {notice}.")
    console.line(
        f"{share.output}: share {share.shard} is done, {share.done} of {share.total} shards are "
        "there; the last process gives it its name."
    )


def tell_failed(console: Console, source: Path, why: str) -> None:
    """One line, or record, per image that could not be translated while others follow."""
    console.record({"event": "failed", "input": str(source), "message": why})
    console.line(f"Failed: {why}")


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
            "splits": done.splits,
        }
    )
    for notice in done.notices:
        console.line(f"Note on {done.input}: {notice}.")
    if done.splits:
        console.line(
            f"Note on {done.input}: memory ended, and tiles were halved {done.splits} times."
        )
    console.line(
        f"{done.output}: {done.width}×{done.height} in {duration(done.seconds)}, "
        f"{done.tiles} tile{'s' if done.tiles > 1 else ''}"
    )
    if done.difference is not None:
        console.line(f"Tiles by other windows differ by at most {done.difference:.2g} of 255.")
