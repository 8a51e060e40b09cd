"""Files of a run with bytes changed, cut off or put in: read right, or refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sincut
from sincut.config.training import training_config
from sincut.errors import SincutError
from sincut.models.model_file import fitting, load_tensors, save_tensors
from sincut.runs.folder import read_run
from sincut.runs.live_page import LiveView
from sincut.training.state import restored_state
from tests.conftest import TINY

often = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
damages = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 2), st.integers(0, 255)), min_size=1, max_size=5
)


def damaged(data: bytes, damage: list[tuple[int, int, int]]) -> bytes:
    """Bytes replaced, put in, or all that follows cut off."""
    for place, kind, value in damage:
        at = place % (len(data) + 1)
        rest = (data[at + 1 :], data[at:], b"")[kind]
        data = data[:at] + bytes([value]) + rest
    return data


def refusal(folder: Path) -> str | None:
    """The line that reading a run is refused with, if it is."""
    try:
        read_run(folder)
    except SincutError as error:
        return str(error)
    return None


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@given(damage=damages)
@often
def test_the_configuration(copy: Path, tiny_run: Path, damage: list[tuple[int, int, int]]) -> None:
    whole = (tiny_run / "config.json").read_bytes()
    (copy / "config.json").write_bytes(damaged(whole, damage))
    said = refusal(copy)
    if said is None:
        assert read_run(copy).config.steps > 0
    else:
        assert "\n" not in said
        assert str(copy) in said


@given(damage=damages)
@often
def test_the_log(copy: Path, tiny_run: Path, damage: list[tuple[int, int, int]]) -> None:
    whole = (tiny_run / "log.jsonl").read_bytes()
    (copy / "log.jsonl").write_bytes(damaged(whole, damage))
    record = read_run(copy)
    lines = whole.count(b"\n")
    assert len(record.log) <= lines + len(damage)
    assert len(record.log) >= lines - 2 * len(damage) or any(kind == 2 for _, kind, _ in damage)
    # What is drawn and summed of them:
    assert record.seconds >= 0 or record.log
    record.series("losses")
    LiveView(record, record.step, None)


@given(
    places=st.lists(st.integers(0, 2**31), min_size=1, max_size=3),
    values=st.lists(
        st.one_of(st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers()),
                  st.floats(), st.dictionaries(st.text(max_size=3), st.integers())),
        min_size=3, max_size=3,
    ),
)  # fmt: skip
@often
def test_other_values_in_the_configuration(
    copy: Path, tiny_run: Path, places: list[int], values: list[Any]
) -> None:
    """Whole JSON, with any values in any places."""
    record = json.loads((tiny_run / "config.json").read_bytes())
    for place, value in zip(places, values, strict=False):
        inside: Any = record
        while isinstance(inside, (dict, list)) and inside:
            key = sorted(inside)[place % len(inside)] if isinstance(inside, dict) else 0
            if not isinstance(inside[key], (dict, list)) or place % 5 == 0:
                inside[key] = value
                break
            inside = inside[key]
    (copy / "config.json").write_text(json.dumps(record))
    assert "\n" not in (refusal(copy) or "")


def test_a_state_of_other_shapes_is_refused(copy: Path, pair: tuple[Path, Path]) -> None:
    path = copy / "state.safetensors"
    tensors, header = load_tensors(path, "sincut-state")
    moments = next(name for name in sorted(tensors) if ".exp_avg." in name)
    weight = next(name for name in sorted(tensors) if name.startswith("discriminator."))
    config = training_config(header["config"])
    for name, changed, text in (
        # One row of moments would be repeated for all.
        (moments, tensors[moments][:1], "its moments of "),
        (weight, tensors[weight][:1], "its discriminator has another "),
        (weight, None, "its discriminator has another "),
    ):
        others = {key: value for key, value in tensors.items() if key != name}
        if changed is not None:
            others[name] = changed
        save_tensors(path, "sincut-state", others, header)
        with pytest.raises(SincutError) as error:
            sincut.train(*pair, copy, resume=True, steps=100)
        assert str(error.value).startswith(f"{path}: {text}")
        with pytest.raises(SincutError), fitting(path, header):
            restored_state(others, header["step"], config)


@given(damage=damages, far=st.integers(0, 2**22))
@often
def test_the_state(
    copy: Path, tiny_run: Path, damage: list[tuple[int, int, int]], far: int
) -> None:
    """Damage in its header, and anywhere behind that."""
    path = copy / "state.safetensors"
    whole = (tiny_run / path.name).read_bytes()
    expected, _ = load_tensors(tiny_run / path.name, "sincut-state")
    for places in (damage, [(place + far, kind, value) for place, kind, value in damage]):
        path.write_bytes(damaged(whole, places))
        said = ""
        try:
            tensors, header = load_tensors(path, "sincut-state")
            with fitting(path, header):
                state = restored_state(tensors, header["step"], training_config(header["config"]))
        except SincutError as error:
            said = str(error)
        if said:
            assert said.startswith(str(path))
            assert "\n" not in said
        else:
            assert tensors.keys() == expected.keys()
            assert all(torch.equal(value, expected[name]) for name, value in tensors.items())
            assert state.step == TINY["steps"]
