"""A generator whose output depends on a window, as an operator, and what its windows take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sincut.compute.cuda_graph import RecordedStep, not_recorded
from sincut.compute.devices import convolutions, mixed_precision
from sincut.compute.memory import out_of_memory, unless_memory_ends
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.models.generator import Generator
from sincut.translation.operators import Opened, Operator, Preparation
from sincut.translation.tiling import Span, Tile, align_up

# Bytes that a window takes at the peak, by pixel and channel of G, and what does not grow with it;
# measured on a CPU for 4 to 80 channels, with a margin of about a tenth; of the second half, since
# how much freed memory the allocator keeps is chance.
_BYTES_PER_CHANNEL, _BYTES_ONCE = 24, 90_000_000


class Network:
    """A generator as an operator.

    Args:
        record: on CUDA, record one graph per shape of window and replay it.
        on_notice: told in a line that windows could not be recorded; without it that is an error.
    """

    def __init__(
        self,
        generator: Generator,
        config: TranslateConfig,
        *,
        record: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.generator, self.config = generator, config
        self.halo, self.alignment = generator.halo, generator.alignment
        self.whole_first = False
        self.border = config.border
        parameter = next(generator.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._inputs: dict[tuple[int, int], list[Tensor]] = {}
        self.on_notice = on_notice
        record = record and self.device.type == "cuda"
        self._replayed = RecordedStep(self._generate, record=record, on_failure=self._not_recorded)

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """As :class:`Operator` says. What it returns is overwritten by the next call."""
        rows, columns = tile.rows, tile.columns
        height, width = image.shape[-2:]
        noise = self.generator.position_noise(
            self.config.seed, rows.read_start, columns.read_start, height, width, self.device
        )
        given, shape = [image.to(self.dtype), *noise], (height, width)
        if self._replayed.record:  # a recorded graph reads from where it was recorded
            kept = self._inputs.setdefault(shape, [torch.empty_like(each) for each in given])
            for to, each in zip(kept, given, strict=True):
                to.copy_(each)
        else:
            self._inputs[shape] = given
        output = self._replayed(shape)["image"]
        if not self._replayed.record:
            self._inputs.clear()
        return output[..., rows.core, columns.core]

    def host_bytes(self, rows: int, columns: int) -> int:
        """As :class:`Operator` says."""
        return window_bytes(self.generator, rows, columns)

    def device_bytes(self, side: int) -> int:
        """As :class:`Operator` says."""
        return device_bytes(self, side)

    def forget(self) -> None:
        """As :class:`Operator` says: recorded graphs."""
        self._inputs.clear()
        self._replayed = RecordedStep(self._generate, record=False)

    def _not_recorded(self, error: RuntimeError) -> None:
        if self.on_notice is None or out_of_memory(error):  # which smaller tiles may mend
            raise error
        self.on_notice(not_recorded("tiles", error))

    def preparation(self, side: int) -> Preparation:
        """As :class:`Operator` says: nothing."""
        return Preparation()

    def prepare(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        """As :class:`Operator` says; a tile's halo is all it has to see."""

    def close(self) -> None:
        """As :class:`Operator` says; nothing was taken."""

    def rehearsal(self, side: int) -> tuple[Operator, float]:
        """As :class:`Operator` says."""
        return self, 0.0

    def another(self) -> Network:
        """As :class:`Operator` says: with twice the halo."""
        other = Network(self.generator, self.config)
        other.halo = 2 * align_up(self.halo, self.alignment)
        return other

    def _generate(self, shape: tuple[int, int]) -> dict[str, Tensor]:
        image, *noise = self._inputs[shape]
        precision = self.config.precision
        with mixed_precision(self.device.type, precision), convolutions(precision):
            return {"image": self.generator.generate(image, noise)[0].to(self.dtype)}


def window_bytes(generator: Generator, rows: int, columns: int) -> int:
    """Host memory that a window of rows × columns takes at the peak, on a CPU, about."""
    per_channel = _BYTES_PER_CHANNEL + generator.kept_bytes
    return int(_BYTES_ONCE + (100 + per_channel * generator.channels) * rows * columns)


def device_bytes(network: Network, side: int) -> int:
    """Device memory that tiles of ``side`` take at the peak on CUDA: a straight line through the
    two largest of some small ones that can be tried.

    Raises:
        SincutError: memory ends in the smaller one.
    """
    halo = align_up(network.halo, network.alignment)  # windows begin where downsampling does
    tried = []
    for probe in (64, 128, 256):
        span = Span(0, probe, -halo, probe + halo)
        peak = unless_memory_ends(partial(_peak_of, network, span))
        if peak is not None:
            tried.append(((probe + 2 * halo) ** 2, peak))
        torch.cuda.empty_cache()
    if not tried:
        raise SincutError(
            "there is not enough memory on the GPU even for a tile of 64 pixels; free some, or "
            "try --device cpu"
        )
    (small, little), (large, much) = [(0, 0), *tried][-2:]
    slope = (much - little) / (large - small)
    return int(much + slope * ((side + 2 * halo) ** 2 - large))


@torch.inference_mode()
def _peak_of(network: Network, span: Span) -> int:
    """Bytes that a square window takes at the peak, the second time: the first fills caches."""
    side = span.read_stop - span.read_start
    image = torch.zeros(1, 3, side, side, device=network.device)
    once = Network(network.generator, network.config)
    once(image, Tile(span, span))
    torch.cuda.synchronize(network.device)
    before = torch.cuda.memory_allocated(network.device)
    torch.cuda.reset_peak_memory_stats(network.device)
    once(image, Tile(span, span))
    return torch.cuda.max_memory_allocated(network.device) - before
