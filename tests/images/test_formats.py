"""PNG, JPEG and deep zoom from bands: how the pieces are joined."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sincut.images.metadata import KeptMetadata
from sincut.images.vips import loaded_vips
from sincut.images.writing import png as encoders
from sincut.images.writing.layout import compressor, deflated_at_most
from sincut.images.writing.part_file import PartFile
from sincut.images.writing.png import adler_joined
from sincut.images.writing.writer import Writer
from tests.images.test_pillow import WIDE, exif_block, only, refusal
from tests.images.test_writing import U16, add, opened, picture, write


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_join(first: bytes, second: bytes) -> None:
    joined = adler_joined(zlib.adler32(first), zlib.adler32(second), len(second))
    assert joined == zlib.adler32(first + second)


def test_checksums_of_long_texts_join() -> None:
    text = bytes([255]) * 1_000_003
    assert adler_joined(zlib.adler32(text), zlib.adler32(text), len(text)) == zlib.adler32(text * 2)


@given(st.integers(0, 100_000), st.sampled_from([15, -15]))
def test_deflate_keeps_its_bound(size: int, window: int) -> None:
    noise = np.random.default_rng(size).bytes(size)
    deflate = compressor(window)
    assert len(deflate.compress(noise) + deflate.flush()) <= deflated_at_most(size)


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    data, place, found = path.read_bytes(), 8, []
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length) == (zlib.crc32(name + body),)
        found.append((name, body))
        place += 12 + length
    return found


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_a_png_is_one_sound_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(encoders, "_CHUNK", size)
    pixels = picture(700, 50, 4, U16)
    carried = KeptMetadata(WIDE, exif_block(), (72.0, 72.0))
    found = chunks(write(tmp_path / "a.png", pixels, carried))
    names = [name for name, _ in found if name != b"IDAT"]
    assert names == [b"IHDR", b"iCCP", b"pHYs", b"eXIf", b"IEND"]
    data = [body for name, body in found if name == b"IDAT"]
    assert max(map(len, data)) < 1 << 20
    rows = np.frombuffer(zlib.decompress(b"".join(data)), np.uint8).reshape(700, -1)
    assert rows.shape[1] == 1 + 50 * 8
    filters = set(rows[:, 0])
    assert filters == {1, 2, 3}
    assert {int(rows[at, 0]) for at in (0, 256, 512)} == {1}  # no band looks at the one before


def test_png_filters_help(tmp_path: Path) -> None:
    """On smooth pixels the size is near that of Pillow's encoder, which tries every filter."""
    ramp = np.add.outer(np.arange(512), np.arange(512))[..., None] * np.array([1, 2, 3]) // 8
    noise = np.random.default_rng(0).integers(0, 4, (512, 512, 3))
    pixels = ((ramp + noise) % 256).astype(np.uint8)
    size = write(tmp_path / "a.png", pixels).stat().st_size
    Image.fromarray(pixels).save(tmp_path / "b.png", compress_level=1)
    assert size < 1.1 * (tmp_path / "b.png").stat().st_size


def test_restart_markers_count_on_from_band_to_band(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jpg", picture(256 * 3 + 17, 40)).read_bytes()
    start = data.index(b"\xff\xda")
    found = [
        data[at + 1] - 0xD0
        for at in range(start + 2, len(data) - 2)
        if data[at] == 0xFF and data[at + 1]
    ]
    assert found == [index % 8 for index in range(32 * 3 + 2)]
    assert data.endswith(b"\xff\xd9")


# ---------------------------------------------------------------------------------- deep zoom


def tile(path: Path, level: int, column: int, row: int, ending: str = "jpg") -> np.ndarray:
    with Image.open(path.with_name("a_files") / str(level) / f"{column}_{row}.{ending}") as image:
        return np.asarray(image)


def test_deep_zoom_is_cut_into_tiles(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    pixels = np.kron(picture(20, 30), np.ones((32, 32, 1), np.uint8))
    path = write(tmp_path / "a.dzi", pixels, KeptMetadata(WIDE))
    assert only(tmp_path) == ["a.dzi", "a_files"]
    text = path.read_text()
    assert 'Height="640"' in text
    assert 'Width="960"' in text
    assert 'TileSize="254"' in text
    assert sorted(int(name) for name in only(tmp_path / "a_files") if name.isdigit()) == list(
        range(11)
    )
    np.testing.assert_allclose(tile(path, 10, 0, 0), pixels[:255, :255], atol=40)
    np.testing.assert_allclose(tile(path, 10, 1, 2), pixels[507:, 253:509], atol=40)
    with Image.open(tmp_path / "a_files" / "10" / "0_0.jpg") as image:
        assert image.info["icc_profile"] == WIDE


def test_deep_zoom_with_alpha_is_exact(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    for seed in (1, 2):  # under one name: nothing may be remembered of the first
        pixels = picture(300, 100, 4, seed=seed)
        path = write(tmp_path / "a.dzi", pixels, force=True)
        np.testing.assert_array_equal(tile(path, 9, 0, 0, "png"), pixels[:255])


def test_deep_zoom_does_not_overwrite_unasked(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    pixels, path = picture(300, 100), tmp_path / "a.dzi"
    folder = tmp_path / "a_files"
    folder.mkdir()
    (folder / "mine.txt").touch()
    assert refusal(opened, path, pixels) == (f"{folder} exists already; try --force or another -o")
    assert only(tmp_path) == ["a_files"]
    foreign = f"{folder} was not written by sincut; move it away or give another -o"
    assert refusal(opened, path, pixels, force=True) == foreign
    assert only(tmp_path) == ["a_files"]
    assert only(folder) == ["mine.txt"]
    (folder / "mine.txt").unlink()
    folder.rmdir()
    write(path, pixels)
    assert (folder / "sincut.txt").is_file()
    (folder / "old").touch()
    write(path, pixels, force=True)
    assert not (folder / "old").exists()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert refusal(opened, path, pixels, force=True) == foreign


def test_deep_zoom_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    pixels, path = picture(300, 100), tmp_path / "a.dzi"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def run() -> None:
        with opened(path, pixels, resume=True) as writer:
            add(writer, pixels)
            writer.finish()

    monkeypatch.setattr(PartFile, "publish", killed)  # the folder is renamed by then
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    run()
    assert only(tmp_path) == ["a.dzi", "a_files"]


def test_deep_zoom_tells_what_it_cannot_hold(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    pixels = picture(30, 10)
    for strip in (False, True):
        carried = KeptMetadata(WIDE, exif_block(), (72.0, 72.0))
        with opened(
            tmp_path / "a.dzi", pixels, carried, strip_metadata=strip, force=True
        ) as writer:
            add(writer, pixels)
            told = ("its EXIF and resolution are not kept: DZI cannot hold them",)
            assert writer.finish() == (() if strip else told)


def test_trouble_in_vips_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vips = pytest.importorskip("pyvips")
    pixels, path = picture(300, 10), tmp_path / "a.dzi"

    def broken(*_: Any, **__: Any) -> None:
        raise vips.Error("unable to call dzsave", "no\nroom")

    monkeypatch.setattr(vips.Image, "dzsave", broken, raising=False)
    writer: Writer
    with opened(path, pixels) as writer:
        add(writer, pixels)
        message = refusal(writer.finish)
    assert message.startswith(f"cannot write {path} (unable to call dzsave")
    assert message.endswith("); 2 of 2 bands are kept: check the place and use --resume")


def test_without_pyvips_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    assert refusal(loaded_vips, tmp_path / "a.dzi") == (
        f"{tmp_path / 'a.dzi'} needs pyvips, which is not installed; try pip install 'sincut[big]'"
    )
