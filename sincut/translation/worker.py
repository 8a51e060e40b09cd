"""A process that --workers starts: its job is a share of an image, or files one by one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from sincut.compute.devices import chosen_device
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.translation.batches import FileTask, as_text, one_file
from sincut.translation.one_image import Translated, loaded_model
from sincut.translation.shards import Share
from sincut.translation.translate import translate


def main() -> int:
    """Read the job and do it: 0, or 2 after a line on standard error."""
    job = json.loads(sys.argv[1])
    try:
        if "source" in job:
            _share(job)
        else:
            _files(job)
    except SincutError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _share(job: dict[str, Any]) -> None:
    """A share of an image; the notices are written as JSON."""
    notices: list[str] = []

    def tell(done: Share | Translated) -> None:
        notices.extend(done.notices)

    inputs = job["model"], job["source"], job["target"]
    translate(*inputs, on_share=tell, on_image=tell, **job["config"])
    print(json.dumps(notices))


def _files(job: dict[str, Any]) -> None:
    """Files, each a line with an input and an output; a line says what came of each."""
    config = TranslateConfig.from_dict(job["config"])
    model = loaded_model(Path(job["model"]), torch.device(chosen_device(config.device)))
    for line in sys.stdin:
        source, target = map(Path, json.loads(line))
        print(as_text(one_file(model, FileTask(0, source, target), config)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
