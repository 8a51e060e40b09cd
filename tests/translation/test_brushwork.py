"""Brushwork over a network: in tiles as in one piece, in files, and how much of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sincut
from sincut.cli import main
from sincut.config.translating import TranslateConfig
from sincut.demo import render_content, render_style
from sincut.images.reading.open import read_picture
from sincut.models.brushwork import Brushwork
from sincut.models.generator import Generator
from sincut.models.model_file import load_model, save_model
from sincut.models.stylegan2 import StyleGAN2Generator
from sincut.translation.brushwork import Brushed
from sincut.translation.export import export
from sincut.translation.network import Network
from sincut.translation.tiles import operator_of, translate_pixels
from tests.conftest import TINY

SIZES = [(67, 83), (64, 64), (17, 50), (1, 40), (16, 3)]


def painter(downsamplings: int = 1, device: str = "cpu") -> Generator:
    torch.manual_seed(1)
    generator = StyleGAN2Generator(4, downsamplings=downsamplings).eval().requires_grad_(False)
    style = render_style(96, 72)
    generator.brushwork = Brushwork.of(style, style[::2, ::2])
    return generator.to(device)


def floats(height: int, width: int) -> np.ndarray:
    return render_content(max(width, 64), max(height, 64))[:height, :width].astype(np.float32) / 255


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("tile", ["16", "40", "64"])
def test_tiles_equal_the_whole(size: tuple[int, int], border: str, tile: str) -> None:
    generator, rgb = painter(), floats(*size)
    expected = translate_pixels(generator, rgb, TranslateConfig(tile="whole", border=border))
    got = translate_pixels(generator, rgb, TranslateConfig(tile=tile, border=border))
    assert np.abs(got - expected).max() < 0.1 / 255


@pytest.mark.parametrize("downsamplings", [2, 5])
def test_windows_of_a_network_that_starts_at_other_multiples(downsamplings: int) -> None:
    generator, rgb = painter(downsamplings), floats(33, 40)
    expected = translate_pixels(generator, rgb, TranslateConfig(tile="whole"))
    got = translate_pixels(generator, rgb, TranslateConfig(tile="32"))
    assert np.abs(got - expected).max() < 0.1 / 255


def test_the_network_under_it_is_the_network_alone() -> None:
    """What patches are laid on is what the network makes by itself, at the image's edges too."""
    generator, rgb = painter(), floats(50, 70)
    config = TranslateConfig(tile="whole", border="zero")
    alone = translate_pixels(generator, rgb, config.replaced(brushwork=0.0))
    made: list[torch.Tensor] = []

    class Watched(Brushwork):
        def forward(self, image: torch.Tensor, top: int, left: int, seed: int) -> torch.Tensor:
            assert (top, left, seed) == (-16, -16, 0)
            made.append(image)
            return image

    assert generator.brushwork is not None
    generator.brushwork = Watched(generator.brushwork.style, generator.brushwork.units)
    again = translate_pixels(generator, rgb, config)
    assert np.array_equal(again, alone)
    padded = np.pad(alone, ((16, 30), (16, 26), (0, 0)), mode="reflect")
    seen = made[0][0].permute(1, 2, 0).numpy() / 2 + 0.5
    assert np.abs(seen.clip(0, 1) - padded).max() < 1e-6


def test_how_much_of_it() -> None:
    generator, rgb = painter(), floats(64, 80)
    none, half, full = (
        translate_pixels(generator, rgb, TranslateConfig(brushwork=share)) for share in (0, 0.5, 1)
    )
    assert np.abs(full - none).mean() > 0.05
    unclipped = (none > 0) & (none < 1) & (full > 0) & (full < 1)
    assert np.abs(half - (none + full) / 2)[unclipped].max() < 1e-5
    assert isinstance(operator_of(generator, TranslateConfig(brushwork=0.0), 9, 9, Path()), Network)
    assert isinstance(operator_of(generator, TranslateConfig(), 9, 9, Path()), Brushed)


def test_another_seed_lays_it_differently() -> None:
    generator, rgb = painter(), floats(64, 80)
    one, other = (translate_pixels(generator, rgb, TranslateConfig(seed=s)) for s in (0, 1))
    assert not np.array_equal(one, other)


@pytest.fixture(scope="module")
def painted_run(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "painted"
    sincut.train(*pair, folder, **{**TINY, "brushwork": True, "stroke": 0.75})
    return folder


def test_a_run_keeps_the_style_for_it(pair: tuple[Path, Path], painted_run: Path) -> None:
    model = load_model(painted_run)
    assert model.generator.brushwork is not None
    # The style is 144 pixels wide, the content 160; strokes of three quarters.
    assert model.generator.brushwork.style.shape == (90, 108, 3)
    assert not any(name.startswith("brushwork") for name, _ in model.generator.named_parameters())


def test_files_are_as_pixels_in_memory(
    pair: tuple[Path, Path], painted_run: Path, tmp_path: Path
) -> None:
    (made,) = sincut.translate(painted_run, pair[0], tmp_path / "out.png", tile="48", verify=4)
    assert made.difference is not None
    assert made.difference < 0.1
    content = read_picture(pair[0]).rgb
    expected = translate_pixels(load_model(painted_run).generator, content, TranslateConfig())
    got = read_picture(tmp_path / "out.png").rgb
    assert np.abs(got.astype(int) - expected).max() <= 1
    report = (painted_run / "report.html").read_text(encoding="utf-8")
    assert "S4" in report


def test_it_lies_on_what_is_carried_to_full_size(
    pair: tuple[Path, Path], painted_run: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"working_width": 80}
    for name, more in (("with", {}), ("small", {"tile": "32"}), ("without", {"brushwork": 0.0})):
        sincut.translate(painted_run, pair[0], tmp_path / f"{name}.png", **options, **more)
    painted, small, plain = (
        read_picture(tmp_path / f"{name}.png").rgb.astype(float)
        for name in ("with", "small", "without")
    )
    assert np.abs(painted - small).max() <= 1
    brushwork = load_model(painted_run).generator.brushwork
    assert brushwork is not None
    extended = np.pad(plain, ((16, 16), (16, 16), (0, 0)), mode="reflect")
    image = torch.tensor(extended).permute(2, 0, 1)[None].float() / 127.5 - 1
    laid = brushwork(image, -16, -16, 0)[0].permute(1, 2, 0).numpy()[16:-16, 16:-16]
    # It was laid on what had not been rounded yet.
    assert np.abs((laid.clip(-1, 1) + 1) * 127.5 - painted).mean() < 2


@pytest.mark.parametrize("width", [160, 1024])
def test_memory_is_counted(width: int) -> None:
    generator = painter()
    with_it = operator_of(generator, TranslateConfig(), width, width, Path())
    alone = operator_of(generator, TranslateConfig(brushwork=0.0), width, width, Path())
    assert with_it.host_bytes(width, width) > alone.host_bytes(width, width)


def test_export_is_the_network_alone_and_says_so(painted_run: Path, tmp_path: Path) -> None:
    exported = export(painted_run, tmp_path / "model.pt2")
    assert exported.notices[0] == (
        "it is the network alone: the brushwork that sincut translate adds is left out"
    )


def test_a_model_file_without_it_has_none(tmp_path: Path, tiny_run: Path) -> None:
    assert load_model(tiny_run).generator.brushwork is None
    generator = StyleGAN2Generator(4)
    style = render_style(48, 32)
    made = Brushwork.of(style, style[::2, ::2])
    save_model(tmp_path / "model.safetensors", generator, None, {"step": 0}, made)
    read = load_model(tmp_path / "model.safetensors").generator.brushwork
    assert read is not None
    assert torch.equal(read.style, made.style)
    assert torch.equal(read.units, made.units)


@pytest.mark.gpu
def test_a_gpu_lays_it_as_a_cpu_does() -> None:
    rgb = floats(131, 155)
    config = TranslateConfig(tile="64")
    one, other = (translate_pixels(painter(device=d), rgb, config) for d in ("cpu", "cuda"))
    assert np.abs(one - other).max() < 1 / 255


@pytest.mark.parametrize("name", ["look", "stroke"])
def test_strokes_are_refused_where_nothing_paints(
    name: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(sincut.SincutError) as refused:
        sincut.train(*pair, tmp_path / "run", preset="paper", **{name: 0.75})
    assert str(refused.value) == (
        f"{name} is that of a painting, and this preset makes none, got {name}=0.75; "
        "try --preset draft"
    )


def test_every_setting_of_a_translation_has_an_option() -> None:
    options = {parameter.name for parameter in main.commands["translate"].params}
    fields = {field.name for field in dataclasses.fields(TranslateConfig)}
    assert fields <= options
