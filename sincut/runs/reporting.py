"""The report of a run that is there, made anew."""

from __future__ import annotations

from pathlib import Path

from sincut.compute.devices import chosen_device
from sincut.compute.public import public
from sincut.config.training import FolderConfig, PairConfig
from sincut.config.translating import TranslateConfig
from sincut.data.folders import Folders
from sincut.data.image_folder import ImageFolder, read_folder
from sincut.errors import SincutError
from sincut.evaluation.evaluate import of_outputs, read_output
from sincut.images.reading.asked import AskedValues
from sincut.models.model_file import MODEL_FILE, load_model
from sincut.runs.folder import REPORT_FILE, RunFolder, RunRecord, find_image, places_of, read_run
from sincut.runs.folder_subject import FolderSubject
from sincut.runs.pair_images import read_pair_image
from sincut.runs.report import Progress, Report, check_output, write_report


@public
def report(
    run: Path | str,
    output: Path | str | None = None,
    *,
    content: Path | str | None = None,
    style: Path | str | None = None,
    result: Path | str | None = None,
    figures: bool | None = None,
    device: str = "auto",
    force: bool = False,
    on_progress: Progress | None = None,
) -> Report:
    """Write the report of a run, finished or not.

    Args:
        run: the run folder.
        output: the HTML file; ``report.html`` in the run folder by default, which is replaced.
        content, style: the images or folders of the run. A run keeps only their names; without
            these they are looked for in the current folder, in the run and beside it.
        result: a translation of the content, of its size; made here otherwise, as ``sincut
            translate`` does by default.
        figures: measure the result and the anchors; by default where neither image has more than
            2 megapixels, since it takes some 12 seconds a megapixel on two cores.
        device: where to translate: ``auto``, ``cpu`` or ``cuda``.
        force: overwrite an ``output``.
        on_progress: called with what is being done, and how many of how many parts are done.

    Raises:
        SincutError: no run, an image that is not the run's, an output that is there, …; nothing
            has been written then.
    """
    folder = Path(run)
    record = read_run(folder)
    if not (folder / MODEL_FILE).is_file():
        raise SincutError(f"{folder} has no {MODEL_FILE}; give a folder that sincut train wrote")
    target = folder / REPORT_FILE if output is None else Path(output)
    device = TranslateConfig(device=device).device  # refuses what is none
    if isinstance(record.config, FolderConfig):
        if result is not None or figures is not None:
            raise SincutError("--result and --figures are for runs of a pair; try without them")
        if output is not None:
            check_output(target, force, [])
        return _of_folders(record, target, (content, style), device, on_progress)
    pair = [
        find_image(record, role, None if given is None else Path(given))
        for role, given in (("content", content), ("style", style))
    ]
    if output is not None:
        check_output(target, force, [*pair, *([] if result is None else [Path(result)])])
    assert isinstance(record.config, PairConfig)
    pictures = [
        read_pair_image(path, role, record.config).picture
        for path, role in zip(pair, ("content", "style"), strict=True)
    ]
    content_pixels, style_pixels = (picture.rgb for picture in pictures)
    given_result = None
    if result is not None:
        given_result = read_output(result, content_pixels, [], of_outputs(pictures[0]))
    model = load_model(folder)
    return write_report(
        record,
        target,
        model.generator.to(chosen_device(device)),
        content_pixels,
        style_pixels,
        step=model.header["step"],
        result=given_result,
        figures=figures,
        on_progress=on_progress,
    )


def _of_folders(
    record: RunRecord,
    target: Path,
    given: tuple[Path | str | None, Path | str | None],
    device: str,
    on_progress: Progress | None,
) -> Report:
    """That of a run on two folders."""
    assert isinstance(record.config, FolderConfig)
    content, style = (
        _folder_of(record, role, None if path is None else Path(path))
        for role, path in zip(("content", "style"), given, strict=True)
    )
    folders = Folders(content, style)
    subject = FolderSubject.of(folders, None, lambda _: None, skip_bad=False, images=record.config)
    subject.with_length(record.config)
    model = load_model(record.folder)
    generator = model.generator.to(chosen_device(device))
    told = on_progress or (lambda *_: None)
    subject.write_report(record, target, generator, model.header["step"], told)
    return Report(target, target.stat().st_size, None, {})


def _folder_of(record: RunRecord, role: str, given: Path | None) -> ImageFolder:
    """The folder of images that a run was trained on; a run keeps its name alone."""
    image: RunFolder = getattr(record, role)
    paths = [given] if given is not None else [place / image.name for place in places_of(record)]
    asked = AskedValues.of(record.config, role)
    for path in paths:
        if path.is_dir() and (folder := read_folder(path, asked=asked)).digest == image.sha256:
            return folder
    where = "is neither here nor beside the run" if given is None else f"is not {given}"
    raise SincutError(
        f"the {role} of {record.folder}, {image.name} with {image.count} images, {where}; "
        f"try --{role} FOLDER"
    )
