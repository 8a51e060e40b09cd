"""The SinCUT step as published, written out literally: what ours is measured against.

Nothing is shared, skipped or fused: x and its translation are encoded again from the pixels to the
end of the encoder, and so are y and its own; R1 is computed in every step; everything is float32
in PyTorch's ordinary memory order; PatchNCE is a normalisation, a product and a cross entropy; Adam
is PyTorch's default; crops come from Pillow. It is ours, after the paper and the published code's
behaviour. The networks are those of sincut, so what they save is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.crops import by_pillow
from sincut.config.training import PairConfig
from sincut.data.random_numbers import NOISE, POSITIONS
from sincut.images.reading.source import Pixels
from sincut.models.discriminator import Discriminator
from sincut.models.generator import Generator
from sincut.models.projector import PatchProjector
from sincut.training.state import State, initial_state

LOADERS = 4  # the published code loads with four processes


class RandomNumbers(Protocol):
    """What a step draws: the product's random numbers, or :class:`OrdinaryDraws`."""

    def normal(self, shape: Sequence[int], stream: int) -> Tensor:
        """Standard normal numbers of that shape."""

    def positions(self, count: int, among: int, stream: int, *, sets: int = 1) -> Tensor:
        """(sets, min(count, among)) different whole numbers below ``among``."""


@dataclass(frozen=True)
class OrdinaryDraws:
    """PyTorch's own random numbers: what a literal step is timed with."""

    device: str

    def normal(self, shape: Sequence[int], stream: int) -> Tensor:
        """As :meth:`RandomNumbers.normal`."""
        return torch.randn(tuple(shape), device=self.device)

    def positions(self, count: int, among: int, stream: int, *, sets: int = 1) -> Tensor:
        """As :meth:`RandomNumbers.positions`."""
        permutations = [torch.randperm(among, device=self.device) for _ in range(sets)]
        return torch.stack([numbers[:count] for numbers in permutations])


def literal_state(config: PairConfig) -> State:
    """The networks sincut starts from, with rows of pixels in memory and PyTorch's default Adam."""
    state = initial_state(config)
    for network in state.networks().values():
        network.to(memory_format=torch.contiguous_format)
    state.optimizers = {
        name: torch.optim.Adam(
            state.networks()[name].parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
        )
        for name in state.optimizers
    }
    return state


def tiles(crops: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) → (N · H/size · W/size, 3, size, size), the tiles of a crop consecutive."""
    rows = [part for crop in crops for part in crop.split(size, dim=1)]
    return torch.stack([tile for row in rows for tile in row.split(size, dim=2)])


def translate(generator: Generator, inputs: Tensor, noise: list[Tensor]) -> Tensor:
    """G of (N, 3, H, W) crops in [-1, 1], the same shape."""
    return generator.generate(inputs, noise)[0]


def logits_and_slope(discriminator: Discriminator, real: Tensor) -> tuple[Tensor, Tensor]:
    """D(y), (N, 1), and ∂D/∂y, (N, 3, H, W), which can be differentiated again."""
    real = real.requires_grad_()
    logits = discriminator(real)
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return logits, slope


def functional_logits_and_slope(
    discriminator: Discriminator, real: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for torch.compile, which cannot differentiate its own backward pass again."""

    def total(tiles: Tensor) -> tuple[Tensor, Tensor]:
        logits = discriminator(tiles)
        return logits.sum(), logits

    slope, logits = torch.func.grad(total, has_aux=True)(real)
    return logits, slope


Slope = Callable[[Discriminator, Tensor], tuple[Tensor, Tensor]]


def discriminator_terms(
    discriminator: Discriminator, real: Tensor, fake: Tensor, slope_of: Slope
) -> dict[str, Tensor]:
    """The adversarial loss of D on tiles (N, 3, size, size), and R1."""
    real_logits, slope = slope_of(discriminator, real)
    fake_logits = discriminator(fake)
    adversarial = (F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()) / 2
    return {"D_gan": adversarial, "R1": slope.square().sum(dim=(1, 2, 3)).mean() / 2}


def generator_terms(
    networks: tuple[Generator, Discriminator, PatchProjector],
    x: Tensor,
    y: Tensor,
    outputs: Tensor,
    positions: list[Tensor],
    config: PairConfig,
) -> dict[str, Tensor]:
    """What G and H minimise, unweighted; ``outputs`` is G of x and y, (2N, 3, H, W).

    ``positions`` holds (2, patches) per layer: those of x and those of y.
    """
    generator, discriminator, projector = networks
    fake, same = outputs.chunk(2)
    terms = {"G_gan": F.softplus(-discriminator(tiles(fake, config.tile))).mean()}
    for number, (name, source, target) in enumerate((("NCE_x", x, fake), ("NCE_y", y, same))):
        where = [each[number : number + 1] for each in positions]
        queries = projector(features(generator, target, config), where)
        keys = projector(features(generator, source, config), where)
        losses = [patch_nce(q, k, config) for q, k in zip(queries, keys, strict=True)]
        terms[name] = torch.stack(losses).mean()
    terms["identity"] = (same - y).abs().mean()
    return terms


def features(generator: Generator, image: Tensor, config: PairConfig) -> list[Tensor]:
    """Features of the layers of PatchNCE, on a way through the whole encoder."""
    every = generator.encode(image, range(len(generator.encoder) + 1))
    return [every[layer] for layer in config.layers]


def patch_nce(query: Tensor, key: Tensor, config: PairConfig) -> Tensor:
    """PatchNCE of one layer; rows (batch · patches, width), the same place in the same row."""
    groups = 1 if config.negatives == "minibatch" else config.batch
    query, key = (F.normalize(rows).unflatten(0, (groups, -1)) for rows in (query, key.detach()))
    logits = (query @ key.mT / config.temperature).flatten(0, 1)
    own = torch.arange(key.shape[1], device=key.device).repeat(groups)
    return F.cross_entropy(logits, own)


@dataclass(frozen=True)
class Parts:
    """The three computations of a step, between which the networks change."""

    translate: Callable[..., Tensor]
    discriminator_terms: Callable[..., dict[str, Tensor]]
    generator_terms: Callable[..., dict[str, Tensor]]
    slope_of: Slope


EAGER = Parts(translate, discriminator_terms, generator_terms, logits_and_slope)


def compiled_parts(mode: str | None = None) -> Parts:
    """The same under torch.compile, in one piece each; ``mode`` is its own."""

    def compiled(function: Any) -> Any:
        return torch.compile(function, dynamic=False, fullgraph=True, mode=mode)

    parts = (translate, discriminator_terms, generator_terms)
    return Parts(*map(compiled, parts), functional_logits_and_slope)


def literal_step(
    state: State,
    x: Tensor,
    y: Tensor,
    config: PairConfig,
    draws: RandomNumbers,
    parts: Parts = EAGER,
) -> dict[str, Tensor]:
    """One step on crops x of the content and y of the style, (N, 3, H, W) in [-1, 1]: D, then G, H.

    R1 weighs ``lambda_r1`` in every step, as in a configuration with ``r1_every=1``. Returns the
    terms under the names that the product's step gives them. Objectives that lack a term or mirror
    G's inputs, and D with one of our additions, are refused.
    """
    weights = (config.lambda_gan, config.lambda_x, config.lambda_y, config.lambda_identity)
    ours = config.paints
    if not all(weights) or config.lambda_r1 == 0 or config.flip_equivariance or ours:
        raise ValueError(f"the literal step has all terms of SinCUT, got {config}")
    generator, discriminator, projector = state.generator, state.discriminator, state.projector

    inputs = torch.cat([x, y])
    shapes = generator.noise_shapes(inputs)
    noise = [draws.normal(shape, NOISE + level) for level, shape in enumerate(shapes)]
    outputs = parts.translate(generator, inputs, noise)

    real, fake = tiles(y, config.tile), tiles(outputs[: len(x)].detach(), config.tile)
    terms = dict(parts.discriminator_terms(discriminator, real, fake, parts.slope_of))
    d_loss = terms["D_gan"] + config.lambda_r1 * terms["R1"]
    update(d_loss, state.optimizers["discriminator"])

    _learns(discriminator, False)
    positions = [
        draws.positions(config.patches, _pixels(config, layer), POSITIONS + number, sets=2)
        for number, layer in enumerate(config.layers)
    ]
    networks = generator, discriminator, projector
    terms |= parts.generator_terms(networks, x, y, outputs, positions, config)
    contrast = (config.lambda_x * terms["NCE_x"] + config.lambda_y * terms["NCE_y"]) / 2
    g_loss = config.lambda_gan * terms["G_gan"] + contrast
    g_loss = g_loss + config.lambda_identity * terms["identity"]
    update(g_loss, state.optimizers["generator"], state.optimizers["projector"])
    _learns(discriminator, True)

    state.step += 1
    return {name: term.detach() for name, term in {**terms, "D": d_loss, "G": g_loss}.items()}


def pillow_crops(
    content: Pixels, style: Pixels, config: PairConfig, first: int, count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Crops of content and style for ``count`` steps from ``first``, (N, 3, H, W) on the host.

    Every crop is cut from a resize of the whole image. Some threads work ahead of the steps, as
    the published code's loaders do.
    """

    def both(step: int) -> tuple[Tensor, Tensor]:
        return by_pillow(content, step, config, 0), by_pillow(style, step, config, 1)

    with ThreadPoolExecutor(LOADERS) as pool:
        yield from pool.map(both, range(first, first + count))


def _pixels(config: PairConfig, layer: int) -> int:
    """Places in the features of an encoder layer: those from 2 on are made by halving."""
    side = config.crop >> min(max(layer - 1, 0), config.downsamplings)
    return side * side


def _learns(network: nn.Module, truth: bool) -> None:
    network.requires_grad_(truth)


def update(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    """One step of some optimisers, with the gradients of a loss."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
