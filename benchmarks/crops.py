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
from torch import Tensor

from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.crops import draw_boxes
from sincut.data.pair import Pair, PairFeed
from sincut.data.random_numbers import RandomNumbers
from sincut.demo import render_content

PAPER = train_config("paper")


def measure(device: str) -> list[dict[str, Any]]:
    """Rows for the crops of a pair and one step of `paper`, over image widths."""
    rows = []
    config = PAPER.replaced(device=device)
    base = Image.fromarray(render_content(1024, 768))
    for width in (1024, 2048, 8192):
        image = np.asarray(base.resize((width, width * 3 // 4), Image.Resampling.BICUBIC))
        pair = Pair(image, image)
        feed = pair.feed(config, warm=False)
        compare(pair, feed)
        ours = timed(partial(by_us, feed), device)
        pillow = timed(partial(both_by_pillow, pair, config), "cpu", seconds=2.0)
        rows.append(
            {
                "image": f"{width}×{width * 3 // 4}",
                "crops": f"2 × {config.batch} of {config.crop}²",
                "ours_ms": ours,
                "pillow_ms": pillow,
                "ours_is_faster": pillow / ours,
            }
        )
    return rows


def by_us(feed: PairFeed, step: int) -> tuple[Tensor, Tensor]:
    """The crops of a step, of content and style, as training draws them."""
    feed.prepare(step)
    number = torch.tensor(step, device=feed.config.device)
    x, y, _ = feed.draw(RandomNumbers(feed.config.seed, number))
    return x, y


def both_by_pillow(pair: Pair, config: PairConfig, step: int) -> tuple[Tensor, Tensor]:
    """The same crops, each from a resize of the whole image."""
    x, y = (by_pillow(image, step, config, stream) for stream, image in enumerate(pair))
    return x, y


def by_pillow(image: np.ndarray, step: int, config: PairConfig, stream: int) -> Tensor:
    """The crops of a step, of one of the two images."""
    whole = Image.fromarray(image)
    crops = []
    draws = RandomNumbers(config.seed, torch.tensor(step))
    (boxes,) = draw_boxes(*image.shape[:2], config, draws, 1, stream=stream).tolist()
    for rows, columns, top, left, mirrored in boxes:
        resized = whole.resize((columns, rows), Image.Resampling.BILINEAR)
        crop = resized.crop((left, top, left + config.crop, top + config.crop))
        if mirrored:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1))
    return torch.stack(crops) / 127.5 - 1


def compare(pair: Pair, feed: PairFeed) -> None:
    """Raise where the two disagree by more than rounding and the halved copies explain."""
    methods = by_us(feed, 0), both_by_pillow(pair, feed.config, 0)
    for image, ours, pillows in zip(feed.images, *methods, strict=True):
        difference = 127.5 * (ours.cpu() - pillows).abs()
        # Below a shrink of four both filters are the same; above, ours starts from a halved copy.
        whole = image.first_level == 0 and len(image.copies) == 1
        allowed = (1.2, 0.5) if whole else (24.0, 2.0)
        if difference.max() > allowed[0] or difference.mean() > allowed[1]:
            raise RuntimeError(
                f"crops differ by {difference.max():.2f} of 255, {difference.mean():.2f} in the "
                "mean"
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
