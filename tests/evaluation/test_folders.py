"""Folders to figures: which files belong together, what is measured, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sincut
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation import folders
from sincut.evaluation.figures import Comparison, edge_correlation, layout_correlation
from sincut.evaluation.folders import (
    FolderComparison,
    FolderEvaluation,
    Structure,
    are_folders,
    evaluate_folders,
)
from sincut.evaluation.judge import Judge
from sincut.evaluation.set_distances import Measured
from tests.translation.test_inputs import ENDINGS

CONTENT, STYLE = render_content(160, 128), render_style(160, 128)


def cuts(image: np.ndarray, count: int, height: int = 40) -> list[np.ndarray]:
    return [image[5 * i : 5 * i + height, 9 * i : 9 * i + 50] for i in range(count)]


def save(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)
    return folder


def judge(*, lite: bool = True) -> Judge:
    """Mean and deviation of the colours, in about [0, 1]."""

    def network(images: Any) -> Any:
        return (images / 255).flatten(2).transpose(1, 2).std(1) + (images / 255).mean(dim=(2, 3))

    return Judge(network, 32, lite=lite)


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Five contents, six styles, and translations that are darker; judged by colours."""
    monkeypatch.setattr(folders, "lite_judge", judge)
    contents = cuts(CONTENT, 5)
    return (
        save(tmp_path / "A", {f"{i}.png": image for i, image in enumerate(contents)}),
        save(tmp_path / "B", {f"s{i}.png": image for i, image in enumerate(cuts(STYLE, 6))}),
        save(tmp_path / "OUT", {f"{i}.png": image // 2 for i, image in enumerate(contents)}),
    )


def message(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as error:
        call(*arguments, **options)
    return str(error.value)


def test_everything_of_three_folders(three: tuple[Path, Path, Path]) -> None:
    steps: list[tuple[str, int, int]] = []
    found = evaluate_folders(*three, on_progress=lambda *step: steps.append(step))
    contents, styles = cuts(CONTENT, 5), cuts(STYLE, 6)
    outputs = [image // 2 for image in contents]
    assert found.images == {
        str(three[2] / f"{i}.png"): Structure(edge_correlation(a, b), layout_correlation(a, b))
        for i, (a, b) in enumerate(zip(outputs, contents, strict=True))
    }
    a, b, out = (judge().features(images) for images in (contents, styles, outputs))
    assert found.distances == judge().distances(out, b)
    assert found.anchor == judge().distances(a, b)
    order = np.random.RandomState(0).permutation(6)
    assert found.floor == judge().distances(b[:, order[:3]], b[:, order[3:]])
    assert found.counts == {"content": 5, "style": 6}
    assert found.notices == ()
    values = [each.C1 for each in found.images.values()]
    assert found.summary()["C1"] == Measured(float(np.mean(values)), float(np.std(values)))
    assert [done for _, done, _ in steps] == list(range(22))
    assert {total for *_, total in steps} == {21}  # styles, and contents and outputs two by two
    assert steps[-1][0] == "done"


def test_structure_is_that_of_a_pair() -> None:
    output = np.ascontiguousarray(CONTENT[:, ::-1]) // 2 + STYLE // 3
    figures = Comparison(CONTENT, STYLE).figures(output)
    assert FolderComparison([CONTENT], []).compare([output]) == (
        [Structure(figures.C1, figures.C2)],
        {},
    )


def test_json(three: tuple[Path, Path, Path]) -> None:
    found = evaluate_folders(*three)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(values) == ["counts", "images", "structure", "distances", "anchor", "floor"]
    path = str(three[2] / "0.png")
    assert values["images"][path] == {
        "C1": round(found.images[path].C1, 6),
        "C2": round(found.images[path].C2, 6),
    }
    assert list(values["structure"]) == ["C1", "C2"]
    for name in ("distances", "anchor", "floor"):
        assert list(values[name]) == ["KID_lite", "KID_lite_crops"]
        assert list(values[name]["KID_lite"]) == ["mean", "std"]
    assert values["floor"]["KID_lite"]["std"] is None  # halves of three have no halves
    assert values["counts"] == {"content": 5, "style": 6}


def test_no_translation_is_the_anchor_and_the_styles_are_near(
    three: tuple[Path, Path, Path],
) -> None:
    """What is copied keeps all structure and wins nothing."""
    copied = evaluate_folders(three[0], three[1], three[0])
    assert copied.distances == copied.anchor
    assert [each.C1 for each in copied.images.values()] == pytest.approx([1] * 5)
    comparison = FolderComparison(cuts(CONTENT, 6), cuts(STYLE, 6), judge())
    figures = comparison.figures(cuts(STYLE, 6))
    assert list(figures) == ["C1", "C2", "KID_lite", "KID_lite_crops"]
    assert figures["KID_lite"] < 0 < comparison.anchor["KID_lite"].mean
    assert figures["C1"] < 0.9
    again = comparison.figures(iter(cuts(STYLE, 6)))
    assert again == figures


def test_fid_has_no_floor() -> None:
    comparison = FolderComparison(cuts(CONTENT, 4), cuts(STYLE, 8), judge(lite=False))
    assert list(comparison.anchor) == ["KID", "FID"]
    assert list(comparison.floor) == ["KID"]


def test_names_that_belong_together(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    image = cuts(CONTENT, 1)[0]
    contents = save(tmp_path / "in", dict.fromkeys(("a.jpg", "b.gif", "c.x.png"), image))
    outputs = save(tmp_path / "out", dict.fromkeys(("a.png", "b.gif.png", "c.x.png"), image))
    (outputs / ".hidden.png").write_bytes(b"")
    (outputs / "notes.txt").write_bytes(b"")
    (outputs / "deeper.png").mkdir()
    found = evaluate_folders(contents, three[1], outputs)
    assert [Path(path).name for path in found.images] == ["a.png", "b.gif.png", "c.x.png"]
    assert found.notices[0] == (
        str(three[1]),
        "distances to it take at least 4 images of both folders, got 3 and 6",
    )
    assert (found.distances, found.anchor, found.floor) == ({}, {}, {})
    assert "structure" in found.to_dict()


def test_what_is_told(
    three: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save(three[2], {"old.png": STYLE, "older.png": STYLE})
    for i in (1, 3):
        with Image.open(three[0] / f"{i}.png") as image:
            image.convert("RGBA").save(three[0] / f"{i}.png")
    (three[1] / "s0.png").write_bytes(b"never read without a judge")
    monkeypatch.setattr(folders, "lite_judge", lambda: None)
    found = sincut.evaluate_folders(*map(str, three))
    assert found.notices == (
        (str(three[2] / "old.png"), "it and 1 more is no translation of a content: not measured"),
        (
            str(three[1]),
            "distances to it take the extra judge, which is not installed; try pip install "
            "'sincut[judge]', or --features",
        ),
        (
            str(three[0] / "1.png"),
            "its alpha channel is not measured (and so for 1 more files)",
        ),
    )
    assert len(found.images) == 5
    assert found.distances == {}


def test_what_is_refused_before_the_work(
    three: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(folders, "read_told", None)  # no work may begin
    contents, styles, outputs = three
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in ((empty, styles, outputs), (contents, empty, outputs)):
        assert message(evaluate_folders, *arguments) == (
            f"{empty} holds no image to measure; allowed endings: {ENDINGS}"
        )
    assert message(evaluate_folders, contents, tmp_path / "none", outputs) == (
        f"{tmp_path / 'none'} cannot be read as a folder (No such file or directory); give a "
        "folder of images"
    )
    assert message(evaluate_folders, *three, features=tmp_path / "none") == (
        f"{tmp_path / 'none'} does not exist or is not a file; give a TorchScript file"
    )
    (outputs / "3.jpg").write_bytes(b"")
    assert message(evaluate_folders, *three) == (
        f"{outputs / '3.jpg'} and {outputs / '3.png'} are both translations of "
        f"{contents / '3.png'}; keep one"
    )
    for name in ("3.jpg", "3.png"):
        (outputs / name).unlink()
    assert message(evaluate_folders, *three) == (
        f"{outputs} must hold a translation of every content, got none of {contents / '3.png'}; "
        "try sincut translate"
    )
    for name in ("1.png", "4.png"):
        (outputs / name).unlink()
    assert message(evaluate_folders, *three) == (
        f"{outputs} must hold a translation of every content, got none of {contents / '1.png'} and "
        "2 more; try sincut translate"
    )
    (contents / "1.jpg").write_bytes(b"")
    assert message(evaluate_folders, *three) == (
        f"{contents / '1.jpg'} and {contents / '1.png'} would have translations of one name; "
        "rename one"
    )


def test_what_is_refused_on_the_way(three: tuple[Path, Path, Path]) -> None:
    save(three[2], {"2.png": CONTENT[:39, :50]})
    assert message(evaluate_folders, *three) == (
        f"{three[2] / '2.png'} must have the size of {three[0] / '2.png'}, 50×40, got 50×39; "
        "try a translation at its full size"
    )
    (three[2] / "0.png").write_bytes(b"no image")
    assert message(evaluate_folders, *three).startswith(f"{three[2] / '0.png'} ")
    assert message(FolderComparison([CONTENT], []).figures, [CONTENT[1:]]) == (
        "an output must have its content's size, 160×128 pixels, got 160×127; resize it to that "
        "size first"
    )
    with pytest.raises(ValueError, match="shorter"):
        FolderComparison([CONTENT, CONTENT], []).figures([CONTENT])
    assert message(FolderComparison, cuts(CONTENT, 3), cuts(STYLE, 5), judge()) == (
        "distances of sets take at least 4 contents and styles, got 3 and 5; add images"
    )


def test_files_or_folders(three: tuple[Path, Path, Path]) -> None:
    contents, styles, outputs = three
    file = contents / "0.png"
    assert are_folders(contents, styles, [outputs])
    assert not are_folders(file, file, [file, contents / "none.png"])
    for mixed in (
        (contents, styles, [file]), (contents, file, [outputs]), (file, file, [contents]),
        (contents, styles, [outputs, file]),
    ):  # fmt: skip
        assert message(are_folders, *mixed) == (
            f"content, style and output must all be files or all be folders, got the folder "
            f"{contents} and {file}, which is none; give three folders, or files"
        )
    assert message(are_folders, contents, styles, [outputs, contents]) == (
        "folders are measured with one folder of translations, got 2; measure them one after "
        "another"
    )


def test_an_evaluation_without_distances_has_a_summary() -> None:
    found = FolderEvaluation({"a": Structure(0.2, 1), "b": Structure(0.4, 1)}, {}, {}, {}, {})
    assert found.summary() == {"C1": Measured(pytest.approx(0.3), pytest.approx(0.1)),
                               "C2": Measured(1, 0)}  # fmt: skip
