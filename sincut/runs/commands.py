"""Commands that repeat or continue a run, as one types them."""

from __future__ import annotations

import shlex

from sincut.config.presets import preset_config
from sincut.config.training import PairConfig, TrainConfig
from sincut.runs.folder import RunRecord


def unusual_fields(config: TrainConfig) -> list[str]:
    """The names of the fields whose values are not those of the preset and the method."""
    usual = preset_config(config).to_dict()
    return [name for name, value in config.to_dict().items() if value != usual[name]]


def repeating_command(run: RunRecord) -> str:
    """The command line that trains the same again, quoted for a POSIX shell.

    The images go by their recorded names. Only what differs from the preset and the method is
    spelled out.
    """
    config = run.config
    implied = "sincut" if isinstance(config, PairConfig) else config.preset
    names = ["preset"] if config.method == implied else ["preset", "method"]
    words = []
    for name in (*names, *unusual_fields(config)):
        words += config.flag(name, getattr(config, name)).split(" ", 1)
    return shlex.join([*_beginning(run), *words])


def resuming_command(run: RunRecord) -> str:
    """The command line that goes on with the run, quoted for a POSIX shell.

    What a run is does not have to be said again, and its length, if it was chosen by a time, must
    not be. The names are those recorded.
    """
    return shlex.join([*_beginning(run), "--resume"])


def extension(run: RunRecord) -> str:
    """A sentence on why :func:`repeating_command` trains another model than an extended run's.

    Empty where it trains the same: the run had one length all the time, or its learning rate does
    not depend on the length.
    """
    if not run.extended or run.config.schedule == "constant":
        return ""
    asked = [(session.start, session.steps) for session in run.sessions]
    lengths = ", then ".join(
        f"{steps} steps" + (f" from step {max(start, 0)}" if index else "")
        for index, (start, steps) in enumerate(asked)
        if not index or steps != asked[index - 1][1]
    )
    if asked[-1][1] != run.config.steps:
        lengths += f", then {run.config.steps} steps"
    return (
        f"The run was extended or shortened on its way ({lengths}), and its learning rate followed "
        f"each length's schedule ({run.config.schedule}). The command trains {run.config.steps} "
        "steps with one schedule, which gives another model."
    )


def _beginning(run: RunRecord) -> list[str]:
    names = run.content.name, run.style.name, run.folder.name or "run"
    # A name that begins with a dash would be read as an option.
    content, style, output = (f"./{name}" if name.startswith("-") else name for name in names)
    return [*launched(run.processes), "train", content, style, "-o", output]


def launched(processes: int) -> list[str]:
    """How ``sincut`` is started in so many processes."""
    if processes == 1:
        return ["sincut"]
    return ["torchrun", "--nproc-per-node", str(processes), "-m", "sincut"]
