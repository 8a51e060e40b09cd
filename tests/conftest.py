"""Fixtures: a small pair, a small trained run, the real pair where it is at hand."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

# What a machine is remembered for belongs to its user, not to tests.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="sincut-tests-")

# Read by Triton when a kernel is decorated, so before anything of the project is imported.
if not torch.cuda.is_available() and "SINCUT_DRY_CUDA" not in os.environ:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import sincut
from sincut.demo import render_content, render_style
from sincut.evaluation import figures, patch_matching
from sincut.runs.events import Event
from tests.browser.chromium import browser as browser

# The smallest networks that have every part; a step takes some hundredths of a second.
TINY: dict[str, Any] = {
    "preset": "draft",
    "device": "cpu",
    "precision": "fp32",
    "steps": 6,
    "warm_steps": 2,
    "batch": 2,
    "crop": 32,
    "tile": 16,
    "channels": 4,
    "discriminator_channels": 4,
    "projection_width": 16,
    "patches": 16,
    "r1_every": 2,
    "lambda_x": 1.5,
    "lambda_y": 1.5,
    "lambda_identity": 1.0,
    # What draft learns from takes seconds to make.
    "lambda_painting": 0.0,
    "lambda_strokes": 0.0,
    "brushwork": False,
    "lambda_gan": 1.0,
    "correction": True,
    "noise": True,
    "downsamplings": 1,
    "layers": "0,2,4",
    "mirror": 0.5,
    "learning_rate": 0.002,
    "beta2": 0.99,
    "ema_half_life": 100.0,
    "zoom_min": 64.0,
    "zoom_max": 160.0,
    "log_every": 1,
    "preview_every": 3,
    "preview_width": 64,
    "checkpoint_every": 4,
}


@pytest.fixture(scope="session", autouse=True)
def _less_to_measure() -> Iterator[None]:
    """The anchor ``patches`` takes a minute, S4 a second; their own test has all of both."""
    with pytest.MonkeyPatch.context() as patch:
        few = tuple((shrink, 2) for shrink, _ in patch_matching._LEVELS)
        patch.setattr(patch_matching, "_LEVELS", few)
        patch.setattr(figures, "_STROKES", 512)  # S4's patches
        yield


REAL_PAIR = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
        if sampled := item.get_closest_marker("sampled"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % sampled.args[0]:
                item.add_marker(pytest.mark.long)
            seen[name] += 1
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def on_the_kernels_device(test: Any) -> Any:
    """A test of kernels is a GPU test where there is one; elsewhere the interpreter runs it."""
    return pytest.mark.gpu(test) if torch.cuda.is_available() else test


def heard(function: Callable[[dict[str, Any]], Any]) -> Callable[[Event], None]:
    """A listener that gives every event to a function, as JSON has it."""
    return lambda event: function(event.record())


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Content (160×128) and style (144×120) as PNG files."""
    folder = tmp_path_factory.mktemp("pair")
    Image.fromarray(render_content(160, 128)).save(folder / "content.png")
    Image.fromarray(render_style(144, 120)).save(folder / "style.png")
    return folder / "content.png", folder / "style.png"


@pytest.fixture(scope="session")
def tiny_run(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smallest networks. Tests read it and do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    sincut.train(*pair, folder, **TINY)
    return folder


@pytest.fixture
def real_pair() -> tuple[Path, Path]:
    """Monet's painting and a photograph of the place, where they are at hand."""
    pair = REAL_PAIR / "monet.jpg", REAL_PAIR / "etretat-normandy-france.jpg"
    if not all(path.exists() for path in pair):
        pytest.skip("the real pair is not at hand")
    return pair


@pytest.fixture
def noise_image() -> np.ndarray:
    """(96, 130, 3) uint8, every pixel random."""
    return np.random.default_rng(0).integers(0, 256, (96, 130, 3), dtype=np.uint8)
