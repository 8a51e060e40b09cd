"""Ranges and bands in translations: values come back in the file's own units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import sincut
from sincut.errors import Interrupted, SincutError
from sincut.images.reading.asked import AskedValues, Region
from sincut.images.reading.open import open_source
from sincut.models.model_file import load_model
from sincut.translation.one_image import Translated
from sincut.translation.translate import translate
from tests.conftest import TINY
from tests.translation.test_shards import level

NODATA = -9999
OTHER = "the output has other values: black to white fill its type"
BLACK_TO_WHITE = "its values 0 to 4095 become black to white"


def tiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    colour = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
    tifffile.imwrite(path, pixels, **{"photometric": colour, "metadata": None, **options})
    return path


def pair_of_12_bits(pair: tuple[Path, Path], folder: Path) -> tuple[Path, np.ndarray]:
    """The pair's content as 12 bits in a TIFF of 16."""
    with Image.open(pair[0]) as image:
        pixels = (np.asarray(image).astype(np.float64) * (4095 / 255)).round().astype(np.uint16)
    return tiff(folder / "content.tif", pixels), pixels


def made(model: Path, source: Path, target: Path, **options: Any) -> tuple[np.ndarray, Translated]:
    (done,) = translate(model, source, target, **options)
    if target.suffix == ".tif":
        return tifffile.imread(target), done
    with Image.open(target) as image:
        return np.asarray(image), done


@pytest.fixture(scope="module")
def ranged_run(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a content of 12 bits in 16."""
    folder = tmp_path_factory.mktemp("ranged")
    content, _ = pair_of_12_bits(pair, folder)
    sincut.train(content, pair[1], folder / "run", range="0,4095", **{**TINY, "steps": 2})
    return folder / "run"


def test_strength_0_gives_the_files_own_values(tiny_run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (70, 90, 3), np.uint16)
    pixels[0] = 50_000  # beyond the range
    path = tiff(tmp_path / "in.tif", pixels)
    written, done = made(tiny_run, path, tmp_path / "out.tif", range="0,4095", strength=0.0)
    np.testing.assert_array_equal(written, pixels)
    assert BLACK_TO_WHITE in done.notices
    assert "1.4% of its values lie outside 0…4095 and were clipped" in done.notices


def test_a_mask_leaves_the_files_own_values(tiny_run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 80, 3), np.uint16)
    pixels[:, 0] = 50_000
    path = tiff(tmp_path / "in.tif", pixels)
    mask = np.zeros((64, 80), np.uint8)
    mask[:, 40:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"mask": str(tmp_path / "mask.png"), "range": "0,4095"}
    written, _ = made(tiny_run, path, tmp_path / "out.tif", **options)
    np.testing.assert_array_equal(written[:, :40], pixels[:, :40])
    assert written[:, 40:].max() <= 4095
    assert (written[:, 40:] != pixels[:, 40:]).any()


def test_the_network_sees_the_range_as_black_to_white(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """12 bits with a range, and the same as 16 bits without: they come out alike."""
    path, pixels = pair_of_12_bits(pair, tmp_path)
    written, _ = made(tiny_run, path, tmp_path / "out.tif", range="0,4095")
    whole = tiff(tmp_path / "whole.tif", (pixels * (65535 / 4095)).round().astype(np.uint16))
    expected, _ = made(tiny_run, whole, tmp_path / "expected.tif")
    assert written.dtype == np.uint16
    assert np.abs(written - expected * (4095 / 65535)).max() <= 0.51
    assert written.max() <= 4095


def test_another_depth_fills_its_type(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = pair_of_12_bits(pair, tmp_path)
    options = {"range": "0,4095", "strength": 0.0}
    for name in ("out.png", "out.jpg"):
        written, done = made(tiny_run, path, tmp_path / name, depth="8", **options)
        with Image.open(pair[0]) as image:
            difference = np.abs(written.astype(int) - np.asarray(image))
        assert difference.max() <= (0 if name == "out.png" else 60)
        assert OTHER in done.notices


def test_floats_keep_their_unit_and_their_nodata(tiny_run: Path, tmp_path: Path) -> None:
    kelvin = np.random.default_rng(1).uniform(200, 320, (64, 80)).astype(np.float32)
    kelvin[:20, :30] = NODATA
    kelvin[30, 30] = np.nan
    path = tiff(tmp_path / "in.tif", kelvin, extratags=[(42113, "s", 0, str(NODATA), True)])
    written, done = made(tiny_run, path, tmp_path / "out.tif", range="auto")
    assert written.dtype == np.float32
    assert (written[:20, :30] == NODATA).all()
    assert np.isnan(written[30, 30]).all()
    known = np.isfinite(written) & (written != NODATA)
    assert 200 <= written[known].min() < written[known].max() <= 320
    (told,) = (each for each in done.notices if "black to white" in each)
    assert told.endswith(", the percentiles 0.1 and 99.9 of its valid pixels")
    same, _ = made(tiny_run, path, tmp_path / "same.tif", range="auto", strength=0.0)
    np.testing.assert_array_equal(same, kelvin[..., None].repeat(3, axis=-1))


def test_bands_of_a_raster(tiny_run: Path, tmp_path: Path) -> None:
    bands = np.random.default_rng(5).integers(0, 4096, (7, 64, 80), np.uint16)
    path = tiff(tmp_path / "in.tif", bands, photometric="minisblack", planarconfig="separate")
    options = {"bands": "4,3,2", "range": "0,4095"}
    written, done = made(tiny_run, path, tmp_path / "out.tif", strength=0.0, **options)
    np.testing.assert_array_equal(written, bands[[3, 2, 1]].transpose(1, 2, 0))
    assert "its bands 1, 5, 6, 7 are not kept" in done.notices
    written, _ = made(tiny_run, path, tmp_path / "translated.tif", **options)
    assert written.shape == (64, 80, 3)
    assert written.max() <= 4095


def test_what_a_model_learned_is_taken(
    ranged_run: Path, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    header = load_model(ranged_run).header
    assert header["content"]["range"] == [0, 4095]
    assert header["content"]["values"] == "uint16"
    assert "range" not in header["style"]
    path, _ = pair_of_12_bits(pair, tmp_path)
    written, done = made(ranged_run, path, tmp_path / "out.tif")
    assert f"{BLACK_TO_WHITE}, as the model learned" in done.notices
    same, _ = made(ranged_run, path, tmp_path / "same.tif", range="0,4095")
    np.testing.assert_array_equal(written, same)
    full, done = made(ranged_run, path, tmp_path / "full.tif", range="full")
    assert not any("black to white" in each for each in done.notices)
    assert (full != written).any()


def test_what_a_model_learned_is_not_of_another_type(
    ranged_run: Path, tiny_run: Path, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    _, done = made(ranged_run, pair[0], tmp_path / "out.png")
    assert done.notices == (
        "the model learned uint16 values 0,4095, and all uint8 values are taken here; try --range",
    )
    _, done = made(ranged_run, pair[0], tmp_path / "full.png", range="full")
    assert done.notices == ()


def test_bands_that_a_model_learned_are_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with Image.open(pair[0]) as image:
        content = tiff(tmp_path / "content.tif", np.asarray(image))
    few = {**TINY, "steps": 1, "warm_steps": 0}
    sincut.train(content, pair[1], tmp_path / "run", bands="3,2,1", **few)
    _, done = made(tmp_path / "run", pair[0], tmp_path / "out.png")
    assert done.notices == (
        "the model learned bands 3,2,1, and the first ones are taken here; try --bands 3,2,1",
    )
    _, done = made(tmp_path / "run", content, tmp_path / "out.tif", bands="3,2,1")
    assert done.notices == ()


def test_what_was_begun_with_another_range_is_not_gone_on_with(
    tiny_run: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (640, 40, 3), np.uint16)
    path, seen = tiff(tmp_path / "in.tif", pixels), []

    def stop(progress: object) -> None:
        seen.append(progress)
        if len(seen) == 36:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"tile": "32", "range": "0,4095"}
    target = tmp_path / "out.tif"
    with pytest.raises(Interrupted, match="bands done"):
        translate(tiny_run, path, target, on_tile=stop, **options)
    with pytest.raises(SincutError, match="--range"):
        translate(tiny_run, path, target, resume=True, **{**options, "range": "0,4000"})
    translate(tiny_run, path, target, resume=True, **options)
    written, _ = made(tiny_run, path, tmp_path / "whole.tif", **options)
    np.testing.assert_array_equal(tifffile.imread(target), written)


def test_an_ome_zarr_has_the_files_own_values(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """As a TIFF has them; also read again by windows."""
    pytest.importorskip("zarr", reason="zarr is not installed")
    path, pixels = pair_of_12_bits(pair, tmp_path)
    options: dict[str, Any] = {"range": "auto", "tile": "64"}
    for strength in (0.0, 1.0):
        translate(tiny_run, path, tmp_path / "o.ome.zarr", strength=strength, force=True, **options)
        written, _ = made(
            tiny_run, path, tmp_path / "o.tif", strength=strength, force=True, **options
        )
        found = level(tmp_path / "o.ome.zarr")
        assert np.abs(found.astype(int) - written).max() <= 1
        if not strength:
            np.testing.assert_array_equal(found, pixels)
    with open_source(
        tmp_path / "o.ome.zarr",
        max_pixels=10**9,
        max_memory=10**9,
        asked=AskedValues(automatic=True),
        region=Region(10, 20, 60, 50),
    ) as source:
        low, high = source.colours.range or (0, 0)
        assert 0 <= low < high <= 4095
        np.testing.assert_array_equal(source.rows(0, 50), found[20:70, 10:70])


def test_a_region_has_a_range_of_its_own(tiny_run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (80, 90, 3), np.uint16)
    pixels[10:74, 10:74] = pixels[10:74, 10:74] // 16
    path = tiff(tmp_path / "in.tif", pixels)
    options: dict[str, Any] = {"range": "auto", "region": "10,10,64,64"}
    written, done = made(tiny_run, path, tmp_path / "out.tif", **options)
    assert written.max() <= 4095
    (told,) = (each for each in done.notices if "black to white" in each)
    assert told.startswith("its values ")


def test_tiles_by_other_windows_agree(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = pair_of_12_bits(pair, tmp_path)
    _, done = made(tiny_run, path, tmp_path / "o.tif", range="auto", verify=2, tile="64")
    assert done.difference is not None
    assert done.difference < 0.01


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"range": "5,1"},
            "range must be two increasing numbers such as 0,4095, learned, auto or full, got 5,1; "
            "try --range 0,4095",
        ),
        (
            {"bands": "1,2"},
            "bands must be three whole numbers from 1 such as 4,3,2, got 1,2; try --bands 4,3,2",
        ),
    ],
)
def test_what_is_none(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, options: Any, text: str
) -> None:
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, pair[0], tmp_path / "out.png", **options)
    assert str(caught.value) == text
