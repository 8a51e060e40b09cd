"""Tiles that equal the whole image of a network that normalises over the whole image.

Every convolution of the ResNet but the last is followed by an instance norm, whose mean and
variance are over all positions. They are found first, pass by pass, so that no more than a window
is at work at a time; then every tile of the output can be made by itself:

1. the encoder's norms, from the image: a pass over it for each convolution, which recomputes what
   lies before, and one more that keeps the features behind the second halving, a sixteenth of the
   places;
2. the blocks' norms, convolution by convolution over what is kept: x, and the latest convolution's
   output, each changed in place from top to bottom. A block's sum is made in the next one's pass;
3. the decoder's norms, a pass for each, from what is kept;
4. the tiles, from what is kept.

Windows have true neighbours inside, and what the network itself puts there beyond the image. All of
it is the work of about two forwards. Where the whole image fits into memory it is one forward, of
which tiles are cut.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sincut.compute.devices import convolutions, mixed_precision
from sincut.compute.memory import unless_memory_ends
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.models.resnet import ResnetGenerator
from sincut.models.resnet_layers import (
    NORM_EPSILON,
    Convolution,
    Layer,
    Piece,
    not_rounded,
    pieces,
)
from sincut.translation.network import Network, device_bytes
from sincut.translation.operators import Opened, Operator, Preparation
from sincut.translation.pixels import as_network
from sincut.translation.scratch import Scratch, in_memory, new_scratch, scratch_bytes
from sincut.translation.tiling import Span, Tile, align_up, halved, tiles

Array = npt.NDArray[Any]

STEP = 4  # pixels of the image to a kept feature
_SMALLEST = 32  # pixels: a window of this side that does not fit will not fit in halves either
_SLAB = 256  # rows of an image that are read at a time where all of it is wanted
_BAND_BYTES = 32_000_000  # of kept features that a pass over them works on, about
REACH = 20  # pixels of the image that windows of the encoder or the decoder read at most
# Bytes that a window takes at the peak on a CPU, by pixel and channel of G, and what does not grow
# with it; measured for 4 to 64 channels, with a margin of about a tenth. Of tensors below 32 MB the
# allocator keeps more, up to an amount.
_BYTES_PER_CHANNEL, _BYTES_PER_PIXEL, _BYTES_ONCE = 29, 100, 90_000_000
_FREED_PER_CHANNEL, _FREED_BYTES = 44, 200_000_000
_TRAVELLING_BYTES = 32  # by pixel, of the host's memory where a device computes
# Bands at once, and rows beside them, that a pass over what is kept takes, as measured.
_BANDS, _BAND_EDGES = 10, 8
_REHEARSED = 256  # pixels: side of a window that is timed
_SUMMED = 1 << 14  # places that are summed at a time: their float64 stays in the cache


@dataclass(frozen=True)
class Norm:
    """An instance norm whose statistics are known: scale · x + shift, both (C, 1, 1)."""

    scale: Tensor
    shift: Tensor

    def __call__(self, image: Tensor) -> Tensor:
        """In place, and returned."""
        return torch.addcmul(self.shift, image, self.scale, out=image)


class Moments:
    """Sums of x and x² over all positions, by channel: in float64, so that their order does not
    matter, and on the device."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, image: Tensor) -> None:
        """Take (1, C, rows, columns); where memory ends, nothing of it."""
        values = image[0].permute(1, 2, 0).flatten(0, 1)
        sums = torch.zeros((2, values.shape[1]), dtype=torch.float64, device=image.device)
        for part in torch.split(values, _SUMMED):
            exact = part.double()
            sums[0] += exact.sum(0)
            sums[1] += (exact * exact).sum(0)
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += len(values)

    @property
    def sums(self) -> npt.NDArray[np.float64]:
        """(2 C + 1): sums of x, of x², and how many positions were taken."""
        assert self._sums is not None
        return np.append(self._sums.cpu().numpy().ravel(), float(self._count))

    @classmethod
    def of(cls, parts: Sequence[npt.NDArray[np.float64]], device: torch.device) -> Moments:
        """What :attr:`sums` says of parts, added exactly: in any order the same."""
        total = np.array([math.fsum(column) for column in zip(*parts, strict=True)])
        moments = cls()
        moments._sums = torch.from_numpy(total[:-1].reshape(2, -1)).to(device)
        moments._count = int(total[-1])
        return moments

    def norm(self, dtype: torch.dtype) -> Norm:
        """The norm of what was taken."""
        assert self._sums is not None
        mean, square = self._sums / self._count
        scale = ((square - mean * mean).clamp_min(0) + NORM_EPSILON).rsqrt()
        return Norm(scale[:, None, None].to(dtype), (-mean * scale)[:, None, None].to(dtype))


class WholeImageNorms:
    """A ResNet as an operator on one image: :class:`sincut.translation.operators.Operator`.

    Args:
        height, width: of the image.
        folder: where what does not fit into memory is kept.

    Raises:
        SincutError: another border than the network's own is asked for.
    """

    halo, alignment, border, whole_first = 0, 1, "reflect", True

    def __init__(
        self,
        generator: ResnetGenerator,
        config: TranslateConfig,
        height: int,
        width: int,
        folder: Path,
    ) -> None:
        check_border(config.border)
        self.generator, self.config, self.folder = generator, config, folder
        self.height, self.width = height, width
        parameter = next(generator.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        # What the network works on: the image extended.
        self._rows, self._columns = generator.extended(height), generator.extended(width)
        self._shape = self._rows // STEP, self._columns // STEP, STEP * generator.channels
        self._kept_type = torch.bfloat16 if config.precision == "bf16" else self.dtype
        self._norms: dict[nn.Module, Norm] = {}
        self._last_norm: Norm | None = None  # of the last block that is done
        self._x: Scratch | None = None
        self._raw: Scratch | None = None
        self._whole: Tensor | None = None
        self._most = self._rows * self._columns  # pixels of a window that memory may allow

    # ------------------------------------------------------------------------------ the passes

    @torch.inference_mode()
    def prepare(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        """Find the norms, in windows of ``side``; or translate the image, if that covers it.

        Raises:
            SincutError: memory ends even in small windows; what is kept cannot be written.
        """
        if self._in_one_piece(side):
            self._whole = unless_memory_ends(partial(self._translated, opened))
            if self._whole is not None:
                on_window()
                return
            self._free()
            side //= 2
        self.close()
        self._x = new_scratch(self._shape, self._kept_type, self.folder)
        self._raw = new_scratch(self._shape, self._kept_type, self.folder)
        with self._precision():
            self._find_encoder_norms(opened, side, on_window)
            self._find_block_norms(side, on_window)
            self._find_decoder_norms(side, on_window)

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """The tile, (1, 3, rows, columns) float32; ``image`` tells nothing that is not known."""
        if self._whole is not None:
            rows, columns = tile.rows, tile.columns
            return self._whole[..., rows.start : rows.stop, columns.start : columns.stop]
        with self._precision():
            return torch.tanh(not_rounded(self._decoded(self.generator.decoder, tile))).to(
                self.dtype
            )

    def close(self) -> None:
        """Give back what preparing took."""
        for scratch in (self._x, self._raw):
            if scratch is not None:
                scratch.close()
        self._x = self._raw = self._whole = self._last_norm = None
        self._norms.clear()

    def forget(self) -> None:
        """As :class:`sincut.translation.operators.Operator` says; nothing could be made anew."""

    # ---------------------------------------------------------------------------- what they take

    def preparation(self, side: int) -> Preparation:
        """As :class:`Operator` says."""
        if self._in_one_piece(side):
            return Preparation(1, 1, self._window_bytes(self._rows, self._columns))
        step = max(side // STEP, 1) * STEP
        windows = -(-self._rows // step) * -(-self._columns // step)
        bands = -(-self._shape[0] // self._band_rows())
        encoder, decoder = (
            len(self._up_to_norms(layers))
            for layers in (self.generator.encoder, self.generator.decoder)
        )
        blocks = 2 * self.generator.blocks
        row = scratch_bytes((1, *self._shape[1:]), self.dtype)
        band = min(self._band_rows(), self._shape[0]) * row
        window = self._window_bytes(step + 2 * REACH, step + 2 * REACH)
        kept = 2 * scratch_bytes(self._shape, self._kept_type)
        inside = in_memory(self._shape, self._kept_type)
        return Preparation(
            passes=encoder + 1 + blocks + decoder + 1,
            windows=(encoder + 1 + decoder) * windows + blocks * bands,
            host_bytes=max(window, _BANDS * band + _BAND_EDGES * row),
            held_bytes=kept if inside else 0,
            rows=step + 2 * REACH,
            scratch_bytes=0 if inside else kept,
        )

    def host_bytes(self, rows: int, columns: int) -> int:
        """As :class:`Operator` says."""
        if self._in_one_piece(max(rows, columns)):
            return 12 * rows * columns
        return self._window_bytes(rows + 2 * REACH, columns + 2 * REACH)

    def device_bytes(self, side: int) -> int:
        """As :class:`Operator` says."""
        if not self._in_one_piece(side):
            side += 2 * REACH
        network = Network(self.generator, self.config)
        return device_bytes(network, side - 2 * align_up(network.halo, network.alignment))

    def rehearsal(self, side: int) -> tuple[Operator, float]:
        """As :class:`Operator` says: from the time of a window and from how much work there is."""
        shape = self.height, self.width, self.folder
        other = WholeImageNorms(self.generator, self.config, *shape)
        other._x = other._raw = _Blank(self._shape[2], self._kept_type)
        one, none = (make(()).to(self.device, self.dtype) for make in (torch.ones, torch.zeros))
        other._norms = {layer: Norm(one, none) for layer in self.generator.normalised}
        other._last_norm = Norm(one, none)
        rows, columns = (min(length, _REHEARSED) for length in (self._rows, self._columns))
        tile = Tile(Span(0, rows, 0, rows), Span(0, columns, 0, columns))
        nothing, times = torch.zeros(1, 3, rows, columns, device=self.device), []
        with torch.inference_mode():
            for _ in range(3):
                started = time.perf_counter()
                other(nothing, tile).cpu()
                times.append(time.perf_counter() - started)
            if self._in_one_piece(side):
                other._whole = nothing[..., :1, :1].expand(1, 3, self.height, self.width)
        decoded = self._work(self.generator.decoder, self._shape[0]) * rows * columns
        pixels = self._rows * self._columns
        return other, min(times) * self._preparing_work(side) * pixels / decoded

    def another(self) -> Operator:
        """As :class:`Operator` says; prepare it with another side."""
        return WholeImageNorms(self.generator, self.config, self.height, self.width, self.folder)

    def _preparing_work(self, side: int) -> float:
        """Multiplications of all passes but that of the tiles, per pixel of the image."""
        encoder, decoder = self.generator.encoder, self.generator.decoder
        blocks = 2 * self.generator.blocks * (3 * self._shape[2] / STEP) ** 2
        if self._in_one_piece(side):
            once = self._work(encoder, self._rows) + self._work(decoder, self._shape[0])
            return once + blocks
        chains = [*self._up_to_norms(encoder), encoder]
        work = sum(self._work(chain, self._rows) for chain in chains)
        chains = self._up_to_norms(decoder)
        return blocks + work + sum(self._work(chain, self._shape[0]) for chain in chains)

    def _work(self, layers: Sequence[Layer], length: int) -> float:
        """Multiplications of convolutions, per pixel of the image."""
        work = 0.0
        for layer in layers:
            # A weight is used at every output, or of a transposed convolution at every input.
            places = min(length, layer.outputs(length))
            length = layer.outputs(length)
            weights = sum(each.numel() for each in layer.parameters() if each.ndim == 4)
            work += weights * (places / self._rows) ** 2
        return work

    def _in_one_piece(self, side: int) -> bool:
        return side >= max(self.height, self.width)

    def _window_bytes(self, rows: int, columns: int) -> int:
        channels, pixels = self.generator.channels, rows * columns
        if self.device.type == "cuda":
            return _TRAVELLING_BYTES * pixels
        freed = min(_FREED_PER_CHANNEL * channels * pixels, _FREED_BYTES)
        per_pixel = _BYTES_PER_PIXEL + _BYTES_PER_CHANNEL * channels
        return _BYTES_ONCE + per_pixel * pixels + freed

    def _band_rows(self) -> int:
        """Rows of what is kept that a pass over it works on at a time."""
        return max(1, _BAND_BYTES // scratch_bytes((1, *self._shape[1:]), self.dtype))

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        precision = self.config.precision
        with mixed_precision(self.device.type, precision), convolutions(precision):
            yield

    def _translated(self, opened: Opened) -> Tensor:
        """The whole image in one piece."""
        pixels = None
        with opened() as image:
            for top in range(0, self.height, _SLAB):
                part = image.srgb(top, min(top + _SLAB, self.height))
                if pixels is None:
                    pixels = np.empty((self.height, self.width, 3), part.dtype)
                pixels[top : top + _SLAB] = part
        given = as_network(torch.from_numpy(pixels)).to(self.device, self.dtype)
        with self._precision():
            output: Tensor = self.generator(given).to(self.dtype)
        return output

    def _find_encoder_norms(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        layers, x = self.generator.encoder, self._x
        assert x is not None

        def keep(features: Tensor, part: Tile) -> None:
            x.write(part.rows.start // STEP, part.columns.start // STEP, features)

        for chain in self._up_to_norms(layers):
            moments = Moments()
            self._over_image(opened, chain, side, lambda f, _: moments.add(f), on_window)  # noqa: B023
            self._norms[chain[-1]] = moments.norm(self.dtype)
        self._over_image(opened, layers, side, keep, on_window)

    def _find_decoder_norms(self, side: int, on_window: Callable[[], None]) -> None:
        for chain in self._up_to_norms(self.generator.decoder):
            moments = Moments()
            for tile in tiles(self._rows, self._columns, side, 0, STEP):
                self._in_parts(tile, lambda part: moments.add(self._decoded(chain, part)))  # noqa: B023
                on_window()
            self._norms[chain[-1]] = moments.norm(self.dtype)

    def _find_block_norms(self, side: int, on_window: Callable[[], None]) -> None:
        for block in self.generator.blocks_in_order:
            summed = partial(self._sum, self._last_norm)
            inside = self._pass_over_kept(block.conv1, summed, side, on_window)
            between = partial(self._between, inside)
            self._last_norm = self._pass_over_kept(block.conv2, between, side, on_window)

    def _up_to_norms(self, layers: Sequence[Layer]) -> list[Sequence[Layer]]:
        """The first layers of some, up to each that a norm follows."""
        normalised = self.generator.normalised
        return [layers[: n + 1] for n, layer in enumerate(layers) if layer in normalised]

    def _over_image(
        self,
        opened: Opened,
        layers: Sequence[Layer],
        side: int,
        take: Callable[[Tensor, Tile], None],
        on_window: Callable[[], None],
    ) -> None:
        """Hand the outputs of some layers to ``take``, window by window."""
        whole = tiles(self._rows, self._columns, side, 0, STEP)
        with opened() as image:
            for span, row in groupby(whole, key=lambda tile: tile.rows):
                _, first, last = wanted(layers, span, self._rows, self._rows)
                first, last = min(first, self.height - 1), min(last, self.height - 1)
                loaded = image.srgb(first, last + 1)

                def work(part: Tile, loaded: Array = loaded, top: int = first) -> None:
                    take(self._encoded(layers, loaded, top, part), part)

                for tile in row:
                    self._in_parts(tile, work)
                    on_window()

    def _encoded(
        self, layers: Sequence[Layer], loaded: Array, top: int, part: Tile, leftmost: int = 0
    ) -> Tensor:
        """Outputs of the encoder's first layers; ``loaded`` holds the image's rows ``top …`` and
        columns ``leftmost …``."""
        rows, first, last = wanted(layers, part.rows, self._rows, self._rows)
        columns, left, right = wanted(layers, part.columns, self._columns, self._columns)
        # Beyond the image its last row and column: what the network extends it by.
        down = np.arange(first, last + 1).clip(max=self.height - 1) - top
        across = np.arange(left, right + 1).clip(max=self.width - 1) - leftmost
        image = as_network(torch.from_numpy(loaded[np.ix_(down, across)]).to(self.device))
        return self._applied(layers, image.to(self.dtype), rows, columns)

    def _decoded(self, layers: Sequence[Layer], tile: Tile) -> Tensor:
        """Outputs of the decoder's first layers."""
        height, width, _ = self._shape
        rows, top, bottom = wanted(layers, tile.rows, height, self._rows)
        columns, left, right = wanted(layers, tile.columns, width, self._columns)
        image = self._sum(self._last_norm, top, bottom + 1, left, right + 1)
        return self._applied(layers, image, rows, columns)

    def _applied(
        self, layers: Sequence[Layer], image: Tensor, rows: list[Piece], columns: list[Piece]
    ) -> Tensor:
        for layer, down, across in zip(layers, rows, columns, strict=True):
            image = layer.windowed(image, down, across)
            if layer in self._norms:
                image = self._norms[layer](image).relu_()
        return image

    def _pass_over_kept(
        self,
        conv: Convolution,
        given: Callable[[int, int], Tensor],
        side: int,
        on_window: Callable[[], None],
    ) -> Norm:
        """Put a convolution's output where the last one's was, and find its norm.

        ``given`` reads rows of the input, each once and in their order, before they are gone.
        """
        assert self._raw is not None
        moments, height, step = Moments(), self._shape[0], self._band_rows()
        band, top = given(0, 1), 0  # the rows at hand, from ``top`` on
        for start in range(0, height, step):
            stop = min(start + step, height)
            known, ahead = top + band.shape[2], min(stop + 1, height)
            if known < ahead:
                band = torch.cat([band, given(known, ahead)], dim=2)
            output = self._convolved(conv, band, top, (start, stop), side, moments)
            self._raw.write(start, 0, output)
            on_window()
            band, top = band[:, :, stop - 1 - top :].clone(), stop - 1
        return moments.norm(self.dtype)

    def _convolved(
        self,
        conv: Convolution,
        band: Tensor,
        top: int,
        span: tuple[int, int],
        side: int,
        moments: Moments,
    ) -> Tensor:
        """Some rows of a convolution's output, window by window; ``band`` holds rows ``top …``."""
        height, width, _ = self._shape
        start, stop = span
        output = torch.empty_like(band[:, :, : stop - start])

        def work(part: Tile) -> None:
            (rows,), first, last = wanted([conv], part.rows, height, self._rows)
            (columns,), left, right = wanted([conv], part.columns, width, self._columns)
            window = band[:, :, first - top : last + 1 - top, left : right + 1]
            raw = conv.windowed(window, rows, columns)
            moments.add(raw)
            here = slice(rows.first - start, rows.last + 1 - start)
            output[:, :, here, columns.first : columns.last + 1] = raw

        rows = Span(STEP * start, STEP * stop, STEP * start, STEP * stop)
        for tile in tiles(STEP, self._columns, side, 0, STEP):
            self._in_parts(Tile(rows, tile.columns), work)
        return output

    def _sum(
        self, norm: Norm | None, top: int, bottom: int, left: int = 0, right: int | None = None
    ) -> Tensor:
        """x of the blocks, with what the last of them adds through ``norm``; whole rows are kept:
        they are read for the last time without it."""
        assert self._x is not None
        place = top, bottom, left, self._shape[1] if right is None else right
        x = self._x.read(*place).to(self.device)
        if norm is not None:
            assert self._raw is not None
            x += norm(self._raw.read(*place).to(self.device))
            if right is None:
                self._x.write(top, 0, x)
        return x

    def _between(self, norm: Norm, top: int, bottom: int) -> Tensor:
        """Rows of what a block's second convolution reads."""
        assert self._raw is not None
        return norm(self._raw.read(top, bottom, 0, self._shape[1]).to(self.device)).relu_()

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _in_parts(self, tile: Tile, work: Callable[[Tile], None]) -> None:
        """Do some work on a window, or on its halves where memory ends."""

        def done() -> bool:
            work(tile)
            return True

        pixels = tile.pixels
        if pixels <= self._most:
            if unless_memory_ends(done):
                return
            self._most = pixels // 2
            self._free()
        halves = halved(tile, self._rows, self._columns, 0, STEP, self.border)
        if halves is None or pixels < _SMALLEST**2:
            rows, columns = tile.rows, tile.columns
            raise SincutError(
                "there is not enough memory even for a window of "
                f"{columns.stop - columns.start}×{rows.stop - rows.start} pixels; free some"
                + (", or try --device cpu" if self.device.type == "cuda" else "")
            )
        for half in halves:
            self._in_parts(half, work)


class _Blank:
    """Features that are all 0, of any size."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        self._channels, self._dtype = channels, dtype

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """As :meth:`Scratch.read`."""
        shape = bottom - top, right - left, self._channels
        return torch.zeros(shape, dtype=self._dtype).permute(2, 0, 1)[None]

    def write(self, top: int, left: int, features: Tensor) -> None:
        """As :meth:`Scratch.write`; it is lost."""

    def close(self) -> None:
        """As :meth:`Scratch.close`."""


def check_border(border: str) -> None:
    """Refuse another border than the network's own.

    Raises:
        SincutError: that one.
    """
    if border != WholeImageNorms.border:
        raise SincutError(
            "a network that normalises over the whole image brings its own border: border must "
            f"be {WholeImageNorms.border}, got {border}; try it without"
        )


def wanted(
    layers: Sequence[Layer], span: Span, length: int, full: int
) -> tuple[list[Piece], int, int]:
    """As :func:`pieces`, for the outputs in a span of an image with ``full`` pixels; the layers
    have ``length`` inputs."""
    outputs = length
    for layer in layers:
        outputs = layer.outputs(outputs)
    last = -(-span.stop * outputs // full) - 1
    return pieces(layers, span.start * outputs // full, last, length)
