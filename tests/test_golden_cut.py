"""The published code's numbers for CUT and FastCUT, computed once on small networks.

The file is not part of the repository; ``SINCUT_GOLDEN_CUT`` may name another of the same form.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from sincut import load_generator
from sincut.cli import main
from sincut.config.presets import folder_config
from sincut.config.training import FolderConfig
from sincut.data.random_numbers import POSITIONS, RandomNumbers
from sincut.data.training_data import Crops
from sincut.models.patchgan import PatchDiscriminator
from sincut.models.projector import PatchProjector
from sincut.models.published import generator_from_published, published_resnet_name
from sincut.models.resnet import ResnetGenerator
from sincut.training.state import State, new_optimizers
from sincut.training.step import (
    Kind,
    contrastive_terms,
    discriminator_terms,
    fooling_terms,
    seen_by_d,
    sincut_step,
    translated,
)

FILE = Path(
    os.environ.get("SINCUT_GOLDEN_CUT")
    or Path(__file__).parents[2] / "shared/golden/cut_reference_small.npz"
)
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"no golden numbers at {FILE}")

LAYERS = (0, 4, 8, 12, 16)
IN_D = {"first": 0, "second": 3, "third": 7, "fourth": 11, "logits": 14}


class Golden:
    """The numbers of one network and one method, in one precision."""

    def __init__(self, network: str, method: str, dtype: torch.dtype) -> None:
        self.method, self.dtype = method, dtype
        with np.load(FILE) as file:
            values = {k: torch.from_numpy(file[k]) for k in file.files}
        self.shared = {
            k.removeprefix(network): v.to(dtype) if v.is_floating_point() else v
            for k, v in values.items()
            if k.startswith("start.") == bool(network)
        }
        self.own = part(self.shared, f"{method}.")
        self.kind = Kind(mirrored=method == "fastcut")
        self.content, self.style = self.shared["content"], self.shared["style"]
        self.config = self._config()
        self.state = self._state()

    def _config(self) -> FolderConfig:
        mlp = self.shared["F.mlp_0.0.weight"]
        return folder_config(
            self.method,
            steps=100,
            batch=len(self.content),
            patches=len(self.own["patch_ids.X.0"]),
            projection_width=mlp.shape[0],
            device="cpu",
            precision="fp32",
        )

    def _state(self) -> State:
        generator = generator_from_published(part(self.shared, "G."))
        weights = part(self.shared, "D.")
        discriminator = PatchDiscriminator(weights["model.0.weight"].shape[0])
        discriminator.load_state_dict(
            {name: weights[name_in_d(name)] for name in discriminator.state_dict()}
        )
        heads = part(self.shared, "F.")
        sizes = [heads[f"mlp_{j}.0.weight"].shape for j in range(len(LAYERS))]
        projector = PatchProjector([size[1] for size in sizes], sizes[0][0])
        projector.load_state_dict({k.replace("mlp_", "heads."): v for k, v in heads.items()})
        for network in (generator, discriminator, projector):
            network.to(self.dtype)
        averages = (
            copy.deepcopy(generator).requires_grad_(False),
            copy.deepcopy(projector).requires_grad_(False),
        )
        state = State(generator, discriminator, projector, *averages, {}, 0)
        state.optimizers = new_optimizers(state, self.config)
        return state

    def draws(self, prefix: str = "") -> RandomNumbers:
        return Positions(part(self.own, prefix))


class Positions(RandomNumbers):
    """Draws the positions that the published code drew."""

    def __init__(self, ids: Mapping[str, Tensor]) -> None:
        super().__init__(0, torch.tensor(0))
        object.__setattr__(self, "ids", ids)

    def positions(self, count: int, among: int, stream: int, *, sets: int = 1) -> Tensor:
        ids: Mapping[str, Tensor] = vars(self)["ids"]
        of_layer = [ids.get(f"patch_ids.{side}.{stream - POSITIONS}") for side in "XY"]
        found = torch.stack([each.long() for each in of_layer if each is not None])
        assert found.shape[1] == min(count, among)
        return found if len(found) == sets else found.expand(sets, -1)


def part(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def name_in_d(name: str) -> str:
    layer, kind = name.split(".")
    return f"model.{IN_D[layer]}.{kind}"


@pytest.fixture(params=["", "start."], ids=["trained", "start"])
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["cut", "fastcut"])
def golden(request: pytest.FixtureRequest, network: str, dtype: torch.dtype) -> Golden:
    return Golden(network, str(request.param), dtype)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Largest difference relative to the largest expected value."""
    expected = expected.reshape(actual.shape).to(actual.dtype)
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert error <= tolerance, (what, error)


def test_golden_cut_features(golden: Golden) -> None:
    features = golden.state.generator.encode(golden.content, LAYERS)
    for layer, feature in zip(LAYERS, features, strict=True):
        assert_close(feature, golden.shared[f"feature.{layer}"], 1e-4, str(layer))


def test_golden_cut_outputs(golden: Golden) -> None:
    content = golden.content.flip(3) if golden.kind.mirrored else golden.content
    assert_close(golden.state.generator(content), golden.own["fake"], 1e-4)
    if golden.method == "cut":
        assert_close(golden.state.generator(golden.style), golden.own["identity"], 1e-4)


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    named = dict(network.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
    return dict(zip(named, found, strict=True))


def assert_idle(golden: Golden, prefix: str, compared: set[str]) -> None:
    """What the published networks have beyond ours: biases without influence."""
    others = set(part(golden.own, prefix)) - compared
    assert all(name.endswith(".bias") for name in others)
    for name in others:
        of_weight = golden.own[prefix + name.replace("bias", "weight")]
        assert golden.own[prefix + name].abs().max() <= 1e-3 * of_weight.abs().max()


def test_golden_cut_discriminator(golden: Golden) -> None:
    discriminator = golden.state.discriminator
    real, fake = (seen_by_d(discriminator, each) for each in (golden.style, golden.own["fake"]))
    real_logits, fake_logits = (discriminator(each) for each in (real, fake))
    assert_close(real_logits, golden.own["D.real_logits"], 1e-4)
    assert_close(fake_logits, golden.own["D.fake_logits"], 1e-4)
    assert_close((real_logits - 1).square().mean(), golden.own["loss.D_real"], 1e-4)
    assert_close(fake_logits.square().mean(), golden.own["loss.D_fake"], 1e-4)
    _, loss = discriminator_terms(discriminator, real, fake, golden.config, golden.kind)
    assert_close(loss, golden.own["loss.D"], 1e-4)
    found = gradients(discriminator, loss)
    for name, gradient in found.items():
        assert_close(gradient, golden.own[f"grad.D.{name_in_d(name)}"], 1e-3, name)
    assert_idle(golden, "grad.D.", {name_in_d(name) for name in found})


def test_golden_cut_generator(golden: Golden) -> None:
    state, config = golden.state, golden.config
    made = translated(state, golden.content, golden.style, config, golden.draws(), golden.kind)
    fooling = fooling_terms(state.discriminator, seen_by_d(state.discriminator, made.fake), config)
    nce = contrastive_terms(state, made, config, golden.draws(), golden.kind)
    assert_close(fooling.terms["G_gan"], golden.own["loss.G_GAN"], 1e-4)
    # Ours are unweighted.
    assert_close(config.lambda_x * nce.terms["NCE_x"], golden.own["loss.NCE_X"], 1e-4)
    if golden.method == "cut":
        assert_close(config.lambda_y * nce.terms["NCE_y"], golden.own["loss.NCE_Y"], 1e-4)
    loss = torch.stack([*fooling.weighted, *nce.weighted]).sum()
    assert_close(loss, golden.own["loss.G"], 1e-4)

    assert isinstance(state.generator, ResnetGenerator)
    of_g = gradients(state.generator, loss)
    names = {name: published_resnet_name(name, state.generator) for name in of_g}
    for name, gradient in of_g.items():
        assert_close(gradient, golden.own[f"grad.G.{names[name]}"], 1e-3, name)
    assert_idle(golden, "grad.G.", set(names.values()))
    for name, gradient in gradients(state.projector, loss).items():
        foreign = name.replace("heads.", "mlp_")
        assert_close(gradient, golden.own[f"grad.F.{foreign}"], 1e-3, name)


def test_golden_cut_cross_entropies(golden: Golden) -> None:
    """Layer by layer: the mean that a step takes would hide which one is wrong."""
    for side, term in (("X", "NCE_x"), ("Y", "NCE_y")):
        if f"cross_entropy.{side}" not in golden.own:
            continue
        for index, layer in enumerate(LAYERS):
            config = golden.config.replaced(layers=(layer,))
            state = copy.copy(golden.state)
            state.projector = PatchProjector([3], 1)
            state.projector.heads = nn.ModuleList([golden.state.projector.heads[index]])
            ids = {
                f"patch_ids.{each}.0": golden.own[f"patch_ids.{each}.{index}"]
                for each in "XY"
                if f"patch_ids.{each}.0" in golden.own
            }
            made = translated(
                state, golden.content, golden.style, config, golden.draws(), golden.kind
            )
            nce = contrastive_terms(state, made, config, Positions(ids), golden.kind)
            assert_close(nce.terms[term], golden.own[f"cross_entropy.{side}"][index], 1e-4)


def steps_of(golden: Golden) -> Iterator[tuple[int, Kind]]:
    mirrored: Any = golden.own.get("steps.mirrored")
    for step in range(len(golden.own["steps.losses"])):
        yield step, Kind(mirrored=mirrored is not None and bool(mirrored[step]))


def test_golden_cut_steps(golden: Golden) -> None:
    """The losses of whole steps, so order, updates and optimisers."""
    config = golden.config
    for step, kind in steps_of(golden):
        draws = golden.draws(f"steps.{step}.")
        terms = sincut_step(golden.state, Crops(golden.content, golden.style), config, draws, kind)
        expected = golden.own["steps.losses"][step]
        # D's two halves are told as their mean alone.
        ours = [terms["D"], terms["G_gan"], config.lambda_x * terms["NCE_x"], terms["G"]]
        if golden.method == "cut":
            ours.insert(3, config.lambda_y * terms["NCE_y"])
        tolerance = 1e-4 if step == 0 else 1e-3
        for mine, theirs in zip(ours, expected[2:], strict=True):
            assert abs(mine - theirs) <= tolerance * abs(theirs), (step, mine, theirs)


def test_golden_cut_gradient_in_any_layout(golden: Golden) -> None:
    """PyTorch's own instance norm is wrong for one image whose gradient lies channels last."""
    one, generator = golden.content[:1], golden.state.generator
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        feature = generator.encode(one, [12])[0]
        incoming = torch.linspace(-1, 1, feature.numel(), dtype=golden.dtype)
        incoming = incoming.reshape(feature.shape).contiguous(memory_format=layout)
        parameters = [p for name, p in generator.named_parameters() if name == "down1.weight"]
        found.append(torch.autograd.grad(feature, parameters, incoming))
    for one_way, other_way in zip(*found, strict=True):
        assert_close(one_way, other_way, 1e-4)


def test_golden_cut_import(golden: Golden, tmp_path: Path) -> None:
    """A published file, also one saved on a CPU, as a model file."""
    weights = {f"module.{k}": v.float() for k, v in part(golden.shared, "G.").items()}
    torch.save(weights, tmp_path / "latest_net_G.pth")
    target = tmp_path / "model.safetensors"
    result = CliRunner().invoke(
        main, ["import", str(tmp_path / "latest_net_G.pth"), "-o", str(target)]
    )
    assert result.exit_code == 0, result.output
    generator = golden.state.generator
    assert result.output == (
        f"{target}: resnet with {generator.channels} channels, {generator.blocks} blocks\n"
    )
    content = golden.content.flip(3) if golden.kind.mirrored else golden.content
    with torch.inference_mode():
        assert_close(load_generator(target)(content.float()), golden.own["fake"], 1e-4)
