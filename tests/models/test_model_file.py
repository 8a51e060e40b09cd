"""Model files say how their generator is built; those of version 0.1 are read as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sincut.errors import SincutError
from sincut.models.architectures import ARCHITECTURES, described_generator, description
from sincut.models.model_file import load_model, load_tensors, save_model
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
