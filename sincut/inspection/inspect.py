"""``inspect``: the pictures, numbers and the page of an inspection, in a folder.

================================  ==================================================
``index.html``                    everything on one page that can be sent on
``inspect.json``                  all numbers
``sheet.png``                     content, result and heat maps in one picture
``content.png``, ``result.png``   the image and its translation
``pointP_layerL.png``             the heat map of point P, from 1 on
``pca_KIND_ROLE_layerL.png``      principal components of the ``encoder`` features or the
                                  ``projected`` ones, of the ``input`` or the ``output``
================================  ==================================================

All pictures have the image's size, or are reduced to a longest side of ``width``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from sincut.compute.public import public
from sincut.config.translating import InspectConfig, TranslateConfig
from sincut.errors import SincutError
from sincut.files import check_folder, make_folder, write_text
from sincut.images.writing.png import write_png
from sincut.inspection.findings import Inspection, Pixels, Point
from sincut.inspection.similarity import OnProgress, inspected
from sincut.inspection.similarity_page import page
from sincut.inspection.similarity_pictures import component_picture, heat_picture, sheet

RECORD, PAGE, SHEET = "inspect.json", "index.html", "sheet.png"
_OURS = re.compile(
    r"point\d+_layer\d+\.png|pca_(encoder|projected)_(input|output)_layer\d+\.png"
    r"|(sheet|content|result)\.png|inspect\.json|index\.html"
)


@public
def inspect(
    run: Path | str,
    image: Path | str,
    points: Sequence[Point | str],
    output: Path | str,
    *,
    width: int | str | None = None,
    seed: int | str | None = None,
    tile: str | None = None,
    device: str | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """Show what a run's PatchNCE sees in an image, and write it to a folder.

    Args:
        run: a run folder or model file with projection heads.
        image: the run's content, or another image.
        points: pixels of the upright image, as pairs of x and y or text such as ``"120,80"``: 1 to
            32 points of the *output*, whose similarity to every place of the input is mapped.
        output: the folder to write; made where it does not exist.
        width, seed: as in :class:`sincut.config.translating.InspectConfig`, and its defaults. The
            noise of the translation is that of :func:`sincut.translate` by default.
        tile, device: as in :class:`sincut.config.translating.TranslateConfig`, and its defaults.
        force: write into a folder that holds an inspection. Its files are replaced one by one, and
            those that the new one does not have are removed at the end.
        on_progress: called with what is being done, and how many of how many parts are done.

    Raises:
        SincutError: anything the caller can mend; nothing has been written or removed then.
    """
    folder = Path(output)
    config = InspectConfig().replaced(**_given(width=width, seed=seed))
    translating = TranslateConfig().replaced(**_given(tile=tile, device=device))
    _check_folder(folder, Path(image), force=force)
    found = inspected(run, image, points, config, translating, on_progress)
    write(found, folder)
    return found


def write(inspection: Inspection, folder: Path) -> None:
    """Write all files of an inspection; those of an earlier one are replaced or removed.

    Raises:
        SincutError: the folder or a file cannot be written.
    """
    make_folder(folder)
    # The record is first: with it alone an interrupted inspection can be made again by --force.
    write_text(folder / RECORD, json.dumps(inspection.to_dict(), indent=2, allow_nan=False) + "\n")
    written = {RECORD, PAGE}

    def picture(name: str, pixels: Pixels) -> None:
        write_png(folder / name, pixels)
        written.add(name)

    picture("content.png", inspection.content)
    picture("result.png", inspection.result)
    picture(SHEET, sheet(inspection))
    for layer in inspection.layers:
        for number in range(len(inspection.points)):
            heat = heat_picture(inspection, layer, number, max(inspection.content.shape))
            picture(f"point{number + 1}_layer{layer.layer}.png", heat)
        for kind, role in layer.components:
            components = component_picture(inspection, layer, kind, role)
            picture(f"pca_{kind}_{role}_layer{layer.layer}.png", components)
    write_text(folder / PAGE, page(inspection))
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in written:
            path.unlink()


def _given(**options: str | int | None) -> dict[str, str | int]:
    """What was given: the rest has its default in the configuration."""
    return {name: value for name, value in options.items() if value is not None}


def _check_folder(folder: Path, image: Path, *, force: bool) -> None:
    """Refuse, before the work, a folder that could not or must not be written to."""
    check_folder(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).exists():
        raise SincutError(f"{folder} is not empty and holds no inspection; give another -o")
    if not force:
        raise SincutError(
            f"{folder} holds an inspection already; try --force to make it anew, or another -o"
        )
    if image.resolve().parent == folder.resolve():
        raise SincutError(f"{image} lies in {folder}, whose files are made anew; give another -o")
