"""Runs read from their folders: what they say, what is refused, how they are repeated."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from sincut.cli.train import train
from sincut.config.presets import PRESETS, parse_assignments, train_config
from sincut.config.training import PairConfig
from sincut.errors import SincutError
from sincut.files import file_digest
from sincut.runs import folder as runfolder
from sincut.runs.commands import extension, repeating_command, resuming_command, unusual_fields
from sincut.runs.folder import RunImage, RunRecord, Session, find_image, read_run, whole_lines
from sincut.version import __version__
from tests.conftest import TINY


def run_of(
    config: PairConfig, folder: str = "run", names: tuple[str, str] = ("a", "b")
) -> RunRecord:
    """A run of that configuration."""
    content, style = (RunImage(name, 1, 1, "0" * 64) for name in names)
    return RunRecord(Path(folder), "1", config, content, style, (), ())


def logged(*seconds: float, sessions: tuple[int | None, ...] = ()) -> RunRecord:
    """A run whose records were written after so many seconds each, in these sessions."""
    log = tuple({"step": step, "seconds": each} for step, each in enumerate(seconds))
    for record, session in zip(log, sessions, strict=False):
        if session is not None:
            record["session"] = session
    return replace(run_of(train_config("draft")), log=log)


def asked(*sessions: tuple[int, int], **changes: Any) -> RunRecord:
    """A run of ten steps whose sessions began from a step and were asked for a length."""
    run = run_of(train_config("draft", **{"steps": 10, **changes}))
    return replace(run, sessions=tuple(Session(start, steps, {}) for start, steps in sessions))


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that may be changed, without its tensors."""
    folder = tmp_path / "around" / "tiny"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    folder = tmp_path / "away"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_run_is_read_as_it_was_written(tiny_run: Path, pair: tuple[Path, Path]) -> None:
    run = read_run(str(tiny_run))
    assert (run.folder, run.version) == (tiny_run, __version__)
    assert {name: getattr(run.config, name) for name in TINY} == {**TINY, "layers": (0, 2, 4)}
    assert run.content == RunImage("content.png", 160, 128, file_digest(pair[0]))
    assert run.style == RunImage("style.png", 144, 120, file_digest(pair[1]))
    assert [record["step"] for record in run.log] == [-1, 0, 1, 2, 3, 4, 5, 6]
    assert run.step == 6
    assert [(step, path.name) for step, path in run.previews] == [
        (0, "000000.png"), (3, "000003.png"), (6, "000006.png"),
    ]  # fmt: skip
    assert run.seconds == run.log[-1]["seconds"] > 0
    steps, values = run.series("losses")["G"]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert values == [record["losses"]["G"] for record in run.log if "G" in record["losses"]]
    assert run.series("losses")["warm"][0] == [-1, 0]
    assert run.series("figures") == {}
    (session,) = run.sessions
    assert (session.start, session.steps) == (-2, 6)
    assert session.environment == run.environment
    assert run.environment["sincut"] == __version__
    assert run.environment["threads"].isdigit()
    assert "device" not in run.environment  # of which the configuration speaks
    assert not run.extended
    assert {record["session"] for record in run.log} == {0}


def test_sessions_are_read_without_what_has_no_value(copy: Path) -> None:
    path = copy / "config.json"
    record = json.loads(path.read_text())
    record["sessions"] = [
        {"start": -2, "steps": 4, "environment": {"torch": "2.1", "triton": None, "threads": 2}},
        {"start": 4, "steps": 6, "environment": {"torch": "2.2"}},
    ]
    path.write_text(json.dumps(record))
    run = read_run(copy)
    first = Session(-2, 4, {"torch": "2.1", "threads": "2"})
    assert run.sessions == (first, Session(4, 6, {"torch": "2.2"}))
    assert run.environment == first.environment
    assert run.extended
    del record["sessions"]
    path.write_text(json.dumps(record))
    run = read_run(copy)
    assert (run.sessions, run.environment, run.extended) == ((), {}, False)


def test_the_list_of_files_is_that_of_the_folder(tiny_run: Path) -> None:
    described = runfolder.__doc__ or ""
    for path in [*tiny_run.iterdir(), tiny_run / "tensorboard"]:
        assert f"``{path.name}" in described, path.name


def test_a_run_without_a_log_has_just_begun(copy: Path) -> None:
    (copy / "log.jsonl").unlink()
    shutil.rmtree(copy / "previews")
    run = read_run(copy)
    assert (run.log, run.previews, run.step, run.seconds) == ((), (), 0, 0.0)


def test_the_step_of_a_warm_start_is_zero() -> None:
    run = replace(logged(1.0), log=({"step": -20, "seconds": 1.0}, {"step": -10, "seconds": 2.0}))
    assert run.step == 0


@pytest.mark.parametrize(
    ("seconds", "total"),
    [
        ((), 0.0),
        ((10.0,), 10.0),
        ((10.0, 20.0, 20.0, 35.5), 35.5),
        ((10.0, 20.0, 5.0, 15.0), 35.0),
        ((10.0, 5.0, 15.0, 4.0), 29.0),
    ],
)
def test_time_is_added_up_over_resumptions(seconds: tuple[float, ...], total: float) -> None:
    assert logged(*seconds).seconds == total


@pytest.mark.parametrize(
    ("seconds", "sessions", "total"),
    [
        ((10.0, 20.0, 30.0, 40.0), (0, 0, 1, 1), 60.0),  # a slow session after a short one
        ((10.0, 20.0, 5.0), (0, 0, 1), 25.0),
        ((10.0, 9.0), (0, 0), 10.0),
        ((10.0, 5.0, 20.0, 21.0), (None, None, 1, 1), 36.0),
    ],
)
def test_time_is_added_up_by_session(
    seconds: tuple[float, ...], sessions: tuple[int | None, ...], total: float
) -> None:
    assert logged(*seconds, sessions=sessions).seconds == total


def test_what_others_put_among_the_previews_is_none(copy: Path) -> None:
    for name in ("000003 copy.png", "12b.png", "3².png", "mine.png", ".000004.png.x.part"):
        (copy / "previews" / name).write_bytes(b"")
    assert [step for step, _ in read_run(copy).previews] == [0, 3, 6]


@pytest.mark.parametrize("kind", ["absent", "empty", "file"])
def test_what_is_no_run_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "it"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("{}")
    message = f"{folder} is not a run: it has no config.json; give a folder that sincut train wrote"
    with pytest.raises(SincutError, match=f"^{re.escape(message)}$"):
        read_run(folder)


def damaged(record: dict[str, Any], kind: str) -> str:
    """The text of a record that is not as it should be."""
    if kind == "cut":
        return json.dumps(record)[:-20]
    if kind == "list":
        return json.dumps([record])
    if kind == "image":
        record["style"] = {"name": "a.png"}
    elif kind == "more":
        record["content"]["colour"] = "blue"
    elif kind == "sessions":
        record["sessions"] = {"start": 0}
    elif kind == "start":
        del record["sessions"][0]["start"]
    elif kind == "environment":
        record["sessions"][0]["environment"] = ["torch"]
    elif kind == "config":
        record["config"] = None
    else:
        del record[kind]
    return json.dumps(record)


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "list",
        "image",
        "more",
        "sessions",
        "start",
        "environment",
        "config",
        "content",
        "sincut_version",
    ],
)
def test_a_damaged_record_is_refused(copy: Path, kind: str) -> None:
    path = copy / "config.json"
    path.write_text(damaged(json.loads(path.read_text()), kind))
    message = f"{path} is damaged or not of a run; give a folder that sincut train wrote"
    with pytest.raises(SincutError, match=f"^{re.escape(message)}$"):
        read_run(copy)


def test_bytes_that_are_no_text_are_damage_too(copy: Path) -> None:
    (copy / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(SincutError, match=r"config\.json is damaged or not of a run"):
        read_run(copy)


def test_a_record_of_another_version_says_what_does_not_fit(copy: Path) -> None:
    path = copy / "config.json"
    record = json.loads(path.read_text())
    record["config"]["crop"] = 3
    path.write_text(json.dumps(record))
    message = (
        f"{path} does not fit this version of sincut: crop must be from 16 to 2048, got 3; "
        "try --set crop=128"
    )
    with pytest.raises(SincutError, match=f"^{re.escape(message)}$"):
        read_run(copy)


@pytest.mark.parametrize(
    "torn",
    ['{"step": 7, "seco', '{"step": 7}', "\0" * 40, "\0" * 40 + "\n", '"step"\n', "7\n", "{}\n"],
)
def test_a_torn_line_is_dropped(copy: Path, torn: str) -> None:
    path = copy / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert whole_lines(path) == (lines, 0)
    with open(path, "a") as file:
        file.write(torn)
    assert whole_lines(path) == (lines, torn.count("\n"))
    assert read_run(copy).step == 6


def test_bytes_that_are_no_text_are_dropped_with_their_line(copy: Path) -> None:
    path = copy / "log.jsonl"
    lines = path.read_bytes()
    path.write_bytes(lines + b'{"step\xff\xfe\n' + b'{"step": 7, "seconds": 9.0}\n')
    whole, damaged = whole_lines(path)
    assert whole[-1] == '{"step": 7, "seconds": 9.0}\n'
    assert (len(whole), damaged) == (len(lines.splitlines()) + 1, 1)
    assert whole_lines(copy / "absent") == ([], 0)


@pytest.mark.parametrize(("role", "index"), [("content", 0), ("style", 1)])
@pytest.mark.parametrize("place", ["here", "in the run", "around the run"])
def test_an_image_is_found_in_its_three_places(
    copy: Path, away: Path, pair: tuple[Path, Path], role: str, index: int, place: str
) -> None:
    folders = {"here": away, "in the run": copy, "around the run": copy.parent}
    shutil.copy(pair[index], folders[place])
    for other in folders.values():  # another image with the same name does not hide it
        if not (other / pair[index].name).exists():
            (other / pair[index].name).write_bytes(b"another")
    found = find_image(read_run(copy), role)
    assert found.resolve() == (folders[place] / pair[index].name).resolve()


def test_the_folder_around_a_run_is_that_of_the_disk(
    copy: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(pair[0], copy.parent)
    monkeypatch.chdir(copy)
    assert find_image(read_run(Path()), "content").resolve() == copy.parent / "content.png"


def test_an_image_given_may_have_any_name(copy: Path, away: Path, pair: tuple[Path, Path]) -> None:
    given = shutil.copy(pair[1], away / "any name.png")
    assert find_image(read_run(copy), "style", Path(given)) == Path(given)


def test_an_image_that_is_nowhere_is_asked_for(copy: Path, away: Path) -> None:
    message = (
        f"the content of {copy}, content.png (160×128), is neither here nor beside the run; "
        "try --content FILE"
    )
    with pytest.raises(SincutError, match=f"^{re.escape(message)}$"):
        find_image(read_run(copy), "content")


def test_another_image_with_the_name_is_told(
    copy: Path, away: Path, pair: tuple[Path, Path]
) -> None:
    shutil.copy(pair[0], away / "style.png")
    message = (
        f"the style of {copy}, style.png (144×120), is neither here nor beside the run; "
        "style.png is another image; try --style FILE"
    )
    with pytest.raises(SincutError, match=f"^{re.escape(message)}$"):
        find_image(read_run(copy), "style")


@pytest.mark.parametrize(("index", "what"), [(1, "is not that file"), (None, "is no file")])
def test_a_wrong_image_given_is_refused(
    copy: Path, away: Path, pair: tuple[Path, Path], index: int | None, what: str
) -> None:
    shutil.copy(pair[0], away / "content.png")  # what was given is not replaced by what is there
    given = away / "absent.png" if index is None else pair[index]
    message = (
        f"{copy} was trained with another content image, content.png (160×128), and {given} "
        f"{what}; give the image it was trained with"
    )
    with pytest.raises(SincutError, match=f"^{re.escape(message)}$"):
        find_image(read_run(copy), "content", given)


def parsed(command: str) -> tuple[dict[str, Any], PairConfig]:
    """What ``sincut train`` makes of a command line: its paths, and its configuration."""
    program, subcommand, *words = shlex.split(command)
    assert (program, subcommand) == ("sincut", "train")
    values = train.make_context("train", words).params
    paths = {name: values.pop(name) for name in ("content", "style", "output")}
    changes = parse_assignments(values.pop("assignments"))
    preset, method = values.pop("preset"), values.pop("method")
    for name in ("minutes", "resume", "force", "quiet", "as_json"):
        assert not values.pop(name)
    for name in [name for name in values if name not in PairConfig.__dataclass_fields__]:
        assert not values.pop(name)  # an option beside the configuration
    changes |= {name: value for name, value in values.items() if value is not None}
    return paths, train_config(preset, method or "sincut", **changes)


def test_the_command_repeats_the_run(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    paths, config = parsed(repeating_command(run))
    assert config == run.config
    assert paths == {
        "content": Path("content.png"), "style": Path("style.png"), "output": Path("tiny"),
    }  # fmt: skip


EVERY_FIELD = {
    "range": "0,4095",
    "bands": "4,3,2",
    "style_range": "auto",
    "style_bands": "1,2,3",
    "level": 1,
    "region": (5, 7, 300, 200),
    "style_level": 2,
    "style_region": (0, 0, 512, 512),
    "mask": "auto",
    "style_mask": "auto",
    "regions": 4,
    "style_regions": 9,
    "region_side": 256,
    "placement": "anywhere",  # which the mask asks for
    "look": 0.75,
    "stroke": 2.0,
    "lambda_painting": 1.0,  # without it there is nothing to look like
    "seed": 2**63 - 1,
    "device": "cpu",
    "precision": "fp32",
    "record_steps": False,
    "steps": 7,
    "learning_rate": 1 / 3000,
    "schedule": "constant",
    "zoom_min": 1e-3,
    "lambda_gan": 1e16,
    "layers": (0, 2),
    "flip_equivariance": True,
    "evaluate_every": 50,
}


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("method", ["sincut", "cut", "fastcut"])
def test_any_configuration_is_repeated(preset: str, method: str) -> None:
    plain = train_config(preset, method)
    assert unusual_fields(plain) == []
    assert parsed(repeating_command(run_of(plain)))[1] == plain
    changed = train_config(preset, method, **EVERY_FIELD)
    assert set(unusual_fields(changed)) == {
        name for name in EVERY_FIELD if getattr(changed, name) != getattr(plain, name)
    }
    assert parsed(repeating_command(run_of(changed)))[1] == changed


def test_only_what_is_unusual_is_spelled_out() -> None:
    config = train_config("draft", seed=3, temperature=0.1, layers=(0, 2))
    run = run_of(config, "my runs/it's", ("a b.png", 'c"$d.png'))
    assert repeating_command(run) == (
        "sincut train 'a b.png' 'c\"$d.png' -o 'it'\"'\"'s' --preset draft --seed 3 "
        "--set layers=0,2 --set temperature=0.1"
    )
    method = repeating_command(run_of(train_config("paper", "cut")))
    assert method == "sincut train a b -o run --preset paper --method cut"


@pytest.mark.parametrize(
    "name",
    ["a b.png", "it's.png", 'a"b$HOME`ls`.png', "--force", "-x.png", "é 画.png", "a\\b\n.png"],
)
def test_any_name_comes_back(name: str) -> None:
    run = run_of(train_config("draft"), f"/runs/{name}", (name, f"{name}2"))
    paths, _ = parsed(repeating_command(run))
    assert paths == {"content": Path(name), "style": Path(f"{name}2"), "output": Path(name)}


def test_a_folder_without_a_name_is_called_run() -> None:
    paths, _ = parsed(repeating_command(run_of(train_config("draft"), ".")))
    assert paths["output"] == Path("run")


def test_the_command_that_goes_on_says_nothing_again() -> None:
    run = run_of(train_config("draft", steps=7), "my runs/it's", ("a b.png", "-c.png"))
    command = resuming_command(run)
    assert command == "sincut train 'a b.png' ./-c.png -o 'it'\"'\"'s' --resume"
    values = train.make_context("train", shlex.split(command)[2:]).params
    assert values["resume"]
    assert values["output"] == Path("it's")
    assert values["steps"] is None


@pytest.mark.parametrize(
    ("sessions", "lengths"),
    [
        (((-2, 6), (6, 10)), "6 steps, then 10 steps from step 6"),
        (((-2, 6), (3, 6), (6, 10)), "6 steps, then 10 steps from step 6"),
        (((-2, 6), (-1, 10)), "6 steps, then 10 steps from step 0"),
        (((0, 20),), "20 steps, then 10 steps"),  # cut short when it had done them
        (((0, 10), (4, 20), (8, 10)), "10 steps, then 20 steps from step 4, then 10 steps from "
         "step 8"),
    ],
)  # fmt: skip
def test_an_extended_run_is_not_repeated_by_its_command(
    sessions: tuple[tuple[int, int], ...], lengths: str
) -> None:
    run = asked(*sessions)
    assert run.extended
    assert extension(run) == (
        f"The run was extended or shortened on its way ({lengths}), and its learning rate followed "
        "each length's schedule (linear). The command trains 10 steps with one schedule, which "
        "gives another model."
    )


def test_runs_that_the_command_repeats() -> None:
    assert extension(asked()) == extension(asked((-2, 10), (4, 10))) == ""
    assert not asked((-2, 10), (4, 10)).extended
    constant = asked((0, 5), (5, 10), schedule="constant")
    assert constant.extended
    assert extension(constant) == ""


def test_every_field_with_an_option_uses_it() -> None:
    """A field that gets an option of its own must be known to the command too."""
    options = {
        parameter.name
        for parameter in train.params
        if isinstance(parameter, click.Option) and parameter.name in PairConfig.__dataclass_fields__
    }
    changes = {name: value for name, value in EVERY_FIELD.items() if name in options}
    assert options == {"preset", "method", *changes}
    config = train_config("paper", "cut", lambda_painting=1.0, **changes)
    words = shlex.split(repeating_command(run_of(config)))
    flags = {f"--{str(name).replace('_', '-')}" for name in options} | {"--set"}
    assert {word for word in words if word.startswith("--")} == flags


def test_a_pipe_is_no_run_and_no_part_of_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "log.jsonl")
    assert whole_lines(tmp_path / "log.jsonl") == ([], 0)
    for folder in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(SincutError) as error:
            read_run(folder)
        assert str(error.value) == (
            f"{folder} is not a run: it has no config.json; give a folder that sincut train wrote"
        )
