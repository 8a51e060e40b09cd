"""The live view: a page of the run folder, opened from disk, that follows the training.

``index.html`` is written when a run starts and then stays as it is. ``live.js`` beside it holds
what is known so far; it is written anew as the run goes on, and the page loads it again and again
as a script, because a page of the disk may not fetch files. No server, no package beside.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from typing import Any

from sincut.config.fields import as_text
from sincut.files import write_text
from sincut.pages.shell import curves_library, curves_style, document, part, table
from sincut.pages.viewer import escaped as text
from sincut.runs.commands import extension, repeating_command, resuming_command, unusual_fields
from sincut.runs.curves import charts
from sincut.runs.folder import (
    LIVE_DATA,
    LIVE_PAGE,
    LOG_FILE,
    PREVIEWS,
    RunImage,
    RunRecord,
    size_of,
    title_of,
)
from sincut.units import duration

EVERY = 2.0  # seconds between writings, at least; previews and the end do not wait
_SHARE = 0.01  # of the time, at most, that writing takes: a disk may be slow
RUNNING = ("warm start", "training", "reporting")
_KEPT = 512  # records of a kind: a curve is drawn some four hundred pixels wide
_RECENT = 64  # records from which the time left is foreseen

# When a run that says nothing is taken for dead: after so many times what it should take, but not
# before so many seconds. Figures take some twelve seconds a megapixel on two cores.
_PATIENCE = 10
_AT_LEAST = 60.0
_FIGURES = 60.0  # seconds more for every megapixel of the pair


class LiveView:
    """Follows one run.

    Args:
        run: the run as it starts or goes on, its log up to ``step``.
        step: of the state that it starts from.
        seconds: foreseen from here to the end, or ``None``.
        seconds_per_step: foreseen for one step of the training, or ``None``.

    ``report`` may be set to the name of a file of the run folder, to which the page then links.

    Every method that writes raises :class:`SincutError` where it cannot, as for every other file
    of the run: what was saved is intact then.
    """

    def __init__(
        self,
        run: RunRecord,
        step: int,
        seconds: float | None = None,
        *,
        seconds_per_step: float | None = None,
    ) -> None:
        self.run, self.step, self.foreseen = run, step, seconds
        self.expected = (seconds_per_step or 0.0) * run.config.log_every
        self.report = ""
        self.steps = run.config.steps
        self.warm = step < 0
        self.before, self.spent = run.seconds, 0.0  # seconds up to this start, and since
        self.speed: float | None = None
        self.recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)  # steps and seconds
        self.previews = [each for each, _ in run.previews if each <= step]
        self.kept = Thinned()
        for record in run.log:
            self.kept.add(record)
        self.session = round(1000 * time.time())
        self.due = 0.0  # when the next writing is, on the monotonic clock
        self.pause = EVERY
        write_text(run.folder / LIVE_PAGE, live_page(run))
        self._write("warm start" if self.warm else "training")

    def record(self, line: dict[str, Any]) -> None:
        """A line of the log. Shown at once if the last writing is long enough ago."""
        self.kept.add(line)
        self.step, self.spent = line["step"], line["seconds"]
        if "losses" in line:
            self.speed = line["steps_per_second"]
            warm = "warm" in line["losses"]
            if self.warm and not warm:  # steps take another time from here
                self.recent = deque(list(self.recent)[-1:], maxlen=_RECENT)
            self.warm = warm
            self.recent.append((self.step, self.spent))
        if time.monotonic() >= self.due:
            self._write(self._state())

    def preview(self, step: int, pixels: Any) -> None:
        """A preview has been written. The page loads the file; ``pixels`` are not needed."""
        self.step = max(self.step, step)
        self.previews.append(step)
        self._write(self._state())

    def close(self, state: str, step: int) -> None:
        """The last word: ``finished``, ``interrupted`` and saved, or ``stopped`` by an error.

        Before it, ``reporting``, which may take a while. ``step`` is the one that is saved, which
        is seldom that of the last record; 0 also stands for the warm start.
        """
        if step > 0 or self.step > 0:
            self.step = step
        self._write(state)

    def data(self, state: str) -> dict[str, Any]:
        """What the page is told, as plain values."""
        found: dict[str, Any] = {
            "state": state,
            "running": state in RUNNING,
            "said": self._said(state),
            "session": self.session,
            "written": round(time.time(), 1),
            "every": round(self._every(), 1),
            "patience": self._patience(state),
            "done": self.step + self.run.config.warm_steps,
            "of": self.steps + self.run.config.warm_steps,
            "facts": self._facts(state),
            "previews": [[step, f"{PREVIEWS}/{step:06d}.png"] for step in self.previews],
            "charts": charts(dataclasses.replace(self.run, log=self.kept.records())),
        }
        if self.report:
            found["report"] = self.report
        return found

    def _write(self, state: str) -> None:
        started = time.monotonic()
        # ASCII without NaN: a script that any browser reads, whatever the log holds.
        values = json.dumps(self.data(state), allow_nan=False, separators=(",", ":"))
        write_text(self.run.folder / LIVE_DATA, f"sincutLive({values});\n")
        ended = time.monotonic()
        self.pause = max(EVERY, (ended - started) / _SHARE)
        self.due = ended + self.pause

    def _state(self) -> str:
        return "warm start" if self.warm else "training"

    def _said(self, state: str) -> str:
        return {
            "warm start": "Warm start: learning the transfer of colours",
            "training": "Training",
            "reporting": f"Trained {self.steps} steps; the report is being written",
            "finished": f"Finished after {self.steps} steps",
            "interrupted": f"Interrupted after {max(self.step, 0)} of {self.steps} steps and saved",
            "stopped": "Stopped before the end; the terminal says why",
        }[state]

    def _facts(self, state: str) -> list[tuple[str, str]]:
        facts = [("Step", f"{max(self.step, 0)} of {self.steps}")]
        if state == "warm start":
            count = self.run.config.warm_steps
            facts = [("Warm start", f"{self.step + count} of {count}"), *facts]
        if state in RUNNING:
            left = self._left()
            facts += [
                ("Speed", "–" if self.speed is None else f"{self.speed:.3g} steps/s"),
                ("Time left", "–" if left is None else duration(left)),
            ]
        return [*facts, ("Time so far", duration(self.before + self.spent))]

    def _left(self) -> float | None:
        """Seconds to the end, from the last records or, before there are two, as foreseen."""
        if not self.warm and len(self.recent) > 1:
            (first, start), (last, end) = self.recent[0], self.recent[-1]
            return (self.steps - last) * max(end - start, 0.0) / max(last - first, 1)
        return None if self.foreseen is None else max(self.foreseen - self.spent, 0.0)

    def _every(self) -> float:
        """Seconds until there is something new."""
        if len(self.recent) < 2:
            return max(self.pause, self.expected)
        return max(self.pause, (self.recent[-1][1] - self.recent[0][1]) / (len(self.recent) - 1))

    def _patience(self, state: str) -> float | None:
        """Seconds without news after which the run may be dead; ``None`` for ever.

        A report tells nothing while it is made. What was foreseen counts beside what was seen, as
        steps of the warm start may be quicker than those to come.
        """
        if state not in RUNNING or state == "reporting":
            return None
        found = max(_AT_LEAST, _PATIENCE * max(self._every(), self.expected))
        if self.run.config.evaluate_every:
            images = (self.run.content, self.run.style)
            pair = [image for image in images if isinstance(image, RunImage)]
            found += _FIGURES * max(sum(image.width * image.height for image in pair) / 1e6, 1)
        return round(found, 1)


class Thinned:
    """The records of a log, however many, in bounded memory.

    Records of one kind, that is with the same names, are thinned out evenly by themselves: losses
    that only every eighth record has stay. The last of every kind is always there.
    """

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, ...], _Kind] = {}

    def add(self, record: dict[str, Any]) -> None:
        """One more."""
        names = (*record.get("losses", ()), *record.get("figures", ()))
        self.kinds.setdefault(names, _Kind()).add(record)

    def records(self) -> tuple[dict[str, Any], ...]:
        """Those that are kept, in the order of their steps."""
        kept = (record for kind in self.kinds.values() for record in kind.records())
        return tuple(sorted(kept, key=lambda record: int(record["step"])))


class _Kind:
    """Every ``stride``-th record, and the last."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.stride, self.seen = 1, 0
        self.last: dict[str, Any] = {}

    def add(self, record: dict[str, Any]) -> None:
        self.last = record
        if self.seen % self.stride == 0:
            self.kept.append(record)
        self.seen += 1
        if len(self.kept) == _KEPT:
            del self.kept[1::2]
            self.stride *= 2

    def records(self) -> list[dict[str, Any]]:
        return self.kept if self.kept[-1] is self.last else [*self.kept, self.last]


def live_page(run: RunRecord) -> str:
    """The page, which says without JavaScript what it would show."""
    title = title_of(run)
    body = "\n".join(
        (
            f"<header><h1>{text(title)}</h1>",
            '<p id="state" role="status"></p>',
            '<div id="resume" hidden><p>In the folder that holds the images and the run, this goes '
            "on from the last saved step, and this page then follows it:</p>"
            f"<pre>{text(resuming_command(run))}</pre></div></header>",
            "<noscript><p>This page follows a training and needs JavaScript for it. Without it: "
            f'the pictures so far are in the folder <a href="{PREVIEWS}/">{PREVIEWS}</a>, the '
            f'losses in <a href="{LOG_FILE}">{LOG_FILE}</a>.</p></noscript>',
            '<p id="report" hidden><a>The report: pictures to compare, figures, times</a></p>',
            '<main><div id="live" hidden>',
            '<section id="so-far" aria-label="Progress">'
            '<progress id="progress" aria-label="Steps done"></progress>'
            '<dl id="facts"></dl></section>',
            '<p id="none" class="soft" hidden>The first preview comes with step 0, after the warm '
            "start.</p>"
            '<section id="pictures"><h2>Preview</h2><figure><img id="preview" alt=""></figure>',
            '<div class="row"><label for="scrubber">Step</label>'
            '<input type="range" id="scrubber" min="0" max="0" step="1" value="0" '
            'autocomplete="off"><output id="shown" for="scrubber"></output>'
            '<button type="button" id="newest">Newest</button></div></section>',
            '<section id="charts"><h2>Curves '
            '<small id="waiting">wait while you are on them</small></h2>'
            '<div id="curves" class="curves"></div></section></div>',
            f"<section id='settings'><h2>Settings</h2>{_settings(run)}",
            _again(run),
            "</section></main>",
        )
    )
    return document(
        title,
        body,
        styles=(curves_style(), part("live.css")),
        scripts=(curves_library(), part("live.js")),
        data={"source": LIVE_DATA},
        files=True,
    )


def _again(run: RunRecord) -> str:
    """The command that trains it anew, and a warning where that is not the same."""
    differs = extension(run)
    title = "The same settings again" if differs else "The same again"
    warning = f'<p class="soft" id="extended">{text(differs)}</p>' if differs else ""
    return f"<h3>{title}</h3>{warning}<pre>{text(repeating_command(run))}</pre>"


def _settings(run: RunRecord) -> str:
    config = run.config
    names = ["preset", "method", "steps", "warm_steps", "seed", "device", "precision"]
    names += [name for name in unusual_fields(config) if name not in names]
    rows: list[tuple[str, object]] = [
        (role, f"{image.name}, {size_of(image)}")
        for role, image in (("content", run.content), ("style", run.style))
    ]
    rows += [(name, as_text(getattr(config, name))) for name in names]
    return table(("", "value"), [*rows, ("sincut", run.version)])
