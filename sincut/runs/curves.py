"""What the curves of a run show: its losses and figures, grouped by what belongs together."""

from __future__ import annotations

from math import isfinite
from typing import Any

from sincut.runs.folder import RunRecord

# Title, kind of record, names. Those a run has not are left out, and empty charts too.
_CHARTS = (
    ("Adversarial: G and D against each other", "losses", ("G_gan", "D_gan")),
    ("PatchNCE and identity", "losses", ("NCE_x", "NCE_y", "identity")),
    ("All of G's loss, all of D's", "losses", ("G", "D")),
    ("R1 penalties of D", "losses", ("R1",)),
    ("The painting that G learns from", "losses", ("painting", "strokes")),
    ("Warm start: L1 to the colour transfer or the painting", "losses", ("warm",)),
    ("Colour and texture, lower is better", "figures", ("S1", "S2")),
    ("Told apart from the style (0.5: not at all)", "figures", ("S3",)),
    ("Strokes unlike the style's, lower is better", "figures", ("S4",)),
    ("Structure of the content, higher is better", "figures", ("C1", "C2")),
    ("Distance to the style as a set, lower is better", "figures", ("KID_lite", "KID_lite_crops")),
)
# Of figures: whether more is better.
BETTER = {
    **dict.fromkeys(("S1", "S2", "S2_ratio", "S3", "S4", "KID_lite", "KID_lite_crops"), -1),
    **dict.fromkeys(("C1", "C2"), 1),
}
_POINTS = 600  # of a curve at most: more cannot be seen


def charts(run: RunRecord) -> list[dict[str, Any]]:
    """The charts for ``sincutCurves``: title and series of name, steps and values.

    Long runs are thinned out evenly; the first and last record always stay. Values that are not
    finite are left out.
    """
    found = []
    by_kind = {kind: run.series(kind) for kind in ("losses", "figures")}
    for title, kind, names in _CHARTS:
        known = by_kind[kind]
        series = [_thinned(name, *known[name]) for name in names if name in known]
        series = [each for each in series if each["steps"]]
        if series:
            found.append({"title": title, "series": series})
    return found


def _thinned(name: str, steps: list[int], values: list[float]) -> dict[str, Any]:
    known = [(step, value) for step, value in zip(steps, values, strict=True) if isfinite(value)]
    if len(known) > _POINTS:
        known = [known[round(k * (len(known) - 1) / (_POINTS - 1))] for k in range(_POINTS)]
    return {
        "name": name,
        "steps": [step for step, _ in known],
        "values": [float(f"{value:.6g}") for _, value in known],
    }
