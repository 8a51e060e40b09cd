"""A folder of images: which files it has, how large they are, and their pixels."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from sincut.errors import SincutError
from sincut.images.reading.asked import AS_STORED, AskedValues
from sincut.images.reading.endings import INPUT_ENDINGS, images_among
from sincut.images.reading.open import image_size, open_source, read_picture

Pixels = npt.NDArray[np.uint8]

# One folder that holds both, by the names that data sets and tools use.
_SUBFOLDERS = (("trainA", "trainB"), ("train_A", "train_B"), ("A", "B"))
_HELD_OUT = (("testA", "testB"), ("test_A", "test_B"))
_NAMED = 3  # bad files of a message


class FolderImage(NamedTuple):
    """An image of a folder: its file, its size in pixels, upright, and how its values are taken."""

    path: Path
    width: int
    height: int
    asked: AskedValues = AS_STORED


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder and its subfolders, in the order of their paths.

    ``bad`` are files that were left out, with the reason.
    """

    path: Path
    images: tuple[FolderImage, ...]
    bad: tuple[tuple[Path, str], ...] = ()

    def without(self, bad: Iterable[tuple[Path, str]]) -> ImageFolder:
        """The folder without files that turned out to be bad."""
        found = dict(bad)
        images = tuple(image for image in self.images if image.path not in found)
        return ImageFolder(self.path, images, (*self.bad, *found.items()))

    @property
    def asked(self) -> AskedValues:
        """How the images' values are taken."""
        return self.images[0].asked

    def kind(self) -> str:
        """The name of the type of the first image's values."""
        path = self.images[0].path
        with open_source(path, max_pixels=sys.maxsize, max_memory=sys.maxsize) as source:
            return source.dtype.name

    @property
    def digest(self) -> str:
        """SHA-256 over the names of its images below the folder, and their sizes in bytes and in
        pixels. Reading all of a large folder would take longer than what this is asked for."""
        digest = hashlib.sha256()
        for image in self.images:
            name = image.path.relative_to(self.path).as_posix()
            size = f"{image.path.stat().st_size} {image.width} {image.height}"
            digest.update(f"{name}\0{size}\n".encode())
        return digest.hexdigest()

    def sizes(self) -> str:
        """The images' sizes in a few words."""
        widths, heights = ([getattr(i, side) for i in self.images] for side in ("width", "height"))
        low, high = (f"{pick(widths)}×{pick(heights)}" for pick in (min, max))
        return low if low == high else f"{low} to {high}"


def both_folders(first: Path, second: Path | None) -> tuple[Path, Path]:
    """The two folders that one or two arguments of a command name.

    Raises:
        SincutError: one folder that does not hold both, or something that is no folder.
    """
    if second is not None:
        for path in (first, second):
            if not path.is_dir():
                raise SincutError(
                    f"{path} is not a folder; give two images, or two folders of images"
                )
        return first, second
    found = _pair_in(first, _SUBFOLDERS)
    if found is None:
        names = " and ".join(_SUBFOLDERS[0])
        raise SincutError(
            f"{first} does not hold two folders of images; give two folders, or one with {names}"
        )
    return found


def held_out_folders(first: Path, second: Path) -> tuple[Path, Path] | None:
    """``testA`` and ``testB`` beside ``trainA`` and ``trainB``, where they are."""
    if first.resolve().parent != second.resolve().parent or first.name == "A":
        return None
    return _pair_in(first.resolve().parent, _HELD_OUT)


def _pair_in(folder: Path, names: Sequence[tuple[str, str]]) -> tuple[Path, Path] | None:
    for one, other in names:
        if (folder / one).is_dir() and (folder / other).is_dir():
            return folder / one, folder / other
    return None


def read_folder(
    folder: Path, *, skip_bad: bool = False, asked: AskedValues = AS_STORED
) -> ImageFolder:
    """Look at the headers of all images in a folder and its subfolders; links are followed.

    Raises:
        SincutError: there is no image, or one cannot be read and ``skip_bad`` is not set; or a
            range is to be found, which each image would have of its own.
    """
    if asked.automatic:
        raise SincutError(
            f"a range is found of one image, got range=auto for the folder {folder}; try the range "
            "that all its images share, such as --range 0,4095"
        )
    walked = os.walk(folder, followlinks=True)
    images, bad = [], []
    for path in images_among(Path(place) / name for place, _, names in walked for name in names):
        try:
            width, height = image_size(path)
            if skip_bad:  # what is damaged behind its header is to be left out, too
                read_picture(path, asked=asked)
        except SincutError as error:
            bad.append((path, str(error)))
        else:
            images.append(FolderImage(path, width, height, asked))
    found = ImageFolder(folder, tuple(images))
    return checked(found, bad, skip_bad=skip_bad)


def checked(folder: ImageFolder, bad: Sequence[tuple[Path, str]], *, skip_bad: bool) -> ImageFolder:
    """The folder without the bad files, if they may be left out and others remain.

    Raises:
        SincutError: otherwise.
    """
    if bad and not skip_bad:
        named = "; ".join(reason for _, reason in bad[:_NAMED])
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise SincutError(
            f"{len(bad)} of the images in {folder.path} cannot be read: {named}{more}; try "
            "--skip-bad to leave them out"
        )
    found = folder.without(bad)
    if not found.images:
        raise SincutError(
            f"{folder.path} holds no image to train on; allowed endings: {', '.join(INPUT_ENDINGS)}"
        )
    return found


def decoded(image: FolderImage, halvings: int) -> Pixels:
    """(H, W, 3) uint8 sRGB, upright, its sides halved that often.

    Raises:
        SincutError: it is damaged behind its header, or was changed.
    """
    try:
        rgb = read_picture(image.path, asked=image.asked).rgb
    except SincutError as error:
        raise SincutError(f"{error}; --skip-bad leaves out what cannot be read") from None
    if rgb.shape[:2] != (image.height, image.width):
        raise SincutError(f"{image.path} was changed while it was trained on; start again")
    return np.asarray(Image.fromarray(rgb).reduce(2**halvings)) if halvings else rgb
