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

from contextlib import nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-5
NEGATIVE_SLOPE = 0.2
_GAIN = 0.02


class Layer(Protocol):
    """What every layer tells of itself."""

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The inputs that outputs ``first … last`` of one axis depend on (both inclusive)."""
        ...


def instance_norm(image: Tensor) -> Tensor:
    """(N, C, H, W) → the same with mean 0 and variance 1 (biased, ε 1e-5) per image and channel.

    It is a batch norm of one image at a time, channels last. PyTorch 2.13 on a CPU has wrong
    gradients for other ways to write it: ``instance_norm`` of one image whose incoming gradient
    lies channels last, and ``batch_norm`` of ``image[0][None]``.
    """
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


class Convolution(nn.Module):
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
        return F.conv2d(image, self.weight, self.bias, self.stride, padding)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The inputs that outputs ``first … last`` of one axis depend on (both inclusive)."""
        reach = self.kernel - 1 - self.padding
        return self.stride * first - self.padding, self.stride * last + reach


class TransposedConvolution(nn.Module):
    """A transposed 3×3 convolution of stride 2: sides doubled, zeros beyond the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        nn.init.xavier_normal_(self.weight, gain=_GAIN)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, 2H, 2W)."""
        return F.conv_transpose2d(image, self.weight, None, 2, 1, output_padding=1)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Convolution.reads`."""
        return first // 2, (last + 1) // 2


class Halving(nn.Module):
    """[1, 2, 1] ⊗ [1, 2, 1] / 16 at positions 0, 2, 4, …; beyond the image its mirror."""

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        if image.is_cuda:  # the same as means of means; cuDNN's depthwise kernels are slow
            image = mirrored_border(image, 1)
            return F.avg_pool2d(F.avg_pool2d(image, 2, stride=1), 2, stride=2)
        if not image.requires_grad:
            return _halved(image)
        halved: Tensor = _Halved.apply(image)  # type: ignore[no-untyped-call]
        return halved

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Convolution.reads`."""
        return 2 * first - 1, 2 * last + 1


def _halved(image: Tensor) -> Tensor:
    """:class:`Halving` as a depthwise convolution."""
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype) / 4
    channels = image.shape[1]
    filters = (taps[:, None] * taps).expand(channels, 1, 3, 3)
    return F.conv2d(mirrored_border(image, 1), filters, stride=2, groups=channels)


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


class Doubling(nn.Module):
    """Bilinear interpolation at half-pixel centres, which is the published transposed convolution
    with [1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 16; beyond the image its outermost pixels."""

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 2H, 2W)."""
        return F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Convolution.reads`."""
        return (first - 1) // 2, (last + 1) // 2


class ResnetBlock(nn.Module):
    """x + norm(conv2(relu(norm(conv1(x))))), with mirrors beyond the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels, 3, border="reflect", biased=False)
        self.conv2 = Convolution(channels, channels, 3, border="reflect", biased=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return image + instance_norm(self.conv2(F.relu_(instance_norm(self.conv1(image)))))

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Convolution.reads`."""
        return self.conv1.reads(*self.conv2.reads(first, last))
