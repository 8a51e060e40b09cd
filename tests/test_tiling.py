"""The arithmetic of exact tiling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sincut.tiling import reflected, spans, tiles

BORDERS = st.sampled_from(["reflect", "zero"])


@given(
    length=st.integers(1, 400),
    tile=st.integers(1, 500),
    halo=st.integers(0, 70),
    power=st.integers(0, 4),
    border=BORDERS,
)
def test_spans_cover_once_and_read_enough(
    length: int, tile: int, halo: int, power: int, border: str
) -> None:
    alignment = 2**power
    cut = spans(length, tile, halo, alignment, border)
    assert [cut[0].start, cut[-1].stop] == [0, length]
    for before, after in itertools.pairwise(cut):
        assert before.stop == after.start
    end = -(-length // alignment) * alignment
    for span in cut:
        assert (
            span.start % alignment == span.read_start % alignment == span.read_stop % alignment == 0
        )
        low, high = span.start - halo, span.stop + halo
        if border == "zero":  # the window ends where the (evened) image does
            assert span.read_start >= 0
            assert span.read_stop <= end
            low, high = max(low, 0), min(high, end)
        assert span.read_start <= low
        assert span.read_stop >= high
        assert span.core == slice(span.start - span.read_start, span.stop - span.read_start)


@given(
    height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(1, 100), border=BORDERS
)
def test_tiles_write_every_pixel_once(height: int, width: int, tile: int, border: str) -> None:
    written = np.zeros((height, width), int)
    for each in tiles(height, width, tile, 30, 2, border):
        rows, columns = each.rows, each.columns
        written[rows.start : rows.stop, columns.start : columns.stop] += 1
    assert (written == 1).all()


@given(length=st.integers(1, 20), before=st.integers(0, 70), after=st.integers(0, 70))
def test_reflected_is_numpys_reflection(length: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(length), (before, after), mode="reflect")
    assert reflected(-before, length + after, length) == expected.tolist()


def test_few_tile_shapes() -> None:
    """Shapes are compiled, planned or captured once each, so there must be few of them."""
    shapes = {
        (t.rows.read_stop - t.rows.read_start, t.columns.read_stop - t.columns.read_start)
        for t in tiles(2001, 3003, 512, 30, 2)
    }
    assert len(shapes) == 4


@pytest.mark.parametrize(("tile", "first"), [(250, 250), (333, 332), (1, 2)])
def test_tile_is_rounded_down_to_the_alignment(tile: int, first: int) -> None:
    assert spans(1000, tile, 30, 2, "reflect")[0].stop == first
