"""Deep Zoom from bands of rows: the part file holds raw pixels, encoded at the end. No torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sincut.errors import SincutError, one_line
from sincut.images.metadata import KeptMetadata
from sincut.images.records import not_kept, record_options
from sincut.images.vips import loaded_vips
from sincut.images.writing.encoder import Encoder, _removed_on_failure
from sincut.images.writing.layout import BandPixels, Encoded, Layout, Progress
from sincut.images.writing.part_file import PartFile, beside
from sincut.pages.viewer import PAGE_MARK

# By which a folder of tiles and a .dzi file are known as sincut's.
MARK, _COMMENT = "sincut.txt", b"<!-- written by sincut -->\n"
TILE_SIZE, OVERLAP = 254, 1  # pixels, of Deep Zoom: with the overlap a tile has 256


class DeepZoom(Encoder):
    """A pyramid of small JPEG tiles, or PNG with alpha, for viewers in a browser. Needs pyvips."""

    def __init__(self, layout: Layout, carried: KeptMetadata, strip_metadata: bool) -> None:
        super().__init__(layout)
        self.profile = carried.profile
        kept = {"EXIF": carried.exif, "resolution": carried.dpi, "GeoTIFF tags": carried.geo}
        if not strip_metadata:
            names = [name for name, value in kept.items() if value]
            names += record_options("DZI", carried.records)[2]
            self.lost = not_kept(names, ": DZI cannot hold {}")

    def start(self) -> bytes:
        """Nothing: the part file holds only pixels."""
        return b""

    def encode(self, index: int, band: BandPixels) -> Encoded:
        """See :class:`Encoder`."""
        return Encoded(index, (band.tobytes(),))

    def finish(self, part: PartFile, progress: Progress) -> None:
        """Cut the tiles under a hidden name, then rename: the folder first, the file last."""
        vips = loaded_vips(part.target)
        layout, base = self.layout, beside(part.target, "tiles")
        folder, file = Path(f"{base}_files"), Path(f"{base}.dzi")
        part.close_data()
        with part.told(), _removed_on_failure(folder, file):
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed here
            image = vips.Image.rawload(
                str(part.path),
                layout.width,
                layout.height,
                layout.channels,
                revalidate=True,  # not what it remembers of an earlier file of this name
            ).copy(interpretation="srgb")
            if self.profile is not None:
                image = image.copy()
                image.set_type(vips.GValue.blob_type, "icc-profile-data", self.profile)
            image.set_progress(True)
            image.signal_connect("eval", lambda _, status: progress(status.percent / 100))
            suffix = ".png" if layout.channels == 4 else ".jpg[Q=90]"
            try:
                tiling = {"tile_size": TILE_SIZE, "overlap": OVERLAP}
                image.dzsave(str(base), suffix=suffix, keep="icc", **tiling)
            except vips.Error as error:
                raise OSError(one_line(error)) from None
            (folder / MARK).write_text("These tiles are sincut's: --force replaces the folder.\n")
            with open(file, "ab") as lines:
                lines.write(_COMMENT)
            place = deep_zoom_folder(part.target)
            check_replaceable(place)
            if place.exists():
                shutil.rmtree(place)
            os.replace(folder, place)
        part.publish(file)


def check_replaceable(path: Path) -> None:
    """Refuse to replace, even with ``--force``, what nobody named and sincut did not write: a
    folder of tiles, a ``.dzi`` file or a page beside a result.

    Raises:
        SincutError: there is something without sincut's mark.
    """
    if not path.is_symlink():
        if not path.exists():
            return
        if path.is_dir():
            if (path / MARK).is_file():
                return
        elif path.is_file() and any(mark in path.read_bytes() for mark in (_COMMENT, PAGE_MARK)):
            return
    raise SincutError(f"{path} was not written by sincut; move it away or give another -o")


def deep_zoom_folder(target: Path) -> Path:
    """Where the tiles of a ``.dzi`` file lie."""
    return target.with_name(f"{target.stem}_files")
