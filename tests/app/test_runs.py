"""Trainings that pages start: followed, stopped, gone on with, found again, thrown away."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason='the app needs the extra app: pip install ".[app]"')

from sincut.app.choices import length_words, training_words
from sincut.errors import SincutError
from sincut.runs.folder import read_run
from tests.app.conftest import SETTINGS, Server, serving

Pair = tuple[Path, Path]


def test_a_run_from_the_first_image_to_the_report(server: Server, pair: Pair) -> None:
    name = server.train(*pair, title="A first run")
    assert name == "a-first-run"
    run = server.until(name, "finished")
    assert (run["title"], run["step"], run["steps"]) == ("A first run", 6, 6)
    assert (run["content"], run["style"]) == ("content.png", "style.png")
    assert run["previews"] == [0, 3, 6]
    assert run["live"]["state"] == "finished"
    assert run["estimate"]["seconds"] > 0
    assert (run["report"], run["card"], run["model"], run["resumable"]) == (True,) * 4
    folder = server.folder / name
    assert {each.name for each in folder.iterdir()} == {
        "app.json", "content.png", "style.png", "pictures", "run", "jobs",
    }  # fmt: skip
    assert (folder / "content.png").read_bytes() == pair[0].read_bytes()
    for path in ("picture", "previews/3", "pictures/content", "pictures/style"):
        status, headers, _ = server.request("GET", f"/runs/{name}/{path}")
        assert (status, headers["content-type"].partition("/")[0]) == (200, "image")
    assert b"sincut" in server.request("GET", f"/runs/{name}/card")[2]
    model = (folder / "run/model.safetensors").read_bytes()
    assert server.request("GET", f"/runs/{name}/model")[2] == model
    status, headers, _ = server.request("GET", f"/runs/{name}/report")
    assert status == 200
    assert headers["content-security-policy"].startswith(
        "sandbox allow-scripts; default-src 'none'"
    )
    for path in ("", "/result"):
        assert server.request("GET", f"/runs/{name}{path}")[0] == 200
    [short] = server.ask("GET", "/api/runs")["runs"]
    assert (short["name"], short["state"], short["picture"]) == (name, "finished", True)


def test_stopped_gone_on_with_and_extended(server: Server, pair: Pair) -> None:
    name = server.train(*pair, steps=100_000)
    api = f"/api/runs/{name}"
    server.wait(api, lambda run: run["step"] > 3)
    line = f"{name} is running; wait for its end or stop it first"
    assert server.refused("POST", api, {"action": "resume"}) == line
    assert server.refused("DELETE", api) == f"{name} is at work; stop it first"
    server.ask("POST", api, {"action": "stop"})
    run = server.until(name, "stopped")
    reached = run["live"]["done"] - 2
    assert 3 < reached < 100_000
    server.ask("POST", api, {"action": "resume", "more": 1})
    server.wait(api, lambda run: run["state"] == "running" and run["step"] > reached)
    assert read_run(server.folder / name / "run").config.steps == 100_001
    server.ask("POST", api, {"action": "stop"})
    server.until(name, "stopped")
    assert len(read_run(server.folder / name / "run").sessions) == 2


@pytest.mark.parametrize("more", [0, -1, "1", 1.5, 10**9, True])
def test_a_length_that_is_none_is_refused(more: object) -> None:
    line = f"a run is extended by 1 to 100000000 steps, got {more}"
    with pytest.raises(SincutError, match=f"^{re.escape(line)}$"):
        length_words(more, 10)


def test_a_server_that_was_killed_finds_the_training(tmp_path: Path, pair: Pair) -> None:
    with serving(tmp_path) as server:
        name = server.train(*pair, steps=100_000)
        run = server.wait(f"/api/runs/{name}", lambda run: run["step"] > 0)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with serving(tmp_path) as server:
        again = server.wait(f"/api/runs/{name}", lambda now: now["step"] > run["step"])
        assert (again["state"], again["started"]) == ("running", run["started"])
        server.ask("POST", f"/api/runs/{name}", {"action": "stop"})
        server.until(name, "stopped")


def test_a_training_that_is_killed_is_not_taken_for_running(server: Server, pair: Pair) -> None:
    name = server.train(*pair, steps=100_000)
    server.wait(f"/api/runs/{name}", lambda run: run["step"] > 4)
    record = json.loads((server.folder / name / "jobs/train.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    run = server.until(name, "stopped")
    assert run["resumable"]


def test_what_fails_says_its_one_line(server: Server, pair: Pair) -> None:
    name = server.train(*pair, settings={"learning_rate": "1", "batch": "1", "crop": "2048"})
    run = server.until(name, "failed")
    assert "2048" in run["why"]
    assert "\n" not in run["why"]
    # What failed before its first step begins anew, or with other settings as another run.
    server.ask("POST", f"/api/runs/{name}", {"action": "resume"})
    server.until(name, "failed")
    given = server.ask("POST", f"/api/runs/{name}/images")
    assert [server.ask("GET", f"/api/images/{given[role]}")["name"] for role in given] == [
        "content.png", "style.png",
    ]  # fmt: skip
    settings = {**SETTINGS, "steps": "1", "warm_steps": "0"}
    again = server.ask("POST", "/api/runs", {**given, "minutes": "", "settings": settings})["name"]
    server.until(again, "finished")
    assert (server.folder / again / "content.png").is_file()


def test_what_the_command_refuses_is_refused_before_anything_is_made(
    server: Server, pair: Pair
) -> None:
    images = {"content": server.upload(pair[0]), "style": server.upload(pair[1])}
    for given, line in (
        ({"look": "2"}, "look must be from 0 to 1, got 2.0; try --look 0.5"),
        ({"settings": {"crop": "1"}}, "crop must be from 16 to 2048, got 1; try --set crop=128"),
        ({"preset": "best"}, "preset must be one of paper, published, draft, fast, got best; try "
         "--preset draft"),
        ({"minutes": "7"}, "minutes must be one of 2, 5, 15 or nothing, got 7"),
        ({"settings": "all"}, "settings must be fields by name; reload the page"),
        ({"minutes": "2", "settings": {"steps": "3"}}, "a time of 2 minutes and steps=3 both set "
         "the length; choose until it is stopped, or no steps"),
        ({"content": "0" * 16}, "the image is not here any more; give it once more"),
        ({"style": None}, "the image is not here any more; give it once more"),
    ):  # fmt: skip
        assert server.refused("POST", "/api/runs", {**images, **given}) == line
    assert {each.name for each in server.folder.iterdir()} == {"uploads"}


@pytest.mark.long
def test_an_estimate_is_that_of_the_command_and_leaves_nothing(server: Server, pair: Pair) -> None:
    images = {"content": server.upload(pair[0]), "style": server.upload(pair[1])}
    settings = {**SETTINGS, "steps": "40", "warm_steps": "2"}
    found = server.ask("POST", "/api/estimate", {**images, "settings": settings})
    assert (found["steps"], found["device"], found["precision"]) == (40, "cpu", "fp32")
    assert found["seconds"] > found["seconds_per_step"] > 0
    assert found["peak_bytes"] > 10**8
    assert {each.name for each in server.folder.iterdir()} == {"uploads"}
    wrong = {**images, "settings": {**settings, "crop": "2048"}}
    assert "2048" in server.refused("POST", "/api/estimate", wrong)


@pytest.mark.long
def test_three_variations_come_one_after_the_other(server: Server, pair: Pair) -> None:
    first = server.train(*pair, variations=True, title="Three")
    names = server.ask("GET", f"/api/runs/{first}")["variations"]
    assert names == ["three-1", "three-2", "three-3"]
    runs = [server.until(name, "finished") for name in names]
    configs = [read_run(server.folder / name / "run").config for name in names]
    assert [config.seed for config in configs] == [1, 2, 3]
    for name in names:  # each has its own, so that any may be thrown away
        assert (server.folder / name / "content.png").read_bytes() == pair[0].read_bytes()
    starts = [run["started"] for run in runs]
    assert starts == sorted(starts)
    server.ask("POST", f"/api/runs/{names[1]}", {"action": "choose"})
    assert [run["chosen"] for run in server.ask("GET", "/api/runs")["runs"]].count(True) == 1


@pytest.mark.long
def test_stopping_variations_begins_none_that_follows(server: Server, pair: Pair) -> None:
    first = server.train(*pair, variations=True, title="Three", steps=100_000)
    server.wait(f"/api/runs/{first}", lambda run: run["step"] > 0)
    assert server.ask("GET", "/api/runs/three-2")["waiting"]
    server.ask("POST", f"/api/runs/{first}", {"action": "stop"})
    server.until(first, "stopped")
    second = server.wait("/api/runs/three-2", lambda run: not run["waiting"])
    assert second["state"] == "unbegun"
    assert not (server.folder / "three-2" / "run").exists()


def test_two_folders_are_trained_on(server: Server, pair: Pair, tmp_path: Path) -> None:
    images = {}
    for role, file in zip(("content", "style"), pair, strict=True):
        folder = tmp_path / f"{role}s"
        folder.mkdir()
        for name in ("a.png", "b.png", "c.png"):
            shutil.copy(file, folder / name)
        images[role] = server.ask("POST", "/api/images", {"path": str(folder)})["id"]
        look = server.ask("GET", f"/api/images/{images[role]}")
        assert (look["count"], look["picture"]) == (3, True)
    settings = {
        **{"load": "32", "falling_load": "32", "crop": "32", "channels": "2", "blocks": "1"},
        **{"layers": "0,4", "discriminator_channels": "2", "patches": "8", "steps": "2"},
        **{"projection_width": "8", "device": "cpu", "precision": "fp32"},
    }
    mixed = {"content": images["content"], "style": server.upload(pair[1])}
    assert server.refused("POST", "/api/runs", mixed) == (
        "content and style must be two images or two folders, got one of each"
    )
    name = server.ask("POST", "/api/runs", {**images, "minutes": "", "settings": settings})["name"]
    run = server.until(name, "finished", "failed")
    assert (run["why"], run["state"], run["folders"]) == ("", "finished", True)
    assert (run["content"], run["style"]) == ("contents", "styles")


def test_a_run_of_the_command_line_is_shown_and_thrown_away(server: Server, tiny_run: Path) -> None:
    shutil.copytree(tiny_run, server.folder / "tiny")
    run = server.ask("GET", "/api/runs/tiny")
    assert (run["state"], run["step"], run["title"]) == ("finished", 6, "tiny")
    assert server.request("GET", "/runs/tiny/picture")[0] == 200
    server.ask("POST", "/api/runs/tiny", {"action": "rename", "title": " <b>Café</b>\n ☕ "})
    assert server.ask("GET", "/api/runs/tiny")["title"] == "<b>Café</b> ☕"
    place = server.ask("DELETE", "/api/runs/tiny")["place"]
    assert place == str(server.folder / "trash/tiny")
    assert read_run(place).config.steps == 6
    assert server.ask("GET", "/api/runs") == {"runs": []}
    shutil.copytree(tiny_run, server.folder / "tiny")
    assert server.ask("DELETE", "/api/runs/tiny")["place"] == str(server.folder / "trash/tiny-2")


def test_a_training_of_a_terminal_is_seen_by_its_lock(server: Server, tiny_run: Path) -> None:
    from sincut.files import FolderLock

    run = server.folder / "tiny"
    shutil.copytree(tiny_run, run)
    lock = FolderLock()
    lock.take(run)
    assert server.ask("GET", "/api/runs/tiny")["state"] == "running"
    assert server.refused("POST", "/api/runs/tiny", {"action": "stop"}) == (
        "tiny was started in a terminal; press Ctrl-C there, which saves it"
    )
    lock.close()
    assert server.ask("GET", "/api/runs/tiny")["state"] == "finished"


def test_an_empty_name_is_refused(server: Server, tiny_run: Path) -> None:
    shutil.copytree(tiny_run, server.folder / "tiny")
    for title in ("", " \n ", None):
        body = {"action": "rename", "title": title}
        assert server.refused("POST", "/api/runs/tiny", body) == "a run needs a name; type one"


def test_names_that_are_no_runs_lead_nowhere(server: Server, tiny_run: Path) -> None:
    shutil.copytree(tiny_run, server.folder.parent / "outside")
    (server.folder / "link").symlink_to(server.folder.parent / "outside")
    (server.folder / "file").touch()
    (server.folder / "empty").mkdir()
    shutil.copytree(tiny_run, server.folder / ".hidden")
    names = ("..", "%2e%2e", "..%2f..", ".", "uploads", "trash", "%2fetc", "..%2foutside", "link")
    pages = ("", "/result", "/report", "/card", "/model", "/picture", "/previews/0")
    for name in (*names, "file", ".hidden", "empty", "a%00b"):
        for page in (*pages, "/pictures/content"):
            assert server.request("GET", f"/runs/{name}{page}")[0] in (404, 405), name
        assert server.request("DELETE", f"/api/runs/{name}")[0] in (404, 405), name
    assert (server.folder.parent / "outside/config.json").is_file()


def test_links_inside_a_run_are_not_followed(server: Server, tiny_run: Path) -> None:
    shutil.copytree(tiny_run, server.folder / "tiny")
    secret = server.folder.parent / "secret.png"
    secret.write_bytes(b"secret")
    preview = server.folder / "tiny/previews/000003.png"
    preview.unlink()
    preview.symlink_to(secret)
    assert server.request("GET", "/runs/tiny/previews/3")[0] == 404


def test_a_damaged_run_is_shown_as_failed(server: Server) -> None:
    texts = ("", "{", "[]", "null", '{"config": 3}', '{"config": {"steps": "many"}, "content": 1}')
    for number, text in enumerate(texts):
        folder = server.folder / f"bad{number}"
        folder.mkdir()
        (folder / "config.json").write_text(text)
        (folder / "log.jsonl").write_text('{"step": "x"}\n[1]\nno\n{"figures": 3, "step": 1}\n')
        (folder / "live.js").write_text("sincutLive(no);")
        run = server.ask("GET", f"/api/runs/{folder.name}")
        assert (run["state"], run["figures"]) == ("failed", {})
        assert server.request("GET", f"/runs/{folder.name}")[0] == 200
        assert server.refused("POST", f"/api/runs/{folder.name}", {"action": "resume"}) == (
            f"{folder.name} has no saved state to go on from; start a new run"
        )
    assert len(server.ask("GET", "/api/runs")["runs"]) == len(texts)


def test_markup_in_names_stays_text(server: Server, pair: Pair, tmp_path: Path) -> None:
    names = [tmp_path / f"<script>alert({n})<" for n in (1, 2)]
    files = [shutil.copy(file, f"{name}.png") for file, name in zip(pair, names, strict=True)]
    name = server.train(*map(Path, files), steps=1)
    server.until(name, "finished")
    assert name == "script-alert-1-script-alert-2"
    for page in ("", "/result", "/nothing"):
        text = server.request("GET", f"/runs/{name}{page}", accept="text/html")[2].decode()
        assert "alert(" not in text
    text = server.request("GET", "/runs/%3Cscript%3Ealert(1)", accept="text/html")[2].decode()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text


def test_a_file_is_no_module_of_the_training(server: Server, pair: Pair, tmp_path: Path) -> None:
    """Whoever sends a file decides what lies in a folder, and not what Python imports."""
    file = tmp_path / "numpy.py"
    shutil.copy(pair[0], file)
    name = server.train(file, pair[1], steps=1)
    server.until(name, "finished")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minutes": "5"}, ["--minutes=5"]),
        ({}, ["--set=steps=1000000", "--set=schedule=constant"]),
        ({"minutes": "2", "look": 0.25, "stroke": "2", "seed": "7"},
         ["--minutes=2", "--look=0.25", "--stroke=2", "--seed=7"]),
        ({"minutes": "", "settings": {"steps": "9", "schedule": "linear", "patches": ""}},
         ["--steps=9", "--set=schedule=linear"]),
        ({"minutes": "15", "preset": "paper", "method": "cut", "settings": {"lambda_x": "3"}},
         ["--minutes=15", "--preset=paper", "--method=cut", "--set=lambda_x=3"]),
    ],
)  # fmt: skip
def test_choices_become_options(given: dict[str, object], words: list[str]) -> None:
    expected = [word.replace("--set=steps", "--steps") for word in words]
    assert training_words(given, folders=False) == expected


def test_a_value_is_never_an_option() -> None:
    with pytest.raises(SincutError, match=r"^range must be "):
        training_words({"settings": {"range": "--force"}}, folders=False)
    with pytest.raises(SincutError, match=r"^there is no field force in the configuration"):
        training_words({"settings": {"force": "true"}}, folders=False)
