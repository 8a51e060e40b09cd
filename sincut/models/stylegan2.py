"""G of SinCUT: StyleGAN2's residual blocks, an encoder and a decoder."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.models.generator import Generator
from sincut.models.layers import ConvLayer, ResidualBlock, UpsamplingLayer


class StyleGAN2Generator(Generator):
    """StyleGAN2's residual blocks, without modulation and without normalisation over space.

    Encoder layers are numbered as the published code does: 0 the image itself, 1 a 1×1
    convolution 3 → c, then one residual block per downsampling (channels doubled) and half of
    the residual blocks; the decoder has the other half, one upsampling layer per downsampling and
    a 1×1 convolution to RGB with activation. The output is not clamped and may leave [-1, 1].

    Args:
        channels: c, the width at full resolution.
        blocks: residual blocks without downsampling, even; half of them in the decoder.
        downsamplings: how often the resolution is halved.
    """

    needed: ClassVar[frozenset[int]] = frozenset()  # encoder layers that the decoder's end reads

    def __init__(self, channels: int, blocks: int = 6, downsamplings: int = 1) -> None:
        super().__init__()
        self.channels, self.blocks, self.downsamplings = channels, blocks, downsamplings
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
        self.add_end()

    def add_end(self) -> None:
        """Make the layers at full resolution that the decoder ends with."""
        self.to_rgb = ConvLayer(self.channels, 3, 1)

    @property
    def end(self) -> list[ConvLayer]:
        """Those layers, in the order in which they read each other."""
        return [self.to_rgb]

    def ended(self, source: Tensor, decoded: Tensor, passed: Mapping[int, Tensor]) -> Tensor:
        """The output, from the input, the decoder's features and the :attr:`needed` layers."""
        return cast(Tensor, self.to_rgb(decoded))

    @property
    def arguments(self) -> dict[str, int]:
        """What the generator was made with."""
        return {
            "channels": self.channels,
            "blocks": self.blocks,
            "downsamplings": self.downsamplings,
        }

    @property
    def alignment(self) -> int:
        """As :attr:`Generator.alignment`."""
        return int(2**self.downsamplings)

    @property
    def path(self) -> list[ConvLayer]:
        """As :attr:`Generator.path`."""
        layers = (*self.encoder, *self.decoder, *self.upsampling, *self.end)
        return [cast(ConvLayer, layer) for layer in layers]

    @property
    def layer_channels(self) -> dict[int, int]:
        """As :attr:`Generator.layer_channels`."""
        widths = [self.channels * 2**level for level in range(self.downsamplings + 1)]
        return dict(enumerate([3, *widths, *[widths[-1]] * (self.blocks // 2)]))

    @property
    def strides(self) -> dict[int, int]:
        """As :attr:`Generator.strides`."""
        halved = [2 ** (level + 1) for level in range(self.downsamplings)]
        blocks = [2**self.downsamplings] * (self.blocks // 2)
        return dict(enumerate([1, 1, *halved, *blocks]))

    def generate(
        self,
        image: Tensor,
        noise: Sequence[Tensor] | None = None,
        layers: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`Generator.generate`."""
        source = image
        image, passed = self._encode(source, {*layers, *self.needed}, stop=len(self.encoder))
        for block in self.decoder:
            image = block(image)
        for level, layer in enumerate(self.upsampling):
            image = layer(image, noise[level] if noise is not None else None)
        return self.ended(source, image, passed), [passed[layer] for layer in sorted(layers)]

    @property
    def noise_shrinks(self) -> list[int]:
        """As :attr:`Generator.noise_shrinks`: one image per upsampling layer."""
        return [2**level for level in reversed(range(self.downsamplings))]

    def _encode(
        self, image: Tensor, layers: Collection[int], stop: int
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """As :meth:`Generator._encode`."""
        passed = {0: image} if 0 in layers else {}
        for number, layer in enumerate(self.encoder[:stop], start=1):
            image = layer(image)
            if number in layers:
                passed[number] = image
        return image, passed


class ColourCorrectingGenerator(StyleGAN2Generator):
    """A generator whose output is a correction to an affine map of colours (ours, for short runs).

    The decoder's features are joined with encoder layer 1 by a 3×3 convolution at full resolution,
    and what comes out of it is added to an affine map of the input's colours. Detail finer than the
    blurred upsampling can carry then comes from the input, and colours are right from the first
    step on (:meth:`set_colours`).
    """

    needed = frozenset({1})
    kept_bytes = 8

    def add_end(self) -> None:
        """As :meth:`StyleGAN2Generator.add_end`."""
        self.join = ConvLayer(self.channels, self.channels, 3, gain=1 / math.sqrt(2))
        # A tenth of the usual gain: at first the correction is small.
        self.to_rgb = ConvLayer(self.channels, 3, 1, activate=False, gain=0.1)
        self.colours = nn.Parameter(torch.eye(3)[:, :, None, None].clone())
        self.offset = nn.Parameter(torch.zeros(3))

    @property
    def end(self) -> list[ConvLayer]:
        """As :attr:`StyleGAN2Generator.end`."""
        return [self.join, self.to_rgb]

    def ended(self, source: Tensor, decoded: Tensor, passed: Mapping[int, Tensor]) -> Tensor:
        """As :meth:`StyleGAN2Generator.ended`."""
        correction = self.to_rgb(self.join(decoded + passed[1]))
        with torch.autocast(source.device.type, enabled=False):  # bf16 would show as bands
            recoloured = F.conv2d(source, self.colours, self.offset)
        return cast(Tensor, recoloured + correction.to(source.dtype))

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
