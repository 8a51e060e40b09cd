"""``python -m sincut.app.example FOLDER``: the example pair of ``sincut demo``. No torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.images.writing.png import write_png


def main() -> None:
    """Write content.png and style.png; print an empty object, or an error, as JSON."""
    folder, said = Path(sys.argv[1]), {}
    try:
        write_png(folder / "content.png", render_content())
        write_png(folder / "style.png", render_style())
    except SincutError as error:
        said = {"error": str(error)}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
