"""Big images by bands: every format's pixels and metadata, and what is refused and how."""

from __future__ import annotations

import errno
import io
import itertools
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sincut.images.metadata import KeptMetadata
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Picture
from sincut.images.writing import part_file as partfile
from sincut.images.writing.formats import (
    check,
    depth_notice,
    disk_bytes,
    memory_bytes,
    output_dtype,
)
from sincut.images.writing.layout import Layout
from sincut.images.writing.part_file import begun
from sincut.images.writing.writer import Writer
from tests.images.by_pillow import write_picture
from tests.images.test_pillow import WIDE, exif_block, exif_of, geo_of, geo_tiff, only, refusal

U8, U16, F32 = (np.dtype(each) for each in (np.uint8, np.uint16, np.float32))
SIZES = [(1, 1), (257, 333), (513, 300), (600, 5)]
HELD = {".tif": (U8, U16, F32), ".png": (U8, U16), ".webp": (U8,)}
LOSSLESS = [(ending, dtype) for ending, dtypes in HELD.items() for dtype in dtypes]
BEGUN = ".png", ".jpg", ".tif", ".webp"

NOTHING = KeptMetadata()


def picture(
    height: int, width: int, channels: int = 3, dtype: np.dtype[Any] = U8, seed: int = 1
) -> np.ndarray:
    """(H, W, C): a smooth ramp with noise, so that predictors and filters have something to do."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.linspace(0, 0.5, height), np.linspace(0, 0.4, width))[..., None]
    values = ramp + rng.random((height, width, channels)) * 0.1
    values[: height // 3, : width // 2] = rng.random((height // 3, width // 2, channels))
    if dtype == F32:
        return (4 * values - 1).astype(F32)
    return (values * np.iinfo(dtype).max).astype(dtype)


def layout_of(pixels: np.ndarray) -> Layout:
    return Layout(*pixels.shape, dtype=pixels.dtype)


def opened(
    path: Path,
    pixels: np.ndarray,
    carried: KeptMetadata = NOTHING,
    **options: Any,
) -> Writer:
    options = {"band_rows": 256, "identity": {"model": "abc"}} | options
    return Writer.open(path, layout_of(pixels), carried, **options)


def band(writer: Writer, pixels: np.ndarray, index: int) -> np.ndarray:
    return pixels[index * writer.band_rows : (index + 1) * writer.band_rows]


def add(writer: Writer, pixels: np.ndarray, until: int | None = None) -> None:
    """Append the bands that are missing, up to ``until``."""
    for index in range(writer.done, writer.bands if until is None else until):
        writer.append(writer.encode(index, band(writer, pixels, index)))


def write(
    path: Path,
    pixels: np.ndarray,
    carried: KeptMetadata = NOTHING,
    **options: Any,
) -> Path:
    with opened(path, pixels, carried, **options) as writer:
        add(writer, pixels)
        writer.finish()
    assert not [name for name in only(path.parent) if name.startswith(".")]
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def vips() -> Iterator[Any]:
    pyvips = pytest.importorskip("pyvips")
    pyvips.cache_set_max(0)  # it remembers files by their names
    yield pyvips
    pyvips.cache_set_max(100)


# ------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("ending", "dtype"), LOSSLESS)
def test_lossless_formats_hold_every_pixel(
    tmp_path: Path, ending: str, dtype: np.dtype[Any], channels: int, vips: Any
) -> None:
    for height, width in SIZES:
        pixels = picture(height, width, channels, dtype)
        path = write(tmp_path / f"{height}{ending}", pixels)
        if dtype == U8:
            np.testing.assert_array_equal(read(path), pixels)
        image = vips.Image.new_from_file(str(path))
        assert (image.height, image.width, image.bands) == pixels.shape
        np.testing.assert_array_equal(image.numpy(), pixels, strict=True)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_jpeg_decodes_as_one_encoded_in_one_piece(
    tmp_path: Path, height: int, width: int
) -> None:
    pixels = picture(height, width)
    path = write(tmp_path / "a.jpg", pixels)
    write_picture(tmp_path / "b.jpg", pixels, Picture(pixels), strip_metadata=False)
    np.testing.assert_array_equal(read(path), read(tmp_path / "b.jpg"))


def test_a_jpeg_of_many_bands_is_read_by_others(tmp_path: Path, vips: Any) -> None:
    pixels = picture(1030, 70)
    path = write(tmp_path / "a.jpg", pixels)
    image = vips.Image.new_from_file(str(path), fail_on="warning")
    np.testing.assert_array_equal(image.numpy(), read(path))


@pytest.mark.parametrize("ending", BEGUN)
def test_the_height_of_bands_changes_no_pixel(tmp_path: Path, ending: str) -> None:
    pixels = picture(700, 40)
    one = read(write(tmp_path / f"a{ending}", pixels, band_rows=700))
    for rows in (256, 512):
        np.testing.assert_array_equal(
            one, read(write(tmp_path / ("b" + ending), pixels, band_rows=rows))
        )


def test_extreme_pixels_survive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, pixels in {
        "flat": np.zeros((300, 300, 3), np.uint8),
        "white": np.full((300, 300, 3), 255, np.uint8),
        "noise": rng.integers(0, 256, (300, 300, 3), dtype=np.uint8),
        "checks": np.indices((300, 300, 3), np.uint8).sum(axis=0, dtype=np.uint8) % 2 * 255,
    }.items():
        for ending in (".png", ".tif"):
            np.testing.assert_array_equal(read(write(tmp_path / f"{name}{ending}", pixels)), pixels)


def test_bands_are_encoded_by_threads_in_any_order(tmp_path: Path) -> None:
    pixels = picture(2000, 90)
    for ending in BEGUN:
        expected = write(tmp_path / f"a{ending}", pixels).read_bytes()
        path = tmp_path / f"b{ending}"
        with opened(path, pixels) as writer, ThreadPoolExecutor(4) as pool:
            order = list(range(writer.bands))[::-1]
            encoded = list(pool.map(lambda i: writer.encode(i, band(writer, pixels, i)), order))
            for each in reversed(encoded):
                writer.append(each)
            writer.finish()
        assert path.read_bytes() == expected


def test_bands_must_fit_and_come_in_order(tmp_path: Path) -> None:
    pixels = picture(600, 20)
    with opened(tmp_path / "a.tif", pixels) as writer:
        with pytest.raises(ValueError, match=r"band 0 is \(255, 20, 3\) of uint8, expected \(256"):
            writer.encode(0, pixels[:255])
        with pytest.raises(ValueError, match="of float32, expected"):
            writer.encode(0, pixels[:256].astype(F32))
        with pytest.raises(ValueError, match=r"expected \(88, 20, 3\)"):
            writer.encode(2, pixels[:256])
        second = writer.encode(1, pixels[256:512])
        with pytest.raises(ValueError, match="got band 1, expected 0"):
            writer.append(second)
        with pytest.raises(ValueError, match="0 of 3 bands are there"):
            writer.finish()
    for rows in (0, 100, 257):
        with pytest.raises(ValueError, match=f"band_rows is {rows}, not a multiple of 256"):
            opened(tmp_path / "a.tif", pixels, band_rows=rows)
    with pytest.raises(ValueError, match="JPEG cannot hold uint16"):
        opened(tmp_path / "a.jpg", pixels.astype(U16))
    assert only(tmp_path) == []


def test_progress_of_the_finish_goes_up_to_1(tmp_path: Path, vips: Any) -> None:
    pixels = picture(1100, 700)
    for name, options in {"a.tif": {"pyramid": True}, "a.dzi": {}}.items():
        told: list[float] = []
        with opened(tmp_path / name, pixels, **options) as writer:
            add(writer, pixels)
            writer.finish(told.append)
        assert told == sorted(told)
        assert told[-1] == 1
        assert all(0 <= each <= 1 for each in told)


# ----------------------------------------------------------------------------------- metadata


def everything(tmp_path: Path) -> KeptMetadata:
    geo = decode_picture(geo_tiff(tmp_path / "geo.tif")).geo
    return KeptMetadata(WIDE, exif_block(orientation=1), (300.0, 150.5), geo)


def as_picture(pixels: np.ndarray, carried: KeptMetadata) -> Picture:
    """For ``write_picture``, with colours that are in the profile already."""
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    named = {"exif": carried.exif, "dpi": carried.dpi, "geo": carried.geo}
    return Picture(pixels[..., :3], alpha, profile=carried.profile, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("ending", BEGUN)
def test_metadata_are_those_of_a_small_picture(tmp_path: Path, ending: str, strip: bool) -> None:
    pixels, carried = picture(300, 40), everything(tmp_path)
    path = write(tmp_path / f"a{ending}", pixels, carried, strip_metadata=strip)
    other = tmp_path / f"b{ending}"
    write_picture(other, pixels, as_picture(pixels, carried), strip_metadata=strip)
    with Image.open(path) as ours, Image.open(other) as theirs:
        ours.load()
        theirs.load()
        assert ours.info == theirs.info
        assert ours.info["icc_profile"] == WIDE
        dpi = ours.info.get("dpi", (1, 1))  # what Pillow has for a TIFF that says nothing
        assert (dpi != (1, 1)) == (not strip and ending != ".webp")
    assert exif_of(path) == exif_of(other)
    assert (exif_of(path)["make"] == "Make") == (not strip)
    if ending == ".tif":
        assert geo_of(path) == geo_of(other)
        assert bool(geo_of(path)) == (not strip)


@pytest.mark.parametrize("ending", BEGUN)
def test_without_metadata_none_are_made_up(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a{ending}", picture(20, 20))
    with Image.open(path) as image:
        image.load()
        assert not {"icc_profile", "exif"} & set(image.info)
        assert image.info.get("dpi", (1, 1)) == (1, 1)  # which Pillow has for every TIFF


@pytest.mark.parametrize(("ending", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP")])
def test_lost_metadata_are_told(tmp_path: Path, ending: str, kind: str) -> None:
    pixels, carried = picture(20, 20), everything(tmp_path)
    for strip in (False, True):
        with opened(tmp_path / f"a{ending}", pixels, carried, strip_metadata=strip) as writer:
            add(writer, pixels)
            told = f"its GeoTIFF tags are not kept: {kind} cannot hold them"
            assert writer.finish() == (() if strip else (told,))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_deep_pictures_keep_their_metadata(tmp_path: Path, ending: str, vips: Any) -> None:
    carried = replace(everything(tmp_path), dpi=(300.0, 300.0))  # as its EXIF says
    path = write(tmp_path / f"a{ending}", picture(20, 20, 4, U16), carried)
    image = vips.Image.new_from_file(str(path))
    assert image.get("icc-profile-data") == WIDE
    if ending == ".png":
        assert image.get("exif-ifd0-Make").startswith("Make")
    assert (image.xres, image.yres) == pytest.approx((300 / 25.4,) * 2, rel=1e-4)


# ------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("ending", BEGUN)
def test_an_interrupted_file_becomes_the_same(tmp_path: Path, ending: str) -> None:
    pixels, carried = picture(1100, 60), everything(tmp_path)
    expected = write(tmp_path / f"a{ending}", pixels, carried).read_bytes()
    path = tmp_path / f"b{ending}"
    for until in range(1, 6):
        assert (begun(path) is not None) == (until > 1)
        with opened(path, pixels, carried, resume=True) as writer:
            assert writer.done == until - 1
            add(writer, pixels, until)
    assert not path.exists()
    with opened(path, pixels, carried, resume=True) as writer:
        assert writer.done == writer.bands == 5
        writer.finish()
    assert path.read_bytes() == expected
    assert not begun(path)


KILLED = """
import os, pickle, random, signal, sys
from pathlib import Path
from sincut.images.writing import part_file as partfile, tiff as tiffs
from sincut.images.writing.writer import Writer
folder, name, options = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
pixels, layout, carried = pickle.loads((folder / "in.pickle").read_bytes())
rng, real, kills, resumed = random.Random(name), partfile._write_all, 0, []
while True:
    life = rng.randrange(1, int(sys.argv[4]))
    read, write = os.pipe()
    child = os.fork()
    if not child:
        def dying(file, data):
            global life
            life -= 1
            if life == 0:
                real(file, data[: rng.randrange(len(data) + 1)])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(file, data)
        partfile._write_all = dying
        writer = Writer.open(
            folder / name, layout, carried, band_rows=256, identity={}, resume=True, **options
        )
        os.write(write, bytes([writer.done]))
        for i in range(writer.done, writer.bands):
            writer.append(writer.encode(i, pixels[i * 256 : (i + 1) * 256]))
        writer.finish()
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    resumed += os.read(read, 1)
    os.close(read)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    kills += 1
    assert kills < 500, "no progress"
print(kills, *resumed)
"""


@pytest.mark.parametrize(
    ("name", "width", "writes", "options"),
    [
        ("a.tif", 560, 12, {"pyramid": True}),
        ("b.tif", 560, 12, {"compression": "none"}),
        ("a.png", 560, 8, {}),
        ("a.jpg", 560, 7, {}),
        ("a.webp", 30, 5, {}),
    ],
)
def test_killed_at_every_kind_of_moment_it_becomes_the_same(
    tmp_path: Path, name: str, width: int, writes: int, options: dict[str, Any]
) -> None:
    """kill -9 in the middle of writes to part file and journal, of bands, levels and the end."""
    pixels, carried = picture(10 * 256 + 7, width), everything(tmp_path)
    (tmp_path / "in.pickle").write_bytes(pickle.dumps((pixels, layout_of(pixels), carried)))
    expected = write(tmp_path / f"whole-{name}", pixels, carried, identity={}, **options)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), name, repr(options), str(writes)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills, *resumed = map(int, done.stdout.split())
    assert kills >= 10
    assert resumed == sorted(resumed)  # what was done once stays done
    assert len([each for each in resumed if 0 < each < 11]) >= 2
    if options.get("pyramid"):
        assert resumed.count(11) >= 2  # killed among the smaller levels
    assert (tmp_path / name).read_bytes() == expected.read_bytes()
    assert not [each for each in only(tmp_path) if each.startswith(".")]


def test_killed_from_outside_it_becomes_the_same(tmp_path: Path) -> None:
    pixels = picture(4 * 256, 20)
    np.save(tmp_path / "in.npy", pixels)
    path, ready = tmp_path / "a.png", tmp_path / "ready"
    code = (
        "import sys, time, numpy as np\n"
        "from pathlib import Path\n"
        "from sincut.images.writing.writer import Layout, Writer\n"
        "from sincut.images.metadata import KeptMetadata\n"
        "folder = Path(sys.argv[1]); pixels = np.load(folder / 'in.npy')\n"
        "writer = Writer.open(folder / 'a.png', Layout(*pixels.shape, dtype=pixels.dtype),\n"
        "    KeptMetadata(), band_rows=256, identity={'model': 'abc'})\n"
        "for i in (0, 1): writer.append(writer.encode(i, pixels[i * 256 : (i + 1) * 256]))\n"
        "(folder / 'ready').touch(); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.01)
        assert refusal(opened, path, pixels, resume=True) == (
            f"{path} is being written by another process; wait for it, or choose another output"
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with opened(path, pixels, resume=True) as writer:
        assert writer.done == 2
        add(writer, pixels)
        writer.finish()
    np.testing.assert_array_equal(read(path), pixels)


def test_what_was_begun_is_not_thrown_away_unasked(tmp_path: Path) -> None:
    pixels, path = picture(1000, 20), tmp_path / "a.tif"
    with opened(path, pixels) as writer:
        add(writer, pixels, 3)
    assert begun(path)
    files = {name: (tmp_path / name).read_bytes() for name in only(tmp_path)}
    assert list(files) == [".a.tif.journal", ".a.tif.part"]
    assert refusal(opened, path, pixels) == (
        f"{path} was begun before and is 3 of 4 bands done; try --resume, or --force to start anew"
    )
    assert files == {name: (tmp_path / name).read_bytes() for name in only(tmp_path)}
    with opened(path, pixels, force=True) as writer:
        assert writer.done == 0
    assert only(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model", {"identity": {"model": "other"}}),
        ("model", {"identity": {}}),
        ("noise seed", {"identity": {"model": "abc", "noise_seed": 3}}),
        ("band height", {"band_rows": 512}),
        ("compression", {"compression": "none"}),
        ("pyramid setting", {"pyramid": True}),
        ("set of metadata", {"strip_metadata": True}),
        ("set of metadata", {"carried": KeptMetadata(dpi=(72.0, 72.0))}),
        ("width", {"pixels": picture(1000, 21)}),
        ("height", {"pixels": picture(1001, 20)}),
        ("number of channels", {"pixels": picture(1000, 20, 4)}),
        ("depth", {"pixels": picture(1000, 20, dtype=U16)}),
    ],
)
def test_with_something_else_it_does_not_go_on(
    tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    pixels, path = picture(1000, 20), tmp_path / "a.tif"
    with opened(path, pixels) as writer:
        add(writer, pixels, 1)
    arguments = {"pixels": pixels} | change
    assert refusal(opened, path, **arguments, resume=True) == (
        f"{path} was begun with another {name}; try the same as before, or --force to start anew"
    )
    with opened(path, pixels, resume=True) as writer:
        assert writer.done == 1  # nothing was lost by asking
    with opened(path, **arguments, resume=True, force=True) as writer:
        assert writer.done == 0


def test_with_nothing_there_resume_simply_starts(tmp_path: Path) -> None:
    pixels, path = picture(600, 20), tmp_path / "a.png"
    write(path, pixels, resume=True)
    np.testing.assert_array_equal(read(path), pixels)


def test_an_exception_keeps_what_is_done_or_leaves_nothing(tmp_path: Path) -> None:
    pixels, path = picture(600, 20), tmp_path / "a.png"

    def fail(until: int) -> None:
        with opened(path, pixels, resume=True) as writer:
            add(writer, pixels, until)
            raise KeyboardInterrupt

    for until, left in ((0, []), (1, [".a.png.journal", ".a.png.part"])):
        with pytest.raises(KeyboardInterrupt):
            fail(until)
        assert only(tmp_path) == left
    with opened(path, pixels, resume=True) as writer:
        writer.discard()
    assert only(tmp_path) == []


# ----------------------------------------------------------------------------------- trouble


def full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("ending", BEGUN)
def test_a_disk_full_in_the_middle_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    pixels, path = picture(1100, 20), tmp_path / f"a{ending}"
    expected = write(tmp_path / f"whole{ending}", pixels).read_bytes()
    real, fine = partfile._write_all, 1

    def filling(file: io.FileIO, data: bytes) -> int:
        nonlocal fine
        fine -= 1
        if fine < 0:
            real(file, data[: len(data) // 2])
            full()
        return real(file, data)

    with opened(path, pixels) as writer:
        monkeypatch.setattr(partfile, "_write_all", full)
        assert refusal(add, writer, pixels) == (
            f"cannot write {path} (No space left on device); free some space"
        )
        monkeypatch.setattr(partfile, "_write_all", real)
        add(writer, pixels, 2)
        monkeypatch.setattr(partfile, "_write_all", filling)
        for attempt in range(2):  # in the data, in the journal
            fine = attempt
            assert refusal(add, writer, pixels, 3) == (
                f"cannot write {path} (No space left on device); 2 of 5 bands are kept: free some "
                "space and use --resume"
            )
        monkeypatch.setattr(partfile, "_write_all", real)
    with opened(path, pixels, resume=True) as writer:
        assert writer.done == 2
        add(writer, pixels)
        writer.finish()
    assert path.read_bytes() == expected


@pytest.mark.parametrize("ending", BEGUN)
def test_a_disk_full_at_the_end_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    pixels, path = picture(300, 20), tmp_path / f"a{ending}"
    path.write_bytes(b"old")
    with opened(path, pixels) as writer:
        add(writer, pixels)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            assert refusal(writer.finish) == (
                f"cannot write {path} (No space left on device); 2 of 2 bands are kept: free some "
                "space and use --resume"
            )
    assert path.read_bytes() == b"old"
    with opened(path, pixels, resume=True) as writer:
        writer.finish()
    assert read(path).shape == pixels.shape
    assert only(tmp_path) == [path.name]


LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from sincut.errors import SincutError
from sincut.images.metadata import KeptMetadata
from sincut.images.writing.writer import Layout, Writer
pixels = np.random.default_rng(0).integers(0, 256, (1024, 100, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with Writer.open(Path(sys.argv[1]), Layout(1024, 100, 3, pixels.dtype), KeptMetadata(),
                     band_rows=256, identity={}) as writer:
        for i in range(4):
            writer.append(writer.encode(i, pixels[i * 256 : (i + 1) * 256]))
except SincutError as error:
    print(error)
"""


def test_a_real_limit_of_the_file_s_size_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"cannot write {path} (File too large); 2 of 4 bands are kept: check the place and use "
        "--resume\n"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 100, 3), dtype=np.uint8)
    with opened(path, pixels, identity={}, resume=True) as writer:
        assert writer.done == 2
        add(writer, pixels)
        writer.finish()
    np.testing.assert_array_equal(read(path), pixels)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    pixels, path = picture(600, 20), tmp_path / "a.tif"
    told = f"{path} is being written by another process; wait for it, or choose another output"
    with opened(path, pixels) as writer:
        add(writer, pixels, 1)
        for options in ({}, {"resume": True}, {"force": True}):
            assert refusal(opened, path, pixels, **options) == told
        add(writer, pixels)
        writer.finish()
    np.testing.assert_array_equal(read(path), pixels)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    pixels, path = picture(20, 20), tmp_path / "absent" / "a.tif"
    assert refusal(opened, path, pixels) == (
        f"the folder {path.parent} does not exist; create it first"
    )
    (tmp_path / ".a.tif.part").mkdir()
    path = tmp_path / "a.tif"
    assert refusal(opened, path, pixels) == f"cannot write {path} (Is a directory); check the place"
    assert only(tmp_path) == [".a.tif.part"]
    (tmp_path / ".a.tif.journal").mkdir()
    assert refusal(opened, path, pixels) == f"cannot write {path} (Is a directory); check the place"


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write(tmp_path / "a.png", picture(5, 5))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# ---------------------------------------------------------------------------- before the work


def test_what_each_format_holds() -> None:
    for ending, dtypes in (HELD | {".jpg": (U8,), ".dzi": (U8,), ".JPEG": (U8,)}).items():
        for dtype in (U8, U16, F32):
            held = output_dtype(Path(f"a{ending}"), dtype)
            assert held == (dtype if dtype in dtypes else dtypes[-1])
            assert (depth_notice(Path(f"a{ending}"), dtype) is None) == (held == dtype)
    for depth, dtype in (("8", U8), ("16", U16), ("float", F32)):
        assert output_dtype(Path("a.tif"), U8, depth) == dtype
    assert depth_notice(Path("a.jpg"), U16) == "16 bits per channel become 8: JPEG holds no more"
    assert (
        depth_notice(Path("a.png"), F32) == "floats become 16 bits per channel: PNG holds no more"
    )


def test_a_depth_that_a_format_cannot_hold_is_refused() -> None:
    assert refusal(output_dtype, Path("o/a.jpg"), U8, "16") == (
        "o/a.jpg cannot be written: JPEG cannot hold 16 bits per channel, at most 8 bits per "
        "channel; try a.tif"
    )
    assert refusal(output_dtype, Path("o/a.png"), U8, "float") == (
        "o/a.png cannot be written: PNG cannot hold floats, at most 16 bits per channel; try a.tif"
    )


def test_the_refusals_of_small_pictures_hold(tmp_path: Path) -> None:
    assert refusal(check, tmp_path / "a.jpg", Layout(9, 70_000, 3, U8)).endswith("try a.tif")
    assert "JPEG cannot hold the input's alpha" in refusal(
        check, tmp_path / "a.jpg", Layout(9, 9, 4, U8)
    )
    for name in ("a.tif", "a.png", "a.webp", "a.jpg"):
        check(tmp_path / name, Layout(9, 9, 3, U8))
    for name in ("a.gif", "x/a.tif"):
        assert refusal(check, tmp_path / name, Layout(9, 9, 3, U8))


def test_deep_zoom_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, path = Layout(9, 100_000, 4, U8), tmp_path / "a.dzi"
    folder = tmp_path / "b.dzi"
    folder.mkdir()
    assert refusal(check, folder, layout) == (
        f"{folder} is a folder, not a file; give a file name for the output"
    )
    assert refusal(check, tmp_path / "x" / "a.dzi", layout) == (
        f"the folder {tmp_path / 'x'} does not exist; create it first"
    )
    monkeypatch.setitem(sys.modules, "pyvips", None)
    assert refusal(check, path, layout) == (
        f"{path} needs pyvips, which is not installed; try pip install 'sincut[big]'"
    )


def test_deep_zoom_with_pyvips_is_fine(tmp_path: Path, vips: Any) -> None:
    check(tmp_path / "a.dzi", Layout(9, 100_000, 4, U8))


CASES = [
    *itertools.product(("a.tif",), (U8, U16, F32), ("deflate", "none"), (False, True)),
    *itertools.product(("a.png",), (U8, U16), ("deflate",), (False,)),
    *itertools.product(("a.jpg", "a.webp"), (U8,), ("deflate",), (False,)),
]


@pytest.mark.parametrize(("name", "dtype", "compression", "pyramid"), CASES)
def test_the_disk_that_is_needed_is_told(
    tmp_path: Path, name: str, dtype: np.dtype[Any], compression: str, pyramid: bool
) -> None:
    rng, peak = np.random.default_rng(0), 0
    for pixels in (
        np.zeros((900, 700, 3), dtype),
        np.frombuffer(rng.bytes(900 * 700 * 3 * dtype.itemsize), dtype).reshape(900, 700, 3),
    ):
        path = tmp_path / name
        with opened(path, pixels, compression=compression, pyramid=pyramid) as writer:
            add(writer, pixels)
            before = sum(each.stat().st_size for each in tmp_path.glob(".*.part"))
            writer.finish()
        peak = path.stat().st_size * (1 + pyramid) + (before if name == "a.webp" else 0)
        certain, at_most = disk_bytes(path, layout_of(pixels), compression, pyramid)
        assert certain <= peak <= at_most
    assert at_most - (1 << 20) <= 3 * peak  # of noise: the bound is not idle


def test_memory_is_that_of_the_encoder() -> None:
    big = Layout(50_000, 60_000, 3, U8)
    assert memory_bytes(Path("a.webp"), big) > 100e9
    for name in ("a.tif", "a.png", "a.jpg"):
        assert memory_bytes(Path(name), big) < 1e9
    assert 60e6 < memory_bytes(Path("a.dzi"), big) < 1e9
