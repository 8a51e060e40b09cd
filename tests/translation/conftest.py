"""What the tests of translation share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sincut.models.model_file import save_model
from sincut.models.resnet import ResnetGenerator
from sincut.models.stylegan2 import StyleGAN2Generator


@pytest.fixture(scope="session")
def noisy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random generator whose noise counts."""
    torch.manual_seed(3)
    generator = StyleGAN2Generator(4).eval().requires_grad_(False)
    for layer in generator.upsampling:
        torch.nn.init.constant_(layer.noise_weight, 0.3)
    path = tmp_path_factory.mktemp("models") / "noisy.safetensors"
    save_model(path, generator, None, {"config": {"channels": 4}, "step": 0})
    return path


@pytest.fixture(scope="session")
def normalising_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ResNet, whose norms are of the whole image and count."""
    torch.manual_seed(1)
    generator = ResnetGenerator(4, 3).eval().requires_grad_(False)
    for parameter in generator.parameters():
        if parameter.ndim == 4:
            torch.nn.init.xavier_normal_(parameter, gain=0.7)
    path = tmp_path_factory.mktemp("models") / "normalising.safetensors"
    save_model(path, generator, None, {"config": {"channels": 4, "blocks": 3}, "step": 0})
    return path
