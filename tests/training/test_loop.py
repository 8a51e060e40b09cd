"""The step against its literal version, methods, schedule, average, warm start, seeds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.compute.devices import convolutions
from sincut.compute.precision import resolved
from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.pair import Pair
from sincut.data.random_numbers import NOISE, POSITIONS, STROKES, RandomNumbers
from sincut.data.training_data import Crops
from sincut.errors import SincutError
from sincut.training import losses
from sincut.training.loop import Record, train
from sincut.training.schedule import average_weight, rate_factor
from sincut.training.state import State, initial_state, new_state
from sincut.training.step import (
    Kind,
    cut_tiles,
    half_painted,
    kind_of,
    sincut_step,
    warm_step,
)
from tests.conftest import TINY, on_the_kernels_device


def config(method: str = "sincut", **changes: Any) -> PairConfig:
    values = {k: v for k, v in TINY.items() if k != "preset"}
    return train_config("draft", method, **{**values, "warm_steps": 0, **changes})


def batch(config: PairConfig, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shape = (2, config.batch, 3, config.crop, config.crop)
    x, y = torch.rand(shape, generator=random) * 2 - 1
    return x, y


def draws(seed: int, step: int = 0, device: str = "cpu") -> RandomNumbers:
    return RandomNumbers(seed, torch.tensor(step, device=device))


def literal_step(
    state: State, x: Tensor, y: Tensor, config: PairConfig, draws: RandomNumbers, kind: Kind
) -> dict[str, Tensor]:
    """The step as the published code has it: every feature encoded on its own, whole encoder."""
    g, d, h = state.generator, state.discriminator, state.projector
    every_layer = range(len(g.encoder) + 1)

    def features(image: Tensor) -> list[Tensor]:
        return [f for n, f in enumerate(g.encode(image, every_layer)) if n in config.layers]

    mirrored = kind.mirrored
    identity = config.lambda_y > 0 or config.lambda_identity > 0
    inputs = torch.cat([x, y]) if identity else x
    noise = [
        draws.normal(shape, NOISE + level) for level, shape in enumerate(g.noise_shapes(inputs))
    ]
    outputs = g(inputs.flip(3) if mirrored else inputs, noise)
    fake, same = outputs[: len(x)], outputs[len(x) :]

    real = cut_tiles(y, config.tile).requires_grad_()
    terms = {}
    real_logits = d(real)
    loss_d = F.softplus(d(cut_tiles(fake.detach(), config.tile))).mean() / 2
    loss_d = loss_d + F.softplus(-real_logits).mean() / 2
    if config.lambda_r1 > 0 and state.step % config.r1_every == 0:
        assert kind.with_r1
        penalty = losses.r1_penalty(real_logits, real)
        loss_d = loss_d + config.r1_every * config.lambda_r1 * penalty
    state.optimizers["discriminator"].zero_grad()
    loss_d.backward()
    state.optimizers["discriminator"].step()
    d_gradients = [p.grad.clone() for p in d.parameters() if p.grad is not None]

    loss_g = config.lambda_gan * F.softplus(-d(cut_tiles(fake, config.tile))).mean()
    nce = []
    pairs = ((config.lambda_x, x, fake), (config.lambda_y, y, same))
    for batch_number, (weight, source, target) in enumerate(pairs):
        if weight == 0:
            continue
        queries, keys = features(target), features(source)
        if mirrored:
            queries = [each.flip(3) for each in queries]
        total = torch.zeros(())
        positions = [
            draws.positions(config.patches, key[0, 0].numel(), POSITIONS + n, sets=2)[batch_number]
            for n, key in enumerate(keys)
        ]
        rows_q, rows_k = (h(each, [where[None] for where in positions]) for each in (queries, keys))
        for q, k in zip(rows_q, rows_k, strict=True):
            q, k = F.normalize(q), F.normalize(k).detach()
            if config.negatives == "crop":
                q, k = (each.unflatten(0, (config.batch, -1)) for each in (q, k))
            else:
                q, k = q[None], k[None]
            logits = (q @ k.mT / config.temperature).flatten(0, 1)
            labels = torch.arange(k.shape[1]).repeat(k.shape[0])
            total = total + F.cross_entropy(logits, labels)
        nce.append(weight * total / len(config.layers))
    if nce:
        loss_g = loss_g + sum(nce) / len(nce)
    if config.lambda_identity > 0:
        loss_g = (
            loss_g + config.lambda_identity * (same - (y.flip(3) if mirrored else y)).abs().mean()
        )
    for name in ("generator", "projector"):
        state.optimizers[name].zero_grad()
    loss_g.backward()
    terms |= {"D": loss_d.detach(), "G": loss_g.detach()}
    for parameter, gradient in zip(d.parameters(), d_gradients, strict=True):
        parameter.grad = gradient
    return terms


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"negatives": "crop", "temperature": 0.3},
        {"method": "cut"},
        {"method": "fastcut"},
        {"method": "fastcut", "lambda_y": 3.0, "lambda_identity": 1.0},
        {"lambda_x": 0.0},
        {"lambda_y": 0.0},
        {"layers": (2, 3)},
        {"tile": 32, "r1_every": 1},
        {"patches": 4000, "lambda_r1": 3.0},
        {"lambda_gan": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 2])  # FastCUT mirrors with one of them and not the other
def test_step_equals_the_literal_version(settings: dict[str, Any], seed: int) -> None:
    cfg = config(**settings, seed=seed)
    x, y = batch(cfg)
    ours = initial_state(cfg)
    for layer in ours.generator.upsampling:
        torch.nn.init.constant_(layer.noise_weight, 0.2)
    theirs = copy.deepcopy(ours)
    theirs.optimizers = {
        name: torch.optim.Adam(theirs.networks()[name].parameters(), lr=cfg.learning_rate,
                               betas=(cfg.beta1, cfg.beta2), fused=True)
        for name in ours.optimizers
    }  # fmt: skip
    kind = kind_of(0, cfg)
    terms = sincut_step(ours, Crops(x, y), cfg, draws(seed), kind)
    expected = literal_step(theirs, x, y, cfg, draws(seed), kind)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)
    for network in ("generator", "discriminator", "projector"):
        pairs = zip(
            ours.networks()[network].named_parameters(),
            theirs.networks()[network].parameters(),
            strict=True,
        )
        for (name, a), b in pairs:
            assert (a.grad is None) == (b.grad is None), name
            if a.grad is not None and b.grad is not None:
                assert (a.grad - b.grad).abs().max() <= 1e-4 * b.grad.abs().max() + 1e-7, name


def test_both_seeds_of_fastcut_were_different() -> None:
    assert {kind_of(0, config("fastcut", seed=seed)).mirrored for seed in (0, 2)} == {True, False}
    mirrored = [kind_of(step, config("fastcut")).mirrored for step in range(400)]
    assert abs(np.mean(mirrored) - 0.5) < 0.1
    assert not any(kind_of(step, config()).mirrored for step in range(20))


def test_keys_are_not_encoded_again() -> None:
    """One encoding of the inputs inside G, one of the outputs; a third only where mirrored."""
    for method, mirrored, expected in (
        ("sincut", False, 2),
        ("fastcut", False, 2),
        ("fastcut", True, 3),
    ):
        cfg = config(method)
        state = initial_state(cfg)
        calls: list[int] = []
        state.generator.encoder[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        sincut_step(state, Crops(*batch(cfg)), cfg, draws(0), Kind(mirrored=mirrored))
        assert len(calls) == expected


def test_terms_that_are_off_are_not_computed() -> None:
    cfg = config(lambda_gan=0.0, lambda_y=0.0, lambda_identity=0.0, lambda_r1=0.0)
    terms = sincut_step(initial_state(cfg), Crops(*batch(cfg)), cfg, draws(0), kind_of(0, cfg))
    assert set(terms) == {"D_gan", "NCE_x", "D", "G"}
    assert terms["G"].item() == pytest.approx(cfg.lambda_x * terms["NCE_x"].item(), rel=1e-6)


def test_lazy_r1_weighs_as_much_as_it_is_rare() -> None:
    cfg = config(r1_every=4, lambda_r1=2.0)
    state = initial_state(cfg)
    seen = []
    for step in range(5):
        terms = sincut_step(state, Crops(*batch(cfg)), cfg, draws(0, step), kind_of(step, cfg))
        seen.append("R1" in terms)
        if "R1" in terms:
            expected = terms["D_gan"] + 8 * terms["R1"]
            assert terms["D"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert seen == [True, False, False, False, True]


def test_tiles_of_a_crop() -> None:
    crops = torch.arange(2 * 3 * 8 * 12).reshape(2, 3, 8, 12).float()
    tiles = cut_tiles(crops, 4)
    assert tiles.shape == (12, 3, 4, 4)
    assert torch.equal(tiles[4], crops[0, :, 4:8, 4:8])
    assert torch.equal(tiles[6], crops[1, :, 0:4, 0:4])


def test_staircase_is_the_published_schedule() -> None:
    cfg = train_config("paper")
    per_epoch = cfg.steps // 16
    rates = [rate_factor(epoch * per_epoch, cfg) for epoch in range(16)]
    assert rates[:8] == [1.0] * 8
    assert rates[8:] == pytest.approx([1 - k / 9 for k in range(1, 9)])
    assert rate_factor(cfg.steps - 1, cfg) == pytest.approx(1 / 9)


def test_other_schedules() -> None:
    linear = config(schedule="linear", steps=100)
    assert [rate_factor(s, linear) for s in (-5, 0, 50, 75, 99)] == pytest.approx(
        [1, 1, 1, 0.5, 0.02]
    )
    assert rate_factor(99, config(schedule="constant", steps=100)) == 1


def test_average_has_its_half_life() -> None:
    value = 1.0
    for step in range(1000, 1100):
        value *= 1 - average_weight(step, half_life=100)
    assert value == pytest.approx(0.5, rel=1e-6)
    assert average_weight(10, half_life=0) == 1  # off: the newest weights
    assert average_weight(0, half_life=100) == 1  # the warm start leaves nothing behind
    assert average_weight(2, half_life=100) == pytest.approx(0.5)


def images() -> Pair:
    random = np.random.default_rng(0)
    content = random.integers(0, 120, (60, 70, 3), dtype=np.uint8)
    return Pair(content, random.integers(100, 256, (64, 50, 3), dtype=np.uint8))


def test_warm_start_moves_towards_the_colours_of_the_style() -> None:
    warmed: list[float] = []

    def on_step(record: Record) -> bool:
        if record.step <= 0:
            warmed.append(record.values()["warm"])
        return record.step == 0

    train(images(), config(warm_steps=60), on_step)
    assert len(warmed) == 60
    assert np.mean(warmed[-5:]) < 0.7 * np.mean(warmed[:5])


def test_training_is_reproducible_and_depends_on_the_seed() -> None:
    states = [
        train(images(), config(seed=seed, warm_steps=1), lambda _: None) for seed in (5, 5, 6)
    ]
    weights = [
        torch.cat([p.flatten() for p in state.averaged_generator.parameters()]) for state in states
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_bf16_training_is_reproducible_too() -> None:
    states = [train(images(), config(precision="bf16", steps=2), lambda _: None) for _ in range(2)]
    for a, b in zip(
        states[0].generator.parameters(), states[1].generator.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_on_step_can_stop_the_loop() -> None:
    state = train(images(), config(steps=100), lambda record: record.step == 3)
    assert state.step == 3


def test_resolved_names_device_and_precision() -> None:
    cfg = resolved(train_config("paper", device="cpu"))
    assert cfg.device == "cpu"
    assert cfg.precision in ("fp32", "bf16")
    assert resolved(train_config("paper", device="cpu", precision="bf16")).precision == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent() -> None:
    with pytest.raises(SincutError) as caught:
        resolved(train_config("paper", device="cuda"))
    assert str(caught.value) == (
        "--device cuda needs an NVIDIA GPU and a CUDA build of PyTorch, and none was found; "
        "try --device cpu"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_cuda_has_the_losses_of_the_cpu(precision: str) -> None:
    results = []
    for device, kind in (("cpu", "fp32"), ("cuda", precision)):
        cfg = config(device=device, precision=kind)
        x, y = (each.to(device) for each in batch(cfg))
        state = initial_state(cfg)
        with convolutions(kind):
            terms = sincut_step(state, Crops(x, y), cfg, draws(0, device=device), kind_of(0, cfg))
        results.append({name: value.item() for name, value in terms.items()})
    for name, value in results[0].items():
        tolerance = 1e-4 if precision == "fp32" else 5e-2
        assert results[1][name] == pytest.approx(value, rel=tolerance, abs=tolerance)


@on_the_kernels_device
def test_training_with_the_kernels_follows_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same losses with the fused kernels as with eager PatchNCE, from the same seeds."""
    pytest.importorskip("triton")
    from sincut.kernels import patch_nce as module

    device = "cuda" if torch.cuda.is_available() else "cpu"
    few = {"layers": (2,), "patches": 4, "lambda_y": 0.0, "correction": False}  # takes its time
    cfg = config(device=device, steps=100, **few)
    curves = []
    for function in (module.patch_nce_reference, module.patch_nce_triton):
        monkeypatch.setattr(module, "patch_nce", function)
        curve: list[float] = []
        train(images(), cfg, lambda r, curve=curve: curve.append(r.values()["NCE_x"]))
        curves.append(np.array(curve))
    eager, fused = curves
    assert not np.array_equal(eager, fused)  # both really ran
    assert np.abs(fused[:20] / eager[:20] - 1).max() <= 1e-3
    assert abs(fused[80:].mean() / eager[80:].mean() - 1) <= 0.02


def test_networks_that_correct_start_from_the_transfer_of_colours() -> None:
    content, style = images()
    state = new_state(Pair(content, style), config(correction=True))
    matrix = state.generator.colours[:, :, 0, 0].detach().double().numpy()
    moved = (
        content.reshape(-1, 3) / 127.5 - 1
    ) @ matrix.T + state.generator.offset.detach().numpy()
    target = style.reshape(-1, 3) / 127.5 - 1
    assert np.allclose(moved.mean(axis=0), target.mean(axis=0), atol=1e-4)
    assert np.allclose(np.cov(moved.T), np.cov(target.T), rtol=0.05, atol=1e-3)
    assert torch.equal(state.averaged_generator.colours, state.generator.colours)


def test_after_a_step_that_failed_on_its_way_d_learns_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a step is being recorded, and goes on unrecorded."""
    settings = config(r1_every=1)
    state = new_state(images(), settings)
    x, y = batch(settings)
    before = [p.clone() for p in state.discriminator.parameters()]

    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("memory ended")

    with monkeypatch.context() as patched:
        patched.setattr(losses, "adversarial_generator", broken)
        with pytest.raises(RuntimeError, match="memory ended"):
            sincut_step(state, Crops(x, y), settings, draws(0), Kind(with_r1=True))
    assert all(p.requires_grad for p in state.discriminator.parameters())
    sincut_step(state, Crops(x, y), settings, draws(0), Kind(with_r1=True))
    moved = zip(before, state.discriminator.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)


# --- A painting to learn from --------------------------------------------------------------------


def test_terms_of_a_painting() -> None:
    cfg = config(lambda_painting=2.0, lambda_strokes=3.0, lambda_identity=0.0, noise=False)
    (x, y), (painting, _) = batch(cfg), batch(cfg, 1)
    state = initial_state(cfg)
    fake = state.generator.generate(x)[0].detach()
    found = sincut_step(state, Crops(x, y, painting), cfg, draws(0), Kind())
    assert found["painting"].item() == pytest.approx(
        (fake - painting).abs().mean().item(), rel=1e-5
    )
    directions = [draws(0).normal(losses.DIRECTIONS, STROKES + n) for n in range(3)]
    strokes = losses.sliced_distance(fake, painting, directions)
    assert found["strokes"].item() == pytest.approx(strokes.item(), rel=1e-5)
    weighted = sum(
        weight * found[name].item()
        for name, weight in {"G_gan": 1.0, "painting": 2.0, "strokes": 3.0}.items()
    )
    contrast = (cfg.lambda_x * found["NCE_x"].item() + cfg.lambda_y * found["NCE_y"].item()) / 2
    assert found["G"].item() == pytest.approx(weighted + contrast, rel=1e-5)


def test_a_mirrored_painting_is_learned_from_mirrored() -> None:
    cfg = config("fastcut", lambda_painting=1.0, noise=False)
    (x, y), (painting, _) = batch(cfg), batch(cfg, 1)
    state = initial_state(cfg)
    fake = state.generator.generate(x.flip(3))[0]
    found = sincut_step(state, Crops(x, y, painting), cfg, draws(0), Kind(mirrored=True))
    expected = (fake - painting.flip(3)).abs().mean().item()
    assert found["painting"].item() == pytest.approx(expected, rel=1e-5)


def test_d_sees_the_style_and_the_painting() -> None:
    y, painting = torch.zeros(64, 3, 2, 2), torch.ones(64, 3, 2, 2)
    shown = half_painted(y, painting, draws(0)).mean(dim=(1, 2, 3))
    assert set(shown.tolist()) == {0.0, 1.0}
    assert 20 < shown.sum() < 44
    assert not torch.equal(shown, half_painted(y, painting, draws(0, 1)).mean(dim=(1, 2, 3)))


def test_the_warm_start_paints() -> None:
    """From the content alone: the style is what D is for."""
    cfg = config(lambda_painting=1.0, noise=False, learning_rate=0.01)
    (x, y), (painting, _) = batch(cfg), batch(cfg, 1)
    painting = painting / 4
    state = initial_state(cfg)
    found = [
        warm_step(state, Crops(x, y, painting), painting, cfg, draws(0))["warm"].item()
        for _ in range(20)
    ]
    assert found[-1] < 0.8 * found[0]


def test_without_noise_its_weights_stay() -> None:
    cfg = config(noise=False, correction=False)
    state = initial_state(cfg)
    sincut_step(state, Crops(*batch(cfg)), cfg, draws(0), Kind())
    weights = [p for name, p in state.generator.named_parameters() if "noise_weight" in name]
    assert weights
    assert all(weight.item() == 0 for weight in weights)


def test_look_without_a_painting_is_refused() -> None:
    with pytest.raises(SincutError) as error:
        train_config("paper", look=0.8)
    assert str(error.value) == (
        "look is that of a painting, and this preset makes none, got look=0.8; try --preset draft"
    )
