"""Resized crops from uint8 images that stay in memory: only the pixels under a crop are read.

A crop is a square of ``size`` pixels cut out of an image that was resized with Pillow's
anti-aliased ``BILINEAR``; neither the resized image nor anything of the image's size is ever made.
With ``scale`` input pixels per output pixel, output i of an axis (counted in the resized image) is
centred at c = (i + ½)·scale and is the mean of the inputs j weighted with a triangle::

    w_ij = max(0, 1 − |j + ½ − c| / max(scale, 1)),    normalised within the image

and values are mapped from 0 … 255 to [−1, 1]. Several copies of an image (halved ones, say) lie in
one buffer, and each crop names the copy it is cut from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sincut.kernels.launch import jit, on_device_of, tl, triton


def resized_crops(
    planes: Tensor, copies: Tensor, places: Tensor, scales: Tensor, size: int
) -> Tensor:
    """Crops of ``size`` × ``size`` pixels; CUDA tensors go through the kernel.

    Args:
        planes: flat uint8 buffer; each copy lies in it as (3, height, width).
        copies: (C, 3) int64: offset into the buffer, height, width of each copy.
        places: (N, 4) int64: copy, top, left (pixels of the resized image), mirrored (0 or 1).
        scales: (N, 2) float64: input pixels per output pixel, down and across.
        size: side of a crop in output pixels.

    Returns:
        (N, 3, size, size) float32 in [-1, 1], channels last in memory.
    """
    if planes.is_cuda:
        return resized_crops_triton(planes, copies, places, scales, size)
    return resized_crops_reference(planes, copies, places, scales, size)


def resized_crops_reference(
    planes: Tensor, copies: Tensor, places: Tensor, scales: Tensor, size: int
) -> Tensor:
    """Two small matrix products per crop. Arguments and result as for :func:`resized_crops`."""
    crops = []
    for (copy, top, left, mirrored), (down, across) in zip(
        places.tolist(), scales.tolist(), strict=True
    ):
        offset, height, width = copies[copy].tolist()
        image = planes[offset : offset + 3 * height * width].view(3, height, width)
        rows, by_row = _weights(top, size, down, height)
        columns, by_column = _weights(left, size, across, width)
        if mirrored:
            by_column = by_column.flip(0)
        window = image[:, rows, columns].to(torch.float32)
        crops.append(by_row.to(window.device) @ window @ by_column.to(window.device).T)
    result = torch.stack(crops) / 127.5 - 1
    return result.contiguous(memory_format=torch.channels_last)


def resized_crops_triton(
    planes: Tensor, copies: Tensor, places: Tensor, scales: Tensor, size: int
) -> Tensor:
    """The kernel, always: for CPU tensors it needs Triton's interpreter.

    Arguments and result as for :func:`resized_crops`.
    """
    result = torch.empty(
        (len(places), 3, size, size),
        dtype=torch.float32,
        device=planes.device,
        memory_format=torch.channels_last,
    )
    grid = (triton.cdiv(size, BLOCK_ROWS), triton.cdiv(size, BLOCK_COLUMNS), len(places))
    with on_device_of(planes):
        gather[grid](
            planes, copies, places, scales, result, size, ROWS=BLOCK_ROWS, COLUMNS=BLOCK_COLUMNS
        )
    return result


def _weights(first: int, size: int, scale: float, length: int) -> tuple[slice, Tensor]:
    """The inputs of one axis that outputs ``first … first + size − 1`` need, and (size, inputs)."""
    support = max(scale, 1.0)
    centre = (torch.arange(first, first + size, dtype=torch.float64) + 0.5) * scale
    start = max(0, math.floor(centre[0].item() - support))
    stop = min(length, math.ceil(centre[-1].item() + support))
    inputs = torch.arange(start, stop, dtype=torch.float64) + 0.5
    weights = (1 - (inputs - centre[:, None]).abs() / support).clamp_min(0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return slice(start, stop), weights.float()


BLOCK_ROWS, BLOCK_COLUMNS = 8, 32  # output pixels per program


@jit()
def gather(  # type: ignore[no-untyped-def]
    planes_ptr,
    copies_ptr,
    places_ptr,
    scales_ptr,
    result_ptr,
    size,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of pixels of one crop, all three channels; taps are summed one by one."""
    crop = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    copy = tl.load(places_ptr + 4 * crop)
    top = tl.load(places_ptr + 4 * crop + 1)
    left = tl.load(places_ptr + 4 * crop + 2)
    mirrored = tl.load(places_ptr + 4 * crop + 3)
    down = tl.load(scales_ptr + 2 * crop)
    across = tl.load(scales_ptr + 2 * crop + 1)
    offset = tl.load(copies_ptr + 3 * copy)
    height = tl.load(copies_ptr + 3 * copy + 1)
    width = tl.load(copies_ptr + 3 * copy + 2)

    # Places need float64: 2⁻²⁴ of a coordinate in the thousands is a visible part of a weight.
    source = tl.where(mirrored > 0, size - 1 - column, column)
    centre_y = ((top + row).to(tl.float64) + 0.5) * down
    centre_x = ((left + source).to(tl.float64) + 0.5) * across
    support_y, support_x = tl.maximum(down, 1.0), tl.maximum(across, 1.0)
    first_y = tl.floor(centre_y - support_y).to(tl.int64)
    first_x = tl.floor(centre_x - support_x).to(tl.int64)
    taps_y = tl.ceil(2 * support_y).to(tl.int32) + 1
    taps_x = tl.ceil(2 * support_x).to(tl.int32) + 1

    red = tl.zeros((ROWS, COLUMNS), tl.float32)
    green, blue = red, red
    total = red
    plane = height * width
    for tap_y in range(taps_y):
        y = first_y + tap_y
        weight_y = 1.0 - tl.abs(y.to(tl.float64) + 0.5 - centre_y) / support_y
        weight_y = tl.where((y >= 0) & (y < height), tl.maximum(weight_y, 0.0), 0.0)
        for tap_x in range(taps_x):
            x = first_x + tap_x
            weight_x = 1.0 - tl.abs(x.to(tl.float64) + 0.5 - centre_x) / support_x
            weight_x = tl.where((x >= 0) & (x < width), tl.maximum(weight_x, 0.0), 0.0)
            weight = weight_y.to(tl.float32)[:, None] * weight_x.to(tl.float32)[None, :]
            counted = weight > 0
            place = planes_ptr + offset + y[:, None] * width + x[None, :]
            red += weight * tl.load(place, mask=counted, other=0).to(tl.float32)
            green += weight * tl.load(place + plane, mask=counted, other=0).to(tl.float32)
            blue += weight * tl.load(place + 2 * plane, mask=counted, other=0).to(tl.float32)
            total += weight

    inside = (row < size)[:, None] & (column < size)[None, :]
    out = result_ptr + 3 * ((crop * size + row[:, None]) * size + column[None, :])
    tl.store(out, red / total / 127.5 - 1.0, mask=inside)
    tl.store(out + 1, green / total / 127.5 - 1.0, mask=inside)
    tl.store(out + 2, blue / total / 127.5 - 1.0, mask=inside)
