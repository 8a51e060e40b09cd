"""G of CUT: a ResNet with instance norm, half of it the encoder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.models.generator import Generator
from sincut.models.resnet_layers import (
    Convolution,
    Doubling,
    Halving,
    Layer,
    ResnetBlock,
    TransposedConvolution,
    instance_norm,
    not_rounded,
)

_PADDING = 3  # of the 7×7 convolutions
_FIRST_BLOCK = 12
_SMALLEST = 8  # pixels: the blocks' mirrors need two places


class ResnetGenerator(Generator):
    """7×7 convolution, two halvings, residual blocks, two doublings, 7×7 convolution, tanh.

    Encoder layers are numbered as the published code does: 0 is the image with its mirrored border
    of three pixels, 4 and 8 are the convolutions before the halvings (before their norms), 12, 13,
    … the residual blocks. The output is in [-1, 1].

    Every convolution but the last is followed by an instance norm, so that an output pixel depends
    on the whole image: through statistics on all of it, and through :attr:`halo` on a window.

    Args:
        channels: c, the width at full resolution; doubled by every halving.
        blocks: residual blocks (published: 9, or 6).
        blur_down, blur_up: halve behind, and double before, a convolution; otherwise it does so by
            its stride, as in networks trained with ``--no_antialias`` and ``--no_antialias_up``.
    """

    normalises = True
    borders = MappingProxyType({0: _PADDING})

    def __init__(
        self, channels: int, blocks: int = 9, *, blur_down: bool = True, blur_up: bool = True
    ) -> None:
        super().__init__()
        self.channels, self.blocks = channels, blocks
        self.blur_down, self.blur_up = blur_down, blur_up
        c, stride = channels, 1 if blur_down else 2
        self.first = Convolution(3, c, 2 * _PADDING + 1, border="reflect", biased=False)
        # These have biases: PatchNCE sees them before their norms.
        self.down1 = Convolution(c, 2 * c, 3, stride=stride)
        self.down2 = Convolution(2 * c, 4 * c, 3, stride=stride)
        self.residual = nn.ModuleList(ResnetBlock(4 * c) for _ in range(blocks))
        self.up1, self.up2 = (
            Convolution(a, b, 3, biased=False) if blur_up else TransposedConvolution(a, b)
            for a, b in ((4 * c, 2 * c), (2 * c, c))
        )
        self.last = Convolution(c, 3, 2 * _PADDING + 1, border="reflect")
        self.halving = Halving() if blur_down else nn.Identity()
        self.doubling = Doubling() if blur_up else nn.Identity()

    @property
    def arguments(self) -> dict[str, int | bool]:
        """What the generator was made with."""
        return {
            "channels": self.channels,
            "blocks": self.blocks,
            "blur_down": self.blur_down,
            "blur_up": self.blur_up,
        }

    @property
    def alignment(self) -> int:
        """As :attr:`Generator.alignment`."""
        return 4

    @property
    def path(self) -> list[Layer]:
        """As :attr:`Generator.path`."""
        return [*self.encoder, *self._of_blocks, *self.decoder]

    @property
    def _of_blocks(self) -> list[Layer]:
        return [conv for block in self.blocks_in_order for conv in (block.conv1, block.conv2)]

    @property
    def encoder(self) -> list[Layer]:
        """The layers before the blocks. Behind each convolution there is a norm and a ReLU."""
        halving = [cast(Layer, self.halving)] if self.blur_down else []
        return [self.first, self.down1, *halving, self.down2, *halving]

    @property
    def decoder(self) -> list[Layer]:
        """The layers behind the blocks. Behind each convolution but the last there is a norm and
        a ReLU."""
        doubling = [cast(Layer, self.doubling)] if self.blur_up else []
        return [*doubling, self.up1, *doubling, self.up2, self.last]

    @property
    def normalised(self) -> list[Layer]:
        """The convolutions that a norm follows: all but the last."""
        return [self.first, self.down1, self.down2, *self._of_blocks, self.up1, self.up2]

    @property
    def blocks_in_order(self) -> list[ResnetBlock]:
        """The residual blocks."""
        return [cast(ResnetBlock, block) for block in self.residual]

    @property
    def layer_channels(self) -> dict[int, int]:
        """As :attr:`Generator.layer_channels`."""
        c, blocks = self.channels, range(_FIRST_BLOCK, _FIRST_BLOCK + self.blocks)
        return {0: 3, 4: 2 * c, 8: 4 * c} | dict.fromkeys(blocks, 4 * c)

    @property
    def strides(self) -> dict[int, int]:
        """As :attr:`Generator.strides`."""
        blocks = range(_FIRST_BLOCK, _FIRST_BLOCK + self.blocks)
        two, four = (1, 2) if self.blur_down else (2, 4)
        return {0: 1, 4: two, 8: four} | dict.fromkeys(blocks, 4)

    def extended(self, side: int) -> int:
        """As :meth:`Generator.extended`; at least 8 pixels."""
        return max(super().extended(side), _SMALLEST)

    def generate(
        self,
        image: Tensor,
        noise: Sequence[Tensor] | None = None,
        layers: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`Generator.generate`; there is no noise, and the sides are at least 8 pixels."""
        image, passed = self._encode(image, layers)
        for up in (self.up1, self.up2):
            image = F.relu_(instance_norm(up(self.doubling(image))))
        # In bf16 the steps near ±1 would show.
        image = torch.tanh(not_rounded(self.last(image)))
        return image, [passed[layer] for layer in sorted(layers)]

    def _encode(
        self, image: Tensor, layers: Collection[int], stop: int | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The features behind layer ``stop``, or behind all blocks, and those of ``layers``."""
        passed: dict[int, Tensor] = {}
        if 0 in layers:
            passed[0] = F.pad(image, (_PADDING,) * 4, mode="reflect")
            if stop == 0:
                return image, passed
        image = F.relu_(instance_norm(self.first(image)))
        for layer, down in ((4, self.down1), (8, self.down2)):
            image = down(image)
            if layer in layers:
                passed[layer] = image
                if stop == layer:
                    return image, passed
            image = self.halving(F.relu_(instance_norm(image)))
        for layer, block in enumerate(self.residual, start=_FIRST_BLOCK):
            image = block(image)
            if layer in layers:
                passed[layer] = image
            if stop == layer:
                break
        return image, passed
