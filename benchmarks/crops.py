"""A step's crops: ours against resizing the whole image with Pillow for every crop.

The second is how the published code does it. Both make the same crops; they are compared first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.crops import ResidentImage, draw_boxes, draw_crops
from sincut.data.random_numbers import RandomNumbers
from sincut.demo import render_content

PAPER = train_config("paper")


def measure(device: str) -> list[dict[str, Any]]:
    """Rows for the crops of one image and one step of `paper`, over image widths."""
    rows = []
    base = Image.fromarray(render_content(1024, 768))
    for width in (1024, 2048, 8192):
        image = np.asarray(base.resize((width, width * 3 // 4), Image.Resampling.BICUBIC))
        resident = ResidentImage(image, PAPER, device)
        compare(image, resident)
        ours = timed(partial(by_us, resident), device)
        pillow = timed(partial(by_pillow, image), "cpu", seconds=2.0)
        rows.append(
            {
                "image": f"{width}×{width * 3 // 4}",
                "crops": f"{PAPER.batch} of {PAPER.crop}²",
                "ours_ms": ours,
                "pillow_ms": pillow,
                "ours_is_faster": pillow / ours,
            }
        )
    return rows


def by_us(
    resident: ResidentImage, step: int, config: PairConfig = PAPER, stream: int = 0
) -> torch.Tensor:
    """The crops of a step as training draws them."""
    number = torch.tensor(step, device=resident.planes.device)
    return draw_crops(resident, config, RandomNumbers(config.seed, number), stream=stream)


def by_pillow(
    image: np.ndarray, step: int, config: PairConfig = PAPER, stream: int = 0
) -> torch.Tensor:
    """The same crops, each from a resize of the whole image."""
    whole = Image.fromarray(image)
    crops = []
    draws = RandomNumbers(config.seed, torch.tensor(step))
    boxes = draw_boxes(*image.shape[:2], config, draws, stream=stream).tolist()
    for rows, columns, top, left, mirrored in boxes:
        resized = whole.resize((columns, rows), Image.Resampling.BILINEAR)
        crop = resized.crop((left, top, left + config.crop, top + config.crop))
        if mirrored:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1))
    return torch.stack(crops) / 127.5 - 1


def compare(
    image: np.ndarray, resident: ResidentImage, config: PairConfig = PAPER, stream: int = 0
) -> None:
    """Raise where the two disagree by more than rounding and the halved copies explain."""
    ours = by_us(resident, 0, config, stream).cpu()
    difference = 127.5 * (ours - by_pillow(image, 0, config, stream)).abs()
    # Below a shrink of four both filters are the same; above, ours starts from a halved copy.
    allowed = (1.2, 0.5) if resident.first_level == 0 and len(resident.copies) == 1 else (24.0, 2.0)
    if difference.max() > allowed[0] or difference.mean() > allowed[1]:
        raise RuntimeError(
            f"crops differ by {difference.max():.2f} of 255, {difference.mean():.2f} in the mean"
        )


def timed(call: Callable[..., Any], device: str, seconds: float = 1.0) -> float:
    """Median milliseconds of a call, made for step after step."""
    times: list[float] = []
    call(step=0)
    deadline = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < deadline:
        started = time.perf_counter()
        call(step=len(times))
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))
