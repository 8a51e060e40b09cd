"""Which files a command means: folders and patterns as inputs, and an output for each. No torch."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sincut.errors import SincutError
from sincut.files import check_free, kind_of_file
from sincut.images.identity import is_zarr
from sincut.images.reading.endings import INPUT_ENDINGS, images_among
from sincut.images.writing.formats import OUTPUT_FORMATS


def found_inputs(inputs: Sequence[Path | str], output: Path) -> list[Path]:
    """The image files that paths, folders and patterns (``*``, ``?``, ``[…]``, ``**``) name.

    From a folder all images in it are taken, not those of its subfolders; hidden files never. What
    folders and patterns find in the output's folder is left out: those are earlier results.

    Raises:
        SincutError: a folder or pattern holds no image.
    """
    result: list[Path] = []
    for given in inputs:
        with _told(given):
            result += _found(given, output)
    return list(dict.fromkeys(result))


def _found(given: Path | str, output: Path) -> list[Path]:
    path = Path(given)
    if is_zarr(path):  # a folder that is an image
        return [path]
    pattern = glob.has_magic(str(given)) and not path.exists()
    if not (pattern or path.is_dir()):
        return [path]
    # Path.glob takes no absolute pattern.
    names = glob.glob(str(given), recursive=True) if pattern else path.iterdir()  # noqa: PTH207
    images = images_among(map(Path, names))
    found = [each for each in images if not _same(each.parent, output)]
    if not found and images and path.is_dir():
        return images  # refused later, by name: the outputs would be inputs
    if not found:
        raise SincutError(
            f"{given} holds no image to translate; allowed endings: {', '.join(INPUT_ENDINGS)}"
        )
    return found


def planned_outputs(
    inputs: Sequence[Path],
    output: Path,
    *,
    force: bool,
    skip: Callable[[Path], bool] = lambda target: False,
    protected: Sequence[Path] = (),
) -> list[tuple[Path, Path]]:
    """Where each input goes, without those whose output exists and is to be skipped.

    ``protected`` are more files that no output may replace.

    Raises:
        SincutError: two inputs go to one output, an output exists (without ``force``) or is an
            input.
    """
    if not inputs:
        raise SincutError("there is nothing to translate; give at least one image")
    with _told(output):
        return _planned(inputs, output, force, skip, protected)


def _planned(
    inputs: Sequence[Path],
    output: Path,
    force: bool,
    skip: Callable[[Path], bool],
    protected: Sequence[Path],
) -> list[tuple[Path, Path]]:
    to_file = len(inputs) == 1 and not output.is_dir() and output.suffix != ""
    to_file |= len(inputs) == 1 and is_zarr(output)
    if to_file:
        pairs = [(inputs[0], output)]
    else:
        if output.exists() and not output.is_dir():
            raise SincutError(
                f"{output} is {kind_of_file(output)}; give a folder, or for one input a file name "
                "with an ending such as .png"
            )
        pairs = [(path, output / _output_name(path)) for path in inputs]
    taken: dict[Path, Path] = {}
    guarded = {_identity(path): path for path in (*inputs, *protected) if path.exists()}
    kept = []
    for source, target in pairs:
        if target in taken:
            raise SincutError(
                f"{taken[target]} and {source} would both be written to {target}; "
                "translate them into different folders"
            )
        taken[target] = source
        if target.exists() and (is_zarr(target) or not target.is_dir()):
            twin = guarded.get(_identity(target))
            if twin is None and skip(target):
                continue
            check_free(target, force=force, inputs=[] if twin is None else [twin])
        kept.append((source, target))
    return kept


def _output_name(path: Path) -> str:
    """An input's own name, so that ``a.jpg`` and ``a.png`` do not meet; where it names no format
    that can be written, with an ending behind it."""
    known = path.suffix.lower() in OUTPUT_FORMATS or is_zarr(path)
    return path.name if known else f"{path.name}.png"


def _identity(path: Path) -> tuple[int, int]:
    """What a file is, by whatever name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


@contextlib.contextmanager
def _told(about: Path | str) -> Iterator[None]:
    """What the system says of a path, as one line."""
    try:
        yield
    except OSError as error:
        raise SincutError(
            f"cannot look at {error.filename or about} ({error.strerror}); check the place, its "
            "name and its permissions"
        ) from None
