"""Measure finished translations of one pair: figures, anchors, identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sincut.compute.devices import chosen_device
from sincut.compute.public import public
from sincut.config.parts import PAIR_AS_IT_IS, PairImageSettings
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.evaluation.anchors import COPY, IDT, IDT_16, IDT_64, PATCHES
from sincut.evaluation.anchors import anchors as make_anchors
from sincut.evaluation.figures import SMALLEST_SIDE, Comparison, Figures, edge_correlation
from sincut.evaluation.patch_matching import matched_patches
from sincut.images.in_memory import ImageFiles, ImageLike
from sincut.images.reading.asked import AS_STORED, WHOLE, AskedPart, AskedValues
from sincut.images.reading.open import read_picture
from sincut.images.reading.source import Picture
from sincut.models.model_file import load_generator
from sincut.translation.tiles import translate_pixels

Pixels = npt.NDArray[np.uint8]

# What the result holds beside the outputs, which are named by their paths.
_OTHER_KEYS = ("anchors", "identity")


@dataclass(frozen=True)
class Identity:
    """How well G leaves the style image alone: a gate only, doing nothing at all is perfect here.

    ``L1`` is in [0, 1], ``PSNR`` in dB (infinite where nothing changed); ``C1`` and ``S2`` as in
    :class:`sincut.evaluation.figures.Figures`, against the style.
    """

    L1: float
    PSNR: float
    C1: float
    S2: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of the outputs by path as given, and of the anchors by name, where asked for.

    ``notices`` are pairs of a path and a line about that file.
    """

    outputs: dict[str, Figures]
    anchors: dict[str, Figures] = field(default_factory=dict)
    identity: Identity | None = None
    notices: tuple[tuple[str, str], ...] = ()

    def beyond(self, output: str) -> bool:
        """Whether an output is :func:`beyond_the_line` of the anchors."""
        return beyond_the_line(self.outputs[output], self.anchors)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: every output by its path, ``anchors`` and ``identity`` if present.

        Six digits; ``None`` for what is not finite.
        """
        result: dict[str, Any] = {path: _rounded(it) for path, it in self.outputs.items()}
        if self.anchors:
            for path in self.outputs:
                result[path]["beyond"] = self.beyond(path)
            result["anchors"] = {name: _rounded(it) for name, it in self.anchors.items()}
        if self.identity is not None:
            result["identity"] = _rounded(self.identity)
        return result


@public
def evaluate(
    content: ImageLike,
    style: ImageLike,
    outputs: Sequence[ImageLike] | ImageLike,
    *,
    model: Path | str | None = None,
    anchors: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Measure images against the pair they were made from.

    Args:
        content, style: the pair, each a file, a PIL image, or a uint8 or uint16 array (H, W, 3),
            (H, W, 4) or (H, W). Both are used at their own size.
        outputs: one or more such images of the content's size. One that is no file goes by
            ``output.png``, or by ``output-1.png`` where there are several; of uint16 ``.tif``.
        model: a run folder or model file; with it identity is measured. The style is translated
            as :func:`sincut.translate` does by default, so with noise, of seed 0.
        anchors: measure the anchors of :mod:`sincut.evaluation.anchors` as well, and
            :func:`sincut.evaluation.patch_matching.matched_patches`, which takes a minute.
        on_progress: called with what is being done, and how many of how many parts are done.
        options: fields of :class:`sincut.config.parts.PairImageSettings`; the content's range is
            also that of outputs whose values have its type.

    Raises:
        SincutError: before the work, for a file that cannot be read or is too small, an output
            given twice, of another size or named like a key of the result, or a bad model.
    """
    settings = PAIR_AS_IT_IS.replaced(**options)
    with ImageFiles() as images:
        pair = images.file("content", content), images.file("style", style)
        paths = images.files("output", outputs)
        return _evaluate(*pair, paths, images.shown, settings, model, anchors, on_progress)


def _evaluate(
    content: Path | str,
    style: Path | str,
    outputs: Sequence[Path | str],
    shown: Callable[[object], str],
    settings: PairImageSettings,
    model: Path | str | None,
    anchors: bool,
    on_progress: Callable[[str, int, int], None] | None,
) -> Evaluation:
    """As :func:`evaluate`, of files that go by what they are ``shown`` as."""
    _check_names([shown(path) for path in outputs])
    notices: list[tuple[str, str]] = []
    read = _measurable(content, notices, settings, "content")
    content_pixels, taken = read.rgb, of_outputs(read)
    style_pixels = _measurable(style, notices, settings, "style").rgb
    # All are read once before the work, and again one by one: together they may be large.
    for path in outputs:
        read_output(path, content_pixels, notices, taken)
    generator = load_generator(model) if model is not None else None

    total = 1 + len(outputs) + (6 if anchors else 0) + (1 if generator is not None else 0)
    done = 0

    def report(text: str) -> None:
        nonlocal done
        if on_progress is not None:
            on_progress(text, done, total)
        done += 1

    report("the pair")
    comparison = Comparison(content_pixels, style_pixels)
    figures, of_anchors, identity = {}, {}, None
    for path in outputs:
        report(shown(path))
        figures[shown(path)] = comparison.figures(read_output(path, content_pixels, [], taken))
    if anchors:
        images = make_anchors(content_pixels, style_pixels)
        for name, image in images.items():
            report(f"anchor: {name}")
            of_anchors[name] = comparison.figures(image)
        report(f"anchor: {PATCHES}")
        of_anchors[PATCHES] = comparison.figures(matched_patches(images[IDT], style_pixels))
    if generator is not None:
        report("identity")
        generator.to(torch.device(chosen_device("auto")))
        translated = translate_pixels(generator, style_pixels, TranslateConfig())
        identity = _identity(translated, style_pixels, comparison)
    report("done")
    told = tuple((shown(path), notice) for path, notice in notices)
    return Evaluation(figures, of_anchors, identity, told)


def _measurable(
    path: Path | str, notices: list[tuple[str, str]], settings: PairImageSettings, role: str
) -> Picture:
    asked, part = AskedValues.of(settings, role), AskedPart.of(settings, role)
    picture = read_told(path, notices, asked, part)
    if min(picture.rgb.shape[:2]) < SMALLEST_SIDE:
        raise SincutError(
            f"{path} must have sides of at least {SMALLEST_SIDE} pixels to be measured, "
            f"got {picture.width}×{picture.height}; try a larger image"
        )
    return picture


def beyond_the_line(figures: Figures, anchors: Mapping[str, Figures]) -> bool:
    """Whether a result is better than what the anchors trade, in the plane of C1 and S3.

    The line runs from IDT over its blocks of 16 pixels to those of 64. To the right it goes on to
    the copy of the content, so that nothing is won by changing little. To the left it ends: what
    keeps less structure than the blocks of 64 pixels is not beyond it, however much it looks like
    the style. A result is beyond when no point of the line is as good in both figures.

    S3 moves by some hundredths between equally good results; so near the line this is chance.
    """
    corners = sorted((anchors[name].C1, anchors[name].S3) for name in (IDT_64, IDT_16, IDT, COPY))
    c1, s3 = figures.C1, figures.S3
    if c1 < corners[0][0]:
        return False
    line = float(np.interp(c1, *np.transpose(corners)))
    return s3 < line and all(s3 < corner[1] for corner in corners if corner[0] >= c1)


def _check_names(outputs: Sequence[str]) -> None:
    if not outputs:
        raise SincutError("there is nothing to measure; give at least one output")
    taken: dict[str, str] = {}
    for output in outputs:
        if output in _OTHER_KEYS:
            raise SincutError(
                f"an output must not be given as {output}, which is a key of the result itself; "
                f"try ./{output}"
            )
        place = os.path.realpath(output)
        if place in taken:
            other = taken[place]
            same = "is given twice" if other == output else f"and {other} are the same file"
            raise SincutError(f"{output} {same}; give every output once")
        taken[place] = output


def of_outputs(content: Picture) -> AskedValues:
    """How the values of a content's translations are taken: those of its type have its range."""
    return AskedValues(content.range, kind=content.kind)


def read_told(
    path: Path | str,
    notices: list[tuple[str, str]],
    asked: AskedValues,
    part: AskedPart = WHOLE,
) -> Picture:
    """An image file as it is measured; ``notices`` gets what is told."""
    picture = read_picture(Path(path), asked=asked, part=part)
    notices += [(str(path), notice) for notice in picture.notices]
    if picture.alpha is not None:
        notices.append((str(path), "its alpha channel is not measured"))
    return picture


def read_output(
    path: Path | str,
    content: Pixels,
    notices: list[tuple[str, str]],
    asked: AskedValues = AS_STORED,
) -> Pixels:
    """The (H, W, 3) uint8 sRGB of a translation of ``content``; ``notices`` gets what is told.

    Raises:
        SincutError: it cannot be read, or has another size.
    """
    output = read_told(path, notices, asked).rgb
    if output.shape != content.shape:
        raise SincutError(
            f"{path} must have the content's size, {content.shape[1]}×{content.shape[0]}, got "
            f"{output.shape[1]}×{output.shape[0]}; try a translation of this content"
        )
    return output


def _identity(translated: Pixels, style: Pixels, comparison: Comparison) -> Identity:
    difference = np.abs(translated.astype(np.float32) - style)
    mean_square = float(np.square(difference).mean(dtype=np.float64)) / 255**2
    return Identity(
        L1=float(difference.mean(dtype=np.float64)) / 255,
        PSNR=-10 * float(np.log10(mean_square)) if mean_square > 0 else float("inf"),
        C1=edge_correlation(translated, style),
        S2=comparison.texture_distance(translated),
    )


def _rounded(figures: Figures | Identity) -> dict[str, Any]:
    return {
        name: round(value, 6) if np.isfinite(value) else None
        for name, value in asdict(figures).items()
    }
