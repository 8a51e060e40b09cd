"""Layers of CUT's networks: convolutions with biases, instance norm, blurs instead of strides.

Numbers are the published code's. Images are (N, 3, H, W) of about [-1, 1].

- *Start*: weights are Xavier-normal with gain 0.02, biases 0.
- *Instance norm*: per image and channel over all positions, without weights of its own and without
  running statistics, so training and translating are the same. A bias that only such a norm reads
  has no influence, and is left out.
- *Blurs*: sides are halved by a filter [1, 2, 1] behind a convolution of full resolution, and
  doubled by bilinear interpolation before one. The first published networks had strides instead;
  they can be built for files that hold them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.models.weights import Weighted

NORM_EPSILON = 1e-5
NEGATIVE_SLOPE = 0.2
_GAIN = 0.02


@dataclass(frozen=True)
class Piece:
    """Outputs ``first … last`` (both inclusive) of a layer along one axis, which has ``length``
    inputs."""

    first: int
    last: int
    length: int


class Layer(nn.Module, ABC):
    """A layer that can be applied to a window of an image, as if the whole image were there."""

    @abstractmethod
    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The inputs that outputs ``first … last`` of one axis depend on (both inclusive); they may
        lie beyond the image."""

    @abstractmethod
    def outputs(self, length: int) -> int:
        """How many outputs ``length`` inputs of one axis have."""

    @abstractmethod
    def windowed(self, image: Tensor, rows: Piece, columns: Piece) -> Tensor:
        """The wanted part of what the whole image would give.

        ``image`` holds of the input what :meth:`reads` names, as far as it lies in the image: true
        neighbours inside, and only at the image's border what the layer puts beyond it.
        """

    def bordered(self, image: Tensor, rows: Piece, columns: Piece, mode: str) -> Tensor:
        """The window with what lies beyond the image, as ``torch.nn.functional.pad`` calls it."""
        beyond: list[int] = []
        for piece in (columns, rows):
            first, last = self.reads(piece.first, piece.last)
            beyond += max(-first, 0), max(last + 1 - piece.length, 0)
        return F.pad(image, beyond, mode=mode) if any(beyond) else image


def pieces(
    layers: Sequence[Layer], first: int, last: int, length: int
) -> tuple[list[Piece], int, int]:
    """What each of some layers in a row has to give for outputs ``first … last`` of the last one.

    Args:
        length: inputs of the first layer along this axis.

    Returns:
        a piece for every layer, and the first and last input that is read (both inclusive).
    """
    lengths = [length]
    for layer in layers:
        lengths.append(layer.outputs(lengths[-1]))
    found = []
    for layer, inputs in zip(reversed(layers), lengths[-2::-1], strict=True):
        found.append(Piece(first, last, inputs))
        first, last = layer.reads(first, last)
        first, last = max(first, 0), min(last, inputs - 1)
    return found[::-1], first, last


def instance_norm(image: Tensor) -> Tensor:
    """(N, C, H, W) → the same with mean 0 and variance 1 (biased, ε 1e-5) per image and channel.

    It is a batch norm of one image at a time, channels last. PyTorch 2.13 on a CPU has wrong
    gradients for other ways to write it: ``instance_norm`` of one image whose incoming gradient
    lies channels last, and ``batch_norm`` of ``image[0][None]``. And its ``batch_norm`` sums
    channels-last float32 one by one: the output is off by 4e-6 for 150² positions, and by 4e-3 for
    2000². Where no gradient is wanted, which is where images are large, the statistics are taken
    before.
    """
    if not image.requires_grad and image.dtype == torch.float32 and not image.is_cuda:
        variance, mean = torch.var_mean(image, (2, 3), correction=0)
        places = image.flatten(0, 1)[None]
        normed = F.batch_norm(places, mean.flatten(), variance.flatten(), eps=NORM_EPSILON)
        return normed.view_as(image)
    image = image.contiguous(memory_format=torch.channels_last)
    # The gradient of parts of a split is put together once, that of slices one by one.
    images = torch.split(image, 1) if len(image) > 1 else (image,)
    each = [F.batch_norm(one, None, None, training=True, eps=NORM_EPSILON) for one in images]
    return each[0] if len(each) == 1 else torch.cat(each)


def mirrored_border(image: Tensor, width: int) -> Tensor:
    """The image with its mirror beyond it.

    On a CPU autocast would take it to float32 and, for the convolution behind, back.
    """
    kind = image.device.type
    rounded = torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if rounded else nullcontext():
        return F.pad(image, (width,) * 4, mode="reflect")


def not_rounded(image: Tensor) -> Tensor:
    """In float32 what autocast made in half precision."""
    return image if image.dtype == torch.float64 else image.float()


class Convolution(Weighted, Layer):
    """A convolution that keeps the sides, or halves them with ``stride`` 2.

    Args:
        border: what stands beyond the image, ``"reflect"`` its mirror or ``"zeros"``.
        padding: pixels of it on every side; by default half of the kernel.
        biased: whether it has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        border: str = "zeros",
        padding: int | None = None,
        stride: int = 1,
        biased: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.border, self.stride = kernel, border, stride
        self.padding = kernel // 2 if padding is None else padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if biased else None
        nn.init.xavier_normal_(self.weight, gain=_GAIN)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W')."""
        padding = self.padding
        if self.border == "reflect":
            image, padding = mirrored_border(image, padding), 0
        return F.conv2d(image, self.scaled_weight, self.bias, self.stride, padding)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Layer.reads`."""
        reach = self.kernel - 1 - self.padding
        return self.stride * first - self.padding, self.stride * last + reach

    def outputs(self, length: int) -> int:
        """As :meth:`Layer.outputs`."""
        return (length + 2 * self.padding - self.kernel) // self.stride + 1

    def windowed(self, image: Tensor, rows: Piece, columns: Piece) -> Tensor:
        """As :meth:`Layer.windowed`."""
        mode = "reflect" if self.border == "reflect" else "constant"
        image = self.bordered(image, rows, columns, mode)
        return F.conv2d(image, self.scaled_weight, self.bias, self.stride)


class TransposedConvolution(Weighted, Layer):
    """A transposed 3×3 convolution of stride 2: sides doubled, zeros beyond the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        nn.init.xavier_normal_(self.weight, gain=_GAIN)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, 2H, 2W)."""
        return F.conv_transpose2d(image, self.scaled_weight, None, 2, 1, output_padding=1)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Layer.reads`."""
        return first // 2, (last + 1) // 2

    def outputs(self, length: int) -> int:
        """As :meth:`Layer.outputs`."""
        return 2 * length

    def windowed(self, image: Tensor, rows: Piece, columns: Piece) -> Tensor:
        """As :meth:`Layer.windowed`."""
        return _doubled(self, image, rows, columns)


class Halving(Layer):
    """[1, 2, 1] ⊗ [1, 2, 1] / 16 at positions 0, 2, 4, …; beyond the image its mirror."""

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        if image.is_cuda or not image.requires_grad:
            return _halved(image)
        halved: Tensor = _Halved.apply(image)  # type: ignore[no-untyped-call]
        return halved

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Layer.reads`."""
        return 2 * first - 1, 2 * last + 1

    def outputs(self, length: int) -> int:
        """As :meth:`Layer.outputs`."""
        return (length + 1) // 2

    def windowed(self, image: Tensor, rows: Piece, columns: Piece) -> Tensor:
        """As :meth:`Layer.windowed`."""
        return _filtered(self.bordered(image, rows, columns, "reflect"))


def _halved(image: Tensor) -> Tensor:
    """What :class:`Halving` gives."""
    return _filtered(mirrored_border(image, 1))


def _filtered(image: Tensor) -> Tensor:
    """Halved, of an image with its border of one pixel."""
    if image.is_cuda:  # the same as means of means; cuDNN's depthwise kernels are slow
        return F.avg_pool2d(F.avg_pool2d(image, 2, stride=1), 2, stride=2)
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype) / 4
    channels = image.shape[1]
    filters = (taps[:, None] * taps).expand(channels, 1, 3, 3)
    return F.conv2d(image, filters, stride=2, groups=channels)


class _Halved(torch.autograd.Function):
    """Halving whose gradient on a CPU is not the depthwise convolution's, which is slow in bf16."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        ctx.sides = image.shape[2:]
        return _halved(image)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        spread: Tensor = _Spread.apply(gradient, *ctx.sides)  # type: ignore[no-untyped-call]
        return spread


class _Spread(torch.autograd.Function):
    """The adjoint of halving: position 2i gets ½ of gradient i, 2i + 1 gets ¼ of i and of i + 1.

    Along both axes, so it is an interpolation. What falls on the mirror is added to what it shows.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, height: int, width: int) -> Tensor:
        odd = height % 2, width % 2
        # Behind the last position of an even side there is nothing.
        gradient = F.pad(gradient / 4, (0, 1 - odd[1], 0, 1 - odd[0]))
        sides = [2 * side - 1 for side in gradient.shape[2:]]
        spread = F.interpolate(gradient, sides, mode="bilinear", align_corners=True)
        spread = spread[..., :height, :width]
        for axis in (2, 3):
            spread.select(axis, 1).add_(spread.select(axis, 0), alpha=0.5)
            if odd[axis - 2]:
                spread.select(axis, -2).add_(spread.select(axis, -1), alpha=0.5)
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        halved: Tensor = _Halved.apply(gradient)  # type: ignore[no-untyped-call]
        return halved, None, None


class Doubling(Layer):
    """Bilinear interpolation at half-pixel centres, which is the published transposed convolution
    with [1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 16; beyond the image its outermost pixels."""

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 2H, 2W)."""
        return F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Layer.reads`."""
        return (first - 1) // 2, (last + 1) // 2

    def outputs(self, length: int) -> int:
        """As :meth:`Layer.outputs`."""
        return 2 * length

    def windowed(self, image: Tensor, rows: Piece, columns: Piece) -> Tensor:
        """As :meth:`Layer.windowed`."""
        return _doubled(self, image, rows, columns)


def _doubled(layer: Layer, image: Tensor, rows: Piece, columns: Piece) -> Tensor:
    """The wanted part of a doubled window: its edges that lie inside the image are not right."""
    wanted = []
    for piece in (rows, columns):
        start = 2 * max(layer.reads(piece.first, piece.last)[0], 0)
        wanted.append(slice(piece.first - start, piece.last + 1 - start))
    doubled: Tensor = layer(image)
    return doubled[..., wanted[0], wanted[1]]


class ResnetBlock(nn.Module):
    """x + norm(conv2(relu(norm(conv1(x))))), with mirrors beyond the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels, 3, border="reflect", biased=False)
        self.conv2 = Convolution(channels, channels, 3, border="reflect", biased=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return image + instance_norm(self.conv2(F.relu_(instance_norm(self.conv1(image)))))
