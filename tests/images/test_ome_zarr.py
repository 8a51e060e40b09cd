"""OME-Zarr of both versions, read by windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sincut.errors import SincutError
from sincut.images.reading.asked import Region
from sincut.images.reading.open import image_size, open_source, read_picture
from sincut.images.reading.source import Source

zarr = pytest.importorskip("zarr", reason="the package zarr is not installed")


def opened(path: Path, **options: Any) -> Source:
    return open_source(path, max_pixels=10**9, max_memory=10**9, **options)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(SincutError) as caught:
        opened(path, **options)
    return str(caught.value)


def written(
    path: Path,
    pixels: np.ndarray,
    axes: str,
    *,
    version: str = "0.5",
    unit: str | None = "micrometer",
    scales: tuple[float, ...] = (1.0, 2.0),
) -> Path:
    """An image with a level for each of ``scales``, each made of every second pixel."""
    multiscale: dict[str, Any] = {
        "axes": [
            {"name": axis, "type": "space", "unit": unit} if axis in "yx" and unit
            else {"name": axis, "type": "channel"}
            for axis in axes
        ],
        "datasets": [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [s if axis in "yx" else 1.0 for axis in axes]}
                ],
            }
            for number, s in enumerate(scales)
        ],
    }  # fmt: skip
    said: dict[str, Any] = {"multiscales": [{**multiscale, "version": version}]}
    attributes = {"ome": {"version": version, **said}} if version == "0.5" else said
    group = zarr.create_group(
        store=str(path), attributes=attributes, zarr_format=3 if version == "0.5" else 2
    )
    for number in range(len(scales)):
        every = tuple(slice(None, None, 2**number if axis in "yx" else 1) for axis in axes)
        part = pixels[every]
        chunks = tuple(min(32, side) for side in part.shape)
        array = group.create_array(str(number), shape=part.shape, chunks=chunks, dtype=part.dtype)
        array[:] = part
    return path


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(1).integers(0, 256, shape)
    return (
        values / 255 if dtype == "float32" else values * (257 if dtype == "uint16" else 1)
    ).astype(dtype)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_planes_of_three_channels_are_rgb(version: str, dtype: str, tmp_path: Path) -> None:
    pixels = noise(3, 90, 70, dtype=dtype)
    path = written(tmp_path / "in.ome.zarr", pixels, "cyx", version=version)
    with opened(path) as source:
        assert (source.height, source.width, source.channels) == (90, 70, 3)
        assert (source.dtype.name, source.by_window) == (dtype, True)
        assert np.array_equal(source.rows(0, 90), pixels.transpose(1, 2, 0))
        window = source.read(slice(13, 61), slice(40, 70))
        assert np.array_equal(window, pixels[:, 13:61, 40:70].transpose(1, 2, 0))
        assert source.notices == ()
    assert image_size(path) == (70, 90)


@pytest.mark.parametrize(
    ("shape", "axes", "notices"),
    [
        ((90, 70), "yx", ()),
        ((70, 90), "xy", ()),
        ((1, 1, 1, 90, 70), "tczyx", ()),
        ((2, 3, 4, 90, 70), "tczyx", (
            "it has 2 planes along t; the first is used",
            "it has 4 planes along z; the first is used",
        )),
        ((90, 70, 5), "yxc", ("of its 5 channels the first three are used",)),
    ],
)  # fmt: skip
def test_axes_may_be_others(
    shape: tuple[int, ...], axes: str, notices: tuple[str, ...], tmp_path: Path
) -> None:
    pixels = noise(*shape)
    path = written(tmp_path / "in.ome.zarr", pixels, axes)
    sizes = dict(zip(axes, shape, strict=True))
    plane = pixels[tuple(0 if axis in "tz" else slice(None) for axis in axes)]
    left = [axis for axis in axes if axis not in "tz"]
    plane = plane.transpose([left.index(axis) for axis in "yxc" if axis in left])
    if "c" not in left:
        plane = plane[..., None]
    expected = plane[..., :3] if sizes.get("c", 1) >= 3 else np.repeat(plane, 3, axis=2)
    with opened(path) as source:
        assert np.array_equal(source.rows(0, 90), expected)
        assert source.notices == notices


def test_a_level_and_a_region_are_a_part(tmp_path: Path) -> None:
    pixels = noise(3, 90, 70)
    path = written(tmp_path / "in.ome.zarr", pixels, "cyx", scales=(0.5, 1.0))
    half = pixels[:, ::2, ::2].transpose(1, 2, 0)
    with opened(path, level=1) as source:
        assert np.array_equal(source.rows(0, 45), half)
        assert source.carried.dpi == pytest.approx((25_400, 25_400))
    with opened(path, level=1, region=Region(left=3, top=5, width=20, height=30)) as source:
        assert (source.height, source.width) == (30, 20)
        assert np.array_equal(source.rows(0, 10), half[5:15, 3:23])
        assert np.array_equal(source.read(slice(2, 8), slice(1, 4)), half[7:13, 4:7])
    assert refusal(path, level=2) == f"{path} has 2 levels, got level 2; allowed: 0 to 1"
    assert refusal(path, region=Region(0, 0, 71, 90)) == (
        f"{path} has 70×90 pixels, and the region reaches to row 90 and column 71; try one within "
        "the image"
    )


def test_a_region_is_of_every_kind_of_file(tmp_path: Path) -> None:
    from PIL import Image

    pixels = noise(90, 70, 4)
    for name in ("in.png", "in.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        for above in (None, 0):
            region = Region(left=3, top=5, width=20, height=30)
            with opened(tmp_path / name, region=region, stream_above=above) as source:
                assert np.array_equal(source.rows(0, 30), pixels[5:35, 3:23])


def test_a_zarr_is_a_picture(tmp_path: Path) -> None:
    pixels = noise(3, 90, 70)
    path = written(tmp_path / "in.ome.zarr", pixels, "cyx", unit=None)
    picture = read_picture(path)
    assert np.array_equal(picture.rgb, pixels.transpose(1, 2, 0))
    assert picture.dpi is None


def test_what_cannot_be_read_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "in.ome.zarr"
    assert refusal(path) == f"{path} does not exist; give an OME-Zarr folder"
    path.write_bytes(b"")
    assert refusal(path) == f"{path} is a file, not a Zarr folder; give an OME-Zarr folder"
    path.unlink()
    path.mkdir()
    assert refusal(path).startswith(f"{path} is no OME-Zarr image that can be read (")
    two = written(tmp_path / "two.zarr", noise(2, 9, 9), "cyx")
    assert refusal(two) == (
        f"{two} has 2 channels, which are no colours; allowed: 1 (grey), 3 (RGB) and more, of "
        "which the first three are taken"
    )
    deep = written(tmp_path / "deep.zarr", noise(3, 9, 9).astype(np.int32), "cyx")
    assert refusal(deep) == (
        f"{deep} has samples of the kind int32, which is not supported; allowed: uint8, uint16, "
        "float32; try a copy of one of these"
    )
    damaged = written(tmp_path / "damaged.zarr", noise(3, 90, 70), "cyx")
    (damaged / "0" / "zarr.json").write_text("{")
    assert refusal(damaged).startswith(f"{damaged} is no OME-Zarr image that can be read (")
    three = written(tmp_path / "three.zarr", noise(3, 9, 9), "cyx")
    with pytest.raises(SincutError) as caught:
        open_source(three, max_pixels=10, max_memory=10**9)
    assert "allowed are 10; try --max-pixels 81" in str(caught.value)


def test_a_damaged_chunk_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "in.zarr", noise(3, 90, 70), "cyx")
    chunk = path / "0" / "c" / "0" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with opened(path) as source:
        source.rows(0, 20)
        with pytest.raises(SincutError, match=r"in\.zarr is broken or cut short"):
            source.rows(20, 90)


def test_without_the_package_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    assert refusal(tmp_path / "in.zarr") == (
        f"{tmp_path / 'in.zarr'} takes the package zarr, which is not installed; try "
        "pip install 'sincut[zarr]'"
    )
