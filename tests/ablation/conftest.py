"""What all tests of ablations share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sincut.demo import render_content, render_style


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pair that is large enough to be measured."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(render_content(144, 128)).save(folder / "content.png")
    Image.fromarray(render_style(128, 136)).save(folder / "style.png")
    return folder / "content.png", folder / "style.png"
