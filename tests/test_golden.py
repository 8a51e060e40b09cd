"""The published code's numbers, computed once on small random networks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sincut import load_generator, translate
from sincut.images.reading.pillow import decode_picture
from sincut.images.writing.png import write_png
from sincut.models.discriminator import Discriminator
from sincut.models.generator import Generator
from sincut.models.model_file import save_model
from sincut.models.projector import PatchProjector
from sincut.models.published import generator_from_published, published_name
from sincut.models.stylegan2_discriminator import TileDiscriminator
from sincut.training import losses

FILE = Path(
    os.environ.get("SINCUT_GOLDEN")
    or Path(__file__).parent / "reference/sincut_reference_small.npz"
)
LAYERS = (0, 2, 4)
TEMPERATURE = 0.07


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(FILE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def part(golden: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


@pytest.fixture
def generator(golden: dict[str, Tensor]) -> Generator:
    return generator_from_published(part(golden, "G."))


@pytest.fixture
def discriminator(golden: dict[str, Tensor]) -> Discriminator:
    weights = part(golden, "D.")
    channels = [weights["convs.0.0.weight"].shape[0]]
    discriminator = TileDiscriminator(channels[0], golden["content"].shape[-1])
    own = discriminator.state_dict()
    discriminator.load_state_dict(
        {name: weights[name_in_d(name)].reshape(own[name].shape) for name in own}
    )
    return discriminator


@pytest.fixture
def projector(golden: dict[str, Tensor]) -> PatchProjector:
    weights = part(golden, "F.")
    sizes = [weights[f"mlp_{j}.0.weight"].shape for j in range(len(LAYERS))]
    projector = PatchProjector([shape[1] for shape in sizes], sizes[0][0])
    projector.load_state_dict({k.replace("mlp_", "heads."): v for k, v in weights.items()})
    return projector


def name_in_d(name: str) -> str:
    """The published name of a parameter of our discriminator."""
    kind = {"weight": 0, "bias": 1}
    part, last = name.rsplit(".", 1)
    if part in ("hidden", "logit"):
        return f"final_linear.{int(part == 'logit')}.{last}"
    if part == "conv":
        return f"final_conv.{kind[last]}.{last}"
    if part == "from_rgb":
        return f"convs.0.{kind[last]}.{last}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\w+)", part)
    assert match is not None
    shift = 0 if match[2] == "conv1" else 1  # behind the blur
    return f"convs.{int(match[1]) + 1}.{match[2]}.{kind[last] + shift}.{last}"


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Largest difference relative to the largest expected value."""
    expected = expected.reshape(actual.shape).to(actual.dtype)
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def test_golden_features(golden: dict[str, Tensor], generator: Generator) -> None:
    features = generator.encode(golden["content"], LAYERS)
    assert len(features) == len(LAYERS)
    for layer, feature in zip(LAYERS, features, strict=True):
        assert_close(feature, golden[f"feature.{layer}"], 1e-4)


@pytest.mark.parametrize(("given", "made"), [("content", "fake"), ("style", "identity")])
def test_golden_outputs(
    golden: dict[str, Tensor], generator: Generator, given: str, made: str
) -> None:
    assert_close(generator(golden[given]), golden[made], 1e-4)


def test_golden_discriminator_loss_and_gradients(
    golden: dict[str, Tensor], discriminator: Discriminator
) -> None:
    real = golden["style"].clone().requires_grad_()
    real_logits, fake_logits = discriminator(real), discriminator(golden["fake"])
    assert_close(real_logits, golden["D.real_logits"], 1e-4)
    assert_close(fake_logits, golden["D.fake_logits"], 1e-4)

    r1 = losses.r1_penalty(real_logits, real)
    assert_close(r1, golden["loss.R1"], 1e-4)
    loss = losses.adversarial_discriminator(real_logits, fake_logits) + r1
    assert_close(loss, golden["loss.D"], 1e-4)

    parameters = dict(discriminator.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        assert_close(gradient, golden[f"grad.D.{name_in_d(name)}"], 1e-3)


def test_golden_r1_gradients_on_their_own(
    golden: dict[str, Tensor], discriminator: Discriminator
) -> None:
    real = golden["style"].clone().requires_grad_()
    penalty = losses.r1_penalty(discriminator(real), real)
    parameters = dict(discriminator.named_parameters())
    gradients = torch.autograd.grad(penalty, list(parameters.values()), allow_unused=True)
    compared = 0
    for name, gradient in zip(parameters, gradients, strict=True):
        expected = golden.get(f"grad.R1.{name_in_d(name)}")
        if expected is None:  # the last bias: D's gradient does not depend on it
            assert gradient is None
            continue
        assert gradient is not None
        assert_close(gradient, expected, 1e-3)
        compared += 1
    assert compared == len(part(golden, "grad.R1."))


def test_golden_generator_loss_and_gradients(
    golden: dict[str, Tensor],
    generator: Generator,
    discriminator: Discriminator,
    projector: PatchProjector,
) -> None:
    content, style = golden["content"], golden["style"]
    outputs, features = generator.generate(torch.cat([content, style]), None, LAYERS)
    fake, identity = outputs.chunk(2)
    queries = generator.encode(outputs, LAYERS)
    nce = {}
    for index, side in enumerate("XY"):
        positions = [golden[f"patch_ids.{side}.{j}"][None] for j in range(len(LAYERS))]
        query_rows = projector([feature.chunk(2)[index] for feature in queries], positions)
        key_rows = projector([feature.chunk(2)[index] for feature in features], positions)
        nce[side] = 4 * losses.contrastive(query_rows, key_rows, temperature=TEMPERATURE, groups=1)
        assert_close(nce[side], golden[f"loss.NCE_{side}"], 1e-4)
    adversarial = losses.adversarial_generator(discriminator(fake))
    assert_close(adversarial, golden["loss.G_GAN"], 1e-4)
    pixel = losses.pixel_identity(identity, style)
    assert_close(pixel, golden["loss.identity"], 1e-4)
    loss = adversarial + (nce["X"] + nce["Y"]) / 2 + pixel
    assert_close(loss, golden["loss.G"], 1e-4)

    loss.backward()
    compared = 0
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_weight"):
            continue
        assert parameter.grad is not None
        half = generator.blocks // 2
        foreign = published_name(name, half, generator.downsamplings)
        assert_close(parameter.grad, golden[f"grad.G.{foreign}"], 1e-3)
        compared += 1
    assert compared == len(part(golden, "grad.G."))
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad, golden[f"grad.F.{name.replace('heads.', 'mlp_')}"], 1e-3)


def test_golden_import_and_translate(golden: dict[str, Tensor], tmp_path: Path) -> None:
    """A published generator as a file: the same image through --border zero and in Python."""
    save_model(
        tmp_path / "model.safetensors", generator_from_published(part(golden, "G.")), None, {}
    )
    loaded = load_generator(tmp_path / "model.safetensors")
    with torch.inference_mode():
        assert_close(loaded(golden["content"]), golden["fake"], 1e-4)

    # Through files the content is rounded to 8 bits, so both sides start from the rounded one.
    pixels = ((golden["content"][0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).round()
    write_png(tmp_path / "content.png", pixels.byte().numpy())
    rounded = (pixels / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = ((loaded(rounded)[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255)
    for tile in ("whole", "32"):
        translate(
            tmp_path / "model.safetensors",
            tmp_path / "content.png",
            tmp_path / "out.png",
            border="zero",
            tile=tile,
            force=True,
        )
        got = decode_picture(tmp_path / "out.png").rgb.astype(float)
        assert np.abs(got - expected.numpy()).max() <= 0.5 + 1e-2
