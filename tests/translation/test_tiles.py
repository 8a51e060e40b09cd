"""The law: tiles give the same image as one piece. Depths, strength, masks, memory that ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sincut.compute.cuda_graph import own_stream
from sincut.compute.memory import out_of_memory
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.images.bit_depth import as_depth
from sincut.models.generator import Generator
from sincut.models.stylegan2 import StyleGAN2Generator
from sincut.translation import network as module
from sincut.translation.network import Network, device_bytes
from sincut.translation.tiles import (
    TileWorker,
    plan_tiles,
    translate_pixels,
    translate_tile,
    window_of,
)
from sincut.translation.tiling import Span, align_up, tiles

SIZES = [(257, 333), (500, 1), (1, 500), (64, 64), (97, 31)]


def trained_like(downsamplings: int = 1, channels: int = 4) -> Generator:
    """A generator whose noise and biases are not zero."""
    torch.manual_seed(1)
    generator = (
        StyleGAN2Generator(channels, downsamplings=downsamplings).eval().requires_grad_(False)
    )
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
        if name.endswith("noise_weight"):
            torch.nn.init.constant_(parameter, 0.3)
    return generator


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)


def in_tiles(generator: Generator, rgb: np.ndarray, config: TranslateConfig) -> np.ndarray:
    """Unrounded translation, tile by tile."""
    output = np.full(rgb.shape, np.nan)
    for tile in plan_tiles(generator, rgb, config):
        place = np.s_[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop]
        output[place] = translate_tile(generator, rgb, tile, config).numpy()
    return output


@pytest.fixture(scope="module")
def whole() -> Iterator[dict[Any, np.ndarray]]:
    """Translations in one piece, made once per size and border."""
    return {}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("tile", ["16", "64", "96", "250", "333", "512"])
def test_tiles_equal_the_whole(
    size: tuple[int, int], border: str, tile: str, whole: dict[Any, np.ndarray]
) -> None:
    generator, rgb = trained_like(), picture(*size)
    if (size, border) not in whole:
        whole[size, border] = in_tiles(generator, rgb, TranslateConfig(tile="whole", border=border))
    expected = whole[size, border]
    got = in_tiles(generator, rgb, TranslateConfig(tile=tile, border=border))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("tile", ["64", "100", "122"])
def test_tiles_equal_the_whole_with_two_downsamplings(tile: str) -> None:
    generator, rgb = trained_like(downsamplings=2), picture(131, 150)
    expected = in_tiles(generator, rgb, TranslateConfig(tile="whole"))
    got = in_tiles(generator, rgb, TranslateConfig(tile=tile))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("missing", "equal"), [(0, True), (4, False)])
def test_the_halo_is_needed_whole(missing: int, equal: bool) -> None:
    """In float64, where nothing but a missing pixel can make a difference."""
    generator, rgb = trained_like().double(), picture(150, 170)
    config = TranslateConfig()
    expected = in_tiles(generator, rgb, TranslateConfig(tile="whole"))
    worst = 0.0
    for tile in tiles(150, 170, 64, generator.halo - missing, generator.alignment):
        place = np.s_[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop]
        got = translate_tile(generator, rgb, tile, config).numpy()
        # Pixels at the image's border may differ: its reflection is shorter then, too.
        worst = max(worst, np.abs(got - expected[place]).max())
    if equal:
        assert worst < 1e-12
    else:
        assert worst > 1e-9


def test_reflect_is_the_mirrored_image_cut_back() -> None:
    """What "whole image" means: mirrored by the halo, in one piece, the margin cut off."""
    generator, rgb = trained_like(), picture(40, 56)
    margin = generator.halo
    wide = np.pad(rgb, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    image = torch.from_numpy(wide).permute(2, 0, 1)[None] / 127.5 - 1
    noise = generator.position_noise(5, -margin, -margin, *wide.shape[:2], torch.device("cpu"))
    expected = generator(image, noise)[0, :, margin:-margin, margin:-margin].permute(1, 2, 0)
    got = in_tiles(generator, rgb, TranslateConfig(seed=5))
    assert np.abs(got - expected.numpy()).max() < 1e-5


def test_zero_is_the_network_as_it_is() -> None:
    generator, rgb = trained_like(), picture(40, 56)
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1
    noise = generator.position_noise(5, 0, 0, 40, 56, torch.device("cpu"))
    expected = generator(image, noise)[0].permute(1, 2, 0)
    got = in_tiles(generator, rgb, TranslateConfig(seed=5, border="zero", tile="16"))
    assert np.abs(got - expected.numpy()).max() < 1e-5


def test_pixels_are_clamped_and_rounded() -> None:
    generator, rgb = trained_like(), picture(33, 47)
    generator.to_rgb.weight.mul_(20)  # out of [-1, 1] on both sides
    output = translate_pixels(generator, rgb, TranslateConfig(tile="16"))
    exact = in_tiles(generator, rgb, TranslateConfig())
    assert output.dtype == np.uint8
    assert output.shape == rgb.shape
    assert exact.min() < -1
    assert exact.max() > 1
    assert np.abs(output - ((exact + 1) * 127.5).clip(0, 255)).max() <= 0.501


def test_noise_depends_on_the_seed_and_nothing_else() -> None:
    generator, rgb = trained_like(), picture(64, 64)
    one, again, other = (
        translate_pixels(generator, rgb, TranslateConfig(seed=s)) for s in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_bf16_stays_close_to_fp32() -> None:
    generator, rgb = trained_like(), picture(64, 64)
    half, full = (
        translate_pixels(generator, rgb, TranslateConfig(precision=p)) for p in ("bf16", "fp32")
    )
    difference = np.abs(half.astype(int) - full)
    assert 0 < difference.mean() < 2


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pixels_are_computed_in_their_depth(dtype: type) -> None:
    """The same picture at three depths gives the same, finer; no step goes through 8 bits."""
    generator, rgb = trained_like(), picture(33, 47)
    deep = as_depth(rgb, np.dtype(dtype))
    output = translate_pixels(generator, deep, TranslateConfig(tile="16"))
    exact = ((in_tiles(generator, rgb, TranslateConfig()) + 1) / 2).clip(0, 1)
    white = 65535 if dtype == np.uint16 else 1
    assert output.dtype == dtype
    assert np.abs(output / white - exact).max() < 1.01 * (0.5 / 65535 + 1e-6)
    assert len(np.unique(output)) > 1500


def engine_for(generator: Generator, height: int, width: int, **options: Any) -> TileWorker:
    network = Network(generator, TranslateConfig())
    return TileWorker(network, height, width, np.dtype(np.uint8), **options)


def all_at_once(engine: TileWorker, rgb: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """One tile that is the whole image."""
    (tile,) = tiles(*rgb.shape[:2], max(rgb.shape) + 1, engine.operator.halo, 2)
    return engine.start(window_of(rgb, tile, 0, len(rgb)), tile, mask).wait()


def test_strength_mixes_srgb_values() -> None:
    generator, rgb = trained_like(), picture(33, 47)
    full = translate_pixels(generator, rgb, TranslateConfig()).astype(float)
    for strength in (0.0, 0.25, 1.0):
        mixed = all_at_once(engine_for(generator, 33, 47, strength=strength), rgb)
        assert np.abs(mixed - (rgb + strength * (full - rgb))).max() < 1.0
    assert np.array_equal(all_at_once(engine_for(generator, 33, 47, strength=0), rgb), rgb)


def test_a_mask_limits_the_translation() -> None:
    generator, rgb = trained_like(), picture(33, 47)
    full = translate_pixels(generator, rgb, TranslateConfig())
    mask = np.zeros((33, 47), np.float32)
    mask[:, 20:] = 1
    mask[:, 30:] = 0.5
    mixed = all_at_once(engine_for(generator, 33, 47), rgb, mask)
    assert np.array_equal(mixed[:, :20], rgb[:, :20])
    assert np.array_equal(mixed[:, 20:30], full[:, 20:30])
    assert np.abs(mixed[:, 30:] - (rgb[:, 30:] / 2.0 + full[:, 30:] / 2.0)).max() <= 1.0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(97, 131), (40, 300), (33, 1)])
def test_tiles_are_halved_when_memory_ends(
    size: tuple[int, int], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows above a number of pixels find no memory; the result stays the same."""
    generator, rgb = trained_like(), picture(*size)
    mask = np.random.default_rng(0).random(size, np.float32) if masked else None
    expected = all_at_once(engine_for(generator, *size), rgb, mask)
    limit, tried = 160 * 130, []
    real = StyleGAN2Generator.generate

    def scarce(self: Generator, image: torch.Tensor, *rest: Any) -> Any:
        tried.append(image.shape[-2] * image.shape[-1])
        if tried[-1] > limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: no memory")
        return real(self, image, *rest)

    monkeypatch.setattr(StyleGAN2Generator, "generate", scarce)
    engine = engine_for(generator, *size)
    assert np.abs(all_at_once(engine, rgb, mask).astype(int) - expected).max() <= 1
    before = engine.splits
    assert (before > 0) == (tried[0] > limit)
    assert np.abs(all_at_once(engine, rgb, mask).astype(int) - expected).max() <= 1
    assert engine.splits == before  # the second time nothing too large is tried


def test_memory_that_is_never_enough_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StyleGAN2Generator, "generate", scarce)
    engine = engine_for(trained_like(), 64, 64)
    with pytest.raises(SincutError) as caught:
        all_at_once(engine, picture(64, 64))
    assert str(caught.value) == (
        "there is not enough memory even for a tile of 32×16 pixels; free some"
    )


def test_memory_that_ended_beneath_another_error_is_found() -> None:
    """A recording that breaks off raises an error of its own over the first."""
    over = RuntimeError("capture failed")
    assert not out_of_memory(over)
    over.__context__ = torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert out_of_memory(over)


def test_other_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(StyleGAN2Generator, "generate", broken)
    with pytest.raises(RuntimeError, match="something else"):
        all_at_once(engine_for(trained_like(), 64, 64), picture(64, 64))


@pytest.mark.gpu
@pytest.mark.parametrize("tile", ["96", "250", "512"])
def test_tiles_equal_the_whole_on_cuda(tile: str) -> None:
    rgb, config = picture(257, 333), TranslateConfig(tile="whole")
    on_cpu = in_tiles(trained_like(), rgb, config)
    generator = trained_like().cuda()
    for chosen in (config, TranslateConfig(tile=tile)):
        output = np.full(rgb.shape, np.nan)
        for each in plan_tiles(generator, rgb, chosen):
            place = np.s_[each.rows.start : each.rows.stop, each.columns.start : each.columns.stop]
            output[place] = translate_tile(generator, rgb, each, chosen).cpu().numpy()
        assert np.abs(output - on_cpu).max() <= 1e-5 * np.abs(on_cpu).max()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("record", [False, True])
def test_tiles_in_flight_on_cuda_are_those_of_the_cpu(dtype: type, record: bool) -> None:
    """Uploads, graphs and downloads overlap; every tile still gets its own pixels."""
    rgb = as_depth(picture(700, 900), np.dtype(dtype))
    expected = translate_pixels(trained_like(), rgb, TranslateConfig())
    network = Network(trained_like().cuda(), TranslateConfig(), record=record)
    output, flying = np.empty_like(rgb), []
    with own_stream("cuda"):
        engine = TileWorker(network, 700, 900, rgb.dtype)
        for tile in tiles(700, 900, 128, network.halo, network.alignment):
            flying.append((tile, engine.start(window_of(rgb, tile, 0, 700), tile)))
        for tile, pending in flying:
            rows, columns = tile.rows, tile.columns
            output[rows.start : rows.stop, columns.start : columns.stop] = pending.wait()
    most = {np.uint8: 1.0, np.uint16: 2.0, np.float32: 2e-5}[dtype]
    assert np.abs(output.astype(float) - expected.astype(float)).max() <= most


@pytest.mark.gpu
@pytest.mark.parametrize("downsamplings", [1, 3])
def test_memory_of_tiles_on_cuda_is_foreseen(downsamplings: int) -> None:
    generator = trained_like(channels=40, downsamplings=downsamplings)
    network = Network(generator.cuda(), TranslateConfig())
    rgb = picture(1100, 1100)
    foreseen = device_bytes(network, 1024)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    (tile, *_) = tiles(1100, 1100, 1024, network.halo, network.alignment)
    TileWorker(network, 1100, 1100, rgb.dtype).start(window_of(rgb, tile, 0, 1100), tile).wait()
    assert 0.7 < foreseen / (torch.cuda.max_memory_allocated() - before) < 1.5


def test_what_tiles_take_is_foreseen_from_those_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight line through the two largest that can be tried, or through the only one."""
    network = Network(trained_like(channels=4), TranslateConfig())
    most = 10**9

    def peak(network: Network, span: Span) -> int:
        area = (span.read_stop - span.read_start) ** 2
        if area > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 1000 + 7 * area

    monkeypatch.setattr(module, "_peak_of", peak)
    halo = align_up(network.halo, network.alignment)
    wanted = 1000 + 7 * (1024 + 2 * halo) ** 2
    assert device_bytes(network, 1024) == pytest.approx(wanted, abs=1)
    most = (128 + 2 * halo) ** 2
    assert device_bytes(network, 1024) == pytest.approx(wanted, abs=1)
    most = (64 + 2 * halo) ** 2
    assert device_bytes(network, 1024) == pytest.approx(wanted, rel=0.1)
    most = 0
    with pytest.raises(SincutError) as error:
        device_bytes(network, 1024)
    assert str(error.value) == (
        "there is not enough memory on the GPU even for a tile of 64 pixels; free some, or try "
        "--device cpu"
    )
