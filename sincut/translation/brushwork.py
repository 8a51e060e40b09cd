"""A model's brushwork over what another operator makes, as an operator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sincut.config.translating import TranslateConfig
from sincut.models.brushwork import REACH, Brushwork
from sincut.models.generator import Generator
from sincut.translation.operators import Opened, Operator, Preparation
from sincut.translation.tiling import Span, Tile, align_up, reflected, span_at

# Measured on a CPU for windows of 128 to 1536 pixels (68 to 641 MB at the peak), with a margin: per
# pixel of the window, and for the keys and the distances that are held at a time.
_BYTES, _BYTES_ONCE = 300, 150_000_000


def brushed(
    operator: Operator, generator: Generator, config: TranslateConfig, height: int, width: int
) -> Operator:
    """An operator on an image of ``height`` × ``width`` with the brushwork that a generator has."""
    if generator.brushwork is None or config.brushwork == 0:
        return operator
    size, share = (height, width), config.brushwork
    return Brushed(operator, generator.brushwork, *size, seed=config.seed, share=share)


class Brushed:
    """Another operator's result in patches of the style.

    Args:
        height, width: of the image.
        seed: of the noise that is a function of the place.
        share: of the patches, 0 … 1; the rest is what the other operator makes.
    """

    def __init__(
        self,
        operator: Operator,
        brushwork: Brushwork,
        height: int,
        width: int,
        *,
        seed: int,
        share: float,
    ) -> None:
        self.operator, self.brushwork = operator, brushwork
        self.height, self.width, self.seed, self.share = height, width, seed, share
        self.alignment = math.lcm(operator.alignment, REACH)
        self.halo = align_up(operator.halo, operator.alignment) + self.alignment
        self.border, self.whole_first = operator.border, operator.whole_first
        self.device = operator.device

    def preparation(self, side: int) -> Preparation:
        """As :class:`Operator` says: the other operator's."""
        return self.operator.preparation(side)

    def prepare(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        """As :class:`Operator` says: the other operator's."""
        self.operator.prepare(opened, side, on_window)

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """As :class:`Operator` says."""
        rows = self._around(tile.rows, self.height)
        columns = self._around(tile.columns, self.width)
        window = image[..., rows.read_within(tile.rows), columns.read_within(tile.columns)]
        made = self.operator(window, Tile(rows, columns))
        # Beyond the image's border is its mirror, whatever the network sees there.
        top, down = self._extended(tile.rows, rows, self.height)
        left, across = self._extended(tile.columns, columns, self.width)
        made = made[:, :, down.to(made.device)][:, :, :, across.to(made.device)]
        laid = torch.lerp(made, self.brushwork(made, top, left, self.seed), self.share)
        height, width = (span.stop - span.start for span in (tile.rows, tile.columns))
        reach = self.alignment
        return laid[:, :, reach : reach + height, reach : reach + width]

    def close(self) -> None:
        """As :class:`Operator` says."""
        self.operator.close()

    def host_bytes(self, rows: int, columns: int) -> int:
        """As :class:`Operator` says."""
        return self.operator.host_bytes(rows, columns) + _BYTES_ONCE + _BYTES * rows * columns

    def device_bytes(self, side: int) -> int:
        """As :class:`Operator` says."""
        wider = side + 2 * self.alignment
        return self.operator.device_bytes(wider) + _BYTES_ONCE + _BYTES * wider**2

    def forget(self) -> None:
        """As :class:`Operator` says."""
        self.operator.forget()

    def rehearsal(self, side: int) -> tuple[Operator, float]:
        """As :class:`Operator` says."""
        other, seconds = self.operator.rehearsal(side)
        return self._over(other), seconds

    def another(self) -> Operator:
        """As :class:`Operator` says: over another of the other operator."""
        return self._over(self.operator.another())

    def _over(self, operator: Operator) -> Brushed:
        size = self.height, self.width
        return Brushed(operator, self.brushwork, *size, seed=self.seed, share=self.share)

    def _around(self, span: Span, length: int) -> Span:
        """What the other operator is to make for a span: patches reach over it, in the image."""
        other = self.operator
        first, last = max(span.start - self.alignment, 0), min(span.stop + self.alignment, length)
        return span_at(first, last, length, other.halo, other.alignment, other.border)

    def _extended(self, span: Span, made: Span, length: int) -> tuple[int, Tensor]:
        """Where the patches of a span begin, and which of the rows or columns made they see."""
        first = span.start - self.alignment
        last = align_up(span.stop, self.alignment) + self.alignment
        seen = torch.tensor(reflected(first, last, length)) - made.start
        return first, seen.clamp_min(0)  # no patch on the span reaches as far as those
