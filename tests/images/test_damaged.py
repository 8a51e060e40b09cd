"""Image files with bytes changed, cut off or put in: read, or refused in a line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from PIL import Image

from sincut.errors import SincutError
from sincut.images.reading.open import read_picture
from tests.runs.test_damaged import damaged, damages, often

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def by_pillow(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, **options)
    return file.getvalue()


def by_tifffile(**options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", **options)
    return file.getvalue()


FILES = {
    "PNG": by_pillow(format="PNG", dpi=(300, 300)),
    "JPEG": by_pillow(format="JPEG"),
    "progressive JPEG": by_pillow(format="JPEG", progressive=True),
    "WebP": by_pillow(format="WEBP"),
    "GIF": by_pillow(format="GIF"),
    "BMP": by_pillow(format="BMP"),
    "PPM": by_pillow(format="PPM"),
    "TIFF in strips": by_tifffile(compression="deflate"),
    "TIFF in tiles": by_tifffile(tile=(16, 16)),
    "BigTIFF": by_tifffile(bigtiff=True, byteorder=">"),
}


@pytest.mark.filterwarnings("ignore")  # of damage, which other programs are to hear of
@pytest.mark.parametrize("name", FILES)
@given(damage=damages)
@often
def test_damage_is_read_or_told(
    tmp_path: Path, name: str, damage: list[tuple[int, int, int]]
) -> None:
    path = tmp_path / "in"
    # Most of a small file's bytes are its header.
    path.write_bytes(damaged(FILES[name], damage))
    try:
        picture = read_picture(path, max_pixels=10**6, max_memory=10**8)
    except SincutError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert str(path) in said
        assert "\n" not in said
        return
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.shape == (picture.height, picture.width, 3)
    assert all("\n" not in notice for notice in picture.notices)
