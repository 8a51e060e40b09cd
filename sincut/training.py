"""The loop: SinCUT as the paper has it, on one content and one style image.

Every random draw of a step is a function of (seed, step). Nothing random has to be saved, and a
run that was interrupted continues bit for bit on a CPU. On CUDA a step reads its number, its
learning rate and its share in the average from tensors on the device, so that it can be recorded
and replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut import losses
from sincut.compute.cuda_graph import Replayed, own_stream
from sincut.compute.devices import convolutions, mixed_precision
from sincut.config.training import TrainConfig
from sincut.data.colour_transfer import affine_transfer, transfer_table
from sincut.data.crops import ResidentImage, draw_crops, sample_boxes
from sincut.data.matching import Matcher, recoloured
from sincut.data.random_numbers import MIRROR, NOISE, POSITIONS, Draws
from sincut.models.projector import PatchProjector
from sincut.training_state import State, initial_state, new_optimizers

Pixels = npt.NDArray[np.uint8]

_SAMPLED = 2**20  # pixels of the style that tell what its textures are like


@dataclass(frozen=True)
class Record:
    """What one finished step has to tell.

    ``losses`` are scalars still on the device, which the next step may overwrite.
    """

    step: int
    steps: int
    losses: dict[str, Tensor]
    learning_rate: float
    seconds: float  # since training started or resumed
    state: State = field(repr=False)

    def values(self) -> dict[str, float]:
        """The losses as numbers (waits for the device)."""
        values: list[float] = torch.stack([v.float() for v in self.losses.values()]).tolist()
        return dict(zip(self.losses, values, strict=True))


class Kind(NamedTuple):
    """What a step has to compute: steps of one kind do the same work on other numbers."""

    warm: bool = False
    with_r1: bool = False
    mirrored: bool = False  # G sees its inputs mirrored (FastCUT's flip equivariance)


def train(
    content: Pixels,
    style: Pixels,
    config: TrainConfig,
    on_step: Callable[[Record], bool | None],
    state: State | None = None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> State:
    """Train until ``config.steps`` or until ``on_step`` returns true.

    Args:
        content, style: (H, W, 3) uint8 sRGB.
        config: device and precision resolved by :func:`resolved`.
        on_step: called after every step.
        state: from :func:`new_state` or a checkpoint; it is changed in place.
        on_notice: told in a line that steps could not be recorded and go on one kernel at a time.

    Returns:
        The state after the last step.
    """
    images = [ResidentImage(image, config, config.device) for image in (content, style)]
    state = state or new_state(content, style, config)
    table = matcher = None
    if state.step < 0 or config.candidates > 1:
        table = torch.from_numpy(transfer_table(content, style, seed=config.seed))
        table = table.to(config.device)
        if config.candidates > 1:
            matcher = Matcher(images[1], table, config)
    number = torch.zeros((), dtype=torch.int64, device=config.device)
    share = torch.zeros((), device=config.device)
    draws = Draws(config.seed, number)

    def one_step(kind: Kind) -> dict[str, Tensor]:
        x = draw_crops(images[0], config, draws, stream=0)
        if matcher is None:
            y = draw_crops(images[1], config, draws, stream=1)
        else:
            y = images[1].crops(matcher.boxes(x, draws), config.crop)
        if kind.warm:
            assert table is not None
            terms = warm_step(state, x, y, table, config, draws)
        else:
            terms = sincut_step(state, x, y, config, draws, kind)
        _average(state, share)
        return terms

    def on_failure(text: str) -> None:
        on_notice(f"a step could not be recorded, so every kernel is issued by itself: {text}")

    record = config.device == "cuda" and config.record_steps
    step = Replayed(one_step, record=record, on_failure=on_failure)
    started = time.monotonic()
    with convolutions(config.precision, search=True), own_stream(config.device):
        while state.step < config.steps:
            rate = config.learning_rate * rate_factor(state.step, config)
            _set_rate(state, rate)
            number.fill_(state.step)
            share.fill_(average_weight(state.step + 1, config.ema_half_life))
            terms = step(kind_of(state.step, config))
            state.step += 1
            if state.step == 0:  # the moments so far belong to another objective
                state.optimizers = new_optimizers(state, config)
                step.forget(Kind(warm=True))
            seconds = time.monotonic() - started
            if on_step(Record(state.step, config.steps, terms, rate, seconds, state)):
                break
    return state


def new_state(content: Pixels, style: Pixels, config: TrainConfig) -> State:
    """New networks for a pair, with what they know of it before the first step.

    A generator that corrects colours starts from an affine transfer of them; a discriminator with
    fixed filters takes them from the style.
    """
    state = initial_state(config)
    if config.correction:
        matrix, offset = (
            torch.from_numpy(each).float() for each in affine_transfer(content, style)
        )
        for generator in (state.generator, state.averaged_generator):
            generator.set_colours(matrix, offset)
    if config.whiten or config.lambda_texture > 0:
        image = ResidentImage(style, config, config.device)
        boxes = sample_boxes(image, config, max(_SAMPLED // config.crop**2, 16))
        with convolutions(config.precision):
            state.discriminator.fit(image.crops(boxes, config.crop))
    return state


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


def rate_factor(step: int, config: TrainConfig) -> float:
    """The learning rate of a step as a fraction of ``config.learning_rate``; 1 while warming."""
    if config.schedule == "constant" or step < 0:
        return 1.0
    if config.schedule == "linear":
        return min(1.0, 2 * (1 - step / config.steps))
    epoch = 16 * step // config.steps  # published: 8 epochs, then 8 that fall by a ninth each
    return 1 - max(0, epoch - 7) / 9


def average_weight(step: int, half_life: float) -> float:
    """How much of the newest weights enters the average after ``step`` steps.

    The half-life is at most half of the steps done, so that the first ones are soon forgotten.
    """
    half_life = min(half_life, max(step, 0) / 2)
    return 1 - 0.5 ** (1 / half_life) if half_life > 0 else 1.0


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


def _set_rate(state: State, rate: float) -> None:
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # a recorded step reads it from there
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


@torch.no_grad()
def _average(state: State, weight: Tensor) -> None:
    """Move the averaged networks towards the newest weights."""
    for average, newest in (
        (state.averaged_generator, state.generator),
        (state.averaged_projector, state.projector),
    ):
        means: list[Tensor] = [*average.parameters()]
        news: list[Tensor] = [*newest.parameters()]
        steps = torch._foreach_sub(news, means)  # all at once: on a GPU it is launches that cost
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(means, [*steps])


def _noise(state: State, inputs: Tensor, draws: Draws) -> list[Tensor]:
    """Fresh noise for every crop and noise image of G."""
    shapes = state.generator.noise_shapes(inputs)
    return [draws.normal(shape, NOISE + level) for level, shape in enumerate(shapes)]
