"""Images in memory as files, which everything that reads images takes. No torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from sincut.errors import SincutError, one_line
from sincut.files import check_path, make_folder, write_atomically
from sincut.images.metadata import DAMAGE

# A file, a PIL image, or an array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16.
# sRGB but for a PIL image with an ICC profile; a PIL image is turned as its EXIF says.
ImageLike = Path | str | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


class ImageFiles:
    """The images of a call as files: as given, or in a folder that goes when it is closed.

    Errors that leave it name an image in memory by its file's name alone.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def file(self, name: str, image: ImageLike) -> Path | str:
        """The file of an image; ``name`` is that of one in memory, without an ending.

        Raises:
            SincutError: it is neither a path nor an image of a kind that is read.
        """
        if not isinstance(image, (np.ndarray, Image.Image)):
            check_path(name, image, "a path, a PIL image or an array")
            return image
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sincut-")
        path = Path(self._folder.name, name)
        if isinstance(image, Image.Image) and not image.mode.startswith("I;16"):
            return _write_image(path, image)
        return _write_array(path, np.asarray(image))

    def files(self, name: str, images: Sequence[ImageLike] | ImageLike) -> list[Path | str]:
        """As :meth:`file`, of one or several: these are counted, ``name-1`` and so on."""
        if isinstance(images, (str, bytes)) or not isinstance(images, (Sequence, Iterator)):
            return [self.file(name, images)]
        given = list(images)
        return [
            self.file(f"{name}-{index}" if len(given) > 1 else name, image)
            for index, image in enumerate(given, start=1)
        ]

    def shown(self, text: object) -> str:
        """A text without the folder of images in memory."""
        return str(text) if self._folder is None else str(text).replace(f"{self._folder.name}/", "")

    def keep(self, folder: Path) -> None:
        """Copy the images in memory, if there are any, into a folder."""
        if self._folder is None:
            return
        make_folder(folder)
        for path in Path(self._folder.name).iterdir():
            with open(path, "rb") as file, write_atomically(folder / path.name) as copy:
                shutil.copyfileobj(file, copy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is None:
            return
        if isinstance(error, SincutError):
            error.args = (self.shown(error),)
        self._folder.cleanup()


def _write_array(path: Path, pixels: npt.NDArray[Any]) -> Path:
    kind = pixels.dtype.newbyteorder("=")
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if kind not in (np.uint8, np.uint16) or not shaped or not pixels.size:
        raise SincutError(
            f"{path.name} must be (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16, got "
            f"{pixels.shape} of {pixels.dtype}; of floats from 0 to 1 try "
            "(255 * array).round().astype('uint8')"
        )
    if kind == np.uint8:
        return _write_image(path, Image.fromarray(np.ascontiguousarray(pixels)))
    path = path.with_name(f"{path.name}.tif")  # a PNG of 16 bits takes an extra package
    tifffile.imwrite(
        path,
        np.ascontiguousarray(pixels, kind),
        photometric="minisblack" if pixels.ndim == 2 else "rgb",
        extrasamples=["unassalpha"] if pixels.shape[2:] == (4,) else None,
        metadata=None,
    )
    return path


def _write_image(path: Path, image: Image.Image) -> Path:
    if image.mode not in (*_PNG_MODES, "CMYK") or not all(image.size):
        raise SincutError(
            f"{path.name} must have pixels of the mode {', '.join(_PNG_MODES)}, I;16 or CMYK, got "
            f"{image.width}×{image.height} of {image.mode}; try .convert('RGB')"
        )
    kind, ending = ("TIFF", ".tif") if image.mode == "CMYK" else ("PNG", ".png")
    path = path.with_name(f"{path.name}{ending}")
    try:
        image.load()
        kept = {"exif": image.getexif() or None, "dpi": image.info.get("dpi")}
        options = {name: value for name, value in kept.items() if value is not None}
        image.save(path, format=kind, **options)
    except DAMAGE as error:  # of the file that it was opened from, mostly
        raise SincutError(
            f"{path.stem} cannot be written as {kind} ({one_line(error)}); "
            "write it to a file first, and give that"
        ) from None
    return path
