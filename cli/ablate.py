"""``sincut ablate``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sincut.cli.console import Console
from sincut.cli.options import PATH, field_option, given_changes, json_option, quiet_option
from sincut.cli.train import held_out_option, resuming_words, skip_bad_option
from sincut.cli.train import listener as run_listener
from sincut.config.presets import FOLDER_PRESETS, PRESETS
from sincut.config.training import PairConfig
from sincut.errors import SincutError
from sincut.units import duration

if TYPE_CHECKING:
    from sincut.ablation.ablate import Ablation
    from sincut.runs.events import Event


@click.command()
@click.argument("content", type=PATH)
@click.argument("style", required=False, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="Folder to write.")
@click.option(
    "--over",
    multiple=True,
    metavar="NAME=V1,V2,…",
    help="Vary a field of the configuration (sincut info --settings lists them), preset or method; "
    "several are combined. Layers are joined by +, as in layers=0+2+4,4.",
)
@click.option(
    "--paper",
    is_flag=True,
    help="The paper's ablations instead: CUT with 255 internal negatives, all layers and the "
    "identity loss; and each without identity, with 63 and 15 negatives, with the last layer "
    "alone, and with external negatives as well (of the minibatch's other crops, the nearest "
    "thing on one pair). Of folders external negatives come from a bank, alone and with the "
    "internal ones, and FastCUT stands beside.",
)
@click.option(
    "--seeds", metavar="INTEGER", help="Trials of every setting, with seeds from 0.  [default: 1]"
)
@click.option(
    "--preset",
    metavar="|".join([*PRESETS, *FOLDER_PRESETS]),
    help="As for sincut train.  [default: of a pair draft; of folders cut, cut-small]",
)
@field_option(PairConfig, "method", default="sincut, of folders cut")
@field_option(PairConfig, "steps", default="the preset's")
@field_option(PairConfig, "device")
@field_option(PairConfig, "precision", default="the preset's")
@held_out_option
@skip_bad_option
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set any field of the configuration for all trials; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Only list the trials.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the ablation in the folder, whose settings need not be given again; failed "
    "trials are tried again.",
)
@click.option("--force", is_flag=True, help="Start anew in a folder that holds an ablation.")
@click.option(
    "--cluster",
    default="",
    metavar="ADDRESS",
    help="Address of a dask scheduler, such as tcp://HOST:8786, whose workers do the trials; "
    "images and output lie where they all read and write.",
)
@quiet_option
@json_option
def ablate(
    content: Path,
    style: Path | None,
    output: Path,
    over: tuple[str, ...],
    paper: bool,
    seeds: str | None,
    preset: str | None,
    method: str | None,
    assignments: tuple[str, ...],
    held_out: tuple[Path, Path] | None,
    skip_bad: bool,
    dry_run: bool,
    resume: bool,
    force: bool,
    cluster: str,
    quiet: bool,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Train on CONTENT and STYLE under several settings, measure and show the results together.

    Two images or two folders of them, or one that holds trainA and trainB, as for sincut train.
    Writes a table, a sheet of pictures and index.html with curves. Ctrl-C finishes the step and
    saves. With several GPUs: torchrun --nproc-per-node N -m sincut ablate …
    """
    changes = given_changes(assignments, fields)
    console = Console(quiet=quiet, as_json=as_json)
    with console.progress() as update:
        from sincut.ablation.ablate import ablate as run
        from sincut.ablation.trials import parse_over

        result = run(
            content,
            style,
            output,
            over=parse_over(over),
            seeds=seeds,
            paper=paper,
            preset=preset,
            method=method,
            resume=resume,
            force=force,
            dry_run=dry_run,
            skip_bad=skip_bad,
            held_out=held_out or None,
            cluster=cluster,
            listener=listener(console, update, every_trial=dry_run),
            **changes,
        )
    if not dry_run:
        words = ["sincut", "ablate", *resuming_words(content, style, output, held_out, skip_bad)]
        words += ["--cluster", cluster] if cluster else []
        _tell_end(console, result, shlex.join(words))


def _tell_end(console: Console, result: Ablation, again: str) -> None:
    """How the trials stand in the end, and how to go on with ``again``; exits when interrupted, and
    raises where trials failed."""
    count = len(result.outcomes)
    if result.signal:
        finished = count - len(result.unfinished) - len(result.failures)
        console.line(
            f"Interrupted; {finished} of {count} trials are finished, and what was trained is "
            f"saved. To go on: {again}"
        )
        sys.exit(128 + result.signal)
    if result.unfinished:
        console.line(f"{len(result.unfinished)} of {count} trials are with other processes.")
        return
    from sincut.ablation.page import settings_table

    console.block(f"\n{settings_table(result.outcomes)}\n")
    console.line(f"Look at {result.folder / 'index.html'}")
    if result.failures:
        told = "; ".join(f"{it.trial.name}: {it.failure}" for it in result.failures)
        raise SincutError(f"{len(result.failures)} of {count} trials failed: {told}")


def listener(
    console: Console, update: Callable[[str, int, int], None], *, every_trial: bool
) -> Callable[[Event], None]:
    """Tells an ablation's events to the console; of a run only what is new about it."""
    of_run = run_listener(console, update)
    left = 0  # trials, this one included
    estimated = False

    def listen(told: Event) -> None:
        nonlocal left, estimated
        record = told.record()
        event = record["event"]
        if event in ("step", "figures", "notice"):
            of_run(told)
            return
        console.record(record)
        if event == "ablation":
            trials = record["trials"]
            console.line(f"{len(trials)} trial{'s' if len(trials) > 1 else ''} in all.")
            for trial in trials if every_trial else ():
                about = "" if trial["status"] == "unfinished" else f" ({trial['status']})"
                console.line(f"  {trial['setting']}, seed {trial['seed']}{about}")
        elif event == "trial":
            left = record["count"] - record["number"] + 1
            console.line(f"Trial {record['number']} of {record['count']}: {record['name']}")
        elif event == "estimate" and not estimated:
            estimated = True
            console.line(
                f"Estimate: {duration(record['seconds'])} for this trial, "
                f"{duration(record['seconds'] * left)} for {left} like it."
            )
        elif event == "measured":
            figures = record["figures"]
            names = [name for name in ("S1", "S2", "S3", "S4", "C1", "KID_lite") if name in figures]
            text = "  ".join(f"{name} {figures[name]:.3f}" for name in names)
            console.line(f"  {text}")
        elif event == "failed":
            console.line(f"  Failed: {record['message']}")

    return listen
