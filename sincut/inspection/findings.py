"""What an inspection finds, as plain arrays and numbers.

A *place* of an encoder layer is what one feature stands for: a square of ``stride`` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.version import __version__

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Point = tuple[int, int]


@dataclass(frozen=True)
class Match:
    """A query point of the output in one layer, against every place of the input.

    ``similarity`` is q·k⁺, the cosine with the right place, and ``best`` the largest of all.
    ``rank`` is 1 where no place is more similar than the right one; ``ties`` counts the other
    places that are as similar, to 1e-6. The best place is the right one where it is among the
    best; ``x, y`` is the pixel that lies in it as the query does in its own, and ``distance`` how
    many pixels it is away.
    """

    x: int
    y: int
    distance: float
    similarity: float
    best: float
    rank: int
    ties: int

    @property
    def where(self) -> str:
        """Where the best place is, in few words."""
        return "right place" if self.distance == 0 else f"{self.distance:.0f} px away"


@dataclass(frozen=True)
class LayerFindings:
    """What was found in one encoder layer.

    ``places`` are the rows and columns of its features, of ``stride`` pixels each.
    ``similarities`` (P, h, w) holds for every query point exp((q·k − max)/τ), in [0, 1] and 1 at
    the best place; a map has at most as many rows and columns as the pictures, and an entry of a
    smaller one is the largest of what it stands for. ``components`` are (h, w, 3) in [0, 1]: the
    first three principal components of the features by ``encoder`` or ``projected`` and ``input``
    or ``output``; entries of smaller ones are means. ``variance`` are the shares of the variance
    in those three. ``accuracy`` is, by the number of negatives, how often the right place wins;
    chance is 1/(n + 1). ``queries`` are how many places were asked.
    """

    layer: int
    stride: int
    places: tuple[int, int]
    matches: tuple[Match, ...]
    similarities: Floats
    components: dict[tuple[str, str], Floats]
    variance: dict[str, tuple[float, float, float]]
    accuracy: dict[int, float]
    queries: int


@dataclass(frozen=True)
class Inspection:
    """An inspection of one image.

    ``content`` and ``result`` are (H', W', 3) uint8 sRGB, reduced to the width asked for; ``size``
    are the image's own height and width. ``points`` are x, y in its pixels. ``header`` is the
    model's (see :class:`sincut.models.model_file.Model`), ``run`` and ``image`` what was given.
    """

    run: Path
    image: Path
    header: dict[str, Any]
    size: tuple[int, int]
    points: tuple[Point, ...]
    temperature: float
    seed: int
    content: Pixels
    result: Pixels
    layers: tuple[LayerFindings, ...]
    is_content: bool
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name, also where it was given as ``.``."""
        return self.run.resolve().name

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain values for JSON, to six digits; no arrays, and no folders."""
        return {
            "sincut_version": __version__,
            # Names, as a run itself keeps them: folders may say more than is to be sent on.
            "run": self.name,
            "model_sha256": self.header["sha256"],
            "step": self.header["step"],
            "image": self.image.name,
            "is_content": self.is_content,
            "width": self.size[1],
            "height": self.size[0],
            "temperature": self.temperature,
            "seed": self.seed,
            "notices": list(self.notices),
            "points": [
                {
                    "x": x,
                    "y": y,
                    "layers": [
                        {
                            "layer": found.layer,
                            "best_x": match.x,
                            "best_y": match.y,
                            "distance": round(match.distance, 6),
                            "right": match.distance == 0,
                            "similarity": round(match.similarity, 6),
                            "best_similarity": round(match.best, 6),
                            "rank": match.rank,
                            "ties": match.ties,
                        }
                        for found in self.layers
                        for match in [found.matches[number]]
                    ],
                }
                for number, (x, y) in enumerate(self.points)
            ],
            "layers": [
                {
                    "layer": found.layer,
                    "stride": found.stride,
                    "rows": found.places[0],
                    "columns": found.places[1],
                    "variance": {
                        kind: [round(share, 6) for share in shares]
                        for kind, shares in found.variance.items()
                    },
                    "queries": found.queries,
                    "accuracy": [
                        {
                            "negatives": negatives,
                            "accuracy": round(accuracy, 6),
                            "chance": round(1 / (negatives + 1), 6),
                        }
                        for negatives, accuracy in found.accuracy.items()
                    ],
                }
                for found in self.layers
            ],
        }
