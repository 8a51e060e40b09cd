"""What translate does with files: depth, tags, plans, interruption, batches."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

import sincut
from sincut.errors import Interrupted, SincutError
from sincut.images.bit_depth import WHITE
from sincut.images.reading.source import Source
from sincut.images.writing.formats import finishing_seconds
from sincut.images.writing.layout import Layout
from sincut.images.writing.writer import Writer
from sincut.models.model_file import load_generator, load_model
from sincut.models.stylegan2 import StyleGAN2Generator
from sincut.translation.inputs import planned_outputs
from sincut.translation.one_image import OneImage
from sincut.translation.plan import Plan
from sincut.translation.translate import Progress, translate
from tests.conftest import size_of
from tests.images.test_pillow import WIDE as WIDE_GAMUT

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_a_file_keeps_size_and_profile(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    results = translate(tiny_run, pair[0], tmp_path / "out.png", tile="64", on_tile=seen.append)
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (160, 128)
    assert [(r.width, r.height, r.tiles) for r in results] == [(160, 128, 6)]
    assert [(p.done, p.total) for p in seen] == [(n, 6) for n in range(1, 7)]
    assert not list(tmp_path.glob(".*"))


def test_a_photo_of_10_bits_gives_16(tiny_run: Path, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pixels = np.random.default_rng(7).integers(0, 1024, (48, 64, 3), np.uint16)
    options = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
    heif.encode("RGB;10", (64, 48), pixels.tobytes(), tmp_path / "in.heic", **options)
    translate(tiny_run, tmp_path / "in.heic", tmp_path / "out.tif", strength=0.0)
    written = tifffile.imread(tmp_path / "out.tif")
    np.testing.assert_array_equal(written, np.rint(pixels * (65535 / 1023)).astype(np.uint16))


def test_verify_reports_the_difference(
    noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.png"
    rgb = np.random.default_rng(320).integers(0, 256, (150, 170, 3), np.uint8)
    Image.fromarray(rgb).save(source)
    options: dict[str, Any] = {"tile": "64", "verify": 9, "force": True}
    for border in ("reflect", "zero"):
        (done,) = translate(noisy_model, source, tmp_path / "out.png", border=border, **options)
        assert done.difference is not None
        assert done.difference < 2e-3
    monkeypatch.setattr(StyleGAN2Generator, "halo", 10)
    (done,) = translate(noisy_model, source, tmp_path / "out.png", **options)
    assert done.difference is not None
    assert done.difference > 0.1


def test_the_time_of_a_webp_has_its_encoding_in_it(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(2000, 3000, 3, np.dtype(np.uint8))
    assert 0.1 < finishing_seconds(tmp_path / "a.webp", layout) < 60
    assert finishing_seconds(tmp_path / "a.png", layout) == 0
    monkeypatch.setattr("sincut.images.writing.formats.encoding_seconds", lambda _: 1000.0)
    plans: list[Plan] = []
    for name in ("a.webp", "a.png"):
        translate(tiny_run, pair[0], tmp_path / name, dry_run=True, on_plan=plans.append)
    assert plans[0].seconds is not None
    assert plans[1].seconds is not None
    assert plans[0].seconds > 1000 > plans[1].seconds


def test_several_inputs_go_into_a_folder(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with Image.open(pair[0]) as image:
        image.crop((0, 0, 50, 40)).save(tmp_path / "a.jpg")
        image.crop((0, 0, 31, 20)).save(tmp_path / "a.bmp")
    results = translate(tiny_run, [tmp_path / "a.jpg", tmp_path / "a.bmp"], tmp_path / "out")
    assert [r.output.name for r in results] == ["a.jpg", "a.bmp.png"]
    assert [size_of(r.output) for r in results] == [(50, 40), (31, 20)]


def test_one_broken_input_does_not_stop_the_others(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    done: list[Any] = []
    with pytest.raises(SincutError, match=r"broken\.png is not an image"):
        translate(
            tiny_run, [tmp_path / "broken.png", pair[0]], tmp_path / "out", on_image=done.append
        )
    assert [d.output.name for d in done] == ["content.png"]
    assert (tmp_path / "out" / "content.png").exists()


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(SincutError) as caught:
        translate(*args, **kwargs)
    return str(caught.value)


def test_outputs_are_protected(tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    content, target = pair[0], tmp_path / "out.png"
    target.write_bytes(b"precious")
    assert refusal(tiny_run, content, target) == (
        f"{target} exists already; try --force or another -o"
    )
    assert target.read_bytes() == b"precious"
    translate(tiny_run, content, target, force=True)
    assert size_of(target) == (160, 128)
    assert refusal(tiny_run, content, content, force=True) == (
        f"{content} is an input; give another -o"
    )
    other = tmp_path / "sub" / "content.png"
    other.parent.mkdir()
    other.write_bytes(content.read_bytes())
    assert refusal(tiny_run, [content, other], tmp_path / "out") == (
        f"{content} and {other} would both be written to {tmp_path / 'out' / 'content.png'}; "
        "translate them into different folders"
    )
    assert refusal(tiny_run, [content, pair[1]], target) == (
        f"{target} is a file; give a folder, or for one input a file name with an ending such as "
        ".png"
    )
    assert refusal(tiny_run, [], tmp_path / "out") == (
        "there is nothing to translate; give at least one image"
    )


def test_wrong_outputs_are_refused_before_the_work(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StyleGAN2Generator, "generate", None)  # no work
    assert refusal(tiny_run, pair[0], tmp_path / "none" / "out.png") == (
        f"the folder {tmp_path / 'none'} does not exist; create it first"
    )
    assert "no ending of an image format" in refusal(tiny_run, pair[0], tmp_path / "out.xyz")
    assert refusal(tiny_run, pair[0], tmp_path / "out.png", max_pixels=100).endswith(
        "try --max-pixels 20480"
    )
    assert not list(tmp_path.iterdir())


def test_output_names(tmp_path: Path) -> None:
    one = planned_outputs([tmp_path / "x.gif"], tmp_path, force=False)
    assert one == [(tmp_path / "x.gif", tmp_path / "x.gif.png")]


def test_load_generator_is_a_plain_module(tiny_run: Path) -> None:
    generator = load_generator(tiny_run)
    assert not generator.training
    image = torch.rand(2, 3, 33, 20) * 2 - 1
    assert generator(image).shape == image.shape
    assert torch.equal(generator(image), generator(image))
    assert sincut.load_generator is load_generator
    assert torch.equal(load_generator(str(tiny_run / "model.safetensors"))(image), generator(image))
    assert all(not p.requires_grad for p in load_model(tiny_run).generator.parameters())


def test_real_painting(tiny_run: Path, real_pair: tuple[Path, Path], tmp_path: Path) -> None:
    translate(tiny_run, real_pair[0], tmp_path / "out.png")
    with Image.open(real_pair[0]) as before, Image.open(tmp_path / "out.png") as after:
        assert before.size == after.size == (1200, 966)
        assert after.info.get("icc_profile") == before.info.get("icc_profile")


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether files are streamed in small bands, as huge ones are, or decoded at once."""

    def set_to(on: bool) -> None:
        monkeypatch.setattr("sincut.images.reading.open.STREAM_ABOVE", 0 if on else 10**12)
        monkeypatch.setattr("sincut.translation.plan._BAND_BYTES", 1 if on else 10**12)

    return set_to


def tiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    options = {"photometric": "rgb", "iccprofile": WIDE_GAMUT, **options}
    if pixels.shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(path, pixels, **options)
    return path


def sample(height: int, width: int, dtype: Any, channels: int = 3) -> np.ndarray:
    """Smooth colours with a little noise, every corner of the range in it."""
    random = np.random.default_rng(height * width)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [np.sin(7 * x), np.cos(5 * y), np.sin(4 * (x + y)), np.cos(9 * x * y)][:channels]
    values = np.stack(planes, -1) / 2 + 0.5 + random.normal(0, 0.03, (height, width, channels))
    values = values.clip(0, 1)
    white = WHITE[np.dtype(dtype)]
    return (values * white).astype(dtype) if white == 1 else (values * white).round().astype(dtype)


def read(path: Path) -> np.ndarray:
    """Pixels of a result as they stand in the file, by another reader than ours."""
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".png" and png_depth(path) == 16:
        return imagecodecs().png_decode(path.read_bytes())
    with Image.open(path) as image:
        return np.asarray(image)


def imagecodecs() -> Any:
    return pytest.importorskip("imagecodecs")


def png_depth(path: Path) -> int:
    return path.read_bytes()[24]


CASES = [
    (".tif", np.uint8, 3),
    (".tif", np.uint8, 4),
    (".tif", np.uint16, 3),
    (".tif", np.float32, 3),
    (".tif", np.float32, 4),
    (".png", np.uint8, 4),
    (".png", np.uint16, 3),
    (".jpg", np.uint8, 3),
    (".webp", np.uint8, 3),
]


@pytest.mark.parametrize("size", [(601, 43), (257, 333)], ids=str)
@pytest.mark.parametrize(("ending", "dtype", "channels"), CASES)
def test_the_law_holds_through_files(
    noisy_model: Path,
    tmp_path: Path,
    streaming: Any,
    ending: str,
    dtype: Any,
    channels: int,
    size: tuple[int, int],
) -> None:
    """Streamed in bands and tiles, in one piece, and interrupted in between: the same files."""
    source = tiff(tmp_path / "in.tif", sample(*size, dtype, channels), iccprofile=SRGB)
    whole, tiled, resumed = (tmp_path / f"{name}{ending}" for name in ("whole", "tiled", "resumed"))
    streaming(False)
    translate(noisy_model, source, whole, tile="whole")
    streaming(True)
    translate(noisy_model, source, tiled, tile="96")
    expected, got = read(whole).astype(float), read(tiled).astype(float)
    assert got.shape == (*size, channels)
    most = {".jpg": 20.0}.get(ending, 2e-5 if dtype == np.float32 else 1.0)  # JPEG amplifies
    assert np.abs(got - expected).max() <= most
    assert np.abs(got - expected).mean() <= most / 100

    total = {(601, 43): 7, (257, 333): 16}[size]
    for stop in (total - 2, total):
        with pytest.raises(Interrupted):
            translate(noisy_model, source, resumed, tile="96", resume=True, on_tile=stop_at(stop))
        assert (tmp_path / f".resumed{ending}.journal").exists()
    translate(noisy_model, source, resumed, tile="96", resume=True)
    assert resumed.read_bytes() == tiled.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    if dtype != np.uint8 and ending != ".jpg":
        assert len(np.unique(got)) > 3000  # not a step through 8 bits


def stop_at(tile: int) -> Callable[[Progress], None]:
    """Ctrl-C after so many tiles of the image."""

    def on_tile(progress: Progress) -> None:
        if progress.done >= tile:
            raise KeyboardInterrupt

    return on_tile


def test_what_stands_beside_the_pixels_comes_through(
    noisy_model: Path, tmp_path: Path, streaming: Any
) -> None:
    tags = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0.0,) * 6, True)]
    source = tiff(
        tmp_path / "in.tif",
        sample(601, 43, np.uint16),
        iccprofile=SRGB,
        resolution=(300, 300),
        extratags=[*tags, (315, 2, 0, "Someone", True)],
    )
    streaming(True)
    translate(noisy_model, source, tmp_path / "out.tif")
    with tifffile.TiffFile(source) as before, tifffile.TiffFile(tmp_path / "out.tif") as after:
        for tag in (33550, 33922, 34675, 282, 283, 296, 315):
            assert after.pages[0].tags[tag].value == before.pages[0].tags[tag].value, tag
        assert after.pages[0].is_tiled
    translate(noisy_model, source, tmp_path / "bare.tif", strip_metadata=True)
    with tifffile.TiffFile(tmp_path / "bare.tif") as bare:
        assert {34675} == set(bare.pages[0].tags.keys()) & {33550, 33922, 34675, 282, 315}


def test_no_strength_gives_back_the_input(
    noisy_model: Path, tmp_path: Path, streaming: Any
) -> None:
    """Also where its colours lie outside sRGB, which the network cannot see."""
    pixels = sample(301, 43, np.uint8, 4)
    source = tiff(tmp_path / "in.tif", pixels)
    for on in (False, True):
        streaming(on)
        (done,) = translate(noisy_model, source, tmp_path / f"{on}.tif", strength=0.0)
        assert any("outside sRGB" in notice for notice in done.notices)
        assert np.array_equal(read(tmp_path / f"{on}.tif"), pixels)


def test_a_mask_limits_the_translation_to_the_pixel(
    noisy_model: Path, tmp_path: Path, streaming: Any
) -> None:
    pixels = sample(601, 143, np.uint8)
    source = tiff(tmp_path / "in.tif", pixels)
    mask = np.zeros((601, 143), np.uint8)
    mask[100:300, 30:], mask[300:, 30:] = 255, 128
    Image.fromarray(mask).save(tmp_path / "mask.png")
    streaming(True)
    options = {"tile": "64", "mask": str(tmp_path / "mask.png")}
    translate(noisy_model, source, tmp_path / "masked.tif", **options)
    translate(noisy_model, source, tmp_path / "full.tif", tile="64")
    masked, full = read(tmp_path / "masked.tif"), read(tmp_path / "full.tif")
    assert np.array_equal(masked[mask == 0], pixels[mask == 0])
    assert np.array_equal(masked[mask == 255], full[mask == 255])
    middle = masked[mask == 128].astype(int)
    ends = np.stack([pixels[mask == 128], full[mask == 128]]).astype(int)
    between = (middle >= ends.min(0) - 6) & (middle <= ends.max(0) + 6)
    assert between.mean() > 0.99

    Image.fromarray(mask[:-1]).save(tmp_path / "small.png")
    small = tmp_path / "small.png"
    assert refusal(noisy_model, source, tmp_path / "x.tif", mask=str(small)) == (
        f"the mask {small} has 143×600 pixels, and {source} 143×601; try one of the image's size"
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_at_a_working_width_tiles_equal_the_whole(
    noisy_model: Path, tmp_path: Path, streaming: Any, dtype: Any
) -> None:
    source = tiff(tmp_path / "in.tif", sample(601, 443, dtype), iccprofile=None)
    plans: list[Plan] = []
    for name, options in {
        "whole": {"tile": "whole", "working_width": 150},
        "tiled": {"tile": "96", "working_width": 150},
        "smaller": {"tile": "64", "working_width": 150},
        "own": {"tile": "64", "working_width": 443},
        "plain": {"tile": "64"},
    }.items():
        streaming(name != "whole")
        translate(noisy_model, source, tmp_path / f"{name}.tif", on_plan=plans.append, **options)
    assert [plan.working for plan in plans] == [*[(150, 203)] * 3, None, None]
    whole, tiled, smaller, own, plain = (
        read(tmp_path / f"{name}.tif").astype(int)
        for name in ("whole", "tiled", "smaller", "own", "plain")
    )
    assert np.abs(tiled - whole).max() <= 1
    assert np.abs(smaller - whole).max() <= 1
    assert np.array_equal(own, plain)
    assert np.abs(whole - plain).mean() > WHITE[np.dtype(dtype)] / 255  # another scale of the look


def test_a_much_larger_image_than_the_model_has_seen_is_told(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with Image.open(pair[0]) as image:
        image.resize((400, 320)).save(tmp_path / "large.png")
    (done,) = translate(tiny_run, tmp_path / "large.png", tmp_path / "out.png")
    assert done.notices == (
        "the model learned at widths up to 160 pixels, so that its textures are small here; try "
        "--working-width 160 for larger ones",
    )
    assert not translate(tiny_run, pair[0], tmp_path / "small.png")[0].notices


def test_a_dry_run_plans_and_writes_nothing(
    noisy_model: Path, tmp_path: Path, streaming: Any
) -> None:
    source = tiff(tmp_path / "in.tif", sample(601, 343, np.uint16, 4), iccprofile=SRGB)
    plans: list[Plan] = []
    options: dict[str, Any] = {"tile": "96", "compression": "none", "on_plan": plans.append}
    streaming(True)
    before = sorted(tmp_path.iterdir())
    assert translate(noisy_model, source, tmp_path / "out.tif", dry_run=True, **options) == []
    assert sorted(tmp_path.iterdir()) == before
    translate(noisy_model, source, tmp_path / "out.tif", **options)
    dry, real = plans
    assert (dry.width, dry.height, dry.depth) == (343, 601, "16 bits per channel")
    assert (dry.tile, dry.tiles, dry.band, dry.bands) == (96, 28, 256, 3)
    assert dry.seconds is not None
    assert dry.seconds > 0
    assert real.seconds is None  # too few tiles to time one first
    size = (tmp_path / "out.tif").stat().st_size
    assert size <= dry.disk_bytes < 2 * size + 2**21
    assert dry.host_bytes > 601 * 343 * 8


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_too_little_memory_is_told_before_the_work(
    noisy_model: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sincut.translation.plan.memory_in_use", lambda: 500_000_000)
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    told = refusal(noisy_model, source, tmp_path / f"out{ending}", max_memory="300MB")
    assert re.fullmatch(
        rf"translating {re.escape(str(source))} needs about \d+ MB of memory, allowed are 300 MB; "
        r"try --max-memory 0\.\dGB",
        told,
    )
    again = told.rsplit(" ", 1)[1]
    translate(noisy_model, source, tmp_path / f"out{ending}", max_memory=again)


def test_a_small_budget_makes_small_tiles(noisy_model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", sample(1601, 1543, np.uint8))
    plans: list[Plan] = []

    def plan(amount: str) -> None:
        options = {"max_memory": amount, "dry_run": True, "on_plan": plans.append, "device": "cpu"}
        translate(noisy_model, source, tmp_path / "out.tif", **options)

    plan("10GB")
    plan("auto")
    plan(f"{plans[0].host_bytes // 10**6 - 15}MB")
    assert [plan.tile for plan in plans][:2] == [512, 512]
    assert (plans[2].tile, plans[2].band) < (512, 1601)
    assert plans[2].host_bytes < plans[0].host_bytes


def test_a_disk_that_is_too_small_is_told_before_the_work(
    noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000))
    assert refusal(noisy_model, source, tmp_path / "out.tif", compression="none") == (
        f"{tmp_path / 'out.tif'} needs 0.2 MB of disk, 0.1 MB are free there; try another place "
        "for the output"
    )


@contextlib.contextmanager
def disk_full_after_two_bands(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The third band cannot be written; the indices of those that were."""
    real, appended = Writer.append, list[int]()

    def full(self: Writer, encoded: Any) -> None:
        if len(appended) == 2:
            raise SincutError("the disk is full")
        appended.append(encoded.index)
        real(self, encoded)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "append", full)
        yield appended


def test_a_disk_that_runs_full_keeps_what_is_done(
    noisy_model: Path, tmp_path: Path, streaming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiff(tmp_path / "in.tif", sample(901, 43, np.uint8))
    streaming(True)
    translate(noisy_model, source, tmp_path / "expected.tif", tile="256")
    with disk_full_after_two_bands(monkeypatch) as appended:
        assert refusal(noisy_model, source, tmp_path / "out.tif", tile="256") == (
            "the disk is full; 2 of 4 bands are kept: --resume goes on with them, --force starts "
            "anew"
        )
    assert appended == [0, 1]
    assert refusal(noisy_model, source, tmp_path / "out.tif", tile="256") == (
        f"{tmp_path / 'out.tif'} was begun before and is 2 of 4 bands done; try --resume, or "
        "--force to start anew"
    )
    plans: list[Plan] = []
    out = tmp_path / "out.tif"
    translate(noisy_model, source, out, resume=True, tile="256", on_plan=plans.append)
    assert plans[0].done == 2
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "expected.tif").read_bytes()


def test_going_on_with_something_else_is_refused(
    noisy_model: Path, tiny_run: Path, tmp_path: Path, streaming: Any
) -> None:
    source = tiff(tmp_path / "in.tif", sample(601, 43, np.uint8))
    out = tmp_path / "out.tif"
    streaming(True)
    with pytest.raises(Interrupted) as caught:
        translate(noisy_model, source, out, on_tile=stop_at(3), tile="256")
    assert str(caught.value) == (
        f"{out} is 2 of 3 bands done; the same command with --resume goes on"
    )
    for options, what in (
        ({"seed": 1, "tile": "256"}, "--seed"),
        ({"tile": "128"}, "--tile"),
        ({"tile": "256", "strength": 0.5}, "--strength"),
        ({"tile": "256", "brushwork": 0.5}, "--brushwork"),
    ):
        assert refusal(noisy_model, source, out, resume=True, **options) == (
            f"{out} was begun with another {what}; try the same as before, or --force to start anew"
        )
    assert "another model" in refusal(tiny_run, source, out, resume=True, tile="256")
    source.touch()
    assert "another input image" in refusal(noisy_model, source, out, resume=True, tile="256")


def test_ctrl_c_before_anything_is_done_leaves_nothing(noisy_model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    with pytest.raises(Interrupted) as caught:
        translate(noisy_model, source, tmp_path / "out.tif", on_tile=stop_at(1))
    assert str(caught.value) == (
        f"{tmp_path / 'out.tif'} was not written: no part of it was finished"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_depth_can_be_chosen_and_what_is_lost_is_told(noisy_model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint16), iccprofile=None)
    (done,) = translate(noisy_model, source, tmp_path / "out.jpg")
    assert done.notices == ("16 bits per channel become 8: JPEG holds no more",)
    assert not translate(noisy_model, source, tmp_path / "8.tif", depth="8")[0].notices
    assert read(tmp_path / "8.tif").dtype == np.uint8
    translate(noisy_model, source, tmp_path / "float.tif", depth="float")
    translate(noisy_model, source, tmp_path / "16.tif")
    floats, deep = read(tmp_path / "float.tif"), read(tmp_path / "16.tif")
    assert np.abs(floats * 65535 - deep).max() <= 0.51
    assert np.abs(deep / 257 - read(tmp_path / "8.tif")).max() <= 0.51
    assert refusal(noisy_model, source, tmp_path / "out.jpg", depth="16", force=True) == (
        f"{tmp_path / 'out.jpg'} cannot be written: JPEG cannot hold 16 bits per channel, at most "
        "8 bits per channel; try out.tif"
    )
    assert refusal(noisy_model, source, tmp_path / "b.tif", precision="bf16") == (
        f"{tmp_path / 'b.tif'} gets 16 bits per channel, and bf16 keeps about 8 bits; try "
        "--precision fp32, or --depth 8"
    )


def test_what_is_not_a_number_stays_so(noisy_model: Path, tmp_path: Path, streaming: Any) -> None:
    pixels = sample(300, 43, np.float32)
    pixels[100:110, 5:9, 1] = np.nan
    source = tiff(tmp_path / "in.tif", pixels, iccprofile=None)
    streaming(True)
    translate(noisy_model, source, tmp_path / "out.tif")
    result = read(tmp_path / "out.tif")
    missing = np.zeros((300, 43), bool)
    missing[100:110, 5:9] = True
    assert np.array_equal(result[missing], pixels[missing], equal_nan=True)
    assert np.isfinite(result[~missing]).all()


def test_a_batch_lists_what_failed_and_goes_on(noisy_model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "c"):
        tiff(folder / f"{name}.tif", sample(20, 23, np.uint8), iccprofile=None)
    (folder / "b.png").write_bytes(b"no image")
    (folder / "d.jpg").write_bytes(b"")
    told = refusal(noisy_model, folder, out)
    assert told.startswith("2 of 4 images failed: ")
    assert f"{folder / 'b.png'} is not an image" in told
    assert f"{folder / 'd.jpg'} is empty: it has 0 bytes" in told
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "c.tif"]
    for option in ("skip_existing", "resume"):
        told = refusal(noisy_model, folder, out, **{option: True})
        assert told.startswith("2 of 2 images failed: ")
    (folder / "b.png").unlink()
    (folder / "d.jpg").unlink()
    assert translate(noisy_model, folder, out, skip_existing=True) == []


def test_a_deep_zoom_result_has_a_page(noisy_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    source = tiff(tmp_path / "in.tif", sample(300, 343, np.uint16), software="by me", metadata=None)
    [result] = translate(noisy_model, source, tmp_path / "out.dzi")
    assert "its EXIF is not kept: DZI cannot hold it" in result.notices
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.tif", "out-content.dzi", "out-content_files", "out.dzi", "out.html", "out_files",
    ]  # fmt: skip
    page = (tmp_path / "out.html").read_text()
    assert "out_files" in page
    assert "out-content_files" in page
    for name in ("out", "out-content"):
        with Image.open(tmp_path / f"{name}_files" / "9" / "0_0.jpg") as tile:
            assert tile.size == (255, 255)
    assert refusal(noisy_model, source, tmp_path / "out.dzi") == (
        f"{tmp_path / 'out.dzi'} exists already; try --force or another -o"
    )
    (tmp_path / "out.dzi").unlink()
    assert refusal(noisy_model, source, tmp_path / "out.dzi") == (
        f"{tmp_path / 'out.html'} exists already; try --force or another -o"
    )
    translate(noisy_model, source, tmp_path / "out.dzi", force=True)  # all of it is sincut's
    for name in ("out.html", "out-content.dzi", "out-content_files", "out_files"):
        mine, place = tmp_path / "mine", tmp_path / name
        place.rename(mine)
        place.mkdir() if name.endswith("_files") else place.write_text("mine")
        assert refusal(noisy_model, source, tmp_path / "out.dzi", force=True) == (
            f"{place} was not written by sincut; move it away or give another -o"
        )
        place.rmdir() if name.endswith("_files") else place.unlink()
        mine.rename(place)


def test_what_was_begun_goes_on_as_it_was_cut(
    noisy_model: Path, tmp_path: Path, streaming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An automatic tile depends on the memory of the moment; the bytes must not."""
    source = tiff(tmp_path / "in.tif", sample(2001, 943, np.uint8))
    out = tmp_path / "out.tif"
    translate(noisy_model, source, tmp_path / "expected.tif")
    streaming(True)
    monkeypatch.setattr("sincut.translation.plan._SIDES", {"cpu": (256,)})
    with pytest.raises(Interrupted):
        translate(noisy_model, source, out, on_tile=stop_at(18))
    monkeypatch.undo()
    plans: list[Plan] = []
    translate(noisy_model, source, out, resume=True, on_plan=plans.append)
    assert (plans[0].tile, plans[0].band) == (256, 256)
    assert plans[0].done > 0
    difference = read(out).astype(int) - read(tmp_path / "expected.tif")
    assert np.abs(difference).max() <= 1


def test_resume_leaves_what_is_finished_and_force_makes_it_anew(
    noisy_model: Path, tmp_path: Path
) -> None:
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    out, skipped = tmp_path / "out.tif", []
    translate(noisy_model, source, out)
    before = out.read_bytes()
    assert translate(noisy_model, source, out, seed=5, resume=True, on_skip=skipped.append) == []
    assert skipped == [out]
    assert out.read_bytes() == before
    assert len(translate(noisy_model, source, out, seed=5, resume=True, force=True)) == 1
    assert out.read_bytes() != before


def test_an_input_that_breaks_off_says_what_is_kept(
    noisy_model: Path, tmp_path: Path, streaming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiff(tmp_path / "in.tif", sample(1201, 43, np.uint8))
    streaming(True)
    real = Source.rows

    def broken(self: Source, start: int, stop: int) -> Any:
        if stop > 1000:
            raise SincutError(f"{self.path} is broken")
        return real(self, start, stop)

    monkeypatch.setattr(Source, "rows", broken)
    told = refusal(noisy_model, source, tmp_path / "out.tif", tile="256")
    assert told == (
        f"{source} is broken; 3 of 5 bands are kept: --resume goes on with them, --force starts "
        "anew"
    )


def test_one_that_ends_the_memory_does_not_stop_the_others(
    noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        tiff(tmp_path / f"{name}.tif", sample(20, 23, np.uint8), iccprofile=None) for name in "abc"
    ]
    real = OneImage.run

    def scarce(self: OneImage, *args: Any) -> Any:
        if self.source == sources[0]:
            raise MemoryError
        if self.source == sources[1]:
            raise PermissionError(13, "Permission denied")
        return real(self, *args)

    monkeypatch.setattr(OneImage, "run", scarce)
    assert refusal(noisy_model, sources, tmp_path / "out") == (
        f"2 of 3 images failed: {sources[0]} could not be translated: memory ended; try "
        f"--max-memory or a smaller --tile; {sources[1]} could not be translated (Permission "
        "denied); check the place and its permissions"
    )
    assert (tmp_path / "out" / "c.tif").exists()


def test_a_mask_is_not_overwritten(noisy_model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", sample(20, 23, np.uint8), iccprofile=None)
    mask = tmp_path / "mask.png"
    Image.fromarray(np.zeros((20, 23), np.uint8)).save(mask)
    assert refusal(noisy_model, source, mask, mask=str(mask), force=True) == (
        f"{mask} is an input; give another -o"
    )


def test_what_is_not_a_number_becomes_black_in_integers(noisy_model: Path, tmp_path: Path) -> None:
    pixels = sample(60, 43, np.float32)
    pixels[:30] = np.nan
    source = tiff(tmp_path / "in.tif", pixels, iccprofile=None)
    for name, notice in (
        ("out.tif", "50.0% of its pixels are not numbers and stay so"),
        ("out.png", "50.0% of its pixels are not numbers and become black"),
    ):
        (done,) = translate(noisy_model, source, tmp_path / name)
        assert notice in done.notices


def test_a_deep_output_in_another_profile_needs_the_package(
    noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert refusal(noisy_model, source, tmp_path / "out.tif", depth="16") == (
        f"{tmp_path / 'out.tif'} gets more than 8 bits per channel in colours other than "
        "sRGB, which takes an extra package; try pip install 'sincut[big]' or --depth 8"
    )
    translate(noisy_model, source, tmp_path / "out.tif")


def test_a_dry_run_plans_for_a_folder_that_is_not_there_and_over_what_is(
    noisy_model: Path, tmp_path: Path
) -> None:
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    plans: list[Plan] = []
    options: dict[str, Any] = {"dry_run": True, "on_plan": plans.append}
    translate(noisy_model, source, tmp_path / "none" / "deep", **options)
    (tmp_path / "out.tif").write_bytes(b"precious")
    translate(noisy_model, source, tmp_path / "out.tif", **options)
    assert len(plans) == 2
    assert not (tmp_path / "none").exists()
    assert (tmp_path / "out.tif").read_bytes() == b"precious"


def test_a_page_does_not_replace_a_folder_of_its_content_s_name(
    noisy_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyvips")
    source = tiff(tmp_path / "in.tif", sample(60, 43, np.uint8))
    folder = tmp_path / "out-content_files"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    assert refusal(noisy_model, source, tmp_path / "out.dzi") == (
        f"{folder} exists already; try --force or another -o"
    )
    assert (folder / "precious.txt").read_text() == "mine"


def test_a_deep_zoom_result_interrupted_at_its_page_gets_it(
    noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    source = tiff(tmp_path / "in.tif", sample(300, 43, np.uint8))

    def stop(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sincut.translation.deep_zoom_page.page_text", stop)
    with pytest.raises(Interrupted, match="1 of 1 bands done; the same command with --resume"):
        translate(noisy_model, source, tmp_path / "out.dzi")
    monkeypatch.undo()
    assert not (tmp_path / "out.dzi").exists()
    translate(noisy_model, source, tmp_path / "out.dzi", resume=True)
    assert (tmp_path / "out.html").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are told by Linux")
@pytest.mark.parametrize(
    ("ending", "dtype", "channels", "options"),
    [
        (".tif", np.uint16, 4, []),
        (".webp", np.uint8, 3, []),
        (".tif", np.uint8, 3, ["--working-width", "900"]),
    ],
    ids=["deep", "webp", "working width"],
)
def test_memory_stays_below_the_plan(
    noisy_model: Path,
    tmp_path: Path,
    ending: str,
    dtype: Any,
    channels: int,
    options: list[str],
) -> None:
    """What the plan calls "at most", against the peak that Linux tells of the process."""
    pixels = np.tile(sample(500, 450, dtype, channels), (4, 4, 1))
    source = tiff(tmp_path / "in.tif", pixels, iccprofile=None)
    code = (
        "import sys, sincut.cli\n"
        "try: sincut.cli.main()\n"
        "finally: print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    )
    command = ["translate", str(noisy_model), str(source), "-o", str(tmp_path / f"out{ending}")]
    output = subprocess.run(
        [sys.executable, "-c", code, *command, "--json", *options],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # its libraries are no part of the plan
    ).stdout.splitlines()
    planned = json.loads(output[0])["host_bytes"]
    real = int(next(line for line in output if "VmHWM" in line).split()[1]) * 1024
    assert real <= planned
    assert planned <= 3 * real


KILLS = 10


def test_killed_at_random_moments_and_resumed_the_bytes_are_the_same(
    noisy_model: Path, tmp_path: Path
) -> None:
    """With SIGKILL, through the command line."""
    source = tiff(tmp_path / "in.tif", sample(2600, 700, np.uint8))
    streaming = (
        "from sincut.images.reading import open; from sincut.translation import plan; "
        "open.STREAM_ABOVE = 0; plan._BAND_BYTES = 1; from sincut.cli import main; main()"
    )
    command = [sys.executable, "-c", streaming, "translate", str(noisy_model), str(source)]
    command += ["--tile", "128", "--pyramid", "-o"]
    subprocess.run([*command, str(tmp_path / "expected.tif")], check=True, capture_output=True)

    random, out = np.random.default_rng(5), tmp_path / "out.tif"
    part = tmp_path / ".out.tif.part"
    kills, reached = 0, 0
    while kills < KILLS:
        process = subprocess.Popen([*command, str(out), "--resume"], stdout=subprocess.DEVNULL)
        while process.poll() is None and not part.exists():
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 0.4))
        if process.poll() is not None:
            break  # it was faster than ten kills
        process.kill()
        process.wait()
        kills += 1
        reached = max(reached, part.stat().st_size if part.exists() else 0)
    if not out.exists():
        subprocess.run([*command, str(out), "--resume"], check=True, capture_output=True)
    assert kills >= 3
    assert reached > 0
    assert out.read_bytes() == (tmp_path / "expected.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_files_on_cuda_are_those_of_the_cpu(
    noisy_model: Path, tmp_path: Path, streaming: Any, dtype: Any
) -> None:
    source = tiff(tmp_path / "in.tif", sample(1601, 743, dtype), iccprofile=None)
    streaming(True)
    for device in ("cpu", "cuda"):
        translate(noisy_model, source, tmp_path / f"{device}.tif", device=device, tile="128")
    cpu, cuda = (read(tmp_path / f"{device}.tif").astype(float) for device in ("cpu", "cuda"))
    allowed = {np.uint8: 1.0, np.uint16: 2.0, np.float32: 2e-5}[dtype]
    assert np.abs(cpu - cuda).max() <= allowed


def test_an_output_that_appears_meanwhile_is_not_overwritten(
    noisy_model: Path, tmp_path: Path
) -> None:
    """Another process, or a person, may write there while the first images are made."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "abc":
        tiff(folder / f"{name}.tif", sample(20, 23, np.uint8))

    def write(done: Any) -> None:
        (out / "b.tif").write_bytes(b"precious")

    told = refusal(noisy_model, folder, out, on_image=write)
    assert told == (
        f"1 of 3 images failed: {out / 'b.tif'} exists already; try --force or another -o"
    )
    assert (out / "b.tif").read_bytes() == b"precious"
    for path in (out / "a.tif", out / "c.tif"):
        path.unlink()
    skipped: list[Path] = []
    (out / "b.tif").unlink()
    options = {"skip_existing": True, "on_image": write, "on_skip": skipped.append}
    results = translate(noisy_model, folder, out, **options)
    assert [result.output.name for result in results] == ["a.tif", "c.tif"]
    assert skipped == [out / "b.tif"]
    assert (out / "b.tif").read_bytes() == b"precious"


def test_failures_are_told_when_they_happen_and_when_the_rest_is_interrupted(
    noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    tiff(folder / "b.tif", sample(20, 23, np.uint8))
    real, told = Writer.append, []

    def interrupted(self: Writer, encoded: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "append", interrupted)
    with pytest.raises(Interrupted) as error:
        translate(noisy_model, folder, tmp_path / "out", on_failure=lambda *each: told.append(each))
    ((source, why),) = told
    assert source == folder / "a.png"
    assert why.startswith(f"{source} is not an image")
    assert str(error.value) == (
        f"{tmp_path / 'out' / 'b.tif'} was not written: no part of it was finished; "
        f"1 of 2 images failed: {why}"
    )
    monkeypatch.setattr(Writer, "append", real)


def test_a_resumed_output_needs_no_disk_for_what_is_there(
    noisy_model: Path, tmp_path: Path, streaming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tiff(tmp_path / "in.tif", sample(901, 43, np.uint8)), tmp_path / "out.tif"
    streaming(True)
    options: dict[str, Any] = {"tile": "256", "compression": "none"}
    translate(noisy_model, source, tmp_path / "expected.tif", **options)
    with disk_full_after_two_bands(monkeypatch):
        refusal(noisy_model, source, out, **options)
    (part,) = tmp_path.glob(".out.tif.part")
    rest = (tmp_path / "expected.tif").stat().st_size - part.stat().st_size
    assert part.stat().st_size > 200_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=rest // 2))
    assert "of disk" in refusal(noisy_model, source, out, resume=True, **options)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=rest))
    translate(noisy_model, source, out, resume=True, **options)
    assert out.read_bytes() == (tmp_path / "expected.tif").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.uint8, 0), (np.uint16, 65535), (np.float32, -9999)]
)
def test_where_nothing_is_known_nothing_is_made_up(
    noisy_model: Path, tmp_path: Path, dtype: Any, value: int
) -> None:
    array = sample(40, 53, dtype)
    array[:12] = value
    array[20, 20, 0] = value if value != -9999 else 0.5  # one channel alone says nothing
    tags = [(42113, "s", 0, str(value), True)]
    source = tiff(tmp_path / "in.tif", array, iccprofile=None, extratags=tags)
    (result,) = translate(noisy_model, source, tmp_path / "out.tif")
    assert [each for each in result.notices if "nodata value" not in each] == []
    output = read(tmp_path / "out.tif")
    assert (output[:12] == value).all()
    known = ~(array[12:] == value).all(axis=-1)
    assert (output[12:][known] != value).all()  # which would say that they are unknown
    assert (output[12:] != array[12:]).mean() > 0.9
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages.first.tags[42113].value == str(value)
    if dtype == np.uint8:  # in a profile it is converted with the rest
        source = tiff(tmp_path / "wide.tif", array, extratags=tags)
        (result,) = translate(noisy_model, source, tmp_path / "wide-out.tif")
        assert "its GDAL_NODATA is not kept: its values come as other numbers" in result.notices
    else:
        (result,) = translate(noisy_model, source, tmp_path / "small.tif", depth="8")
        assert "its GDAL_NODATA is not kept: the depth is another" in result.notices
        with tifffile.TiffFile(tmp_path / "small.tif") as file:
            assert 42113 not in file.pages.first.tags


def test_what_is_known_does_not_become_unknown(noisy_model: Path, tmp_path: Path) -> None:
    """Values that come out as nodata are moved beside it, and counted; copied ones stay."""
    array = np.full((40, 53, 3), 255, np.uint8)
    array[20:, :, 1] = 3
    array[:4] = 0
    plain = tiff(tmp_path / "plain.tif", array, iccprofile=None)
    translate(noisy_model, plain, tmp_path / "without.tif")
    value = int(read(tmp_path / "without.tif")[10, 10, 0])
    tags = [(42113, "s", 0, str(value), True)]
    source = tiff(tmp_path / "in.tif", array, iccprofile=None, extratags=tags)
    (result,) = translate(noisy_model, source, tmp_path / "out.tif")
    before, after = read(tmp_path / "without.tif"), read(tmp_path / "out.tif")
    moved = before == value
    expected = np.where(moved, value + 1 if value < 255 else 254, before)
    np.testing.assert_array_equal(after, expected)
    count = moved.any(axis=-1).sum()
    assert result.notices == (
        f"{count} of its pixels came out as the nodata value {value} and were moved by the "
        "smallest step",
    )
    translate(noisy_model, source, tmp_path / "same.tif", strength=0)
    np.testing.assert_array_equal(read(tmp_path / "same.tif"), array)


def test_a_link_as_output_is_refused_and_stays(noisy_model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", sample(20, 20, np.uint8), iccprofile=None)
    file, link = tmp_path / "file.png", tmp_path / "link.png"
    file.write_text("mine")
    link.symlink_to(file)
    told = f"{link} is a link; give the file that it leads to, {file}"
    assert refusal(noisy_model, source, link, force=True) == told
    file.unlink()
    assert refusal(noisy_model, source, link) == told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "link.png"]
