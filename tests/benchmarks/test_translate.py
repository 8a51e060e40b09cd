"""The benchmark of translating: processes of their own, a gate that closes, memory that ends."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

import sincut
from benchmarks import translate as bench
from benchmarks.__main__ import main
from benchmarks.translate import Found, Job, Settings
from sincut.compute.memory import peak_memory
from sincut.models.model_file import load_model

ROW = {
    "channels", "bits", "method", "megapixels", "tile", "precision", "seconds", "mp_per_s",
    "of_ceiling", "host_peak_mb", "device_peak_mb", "device_reserved_mb", "output_mb",
    "difference", "error",
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of 128², tiles of 64, one round, a picture that is rendered at once."""
    monkeypatch.setattr(bench, "SIDES", (128,))
    monkeypatch.setattr(bench, "TILES", ("auto", "64"))
    monkeypatch.setattr(bench, "WINDOWS", {"cpu": (64,)})
    monkeypatch.setattr(bench, "ROUNDS", {"cpu": 1})
    noise = np.random.default_rng(1).integers(40, 216, (512, 512, 3), np.uint8)
    monkeypatch.setattr(bench, "render_content", lambda width, height: noise[:height, :width])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    bench.save_random_model(tmp_path / "model.safetensors", 4)
    return tmp_path / "model.safetensors"


@pytest.mark.long
def test_every_row_comes_from_a_process_of_its_own(tmp_path: Path) -> None:
    """Nothing is replaced here but the sizes."""
    folder, target = tmp_path / "images", tmp_path / "translate.json"
    folder.mkdir()
    command = ["translate", "--channels", "4", "--folder", str(folder), "--json", str(target)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "4 channels, 8 bits" in result.stdout
    assert list(folder.iterdir()) == []

    written = json.loads(target.read_text())
    assert {"date", "commit", "device", "torch", "rows"} <= set(written)
    rows = written["rows"]
    assert [(row["method"], row["tile"]) for row in rows] == [
        ("network", "64"),
        ("whole", None),
        ("sincut", "auto: 128"),
        ("sincut", "64"),
        ("sincut, uncompressed", "auto: 128"),
    ]
    for row in rows:
        assert set(row) == ROW
        assert row["mp_per_s"] == pytest.approx(row["megapixels"] / row["seconds"])
        assert row["of_ceiling"] == pytest.approx(row["mp_per_s"] / rows[0]["mp_per_s"])
        assert 100 < row["host_peak_mb"] < 1500
        assert (row["precision"], row["device_peak_mb"], row["error"]) == ("fp32", None, None)
    assert rows[0]["megapixels"] == (64 + 2 * 32) ** 2 / 1e6  # with a halo of 32
    assert {row["megapixels"] for row in rows[1:]} == {128**2 / 1e6}
    assert all(row["difference"] <= 1 for row in rows[2:])
    deflated, _, plain = (row["output_mb"] for row in rows[2:])
    assert deflated < plain > 3 * 128**2 / 1e6


@pytest.mark.parametrize(("channels", "bits"), [(4, 8), (4, 16), (40, 8)])
def test_tiles_are_what_the_whole_image_gives(tmp_path: Path, channels: int, bits: int) -> None:
    """As sincut ships; with another border, or noise, the gate closes."""
    model, image, output = (tmp_path / name for name in ("m.safetensors", "in.tif", "out.tif"))
    bench.save_random_model(model, channels)
    bench.write_synthetic(image, 128, bits)
    expected = bench.whole_translation(
        load_model(model).generator, tifffile.imread(image), precision="fp32"
    )
    assert np.mean((expected == 0) | (expected == np.iinfo(expected.dtype).max)) < 0.02
    job = Job("sincut", str(model), "cpu", "fp32", 128, tile="64")

    def difference(**options: Any) -> float:
        sincut.translate(model, image, output, device="cpu", tile="64", force=True, **options)
        return bench.compare(output, expected, job)

    assert difference() <= 1
    for wrong in ({"border": "zero"}, {"seed": 1}, {"strength": 0.9}):
        with pytest.raises(RuntimeError, match=r"^sincut, tile 64, fp32: it differs from the who"):
            difference(**wrong)
    with pytest.raises(RuntimeError, match=r"were written, expected"):
        bench.compare(image, expected[:-1], job)


@pytest.mark.parametrize("off", [1, 2])
def test_a_wrong_translation_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, off: int
) -> None:
    """One wrong value of all in the file of one method."""

    def run(job: Job) -> Found:
        if job.output:
            pixels = tifffile.imread(job.image)
            generator = load_model(Path(job.model)).generator
            pixels = bench.whole_translation(generator, pixels, job.precision)
            if job.tile == "64":
                value = pixels[70, 5, 2]
                pixels[70, 5, 2] = value + off if value < 128 else value - off
            tifffile.imwrite(job.output, pixels, photometric="rgb")
        return Found(seconds=2.0)

    monkeypatch.setattr(bench, "run", run)
    told: list[dict[str, Any]] = []
    settings = Settings("cpu", tmp_path, bench.SIDES, rounds=1, tell=told.append)
    if off == 1:
        rows = bench.measure(4, settings)
        assert [row["difference"] for row in rows] == [None, None, 0, 1, 0]
        assert rows[3]["mp_per_s"] == 128**2 / 1e6 / 2
        assert [row["method"] for row in told] == [row["method"] for row in rows]
    else:
        text = (
            "sincut, tile 64, fp32: it differs from the whole image's translation by up to 2.00 of "
            "255, 0.00 on average"
        )
        with pytest.raises(RuntimeError, match=f"^{text}$"):
            bench.measure(4, settings)
    assert list(tmp_path.iterdir()) == []


def test_where_memory_ends_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A megabyte more is too little for 512²; nobody tries 1024² then, nor a second time."""
    started = []

    def run(job: Job) -> Found:
        started.append((job.method, job.side))
        return real(job) if job.method == "whole" else Found(seconds=1.0)

    def only_whole(*arguments: Any) -> list[Job]:
        return [job for job in jobs(*arguments) if job.method == "whole"]

    real, jobs = bench.run, bench._image_jobs
    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bench, "_image_jobs", only_whole)
    rows = bench.measure(4, Settings("cpu", tmp_path, (512, 1024), rounds=2, memory=10**6))
    (whole,) = (row for row in rows if row["method"] == "whole")
    assert whole["error"] == "out of memory, of 0.001 GB"
    assert whole["megapixels"] == 512**2 / 1e6
    assert whole["seconds"] is whole["mp_per_s"] is whole["of_ceiling"] is None
    window = "network", 64 + 2 * 32
    assert started == [window, ("whole", 512), window, window, window]


def test_the_whole_image_is_forwarded_within_enough_memory(model: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    bench.write_synthetic(image, 256)
    job = Job("whole", str(model), "cpu", "fp32", 256, str(image), memory=10**9)
    found = bench.measured(job)
    assert found.seconds > 0
    assert not found.error
    assert found.host_bytes == peak_memory("cpu")


def test_without_a_bound_only_the_smallest_image_is_tried_whole(tmp_path: Path) -> None:
    """So it is where nobody tells how much memory is free."""
    for memory, expected in ((0, [128]), (10**9, [128, 256])):
        settings = Settings("cpu", tmp_path, (128, 256), rounds=1, memory=memory)
        found = [
            job.side
            for side in settings.sides
            for job in bench._image_jobs(tmp_path / "m", tmp_path / "i.tif", side, settings)
            if job.method == "whole"
        ]
        assert found == expected


def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    job = Job("sincut", "no-model", "cpu", "fp32", 64, "no-image", str(tmp_path / "out.tif"))
    told = r"^sincut, 64² pixels: .*SincutError: no-model does not exist or is not a file; "
    with pytest.raises(RuntimeError, match=told):
        bench.run(job)


def test_runs_keep_the_shortest_time_and_the_highest_peaks() -> None:
    trial = bench.Trial(Job("sincut", "m", "cuda", "fp32", 100))
    trial.add(Found(2.0, 512, 10, 40, 50))
    trial.add(Found(1.0, 512, 30, 20, 60))
    assert trial.found == Found(1.0, 512, 30, 40, 60)


def test_all_windows_have_a_turn_and_then_the_fastest() -> None:
    windows = [Job("network", "m", "cuda", p, side) for p in ("bf16", "fp32") for side in (10, 20)]
    trials = {job: bench.Trial(job) for job in windows[:-1]}
    assert bench._fastest(windows, trials) == windows
    trials[windows[-1]] = bench.Trial(windows[-1])
    for job, seconds in zip(windows, (1.0, 5.0, 1.0, 3.9), strict=True):
        trials[job].add(Found(seconds))
    assert bench._fastest(windows, trials) == [windows[0], windows[3]]


def test_a_synthetic_image_is_never_whole_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tracemalloc.start()
    try:
        bench.write_synthetic(tmp_path / "image.tif", 2000)
        assert tracemalloc.get_traced_memory()[1] < 5e6 < 3 * 2000**2
    finally:
        tracemalloc.stop()
    pixels = tifffile.imread(tmp_path / "image.tif")
    assert (pixels.shape, pixels.dtype) == ((2000, 2000, 3), np.uint8)
    assert np.any(pixels[:256, :256] != pixels[:256, 256:512])

    bench.write_synthetic(tmp_path / "deep.tif", 300, bits=16)
    deep = tifffile.imread(tmp_path / "deep.tif")
    assert (deep.shape, deep.dtype) == ((300, 300, 3), np.uint16)
    assert np.unique(deep % 256).size == 256


def test_sizes_and_precisions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    assert [round(side**2 / 1e6) for side in bench.sides_up_to(1074)] == [1, 4, 16, 100, 400, 1074]
    assert bench.sides_up_to(16) == [1000, 2000, 4000]
    assert set(bench.FEWER_SIDES) <= set(bench.SIDES)
    assert Settings("cuda", tmp_path, bench.SIDES, rounds=1).precisions == ("bf16", "fp32")
    assert Settings("cuda", tmp_path, bench.SIDES, rounds=1, bits=16).precisions == ("fp32",)
    settings = Settings("cuda", tmp_path, bench.SIDES, rounds=1)
    tiles = {
        side: [job.tile for job in bench._image_jobs(Path("m"), Path("i.tif"), side, settings)]
        for side in bench.SIDES
    }
    few, many = ["auto", "auto"], [*bench.TILES, "auto"]
    assert {side: found[2:] for side, found in tiles.items()} == {
        side: 2 * (many if side in (1000, 4000) else few) for side in bench.SIDES
    }


def test_bf16_may_round_but_not_drift(tmp_path: Path) -> None:
    """Some values off by several of 255 are rounding, half of them by one are not."""
    expected = np.full((64, 64, 3), 100, np.uint8)
    job = Job("sincut", "", "cuda", "bf16", 64, tile="64")

    def difference(pixels: np.ndarray) -> float:
        tifffile.imwrite(tmp_path / "out.tif", pixels, photometric="rgb")
        return bench.compare(tmp_path / "out.tif", expected, job)

    rounded, drifted, wrong = (expected.copy() for _ in range(3))
    rounded[::8, ::8] += 4
    drifted[::2] += 1
    wrong[5, 7] += 20
    assert difference(rounded) == 4
    for bad in (drifted, wrong):
        with pytest.raises(RuntimeError, match=r"^sincut, tile 64, bf16: it differs from the who"):
            difference(bad)


def test_only_on_cuda_a_dead_whole_is_a_result(tmp_path: Path) -> None:
    """Of a model that is not there; a bug on a CPU must not look like a limit."""
    job = Job("whole", str(tmp_path / "none"), "cpu", "fp32", 64, str(tmp_path / "none.tif"))
    with pytest.raises(RuntimeError, match="whole, 64² pixels: "):
        bench.run(job)
    assert bench.run(dataclasses.replace(job, device="cuda")).error


def test_fewer_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SIDES", (1000, 2000, 4000))
    sides = []
    monkeypatch.setattr(
        bench, "report", lambda channels, settings, target: sides.append(settings.sides)
    )
    for options in ([], ["--fewer"]):
        CliRunner().invoke(main, ["translate", *options], catch_exceptions=False)
    assert sides == [[1000, 2000, 4000], [1000, 4000]]
