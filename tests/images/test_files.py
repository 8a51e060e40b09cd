"""Places for results: refused in one line, before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sincut.errors import SincutError
from sincut.files import check_file, check_folder, check_free, make_folder, write_text


def refusal(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(SincutError) as error:
        call(*arguments, **options)  # type: ignore[operator]
    return str(error.value)


def test_what_is_free_is_let_through(tmp_path: Path) -> None:
    new = tmp_path / "out.png"
    check_file(new)
    check_free(new, force=False, inputs=[new])
    check_folder(tmp_path / "new" / "below")
    make_folder(tmp_path / "new" / "below")
    make_folder(tmp_path / "new" / "below")
    check_folder(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_in_the_way_of_a_file(tmp_path: Path) -> None:
    assert refusal(check_file, tmp_path) == (
        f"{tmp_path} is a folder, not a file; give a file name for the output"
    )
    assert refusal(check_file, tmp_path, hint="try a.html") == (
        f"{tmp_path} is a folder, not a file; try a.html"
    )
    assert refusal(check_file, tmp_path / "no" / "a.png") == (
        f"the folder {tmp_path / 'no'} does not exist; create it first"
    )


def test_a_file_that_is_there(tmp_path: Path) -> None:
    taken, other, link = tmp_path / "taken", tmp_path / "other", tmp_path / "link"
    taken.write_text("mine")
    other.write_text("mine")
    link.symlink_to(taken)
    assert refusal(check_free, taken, force=False, inputs=[other]) == (
        f"{taken} exists already; try --force or another -o"
    )
    check_free(taken, force=True, inputs=[other, tmp_path / "none"])
    # Force is no leave to overwrite what is read, by whatever name.
    assert refusal(check_free, link, force=True, inputs=[taken], option="--plot") == (
        f"{link} is an input; give another --plot"
    )


def test_what_no_file_may_replace(tmp_path: Path) -> None:
    """A link, whether it leads somewhere or not, a pipe, a device."""
    file, link, gone = tmp_path / "a.png", tmp_path / "link.png", tmp_path / "gone.png"
    file.write_text("mine")
    link.symlink_to(file)
    gone.symlink_to(tmp_path / "none.png")
    for each, leads in ((link, file), (gone, tmp_path / "none.png")):
        assert refusal(check_file, each) == (
            f"{each} is a link; give the file that it leads to, {leads}"
        )
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for each in (pipe, Path("/dev/null")):
        assert refusal(check_file, each) == (
            f"{each} is a pipe or a device, not a file; give a file name for the output"
        )


def test_a_link_is_followed_where_it_is_written_to(tmp_path: Path) -> None:
    file, link = tmp_path / "folder" / "a.txt", tmp_path / "link.txt"
    file.parent.mkdir()
    link.symlink_to(file)
    for text in ("new", "newer"):
        write_text(link, text)
        assert link.is_symlink()
        assert file.read_text() == text
    assert [each.name for each in file.parent.iterdir()] == ["a.txt"]


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert refusal(check_folder, file) == f"{file} is a file, not a folder; give another -o"
    below = file / "new" / "run"
    assert refusal(check_folder, below) == (
        f"{file} is a file, so {below} cannot be made; give another -o"
    )
    assert refusal(make_folder, below) == (
        f"cannot write to {below} (Not a directory); give another -o"
    )


def test_folders_that_must_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(path: Path, mode: int) -> bool:  # root may write everywhere
        asked.append((Path(path), mode))
        return False

    monkeypatch.setattr(os, "access", refuse)
    assert refusal(check_file, tmp_path / "a.png") == (
        f"the folder {tmp_path} must not be written to; give another -o"
    )
    assert refusal(check_folder, tmp_path / "new" / "run") == (
        f"the folder {tmp_path} must not be written to; give another -o"
    )
    assert asked == [(tmp_path, os.W_OK)] * 2


def test_a_pipe_or_a_device_in_the_way_of_a_folder(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for each in (pipe, Path("/dev/null")):
        assert refusal(check_folder, each) == (
            f"{each} is a pipe or a device, not a folder; give another -o"
        )
        assert refusal(check_folder, each / "run") == (
            f"{each} is a pipe or a device, so {each / 'run'} cannot be made; give another -o"
        )
        assert refusal(check_file, each / "a.png") == (
            f"{each} is a pipe or a device, not a folder; give a file name for the output"
        )
