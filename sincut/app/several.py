"""``python -m sincut.app.several COMMANDS``: trainings one after the other. No torch.

``COMMANDS`` is a JSON list of the words behind ``python -m``. Each becomes the job ``train`` of the
folder around its run, so that pages find it as any other; SIGTERM stops the one that runs and
begins none that follows.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from sincut.app.jobs import Job
from sincut.app.library import TRAINING

_LOOK = 0.5  # seconds between looks whether one has ended


def main() -> None:
    """Start them in turn."""
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, stop)
    for words in json.loads(sys.argv[1]):
        run = Path(words[words.index("-o") + 1])
        if asked or not run.parent.is_dir():
            continue
        job = Job(run.parent / "jobs", TRAINING)
        job.start(words)
        while job.alive:
            time.sleep(_LOOK)
            if asked:
                job.stop()


if __name__ == "__main__":
    main()
