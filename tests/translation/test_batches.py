"""Many files, of which several processes take one each."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sincut.errors import Interrupted, SincutError
from sincut.translation import batches
from sincut.translation.one_image import Translated
from sincut.translation.plan import Plan
from sincut.translation.translate import Progress, translate
from tests.translation.test_shards import noise, one_thread

__all__ = ["one_thread"]  # a fixture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, the third of which is none."""
    found = tmp_path / "in"
    found.mkdir()
    for index in range(5):
        noise(found / f"{index}.png", 40 + 10 * index, 70)
    (found / "2.png").write_bytes(b"nothing")
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, and that there are no hidden ones."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_processes_make_the_same_files_as_one(
    folder: Path, tiny_run: Path, tmp_path: Path, one_thread: None
) -> None:
    failures: list[tuple[str, str]] = []
    messages = []
    results: list[list[Translated]] = []
    plans: list[Plan] = []
    seen: list[Progress] = []

    for name, options in (
        ("one", {}),
        ("two", {"workers": 2, "on_tile": seen.append, "on_plan": plans.append}),
    ):
        done: list[Translated] = []
        with pytest.raises(SincutError) as caught:
            translate(
                tiny_run,
                folder,
                tmp_path / name,
                on_failure=lambda source, why: failures.append((source.name, why)),
                on_image=done.append,
                **options,
            )
        messages.append(str(caught.value))
        results.append(sorted(done, key=lambda each: each.input))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert list(contents(tmp_path / "two")) == ["0.png", "1.png", "3.png", "4.png"]
    assert messages[0] == messages[1]
    assert failures[0] == failures[1]
    assert [(each.input, each.width, each.tiles) for each in results[0]] == [
        (each.input, each.width, each.tiles) for each in results[1]
    ]
    assert {plan.output.parent for plan in plans} == {tmp_path / "two"}
    assert [(each.index, each.done, each.count, each.total) for each in seen] == [
        (n, n, 5, 5) for n in range(1, 6)
    ]


def test_what_is_done_is_left_as_it_is(
    folder: Path, tiny_run: Path, tmp_path: Path, one_thread: None
) -> None:
    (folder / "2.png").unlink()
    out, alone = tmp_path / "out", tmp_path / "alone"
    out.mkdir()
    expected = translate(tiny_run, folder, alone)
    translate(tiny_run, folder / "1.png", out / "1.png")
    before = (out / "1.png").stat().st_mtime_ns
    skipped: list[Path] = []
    done = translate(tiny_run, folder, out, workers=2, resume=True, on_skip=skipped.append)
    assert [each.input.name for each in done] == ["0.png", "3.png", "4.png"]
    assert [each.width for each in done] == [each.width for each in expected[1:]]
    assert skipped == [out / "1.png"]
    assert (out / "1.png").stat().st_mtime_ns == before
    assert contents(out) == contents(alone)
    # One that is left is not refused, as a single image would be.
    (out / "4.png").unlink()
    (one,) = translate(tiny_run, folder, out, workers=2, resume=True)
    assert one.output == out / "4.png"
    assert contents(out) == contents(alone)


def test_a_killed_process_is_begun_again(
    folder: Path,
    tiny_run: Path,
    tmp_path: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "2.png").unlink()
    translate(tiny_run, folder, tmp_path / "one")
    real, begun = batches.started, []

    def killed(*args: Any, **pipes: Any) -> subprocess.Popen[str]:
        begun.append(real(*args, **pipes))
        if len(begun) in (1, 3):
            begun[-1].kill()
        return begun[-1]

    monkeypatch.setattr(batches, "started", killed)
    translate(tiny_run, folder, tmp_path / "two", workers=2)
    assert len(begun) == 4
    assert all(process.poll() is not None for process in begun)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_file_that_ends_every_process_is_told(
    folder: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = batches.started

    def killed(*args: Any, **pipes: Any) -> subprocess.Popen[str]:
        process = real(*args, **pipes)
        process.kill()
        return process

    monkeypatch.setattr(batches, "started", killed)
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, [folder / "0.png", folder / "1.png"], tmp_path / "out", workers=2)
    told = [
        f"{folder / name} could not be translated: 3 processes that tried were killed; try fewer "
        "--workers"
        for name in ("0.png", "1.png")
    ]
    start = "2 of 2 images failed: "
    assert str(caught.value) in {f"{start}{'; '.join(told)}", f"{start}{'; '.join(told[::-1])}"}


def test_a_process_that_cannot_begin_says_why(
    folder: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = batches.started
    monkeypatch.setattr(
        batches,
        "started",
        lambda job, *rest, **pipes: real({**job, "model": "gone"}, *rest, **pipes),
    )
    with pytest.raises(SincutError, match=r"^2 of 2 images failed: gone does not exist.*; gone "):
        translate(tiny_run, [folder / "0.png", folder / "1.png"], tmp_path / "out", workers=2)


def test_it_is_stopped_and_goes_on(folder: Path, tiny_run: Path, tmp_path: Path) -> None:
    (folder / "2.png").unlink()

    def stop(_: Translated) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        translate(tiny_run, folder, tmp_path / "out", workers=2, on_image=stop)
    assert str(caught.value) == ("1 of 4 images are done; the same command with --resume goes on")
    translate(tiny_run, folder, tmp_path / "out", workers=2, resume=True)
    assert len(contents(tmp_path / "out")) == 4


def test_what_was_begun_before_is_not_gone_on_with_unasked(tiny_run: Path, tmp_path: Path) -> None:
    sources = [noise(tmp_path / f"{name}.png", 600, 60) for name in ("a", "b")]
    out = tmp_path / "out"
    out.mkdir()

    def stop(progress: Progress) -> None:
        if progress.done == progress.total - 1:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"tile": "64"}
    with pytest.raises(Interrupted):
        translate(tiny_run, sources[0], out / "a.png", on_tile=stop, **options)
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, sources, out, workers=2, **options)
    assert str(caught.value) == (
        f"1 of 2 images failed: {out / 'a.png'} was begun before; try --resume, or --force to "
        "start anew"
    )
    assert (out / "b.png").exists()
    assert not (out / "a.png").exists()
    translate(tiny_run, sources, out, workers=2, resume=True, **options)
    assert list(contents(out)) == ["a.png", "b.png"]


def test_shares_of_many_files(folder: Path, tiny_run: Path, tmp_path: Path) -> None:
    (folder / "2.png").unlink()
    translate(tiny_run, folder, tmp_path / "one")
    out = tmp_path / "out"
    found = []
    for index in (1, 0, 5):
        done = translate(tiny_run, folder, out, shard=f"{index}/{6 if index == 5 else 2}")
        found.append([each.input.name for each in done])
    assert found == [["1.png", "4.png"], ["0.png", "3.png"], []]
    assert contents(out) == contents(tmp_path / "one")
