"""Folders, patterns, and where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sincut.errors import SincutError
from sincut.translation.inputs import found_inputs, planned_outputs

ENDINGS = (
    ".jpg, .jpeg, .png, .tif, .tiff, .btf, .webp, .bmp, .gif, .ppm, .pgm, .pnm, .jp2, .heic, "
    ".heif, .hif, .avif, .dng, .cr2, .cr3, .crw, .nef, .nrw, .arw, .srf, .sr2, .raf, .rw2, .orf, "
    ".pef, .srw, .x3f, .3fr, .fff, .iiq, .mrw, .erf, .kdc, .dcr, .mos, .rwl, .gpr"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images, other files, a hidden image and a subfolder."""
    found = tmp_path / "photos"
    (found / "sub").mkdir(parents=True)
    for name in ("b.PNG", "a.jpg", "a.png", "notes.txt", ".hidden.jpg", "sub/c.tif"):
        (found / name).write_bytes(b"")
    return found


def refusal(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(SincutError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def test_a_folder_means_its_images(folder: Path) -> None:
    found = found_inputs([folder], folder / "out")
    assert [path.name for path in found] == ["a.jpg", "a.png", "b.PNG"]


def test_a_pattern_is_expanded(folder: Path) -> None:
    names = [p.name for p in found_inputs([f"{folder}/*.[jp][pn]g"], folder / "out")]
    assert names == ["a.jpg", "a.png"]
    names = [p.name for p in found_inputs([f"{folder}/**/*.tif"], folder / "out")]
    assert names == ["c.tif"]


def test_a_file_is_taken_as_it_is_named(folder: Path) -> None:
    odd = folder / "scan[1].jpg"
    odd.write_bytes(b"")
    assert found_inputs([odd, folder / "notes.txt", folder / "none.jpg"], folder / "out") == [
        odd, folder / "notes.txt", folder / "none.jpg",
    ]  # fmt: skip


def test_an_image_named_twice_is_taken_once(folder: Path) -> None:
    assert len(found_inputs([folder, folder / "a.jpg", f"{folder}/a.*"], folder / "out")) == 3


def test_earlier_results_are_no_inputs(folder: Path) -> None:
    assert [p.name for p in found_inputs([f"{folder}/**/*.*"], folder / "sub")] == [
        "a.jpg", "a.png", "b.PNG",
    ]  # fmt: skip


def test_results_may_go_into_a_parent_folder(folder: Path) -> None:
    inputs = found_inputs([folder], folder.parent)
    assert [target.name for _, target in planned_outputs(inputs, folder.parent, force=False)] == [
        "a.jpg", "a.png", "b.PNG",
    ]  # fmt: skip


def test_a_name_that_the_system_refuses_is_one_line(folder: Path) -> None:
    name = folder / ("x" * 300 + ".png")
    assert refusal(found_inputs, [name], folder / "out") == (
        f"cannot look at {name} (File name too long); check the place, its name and its permissions"
    )


def test_other_files_are_protected(folder: Path) -> None:
    mask = folder / "b.PNG"
    assert refusal(planned_outputs, [folder / "a.jpg"], mask, force=True, protected=[mask]) == (
        f"{mask} is an input; give another -o"
    )


def test_a_folder_into_itself_is_refused(folder: Path) -> None:
    inputs = found_inputs([folder], folder)
    assert refusal(planned_outputs, inputs, folder, force=True) == (
        f"{folder / 'a.jpg'} is an input; give another -o"
    )


def test_nothing_found_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given in (tmp_path / "empty", Path(f"{folder}/*.webp")):
        assert refusal(found_inputs, [given], tmp_path / "out") == (
            f"{given} holds no image to translate; allowed endings: {ENDINGS}"
        )


def test_names_that_differ_in_their_ending_do_not_meet(folder: Path) -> None:
    inputs = [*found_inputs([folder], folder / "out"), folder / "a.gif", folder / "a.bmp"]
    targets = [target.name for _, target in planned_outputs(inputs, folder / "out", force=False)]
    assert targets == ["a.jpg", "a.png", "b.PNG", "a.gif.png", "a.bmp.png"]


def test_inputs_of_one_name_are_refused(folder: Path) -> None:
    (folder / "sub/a.jpg").write_bytes(b"")
    inputs = [folder / "a.jpg", folder / "sub/a.jpg"]
    assert refusal(planned_outputs, inputs, folder / "out", force=True) == (
        f"{inputs[0]} and {inputs[1]} would both be written to {folder / 'out' / 'a.jpg'}; "
        "translate them into different folders"
    )


def test_existing_outputs_are_refused_or_skipped(folder: Path) -> None:
    out = folder / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"")
    inputs = found_inputs([folder], out)
    assert refusal(planned_outputs, inputs, out, force=False) == (
        f"{out / 'a.png'} exists already; try --force or another -o"
    )
    kept = planned_outputs(inputs, out, force=False, skip=lambda target: True)
    assert [target.name for _, target in kept] == ["a.jpg", "b.PNG"]
    assert len(planned_outputs(inputs, out, force=True)) == 3
