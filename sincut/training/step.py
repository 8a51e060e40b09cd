"""One step: first D, then G and H, as the paper has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sincut.compute.devices import mixed_precision
from sincut.compute.processes import ALONE, Processes
from sincut.config.training import BANKED, PairConfig, TrainConfig
from sincut.data.random_numbers import (
    MIRROR,
    NOISE,
    POSITIONS,
    SHOWN,
    STROKES,
    RandomNumbers,
    chance,
)
from sincut.data.training_data import Crops
from sincut.kernels.convolution import differentiated_twice
from sincut.kernels.patch_nce import normalised
from sincut.models.discriminator import Discriminator
from sincut.models.weights import ready_weights
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
        word = RandomNumbers(config.seed, torch.tensor(step)).words(1, MIRROR)[0].item()
        mirrored = word < 2**31
    return Kind(
        with_r1=config.penalised and step % config.r1_every == 0,
        mirrored=mirrored,
    )


def sincut_step(
    state: State,
    crops: Crops,
    config: TrainConfig,
    draws: RandomNumbers,
    kind: Kind,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """One step on crops x of the content and y of the style: first D, then G and H.

    Several processes each have a part of the whole batch, and average their gradients.

    Returns the terms of both objectives, unweighted, and the two sums ``D`` and ``G``.
    """
    x, y, painting = crops
    made = translated(state, x, y, config, draws, kind)
    discriminator = state.discriminator
    shown = y if painting is None else half_painted(y, painting, draws)
    real, fake = (seen_by_d(discriminator, each) for each in (shown, made.fake))
    terms, d_loss = discriminator_terms(discriminator, real, fake, config, kind)
    _update(d_loss, processes, state.optimizers["discriminator"])

    # G and H: fool the updated D, stay recognisable, and leave the style image as it is.
    weighted: list[Tensor] = []
    for more in (
        fooling_terms(discriminator, fake, config),
        contrastive_terms(state, made, config, draws, kind, processes),
        identity_terms(made, y, config, kind),
        painting_terms(made, painting, config, draws, kind),
    ):
        terms |= more.terms
        weighted += more.weighted
    g_loss = torch.stack(weighted).sum()
    _update(g_loss, processes, state.optimizers["generator"], state.optimizers["projector"])
    return {name: term.detach() for name, term in {**terms, "D": d_loss, "G": g_loss}.items()}


@dataclass(frozen=True)
class Made:
    """What G made of a step's crops: ŷ = G(x) and, where it is used, G(y) behind it.

    ``inputs`` are x, or x and y, as they were drawn; ``features`` those of the encoder for what G
    saw, which may be their mirror images.
    """

    inputs: Tensor
    outputs: Tensor
    features: list[Tensor]
    count: int  # crops of x

    @property
    def fake(self) -> Tensor:
        """ŷ = G(x)."""
        return self.outputs[: self.count]

    @property
    def of_style(self) -> Tensor:
        """G(y)."""
        return self.outputs[self.count :]


def translated(
    state: State, x: Tensor, y: Tensor, config: TrainConfig, draws: RandomNumbers, kind: Kind
) -> Made:
    """G of the crops, with the encoder's features passed on the way."""
    with_identity = config.lambda_y > 0 or config.lambda_identity > 0
    inputs = torch.cat([x, y]) if with_identity else x
    seen = inputs.flip(3) if kind.mirrored else inputs
    noise = _noise(state, seen, config, draws, sets=len(inputs) // len(x))
    with _computing(state.generator, config):
        outputs, features = state.generator.generate(seen, noise, config.layers)
    return Made(inputs, outputs, features, len(x))


def seen_by_d(discriminator: Discriminator, crops: Tensor) -> Tensor:
    """Tiles of the crops, or the crops themselves where D judges those."""
    return crops if discriminator.tile is None else cut_tiles(crops, discriminator.tile)


def discriminator_terms(
    discriminator: Discriminator, real: Tensor, fake: Tensor, config: TrainConfig, kind: Kind
) -> tuple[dict[str, Tensor], Tensor]:
    """D's terms on real tiles of the style against fake ones, and their weighted sum."""
    fake = fake.detach()
    if kind.with_r1:
        # R1 differentiates a gradient: on its steps D sees the real tiles in full precision.
        real.requires_grad_()
        with _computing(discriminator, config, "fp32"), differentiated_twice():
            real_logits = discriminator(real)
        with _computing(discriminator, config):
            fake_logits = discriminator(fake)
    else:  # one larger batch is faster than two
        with _computing(discriminator, config):
            logits = discriminator(torch.cat([real, fake]))
        real_logits, fake_logits = torch.split(logits, [len(real), len(fake)])
    terms = {"D_gan": losses.adversarial_discriminator(real_logits, fake_logits, config.gan)}
    loss = terms["D_gan"]
    if kind.with_r1 and config.lambda_r1 > 0:
        terms["R1"] = losses.r1_penalty(real_logits, real)
        # Rarer penalties weigh more (StyleGAN2's lazy regularisation).
        loss = loss + config.lambda_r1 * config.r1_every * terms["R1"]
    return terms, loss


@contextlib.contextmanager
def _computing(
    network: nn.Module, config: TrainConfig, precision: str | None = None
) -> Iterator[None]:
    """A pass through a network in the run's precision, or another."""
    precision = precision or config.precision
    rounded = torch.bfloat16 if precision == "bf16" else None
    with mixed_precision(config.device, precision), ready_weights(network, rounded):
        yield


class Terms(NamedTuple):
    """Terms of an objective by name, and weighted, as they are summed."""

    terms: dict[str, Tensor]
    weighted: list[Tensor]


def fooling_terms(discriminator: Discriminator, fake: Tensor, config: TrainConfig) -> Terms:
    """G's adversarial terms; D's weights get no gradient."""
    found = Terms({}, [])
    with _constant(discriminator):
        if config.lambda_gan > 0:
            with _computing(discriminator, config):
                logits = discriminator(fake)
                found.terms["G_gan"] = losses.adversarial_generator(logits, config.gan)
            found.weighted.append(config.lambda_gan * found.terms["G_gan"])
    return found


@contextlib.contextmanager
def _constant(network: nn.Module) -> Iterator[None]:
    """Its weights get no gradient; also after an error they can learn again."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def contrastive_terms(
    state: State,
    made: Made,
    config: TrainConfig,
    draws: RandomNumbers,
    kind: Kind,
    processes: Processes = ALONE,
) -> Terms:
    """PatchNCE of x against ŷ and of y against G(y): recognisable patch by patch."""
    found = Terms({}, [])
    weights = {"NCE_x": config.lambda_x, "NCE_y": config.lambda_y}
    # Of x and, where G saw it, of y, which lies behind x.
    batches = [batch for batch, weight in enumerate(weights.values()) if weight > 0]
    if not batches:
        return found
    first, stop = batches[0], batches[-1] + 1
    queries, keys = _queries_and_keys(state, made, config, kind)
    if (stop - first) * made.count < len(made.inputs):
        part = slice(first * made.count, stop * made.count)
        queries, keys = ([each[part] for each in features] for features in (queries, keys))
    # Positions are drawn per layer, for x and for y.
    positions = [
        draws.positions(config.patches, feature[0, 0].numel(), POSITIONS + layer, sets=2)
        for layer, feature in enumerate(keys)
    ]
    names = list(weights)[first:stop]
    terms = _patch_nce(
        queries, keys, [where[first:stop] for where in positions], state, names, config, processes
    )
    found.terms.update(zip(names, terms, strict=True))
    nce = [weights[name] * term for name, term in found.terms.items()]
    # Two terms are averaged; a single one is not halved.
    found.weighted.append(torch.stack(nce).mean())
    return found


def _queries_and_keys(
    state: State, made: Made, config: TrainConfig, kind: Kind
) -> tuple[list[Tensor], list[Tensor]]:
    """Features of G's outputs, and those of its inputs, unless G saw them mirrored."""
    keys = made.features
    with _computing(state.generator, config):
        queries = state.generator.encode(made.outputs, config.layers)
        if kind.mirrored:
            queries = [feature.flip(3) for feature in queries]
            with torch.no_grad():
                keys = state.generator.encode(made.inputs, config.layers)
    return queries, [feature.detach() for feature in keys]


def identity_terms(made: Made, y: Tensor, config: TrainConfig, kind: Kind) -> Terms:
    """G leaves the style image as it is."""
    if not config.lambda_identity > 0:
        return Terms({}, [])
    target = y.flip(3) if kind.mirrored else y
    term = losses.pixel_identity(made.of_style, target)
    return Terms({"identity": term}, [config.lambda_identity * term])


def half_painted(style: Tensor, painting: Tensor, draws: RandomNumbers) -> Tensor:
    """Crops of the style, about every second of them replaced by one of the painting (ours).

    Those show D the strokes where they belong: sky need not become rock to be real.
    """
    replaced = chance(draws.of_samples(len(style), SHOWN), 0.5).bool()
    return torch.where(replaced[:, None, None, None], painting, style)


def painting_terms(
    made: Made, painting: Tensor | None, config: TrainConfig, draws: RandomNumbers, kind: Kind
) -> Terms:
    """G paints as the painting does (ours): its colours place by place, its strokes patch by patch,
    wherever they lie."""
    found = Terms({}, [])
    if painting is None:
        return found
    assert isinstance(config, PairConfig)
    target = painting.flip(3) if kind.mirrored else painting
    if config.lambda_painting > 0:
        found.terms["painting"] = losses.pixel_identity(made.fake, target)
        found.weighted.append(config.lambda_painting * found.terms["painting"])
    if config.lambda_strokes > 0:
        shape = losses.DIRECTIONS
        directions = [draws.normal(shape, STROKES + n) for n in range(len(losses.SCALES))]
        found.terms["strokes"] = losses.sliced_distance(made.fake, target, directions)
        found.weighted.append(config.lambda_strokes * found.terms["strokes"])
    return found


def warm_step(
    state: State,
    crops: Crops,
    wanted: Tensor,
    config: TrainConfig,
    draws: RandomNumbers,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """One step of L1 from x towards what is ``wanted`` of it, and from y towards itself (ours); not
    from y, where there is a painting to learn from.

    A short run has no time to find the style's colours through D alone; this gives them to it.
    """
    inputs, targets = crops.content, wanted
    if crops.painting is None:
        inputs, targets = (torch.cat([each, crops.style]) for each in (inputs, targets))
    noise = _noise(state, inputs, config, draws, sets=len(inputs) // len(wanted))
    with _computing(state.generator, config):
        outputs, _ = state.generator.generate(inputs, noise)
    loss = losses.pixel_identity(outputs, targets)
    _update(loss, processes, state.optimizers["generator"])
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
    state: State,
    names: Sequence[str],
    config: TrainConfig,
    processes: Processes,
) -> Sequence[Tensor]:
    """PatchNCE of the named batches: project at the positions, compare. H learns from queries
    alone."""
    with _computing(state.projector, config):
        query_rows = state.projector(queries, positions)
        with torch.no_grad():
            key_rows = state.projector(keys, positions)
    groups, parts = len(keys[0]) // len(names), 1
    if config.negatives in BANKED:
        own = [
            zip(*(rows.chunk(len(names)) for rows in of), strict=True)
            for of in (query_rows, key_rows)
        ]
        return [
            _banked(queries, keys, state, name, groups, config, processes)
            for name, queries, keys in zip(names, *own, strict=True)
        ]
    if config.negatives == "minibatch":
        groups, parts = 1, processes.count
        if parts > 1:
            query_rows, key_rows = _of_whole_batch(query_rows, key_rows, len(names), processes)
    return losses.contrastive(
        query_rows,
        key_rows,
        temperature=config.temperature,
        groups=groups,
        epsilon=config.epsilon,
        sets=len(names),
        parts=parts,
    ).unbind()


def _banked(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    state: State,
    name: str,
    groups: int,
    config: TrainConfig,
    processes: Processes,
) -> Tensor:
    """PatchNCE of one batch against banks of earlier keys, which get these."""
    banks = [state.banks[f"{name}.{place}"] for place in range(len(keys))]
    before = [bank.clone() for bank in banks]  # the backward pass needs them as they are
    loss = losses.contrastive_with_bank(
        queries,
        keys,
        before,
        temperature=config.temperature,
        groups=groups,
        epsilon=config.epsilon,
        internal=config.negatives == "both",
    )
    for bank, rows in zip(banks, keys, strict=True):
        _enqueue(bank, processes.gathered(normalised(rows, config.epsilon)).flatten(0, 1))
    return loss


def _of_whole_batch(
    queries: Sequence[Tensor], keys: Sequence[Tensor], sets: int, processes: Processes
) -> tuple[list[Tensor], list[Tensor]]:
    """The rows of all processes, per layer and of each set this one's first; the others' queries
    are constants.

    Those are only there because PatchNCE compares equally many queries and keys.
    """
    counts = [len(rows) for rows in (*queries, *keys)]
    # All layers in one exchange: their rows are equally wide.
    gathered = processes.gathered(torch.cat([*queries, *keys])).roll(-processes.index, 0)
    # (processes, sets, rows of a set, width) → sets, each of all processes
    shape = processes.count, sets, -1, gathered.shape[-1]
    split = gathered.split(counts, dim=1)  # type: ignore[no-untyped-call]
    whole: list[Tensor] = [rows.reshape(shape).transpose(0, 1) for rows in split]
    for layer, mine in enumerate(queries):
        own = mine.view(sets, 1, *whole[layer].shape[2:])
        whole[layer] = torch.cat([own, whole[layer][:, 1:]], dim=1)
    flat = [rows.flatten(0, 2) for rows in whole]
    return flat[: len(queries)], flat[len(queries) :]


@torch.no_grad()
def _enqueue(bank: Tensor, rows: Tensor) -> None:
    """Put rows in a bank, behind those that are there; the oldest leave it."""
    rows = rows[-len(bank) :].to(bank.dtype)
    bank.copy_(torch.cat([bank[len(rows) :], rows]))


def _update(loss: Tensor, processes: Processes, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    processes.average(
        parameter.grad
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    )
    for optimizer in optimizers:
        optimizer.step()


def _noise(
    state: State, inputs: Tensor, config: TrainConfig, draws: RandomNumbers, *, sets: int
) -> list[Tensor] | None:
    """Fresh noise for every crop, of ``sets`` batches, and every noise image of G."""
    if isinstance(config, PairConfig) and not config.noise:
        return None
    shapes = state.generator.noise_shapes(inputs)
    return [draws.normal(shape, NOISE + level, sets=sets) for level, shape in enumerate(shapes)]
