"""What every result is written with: device, versions, date and commit."""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from sincut.compute.devices import environment

ROOT = Path(__file__).parents[1]


def circumstances(device: str) -> dict[str, Any]:
    """Where and with what a measurement was made."""
    commit = ""
    with contextlib.suppress(OSError):  # without git the figures are still worth keeping
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
    found = environment(device)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit or None,
        "device": found.pop("processor"),
        **found,
    }


def write_result(path: Path, device: str, rows: list[dict[str, Any]]) -> None:
    """Rows with their circumstances as a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**circumstances(device), "rows": rows}, indent=2) + "\n")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as a table with a column per key."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    Console(width=180).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
