"""Translate images of any size with a trained generator, tile by tile, equal to one piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.checkpoint import load_model
from sincut.config import TranslateConfig
from sincut.devices import chosen_device, convolutions, mixed_precision
from sincut.errors import SincutError
from sincut.images import (
    OUTPUT_FORMATS,
    check_output,
    lost_metadata,
    read_picture,
    write_picture,
)
from sincut.networks import Generator
from sincut.tiling import Tile, reflected, tiles

Pixels = npt.NDArray[np.uint8]

# Sides of automatic tiles: a halo of 30 then adds 25 % of work on a CPU and 12 % on a GPU.
AUTOMATIC_TILE = {"cpu": 512, "cuda": 1024}


@dataclass(frozen=True)
class Progress:
    """One finished tile: ``done`` of ``total`` tiles of image ``index`` (from 1) of ``count``."""

    path: Path
    index: int
    count: int
    done: int
    total: int


@dataclass(frozen=True)
class Translated:
    """A written output. ``difference`` is that of ``verify`` in units of 1/255, or absent."""

    input: Path
    output: Path
    width: int
    height: int
    tiles: int
    seconds: float
    notices: tuple[str, ...] = ()
    difference: float | None = None


def load_generator(path: Path | str) -> Generator:
    """The generator of a model file or run folder, as a module on the CPU, in evaluation mode.

    It takes (N, 3, H, W) of about [-1, 1] and returns the same shape, zero-padded inside, not
    clamped, without noise unless it is given as the second argument
    (``generator.position_noise``).
    """
    return load_model(Path(path)).generator


def translate(
    model: Path | str,
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    on_tile: Callable[[Progress], None] | None = None,
    on_image: Callable[[Translated], None] | None = None,
    **options: Any,
) -> list[Translated]:
    """Translate image files at their full size.

    Args:
        model: a run folder or model file.
        inputs: one or more image files.
        output: a file for one input (its ending names the format), or a folder, where each output
            takes its input's name (with ``.png`` added where its format cannot be written).
        on_tile, on_image: called after every tile and every written file.
        options: fields of :class:`sincut.config.TranslateConfig`.

    Returns:
        One entry per input, in order.

    Raises:
        SincutError: for what is wrong with options, model or paths before any work; for inputs
            that failed after the others were done.
    """
    config = TranslateConfig().replaced(**options)
    device = torch.device(chosen_device(config.device))
    if isinstance(inputs, (str, Path)):
        inputs = [inputs]
    pairs = plan_outputs([Path(path) for path in inputs], Path(output), force=config.force)
    generator = load_model(Path(model)).generator
    if pairs[0][1] != Path(output):
        _make_folder(Path(output))
    generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    results, failures = [], []
    for index, (source, target) in enumerate(pairs, start=1):

        def report(done: int, total: int, source: Path = source, index: int = index) -> None:
            if on_tile is not None:
                on_tile(Progress(source, index, len(pairs), done, total))

        try:
            result = _translate_file(generator, source, target, config, report)
        except SincutError as error:
            failures.append(str(error))
            continue
        results.append(result)
        if on_image is not None:
            on_image(result)
    if failures:
        raise SincutError("; ".join(failures))
    return results


def plan_outputs(inputs: Sequence[Path], output: Path, *, force: bool) -> list[tuple[Path, Path]]:
    """Where each input goes; refuses collisions, existing outputs and outputs that are inputs."""
    if not inputs:
        raise SincutError("there is nothing to translate; give at least one image")
    to_file = len(inputs) == 1 and not output.is_dir() and output.suffix != ""
    if to_file:
        pairs = [(inputs[0], output)]
    else:
        if output.exists() and not output.is_dir():
            raise SincutError(f"{output} is a file; several inputs go into a folder")
        pairs = [
            (
                path,
                output
                / (path.name if path.suffix.lower() in OUTPUT_FORMATS else f"{path.name}.png"),
            )
            for path in inputs
        ]
    taken: dict[Path, Path] = {}
    for source, target in pairs:
        if target in taken:
            raise SincutError(
                f"{taken[target]} and {source} would both be written to {target}; "
                "translate them into different folders"
            )
        taken[target] = source
        if any(target.exists() and path.exists() and target.samefile(path) for path in inputs):
            raise SincutError(f"{target} is an input; choose another output")
        if target.exists() and not target.is_dir() and not force:
            raise SincutError(f"{target} exists already; try --force or another output")
    return pairs


def translate_pixels(
    generator: Generator,
    rgb: Pixels,
    config: TranslateConfig,
    on_tile: Callable[[int, int], None] | None = None,
) -> Pixels:
    """Translate (H, W, 3) uint8 sRGB; the generator's device is where it happens."""
    output = np.empty_like(rgb)
    plan = plan_tiles(generator, rgb, config)
    for done, tile in enumerate(plan, start=1):
        core = translate_tile(generator, rgb, tile, config)
        pixels = ((core + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
        rows, columns = tile.rows, tile.columns
        output[rows.start : rows.stop, columns.start : columns.stop] = pixels.cpu().numpy()
        if on_tile is not None:
            on_tile(done, len(plan))
    return output


def plan_tiles(
    generator: Generator, rgb: Pixels, config: TranslateConfig, halo_factor: int = 1
) -> list[Tile]:
    """The tiles of an image, with the generator's halo (times ``halo_factor``) around them."""
    automatic = AUTOMATIC_TILE[next(generator.parameters()).device.type]
    height, width = rgb.shape[:2]
    side = config.tile_pixels(automatic, whole=max(height, width) + generator.alignment)
    halo = generator.halo * halo_factor
    return list(tiles(height, width, side, halo, generator.alignment, config.border))


@torch.inference_mode()
def translate_tile(
    generator: Generator, rgb: Pixels, tile: Tile, config: TranslateConfig
) -> Tensor:
    """A tile's (height, width, 3) of about [-1, 1], float32, not clamped, on the device."""
    device = next(generator.parameters()).device
    rows, columns = tile.rows, tile.columns
    # Beyond the image its mirror; with a zero border this is at most the row that evens its side.
    down = reflected(rows.read_start, rows.read_stop, rgb.shape[0])
    across = reflected(columns.read_start, columns.read_stop, rgb.shape[1])
    window = torch.from_numpy(rgb[np.ix_(down, across)]).to(device)
    window = window.permute(2, 0, 1)[None].to(next(generator.parameters()).dtype) / 127.5 - 1
    noise = generator.position_noise(
        config.seed, rows.read_start, columns.read_start, len(down), len(across), device
    )
    with mixed_precision(device.type, config.precision), convolutions(config.precision):
        image, _ = generator.generate(window, noise)
    return image[0, :, rows.core, columns.core].permute(1, 2, 0).to(window.dtype)


def verify_tiles(generator: Generator, rgb: Pixels, config: TranslateConfig) -> float:
    """Largest difference of ``config.verify`` tiles to the same with twice the halo, in 1/255."""
    plan = plan_tiles(generator, rgb, config)
    wide = plan_tiles(generator, rgb, config, halo_factor=2)
    count = min(config.verify, len(plan))
    chosen = np.linspace(0, len(plan) - 1, count).round().astype(int)
    differences = [
        translate_tile(generator, rgb, plan[i], config)
        - translate_tile(generator, rgb, wide[i], config)
        for i in chosen
    ]
    return max(127.5 * difference.abs().max().item() for difference in differences)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SincutError(f"cannot create the folder {path} ({error.strerror})") from None


def _translate_file(
    generator: Generator,
    source: Path,
    target: Path,
    config: TranslateConfig,
    report: Callable[[int, int], None],
) -> Translated:
    started = time.monotonic()
    picture = read_picture(source, config.max_pixels)
    check_output(target, picture.height, picture.width, picture.alpha is not None)
    lost = () if config.strip_metadata else lost_metadata(target, picture)
    output = translate_pixels(generator, picture.rgb, config, report)
    write_picture(target, output, picture, strip_metadata=config.strip_metadata)
    difference = verify_tiles(generator, picture.rgb, config) if config.verify else None
    return Translated(
        input=source,
        output=target,
        width=picture.width,
        height=picture.height,
        tiles=len(plan_tiles(generator, picture.rgb, config)),
        seconds=time.monotonic() - started,
        notices=(*picture.notices, *lost),
        difference=difference,
    )
