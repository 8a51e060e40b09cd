"""Files of odd kinds are translated with strength 0: pixels, metadata and notices are exact."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sincut.models.model_file import save_model
from sincut.models.stylegan2 import StyleGAN2Generator
from sincut.translation.translate import translate
from tests.images.corpus import Case, every_case, kept_in, pixels_in

CASES = every_case()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    torch.manual_seed(0)
    generator = StyleGAN2Generator(4).eval().requires_grad_(False)
    save_model(path, generator, None, {"config": {"channels": 4}, "step": 0})
    return path


def test_the_corpus_is_large_and_has_a_name_for_each() -> None:
    assert len(CASES) == len({case.name for case in CASES}) >= 300


@pytest.mark.sampled(13)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_file_of_the_corpus(
    case: Case, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded at once, and by rows as huge ones are."""
    for module in case.needs:
        pytest.importorskip(module)
    path, out = tmp_path / f"in{case.ending}", tmp_path / f"out{case.output}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the writers
        case.write(path)
    for streamed in (False, True):
        if streamed:
            monkeypatch.setattr("sincut.images.reading.open.STREAM_ABOVE", 0)
            monkeypatch.setattr("sincut.translation.plan._BAND_BYTES", 1)
        options = {"strength": 0, "device": "cpu", "precision": "fp32", "force": streamed}
        (done,) = translate(model, path, out, **options)
        assert done.notices == case.notices
        pixels = pixels_in(out)
        assert pixels.dtype == case.pixels.dtype
        assert pixels.shape == case.pixels.shape
        difference = np.abs(pixels.astype(float) - case.pixels)
        assert difference.max() <= case.tolerance
        held = kept_in(out)
        assert {name: held.get(name) for name in case.kept} == case.kept
