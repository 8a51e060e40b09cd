"""The steps of CUT, FastCUT and CycleGAN as published, written out literally: what ours is measured
against.

Nothing is shared, skipped or fused: for PatchNCE the output and the input of G are encoded again
from their pixels, the input's with a graph, too; blurs are depthwise convolutions, norms are
PyTorch's, convolutions before norms keep their biases; everything is float32 in PyTorch's ordinary
memory order; Adam is PyTorch's default. It is ours, after the papers and the published code's
behaviour; CycleGAN has that code's networks, as in CUT's table of speeds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.literal import RandomNumbers, update
from sincut.config.training import FolderConfig
from sincut.data.random_numbers import POSITIONS
from sincut.models.published import published_resnet_name
from sincut.models.resnet import ResnetGenerator
from sincut.training.state import initial_state

POOL = 50  # earlier fakes that a discriminator of CycleGAN may be shown
CYCLE, IDENTITY = 10.0, 0.5  # CycleGAN's weights; that of identity is a part of the other
IN_DISCRIMINATOR = {"first": 0, "second": 3, "third": 7, "fourth": 11, "logits": 14}


class Halving(nn.Module):
    """[1, 2, 1] ⊗ [1, 2, 1] / 16 with stride 2, a mirror beyond the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filters", _filters([1, 2, 1], channels) / 16, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        image = F.pad(image, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(image, self.filters, stride=2, groups=image.shape[1])


class Doubling(nn.Module):
    """[1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 16, transposed, with stride 2; beyond the image its border."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filters", _filters([1, 3, 3, 1], channels) / 16, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 2H, 2W)."""
        image = F.pad(image, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(image, self.filters, None, 2, 3, groups=image.shape[1])


class Block(nn.Module):
    """x + norm(conv(pad(relu(norm(conv(pad(x)))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [
                nn.ReflectionPad2d(1),
                nn.Conv2d(channels, channels, 3),
                nn.InstanceNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.conv_block = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return image + self.conv_block(image)


class LiteralGenerator(nn.Module):
    """G as a row of layers; their numbers are those of PatchNCE's layers and of published files."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        c = channels
        layers = [nn.ReflectionPad2d(3), *_normalised(nn.Conv2d(3, c, 7))]
        for width in (c, 2 * c):
            layers += _normalised(nn.Conv2d(width, 2 * width, 3, padding=1))
            layers.append(Halving(2 * width))
        layers += [Block(4 * c) for _ in range(blocks)]
        for width in (4 * c, 2 * c):
            layers.append(Doubling(width))
            layers += _normalised(nn.Conv2d(width, width // 2, 3, padding=1))
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same shape."""
        output: Tensor = self.model(image)
        return output

    def encode(self, image: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What comes out of some layers."""
        found = []
        for number, layer in enumerate(self.model):
            image = layer(image)
            if number in layers:
                found.append(image)
            if number == layers[-1]:
                break
        return found


def literal_discriminator(channels: int) -> nn.Sequential:
    """D as a row of layers: (N, 3, H, W) → (N, 1, h, w) logits."""
    d, leaky = channels, nn.LeakyReLU(0.2, inplace=True)
    layers = [nn.Conv2d(3, d, 4, padding=1), leaky, Halving(d)]
    for width in (d, 2 * d, 4 * d):
        layers += _normalised(nn.Conv2d(width, 2 * width, 4, padding=1), leaky)
        layers.append(Halving(2 * width))
    return nn.Sequential(*layers[:-1], nn.Conv2d(8 * d, 1, 4, padding=1))


class LiteralCut:
    """CUT, or FastCUT, from the networks that ours start from."""

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        ours = initial_state(config)
        assert isinstance(ours.generator, ResnetGenerator)
        self.generator = LiteralGenerator(config.channels, config.blocks)
        self.discriminator = literal_discriminator(config.discriminator_channels)
        self.heads = ours.projector.heads
        # By network, our names and the literal ones.
        self.names = {
            "generator": {
                name: published_resnet_name(name, ours.generator)
                for name in ours.generator.state_dict()
            },
            "discriminator": {
                name: name.replace(layer, str(place))
                for layer, place in IN_DISCRIMINATOR.items()
                for name in ours.discriminator.state_dict()
                if name.startswith(layer)
            },
            "projector": {name: name for name in self.heads.state_dict()},
        }
        for name, network in self.networks().items():
            # Biases before norms are only here; they have no influence.
            weights = {own: torch.zeros_like(value) for own, value in network.state_dict().items()}
            for own, value in zip(
                self.names[name].values(), ours.networks()[name].parameters(), strict=True
            ):
                weights[own] = value.detach()
            network.load_state_dict(weights)
            network.to(config.device, memory_format=torch.contiguous_format)
        self.optimizers = {
            name: _adam(config, network) for name, network in self.networks().items()
        }
        strides = ours.generator.strides
        sides = [config.crop // strides[layer] + (0 if layer else 6) for layer in config.layers]
        self.places = [side * side for side in sides]

    def networks(self) -> dict[str, nn.Module]:
        """G, D and H by name."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "projector": self.heads,
        }

    def step(
        self, x: Tensor, y: Tensor, draws: RandomNumbers, *, mirrored: bool = False
    ) -> dict[str, Tensor]:
        """One step on x of the content and y of the style, (N, 3, H, W) in [-1, 1].

        Returns the terms under the names that the product's step gives them.
        """
        config = self.config
        inputs = torch.cat([x, y]) if config.lambda_y else x
        outputs = self.generator(inputs.flip(3) if mirrored else inputs)
        fake, of_style = outputs[: len(x)], outputs[len(x) :]

        d_loss = discriminator_loss(self.discriminator, y, fake)
        update(d_loss, self.optimizers["discriminator"])

        with constant(self.discriminator):
            terms = {"G_gan": towards(self.discriminator(fake), 1)}
            positions = [
                draws.positions(config.patches, among, POSITIONS + number, sets=2)
                for number, among in enumerate(self.places)
            ]
            first, second = ([each[number] for each in positions] for number in range(2))
            terms["NCE_x"] = self.patch_nce(x, fake, first, mirrored)
            contrast = config.lambda_x * terms["NCE_x"]
            if config.lambda_y:
                terms["NCE_y"] = self.patch_nce(y, of_style, second, mirrored)
                contrast = (contrast + config.lambda_y * terms["NCE_y"]) / 2
            g_loss = config.lambda_gan * terms["G_gan"] + contrast
            update(g_loss, self.optimizers["generator"], self.optimizers["projector"])
        terms |= {"D_gan": d_loss, "D": d_loss, "G": g_loss}
        return {name: term.detach() for name, term in terms.items()}

    def gradients(self) -> dict[str, Tensor]:
        """What the last step left, by network, in the order of our parameters."""
        found = {}
        for name, network in self.networks().items():
            of = {own: each.grad.flatten() for own, each in network.named_parameters()}
            found[name] = torch.cat([of[own] for own in self.names[name].values()])
        return found

    def patch_nce(
        self, source: Tensor, target: Tensor, positions: Sequence[Tensor], mirrored: bool
    ) -> Tensor:
        """Mean over layers; both images are encoded, with graphs; ``positions`` are flat."""
        layers = self.config.layers
        queries = self.generator.encode(target, layers)
        if mirrored:
            queries = [feature.flip(3) for feature in queries]
        keys = self.generator.encode(source, layers)
        losses = [
            cross_entropy(
                rows(head, query, where), rows(head, key, where).detach(), self.config.temperature
            )
            for head, query, key, where in zip(self.heads, queries, keys, positions, strict=True)
        ]
        return torch.stack(losses).mean()


def rows(head: nn.Module, feature: Tensor, where: Tensor) -> Tensor:
    """(N, C, H, W) at flat positions (P,) → (N, P, width) projected rows of about unit length.

    Indexed like this the gradient has the ordinary memory order. PyTorch 2.13's norms on a CPU give
    wrong gradients of one image for another one.
    """
    projected = head(feature.flatten(2)[:, :, where].mT.flatten(0, 1))
    projected = projected / (projected.square().sum(1, keepdim=True).sqrt() + 1e-7)
    return projected.unflatten(0, (len(feature), -1))


def cross_entropy(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """PatchNCE of one layer; rows (N, P, width), the same place in the same row."""
    count = query.shape[1]
    positive = (query * key).sum(2, keepdim=True)
    others = torch.bmm(query, key.mT)
    own = torch.eye(count, dtype=torch.bool, device=query.device)
    logits = torch.cat([positive, others.masked_fill(own, -10)], dim=2).flatten(0, 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=query.device))


class Pool:
    """Fakes of earlier steps; with probability ½ D is shown one of them instead of a new one."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def exchanged(self, fakes: Tensor) -> Tensor:
        """(N, 3, H, W) → the same shape; until the pool is full the fakes themselves."""
        shown = []
        for fake in fakes.detach().split(1):
            if len(self.kept) < POOL:
                self.kept.append(fake)
                shown.append(fake)
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(POOL, ()))
                shown.append(self.kept[place])
                self.kept[place] = fake
            else:
                shown.append(fake)
        return torch.cat(shown)


class LiteralCycleGan:
    """CycleGAN: a generator and a discriminator for either way, on the sizes of a configuration."""

    def __init__(self, config: FolderConfig) -> None:
        self.to_style, self.to_content = (
            LiteralGenerator(config.channels, config.blocks) for _ in range(2)
        )
        self.of_style, self.of_content = (
            literal_discriminator(config.discriminator_channels) for _ in range(2)
        )
        self.generators = nn.ModuleList([self.to_style, self.to_content])
        self.discriminators = nn.ModuleList([self.of_style, self.of_content])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            _start(self.generators)
            _start(self.discriminators)
        self.generators.to(config.device)
        self.discriminators.to(config.device)
        self.optimizers = [_adam(config, each) for each in (self.generators, self.discriminators)]
        self.pools = Pool(), Pool()

    def step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step on x of the content and y of the style: G, then D. Returns their losses."""
        with constant(self.discriminators):
            g_loss, as_style, as_content = self.generator_loss(x, y)
            update(g_loss, self.optimizers[0])
        shown = [
            pool.exchanged(fakes)
            for pool, fakes in zip(self.pools, (as_style, as_content), strict=True)
        ]
        d_loss = discriminator_loss(self.of_style, y, shown[0])
        d_loss = d_loss + discriminator_loss(self.of_content, x, shown[1])
        update(d_loss, self.optimizers[1])
        return {"D": d_loss.detach(), "G": g_loss.detach()}

    def generator_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What both generators minimise, and the translations of x and of y."""
        as_style, as_content = self.to_style(x), self.to_content(y)
        cycle = F.l1_loss(self.to_content(as_style), x) + F.l1_loss(self.to_style(as_content), y)
        identity = F.l1_loss(self.to_style(y), y) + F.l1_loss(self.to_content(x), x)
        adversarial = towards(self.of_style(as_style), 1) + towards(self.of_content(as_content), 1)
        return adversarial + CYCLE * (cycle + IDENTITY * identity), as_style, as_content


def towards(logits: Tensor, target: float) -> Tensor:
    """The least-squares loss of logits against 1 (real) or 0."""
    return F.mse_loss(logits, torch.full_like(logits, target))


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """½ [D(fake)² + (D(real) − 1)²]; ``fake`` gets no gradient."""
    of_fake = towards(discriminator(fake.detach()), 0)
    return (of_fake + towards(discriminator(real), 1)) / 2


@contextlib.contextmanager
def constant(network: nn.Module) -> Iterator[None]:
    """Within it the network's weights get no gradient."""
    network.requires_grad_(False)
    yield
    network.requires_grad_(True)


def _normalised(convolution: nn.Module, activation: nn.Module | None = None) -> list[nn.Module]:
    channels = convolution.out_channels
    return [convolution, nn.InstanceNorm2d(channels), activation or nn.ReLU(inplace=True)]


def _filters(taps: Sequence[float], channels: int) -> Tensor:
    row = torch.tensor(taps, dtype=torch.float32)
    return (row[:, None] * row).repeat(channels, 1, 1, 1)


def _start(network: nn.Module) -> None:
    """Xavier-normal weights with gain 0.02, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, gain=0.02)
            nn.init.zeros_(module.bias)


def _adam(config: FolderConfig, network: nn.Module) -> torch.optim.Adam:
    betas = config.beta1, config.beta2
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=betas)
