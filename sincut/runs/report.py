"""What a run came to, as one HTML file: looked at from disk, sent on, without a network."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from sincut.config.training import PairConfig, TrainConfig
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.evaluation.anchors import anchors as make_anchors
from sincut.evaluation.evaluate import beyond_the_line
from sincut.evaluation.figures import SMALLEST_SIDE, Comparison
from sincut.files import check_file, check_free, write_atomically
from sincut.images.reading.open import read_picture
from sincut.images.reading.source import Pixels
from sincut.models.generator import Generator
from sincut.pages.pictures import Embedded, exact, photograph
from sincut.runs.commands import repeating_command
from sincut.runs.final_colours import translated_small
from sincut.runs.folder import REPORT_FILE, RunRecord
from sincut.runs.report_page import Contents, Crop, Measured, page
from sincut.translation.tiles import TileWorker, operator_of, translate_pixels, window_of
from sincut.translation.tiling import Tile, span_at
from sincut.units import duration
from sincut.version import __version__

MEASURED_PIXELS = 2_000_000  # of content and style each, up to which figures come by themselves
WHOLE_PIXELS = 24_000_000  # of the content, up to which all of it is translated for the report
_REDUCED_SIDE = 2048  # of the picture of the result, where it is not

LARGEST = 10_000_000  # bytes of a report
_PICTURE_SIDE = 4096  # pixels of content, style and result in it, at most
_PREVIEW = 60_000  # bytes
_PREVIEWS = 24  # as many of them at most, evenly over the run
_PREVIEW_SIDE = 640
_CROP = 256  # pixels
_CROPS = 3

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Report:
    """Where the report is, its size in bytes, and the figures by name where they were measured.

    ``figures`` is of the result; ``anchors`` by the anchor's name.
    """

    path: Path
    size: int
    figures: dict[str, float] | None
    anchors: dict[str, dict[str, float]]


def write_report(
    record: RunRecord,
    target: Path,
    generator: Generator,
    content: Pixels,
    style: Pixels,
    *,
    step: int,
    result: Pixels | None = None,
    figures: bool | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """:func:`sincut.runs.reporting.report` of images and a generator that are in memory.

    ``target`` is replaced.

    Args:
        content, style, result: (H, W, 3) uint8 sRGB; content and result have one size.
        step: after which the generator is.
    """
    wanted, why_not = _figures_wanted((content, style), figures)
    if figures and result is None and _count(content) > WHOLE_PIXELS:
        raise SincutError(
            f"figures take a translation of the whole content, and above "
            f"{WHOLE_PIXELS // 1_000_000} megapixels a report makes none; translate it and give it "
            "with --result FILE, or try --no-figures"
        )
    told = on_progress or (lambda *_: None)
    steps = 8 if wanted else 2
    times = [("training", duration(record.seconds))]
    told("the result", 0, steps)
    with _timed("translating for this report", times):
        shown = _Result.made(generator, content, result)
    measured: list[Measured] = []
    if wanted and shown.whole is not None:
        try:
            with _timed("measuring", times):
                measured = list(_measured(content, style, shown.whole, told, steps))
        except SincutError as error:  # such as a style of one colour
            if figures:
                raise
            why_not = f"Not measured: {error}."
    told("the page", steps - 1, steps)
    page = _page(record, step, content, style, shown, measured, why_not, times).encode()
    with write_atomically(target) as file:
        file.write(page)
    told("the page", steps, steps)
    of_result = dict(measured[0].figures) if measured else None
    of_anchors = {row.name: dict(row.figures) for row in measured[1:]}
    return Report(target, len(page), of_result, of_anchors)


def expected_seconds(
    content: Pixels, style: Pixels, preview_seconds: float, config: TrainConfig
) -> float:
    """About how long a report takes that nobody asked anything special of.

    Translating is foreseen from the ``preview_seconds`` that a preview took on this machine.
    Figures and anchors took 11 seconds a megapixel of the pair on two CPU cores, brushwork three a
    megapixel of the content, all else three.
    """

    def within(side: int) -> float:
        """Pixels of the content with its longest side at most ``side``."""
        share = min(1.0, side / int(max(content.shape[:2])))
        return _count(content) * share * share

    whole = _count(content) <= WHOLE_PIXELS
    translated = _count(content) if whole else within(_REDUCED_SIDE)
    seconds = 3 + preview_seconds * translated / within(config.preview_width)
    seconds += 3 * translated / 1e6 if isinstance(config, PairConfig) and config.brushwork else 0
    wanted, _ = _figures_wanted((content, style), None)
    return seconds + (11 * (_count(content) + _count(style)) / 1e6 if wanted else 0)


def expected_bytes(content: Pixels, style: Pixels) -> int:
    """About how much memory a report takes at its peak beside the pair: Pillow's copy of a picture,
    four bytes a pixel, its rows reduced, the reduced picture, and the page as text and as bytes."""

    def reduced(image: Pixels) -> int:
        height, width = image.shape[:2]
        share = min(1.0, _PICTURE_SIDE / max(height, width))
        across, down = round(share * width), round(share * height)
        pixels: int = height * width + (across * (height + down) if share < 1 else 0)
        return 4 * pixels

    whole = content.nbytes if _count(content) <= WHOLE_PIXELS else 0  # the result
    return whole + max(reduced(content), reduced(style)) + 2 * LARGEST


@dataclass(frozen=True)
class _Result:
    """The result as far as it is there: the whole, or a small one and squares of the whole."""

    picture: Pixels
    note: str
    whole: Pixels | None
    square: Callable[[int, int, int, int], Pixels]  # rows and columns, half open

    @classmethod
    def made(cls, generator: Generator, content: Pixels, given: Pixels | None) -> _Result:
        config = TranslateConfig()
        if given is not None:
            return cls.of(given, "The result is the file that was given.")
        # A network that normalises has no squares without the whole.
        if _count(content) <= WHOLE_PIXELS or generator.normalises:
            whole = translate_pixels(generator, content, config)
            return cls.of(whole, "The result is the content translated at its own size.")
        small = translated_small(content, _REDUCED_SIDE, generator)
        height, width = content.shape[:2]
        operator = operator_of(generator, config, height, width, Path(tempfile.gettempdir()))
        engine = TileWorker(operator, height, width, content.dtype)

        def square(top: int, bottom: int, left: int, right: int) -> Pixels:
            reach = operator.halo, operator.alignment, operator.border
            above, before = top % operator.alignment, left % operator.alignment
            rows = span_at(top - above, bottom, height, *reach)
            columns = span_at(left - before, right, width, *reach)
            window = window_of(content, Tile(rows, columns), 0, height)
            pixels: Pixels = engine.start(window, Tile(rows, columns)).wait()[above:, before:]
            return pixels.copy()

        note = (
            f"The content has {_count(content) / 1e6:.0f} megapixels: the result shown is that of "
            f"the content reduced to {small.shape[1]}×{small.shape[0]}, whose textures are larger. "
            "The squares further down are from the full size."
        )
        return cls(small, note, None, square)

    @classmethod
    def of(cls, whole: Pixels, note: str) -> _Result:
        return cls(
            whole, note, whole, lambda top, bottom, left, right: whole[top:bottom, left:right]
        )


def _measured(
    content: Pixels, style: Pixels, result: Pixels, told: Progress, steps: int
) -> Iterator[Measured]:
    told("figures of the result", 1, steps)
    comparison = Comparison(content, style)
    of_result = comparison.figures(result)
    of_anchors = {}
    for index, (name, image) in enumerate(make_anchors(content, style).items()):
        told(f"anchor: {name}", 2 + index, steps)
        of_anchors[name] = comparison.figures(image)
    yield Measured("result", asdict(of_result), beyond_the_line(of_result, of_anchors))
    for name, figures in of_anchors.items():
        yield Measured(f"anchor: {name}", asdict(figures))


def _page(
    record: RunRecord,
    step: int,
    content: Pixels,
    style: Pixels,
    shown: _Result,
    measured: list[Measured],
    why_not: str,
    times: list[tuple[str, str]],
) -> str:
    """The page. Its three pictures share what the rest leaves of ten megabytes."""
    top, left = (max((length - _CROP) // 2, 0) for length in style.shape[:2])
    crops = [
        Crop(
            square[2],
            square[0],
            exact(content[square[0] : square[1], square[2] : square[3]]),
            exact(shown.square(*square)),
        )
        for square in _telling_squares(content)
    ]
    nothing = Embedded("data:,", 1, 1)
    contents = Contents(
        run=record,
        step=step,
        content=nothing,
        style=nothing,
        result=nothing,
        result_note=shown.note,
        crops=crops,
        style_crop=exact(style[top : top + _CROP, left : left + _CROP]),
        previews=list(previews_of(record)),
        measured=measured,
        not_measured=why_not,
        times=times,
        versions=versions_of(record),
        command=repeating_command(record),
    )
    left_over = LARGEST - len(page(contents).encode()) - 1000
    pictures: dict[str, Any] = {
        name: photograph(pixels, int(share * left_over), _PICTURE_SIDE)
        for name, pixels, share in (
            ("content", content, 0.4),
            ("result", shown.picture, 0.4),
            ("style", style, 0.2),
        )
    }
    return page(replace(contents, **pictures))


def _telling_squares(content: Pixels) -> list[tuple[int, int, int, int]]:
    """Where to look closely: squares with most detail, apart from each other, and one with least.

    Rows and columns, half open.
    """
    height, width = content.shape[:2]
    side = min(_CROP, height // 2 * 2, width // 2 * 2) or 1
    step = max(side // 2 // 2 * 2, 2)
    # A sparse look is enough to find them, and a huge image is not to be held again in floats.
    sparse = max(max(height, width) // 2048, 1)
    grey = content[::sparse, ::sparse].mean(axis=2, dtype=np.float32)
    detail = np.zeros_like(grey)
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    detail[1:] += np.abs(np.diff(grey, axis=0))
    corners = [
        (top, left)
        for top in range(0, height - side + 1, step)
        for left in range(0, width - side + 1, step)
    ]

    def part(start: int) -> slice:
        return slice(start // sparse, max((start + side) // sparse, start // sparse + 1))

    score = {(top, left): float(detail[part(top), part(left)].mean()) for top, left in corners}
    ranked = sorted(corners, key=lambda corner: -score[corner])
    chosen: list[tuple[int, int]] = []

    def apart(corner: tuple[int, int]) -> bool:
        return all(max(abs(corner[0] - top), abs(corner[1] - left)) >= side for top, left in chosen)

    for corner in ranked:
        if len(chosen) < _CROPS and apart(corner):
            chosen.append(corner)
    calm = next((corner for corner in reversed(ranked) if apart(corner)), None)
    if calm is not None:
        chosen.append(calm)
    return [(top, top + side, left, left + side) for top, left in chosen]


def previews_of(record: RunRecord) -> Iterator[tuple[int, Embedded]]:
    """As many as fit, evenly, the first and the last among them."""
    known = record.previews
    count = min(len(known), _PREVIEWS)
    for index in range(count):
        place = round(index * (len(known) - 1) / max(count - 1, 1))
        step, path = known[place]
        try:
            pixels = read_picture(path).rgb
        except SincutError:  # a file that somebody changed: the report goes without it
            continue
        yield step, photograph(pixels, _PREVIEW, _PREVIEW_SIDE)


def versions_of(record: RunRecord) -> list[tuple[str, str]]:
    """What the run was trained with, as recorded, and what made this report."""
    with_each: dict[str, list[str]] = {}
    for session in record.sessions:
        for name, value in session.environment.items():
            if value not in with_each.setdefault(name, []):
                with_each[name].append(value)
    found = [(f"trained with {name}", ", then ".join(all_)) for name, all_ in with_each.items()]
    now = {"sincut": __version__, "Python": platform.python_version()}
    for name in ("torch", "numpy", "pillow"):
        try:
            now[name] = version(name)
        except PackageNotFoundError:
            continue
    made = ", ".join(f"{name} {value}" for name, value in now.items())
    return [*found, ("this report with", made), ("this report on", time.strftime("%Y-%m-%d"))]


def _figures_wanted(pair: Any, asked: bool | None) -> tuple[bool, str]:
    """Whether to measure, and otherwise a sentence that says why not."""
    if asked is False:
        return False, "Not measured, as asked."
    smallest = min(min(image.shape[:2]) for image in pair)
    if smallest < SMALLEST_SIDE:
        return False, f"Not measured: that takes images of at least {SMALLEST_SIDE} pixels a side."
    if asked is None and max(map(_count, pair)) > MEASURED_PIXELS:
        return False, (
            "Not measured by itself, since the images are large; sincut report --figures and "
            "sincut evaluate do."
        )
    return True, ""


def check_output(path: Path, force: bool, inputs: list[Path]) -> None:
    """Refuse a file that is no HTML, one of the inputs, or there already."""
    check_file(path, hint=f"try {path / REPORT_FILE}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise SincutError(f"a report is an HTML file, got {path}; try {path.with_suffix('.html')}")
    check_free(path, force=force, inputs=inputs)


@contextmanager
def _timed(name: str, times: list[tuple[str, str]]) -> Iterator[None]:
    started = time.monotonic()
    yield
    times.append((name, duration(time.monotonic() - started)))


def _count(pixels: Pixels) -> int:
    return int(pixels.shape[0] * pixels.shape[1])
