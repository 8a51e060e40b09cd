"""Bands that are not translated: copied as they are, or dropped and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sincut.errors import SincutError
from sincut.translation.translate import translate
from tests.images.test_rasters import made


def stored(bands: int, dtype: str = "uint16", size: tuple[int, int] = (150, 170)) -> np.ndarray:
    values = np.random.default_rng(bands).integers(0, 250, (*size, bands))
    return (values / 250 if dtype == "float32" else values).astype(dtype)


def tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    colours = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(path, array, **colours | options)
    return path


def translated(model: Path, source: Path, target: Path, **options: Any) -> np.ndarray:
    options = {"other_bands": "copy", "tile": "64"} | options
    translate(model, source, target, **options)
    return tifffile.imread(target)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64)}, {"planarconfig": "separate"}])
def test_bands_are_copied_as_they_are(
    noisy_model: Path, tmp_path: Path, dtype: str, layout: dict[str, Any]
) -> None:
    array = stored(6, dtype)
    given = array.transpose(2, 0, 1) if layout.get("planarconfig") == "separate" else array
    source = tiff(tmp_path / "in.tif", given, **layout)
    got = translated(noisy_model, source, tmp_path / "out.tif", bands="3,2,1")
    alone = translated(
        noisy_model, source, tmp_path / "alone.tif", bands="3,2,1", other_bands="drop"
    )
    assert np.array_equal(got[..., :3], alone)
    assert not np.array_equal(alone, array[..., [2, 1, 0]])
    assert np.array_equal(got[..., 3:], array[..., 3:])
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].extrasamples == (0, 0, 0)


def test_grey_alpha_and_a_region(noisy_model: Path, tmp_path: Path) -> None:
    array = stored(5)
    source = tiff(tmp_path / "in.tif", array, photometric="rgb", extrasamples=(2, 0))
    options = {"region": (20, 10, 100, 90), "pyramid": True}
    (done,) = translate(noisy_model, source, tmp_path / "out.tif", other_bands="copy", **options)
    got = tifffile.imread(tmp_path / "out.tif")
    assert np.array_equal(got[..., 3:], array[10:100, 20:120, 3:])
    assert done.notices == ("its band 5 is copied behind the others",)
    source = tiff(tmp_path / "grey.tif", stored(7))
    got = translated(noisy_model, source, tmp_path / "out.tif", force=True)
    assert got.shape == (150, 170, 9)
    assert np.array_equal(got[..., 3:], stored(7)[..., 1:])


def test_a_mask_stands_before_the_others(noisy_model: Path, tmp_path: Path) -> None:
    array, mask = stored(5), np.random.default_rng(0).random((150, 170)) > 0.5
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        file.write(array, photometric="rgb", extrasamples=(0, 0), metadata=None)
        file.write(mask, photometric=4, subfiletype=4, metadata=None)
    got = translated(noisy_model, tmp_path / "in.tif", tmp_path / "out.tif")
    assert np.array_equal(got[..., 3], np.where(mask, 65535, 0))
    assert np.array_equal(got[..., 4:], array[..., 3:])


@pytest.mark.parametrize("kind", ["jp2", "vrt", "img"])
def test_bands_of_rasters(noisy_model: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    array = stored(5).transpose(2, 0, 1)
    mask = {} if kind == "jp2" else {"mask": np.ones((150, 170), bool)}
    source = made(kind, tmp_path, array, **mask)
    got = translated(noisy_model, source, tmp_path / "out.tif", bands="4,2,1", force=True)
    assert np.array_equal(got[..., -2:], array[[2, 4]].transpose(1, 2, 0))
    assert got.shape[-1] == (6 if kind == "img" else 5)


def test_what_cannot_be_copied_is_refused(noisy_model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", stored(4))
    for target, options, expected in (
        ("out.png", {}, "cannot be written: bands are copied into a TIFF only; try out.tif, or "
         "--other-bands drop"),
        ("out.tif", {"depth": "8"}, "gets 8 bits per channel, and the bands that are copied have "
         "16 bits per channel; try --depth auto, or --other-bands drop"),
    ):  # fmt: skip
        with pytest.raises(SincutError) as caught:
            translated(noisy_model, source, tmp_path / target, **options)
        assert str(caught.value) == f"{tmp_path / target} {expected}"
        assert not (tmp_path / target).exists()
