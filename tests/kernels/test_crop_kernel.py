"""The crop kernel against its reference and against Pillow: on CUDA, else interpreted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sincut.kernels.crops import resized_crops_reference, resized_crops_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
CASES = [  # rows and columns of the resized image, top, left, mirrored
    (96, 130, 0, 0, 0),
    (96, 130, 64, 98, 1),
    (48, 65, 3, 20, 0),
    (33, 40, 1, 8, 1),
    (32, 130, 0, 50, 0),
    (96, 33, 40, 1, 0),
    (150, 200, 118, 168, 0),  # enlarged
]


def arguments(image: np.ndarray) -> tuple[torch.Tensor, ...]:
    """The image and its half in one buffer; every case from the first, one from the second."""
    half = np.asarray(Image.fromarray(image).reduce(2))
    planes = np.concatenate([each.transpose(2, 0, 1).ravel() for each in (image, half)])
    copies = [(0, *image.shape[:2]), (image.size, *half.shape[:2])]
    places = [(0, top, left, mirrored) for _, _, top, left, mirrored in CASES] + [(1, 0, 2, 0)]
    scales = [(image.shape[0] / rows, image.shape[1] / columns) for rows, columns, *_ in CASES]
    scales.append((1.3, 1.1))
    return (
        torch.from_numpy(planes).to(DEVICE),
        torch.tensor(copies, device=DEVICE),
        torch.tensor(places, device=DEVICE),
        torch.tensor(scales, dtype=torch.float64, device=DEVICE),
    )


@pytest.mark.parametrize("size", [32, 31])
def test_kernel_equals_reference(noise_image: np.ndarray, size: int) -> None:
    pytest.importorskip("triton")
    given = arguments(noise_image)
    fused, expected = (f(*given, size) for f in (resized_crops_triton, resized_crops_reference))
    assert fused.shape == expected.shape == (len(CASES) + 1, 3, size, size)
    assert fused.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(fused, expected, atol=1e-5)


def test_reference_is_pillows_resize(noise_image: np.ndarray) -> None:
    crops = resized_crops_reference(*arguments(noise_image), 32)
    for (rows, columns, top, left, mirrored), crop in zip(CASES, crops, strict=False):
        resized = Image.fromarray(noise_image).resize((columns, rows), Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((left, top, left + 32, top + 32))).astype(float)
        expected = expected[:, ::-1] if mirrored else expected
        got = (crop.permute(1, 2, 0).cpu().numpy() + 1) * 127.5
        assert np.abs(got - expected).max() < 1.2


@pytest.mark.gpu
def test_crops_in_a_captured_graph(noise_image: np.ndarray) -> None:
    given = arguments(noise_image)
    expected = resized_crops_triton(*given, 32)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = resized_crops_triton(*given, 32)
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)
