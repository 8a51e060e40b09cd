"""A process that makes its share of an image, as --workers starts it, its job as JSON."""

from __future__ import annotations

import json
import sys

from sincut.errors import SincutError
from sincut.translation.one_image import Translated
from sincut.translation.shards import Share
from sincut.translation.translate import translate


def main() -> int:
    """Read the job and do it: 0 after the notices as JSON, or 2 after a line on standard error."""
    job = json.loads(sys.argv[1])
    notices: list[str] = []

    def tell(done: Share | Translated) -> None:
        notices.extend(done.notices)

    inputs = job["model"], job["source"], job["target"]
    try:
        translate(*inputs, on_share=tell, on_image=tell, **job["config"])
    except SincutError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(notices))
    return 0


if __name__ == "__main__":
    sys.exit(main())
