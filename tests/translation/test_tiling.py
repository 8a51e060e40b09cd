"""The arithmetic of exact tiling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sincut.translation.tiling import Tile, bands, halved, reflected, spans, tiles

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


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 200),
    band=st.integers(1, 40).map(lambda n: 2 * n),
    tile=st.integers(1, 200),
    border=BORDERS,
)
def test_bands_write_once_and_need_one_pass(
    height: int, width: int, band: int, tile: int, border: str
) -> None:
    cut = bands(height, width, band, tile, 30, 2, border)
    written = np.zeros((height, width), int)
    for each in cut:
        for part in each.tiles:
            rows, columns = part.rows, part.columns
            assert each.start <= rows.start < rows.stop <= each.stop
            written[rows.start : rows.stop, columns.start : columns.stop] += 1
            needed = reflected(rows.read_start, rows.read_stop, height)
            assert each.first <= min(needed)
            assert max(needed) < each.last
    assert (written == 1).all()
    assert [cut[0].start, cut[-1].stop] == [0, height]
    for before, after in itertools.pairwise(cut):
        assert before.stop == after.start
        assert before.first <= after.first  # what was let go is never needed again
        assert before.last <= after.last


def test_tiles_of_a_band_are_alike() -> None:
    """A band of 512 rows with tiles of 500 has two rows of 256, not one of 500 and one of 12."""
    assert {t.rows.stop - t.rows.start for t in bands(512, 80, 512, 500, 30, 2)[0].tiles} == {256}


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(2, 80),
    power=st.integers(0, 3),
    border=BORDERS,
)
def test_halves_are_tiles_of_their_own(
    height: int, width: int, tile: int, power: int, border: str
) -> None:
    alignment = 2**power
    for whole in tiles(height, width, tile, 30, alignment, border):
        halves = halved(whole, height, width, 30, alignment, border)
        longest = max(span.stop - span.start for span in (whole.rows, whole.columns))
        if halves is None:
            assert longest <= alignment
            continue
        written = np.zeros((height, width), int)
        for half in halves:
            assert isinstance(half, Tile)
            for span, outer in ((half.rows, whole.rows), (half.columns, whole.columns)):
                assert outer.read_start <= span.read_start < span.read_stop <= outer.read_stop
            rows, columns = half.rows, half.columns
            written[rows.start : rows.stop, columns.start : columns.stop] += 1
        rows, columns = whole.rows, whole.columns
        assert written[rows.start : rows.stop, columns.start : columns.stop].all()
        assert written.sum() == (rows.stop - rows.start) * (columns.stop - columns.start)
