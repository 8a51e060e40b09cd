"""Several processes that share every step, against one with the whole batch."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor, nn

from sincut.compute.processes import ALONE, Processes
from sincut.config.presets import folder_config, train_config
from sincut.config.training import TrainConfig
from sincut.data.folders import Folders
from sincut.data.image_folder import read_folder
from sincut.data.pair import Pair
from sincut.data.random_numbers import RandomNumbers
from sincut.data.training_data import Crops, TrainingData
from sincut.training.loop import Record, train
from sincut.training.state import new_optimizers, new_state
from tests.conftest import TINY

COUNT = 2
PAIR = {**{name: value for name, value in TINY.items() if name != "preset"}, "steps": 4}
FOLDER: dict[str, Any] = {
    "device": "cpu", "precision": "fp32", "steps": 3, "batch": 2, "crop": 32, "load": 40,
    "falling_load": 36, "channels": 2, "blocks": 2, "discriminator_channels": 2, "patches": 8,
    "layers": (0, 4, 8), "projection_width": 8, "learning_rate": 0.002, "workers": 0,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "minibatch negatives, R1, warm start": ("sincut", {}),
    "crop negatives": ("sincut", {"negatives": "crop", "zoom_per": "crop", "warm_steps": 0}),
    "what draft adds": (
        "sincut",
        {"lambda_painting": 2.0, "lambda_strokes": 1.5, "correction": True},
    ),
    "mirrored, in a grid": (
        "fastcut",
        {"placement": "grid", "zoom": "factor", "zoom_min": 0.4, "zoom_max": 1.0, "seed": 2},
    ),
    "CUT": ("cut of folders", {}),
    "CUT, minibatch negatives, decoded for every step": (
        "cut of folders",
        {"negatives": "minibatch", "image_memory": "1B", "warm_steps": 1, "lambda_r1": 1.0},
    ),
    "FastCUT": ("fastcut of folders", {"ema_half_life": 2.0}),
}


def config_of(case: str, batch: int) -> TrainConfig:
    method, changes = CASES[case]
    if method.endswith(" of folders"):
        name = method.partition(" ")[0]
        return folder_config(name, name, **{**FOLDER, **changes, "batch": batch})
    return train_config("draft", method, **{**PAIR, **changes, "batch": batch})


def data_of(case: str, folder: Path) -> TrainingData:
    if CASES[case][0].endswith(" of folders"):
        return Folders(*(read_folder(folder / name, skip_bad=False) for name in ("a", "b")))
    random = np.random.default_rng(0)
    content = random.integers(0, 120, (60, 70, 3), dtype=np.uint8)
    return Pair(content, random.integers(100, 256, (64, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of images, and room for what processes find."""
    folder = tmp_path_factory.mktemp("distributed")
    random = np.random.default_rng(0)
    for name, count in (("a", 7), ("b", 5)):
        (folder / name).mkdir()
        for index in range(count):
            pixels = random.integers(0, 256, (48, 40 + index, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


FLOAT = Tensor.float


@contextmanager
def as_float(function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """``Tensor.float`` is another function."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Tensor, "float", function)
        yield


@dataclasses.dataclass
class InDouble:
    """Data of a training whose crops are float64; also the feed of them."""

    inner: Any

    def feed(self, config: TrainConfig, **how: Any) -> InDouble:
        with as_float(FLOAT):
            return InDouble(self.inner.feed(config, **how))

    @property
    def waited(self) -> float:
        return 0.0

    def prepare(self, step: int) -> None:
        with as_float(FLOAT):
            self.inner.prepare(step)

    def draw(self, draws: RandomNumbers) -> Crops:
        with as_float(FLOAT):
            x, y, _ = self.inner.draw(draws)
        return Crops(x.double(), y.double())

    def recoloured(self, x: Tensor) -> Tensor:
        return self.inner.recoloured(FLOAT(x)).double()


def trained(case: str, folder: Path, processes: Processes, batch: int) -> dict[str, Any]:
    """Weights of all networks after a training in float64, and the losses on the way."""
    config, data = config_of(case, batch), data_of(case, folder)
    state = new_state(data, config)
    for network in state.networks().values():
        network.double()
    state.optimizers = new_optimizers(state, config)
    losses: list[dict[str, float]] = []

    def on_step(record: Record) -> None:
        losses.append(record.values())

    with as_float(Tensor.double):
        train(InDouble(data), config, on_step, state, processes=processes)
    return {"losses": losses, **weights(state.networks())}


def weights(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def work(index: int, port: int, folder: Path) -> None:
    """One of the processes: all cases, one after the other."""
    torch.set_num_threads(1)
    processes = Processes(index, COUNT, None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MASTER_ADDR", "127.0.0.1")
        patched.setenv("MASTER_PORT", str(port))
        with processes.joined("cpu"):
            found = {case: trained(case, folder, processes, batch=2) for case in CASES}
    torch.save(found, folder / f"{index}.pt")


@pytest.fixture(scope="module")
def together(folder: Path) -> list[dict[str, dict[str, Any]]]:
    """What every process came to, by case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, folder), COUNT)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{index}.pt") for index in range(COUNT)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_come_to_what_one_does_with_the_whole_batch(
    case: str, folder: Path, together: list[dict[str, dict[str, Any]]]
) -> None:
    alone = trained(case, folder, ALONE, batch=2 * COUNT)
    first, second = (each[case] for each in together)
    for name, expected in alone.items():
        if name == "losses":
            assert len(expected) == len(first[name])
            for ours, theirs in zip(first[name], expected, strict=True):
                assert ours == pytest.approx(theirs, rel=1e-6)
            assert first[name] == second[name]
            continue
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - expected).abs().max() <= 1e-6, name
