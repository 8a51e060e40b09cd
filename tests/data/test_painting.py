"""The content rebuilt of patches of the style."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.colour_transfer import transfer_table
from sincut.data.painting import Pixels, _nearest, painted, pixels, planes
from sincut.data.pair import Pair
from sincut.data.random_numbers import RandomNumbers
from sincut.data.recolouring import recoloured
from sincut.data.training_data import Crops
from sincut.demo import render_content, render_style
from sincut.evaluation.figures import edge_correlation
from sincut.models.brushwork import Brushwork


@pytest.fixture(scope="module")
def content() -> Pixels:
    return render_content(192, 144)


@pytest.fixture(scope="module")
def style() -> Pixels:
    return render_style(192, 144)


def test_without_a_look_it_is_the_content_in_the_styles_colours(
    content: Pixels, style: Pixels
) -> None:
    table = torch.from_numpy(transfer_table(content, style, seed=3))
    expected = pixels(recoloured(planes(content), table))
    assert np.array_equal(painted(content, style, 192, look=0, seed=3), expected)


def test_the_more_look_the_less_of_the_content(content: Pixels, style: Pixels) -> None:
    kept = [
        edge_correlation(painted(content, style, 192, look=look), content) for look in (0, 0.5, 1)
    ]
    assert kept[0] > kept[1] > kept[2]
    assert kept[1] > 0.6


def test_the_style_painted_with_itself_is_the_style(style: Pixels) -> None:
    assert edge_correlation(painted(style, style, 192), style) > 0.95


def test_it_has_the_styles_colours(content: Pixels, style: Pixels) -> None:
    before, after = content, painted(content, style, 192)
    distances = [np.abs(each.mean((0, 1)) - style.mean((0, 1))).max() for each in (before, after)]
    assert distances[1] < distances[0] / 2


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [((40, 30), 64, (30, 40)), ((200, 20), 100, (10, 100)), ((17, 90), 64, (90, 17))],
)
def test_any_size_is_painted_and_none_enlarged(
    size: tuple[int, int], width: int, expected: tuple[int, int], style: Pixels
) -> None:
    result = painted(render_content(*size), style, width)
    assert result.shape == (*expected, 3)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("narrow", [(900, 40), (40, 900)])
def test_narrow_images_have_paintings_and_crops(narrow: tuple[int, int], style: Pixels) -> None:
    config = train_config("draft", device="cpu", crop=32, tile=32, zoom_min=64, zoom_max=64)
    for pair in (Pair(render_content(*narrow), style), Pair(style, render_content(*narrow))):
        crops = crops_of(pair, config, 0)
        assert crops.painting is not None
        assert crops.painting.shape == crops.content.shape


def test_it_is_the_same_every_time(content: Pixels, style: Pixels) -> None:
    assert np.array_equal(painted(content, style, 96), painted(content, style, 96))


@pytest.mark.gpu
def test_a_gpu_paints_the_same(content: Pixels, style: Pixels) -> None:
    """But for patches that are as good as equally near."""
    ours, theirs = (painted(content, style, 192, device=device) for device in ("cuda", "cpu"))
    differences = np.abs(ours.astype(int) - theirs).max(axis=2)
    assert np.quantile(differences, 0.95) <= 2
    works = [Brushwork.of(style, theirs[::2, ::2], device) for device in ("cuda", "cpu")]
    torch.testing.assert_close(works[0].units, works[1].units, rtol=1e-4, atol=1e-4)
    assert works[0].style.device.type == "cpu"


def test_the_nearest_row_is_found() -> None:
    random = np.random.default_rng(0)
    wanted, known = (random.normal(size=(n, 12)).astype(np.float32) for n in (70, 50))
    distances = np.square(wanted[:, None] - known[None]).sum(axis=2)
    given = torch.from_numpy(wanted), torch.from_numpy(known)
    assert np.array_equal(_nearest(*given, complete=False).numpy(), distances.argmin(axis=1))
    units = 0.005 * 12 + distances.min(axis=0)
    expected = (distances / units).argmin(axis=1)
    assert np.array_equal(_nearest(*given, complete=True).numpy(), expected)
    # What is nobody's nearest is used as well.
    assert len(set(expected)) > len(set(distances.argmin(axis=1)))


def crops_of(pair: Pair, config: PairConfig, step: int) -> Crops:
    feed = pair.feed(config, warm=True)
    feed.prepare(step)
    return feed.draw(RandomNumbers(config.seed, torch.tensor(step)))


def test_a_step_gets_what_lies_where_the_content_does(content: Pixels, style: Pixels) -> None:
    config = train_config(
        "draft", device="cpu", crop=32, tile=32, zoom_min=96, zoom_max=192, mirror=0.5
    )
    pair = Pair(content, style)
    # A painting that is the content tells the places of its crops.
    pair._paintings[192, config.look, config.stroke, config.seed, config.device] = content
    crops = crops_of(pair, config, 5)
    assert crops.painting is not None
    assert torch.equal(crops.painting, crops.content)
    assert not torch.equal(crops.painting, crops.style)


def test_it_is_made_once_and_only_where_it_is_learned_from(
    content: Pixels, style: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []

    def counted(content: Pixels, *_: object, look: float, **__: object) -> Pixels:
        made.append(look)
        return content

    monkeypatch.setattr("sincut.data.pair.painted", counted)
    pair = Pair(content, style)
    draft = train_config("draft", device="cpu", look=0.7)
    for _ in range(2):
        pair.feed(draft, warm=True)
    assert made == [0.7]
    pair.feed(train_config("paper", device="cpu"), warm=False)
    assert made == [0.7]
