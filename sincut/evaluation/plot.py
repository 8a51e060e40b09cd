"""The plane of C1 and S3 as a picture (takes the extra ``plot``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sincut.errors import SincutError
from sincut.evaluation.anchors import COPY, IDT, IDT_16, IDT_64
from sincut.evaluation.evaluate import Evaluation
from sincut.files import check_free, write_atomically
from sincut.images.writing.formats import check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot(path: Path, inputs: Sequence[Path | str], *, force: bool) -> None:
    """Refuse, before the work, a plot that could not or must not be written."""
    _figure_class()
    check_output(path, 1, 1, alpha=False)
    if path.suffix.lower() != ".png":
        raise SincutError(
            f"the plot must be a PNG file, got {path}; try {path.with_suffix('.png').name}"
        )
    check_free(path, force=force, inputs=map(Path, inputs), option="--plot")


def draw_plane(evaluation: Evaluation, path: Path) -> None:
    """Draw outputs and anchors in the plane of C1 and S3 as a PNG file, atomically.

    Raises:
        SincutError: there is no matplotlib, or the file cannot be written.
    """
    figure = _figure_class()(figsize=(8, 6), layout="constrained")
    axes = figure.add_subplot()
    anchors = evaluation.anchors
    line = [(anchors[name].C1, anchors[name].S3) for name in (IDT, IDT_16, IDT_64)]
    axes.plot(*np.transpose(line), color="0.4", linewidth=1.5, label="IDT → 16 → 64-px blocks")
    onward = [(anchors[name].C1, anchors[name].S3) for name in (COPY, IDT)]
    axes.plot(*np.transpose(onward), color="0.4", linewidth=1, linestyle="dotted")

    names = Counter(Path(output).name for output in evaluation.outputs)
    labels = {
        output: Path(output).name if names[Path(output).name] == 1 else output
        for output in evaluation.outputs
    }
    outputs = {labels[output]: found for output, found in evaluation.outputs.items()}
    # Names of anchors stand below their points and names of outputs above, which may be the same.
    for points, label, colour, marker, above in (
        (anchors, "anchors", "0.4", "s", -12),
        (outputs, "outputs", "C3", "o", 5),
    ):
        places = [(found.C1, found.S3) for found in points.values()]
        axes.scatter(*np.transpose(places), color=colour, marker=marker, label=label, zorder=3)
        for name, place in zip(points, places, strict=True):
            # A file's name is no mathematics, whatever dollars it has.
            axes.annotate(
                name,
                place,
                xytext=(6, above),
                textcoords="offset points",
                color=colour,
                fontsize=9,
                parse_math=False,
            )
    axes.axhline(0.5, color="0.8", linewidth=1, zorder=0)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel("C1: the content's structure kept (higher is better →)")
    axes.set_ylabel("S3: told apart from the style (lower is better ↓, 0.5: not at all)")
    axes.legend(loc="upper left")  # where results are that nobody wants
    axes.grid(visible=True, alpha=0.2)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _figure_class() -> type[Figure]:
    """Matplotlib's figure without its ``pyplot``, so no window and no state is involved."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SincutError(
            "a plot needs matplotlib, which is not installed; try pip install matplotlib"
        ) from None
    return Figure
