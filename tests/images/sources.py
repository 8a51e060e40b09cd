"""Sources of files for tests: opened, read whole, or refused in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sincut.errors import SincutError
from sincut.images.reading.open import open_source
from sincut.images.reading.source import Source


def opened(path: Path, pixels: int = 10**9, memory: int = 10**9) -> Source:
    return open_source(path, max_pixels=pixels, max_memory=memory)


def rows_of(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """All rows as the source gives them, and its notices."""
    with opened(path) as source:
        half = source.height // 2
        rows = np.concatenate((source.rows(0, half), source.rows(half, source.height)))
        return rows, source.notices


def refusal(path: Path, **limits: int) -> str:
    with pytest.raises(SincutError) as caught:
        opened(path, **limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)
