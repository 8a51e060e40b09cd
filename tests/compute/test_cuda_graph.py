"""Recording steps: what happens without CUDA, and that a recorded step is the step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sincut.compute.cuda_graph import EAGER_CALLS, RecordedStep, own_stream
from sincut.training.loop import train
from sincut.training.step import Kind
from tests.training.test_loop import config, images


def test_without_recording_every_call_is_the_step() -> None:
    seen: list[str] = []

    def step(kind: str) -> dict[str, Tensor]:
        seen.append(kind)
        return {"term": torch.tensor(float(len(seen)))}

    replayed = RecordedStep(step, record=False)
    with own_stream("cpu"):
        values = [replayed(kind)["term"].item() for kind in "ababaaaaa"]
    assert seen == list("ababaaaaa")
    assert values == list(range(1, 10))


@pytest.mark.gpu
def test_each_kind_is_recorded_after_its_first_calls_and_does_the_same() -> None:
    number = torch.zeros((), device="cuda")
    calls: list[str] = []

    def step(kind: str) -> dict[str, Tensor]:
        calls.append(kind)
        return {"term": number * (2 if kind == "double" else 3)}

    with own_stream("cuda"):
        replayed = RecordedStep(step, record=True)
        for count in range(12):
            number.fill_(count)
            kind = "double" if count % 2 else "triple"
            assert replayed(kind)["term"].item() == count * (2 if count % 2 else 3)
    assert calls == ["triple", "double"] * (EAGER_CALLS + 1)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("method", "added"),
    [
        ("sincut", {}),
        ("fastcut", {}),
        ("sincut", {"lambda_painting": 1.0, "lambda_strokes": 1.0}),
    ],
)
def test_recorded_training_follows_eager_training(method: str, added: dict[str, Any]) -> None:
    """Warm start, steps with and without R1, mirrored and not; the average as well."""
    curves, averages = [], []
    for record in (False, True):
        cfg = config(
            method, device="cuda", steps=40, warm_steps=6, r1_every=3, record_steps=record,
            learning_rate=1e-4, **added,
        )  # fmt: skip
        curve: list[list[float]] = []
        state = train(images(), cfg, lambda r, curve=curve: curve.append([*r.values().values()]))
        curves.append(curve)
        averages.append(torch.cat([p.flatten() for p in state.averaged_generator.parameters()]))
    for eager, recorded in zip(*curves, strict=True):
        assert np.allclose(eager, recorded, rtol=2e-2, atol=1e-4)
    assert (averages[0] - averages[1]).abs().max() < 1e-2 * averages[0].abs().max()


def test_kinds_are_recorded_once_and_replayed_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With graphs that are only counted; on CUDA the tests above use real ones."""
    events: list[str] = []

    class Graph:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def replay(self) -> None:
            events.append(f"replay {self.kind}")

    def step(kind: str) -> dict[str, Tensor]:
        events.append(f"eager {kind}")
        return {}

    def recorded(self: object, kind: str) -> tuple[Graph, dict[str, Tensor]]:
        events.append(f"record {kind}")
        return Graph(kind), {}

    monkeypatch.setattr(RecordedStep, "_recorded", recorded)
    replayed = RecordedStep(step, record=True)
    for kind in "aaabaaabbb":
        replayed(kind)
    assert events == [
        *["eager a"] * 3, "eager b", "record a", *["replay a"] * 3,
        *["eager b"] * 2, "record b", "replay b",
    ]  # fmt: skip


def test_the_graph_of_the_warm_start_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last of its steps is done; the others stay."""
    kept: list[set[Kind]] = []

    def recorded(self: RecordedStep[Kind], kind: Kind) -> tuple[Any, dict[str, Tensor]]:
        return SimpleNamespace(replay=lambda: self.step(kind)), self.step(kind)

    class Watched(RecordedStep[Kind]):
        def __call__(self, kind: Kind) -> dict[str, Tensor]:
            kept.append(set(self.graphs))
            self.record = True  # as on CUDA
            return super().__call__(kind)

    monkeypatch.setattr(RecordedStep, "_recorded", recorded)
    monkeypatch.setattr("sincut.training.loop.RecordedStep", Watched)
    train(
        images(),
        config(warm_steps=EAGER_CALLS + 2, steps=EAGER_CALLS + 3, r1_every=1),
        lambda _: None,
    )
    warm, later = Kind(warm=True), Kind(with_r1=True)
    assert kept[EAGER_CALLS + 1] == {warm}
    assert kept[EAGER_CALLS + 2] == set()
    assert kept[-1] == {later}


def test_a_recording_that_fails_is_told_once_and_the_steps_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[RuntimeError] = []
    replayed = RecordedStep(
        lambda kind: {"kind": torch.ones(())}, record=True, on_failure=told.append
    )

    def failing(self: Any, kind: str) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(RecordedStep, "_recorded", failing)
    for _ in range(2 * EAGER_CALLS):
        assert replayed("a")["kind"].item() == 1
        assert replayed("b")["kind"].item() == 1
    assert [str(error).splitlines()[0] for error in told] == ["operation not permitted"]


def test_a_recording_that_fails_is_an_error_where_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C while it is recorded stays one, whatever the driver says of it."""

    def interrupted(self: Any, kind: str) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("capture was invalidated")

    def failing(self: Any, kind: str) -> None:
        raise RuntimeError("out of memory")

    for recorded, expected in ((failing, RuntimeError), (interrupted, KeyboardInterrupt)):
        monkeypatch.setattr(RecordedStep, "_recorded", recorded)
        replayed = RecordedStep(lambda kind: {}, record=True)
        for _ in range(EAGER_CALLS):
            replayed("a")
        with pytest.raises(expected):
            replayed("a")


@pytest.mark.gpu
def test_training_goes_on_where_a_step_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that waits for the GPU ends the recording; the networks are those of eager steps."""
    import sincut.training.step as module

    told: list[str] = []
    cut_tiles = module.cut_tiles
    results = []
    for waits in (False, True):

        def waiting(crops: Tensor, size: int, waits: bool = waits) -> Tensor:
            if waits:
                crops.sum().item()
            return cut_tiles(crops, size)

        monkeypatch.setattr(module, "cut_tiles", waiting)
        settings = config(device="cuda", steps=EAGER_CALLS + 4, r1_every=1, record_steps=waits)
        state = train(images(), settings, lambda record: None, None, told.append)
        results.append(torch.cat([p.flatten() for p in state.generator.parameters()]))
    assert len(told) == 1
    assert told[0].startswith("a step could not be recorded, so every kernel is issued by itself: ")
    assert torch.allclose(*results, atol=1e-3)
