"""Model files say how their generator is built; those of version 0.1 are read as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sincut
from sincut.compute.memory import peak_memory
from sincut.errors import SincutError
from sincut.models.architectures import ARCHITECTURES, described_generator, description
from sincut.models.model_file import load_model, load_tensors, save_model, save_tensors
from sincut.models.stylegan2 import ColourCorrectingGenerator, StyleGAN2Generator

REFERENCE = Path(__file__).parents[1] / "reference"


def test_a_file_of_version_0_1_is_the_same_network() -> None:
    """Written by that version, with what its generator makes of a ramp."""
    model = load_model(REFERENCE / "model-0.1.safetensors")
    assert isinstance(model.generator, ColourCorrectingGenerator)
    assert model.projector is not None
    ramp = torch.linspace(-1, 1, 2 * 3 * 8 * 10).reshape(2, 3, 8, 10)
    expected = np.load(REFERENCE / "model-0.1-output.npy")
    np.testing.assert_allclose(model.generator(ramp).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_file_names_its_architecture(name: str, tmp_path: Path) -> None:
    more = {"blur_down": False, "blur_up": True} if name == "resnet" else {"downsamplings": 2}
    generator = ARCHITECTURES[name](4, blocks=2, **more)
    save_model(tmp_path / "model.safetensors", generator, None, {"config": {}})
    header = load_tensors(tmp_path / "model.safetensors", "sincut-model")[1]
    assert header["generator"] == {
        "architecture": name,
        "arguments": {"channels": 4, "blocks": 2, **more},
    }
    again = load_model(tmp_path / "model.safetensors").generator
    assert type(again) is type(generator)
    for mine, theirs in zip(generator.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_unknown_architecture_is_refused() -> None:
    values = json.loads(json.dumps(description(StyleGAN2Generator(4))))
    with pytest.raises(SincutError) as error:
        described_generator({**values, "architecture": "transformer"})
    assert str(error.value) == (
        "the model's architecture must be one of stylegan2, stylegan2-correcting, resnet, got "
        "transformer; try a newer version of sincut"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"architecture": "stylegan2", "arguments": {"channels": 4, "depth": 2}},
            "the model's stylegan2 has arguments that this version does not know: channels, depth; "
            "try a newer version of sincut",
        ),
        (
            {"channels": 4, "blocks": 2},
            "the model file does not say how its generator is built, got channels, blocks; try a "
            "newer version of sincut",
        ),
    ],
)
def test_a_header_that_does_not_fit_is_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(SincutError) as error:
        described_generator(values)
    assert str(error.value) == expected


def changed(path: Path, kind: str = "sincut-model", **header: Any) -> None:
    """Write a file anew with another header, and the digest that belongs to it."""
    tensors, before = load_tensors(path, kind)
    save_tensors(path, kind, tensors, {**before, **header})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, StyleGAN2Generator(4, blocks=2), None, {"config": {}})
    return path


def problem(path: Path) -> str:
    with pytest.raises(SincutError) as error:
        load_model(path)
    return str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1j])
def test_numbers_that_translate_to_black_are_refused(file: Path, value: Any) -> None:
    tensors, header = load_tensors(file, "sincut-model")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] * value
    save_tensors(file, "sincut-model", tensors, header)
    assert problem(file) == (
        f"{file} holds numbers that are not finite, or complex, in {name}; take an earlier copy of "
        "it, or train anew"
    )


def test_a_header_that_asks_for_gigabytes_takes_none(file: Path) -> None:
    arguments = {"channels": 1024, "blocks": 64, "downsamplings": 5}
    changed(file, generator={"architecture": "stylegan2", "arguments": arguments})
    before = peak_memory("cpu")
    assert "its generator has another" in problem(file)
    assert peak_memory("cpu") - before < 200_000_000
    for value in (10**9, -1, 2.5, "4", None):
        changed(file, generator={"architecture": "stylegan2", "arguments": {"channels": value}})
        assert problem(file) == (
            f"{file}: the model's stylegan2 must have arguments from 0 to 1024, got "
            f"channels={value}; try a newer version of sincut"
        )


def test_values_of_another_shape_are_refused(file: Path) -> None:
    changed(
        file,
        generator=description(StyleGAN2Generator(8, blocks=2)),
    )
    assert problem(file) == (
        f"{file}: its generator has another decoder.0.conv1.bias than its header says: must be 16, "
        "got 8; take another copy of it, or train anew"
    )


@pytest.mark.parametrize("generator", [None, 3, [], {"architecture": []}, {}, "stylegan2"])
def test_any_header_becomes_a_line(file: Path, generator: Any) -> None:
    changed(file, generator=generator)
    assert "\n" not in problem(file)
    tensors, header = load_tensors(file, "sincut-model")
    del header["generator"]
    save_tensors(file, "sincut-model", tensors, header)
    assert problem(file) == (
        f"{file} does not hold what its header says: it lacks what is needed; take another copy of "
        "it, or train anew"
    )


def test_a_newer_versions_file_says_so(file: Path) -> None:
    changed(file, sincut_version="9.9", generator={"architecture": "dream", "arguments": {}})
    assert problem(file) == (
        f"{file} was written by sincut 9.9, and this is {sincut.__version__} (the model's "
        "architecture must be one of stylegan2, stylegan2-correcting, resnet, got dream; try a "
        "newer version of sincut); try a newer version"
    )


def test_brushwork_that_does_not_fit_is_refused(file: Path) -> None:
    tensors, header = load_tensors(file, "sincut-model")
    tensors |= {"brushwork.style": torch.zeros(32, 32, 3, dtype=torch.uint8)}
    for units in (torch.ones(3), torch.ones(25)):
        save_tensors(file, "sincut-model", {**tensors, "brushwork.units": units}, header)
        if len(units) == 25:
            assert load_model(file).generator.brushwork is not None
        else:
            assert "does not hold what its header says" in problem(file)


@given(
    places=st.lists(st.integers(0, 2**20), min_size=1, max_size=4),
    values=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    cut=st.booleans(),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_bytes_are_refused_in_one_line(
    file: Path, places: list[int], values: list[int], cut: bool
) -> None:
    """The digest tells; whatever the library that reads the file thinks of it."""
    whole = file.read_bytes()
    data = bytearray(whole)
    for place, value in zip(places, values, strict=False):
        data[place % len(data)] = value
    if cut:
        data = data[: places[0] % len(data)]
    damaged = file.with_name("damaged.safetensors")
    damaged.write_bytes(data)
    if bytes(data) == whole:
        load_model(damaged)
    else:
        assert "\n" not in problem(damaged)
