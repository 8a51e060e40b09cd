"""The law: tiles give the same image as one piece. And what translate does with files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sincut
from sincut.checkpoint import load_model
from sincut.config import TranslateConfig
from sincut.errors import SincutError
from sincut.networks import Generator
from sincut.tiling import tiles
from sincut.translation import (
    Progress,
    load_generator,
    plan_outputs,
    plan_tiles,
    translate,
    translate_pixels,
    translate_tile,
    verify_tiles,
)
from tests.conftest import size_of

SIZES = [(257, 333), (500, 1), (1, 500), (64, 64), (97, 31)]


def trained_like(downsamplings: int = 1, channels: int = 4) -> Generator:
    """A generator whose noise and biases are not zero."""
    torch.manual_seed(1)
    generator = Generator(channels, downsamplings=downsamplings).eval().requires_grad_(False)
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


def test_verify_reports_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, rgb = trained_like(), picture(150, 170)
    config = TranslateConfig(tile="64", verify=9)
    assert verify_tiles(generator, rgb, config) < 2e-3
    monkeypatch.setattr(Generator, "halo", 10)
    assert verify_tiles(generator, rgb, config) > 0.1


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
        f"{target} exists already; try --force or another output"
    )
    assert target.read_bytes() == b"precious"
    translate(tiny_run, content, target, force=True)
    assert size_of(target) == (160, 128)
    assert refusal(tiny_run, content, content, force=True) == (
        f"{content} is an input; choose another output"
    )
    other = tmp_path / "sub" / "content.png"
    other.parent.mkdir()
    other.write_bytes(content.read_bytes())
    assert refusal(tiny_run, [content, other], tmp_path / "out") == (
        f"{content} and {other} would both be written to {tmp_path / 'out' / 'content.png'}; "
        "translate them into different folders"
    )
    assert refusal(tiny_run, [content, pair[1]], target) == (
        f"{target} is a file; several inputs go into a folder"
    )
    assert refusal(tiny_run, [], tmp_path / "out") == (
        "there is nothing to translate; give at least one image"
    )


def test_wrong_outputs_are_refused_before_the_work(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "generate", None)  # no work
    assert refusal(tiny_run, pair[0], tmp_path / "none" / "out.png") == (
        f"the folder {tmp_path / 'none'} does not exist; create it first"
    )
    assert "no ending of an image format" in refusal(tiny_run, pair[0], tmp_path / "out.xyz")
    assert refusal(tiny_run, pair[0], tmp_path / "out.png", max_pixels=100).endswith(
        "try --max-pixels 20480"
    )
    assert not list(tmp_path.iterdir())


def test_plan_outputs_names(tmp_path: Path) -> None:
    one = plan_outputs([tmp_path / "x.gif"], tmp_path, force=False)
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
