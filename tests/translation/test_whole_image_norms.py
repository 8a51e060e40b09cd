"""The law for a network that normalises over the whole image: tiles equal generator(image)."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sincut.config.translating import TranslateConfig
from sincut.errors import Interrupted, SincutError
from sincut.images.bit_depth import as_depth
from sincut.models.model_file import load_generator, save_model
from sincut.models.resnet import ResnetGenerator
from sincut.translation.operators import PixelRows
from sincut.translation.pixels import as_network
from sincut.translation.plan import Plan
from sincut.translation.scratch import FileScratch, MemoryScratch
from sincut.translation.tiles import translate_pixels
from sincut.translation.tiling import tiles
from sincut.translation.translate import Progress, translate
from sincut.translation.whole_image_norms import Moments, WholeImageNorms
from tests.translation.test_translation import read, refusal, sample, stop_at, tiff

SIZES = [(5, 3), (7, 130), (97, 61), (64, 64)]
KINDS: list[dict[str, Any]] = [
    {},
    {"blur_down": False},
    {"blur_up": False},
    {"blur_down": False, "blur_up": False, "blocks": 2},
    {"blocks": 6},
]


def trained_like(channels: int = 4, blocks: int = 3, **kinds: bool) -> ResnetGenerator:
    """A generator whose weights are large enough for every norm to matter."""
    torch.manual_seed(1)
    generator = ResnetGenerator(channels, blocks, **kinds).eval().requires_grad_(False)
    for parameter in generator.parameters():
        if parameter.ndim == 4:
            torch.nn.init.xavier_normal_(parameter, gain=0.7)
        else:
            torch.nn.init.normal_(parameter, std=0.3)
    return generator


def picture(height: int, width: int) -> np.ndarray:
    """Another look in each part of it, so that statistics of a part are not those of the whole."""
    random = np.random.default_rng(height * width)
    noise = random.integers(0, 256, (height, width, 3))
    slope = np.linspace(0, 1, width)[:, None]
    return (noise * slope + 128 * (1 - slope)).astype(np.uint8)


def whole_of(generator: ResnetGenerator, rgb: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W): what the law is about."""
    parameter = next(generator.parameters())
    return generator(as_network(torch.from_numpy(rgb)).to(parameter.dtype))


@torch.inference_mode()
def in_tiles(
    generator: ResnetGenerator,
    rgb: np.ndarray,
    side: int,
    tile: int = 0,
    folder: Path = Path(),
    precision: str = "fp32",
) -> torch.Tensor:
    """The same, with norms found in windows of ``side``, in tiles."""
    height, width = rgb.shape[:2]
    config = TranslateConfig(precision=precision)
    operator = WholeImageNorms(generator, config, height, width, folder)
    operator._in_one_piece = lambda side: False  # type: ignore[method-assign]
    seen: list[int] = []
    operator.prepare(lambda: nullcontext(PixelRows(rgb)), side, lambda: seen.append(1))
    assert len(seen) == operator.preparation(side).windows
    output = torch.full((1, 3, height, width), torch.nan, dtype=operator.dtype)
    for each in tiles(height, width, tile or side, 0, 1):
        rows, columns = each.rows, each.columns
        made = operator(torch.empty(0), each)
        output[..., rows.start : rows.stop, columns.start : columns.stop] = made
    operator.close()
    return output


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tiles_equal_the_whole(size: tuple[int, int], kind: dict[str, Any]) -> None:
    generator, rgb = trained_like(**kind), picture(*size)
    expected = whole_of(generator, rgb)
    for side, tile in ((16, 13), (36, 50), (200, 17)):
        assert (in_tiles(generator, rgb, side, tile) - expected).abs().max() <= 1e-5


def test_the_smallest_windows_in_float64() -> None:
    generator, rgb = trained_like().double(), picture(21, 9)
    difference = in_tiles(generator, rgb, 4, 3) - whole_of(generator, rgb)
    assert difference.abs().max() <= 1e-9


def test_a_single_pixel_is_one_piece() -> None:
    """It has no variance but that of rounding, which norms enlarge: windows would differ."""
    generator, rgb = trained_like(), as_depth(picture(1, 1), np.dtype(np.float32))
    output = translate_pixels(generator, rgb, TranslateConfig(tile="16"))
    assert np.abs(output * 2 - 1 - whole_of(generator, rgb)[0, :, 0, 0].numpy()).max() <= 1e-5


def test_statistics_of_a_tile_are_not_those_of_the_whole() -> None:
    """The negative control: what this is for."""
    generator, rgb = trained_like(), picture(96, 128)
    expected = whole_of(generator, rgb)
    alone = whole_of(generator, rgb[:, :64])
    assert (alone - expected[..., :64])[..., :32].abs().max() > 0.1


def test_what_is_kept_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sincut.translation.scratch._IN_MEMORY", 0)
    monkeypatch.setattr("sincut.translation.whole_image_norms._BAND_BYTES", 5000)
    generator, rgb = trained_like(), picture(97, 61)
    expected = whole_of(generator, rgb)
    assert (in_tiles(generator, rgb, 24, 32, tmp_path) - expected).abs().max() <= 1e-5
    assert not list(tmp_path.iterdir())
    config = TranslateConfig()
    taken = WholeImageNorms(generator, config, 97, 61, tmp_path).preparation(24)
    assert (taken.passes, taken.held_bytes) == (4 + 2 * 3 + 2 + 1, 0)
    assert taken.scratch_bytes == 2 * 4 * (25 * 16 * 16)


def test_files_and_memory_hold_the_same(tmp_path: Path) -> None:
    shape = 9, 7, 6
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(1, 6, 9, 7).to(dtype)
        kept = MemoryScratch(shape, dtype), FileScratch(shape, dtype, tmp_path)
        for scratch in kept:
            scratch.write(0, 0, features)
            scratch.write(3, 2, features[..., :4, :5] + 1)
        one, two = (scratch.read(1, 8, 1, 7) for scratch in kept)
        assert torch.equal(one, two)
        assert torch.equal(one[..., 2:6, 1:6], features[..., :4, :5] + 1)
        for scratch in kept:
            scratch.close()


def test_bf16_keeps_bf16_and_stays_close() -> None:
    generator, rgb = trained_like(), picture(64, 64)
    difference = in_tiles(generator, rgb, 32, precision="bf16") - whole_of(generator, rgb)
    assert 0 < difference.abs().mean() < 0.05


def test_moments_do_not_lose_a_small_variance_beside_a_large_mean() -> None:
    values = torch.randn(1, 3, 50, 40, dtype=torch.float64) * 1e-2 + 100
    moments = Moments()
    for part in values.float().split(7, dim=2):
        moments.add(part)
    norm = moments.norm(torch.float64)
    exact = values.float().double()
    variance = exact.var((0, 2, 3), correction=0)
    assert torch.allclose(norm.scale.flatten(), (variance + 1e-5).rsqrt(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_in_memory(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece where that fits, and in tiles where not."""
    generator, rgb = trained_like(), as_depth(picture(150, 133), np.dtype(dtype))
    told: list[tuple[int, int]] = []
    whole = translate_pixels(generator, rgb, TranslateConfig(), lambda *n: told.append(n))
    assert told == [(1, 2), (2, 2)]
    tiled = translate_pixels(generator, rgb, TranslateConfig(tile="64"), lambda *n: told.append(n))
    assert told[-1][0] == told[-1][1] == len(told) - 2
    most = {np.uint8: 1, np.uint16: 2, np.float32: 1e-5}[dtype]
    assert np.abs(whole.astype(float) - tiled).max() <= most
    little = translate_pixels(generator, rgb, TranslateConfig(max_memory="1MB"))
    assert np.abs(whole.astype(float) - little).max() <= most


def scarce(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Convolutions of more pixels than ``most`` find no memory; what was tried."""
    tried: list[int] = []
    real = torch.nn.functional.conv2d

    def conv2d(image: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        tried.append(image.shape[-2] * image.shape[-1])
        if tried[-1] > most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: no memory")
        return real(image, *rest, **named)

    monkeypatch.setattr("torch.nn.functional.conv2d", conv2d)
    return tried


@pytest.mark.parametrize("tile", ["whole", "96"])
def test_windows_are_halved_when_memory_ends(tile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, rgb = trained_like(), picture(150, 133)
    expected = translate_pixels(generator, rgb, TranslateConfig())
    tried = scarce(monkeypatch, 4000)
    output = translate_pixels(generator, rgb, TranslateConfig(tile=tile))
    assert np.abs(output.astype(int) - expected).max() <= 1
    assert sum(each > 4000 for each in tried) < 15  # what was too large is not tried again


def test_memory_that_is_never_enough_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 0)
    with pytest.raises(SincutError) as caught:
        translate_pixels(trained_like(), picture(64, 70), TranslateConfig(tile="64"))
    assert str(caught.value) == (
        "there is not enough memory even for a window of 32×16 pixels; free some"
    )


def test_zeros_beyond_the_image_are_refused() -> None:
    with pytest.raises(SincutError) as caught:
        translate_pixels(trained_like(), picture(20, 20), TranslateConfig(border="zero"))
    assert str(caught.value) == (
        "a network that normalises over the whole image brings its own border: border must be "
        "reflect, got zero; try it without"
    )


# ------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "resnet.safetensors"
    save_model(path, trained_like(), None, {"config": {}, "step": 0})
    return path


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bands, and what lies between passes in a file, as for huge images."""
    monkeypatch.setattr("sincut.images.reading.open.STREAM_ABOVE", 0)
    monkeypatch.setattr("sincut.translation.plan._BAND_BYTES", 1)
    monkeypatch.setattr("sincut.translation.scratch._IN_MEMORY", 0)


@pytest.mark.parametrize(
    ("dtype", "channels"), [(np.uint8, 4), (np.uint16, 3), (np.float32, 3)], ids=str
)
def test_the_law_holds_through_files(
    model: Path, tmp_path: Path, on_disk: None, dtype: Any, channels: int
) -> None:
    """With a mask, a strength and alpha; in one piece, in tiles, and interrupted in between."""
    source = tiff(tmp_path / "in.tif", sample(601, 133, dtype, channels), iccprofile=None)
    mask = tiff(tmp_path / "mask.tif", sample(601, 133, np.uint8), iccprofile=None)
    options: dict[str, Any] = {"mask": str(mask), "strength": 0.75}
    whole, tiled, resumed = (tmp_path / f"{name}.tif" for name in ("whole", "tiled", "resumed"))
    translate(model, source, whole, tile="whole", **options)
    seen: list[Progress] = []
    translate(model, source, tiled, tile="96", on_tile=seen.append, **options)
    most = 1e-5 if dtype == np.float32 else 1
    assert np.abs(read(whole).astype(float) - read(tiled)).max() <= most
    assert [each.done for each in seen] == list(range(1, seen[-1].total + 1))
    for stop in (seen[-1].total - 5, seen[-1].total):
        with pytest.raises(Interrupted, match="bands done; the same command with --resume"):
            translate(
                model, source, resumed, tile="96", resume=True, on_tile=stop_at(stop), **options
            )
    translate(model, source, resumed, tile="96", resume=True, **options)
    assert resumed.read_bytes() == tiled.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_the_whole_is_what_the_network_gives(model: Path, tmp_path: Path) -> None:
    pixels = sample(61, 97, np.float32)
    source = tiff(tmp_path / "in.tif", pixels, iccprofile=None)
    translate(model, source, tmp_path / "out.tif", tile="16")
    expected = load_generator(model)(as_network(torch.from_numpy(pixels)))[0].permute(1, 2, 0)
    assert np.abs(read(tmp_path / "out.tif") * 2 - 1 - expected.numpy()).max() <= 1e-5


def test_a_plan_tells_passes_and_scratch(model: Path, tmp_path: Path, on_disk: None) -> None:
    source = tiff(tmp_path / "in.tif", sample(301, 133, np.uint8))
    plans: list[Plan] = []
    before = sorted(tmp_path.iterdir())
    for tile in ("whole", "96"):
        options = {"tile": tile, "dry_run": True, "on_plan": plans.append}
        translate(model, source, tmp_path / "out.tif", **options)
    assert sorted(tmp_path.iterdir()) == before
    whole, tiled = plans
    assert (whole.passes, whole.scratch_bytes) == (1, 0)
    assert (tiled.passes, tiled.scratch_bytes) == (13, 2 * 4 * 76 * 34 * 16)
    assert whole.seconds is not None
    assert tiled.seconds is not None
    assert 0 < whole.seconds < tiled.seconds


def test_little_memory_makes_windows(model: Path, tmp_path: Path) -> None:
    source = tiff(tmp_path / "in.tif", sample(1001, 1301, np.uint8), iccprofile=None)
    plans: list[Plan] = []
    for amount in ("10GB", "auto"):
        options = {"max_memory": amount, "dry_run": True, "on_plan": plans.append}
        translate(model, source, tmp_path / "out.tif", **options)
    less = f"{plans[0].host_bytes // 10**6 - 20}MB"
    translate(
        model, source, tmp_path / "o.tif", max_memory=less, dry_run=True, on_plan=plans.append
    )
    assert [plan.tile for plan in plans] == [1301, 1301, 512]
    assert plans[2].passes == 13
    assert plans[2].host_bytes < plans[0].host_bytes


def test_other_windows_verify_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiff(tmp_path / "in.tif", sample(150, 133, np.uint8), iccprofile=None)
    options: dict[str, Any] = {"verify": 3, "force": True}
    for tile in ("whole", "64"):
        (done,) = translate(model, source, tmp_path / "out.tif", tile=tile, **options)
        assert done.difference is not None
        assert done.difference < 2e-3
    real = Moments.add
    # The statistics of a part.
    monkeypatch.setattr(Moments, "add", lambda self, image: self._count or real(self, image))
    (done,) = translate(model, source, tmp_path / "out.tif", tile="64", **options)
    assert done.difference is not None
    assert done.difference > 1


def test_at_a_working_width(model: Path, tmp_path: Path, on_disk: None) -> None:
    source = tiff(tmp_path / "in.tif", sample(301, 443, np.uint8), iccprofile=None)
    for name, tile, memory in (("one", "whole", "auto"), ("two", "96", "3GB")):
        options = {"tile": tile, "working_width": 150, "max_memory": memory}
        translate(model, source, tmp_path / f"{name}.tif", **options)
    one, two = (read(tmp_path / f"{name}.tif").astype(int) for name in ("one", "two"))
    assert np.abs(one - two).max() <= 1


def test_ctrl_c_before_the_first_tile_leaves_nothing(
    model: Path, tmp_path: Path, on_disk: None
) -> None:
    source = tiff(tmp_path / "in.tif", sample(150, 133, np.uint8), iccprofile=None)
    with pytest.raises(Interrupted) as caught:
        translate(model, source, tmp_path / "out.tif", tile="64", on_tile=stop_at(20))
    assert (
        str(caught.value) == f"{tmp_path / 'out.tif'} was not written: no part of it was finished"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_a_disk_without_room_between_passes(
    model: Path, tmp_path: Path, on_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tiff(tmp_path / "in.tif", sample(150, 133, np.uint8)), tmp_path / "out.tif"
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200_000))
        assert refusal(model, source, out, tile="64", compression="none") == (
            f"{out} needs 0.2 MB of disk, and 0.2 MB between its passes, 0.2 MB are free there; "
            "try another place for the output"
        )

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwritev", full)
    assert refusal(model, source, out, tile="64") == (
        f"cannot keep what is between two passes in {tmp_path} (No space left on device); free "
        "some space there, or try another place for the output"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


STREAMING = (
    "from sincut.images.reading import open; from sincut.translation import plan, scratch; "
    "open.STREAM_ABOVE = 0; plan._BAND_BYTES = 1; scratch._IN_MEMORY = 0; "
    "from sincut.cli import main; main()"
)


def test_killed_and_resumed_the_bytes_are_the_same(model: Path, tmp_path: Path) -> None:
    """With SIGKILL, before the first tile and after some."""
    source, out = tiff(tmp_path / "in.tif", sample(1200, 300, np.uint8)), tmp_path / "out.tif"
    command = [sys.executable, "-c", STREAMING, "translate", str(model), str(source)]
    command += ["--tile", "64", "-o"]
    subprocess.run([*command, str(tmp_path / "expected.tif")], check=True, capture_output=True)
    known = {"in.tif", "expected.tif", "out.tif", ".out.tif.part", ".out.tif.journal"}
    part, killed = tmp_path / ".out.tif.part", 0
    for wanted in (0, 100_000):
        process = subprocess.Popen([*command, str(out), "--resume"], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (part.exists() and part.stat().st_size >= wanted):
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        assert {path.name for path in tmp_path.iterdir()} <= known
    assert killed
    subprocess.run([*command, str(out), "--resume"], check=True, capture_output=True)
    assert out.read_bytes() == (tmp_path / "expected.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are told by Linux")
@pytest.mark.parametrize("less", [False, True], ids=["whole", "windows"])
def test_memory_stays_below_the_plan(tmp_path: Path, less: bool) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, trained_like(16, blocks=1), None, {"config": {}, "step": 0})
    source = tiff(tmp_path / "in.tif", np.tile(sample(300, 450, np.uint8), (3, 2, 1)))
    code = (
        "import sys, sincut.cli\n"
        "from sincut.translation import scratch; scratch._IN_MEMORY = 0\n"
        "try: sincut.cli.main()\n"
        "finally: print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    )
    command = ["translate", str(path), str(source), "-o", str(tmp_path / "out.tif"), "--json"]
    output = subprocess.run(
        [sys.executable, "-c", code, *command, *(["--max-memory", "850MB"] if less else [])],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    ).stdout.splitlines()
    plan = json.loads(output[0])
    real = int(next(line for line in output if "VmHWM" in line).split()[1]) * 1024
    assert (plan["passes"] > 1) == less
    assert real <= plan["host_bytes"] <= 3 * real


@pytest.mark.gpu
def test_tiles_equal_the_whole_on_cuda() -> None:
    rgb = picture(257, 333)
    expected = whole_of(trained_like(), rgb)
    for precision, most in (("fp32", 1e-5), ("bf16", 0.5)):
        output = in_tiles(trained_like().cuda(), rgb, 96, 64, precision=precision)
        assert (output - expected).abs().max() <= most
    config: Callable[[str], TranslateConfig] = lambda tile: TranslateConfig(tile=tile)  # noqa: E731
    one, two = (translate_pixels(trained_like().cuda(), rgb, config(t)) for t in ("whole", "96"))
    assert np.abs(one.astype(int) - two).max() <= 1
