"""Layers of G and D: StyleGAN2's parts without modulation.

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
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.kernels.bias_act import bias_act_
from sincut.kernels.blur import blur
from sincut.kernels.convolution import convolution
from sincut.models.weights import Weighted

ACTIVATION_GAIN = math.sqrt(2)
NEGATIVE_SLOPE = 0.2


class Blur(nn.Module):
    """Low-pass filter [1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 64 · gain on every channel, zero padding."""

    def __init__(self, padding: int, *, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.padding, self.stride, self.gain = padding, stride, gain

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, (H + 2·padding − 4) // stride + 1, …)."""
        return blur(image, padding=self.padding, stride=self.stride, gain=self.gain)


class ConvLayer(Weighted):
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

    def forward(
        self, image: Tensor, residual: Tensor | None = None, residual_gain: float = 1.0
    ) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H, W), or (…, H/2, W/2) with ``down``; with a residual of
        that shape, its sum with that times its gain."""
        # In place: what a convolution gives is needed by nobody else, forwards or backwards.
        if self.bias is not None and image.is_cuda:  # cuDNN adds a bias in a pass of its own
            return bias_act_(
                self._convolved(image, None),
                self.bias,
                bias_scale=self.gain,
                residual=residual,
                residual_scale=residual_gain,
            )
        image = self._convolved(image, self.bias * self.gain if self.bias is not None else None)
        image = F.leaky_relu_(image, NEGATIVE_SLOPE) if self.activate else image
        return image if residual is None else torch.add(image, residual, alpha=residual_gain)

    def _convolved(self, image: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.scaled_weight
        if self.blur is None:
            return convolution(image, weight, bias, padding=self.kernel // 2)
        return convolution(self.blur(image), weight, bias, stride=self.stride)

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
        residual, gain = (image, self.skip_gain) if self.skip is None else (self.skip(image), 1.0)
        return cast(Tensor, self.conv2(self.conv1(image), residual, gain))

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


class EqualizedLinear(Weighted):
    """Linear layer with equalised learning rate and a bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.weight_gain = 1 / math.sqrt(in_features)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, in) → (N, out)."""
        return F.linear(rows, self.scaled_weight, self.bias)
