"""The part file and its journal: what is believed of them after a crash."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sincut.images.writing import part_file as partfile
from sincut.images.writing.part_file import PartFile, begun, beside
from tests.images.test_pillow import only, refusal
from tests.runs.test_damaged import damaged, damages, often

BANDS = 5
PIECES = [bytes([65 + index]) * (10 + index) for index in range(BANDS)]
WHOLE = b"start" + b"".join(PIECES)


def opened(path: Path, resume: bool = True, force: bool = False) -> PartFile:
    return PartFile.open(path, {"key": [1, "é"]}, BANDS, b"start", resume=resume, force=force)


def filled(path: Path, until: int = BANDS) -> Path:
    """A part file with some bands, closed; returns its journal."""
    part = opened(path)
    for index in range(part.done, until):
        part.append((PIECES[index][:3], PIECES[index][3:]), {"index": index})
    part.keep()
    return beside(path, "journal")


def completed(path: Path) -> bytes:
    """Go on to the end, as if nothing had happened."""
    part = opened(path)
    for index in range(part.done, BANDS):
        part.append((PIECES[index],), {"index": index})
    assert [entry["index"] for entry in part.entries] == list(range(BANDS))
    part.write_tail(b"end", b"START")
    part.publish()
    assert only(path.parent) == [path.name]
    return path.read_bytes()


def good(path: Path) -> int:
    part = opened(path)
    part.keep()
    return part.done


def test_a_file_grows_and_appears(tmp_path: Path) -> None:
    path = tmp_path / "a"
    filled(path)
    assert beside(path, "part").read_bytes() == WHOLE
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


def test_the_journal_is_lines_of_json_with_checksums(tmp_path: Path) -> None:
    lines = filled(tmp_path / "a", 2).read_bytes().splitlines()
    for line in lines:
        checksum, text = line.split(b" ", 1)
        assert int(checksum, 16) == zlib.crc32(text)
    first, *rest = (json.loads(line[9:]) for line in lines)
    assert first == {"identity": {"key": [1, "é"]}, "bands": BANDS, "length": 5}
    assert [(each["index"], each["length"], each["crc"]) for each in rest] == [
        (0, 15, zlib.crc32(PIECES[0])),
        (1, 26, zlib.crc32(PIECES[1])),
    ]


def test_a_journal_cut_anywhere_is_believed_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    journal = filled(path, 3)
    lines = journal.read_bytes()
    part = beside(path, "part").read_bytes()
    for size in range(0, len(lines) + 1, 7):
        journal.write_bytes(lines[:size])
        beside(path, "part").write_bytes(part)
        whole_lines = lines[:size].count(b"\n")
        assert (begun(path) is not None) == (whole_lines > 1)
        assert good(path) == max(whole_lines - 1, 0)
        if whole_lines > 1:
            assert journal.read_bytes() == lines[: lines[:size].rindex(b"\n") + 1]
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


@pytest.mark.parametrize("line", range(4))
def test_from_a_damaged_line_on_nothing_is_believed(tmp_path: Path, line: int) -> None:
    path = tmp_path / "a"
    journal = filled(path, 3)
    lines = journal.read_bytes().splitlines(keepends=True)
    for place in (0, 5, 9, 15, len(lines[line]) - 1):
        damaged = bytearray(lines[line])
        damaged[place] ^= 1
        journal.write_bytes(b"".join([*lines[:line], damaged, *lines[line + 1 :]]))
        if line:
            beside(path, "part").write_bytes(WHOLE)
        assert good(path) == max(line - 1, 0)
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


def test_a_damaged_journal_without_a_good_line_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    journal = filled(path, 3)
    for content in (b"", b"\0" * 100, b"{}\n", b"\n\n", os.urandom(50)):
        journal.write_bytes(content)
        assert not begun(path)
        part = opened(path, resume=False)  # and so needs no force
        assert part.done == 0
        part.keep()
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


@pytest.mark.parametrize("size", range(0, 42, 3))
def test_a_part_file_shorter_than_the_journal_counts(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    filled(path, 3)
    os.truncate(beside(path, "part"), size)
    ends = [5, 15, 26, 38]
    assert good(path) == max(sum(end <= size for end in ends) - 1, 0)
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


def test_a_part_file_longer_than_the_journal_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a"
    filled(path, 2)
    with open(beside(path, "part"), "ab") as file:
        file.write(b"half a band" * 10)
    assert good(path) == 2
    assert beside(path, "part").read_bytes() == WHOLE[:26]
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


def test_a_lost_part_file_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    filled(path, 2)
    beside(path, "part").unlink()
    assert not begun(path)
    assert good(path) == 0


def test_after_a_power_loss_what_was_not_on_the_disk_is_checked(tmp_path: Path) -> None:
    """Such a file can have its length and yet hold nothing in its last blocks."""
    path = tmp_path / "a"
    filled(path, 4)
    data = bytearray(beside(path, "part").read_bytes())
    data[20] = 0  # in the second band
    beside(path, "part").write_bytes(data)
    assert good(path) == 1
    assert completed(path) == b"START" + WHOLE[5:] + b"end"


def test_what_was_brought_to_the_disk_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it again would cost as much time as the file is long."""
    monkeypatch.setattr(partfile, "SYNC_SECONDS", 0)
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), real(file))[1])
    path = tmp_path / "a"
    part = opened(path)
    part.append((PIECES[0],), {"index": 0})
    assert len(synced) == 2  # the data, then the journal
    assert synced[0] != synced[1]
    part.keep()
    monkeypatch.setattr(part.__class__, "_checksum", lambda *_: pytest.fail("read again"))
    assert good(path) == 1


def test_identities_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "a"
    identity: dict[str, Any] = {"key": (1, 2.5, None), "other_key": {"a": 1}}

    def again(**changed: Any) -> PartFile:
        return PartFile.open(path, identity | changed, 2, b"", resume=True, force=False)

    part = again()
    part.append((b"x",), {})
    part.keep()
    again().keep()
    assert refusal(again, other_key={"a": 2}) == (
        f"{path} was begun with another other key; try the same as before, or --force to start anew"
    )
    assert refusal(again, key=(1, 2.5, 0), other_key=0).startswith(
        f"{path} was begun with another key;"
    )


def test_trouble_while_reading_the_journal_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    filled(path, 3)

    def broken(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "_checksum", broken)
        assert refusal(opened, path) == f"cannot write {path} (Input/output error); check the place"
    assert good(path) == 3


def test_a_journal_removed_while_it_was_opened_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finished just then: its lock is gone with its file."""
    path, real, calls = tmp_path / "a", partfile._lock, []

    def lock(file: Any) -> bool:
        calls.append(file)
        if len(calls) == 1:
            beside(path, "journal").unlink()
        return real(file)

    monkeypatch.setattr(partfile, "_lock", lock)
    part = opened(path)
    assert len(calls) == 2
    assert beside(path, "journal").exists()
    part.discard()


def test_names_beside_are_hidden_short_and_distinct(tmp_path: Path) -> None:
    assert beside(tmp_path / "a.tif", "part") == tmp_path / ".a.tif.part"
    long = [tmp_path / f"{'画' * 60}-{end}.tif" for end in "ab"]
    names = [beside(path, "journal").name for path in long]
    assert names[0] != names[1]
    for path, name in zip(long, names, strict=True):
        assert name.startswith("." + "画" * 31)
        assert len(name.encode()) < 130
        part = opened(path)
        part.keep()
    assert len(only(tmp_path)) == 4


def test_a_long_name_need_not_be_text(tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"Mus\xe9e" + b"-" * 50 + b".tif")
    part = opened(target)
    part.keep()
    assert len(only(tmp_path)) == 2


@pytest.mark.parametrize("ending", ["journal", "part"])
@pytest.mark.parametrize("kind", ["link", "dangling", "nowhere", "pipe"])
def test_what_is_no_file_beside_the_target_is_refused(
    tmp_path: Path, ending: str, kind: str
) -> None:
    target, other = tmp_path / "a", tmp_path / "other"
    place = beside(target, ending)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        other.write_text("mine")
        place.symlink_to({"link": other, "dangling": tmp_path / "none"}.get(kind, "/no/none"))
    assert begun(target) is None
    assert refusal(opened, target) == (
        f"{place} is in the way of {target} and no file of sincut's; remove it"
    )
    assert not other.exists() or other.read_text() == "mine"
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the current folder one is told that it is there."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert refusal(opened, Path("a")) == (
        "cannot write a (its folder or its journal is gone); check the place"
    )


@given(damage=damages, bands=st.integers(0, BANDS), in_journal=st.booleans())
@example(damage=[(0, 0, 0)], bands=2, in_journal=False)
@often
def test_damage_anywhere_gives_the_right_bytes(
    tmp_path: Path, damage: list[tuple[int, int, int]], bands: int, in_journal: bool
) -> None:
    """Of the journal or of what it vouches for; nothing has come to the disk for certain yet."""
    path = tmp_path / "a"
    path.unlink(missing_ok=True)
    hurt = beside(path, "journal" if in_journal else "part")
    filled(path, bands)
    hurt.write_bytes(damaged(hurt.read_bytes(), damage))
    begun(path)
    part = opened(path)  # whatever is not sure is written again
    for index in range(part.done, BANDS):
        part.append((PIECES[index],), {"index": index})
    part.write_tail(b"end")
    part.publish()
    assert path.read_bytes() == WHOLE + b"end"
