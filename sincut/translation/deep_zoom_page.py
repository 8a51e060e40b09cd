"""Beside a Deep Zoom result: the content in the same form, and a page that shows both. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sincut.files import check_free, write_text
from sincut.images.bit_depth import as_depth
from sincut.images.metadata import KeptMetadata
from sincut.images.reading.source import Source, in_srgb
from sincut.images.writing.deep_zoom import OVERLAP, TILE_SIZE, check_replaceable, deep_zoom_folder
from sincut.images.writing.formats import BAND_STEP
from sincut.images.writing.layout import Layout
from sincut.images.writing.writer import Writer
from sincut.pages.viewer import Pane, page_text


def is_deep_zoom(target: Path) -> bool:
    """Whether a file's name asks for a Deep Zoom image."""
    return target.suffix.lower() == ".dzi"


def check_page(target: Path, *, force: bool) -> None:
    """Refuse, before the work, what lies in the way of the page.

    Raises:
        SincutError: the page or the content's image exists; what exists is not sincut's, or the
            result's own folder is not.
    """
    content = content_of(target)
    for path in (page_of(target), content, deep_zoom_folder(content)):
        check_free(path, force=force)
        check_replaceable(path)
    if force:  # else it is refused for being there
        check_replaceable(deep_zoom_folder(target))


def page_of(target: Path) -> Path:
    """The page beside a Deep Zoom image."""
    return target.with_suffix(".html")


def content_of(target: Path) -> Path:
    """The content's Deep Zoom image beside that of the result."""
    return target.with_name(f"{target.stem}-content.dzi")


def write_page(target: Path, layout: Layout, open_content: Callable[[], Source]) -> None:
    """Write the content's Deep Zoom image and the page.

    Args:
        target: the result's, which is there.
        layout: of the result; the content's image gets the same.
    """
    with (
        open_content() as source,
        Writer.open(
            content_of(target),
            layout,
            KeptMetadata(),
            band_rows=BAND_STEP,
            identity={"input image": [source.path.name, source.path.stat().st_mtime_ns]},
            resume=True,
            force=True,
        ) as writer,
    ):
        for index in range(writer.done, writer.bands):
            start = index * BAND_STEP
            rows = source.rows(start, min(start + BAND_STEP, layout.height))
            band = as_depth(in_srgb(source, rows), layout.dtype)
            if layout.channels == 4:
                alpha = as_depth(rows[..., 3:], layout.dtype)
                band = np.concatenate([band, alpha], axis=-1)
            writer.append(writer.encode(index, band))
        writer.finish()
        name = source.path.name
    panes = [
        Pane(
            title,
            deep_zoom_folder(path).name,
            layout.width,
            layout.height,
            TILE_SIZE,
            OVERLAP,
            "png" if layout.channels == 4 else "jpg",
        )
        for title, path in ((name, content_of(target)), (target.name, target))
    ]
    write_text(page_of(target), page_text(*panes))
