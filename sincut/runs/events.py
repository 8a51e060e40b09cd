"""What a run, or an ablation of many, tells on its way: one small dataclass per kind of event.

Console, ``--json`` and whoever calls from Python get the same stream; ``record()`` is an event as
JSON has it, with the kind's name under ``event``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol


class Event:
    """What all have in common. ``event`` names the kind."""

    event: ClassVar[str]

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"event": self.event, **asdict(self)}  # type: ignore[call-overload]


Listener = Callable[[Event], None]


class View(Protocol):
    """What shows a run while it goes on, from its folder."""

    def record(self, line: dict[str, Any]) -> None:
        """A line of the log: what :class:`Stepped` and :class:`Measured` hold."""
        ...

    def preview(self, step: int, pixels: Any) -> None:
        """The content translated, (H, W, 3) uint8."""
        ...

    def close(self, state: str, step: int) -> None:
        """The run ends at a step: ``finished``, ``interrupted`` or ``failed``."""
        ...


@dataclass(frozen=True)
class Started(Event):
    """The first: which version, the resolved configuration, and why its preset and precision."""

    event = "start"
    version: str
    why: str
    why_precision: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Noticed(Event):
    """A line for the person: ``about`` what, and the text."""

    event = "notice"
    about: str
    text: str


@dataclass(frozen=True)
class Estimated(Event):
    """How long the run will take, and the memory it was seen to take."""

    event = "estimate"
    seconds: float
    seconds_per_step: float
    peak_bytes: int


@dataclass(frozen=True)
class Live(Event):
    """There is a page that follows the run."""

    event = "live"
    path: str


@dataclass(frozen=True)
class Stepped(Event):
    """A logged step, negative in the warm start; ``seconds`` count from the session's begin, and
    ``waited`` are those of them in which steps waited for images."""

    event = "step"
    step: int
    session: int
    steps: int
    seconds: float
    steps_per_second: float
    learning_rate: float
    losses: dict[str, float]
    waited: float = 0.0


@dataclass(frozen=True)
class Measured(Event):
    """Figures of quality on the way."""

    event = "figures"
    step: int
    session: int
    seconds: float
    figures: dict[str, float]


@dataclass(frozen=True)
class Previewed(Event):
    """A preview was written."""

    event = "preview"
    step: int
    path: str


@dataclass(frozen=True)
class Reporting(Event):
    """The report is being made: what is done, and how many of how many parts."""

    event = "reporting"
    text: str
    done: int
    of: int


@dataclass(frozen=True)
class Reported(Event):
    """The report was written."""

    event = "report"
    path: str


@dataclass(frozen=True)
class Done(Event):
    """The run is finished."""

    event = "done"
    folder: str
    step: int
    steps: int


@dataclass(frozen=True)
class Stopped(Event):
    """The run was interrupted, and is saved."""

    event = "interrupted"
    folder: str
    step: int
    steps: int


@dataclass(frozen=True)
class AblationPlanned(Event):
    """All trials of an ablation, with how each stands."""

    event = "ablation"
    folder: str
    trials: list[dict[str, Any]]


@dataclass(frozen=True)
class TrialStarted(Event):
    """A trial begins: ``number`` of ``count`` that are left."""

    event = "trial"
    trial: str
    name: str
    number: int
    count: int


@dataclass(frozen=True)
class TrialMeasured(Event):
    """A trial is trained and measured."""

    event = "measured"
    trial: str
    name: str
    figures: dict[str, float]


@dataclass(frozen=True)
class TrialFailed(Event):
    """A trial failed; the others go on."""

    event = "failed"
    trial: str
    message: str


@dataclass(frozen=True)
class OfTrial(Event):
    """An event of the run that is a trial."""

    event = "of trial"
    told: Event
    trial: str

    def record(self) -> dict[str, Any]:
        """The run's event, with the trial's name."""
        return {**self.told.record(), "trial": self.trial}
