"""A process that makes its share of an image, as --workers starts it, its job as JSON."""

from __future__ import annotations

import json
import sys

from sincut.errors import SincutError
from sincut.translation.translate import translate


def main() -> int:
    """Read the job, do it; 0, or 2 after one line on standard error."""
    job = json.loads(sys.argv[1])
    try:
        translate(job["model"], job["source"], job["target"], **job["config"])
    except SincutError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
