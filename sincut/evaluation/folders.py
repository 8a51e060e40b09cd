"""Measure translations of a folder of images towards a folder of styles.

Image by image the structure is compared with the content: C1 and C2. S1, S2 and S3 compare with one
style image, and a folder has none, so there the outputs are compared as a set, by the features of a
judge (:mod:`sincut.evaluation.judge`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.compute.public import public
from sincut.config.parts import AS_THEY_ARE
from sincut.errors import SincutError
from sincut.evaluation.evaluate import of_outputs, read_told
from sincut.evaluation.figures import edge_correlation, layout_correlation
from sincut.evaluation.judge import FID, Judge, file_judge, lite_judge
from sincut.evaluation.set_distances import FEWEST_IMAGES, Measured
from sincut.images.identity import is_zarr
from sincut.images.reading.asked import AskedValues
from sincut.images.reading.endings import INPUT_ENDINGS, images_among

Pixels = npt.NDArray[np.uint8]
Values = dict[str, Measured]

_WITHOUT_JUDGE = (
    "distances to it take the extra judge, which is not installed; try pip install "
    "'sincut[judge]', or --features"
)


@dataclass(frozen=True)
class Structure:
    """C1 and C2 of one output, as in :class:`sincut.evaluation.figures.Figures`."""

    C1: float
    C2: float


class FolderComparison:
    """Compares sets of translations with their contents and with the styles, seen once.

    Args:
        contents: the images that are translated, gone through again for each set of translations,
            so a list or the like.
        styles: the images whose look is wanted; gone through once, with a judge only.
        judge: gives the distances of sets, where there is one.

    Raises:
        SincutError: with a judge, there are fewer than 4 contents or styles.

    Attributes:
        anchor: the distances of the contents themselves to the styles, by name.
        floor: KID of two random halves of the styles. Of FID there is none: half as many images
            have a larger one.
    """

    def __init__(
        self, contents: Iterable[Pixels], styles: Iterable[Pixels], judge: Judge | None = None
    ) -> None:
        self.contents, self.judge = contents, judge
        self.anchor: Values = {}
        self.floor: Values = {}
        if judge is not None:
            self._styles, seen = judge.features(styles), judge.features(contents)
            counts = seen.shape[1], self._styles.shape[1]
            if min(counts) < FEWEST_IMAGES:
                raise SincutError(
                    f"distances of sets take at least {FEWEST_IMAGES} contents and styles, got "
                    f"{counts[0]} and {counts[1]}; add images"
                )
            self.anchor = judge.distances(seen, self._styles)
            places = np.random.RandomState(0).permutation(self._styles.shape[1])
            halves = (self._styles[:, half] for half in np.array_split(places, 2))
            self.floor = judge.distances(*halves)
            self.floor.pop(FID, None)

    def compare(self, outputs: Iterable[Pixels]) -> tuple[list[Structure], Values]:
        """The structure of each output, and the distances of all to the styles, by name.

        Args:
            outputs: one for each content, in their order, gone through once.

        Raises:
            SincutError: an output has another size than its content.
            ValueError: there are more or fewer outputs than contents.
        """
        structures = []

        def measured() -> Iterator[Pixels]:
            for content, output in zip(self.contents, outputs, strict=True):
                if content.shape != output.shape:
                    raise SincutError(
                        "an output must have its content's size, "
                        f"{content.shape[1]}×{content.shape[0]} pixels, got "
                        f"{output.shape[1]}×{output.shape[0]}; resize it to that size first"
                    )
                edges = edge_correlation(output, content)
                structures.append(Structure(edges, layout_correlation(output, content)))
                yield output

        if self.judge is None:
            deque(measured(), maxlen=0)
            return structures, {}
        features = self.judge.features(measured())
        return structures, self.judge.distances(features, self._styles)

    def figures(self, outputs: Iterable[Pixels]) -> dict[str, float]:
        """Means of C1 and C2 over the outputs, and the distances, by name; as ``compare``."""
        structures, distances = self.compare(outputs)
        means = {name: mean_and_spread(structures, name).mean for name in ("C1", "C2")}
        return {**means, **{name: distance.mean for name, distance in distances.items()}}


def mean_and_spread(structures: Iterable[Structure], name: str) -> Measured:
    """Mean and standard deviation of a figure over the images."""
    values = [getattr(each, name) for each in structures]
    return Measured(float(np.mean(values)), float(np.std(values)))


@dataclass(frozen=True)
class FolderEvaluation:
    """The figures of a folder of translations.

    Attributes:
        images: the structure of every output, by its path.
        distances: of the outputs, as a set, to the styles, by name.
        anchor: the same of the contents as they are: what no translation at all has.
        floor: the same of two halves of the styles, which no translation can be sure to beat.
        counts: how many contents and styles there are.
        notices: pairs of a path and a line about it.
    """

    images: dict[str, Structure]
    distances: Values
    anchor: Values
    floor: Values
    counts: dict[str, int]
    notices: tuple[tuple[str, str], ...] = ()

    def summary(self) -> Values:
        """Mean and standard deviation of C1 and C2 over the images, by name."""
        return {name: mean_and_spread(self.images.values(), name) for name in ("C1", "C2")}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with six digits; ``std`` is ``None`` where there is none."""
        result: dict[str, Any] = {"counts": self.counts}
        for name, values in (
            ("images", self.images),
            ("structure", self.summary()),
            ("distances", self.distances),
            ("anchor", self.anchor),
            ("floor", self.floor),
        ):
            result[name] = {key: _rounded(value) for key, value in values.items()}
        return result


@public
def evaluate_folders(
    content: Path | str,
    style: Path | str,
    outputs: Path | str,
    *,
    features: Path | str | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> FolderEvaluation:
    """Measure a folder that holds a translation of every image of another folder.

    A translation has its content's name, with any ending: ``a.jpg`` or ``a.gif`` has ``a.png``, or
    as ``sincut translate`` writes it ``a.gif.png``. What else the folder holds is told and left
    out. Images of subfolders are not looked at. Files are read one by one, contents up to twice.

    Args:
        content: the folder of the images that were translated.
        style: the folder of images whose look is wanted.
        outputs: the folder of their translations, each of its content's size.
        features: a TorchScript file, see :func:`sincut.evaluation.judge.file_judge`. It runs code.
            Without it, :func:`sincut.evaluation.judge.lite_judge` judges, where it is installed.
        on_progress: called with the file that is read, and how many of how many were.
        options: as of :func:`sincut.evaluation.evaluate.evaluate`; a range that is found is each
            image's own.

    Raises:
        SincutError: before the work, for a folder that is none or holds no image, two contents that
            differ in their endings only, contents with no or two translations; on the way, for a
            file that cannot be read, an output of another size, a bad ``features``.
    """
    settings = AS_THEY_ARE.replaced(**options)
    contents, styles, found = (_images_in(folder) for folder in (content, style, outputs))
    pairs, notices = _matched(contents, found, Path(outputs))
    judge = file_judge(features) if features is not None else lite_judge()
    if judge is None:
        notices.append((str(style), _WITHOUT_JUDGE))
    elif min(len(contents), len(styles)) < FEWEST_IMAGES:
        judge = None
        few = f"at least {FEWEST_IMAGES} images of both folders, got {len(contents)}"
        notices.append((str(style), f"distances to it take {few} and {len(styles)}"))
    reads = 2 * len(contents) + (len(contents) + len(styles) if judge is not None else 0)
    files = _Files(reads, on_progress)
    of_contents, of_styles = (AskedValues.of(settings, role) for role in ("content", "style"))
    comparison = FolderComparison(
        _Images(files, contents, of_contents), _Images(files, styles, of_styles), judge
    )
    structures, distances = comparison.compare(files.translations(pairs))
    files.report("done")
    return FolderEvaluation(
        images={str(path): each for (_, path), each in zip(pairs, structures, strict=True)},
        distances=distances,
        anchor=comparison.anchor,
        floor=comparison.floor,
        counts={"content": len(contents), "style": len(styles)},
        notices=(*notices, *_folded(files.notices)),
    )


def are_folders(content: Path | str, style: Path | str, outputs: Sequence[Path | str]) -> bool:
    """Whether folders are to be measured, rather than files.

    Raises:
        SincutError: some are folders and some are not, or there are several folders of outputs.
    """
    kinds = {
        str(path): Path(path).is_dir() and not is_zarr(Path(path))
        for path in (content, style, *outputs)
    }
    if len(set(kinds.values())) == 2:
        folder, other = (
            next(path for path, kind in kinds.items() if kind == wanted) for wanted in (True, False)
        )
        raise SincutError(
            f"content, style and output must all be files or all be folders, got the folder "
            f"{folder} and {other}, which is none; give three folders, or files"
        )
    folders = next(iter(kinds.values()))
    if folders and len(outputs) != 1:
        raise SincutError(
            f"folders are measured with one folder of translations, got {len(outputs)}; measure "
            "them one after another"
        )
    return folders


def _images_in(folder: Path | str) -> list[Path]:
    try:
        images = images_among(Path(folder).iterdir())
    except OSError as error:
        raise SincutError(
            f"{folder} cannot be read as a folder ({error.strerror}); give a folder of images"
        ) from None
    if not images:
        raise SincutError(
            f"{folder} holds no image to measure; allowed endings: {', '.join(INPUT_ENDINGS)}"
        )
    return images


def _matched(
    contents: Sequence[Path], found: Sequence[Path], outputs: Path
) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """Contents with their translations, and a notice of what is none."""
    by_stem: dict[str, Path] = {}
    for path in contents:
        if path.stem in by_stem:
            raise SincutError(
                f"{by_stem[path.stem]} and {path} would have translations of one name; rename one"
            )
        by_stem[path.stem] = path
    # ``sincut translate`` puts an ending behind the whole name where it cannot write that format.
    by_name = {**by_stem, **{path.name: path for path in contents}}
    translations: dict[Path, Path] = {}
    others = []
    for path in found:
        content = by_name.get(path.stem)
        if content is None:
            others.append(path)
        elif content in translations:
            raise SincutError(
                f"{translations[content]} and {path} are both translations of {content}; keep one"
            )
        else:
            translations[content] = path
    missing = [path for path in contents if path not in translations]
    if missing:
        raise SincutError(
            f"{outputs} must hold a translation of every content, got none of {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}; try sincut translate"
        )
    notices = []
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        notices.append((str(others[0]), f"it{more} is no translation of a content: not measured"))
    return [(path, translations[path]) for path in contents], notices


class _Files:
    """Reads images one by one, and keeps their shapes and what is told of them."""

    def __init__(self, total: int, on_progress: Callable[[str, int, int], None] | None) -> None:
        self.total, self.on_progress = total, on_progress
        self.done = 0
        self.shapes: dict[Path, tuple[int, ...]] = {}
        self.taken: dict[Path, AskedValues] = {}  # of the translations of a content
        self.notices: list[tuple[str, str]] = []

    def report(self, text: str) -> None:
        if self.on_progress is not None:
            self.on_progress(text, self.done, self.total)

    def read(self, path: Path, asked: AskedValues) -> Pixels:
        self.report(str(path))
        self.done += 1
        picture = read_told(path, self.notices, asked)
        self.shapes[path], self.taken[path] = picture.rgb.shape, of_outputs(picture)
        return picture.rgb

    def translations(self, pairs: Iterable[tuple[Path, Path]]) -> Iterator[Pixels]:
        """Of contents that were read before."""
        for content, path in pairs:
            image = self.read(path, self.taken[content])
            height, width = self.shapes[content][:2]
            if image.shape[:2] != (height, width):
                raise SincutError(
                    f"{path} must have the size of {content}, {width}×{height}, got "
                    f"{image.shape[1]}×{image.shape[0]}; try a translation at its full size"
                )
            yield image


@dataclass(frozen=True)
class _Images:
    """Images of files, read anew each time they are gone through."""

    files: _Files
    paths: Sequence[Path]
    asked: AskedValues

    def __iter__(self) -> Iterator[Pixels]:
        return (self.files.read(path, self.asked) for path in self.paths)


def _folded(notices: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """One notice for all files of which the same is told."""
    paths: dict[str, list[str]] = {}
    for path, notice in dict.fromkeys(notices):
        paths.setdefault(notice, []).append(path)
    for notice, (first, *rest) in paths.items():
        yield first, f"{notice} (and so for {len(rest)} more files)" if rest else notice


def _rounded(values: Structure | Measured) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value, 6) for name, value in asdict(values).items()
    }
