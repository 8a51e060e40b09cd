"""Pictures of result files: PatchNCE against the number of rows, quality against seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def plot(result: Path, target: Path) -> None:
    """Draw the single-block rows of ``patch-nce.json``: one line per method, logarithmic axes.

    A second panel shows the peak of memory where it was measured (on CUDA).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = json.loads(result.read_text())
    rows = [row for row in found["rows"] if row.get("shape") == f"{row.get('rows')}²"]
    kind = "bfloat16" if any(row["type"] == "bfloat16" for row in rows) else "float32"
    rows = [row for row in rows if row["type"] == kind and "error" not in row]
    panels = [("median_ms", "forward and backward, ms")]
    if any(row["peak_bytes"] for row in rows):
        panels.append(("peak_bytes", "peak memory, bytes"))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4), squeeze=False)
    for axis, (name, label) in zip(axes[0], panels, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            points = sorted((row["rows"], row[name]) for row in rows if row["method"] == method)
            axis.loglog(*zip(*points, strict=True), marker="o", label=method)
        axis.set_xlabel("rows")
        axis.set_ylabel(label)
        axis.grid(visible=True, which="both", alpha=0.2)
    axes[0][0].legend()
    figure.suptitle(_title(found, kind))
    figure.tight_layout()
    figure.savefig(target, dpi=150)
    pyplot.close(figure)


def plot_quality(result: Path, target: Path) -> None:
    """Draw a ``time-to-quality.json``: a panel per figure, a line per preset, direction, seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = json.loads(result.read_text())
    rows = found["rows"]
    panels = {
        "S1": "S1, colour (lower is better)",
        "S2_ratio": "S2, texture, over the style's own (lower is better)",
        "S3": "S3, two-sample test (lower is better)",
        "S4": "S4, strokes (lower is better)",
        "C1": "C1, edges (higher is better)",
        "C2": "C2, self-similarity (higher is better)",
    }
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7.5), sharex=True, layout="constrained")
    for axis, (name, label) in zip(axes.flat, panels.items(), strict=True):
        lines = dict.fromkeys((row["preset"], row["direction"], row["seed"]) for row in rows)
        for line in lines:
            points = [
                (row["seconds"], row[name])
                for row in rows
                if (row["preset"], row["direction"], row["seed"]) == line
            ]
            preset, direction, seed = line
            title = f"{preset}, {direction}, seed {seed}"
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=title)
        axis.set_title(label, fontsize=10)
        axis.grid(visible=True, alpha=0.2)
    for axis in axes[-1]:
        axis.set_xlabel("seconds of training")
        axis.set_xscale("log")
    named = axes[0][0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=3, fontsize=8)
    device = found["device"].partition(" (")[0]
    figure.suptitle(f"Figures against training time\n{device}, {found['date'][:10]}")
    figure.savefig(target, dpi=150)
    pyplot.close(figure)


def _title(found: dict[str, Any], kind: str) -> str:
    device = found["device"].partition(" (")[0]
    return f"PatchNCE, {kind}\n{device}, {found['date'][:10]}"
