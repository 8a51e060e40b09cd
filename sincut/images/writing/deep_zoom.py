"""Deep Zoom from bands of rows: the part file holds raw pixels, encoded at the end. No torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sincut.errors import one_line
from sincut.images.metadata import KeptMetadata
from sincut.images.records import not_kept, record_options
from sincut.images.vips import loaded_vips
from sincut.images.writing.encoder import Encoder, _removed_on_failure
from sincut.images.writing.layout import BandPixels, Encoded, Layout, Progress
from sincut.images.writing.part_file import PartFile, beside

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
            place = deep_zoom_folder(part.target)
            if place.exists():
                shutil.rmtree(place)
            os.replace(folder, place)
        part.publish(file)


def deep_zoom_folder(target: Path) -> Path:
    """Where the tiles of a ``.dzi`` file lie."""
    return target.with_name(f"{target.stem}_files")
