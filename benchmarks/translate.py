"""Translating files: sincut against the bare network and against the whole image in one forward.

Correctness comes first: of the smallest image every tiled translation must be that of the whole
image, mirrored at its border, within 1 of 255, or nothing is reported. Every measurement is a
process of its own, so that its peaks of memory are its own, and on each size the methods take
turns, so that whatever else a shared machine does hits all of them alike.

- *network* is the ceiling: the generator on a window that is already on the device, over and over.
  Its megapixels are those of the window, halo included.
- *whole* is the authors' way: one forward of the whole image in float32, in PyTorch's ordinary
  memory order, until memory ends. Only the forward is timed; reading and writing files is left out.
- *sincut* goes from file to file, a TIFF in tiles that are not compressed to a deflated one, or one
  that is not compressed either. Loading the model is in its time, starting Python is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from torch import Tensor

import sincut
from benchmarks.record import ROOT, print_table, write_result
from sincut.compute.devices import convolutions, mixed_precision
from sincut.compute.memory import free_memory, out_of_memory, peak_memory
from sincut.config.presets import train_config
from sincut.demo import render_content
from sincut.errors import first_line
from sincut.models.generator import Generator
from sincut.models.model_file import load_model, save_model
from sincut.models.stylegan2 import ColourCorrectingGenerator, StyleGAN2Generator
from sincut.translation.pixels import as_network, as_pixels
from sincut.translation.tiling import align_up

Array = npt.NDArray[Any]

SIDES = (1000, 2000, 4000, 10_000, 20_000, 32_768)  # 1, 4, 16, 100, 400 and 1074 megapixels
TILES = ("auto", "256", "512", "1024")
WINDOWS = {"cpu": (256, 512, 1024), "cuda": (512, 1024, 2048)}  # sides of the tiles inside
CHANNELS = {"cpu": (4, 16), "cuda": (40,)}
LARGEST = {"cpu": 16, "cuda": 1074}  # megapixels
PRECISIONS = {"cpu": ("fp32",), "cuda": ("bf16", "fp32")}
# PyTorch lets cuDNN round to TF32 by itself: what runs the authors' code does so.
WHOLE_PRECISIONS = {"cpu": ("fp32",), "cuda": ("tf32", "fp32")}
FEWER_SIDES = (1000, 4000, 10_000, 32_768)  # what there is time for where it is short
ROUNDS = {"cpu": 2, "cuda": 1}
VARIED = 16.5  # megapixels up to which tiles of all sizes are tried on the largest image
LONG = 101.0  # megapixels above which one round is long enough
# Differences to the whole image's translation, of 255: at most, and on average. In bf16 every layer
# rounds to three digits, of sums whose order depends on the window's shape. What is wrong at seams
# is found by fp32, with the same tiles.
ALLOWED = {"fp32": (1.0, 0.1), "bf16": (8.0, 0.3)}
SECONDS = 1.0  # the network is called again and again for so long, and three times at least

_TILE = 256
_RENDERED = 512  # side of the picture from which synthetic images are cut
# What oneDNN says where it is refused memory; in a process that is bound it means nothing else.
_REFUSED = ("bad_alloc", "could not create", "could not execute")


@dataclass(frozen=True)
class Job:
    """One measurement, for a process of its own.

    ``method`` is ``network``, ``whole``, ``sincut`` or ``sincut, uncompressed``. ``side`` is the
    image's, in pixels, or of the network the window's. ``tile`` is what ``--tile`` takes, or
    nothing. ``memory`` bounds, on a CPU, what *whole* may take beside the image, in bytes.
    """

    method: str
    model: str
    device: str
    precision: str
    side: int
    image: str = ""
    output: str = ""
    tile: str = ""
    memory: int = 0


@dataclass(frozen=True)
class Found:
    """What a process found. Bytes at the peak; ``device`` ones are zero on a CPU.

    ``tile`` is the side that sincut took. ``error`` says why *whole* has no time.
    """

    seconds: float = 0.0
    tile: int = 0
    host_bytes: int = 0
    device_bytes: int = 0
    reserved_bytes: int = 0
    error: str = ""


@dataclass
class Trial:
    """A job with the shortest time and the highest peaks of its runs."""

    job: Job
    found: Found | None = None
    output_bytes: int | None = None
    difference: float | None = None  # to the whole image's translation, of 255

    def add(self, found: Found) -> None:
        """Take another run into account."""
        before = self.found
        if before is None or found.error:
            self.found = found
            return
        self.found = dataclasses.replace(
            found,
            seconds=min(found.seconds, before.seconds),
            **{
                name: max(getattr(found, name), getattr(before, name))
                for name in ("host_bytes", "device_bytes", "reserved_bytes")
            },
        )


@dataclass(frozen=True)
class Settings:
    """What is measured with one model.

    Args:
        folder: where images are written and removed again; it must hold the largest one twice.
        sides: of the square images, in pixels, rising.
        rounds: turns that every method has on an image; one on those above 100 megapixels.
        bits: 8 or 16 per channel. Deep images are translated in float32 only.
        memory: bytes that *whole* may take on a CPU. Half of what is free shows where memory ends,
            and is never anybody else's. 0 where that is not told: *whole* then has only the
            smallest image.
        tell: called with every row as it stands when it has been measured once.
    """

    device: str
    folder: Path
    sides: Sequence[int]
    rounds: int
    bits: int = 8
    memory: int = field(default_factory=lambda: (free_memory() or 0) // 2)
    tell: Callable[[dict[str, Any]], None] = field(default=lambda row: None)

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which sincut and the network compute."""
        return ("fp32",) if self.bits == 16 else PRECISIONS[self.device]


def sides_up_to(largest: int) -> list[int]:
    """The sides of the images of at most so many megapixels."""
    return [side for side in SIDES if round(side**2 / 1e6) <= largest]


def report(channels: Sequence[int], settings: Settings, target: Path | None) -> None:
    """Print a table for every width of the generator, and write all rows to a JSON file."""
    rows: list[dict[str, Any]] = []
    for count in channels:
        found = measure(count, settings)
        print(f"{count} channels, {settings.bits} bits")
        shown = [name for name in found[0] if any(row[name] is not None for row in found)]
        shown = [name for name in shown if name not in ("channels", "bits")]
        print_table([{name: row[name] for name in shown} for row in found])
        rows += found
        if target is not None:
            write_result(target, settings.device, rows)


def measure(channels: int, settings: Settings) -> list[dict[str, Any]]:
    """Rows for a generator of so many channels, over the sizes of images.

    Raises:
        RuntimeError: a translation of the smallest image is not that of the whole, or a process
            failed that should not have.
    """
    trials: dict[Job, Trial] = {}
    given_up: set[str] = set()  # precisions in which *whole* has failed
    with tempfile.TemporaryDirectory(dir=settings.folder, prefix="sincut-") as temporary:
        folder = Path(temporary)
        model = folder / "model.safetensors"
        save_random_model(model, channels)
        windows = _windows(model, settings)
        for side in settings.sides:
            image = folder / f"{side}.tif"
            write_synthetic(image, side, settings.bits)
            smallest = side == settings.sides[0]
            expected = _expected(model, image, settings) if smallest else {}
            for _ in range(1 if side**2 / 1e6 > LONG else settings.rounds):
                jobs = _fastest(windows, trials) + _image_jobs(model, image, side, settings)
                for job in jobs:
                    if job.method == "whole" and job.precision in given_up:
                        continue
                    trial = trials.setdefault(job, Trial(job))
                    first = trial.found is None
                    found = run(job)
                    trial.add(found)
                    if found.error:
                        given_up.add(job.precision)
                    if job.output:
                        output = Path(job.output)
                        if smallest:
                            trial.difference = compare(output, expected[job.precision], job)
                        trial.output_bytes = output.stat().st_size
                        output.unlink()
                    if first:
                        settings.tell(_row(trial, channels, settings, {}))
            image.unlink()
    ceiling = {
        precision: max(_speed(trials[job]) for job in windows if job.precision == precision)
        for precision in settings.precisions
    }
    return [_row(trial, channels, settings, ceiling) for trial in trials.values()]


def run(job: Job) -> Found:
    """Measure in a process of its own.

    Raises:
        RuntimeError: it failed; with the last line it wrote. Where *whole* is refused memory, that
            is what was found.
    """
    command = [sys.executable, "-m", "benchmarks.translate", json.dumps(dataclasses.asdict(job))]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if child.returncode == 0:
        return Found(**json.loads(child.stdout.splitlines()[-1]))
    if job.method == "whole":
        # The system ends what takes too much; C++ ends a process that cannot tell of it.
        refused = child.returncode == -signal.SIGABRT and "bad_alloc" in child.stderr
        if refused or child.returncode == -signal.SIGKILL:
            return Found(error="out of memory")
    last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
    if job.method == "whole" and job.device == "cuda":
        return Found(error=last)  # tensors above 2³¹ elements may end the driver's libraries
    raise RuntimeError(f"{job.method}, {job.side}² pixels: {last}")


def compare(output: Path, expected: Array, job: Job) -> float:
    """The largest difference of a written translation to the whole image's, of 255.

    Raises:
        RuntimeError: it is above what rounding explains.
    """
    written = tifffile.imread(output)
    if written.shape != expected.shape or written.dtype != expected.dtype:
        raise RuntimeError(
            f"{job.method}: {written.shape} {written.dtype} were written, "
            f"expected {expected.shape} {expected.dtype}"
        )
    scale = 255 / np.iinfo(expected.dtype).max
    difference = np.abs(written.astype(np.int32) - expected)
    off, average = float(difference.max()) * scale, float(difference.mean()) * scale
    most, most_average = ALLOWED[job.precision]
    if off > most or average > most_average:
        raise RuntimeError(
            f"{job.method}, tile {job.tile}, {job.precision}: it differs from the whole image's "
            f"translation by up to {off:.2f} of 255, {average:.2f} on average"
        )
    return off


@torch.inference_mode()
def whole_translation(generator: Generator, image: Array, precision: str) -> Array:
    """What tiles must give: one forward of (H, W, 3), mirrored at its border, in its depth."""
    device = next(generator.parameters()).device
    height, width = image.shape[:2]
    reach = align_up(generator.halo, generator.alignment)
    mirrored = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    rows, columns = (align_up(n, generator.alignment) for n in mirrored.shape[:2])
    noise = generator.position_noise(0, -reach, -reach, rows, columns, device)
    with mixed_precision(device.type, precision), convolutions(precision):
        output = generator.generate(as_network(torch.from_numpy(mirrored).to(device)), noise)[0]
    inside = output[..., reach : reach + height, reach : reach + width].float()
    return as_pixels(inside, image.dtype).cpu().numpy()


def save_random_model(path: Path, channels: int) -> None:
    """A model file with random weights: below the paper's width that of a short preset.

    Noise and biases have weights, so that nobody overlooks wrong ones.
    """
    paper = train_config("paper")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        correction = channels < paper.channels
        kind = ColourCorrectingGenerator if correction else StyleGAN2Generator
        generator = kind(channels, paper.blocks, paper.downsamplings)
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
                if name.endswith("noise_weight"):
                    parameter.fill_(0.2)
            if not correction:  # or much of the output would be clipped, and compare as equal
                generator.to_rgb.weight.mul_(0.5)
    save_model(path, generator, None, {"origin": "random weights of a benchmark"})


def write_synthetic(path: Path, side: int, bits: int = 8) -> None:
    """A TIFF of side × side RGB, tile by tile: pieces of the example's photograph, each in other
    colours and another place."""
    dtype = np.uint8 if bits == 8 else np.uint16
    tifffile.imwrite(
        path,
        _pieces(side, bits),
        shape=(side, side, 3),
        dtype=dtype,
        tile=(_TILE, _TILE),
        photometric="rgb",
        bigtiff=side**2 * 3 * (bits // 8) > 4e9,
    )


def _pieces(side: int, bits: int) -> Iterator[Array]:
    picture = render_content(_RENDERED, _RENDERED)
    random = np.random.default_rng(0)
    for _ in range((-(-side // _TILE)) ** 2):
        top, left = random.integers(0, _RENDERED - _TILE + 1, 2)
        flipped, swapped = random.choice((-1, 1), 2)
        piece = picture[top : top + _TILE, left : left + _TILE][::flipped, :, ::swapped]
        if bits == 16:
            piece = 256 * piece.astype(np.uint16) + random.integers(0, 256, piece.shape, np.uint16)
        yield np.ascontiguousarray(piece)


# -------------------------------------------------------------------------- which jobs there are


def _windows(model: Path, settings: Settings) -> list[Job]:
    """The network on the windows of tiles, halo included, in all precisions."""
    generator = load_model(model).generator
    reach = 2 * align_up(generator.halo, generator.alignment)
    return [
        Job("network", str(model), settings.device, precision, side + reach, tile=str(side))
        for precision in settings.precisions
        for side in WINDOWS[settings.device]
    ]


def _fastest(windows: list[Job], trials: dict[Job, Trial]) -> list[Job]:
    """All windows; when all have had their turn, the fastest of each precision."""
    if any(job not in trials for job in windows):
        return windows
    fastest: dict[str, Job] = {}
    for job in sorted(windows, key=lambda job: _speed(trials[job])):
        fastest[job.precision] = job
    return list(fastest.values())


def _image_jobs(model: Path, image: Path, side: int, settings: Settings) -> list[Job]:
    """All tiles on the smallest image, where they are compared, and on one that is large enough
    for their cost to be seen; else only the automatic one."""
    device, smallest = settings.device, settings.sides[0]
    small = [each for each in settings.sides if each**2 / 1e6 <= VARIED]
    tiles: Sequence[str] = TILES if side in (smallest, *small[-1:]) else TILES[:1]
    paths: dict[str, Any] = {"image": str(image), "output": str(image.with_suffix(".out.tif"))}
    jobs = []
    if device == "cuda" or settings.memory or side == smallest:
        jobs += [
            Job("whole", str(model), device, precision, side, str(image), memory=settings.memory)
            for precision in WHOLE_PRECISIONS[device]
        ]
    for precision in settings.precisions:
        jobs += [
            Job("sincut", str(model), device, precision, side, tile=tile, **paths) for tile in tiles
        ]
        jobs.append(
            Job("sincut, uncompressed", str(model), device, precision, side, tile="auto", **paths)
        )
    return jobs


def _expected(model: Path, image: Path, settings: Settings) -> dict[str, Array]:
    generator = load_model(model).generator.to(settings.device)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = tifffile.imread(image)
    found = {
        precision: whole_translation(generator, pixels, precision)
        for precision in settings.precisions
    }
    if settings.device == "cuda":
        torch.cuda.empty_cache()  # it belongs to the processes that follow
    return found


# ---------------------------------------------------------------------------------------- rows


def _speed(trial: Trial) -> float:
    """Megapixels per second."""
    assert trial.found is not None
    return trial.job.side**2 / 1e6 / trial.found.seconds


def _row(
    trial: Trial, channels: int, settings: Settings, ceiling: dict[str, float]
) -> dict[str, Any]:
    job, found = trial.job, trial.found
    assert found is not None
    tile = job.tile or None
    if found.tile and job.tile == "auto":
        tile = f"auto: {found.tile}"
    row: dict[str, Any] = {
        "channels": channels,
        "bits": settings.bits,
        "method": job.method,
        "megapixels": job.side**2 / 1e6,
        "tile": tile,
        "precision": job.precision,
        "seconds": None,
        "mp_per_s": None,
        "of_ceiling": None,
        "host_peak_mb": None,
        "device_peak_mb": None,
        "device_reserved_mb": None,
        "output_mb": None if trial.output_bytes is None else trial.output_bytes / 1e6,
        "difference": trial.difference,
        "error": None,
    }
    if found.error:
        bound = f", of {job.memory / 1e9:.3g} GB" if job.device == "cpu" and job.memory else ""
        row["error"] = found.error + bound
        return row
    highest = ceiling.get(job.precision)
    row |= {
        "seconds": found.seconds,
        "mp_per_s": _speed(trial),
        "of_ceiling": _speed(trial) / highest if highest else None,
        "host_peak_mb": found.host_bytes / 1e6,
    }
    if job.device == "cuda":
        row["device_peak_mb"] = found.device_bytes / 1e6
        row["device_reserved_mb"] = found.reserved_bytes / 1e6
    return row


# ------------------------------------------------------------------------- in the other process


def measured(job: Job) -> Found:
    """What is timed, warm: once before on something small, so that libraries are loaded."""
    method = {"network": _network, "whole": _whole}.get(job.method, _sincut)
    found = method(job)
    if job.device == "cuda":
        found = dataclasses.replace(
            found,
            device_bytes=torch.cuda.max_memory_allocated(),
            reserved_bytes=torch.cuda.max_memory_reserved(),
        )
    return dataclasses.replace(found, host_bytes=peak_memory("cpu"))


@torch.inference_mode()
def _network(job: Job) -> Found:
    generator = _generator(job).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand((1, 3, job.side, job.side), device=job.device) * 2 - 1
    image = image.contiguous(memory_format=torch.channels_last)
    noise = generator.position_noise(0, 0, 0, job.side, job.side, image.device)
    times: list[float] = []
    with mixed_precision(job.device, job.precision), convolutions(job.precision, search=True):
        generator.generate(image, noise)  # in which cuDNN tries its algorithms
        deadline = time.perf_counter() + SECONDS
        while len(times) < 3 or time.perf_counter() < deadline:
            times.append(_seconds(lambda: generator.generate(image, noise), job.device))
    return Found(min(times))


@torch.inference_mode()
def _whole(job: Job) -> Found:
    generator = _generator(job)

    def forward(pixels: Array) -> None:
        image = as_network(torch.from_numpy(pixels).to(job.device)).contiguous()
        noise = [torch.randn(n, device=job.device) for n in generator.noise_shapes(image)]
        forwards.append(_seconds(lambda: generator.generate(image, noise), job.device))

    forwards: list[float] = []
    with convolutions(job.precision):
        forward(np.zeros((64, 64, 3), np.uint8))
        pixels = tifffile.imread(job.image)
        try:
            with _bound(job):
                forward(pixels)
        except (RuntimeError, MemoryError) as error:
            # Whatever the authors' way cannot do is a result, not a failure of the measurement.
            if out_of_memory(error) or any(text in str(error) for text in _REFUSED):
                return Found(error="out of memory")
            return Found(error=first_line(error))
    return Found(forwards[-1])


def _sincut(job: Job) -> Found:
    options: dict[str, Any] = {
        "device": job.device,
        "precision": job.precision,
        "compression": "none" if job.method.endswith("uncompressed") else "deflate",
    }
    sides = []
    with tempfile.TemporaryDirectory(dir=Path(job.output).parent) as folder:
        small = Path(folder) / "small.tif"
        tifffile.imwrite(small, np.zeros((64, 64, 3), np.uint8), photometric="rgb")
        sincut.translate(job.model, small, Path(folder) / "out.tif", **options)
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    sincut.translate(
        job.model,
        job.image,
        job.output,
        on_plan=lambda plan: sides.append(plan.tile),
        tile=job.tile,
        **options,
    )
    return Found(time.perf_counter() - started, tile=sides[0])


def _generator(job: Job) -> Generator:
    return load_model(Path(job.model)).generator.to(job.device)


def _seconds(call: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    result: tuple[Tensor, Any] | None = call()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    del result
    return seconds


@contextlib.contextmanager
def _bound(job: Job) -> Iterator[None]:
    """Within it, on a CPU, this process gets ``memory`` more bytes and is refused further ones, so
    that the machine neither swaps nor ends somebody else's work."""
    status = Path("/proc/self/status")
    if job.device == "cuda" or not job.memory or not status.exists():
        yield
        return
    import resource

    data = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(data.split()[1]) * 1024 + job.memory
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:  # what is left to do is to tell of it
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measured(Job(**json.loads(sys.argv[1]))))))
