"""Generator, discriminator and projection head of SinCUT: StyleGAN2's parts without modulation.

Numbers are the published code's unless a comment says otherwise. Images are (N, 3, H, W) of about
[-1, 1]. Conventions shared by all layers:

- *Equalised learning rate*: weights are drawn from N(0, 1) and scaled by 1/√fan_in at run time.
- The activation is a leaky ReLU (slope 0.2) times √2. It is positively homogeneous, so that gain,
  and the 1/√2 of a residual sum, are folded into weights and biases: the same function, two passes
  over the activations fewer.
- Everything pads with zeros inside. Nothing normalises across space, so an output pixel depends on
  a bounded window of the input; every layer tells through ``reads`` which one, and from that the
  generator computes its halo.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.kernels.bias_act import bias_act_
from sincut.kernels.blur import blur
from sincut.kernels.position_noise import position_noise
from sincut.textures import TextureEnergies, Whitening

ACTIVATION_GAIN = math.sqrt(2)
NEGATIVE_SLOPE = 0.2
_TEXTURE_WIDTH = 64


class Blur(nn.Module):
    """Low-pass filter [1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 64 · gain on every channel, zero padding."""

    def __init__(self, padding: int, *, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.padding, self.stride, self.gain = padding, stride, gain

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, (H + 2·padding − 3) / stride, …)."""
        return blur(image, padding=self.padding, stride=self.stride, gain=self.gain)


class ConvLayer(nn.Module):
    """Convolution, bias, activation; blurred and halved in size where ``down`` is set.

    ``gain`` multiplies the output. Without activation (the skip path) there is no bias either.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        down: bool = False,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.kernel, self.activate = kernel, activate
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if activate else None
        self.gain = gain * ACTIVATION_GAIN if activate else gain
        self.weight_gain = self.gain / math.sqrt(in_channels * kernel**2)
        # A 1×1 convolution of every second pixel (the skip) needs only those pixels blurred. With
        # these paddings sides come out exactly halved.
        self.stride = 2 if down and kernel == 3 else 1
        self.blur = (Blur(2) if kernel == 3 else Blur(1, stride=2)) if down else None

    def forward(self, image: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H, W), or (…, H/2, W/2) with ``down``."""
        # In place: what a convolution gives is needed by nobody else, forwards or backwards.
        if self.bias is not None and image.is_cuda:  # cuDNN adds a bias in a pass of its own
            image = self._convolved(image, self.weight, None)
            return bias_act_(image, self.bias, scale=self.weight_gain, bias_scale=self.gain)
        bias = self.bias * self.gain if self.bias is not None else None
        image = self._convolved(image, self.weight * self.weight_gain, bias)
        return F.leaky_relu_(image, NEGATIVE_SLOPE) if self.activate else image

    def _convolved(self, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.blur is None:
            return F.conv2d(image, weight, bias, padding=self.kernel // 2)
        return F.conv2d(self.blur(image), weight, bias, stride=self.stride)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The inputs that outputs ``first … last`` of one axis depend on (both inclusive)."""
        if self.blur is None:
            return first - self.kernel // 2, last + self.kernel // 2
        first, last = 2 * first, 2 * last + self.kernel - 1  # of the blurred image
        return first - self.blur.padding, last - self.blur.padding + 3


class ResidualBlock(nn.Module):
    """(conv2(conv1(x)) + skip(x)) / √2; the skip is a 1×1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, *, down: bool = False) -> None:
        super().__init__()
        gain = 1 / math.sqrt(2)
        self.conv1 = ConvLayer(in_channels, in_channels, 3)
        self.conv2 = ConvLayer(in_channels, out_channels, 3, down=down, gain=gain)
        self.skip_gain = gain
        self.skip = (
            ConvLayer(in_channels, out_channels, 1, down=down, activate=False, gain=gain)
            if down or in_channels != out_channels
            else None
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H, W), or (…, H/2, W/2) with ``down``."""
        branch = self.conv2(self.conv1(image))
        if self.skip is None:
            return torch.add(branch, image, alpha=self.skip_gain)
        return cast(Tensor, branch + self.skip(image))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`ConvLayer.reads`."""
        branch = self.conv1.reads(*self.conv2.reads(first, last))
        skip = self.skip.reads(first, last) if self.skip is not None else (first, last)
        return min(branch[0], skip[0]), max(branch[1], skip[1])


class UpsamplingLayer(nn.Module):
    """Demodulated 3×3 transposed convolution, blur, noise, bias, activation; sides doubled.

    The published layer is a modulated convolution whose style is constantly one. What is left of
    the modulation is that each output filter is divided by its L2 norm, the same for every image,
    so it is an ordinary convolution here instead of a grouped one.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_weight = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.blur = Blur(1, gain=4.0)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, 2H, 2W); ``noise`` is (N or 1, 1, 2H, 2W) or absent."""
        norm = self.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        weight = self.weight / norm * ACTIVATION_GAIN
        image = self.blur(F.conv_transpose2d(image, weight.transpose(0, 1), stride=2))
        if image.is_cuda:
            strength = self.noise_weight * ACTIVATION_GAIN if noise is not None else None
            return bias_act_(
                image, self.bias, bias_scale=ACTIVATION_GAIN, noise=noise, strength=strength
            )
        # One after the other: a sum of both would be as large as the image, in float32.
        image.add_((self.bias * ACTIVATION_GAIN).to(image.dtype)[:, None, None])
        if noise is not None:
            image.add_((self.noise_weight * ACTIVATION_GAIN * noise).to(image.dtype))
        return F.leaky_relu_(image, NEGATIVE_SLOPE)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`ConvLayer.reads`: the blur reads [j − 1, j + 2], j = 2i + (0 … 2)."""
        return (first - 1 - 1) // 2, (last + 2) // 2


class Generator(nn.Module):
    """G = decoder ∘ encoder.

    Encoder layers are numbered as the published code does: 0 the image itself, 1 a 1×1
    convolution 3 → c, then one residual block per downsampling (channels doubled) and half of
    the residual blocks; the decoder has the other half, one upsampling layer per downsampling and
    a 1×1 convolution to RGB with activation. The output is not clamped and may leave [-1, 1].

    With ``correction`` (ours, for short runs) the decoder ends differently: its features are joined
    with encoder layer 1 by a 3×3 convolution at full resolution, and what comes out of it is a
    correction to an affine map of the input's colours. Detail finer than the blurred upsampling can
    carry then comes from the input, and colours are right from the first step on
    (:meth:`set_colours`).

    Args:
        channels: c, the width at full resolution.
        blocks: residual blocks without downsampling, even; half of them in the decoder.
        downsamplings: how often the resolution is halved.
        correction: whether the output is a correction to an affine map of the input.
    """

    def __init__(
        self, channels: int, blocks: int = 6, downsamplings: int = 1, correction: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.blocks, self.downsamplings = channels, blocks, downsamplings
        self.correction = correction
        widths = [channels * 2**level for level in range(downsamplings + 1)]
        wide = widths[-1]
        self.encoder = nn.ModuleList(
            [
                ConvLayer(3, channels, 1),
                *(ResidualBlock(a, b, down=True) for a, b in pairwise(widths)),
                *(ResidualBlock(wide, wide) for _ in range(blocks // 2)),
            ]
        )
        self.decoder = nn.ModuleList(ResidualBlock(wide, wide) for _ in range(blocks // 2))
        self.upsampling = nn.ModuleList(
            UpsamplingLayer(b, a) for a, b in reversed(list(pairwise(widths)))
        )
        if correction:
            self.join = ConvLayer(channels, channels, 3, gain=1 / math.sqrt(2))
            # A tenth of the usual gain: at first the correction is small.
            self.to_rgb = ConvLayer(channels, 3, 1, activate=False, gain=0.1)
            self.colours = nn.Parameter(torch.eye(3)[:, :, None, None].clone())
            self.offset = nn.Parameter(torch.zeros(3))
        else:
            self.to_rgb = ConvLayer(channels, 3, 1)

    @property
    def alignment(self) -> int:
        """Windows of the image must start at, and be as long as, a multiple of this."""
        return int(2**self.downsamplings)

    @property
    def halo(self) -> int:
        """Input pixels on each side of an output pixel that it can depend on, from the layers."""
        layers = [*self.encoder, *self.decoder, *self.upsampling]
        layers += [self.join, self.to_rgb] if self.correction else [self.to_rgb]
        reach = 0
        for phase in range(self.alignment):
            first = last = phase
            for layer in reversed(layers):
                first, last = cast(ConvLayer, layer).reads(first, last)
            reach = max(reach, phase - first, last - phase)
        return reach

    @property
    def layer_channels(self) -> list[int]:
        """Channels of encoder layers 0, 1, 2, …"""
        widths = [self.channels * 2**level for level in range(self.downsamplings + 1)]
        return [3, *widths, *[widths[-1]] * (self.blocks // 2)]

    def encode(self, image: Tensor, layers: Collection[int]) -> list[Tensor]:
        """Features of the named encoder layers, in rising order; stops at the last one named."""
        passed = self._encode(image, layers, stop=max(layers))[1]
        return [passed[layer] for layer in sorted(layers)]

    def generate(
        self,
        image: Tensor,
        noise: Sequence[Tensor] | None = None,
        layers: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Translate, and hand out the encoder features passed on the way.

        ``image`` is (N, 3, H, W) with sides that are multiples of :attr:`alignment`; ``noise`` as
        :meth:`position_noise` makes it, or fresh numbers of :meth:`noise_shapes`.
        """
        source = image
        kept = {*layers, 1} if self.correction else layers
        image, passed = self._encode(source, kept, stop=len(self.encoder))
        for block in self.decoder:
            image = block(image)
        for level, layer in enumerate(self.upsampling):
            image = layer(image, noise[level] if noise is not None else None)
        features = [passed[layer] for layer in sorted(layers)]
        if not self.correction:
            return self.to_rgb(image), features
        correction = self.to_rgb(self.join(image + passed[1]))
        with torch.autocast(source.device.type, enabled=False):  # bf16 would show as bands
            recoloured = F.conv2d(source, self.colours, self.offset)
        return recoloured + correction.to(source.dtype), features

    @torch.no_grad()
    def set_colours(self, matrix: Tensor, offset: Tensor) -> None:
        """Start from this affine map of colours in [-1, 1]: matrix (3, 3), offset (3,)."""
        self.colours.copy_(matrix[:, :, None, None])
        self.offset.copy_(offset)

    @torch.no_grad()
    def change_colours(self, matrix: Tensor, offset: Tensor) -> None:
        """Follow the output by an affine map of colours in [-1, 1], as a part of the weights."""
        matrix, offset = (each.to(self.offset) for each in (matrix, offset))
        for weight in (self.colours, self.to_rgb.weight):
            weight.copy_(torch.einsum("ij,jchw->ichw", matrix, weight))
        self.offset.copy_(matrix @ self.offset + offset)

    def forward(self, image: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """(N, 3, H, W) of about [-1, 1] → the same shape, not clamped, any size of at least 1.

        Sides that are not a multiple of :attr:`alignment` are extended by their last row or
        column and cut again.
        """
        height, width = image.shape[-2:]
        bottom, right = -height % self.alignment, -width % self.alignment
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom), mode="replicate")
        return self.generate(image, noise)[0][..., :height, :width]

    def position_noise(
        self, seed: int, top: int, left: int, height: int, width: int, device: torch.device
    ) -> list[Tensor]:
        """Noise for a window at absolute (top, left), the same wherever the window's edges are."""
        shrinks = [2**level for level in reversed(range(self.downsamplings))]
        return [
            position_noise(seed, level, top // s, left // s, height // s, width // s, device)
            for level, s in enumerate(shrinks)
        ]

    def noise_shapes(self, images: Tensor) -> list[tuple[int, int, int, int]]:
        """The noise that a batch of (N, 3, H, W) crops takes, one image per upsampling layer."""
        count, _, height, width = images.shape
        shrinks = [2**level for level in reversed(range(self.downsamplings))]
        return [(count, 1, height // s, width // s) for s in shrinks]

    def _encode(
        self, image: Tensor, layers: Collection[int], stop: int
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The output of encoder layer ``stop``, and those of ``layers`` on the way by number."""
        passed = {0: image} if 0 in layers else {}
        for number, layer in enumerate(self.encoder[:stop], start=1):
            image = layer(image)
            if number in layers:
                passed[number] = image
        return image, passed


class Discriminator(nn.Module):
    """StyleGAN2's residual discriminator for ``size``×``size`` tiles, without minibatch statistics.

    A second one can go with it (ours): a small perceptron, with PyTorch's own weights and learning
    rate, that judges the energies of textures.

    Args:
        channels: width at full resolution; doubled by every downsampling up to ``max_channels``.
        size: side of a tile, a power of two of at least 8; the blocks go down to 4×4.
        whiten: whether it sees tiles through :class:`sincut.textures.Whitening` (ours).
        textures: whether a second discriminator of :class:`sincut.textures.TextureEnergies` goes
            with it (ours).
    """

    def __init__(
        self,
        channels: int = 32,
        size: int = 64,
        max_channels: int = 384,
        *,
        whiten: bool = False,
        textures: bool = False,
    ) -> None:
        super().__init__()
        self.whitening = Whitening() if whiten else None
        levels = int(math.log2(size)) - 2
        widths = [min(channels * 2**level, max_channels) for level in range(levels + 1)]
        self.from_rgb = ConvLayer(6 if whiten else 3, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, down=True) for a, b in pairwise(widths)))
        self.conv = ConvLayer(widths[-1], widths[-1], 3)
        self.hidden = EqualizedLinear(widths[-1] * 16, widths[-1])
        self.logit = EqualizedLinear(widths[-1], 1)
        self.textures: TextureEnergies | None = None
        if textures:
            self.textures = TextureEnergies()
            self.texture_head = nn.Sequential(
                nn.Linear(self.textures.count, _TEXTURE_WIDTH),
                nn.LeakyReLU(NEGATIVE_SLOPE),
                nn.Linear(_TEXTURE_WIDTH, 1),
            )

    def fit(self, crops: Tensor) -> None:
        """Learn the fixed filters' statistics from many crops of the style, (N, 3, S, S)."""
        for module in (self.whitening, self.textures):
            if module is not None:
                module.fit(crops)

    def view(self, crops: Tensor) -> Tensor:
        """What tiles are cut from: the crops (N, 3, S, S) themselves, or (N, 6, S, S) whitened."""
        return crops if self.whitening is None else self.whitening(crops)

    def energies(self, crops: Tensor) -> Tensor:
        """What :meth:`judge_energies` is given: one row for each cell of crops (N, 3, S, S)."""
        assert self.textures is not None
        return cast(Tensor, self.textures(crops))

    def judge_energies(self, energies: Tensor) -> Tensor:
        """(cells, features) → (cells, 1) logits, float32, as :meth:`forward`'s."""
        with torch.autocast(energies.device.type, enabled=False):
            return cast(Tensor, self.texture_head(energies))

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3 or 6, size, size) → (N, 1) logits, float32: large for real, small for fake."""
        features = self.conv(self.blocks(self.from_rgb(tiles)))
        hidden = F.leaky_relu(self.hidden(features.flatten(1)), NEGATIVE_SLOPE) * ACTIVATION_GAIN
        return cast(Tensor, self.logit(hidden)).float()


class EqualizedLinear(nn.Module):
    """Linear layer with equalised learning rate and a bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.gain = 1 / math.sqrt(in_features)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, in) → (N, out)."""
        return F.linear(rows, self.weight * self.gain, self.bias)


class PatchProjector(nn.Module):
    """H: one two-layer perceptron per encoder layer, applied at sampled positions.

    The rows are *not* normalised here; the contrastive loss does that. Weights are Xavier-normal
    with gain 0.02, biases 0, as published.
    """

    def __init__(self, layer_channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
            for channels in layer_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Features (N, C, H, W) and flat positions (P,) per layer → rows (N·P, width) per layer.

        The same positions are taken from every image; rows of one image are consecutive.
        """
        return [
            head(feature.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, where).flatten(0, 1))
            for head, feature, where in zip(self.heads, features, positions, strict=True)
        ]
