"""One step: first D, then G and H, as the paper has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sincut.compute.devices import mixed_precision
from sincut.config.training import TrainConfig
from sincut.data.matching import recoloured
from sincut.data.random_numbers import MIRROR, NOISE, POSITIONS, Draws
from sincut.models.projector import PatchProjector
from sincut.training import losses
from sincut.training.state import State


class Kind(NamedTuple):
    """What a step has to compute: steps of one kind do the same work on other numbers."""

    warm: bool = False
    with_r1: bool = False
    mirrored: bool = False  # G sees its inputs mirrored (FastCUT's flip equivariance)


def kind_of(step: int, config: TrainConfig) -> Kind:
    """What the step that starts at ``step`` steps done has to compute."""
    if step < 0:
        return Kind(warm=True)
    mirrored = False
    if config.flip_equivariance:
        word = Draws(config.seed, torch.tensor(step)).words(1, MIRROR)[0].item()
        mirrored = word < 2**31
    return Kind(
        with_r1=config.penalised and step % config.r1_every == 0,
        mirrored=mirrored,
    )


def sincut_step(
    state: State, x: Tensor, y: Tensor, config: TrainConfig, draws: Draws, kind: Kind
) -> dict[str, Tensor]:
    """One step on crops x of the content and y of the style: first D, then G and H.

    Returns the terms of both objectives, unweighted, and the two sums ``D`` and ``G``.
    """
    generator, discriminator, projector = state.generator, state.discriminator, state.projector
    precision = mixed_precision(config.device, config.precision)

    # ŷ = G(x) and, where it is used, G(y); with the encoder's features passed on the way.
    with_identity = config.lambda_y > 0 or config.lambda_identity > 0
    inputs = torch.cat([x, y]) if with_identity else x
    seen = inputs.flip(3) if kind.mirrored else inputs
    noise = _noise(state, seen, draws)
    with precision:
        outputs, features = generator.generate(seen, noise, config.layers)
    fake = outputs[: len(x)]

    # D: real tiles of the style against fake ones.
    real_tiles, fake_tiles = (
        cut_tiles(discriminator.view(each), config.tile) for each in (y, fake)
    )
    real_tiles.requires_grad_(kind.with_r1)
    # R1 differentiates a gradient: on its steps D sees the real tiles in full precision.
    with mixed_precision(config.device, "fp32" if kind.with_r1 else config.precision):
        real_logits = discriminator(real_tiles)
    with precision:
        fake_logits = discriminator(fake_tiles.detach())
    terms = {"D_gan": losses.adversarial_discriminator(real_logits, fake_logits)}
    d_loss = terms["D_gan"]
    if kind.with_r1 and config.lambda_r1 > 0:
        terms["R1"] = losses.r1_penalty(real_logits, real_tiles)
        # Rarer penalties weigh more (StyleGAN2's lazy regularisation).
        d_loss = d_loss + config.lambda_r1 * config.r1_every * terms["R1"]
    # A second discriminator sees nothing but how strong textures are, cell by cell.
    if config.lambda_texture > 0:
        real_energies, fake_energies = (discriminator.energies(each) for each in (y, fake))
        real_energies.requires_grad_(kind.with_r1)
        real_logits = discriminator.judge_energies(real_energies)
        fake_logits = discriminator.judge_energies(fake_energies.detach())
        terms["D_texture"] = losses.adversarial_discriminator(real_logits, fake_logits)
        d_loss = d_loss + terms["D_texture"]
        if kind.with_r1 and config.lambda_texture_r1 > 0:
            terms["R1_texture"] = losses.r1_penalty(real_logits, real_energies)
            d_loss = d_loss + config.lambda_texture_r1 * config.r1_every * terms["R1_texture"]
    _update(d_loss, state.optimizers["discriminator"])

    # G and H: fool the updated D, …
    g_terms: list[Tensor] = []
    discriminator.requires_grad_(False)
    if config.lambda_gan > 0:
        with precision:
            terms["G_gan"] = losses.adversarial_generator(discriminator(fake_tiles))
        g_terms.append(config.lambda_gan * terms["G_gan"])
    if config.lambda_texture > 0:
        fooled = discriminator.judge_energies(fake_energies)
        terms["G_texture"] = losses.adversarial_generator(fooled)
        g_terms.append(config.lambda_texture * terms["G_texture"])
    discriminator.requires_grad_(True)

    # … stay recognisable, patch by patch, among the patches of the input …
    weights = [config.lambda_x, config.lambda_y]
    if any(weights):
        # The encoder's features of G's inputs are the keys, unless G saw them mirrored.
        with precision:
            queries = generator.encode(outputs, config.layers)
            if kind.mirrored:
                queries = [feature.flip(3) for feature in queries]
                with torch.no_grad():
                    features = generator.encode(inputs, config.layers)
            keys = [feature.detach() for feature in features]
        # Positions are drawn per layer, for x and for y.
        positions = [
            draws.positions(config.patches, feature[0, 0].numel(), POSITIONS + layer, sets=2)
            for layer, feature in enumerate(keys)
        ]
        nce = {}
        for batch, (name, weight, part) in enumerate(
            (
                ("NCE_x", config.lambda_x, slice(len(x))),
                ("NCE_y", config.lambda_y, slice(len(x), None)),
            )
        ):
            if weight > 0:
                terms[name] = _patch_nce(
                    [feature[part] for feature in queries],
                    [feature[part] for feature in keys],
                    [where[batch] for where in positions],
                    projector,
                    config,
                )
                nce[name] = weight * terms[name]
        # Two terms are averaged; a single one is not halved.
        g_terms.append(torch.stack(list(nce.values())).mean())

    # … and leave the style image as it is.
    if config.lambda_identity > 0:
        target = y.flip(3) if kind.mirrored else y
        terms["identity"] = losses.pixel_identity(outputs[len(x) :], target)
        g_terms.append(config.lambda_identity * terms["identity"])
    g_loss = torch.stack(g_terms).sum()
    _update(g_loss, state.optimizers["generator"], state.optimizers["projector"])

    return {name: term.detach() for name, term in {**terms, "D": d_loss, "G": g_loss}.items()}


def warm_step(
    state: State, x: Tensor, y: Tensor, table: Tensor, config: TrainConfig, draws: Draws
) -> dict[str, Tensor]:
    """One step of L1 towards the recoloured content, and towards the style itself (ours).

    A short run has no time to find the style's colours through D alone; this gives them to it.
    """
    inputs = torch.cat([x, y])
    targets = torch.cat([recoloured(x, table), y])
    noise = _noise(state, inputs, draws)
    with mixed_precision(config.device, config.precision):
        outputs, _ = state.generator.generate(inputs, noise)
    loss = losses.pixel_identity(outputs, targets)
    _update(loss, state.optimizers["generator"])
    return {"warm": loss.detach()}


def cut_tiles(crops: Tensor, size: int) -> Tensor:
    """(N, C, H, W) → (N · H/size · W/size, C, size, size), tiles of one crop consecutive."""
    tiles = crops.unfold(2, size, size).unfold(3, size, size)  # (N, C, rows, columns, size, size)
    tiles = tiles.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return tiles.contiguous(memory_format=torch.channels_last)


def _patch_nce(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    positions: Sequence[Tensor],
    projector: PatchProjector,
    config: TrainConfig,
) -> Tensor:
    """PatchNCE of one batch: project at the positions, compare. H learns from queries alone."""
    with mixed_precision(config.device, config.precision):
        query_rows = projector(queries, positions)
        with torch.no_grad():
            key_rows = projector(keys, positions)
    groups = 1 if config.negatives == "minibatch" else keys[0].shape[0]
    return losses.contrastive(query_rows, key_rows, temperature=config.temperature, groups=groups)


def _update(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()


def _noise(state: State, inputs: Tensor, draws: Draws) -> list[Tensor]:
    """Fresh noise for every crop and noise image of G."""
    shapes = state.generator.noise_shapes(inputs)
    return [draws.normal(shape, NOISE + level) for level, shape in enumerate(shapes)]
