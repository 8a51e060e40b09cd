"""``sincut train``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sincut.cli.console import Console
from sincut.cli.options import (
    PATH,
    field_option,
    given_changes,
    image_options,
    json_option,
    part_options,
    place_options,
    quiet_option,
)
from sincut.config.presets import FOLDER_PRESETS, PRESETS
from sincut.config.training import FolderConfig, PairConfig
from sincut.units import byte_text, duration

if TYPE_CHECKING:
    from sincut.runs.events import Event

_ABOUT = {**PRESETS, **FOLDER_PRESETS}
_PRESET_HELP = "; ".join(f"{name}: {about}" for name, (about, _) in _ABOUT.items())

held_out_option = click.option(
    "--held-out",
    nargs=2,
    metavar="FOLDER FOLDER",
    type=PATH,
    help="Images of both kinds that are not trained on, for previews and figures of a training on "
    "folders.  [default: testA and testB beside trainA and trainB]",
)
skip_bad_option = click.option(
    "--skip-bad", is_flag=True, help="Leave out images of folders that cannot be read."
)


@click.command()
@click.argument("content", type=PATH)
@click.argument("style", required=False, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="Run folder to write.")
@click.option(
    "--preset",
    metavar="|".join(_ABOUT),
    help=f"{_PRESET_HELP}.  [default: of a pair draft; of folders cut, cut-small]",
)
@field_option(PairConfig, "method", default="sincut, of folders cut")
@field_option(PairConfig, "look")
@field_option(PairConfig, "stroke")
@field_option(PairConfig, "steps", default="the preset's")
@click.option(
    "--minutes",
    metavar="NUMBER",
    help="Fit the number of steps to this time on this machine, instead of --steps.",
)
@field_option(PairConfig, "seed")
@field_option(PairConfig, "device")
@field_option(PairConfig, "precision", default="the preset's")
@image_options
@part_options
@place_options
@field_option(PairConfig, "evaluate_every")
@field_option(FolderConfig, "keep")
@held_out_option
@skip_bad_option
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set any field of the configuration (sincut info --settings lists them); repeatable.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in the folder; with a larger --steps, extend it.",
)
@click.option("--force", is_flag=True, help="Start anew in a folder that holds a run.")
@click.option(
    "--dry-run", is_flag=True, help="Only say what would be done, and what it would take."
)
@click.option("--no-report", is_flag=True, help="Write no report.html at the end.")
@click.option(
    "--tensorboard", is_flag=True, help="Write event files for TensorBoard into the run folder."
)
@quiet_option
@json_option
def train(
    content: Path,
    style: Path | None,
    output: Path,
    preset: str | None,
    method: str | None,
    minutes: str | None,
    assignments: tuple[str, ...],
    resume: bool,
    force: bool,
    dry_run: bool,
    no_report: bool,
    tensorboard: bool,
    held_out: tuple[Path, Path] | None,
    skip_bad: bool,
    quiet: bool,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Train on CONTENT and STYLE, two images or two folders of them, and write a run folder.

    The content keeps its structure and gets the look of the style. Two images: SinCUT. Two folders,
    or one that holds trainA and trainB: CUT, and the model translates any image like the first
    folder's. Ctrl-C finishes the step, saves, and says how to go on. Several GPUs share every step
    with torchrun --nproc-per-node N -m sincut train …, each with a batch of its own.
    """
    changes = given_changes(assignments, fields)
    follows = os.environ.get("RANK", "0") != "0"  # of several processes the first speaks
    console = Console(quiet=quiet or follows, as_json=as_json)
    with console.progress() as update:
        from sincut.runs.commands import launched
        from sincut.runs.train import train as run

        result = run(
            content,
            style,
            output,
            preset=preset,
            method=method,
            minutes=minutes,
            resume=resume,
            force=force,
            dry_run=dry_run,
            tensorboard=tensorboard,
            report=not no_report,
            skip_bad=skip_bad,
            held_out=held_out or None,
            listener=listener(console, update),
            **changes,
        )
    if result.signal and result.step == result.steps:
        report = shlex.join(["sincut", "report", str(output)])
        console.line(f"Interrupted; the run is finished and saved. For a report: {report}")
        sys.exit(128 + result.signal)
    if result.signal:
        images = resuming_words(content, style, output, held_out, skip_bad)
        words = [*launched(result.processes), "train", *images]
        words += ["--tensorboard"] if tensorboard else []
        again = shlex.join([*words, "--no-report"] if no_report else words)
        console.line(
            f"Interrupted after step {max(result.step, 0)} of {result.steps}; saved. "
            f"To go on: {again}"
        )
        sys.exit(128 + result.signal)


def resuming_words(
    content: Path,
    style: Path | None,
    output: Path,
    held_out: tuple[Path, Path] | None,
    skip_bad: bool,
) -> list[str]:
    """What to type behind a command to go on with the same images."""
    given = [content] if style is None else [content, style]
    words = [*map(str, [*given, "-o", output]), "--resume"]
    words += ["--held-out", *map(str, held_out)] if held_out else []
    return [*words, "--skip-bad"] if skip_bad else words


def listener(console: Console, update: Callable[[str, int, int], None]) -> Callable[[Event], None]:
    """Tells a run's events to the console."""

    def listen(told: Event) -> None:
        record = told.record()
        event = record["event"]
        console.record(record)
        if event == "start":
            config = record["config"]
            console.line(
                f"sincut {record['version']}: preset {config['preset']} ({record['why']}), "
                f"method {config['method']}, {config['steps']} steps on {config['device']} in "
                f"{config['precision']} ({record['why_precision']}), seed {config['seed']}"
            )
        elif event == "notice":
            console.line(f"Note on {record['about']}: {record['text']}.")
        elif event == "estimate":
            console.line(
                f"Estimate: {duration(record['seconds'])} at {record['seconds_per_step']:.2g} s a "
                f"step, {byte_text(record['peak_bytes'])} of memory at the peak."
            )
        elif event == "reporting":
            update(f"report: {record['text']}", record["done"], record["of"])
        elif event == "report":
            console.line(f"Report: {record['path']}")
        elif event == "live":
            console.line(f"To watch it, open {record['path']} in a browser.")
        elif event == "step":
            warm = record["step"] < 0 or "warm" in record["losses"]
            names = ("warm",) if warm else ("G", "D", "NCE_x", "R1")
            losses = "  ".join(
                f"{name} {record['losses'][name]:.3f}" for name in names if name in record["losses"]
            )
            done = max(record["step"], 0)
            rate = f"{record['steps_per_second']:.2f} steps/s"
            update(f"{rate}  {'warm start  ' if warm else ''}{losses}", done, record["steps"])
        elif event == "figures":
            figures = "  ".join(f"{name} {value:.3f}" for name, value in record["figures"].items())
            console.line(f"Step {record['step']}: {figures}")
        elif event == "done":
            console.line(
                f"Trained {record['step']} steps. To translate: "
                f"sincut translate {shlex.quote(record['folder'])} IMAGE -o OUTPUT.png"
            )

    return listen
