"""The command line: its words, exit codes, output for people and for programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import sincut
from sincut.cli import main
from tests.conftest import TINY, size_of

SETTINGS = [
    "--preset=draft", "--device=cpu", "--precision=fp32", "--steps=4",
    *[f"--set={name}={value}" for name, value in TINY.items()
      if name not in ("preset", "device", "precision", "steps")],
]  # fmt: skip


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def refused(*arguments: Any) -> str:
    """Standard error of a call that must exit with 2, say one line there and nothing else."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").rstrip()


def test_help_answers_within_a_third_of_a_second() -> None:
    """Beyond a bare interpreter's start; the best of several, since machines are shared."""

    def best(*arguments: str) -> float:
        times = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert best("-m", "sincut", "--help") - best("-c", "pass") < 0.3


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"sincut, version {sincut.__version__}\n")


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_and_option_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(main.commands[command].help or "") > 20
    for parameter in main.commands[command].params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", None), parameter.name


def test_train_translate_and_info(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run("train", *pair, "-o", folder, *SETTINGS)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == (
        f"sincut {sincut.__version__}: preset draft (as asked), method sincut, "
        "4 steps on cpu in fp32 (as asked), seed 0"
    )
    assert re.fullmatch(
        r"Estimate: \d+ s at [\d.e-]+ s a step, [\d.]+ [MG]B of memory at the peak\.", lines[1]
    )
    assert lines[2:] == [
        f"To watch it, open {folder / 'index.html'} in a browser.",
        f"Report: {folder / 'report.html'}",
        f"Trained 4 steps. To translate: sincut translate {folder} IMAGE -o OUTPUT.png",
    ]
    assert result.stderr == ""  # no terminal, no progress

    target = tmp_path / "out.png"
    result = run("translate", folder, pair[0], "-o", target, "--tile", 64, "--verify", 2)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        rf"{re.escape(str(pair[0]))}: 160×128, 8 bits per channel; 6 tiles of 64 pixels; at most "
        r"[\d.]+ [MG]B of memory, [\d.]+ MB of disk \([\d.]+ [MG]B free\)\n"
        rf"{re.escape(str(target))}: 160×128 in \d+ s, 6 tiles\n"
        r"Tiles by other windows differ by at most [\d.e-]+ of 255\.\n",
        result.stdout,
    )
    assert size_of(target) == (160, 128)

    for given in (folder, folder / "model.safetensors"):
        result = run("info", given)
        assert "preset: draft" in result.stdout
        assert "layers: 0,2,4" in result.stdout
        facts = json.loads(run("info", given, "--json").stdout)
        assert (facts["step"], facts["halo"], facts["config"]["channels"]) == (4, 31, 4)

    assert run("train", *pair, "-o", folder, "--resume", "--steps", 6, "--quiet").output == ""
    assert json.loads(run("info", folder, "--json").stdout)["step"] == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_default_preset_is_said_in_the_first_line(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    small = [each for each in SETTINGS if not each.startswith(("--preset", "--device"))]
    result = run("train", *pair, "-o", tmp_path / "run", *small)
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"sincut {sincut.__version__}: preset draft (the default on cpu), ")


def test_json_is_one_object_per_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("train", *pair, "-o", tmp_path / "run", *SETTINGS, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["event"] for r in records if r["event"] not in ("preview", "reporting")] == [
        "start", "estimate", "live", *["step"] * 6, "report", "done",
    ]  # fmt: skip
    assert records[0]["config"]["steps"] == 4
    result = run("translate", tmp_path / "run", *pair, "-o", tmp_path / "out", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    records = [r for r in records if r["event"] != "tiles"]  # of what takes seconds
    assert [r["event"] for r in records] == ["plan", "translated"] * 2
    assert [Path(r["output"]).name for r in records[1::2]] == ["content.png", "style.png"]


def test_what_a_training_takes_is_told_and_nothing_done(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run("train", *pair, "-o", tmp_path / "run", *SETTINGS, "--dry-run", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["event"] for record in records] == ["start", "estimate"]
    assert records[1]["peak_bytes"] > 0 < records[1]["seconds"]
    assert result.exit_code == 0
    assert not list(tmp_path.iterdir())


def test_json_tells_how_many_tiles_are_done(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["sincut.cli.translate"], "_EVERY", 0.0)
    output = tmp_path / "out.png"
    result = run("translate", tiny_run, pair[0], "-o", output, "--tile", 64, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    tiles = [record for record in records if record["event"] == "tiles"]
    assert [(each["done"], each["total"]) for each in tiles] == [(n, 6) for n in range(1, 7)]
    assert {each["input"] for each in tiles} == {str(pair[0])}


def test_a_plan_is_told_and_nothing_done(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    options = ["--dry-run", "--working-width", 80, "--tile", 64]
    result = run("translate", tiny_run, pair[0], "-o", tmp_path / "out.tif", *options)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        rf"{re.escape(str(pair[0]))}: 160×128, 8 bits per channel; 6 tiles of 64 pixels, the "
        r"network at 80×64; at most [\d.]+ [MG]B of memory, [\d.]+ MB of disk "
        r"\([\d.]+ [MG]B free\), \d+ s\n",
        result.stdout,
    )
    result = run("translate", tiny_run, pair[0], "-o", tmp_path / "out.tif", *options, "--json")
    plan = json.loads(result.stdout)
    assert (plan["event"], plan["working"], plan["tiles"]) == ("plan", [80, 64], 6)
    assert not list(tmp_path.iterdir())


def test_what_was_interrupted_says_how_to_go_on(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sincut.translation.one_image.translate_bands", stop)
    result = run("translate", tiny_run, pair[0], "-o", tmp_path / "out.png")
    assert result.exit_code == 130
    assert result.stderr == (
        f"Interrupted: {tmp_path / 'out.png'} was not written: no part of it was finished.\n"
    )


def test_quiet_says_nothing(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path) -> None:
    assert run("train", *pair, "-o", tmp_path / "run", *SETTINGS, "--quiet").output == ""
    assert run("translate", tiny_run, pair[0], "-o", tmp_path / "o.png", "-q").output == ""


def test_errors_are_one_line_and_exit_with_2(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    missing = tmp_path / "none.png"
    assert refused("train", missing, pair[1], "-o", out) == (
        f"{missing} does not exist; give an image file"
    )
    assert refused("train", *pair, "-o", out, "--preset", "best") == (
        "preset must be one of paper, published, draft, fast, got best; try --preset draft"
    )
    assert refused("train", *pair, "-o", out, "--set", "speed=9").startswith(
        "there is no field speed in the configuration; allowed: bands, batch, "
    )
    assert refused("train", *pair, "-o", out, "--steps", "0") == (
        "steps must be at least 1, got 0; try --steps 100000"
    )
    assert refused("train", *pair, "-o", tiny_run) == (
        f"{tiny_run} holds a run already; try --resume to continue it, --force to start anew, "
        "or another -o"
    )
    assert refused("translate", tiny_run, missing, "-o", tmp_path / "out.png") == (
        f"{missing} does not exist; give an image file"
    )
    assert refused("translate", missing, pair[0], "-o", tmp_path / "out.png") == (
        f"{missing} does not exist or is not a file; give a model.safetensors that sincut wrote; "
        "for a latest_net_G.pth try sincut import"
    )
    assert refused("translate", tiny_run, pair[0], "-o", tmp_path / "out.png", "--tile", "3") == (
        "tile must be a number of pixels from 16, auto or whole, got 3; try --tile 512"
    )
    if not torch.cuda.is_available():
        for command in (("train", *pair), ("translate", tiny_run, pair[0])):
            assert refused(*command, "-o", tmp_path / "o.png", "--device", "cuda") == (
                "--device cuda needs an NVIDIA GPU and a CUDA build of PyTorch, and none was "
                "found; try --device cpu"
            )
    assert not list(tmp_path.iterdir())


def test_usage_errors_exit_with_2() -> None:
    for arguments in (["train"], ["translate"], ["nothing"], ["train", "a", "b"]):
        assert run(*arguments).exit_code == 2


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Content, style and an output of sizes that can be measured; the floor from one split."""
    from PIL import Image

    from sincut.demo import render_content, render_style

    monkeypatch.setattr("sincut.evaluation.figures._FLOOR_SPLITS", 1)
    content = render_content(160, 128)
    for name, image in (("content", content), ("style", render_style(144, 130))):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    Image.fromarray(content[:, ::-1].copy()).save(tmp_path / "[red]out.png")
    return tmp_path / "content.png", tmp_path / "style.png", tmp_path / "[red]out.png"


def test_evaluate_prints_a_table(measured: tuple[Path, Path, Path], tmp_path: Path) -> None:
    result = run("evaluate", *measured)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    assert re.split(r"  +", lines[0]) == [
        "output", "S1 ↓", "S2 ↓", "S2/floor ↓", "S3 ↓", "S4 ↓", "C1 ↑", "C2 ↑",
    ]  # fmt: skip
    assert re.fullmatch(re.escape(str(measured[2])) + r"(  +\d+\.\d{3}){7}", lines[2])
    assert lines[3] == "S1 ↓        colour: distance of the pixels to the style's"
    assert [line.split("  ")[0] for line in lines[3:10]] == re.split(r"  +", lines[0])[1:]
    assert lines[10] == "↓ lower is better, ↑ higher is. No one of them says enough alone."
    assert len(lines) == 11


def test_evaluate_with_everything(
    measured: tuple[Path, Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "plane.png"
    result = run("evaluate", *measured, measured[0], "--plot", plot, "--model", tiny_run)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    assert lines[0].endswith("beyond")
    assert lines[2].endswith("  no")
    rows = [re.split(r"  +", line)[0] for line in lines[2:10]]
    assert rows == [
        *map(str, (measured[2], measured[0])),
        "anchor: copy", "anchor: Reinhard", "anchor: IDT",
        "anchor: IDT + 16-px blocks", "anchor: IDT + 64-px blocks", "anchor: patches",
    ]  # fmt: skip
    assert re.fullmatch(
        r"Identity, G\(style\) against the style: L1 0\.\d{3}, PSNR \d+\.\d dB, C1 0\.\d{3}, "
        r"S2 \d\.\d{3}\.",
        lines[10],
    )
    assert lines[18] == (
        "beyond      better than the line IDT → 16-px blocks → 64-px blocks in C1 and S3"
    )
    assert size_of(plot) == (960, 720)
    before = plot.read_bytes()
    assert refused("evaluate", *measured, "--plot", plot) == (
        f"{plot} exists already; try --force or another --plot"
    )
    assert plot.read_bytes() == before
    assert run("evaluate", *measured, "--plot", plot, "--force").exit_code == 0
    assert plot.read_bytes() != before  # one output less


def test_evaluate_prints_json_with_the_paths_as_given(
    measured: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(measured[0].parent)
    measured[2].rename("anchors")
    result = run("evaluate", "content.png", "style.png", "./anchors", "--json", "--anchors")
    assert (result.exit_code, result.stderr) == (0, "")
    values = json.loads(result.stdout)
    assert list(values) == ["./anchors", "anchors"]
    assert 0 < values["./anchors"]["S1"] < 1
    assert values["./anchors"]["beyond"] in (True, False)
    assert values["anchors"]["copy"]["C1"] == 1
    assert refused("evaluate", "content.png", "style.png", "anchors", "--json") == (
        "an output must not be given as anchors, which is a key of the result itself; try ./anchors"
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("output", ["left", "full", "closed"])
def test_what_was_measured_is_kept_where_nobody_listens(
    output: str, measured: tuple[Path, Path, Path]
) -> None:
    content, style, made = measured
    strange = os.fsencode(made.parent) + b"/\xe2\x86\x92\xff.png"
    made.rename(os.fsdecode(strange))
    kept = made.with_name("figures.json")
    words = [sys.executable, "-m", "sincut", "evaluate", content, style, strange]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full, os.fdopen(writing, "wb") as left:
        stdout = {"full": full, "left": left, "closed": None}[output]
        for options in (["-o", kept], ["-o", kept, "--force", "--json"]):
            done = subprocess.run(
                [*words, *options],
                stdout=stdout,
                stderr=subprocess.PIPE,
                preexec_fn=(lambda: os.close(1)) if output == "closed" else None,
            )
            said = "the figures cannot be printed (No space left on device); they are in "
            expected = f"Error: {said}{kept}\n" if output == "full" else ""
            code = {"full": 2, "left": 1, "closed": 0}[output]
            assert (done.returncode, done.stderr.decode()) == (code, expected)
            (path,) = json.loads(kept.read_text())
            assert os.fsencode(path) == strange
            if output != "full":
                break
        else:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE)
            assert done.stderr.endswith(b"; measure again with -o FILE.json\n")


def test_where_figures_are_kept_is_looked_at_first(
    measured: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text("mine")
    for name, said in {
        "a.json": f"{tmp_path / 'a.json'} exists already; try --force or another -o",
        "a.txt": f"figures are kept in a JSON file, got {tmp_path / 'a.txt'}; try a.json",
        "no/a.json": f"the folder {tmp_path / 'no'} does not exist; create it first",
    }.items():
        assert refused("evaluate", *measured, "-o", tmp_path / name) == said
    assert (tmp_path / "a.json").read_text() == "mine"


def test_evaluate_refuses_in_one_line(measured: tuple[Path, Path, Path], tmp_path: Path) -> None:
    content, style, output = measured
    assert refused("evaluate", content, style, output, output) == (
        f"{output} is given twice; give every output once"
    )
    assert refused("evaluate", content, style, tmp_path / "none.png") == (
        f"{tmp_path / 'none.png'} does not exist; give an image file"
    )
    assert refused("evaluate", content, style, style) == (
        f"{style} must have the content's size, 160×128, got 144×130; try a translation of this "
        "content"
    )
    assert refused("evaluate", content, style, output, "--plot", output, "--force") == (
        f"{output} is an input; give another --plot"
    )
    assert run("evaluate", content, style).exit_code == 2


def test_evaluate_notes_what_is_not_measured(
    measured: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from PIL import Image

    with Image.open(measured[0]) as image:
        image.convert("RGBA").save(tmp_path / "alpha.png")
    result = run("evaluate", *measured[:2], tmp_path / "alpha.png", "--json")
    assert (
        result.stderr == f"Note on {tmp_path / 'alpha.png'}: its alpha channel is not measured.\n"
    )
    assert json.loads(result.stdout)[str(tmp_path / "alpha.png")]["C1"] == 1


@pytest.fixture
def three_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Contents, styles and translations, five of each; without the extra ``judge``."""
    from PIL import Image

    from sincut.demo import render_content, render_style

    monkeypatch.setattr("sincut.evaluation.folders.lite_judge", lambda: None)
    content, style = render_content(160, 128), render_style(160, 128)
    for folder, image in (("A", content), ("B", style), ("[red]OUT", content // 2)):
        (tmp_path / folder).mkdir()
        for i in range(5):
            part = image[5 * i : 5 * i + 60, 9 * i : 9 * i + 70]
            Image.fromarray(part).save(tmp_path / folder / f"{i}.png")
    return tmp_path / "A", tmp_path / "B", tmp_path / "[red]OUT"


def told(result: Result) -> list[list[str]]:
    """The lines of a result, cut where there is more than one space."""
    assert result.exit_code == 0, result.output
    return [re.split(r"  +", line.strip()) for line in result.stdout.splitlines() if line.strip()]


def test_evaluate_folders(three_folders: tuple[Path, Path, Path]) -> None:
    result = run("evaluate", *three_folders)
    assert result.stderr == (
        f"Note on {three_folders[1]}: distances to it take the extra judge, which is not "
        "installed; try pip install 'sincut[judge]', or --features.\n"
    )
    lines = told(result)
    assert lines[0] == ["output", "C1 ↑", "C2 ↑"]
    for i in range(5):
        assert lines[2 + i][0] == str(three_folders[2] / f"{i}.png")
        assert re.fullmatch(r"\d\.\d{3} \d\.\d{3}", " ".join(lines[2 + i][1:]))
    assert lines[7][0] == "all translations"
    assert re.fullmatch(r"\d\.\d{3} ± \d\.\d{3}", lines[7][1])
    assert [line[0] for line in lines[8:]] == [
        "C1 ↑", "C2 ↑", "↓ lower is better, ↑ higher is. No one of them says enough alone.",
    ]  # fmt: skip


def test_evaluate_folders_with_features(
    three_folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.nn.Sequential(torch.nn.AvgPool2d(150), torch.nn.Flatten())
        torch.jit.script(network).save(str(tmp_path / "net.pt"))
    options = "--features", tmp_path / "net.pt"
    result = run("evaluate", *three_folders, *options)
    assert result.stderr == ""
    lines = told(result)
    assert lines[0] == ["output", "C1 ↑", "C2 ↑", "KID ↓", "FID ↓"]
    assert [line[0] for line in lines[7:10]] == [
        "all translations", "anchor: the contents as they are",
        "floor: half of the styles to the other",
    ]  # fmt: skip
    kid, fid = r"-?\d+\.\d{4}( ± \d+\.\d{4})?", r"\d+\.\d{2}"
    assert [re.fullmatch(kid, line[-2]) is not None for line in lines[7:9]] == [True] * 2
    assert [re.fullmatch(fid, line[-1]) is not None for line in lines[7:9]] == [True] * 2
    assert re.fullmatch(kid, lines[9][-1])
    values = json.loads(run("evaluate", *three_folders, *options, "--json").stdout)
    assert lines[7][-1] == f"{values['distances']['FID']['mean']:.2f}"
    assert lines[8][-1] == f"{values['anchor']['FID']['mean']:.2f}"


def test_evaluate_refuses_folders_in_one_line(
    three_folders: tuple[Path, Path, Path], measured: tuple[Path, Path, Path]
) -> None:
    contents, styles, outputs = three_folders
    assert refused("evaluate", contents, styles, measured[2]) == (
        f"content, style and output must all be files or all be folders, got the folder {contents} "
        f"and {measured[2]}, which is none; give three folders, or files"
    )
    for option in (["--anchors"], ["--model", "run"], ["--plot", "plane.png"], ["--force"]):
        assert refused("evaluate", *three_folders, *option) == (
            f"{option[0]} is for files, got folders; try without it"
        )
    assert refused("evaluate", *measured, "--features", "net.pt") == (
        "--features is for folders, got files; try without it"
    )
    (outputs / "3.png").unlink()
    assert refused("evaluate", *three_folders) == (
        f"{outputs} must hold a translation of every content, got none of {contents / '3.png'}; "
        "try sincut translate"
    )


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with the pair and the network made small; the real one is `make demo`."""
    from sincut.config.presets import PRESETS
    from sincut.demo import render_content, render_style

    small = {name: value for name, value in TINY.items() if name != "preset"}
    monkeypatch.setitem(PRESETS, "draft", ("small", small))
    monkeypatch.setattr("sincut.demo.make.render_content", lambda: render_content(96, 80))
    monkeypatch.setattr("sincut.demo.make.render_style", lambda: render_style(80, 96))
    result = run("demo", "-o", tmp_path / "demo", "--steps", 2)
    assert result.exit_code == 0, result.output
    for name in ("content", "style", "result"):
        assert (tmp_path / "demo" / f"{name}.png").exists()
        assert f"  {name:<8} {tmp_path / 'demo' / name}.png" in result.stdout
    assert size_of(tmp_path / "demo" / "result.png") == (96, 80)
    report = tmp_path / "demo" / "run" / "report.html"
    assert result.stdout.splitlines()[-1] == f"  report   {report}"
    assert "content.png in the look of style.png" in report.read_text(encoding="utf-8")
    assert refused("demo", "-o", tmp_path / "demo") == (
        f"{tmp_path / 'demo'} holds a demo already; try --force or another -o"
    )
    assert run("demo", "-o", tmp_path / "demo", "--steps", 1, "--force", "-q").exit_code == 0


def test_progress_on_a_terminal(tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """On a pseudo-terminal a bar with counts is drawn on standard error."""
    import os
    import pty

    master, slave = pty.openpty()
    command = [
        sys.executable, "-m", "sincut", "translate", str(tiny_run), str(pair[0]),
        "-o", str(tmp_path / "o.png"), "--tile", "32",
    ]  # fmt: skip
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run(
        command, stderr=slave, stdout=subprocess.DEVNULL, env=environment, check=True, timeout=60
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "content.png (1 of 1)" in shown
    assert "/20" in shown


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", "", "style.png", "-o", "run"], "CONTENT"),
        (["train", "content.png", "", "-o", "run"], "STYLE"),
        (["train", "content.png", "style.png", "-o", ""], "-o"),
        (["translate", "run", "", "-o", "out.png"], "INPUTS"),
        (["evaluate", "content.png", "style.png", ""], "OUTPUT..."),
        (["report", "run", "--content", ""], "--content"),
        (["demo", "-o", ""], "-o"),
    ],
)
def test_an_empty_name_is_not_the_current_folder(words: list[str], name: str) -> None:
    """As of ``"$EMPTY"`` in a script."""
    expected = f"{name} is an empty name; give a path, or . for the current folder"
    assert refused(*words) == expected


def test_a_name_cannot_write_lines_of_its_own(tmp_path: Path) -> None:
    name = "a\nError: b\x1b[2J.png"
    said = refused("translate", tmp_path, tmp_path / name, "-o", tmp_path / "out.png")
    assert "a\\nError: b\\x1b[2J.png" in said


@pytest.mark.sampled(3)
@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1:strict", "utf-8:strict"])
def test_a_terminal_that_knows_few_letters(
    encoding: str, pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    name = os.fsencode(tmp_path) + b"/\xe2\x86\x92\xff.png"  # an arrow, and no letter of UTF-8
    shutil.copy(pair[0], name)
    done = subprocess.run(
        [sys.executable, "-m", "sincut", "translate", tiny_run, name, "-o", tmp_path / "out.png"],
        env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"out.png" in done.stdout
    missing = subprocess.run(
        [
            sys.executable,
            "-m",
            "sincut",
            "translate",
            tiny_run,
            b"\xff\xe2\x86\x92",
            "-o",
            "out.png",
        ],
        env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"},
        capture_output=True,
    )
    assert missing.returncode == 2
    assert missing.stderr.startswith(b"Error: ")
    assert missing.stderr.count(b"\n") == 1


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    script = "import sys; sys.modules['torch'] = None\nfrom sincut.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "info", tmp_path], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: sincut needs torch, which is not installed here; "
        "try pip install -c constraints.txt .\n"
    )


def test_a_name_that_is_too_long_is_a_line(tiny_run: Path, pair: tuple[Path, Path]) -> None:
    name = "n" * 300 + ".png"
    assert "File name too long" in refused("translate", tiny_run, pair[0], "-o", name)
    assert "File name too long" in refused("train", *pair, "-o", name)


def test_memory_that_ends_in_a_training_is_a_line(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("sincut.runs.train.measure", ended)
    assert refused("train", *pair, "-o", tmp_path / "run", *SETTINGS) == (
        "memory ended; try smaller values of batch, crop, patches or channels"
    )
