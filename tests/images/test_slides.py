"""Slides, through OpenSlide."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sincut.errors import SincutError
from sincut.images.reading import slides
from sincut.images.reading.asked import Region
from sincut.images.reading.open import image_size, open_source
from sincut.images.reading.source import Source
from sincut.translation.translate import translate

openslide = pytest.importorskip("openslide", reason="openslide-python is not installed")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def opened(path: Path, **options: Any) -> Source:
    return open_source(path, max_pixels=10**9, max_memory=10**9, **options)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(SincutError) as caught:
        opened(path, **options)
    return str(caught.value)


def pixels_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SVS as Aperio's scanners write it, but not compressed: 2,500 × 1,300, a thumbnail, a level
    a quarter as wide, a label; 0.25 micrometres a pixel."""
    path = tmp_path_factory.mktemp("slides") / "slide.svs"
    full = pixels_of(1300, 2500)
    said = "Aperio Image Library v12.0.0\r\n2500x1300 (256x256)|AppMag = 40|MPP = 0.2500"
    tiled: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(full, description=said, iccprofile=SRGB, **tiled)
        file.write(full[::8, ::8], photometric="rgb", metadata=None, description="Aperio thumb")
        file.write(full[::4, ::4], description=said, **tiled)
        file.write(
            pixels_of(40, 60), photometric="rgb", metadata=None, subfiletype=1,
            description="Aperio Image Library\r\nlabel 60x40",
        )  # fmt: skip
    return path


def test_a_slide_is_read_by_windows(slide: Path) -> None:
    full = pixels_of(1300, 2500)
    with opened(slide) as source:
        assert (source.width, source.height, source.channels) == (2500, 1300, 3)
        assert source.by_window
        assert np.array_equal(source.rows(1000, 1100), full[1000:1100])
        window = source.read(slice(900, 1300), slice(1000, 2100))
        assert np.array_equal(window, full[900:1300, 1000:2100])
        assert source.carried.dpi == pytest.approx((101_600, 101_600))
        assert source.carried.profile == SRGB
        (notice,) = source.notices
        assert notice.startswith("its ")
        assert "label image" in notice
        assert notice.endswith("not kept")
    assert image_size(slide) == (2500, 1300)


def test_a_level_is_what_openslide_reads(slide: Path) -> None:
    with openslide.OpenSlide(str(slide)) as other:
        size = other.level_dimensions[1]
        expected = np.asarray(other.read_region((0, 0), 1, size).convert("RGB"))
    with opened(slide, level=1) as source:
        assert (source.width, source.height) == size
        assert np.array_equal(source.rows(0, size[1]), expected)
        assert source.carried.dpi == pytest.approx((25_400, 25_400))
    with opened(slide, level=1, region=Region(5, 7, 100, 50)) as source:
        assert np.array_equal(source.rows(0, 50), expected[7:57, 5:105])
    assert refusal(slide, level=2) == f"{slide} has 2 levels, got level 2; allowed: 0 to 1"


def test_windows_agree_where_levels_are_no_whole_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 pixels become 333: OpenSlide mixes pixels where a window begins between two."""
    monkeypatch.setattr(slides, "_CELL", 64)
    path = tmp_path / "odd.tif"
    tiled: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels_of(1000, 1000), **tiled)
        file.write(pixels_of(333, 333), subfiletype=1, **tiled)
    with opened(path, level=1) as source:
        whole = source.rows(0, 333)
    for top, left in ((0, 0), (17, 40), (131, 205), (300, 1)):
        with opened(path, level=1) as source:
            window = source.read(slice(top, top + 33), slice(left, left + 90))
        assert np.array_equal(window, whole[top : top + 33, left : left + 90])


def test_nothing_scanned_is_background() -> None:
    class Empty:
        level_dimensions = ((100, 50),)
        level_downsamples = (1.0,)
        properties = {"openslide.background-color": "10ff00"}  # noqa: RUF012

        def read_region(self, *_: object) -> Image.Image:
            region = np.zeros((50, 100, 4), np.uint8)
            region[:, 50:] = 200, 100, 50, 255
            region[:, 40:50] = 200, 100, 50, 128
            return Image.fromarray(region)

    rows = slides.SlideRows(Empty(), 0).read(0, 50)
    assert rows[0, 0].tolist() == [16, 255, 0]
    assert rows[0, 60].tolist() == [200, 100, 50]
    assert rows[0, 45].tolist() == [108, 177, 25]


@pytest.mark.parametrize("name", ["out.tif", "out.png", "out.jpg", "out.ome.zarr"])
def test_a_slide_is_translated(name: str, slide: Path, tiny_run: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"level": 1, "region": (5, 7, 100, 50), "strength": 0}
    (done,) = translate(tiny_run, slide, tmp_path / name, **options)
    assert any("label image" in notice for notice in done.notices)
    (done,) = translate(tiny_run, slide, tmp_path / name, force=True, **options | {"level": 0})
    too_fine = "its resolution of 101600 dots per inch is not kept: JPEG can hold 65535"
    assert (too_fine in done.notices) == (name == "out.jpg")
    with opened(tmp_path / name) as source:
        got, dpi = source.rows(0, 50), source.carried.dpi
    if name == "out.jpg":
        assert dpi is None
        return
    assert np.array_equal(got, pixels_of(1300, 2500)[7:57, 5:105])
    assert dpi == pytest.approx((101_600, 101_600), rel=1e-3)


def test_only_some_cells_are_kept(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "_CELL", 128)
    monkeypatch.setattr(slides, "_CELLS", 3)
    rows = slides.SlideRows(openslide.OpenSlide(str(slide)), 0)
    assert np.array_equal(rows.read(100, 300), pixels_of(1300, 2500)[100:300])
    assert len(rows._cells) == 3
    rows.close()


def test_what_openslide_does_not_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.ndpi").write_bytes(b"nothing")
    assert refusal(tmp_path / "no.ndpi") == (
        f"{tmp_path / 'no.ndpi'} is no slide that OpenSlide reads; try a copy as a TIFF in tiles"
    )
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(bytes(128) + b"DICM" + bytes(200))
    assert refusal(scan) == (
        f"{scan} is DICOM, but no slide, the only kind of it that is read; try a copy as PNG or "
        "TIFF"
    )
    Image.new("RGB", (40, 30)).save(tmp_path / "in.png")
    assert refusal(tmp_path / "in.png", level=1) == (
        f"{tmp_path / 'in.png'} has no levels that OpenSlide reads, got level 1; try level 0"
    )


def test_a_slide_of_a_kind_that_openslide_lacks_is_not_called_broken(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise openslide.OpenSlideError("Unsupported transfer syntax 1.2.840.10008.1.2.5")

    monkeypatch.setattr(openslide, "OpenSlide", fail)
    assert refusal(slide) == (
        f"{slide} is of a kind that is not supported (Unsupported transfer syntax "
        "1.2.840.10008.1.2.5); try a copy as PNG or TIFF"
    )


def test_without_the_package_an_svs_is_a_tiff(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with opened(slide) as source:
        assert np.array_equal(source.rows(0, 100), pixels_of(1300, 2500)[:100])
    (tmp_path / "no.ndpi").write_bytes(b"nothing")
    assert refusal(tmp_path / "no.ndpi") == (
        f"{tmp_path / 'no.ndpi'} takes the package openslide-python, which is not installed; try "
        "pip install 'sincut[slides]'"
    )
