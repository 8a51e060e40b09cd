"""An image written as OME-Zarr by one process and by several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from sincut.errors import Interrupted, SincutError
from sincut.images.reading.open import read_picture
from sincut.images.writing import ome_zarr
from sincut.translation.one_image import LoadedModel
from sincut.translation.plan import Plan
from sincut.translation.shards import ShardedImage, ShardMaker, Share, WindowReader
from sincut.translation.sharing import SharedImage
from sincut.translation.translate import Progress, translate

zarr = pytest.importorskip("zarr", reason="the package zarr is not installed")

REPOSITORY = Path(__file__).parents[2]
Pixels = np.ndarray


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 64 pixels, so that a small image has several."""
    monkeypatch.setattr(ome_zarr, "SHARD", 64)
    monkeypatch.setattr(ome_zarr, "CHUNK", 16)


def noise(path: Path, height: int, width: int, channels: int = 3) -> Path:
    random = np.random.default_rng(height)
    Image.fromarray(random.integers(0, 256, (height, width, channels), np.uint8)).save(path)
    return path


def level(folder: Path, number: int = 0) -> Pixels:
    """(H, W, C) of a level."""
    return np.asarray(zarr.open_group(str(folder), mode="r")[str(number)]).transpose(1, 2, 0)


def files(folder: Path) -> dict[str, bytes]:
    """All files but the metadata, which holds names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


def test_it_equals_what_other_formats_get(
    small_shards: None, noisy_model: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "in.png", 150, 170, 4)
    translate(noisy_model, source, tmp_path / "out.tif", tile="64")
    seen: list[Progress] = []
    (done,) = translate(
        noisy_model, source, tmp_path / "out.ome.zarr", tile="64", verify=3, on_tile=seen.append
    )
    with Image.open(tmp_path / "out.tif") as image:
        expected = np.asarray(image)
    got = level(tmp_path / "out.ome.zarr")
    assert got.shape == (150, 170, 4)
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert np.array_equal(got[..., 3], expected[..., 3])
    assert done.difference is not None
    assert 0 < done.difference < 2e-3
    assert [(each.done, each.total) for each in seen] == [(n, 9) for n in range(1, 10)]
    assert not list(tmp_path.glob(".*"))


def test_smaller_levels_are_means_of_four(
    small_shards: None, tiny_run: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "in.png", 131, 75)
    target = tmp_path / "out.ome.zarr"
    translate(tiny_run, source, target)
    for number in range(1, 5):
        above, got = (
            level(tmp_path / "out.ome.zarr", number - 1),
            level(tmp_path / "out.ome.zarr", number),
        )
        rows, columns = (np.minimum(np.arange(2 * -(-n // 2)), n - 1) for n in above.shape[:2])
        even = above[rows][:, columns].astype(int)
        four = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
        assert np.array_equal(got, (four + 2) // 4)
    assert max(level(target, 4).shape[:2]) <= 16


def test_a_black_image_is_there_as_well(small_shards: None, tiny_run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (130, 70)).save(tmp_path / "in.png")
    assert translate(tiny_run, tmp_path / "in.png", tmp_path / "out.ome.zarr", strength=0)
    assert not level(tmp_path / "out.ome.zarr").any()
    assert len(list((tmp_path / "out.ome.zarr" / "0" / "c").rglob("*"))) == 1 + 2 + 6


def test_it_says_what_ome_zarr_asks_for(small_shards: None, tiny_run: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "in.png", 40, 50)
    with Image.open(source) as image:
        image.save(source, dpi=(25.4 * 1000, 25.4 * 500))  # a pixel of one and of two micrometres
    translate(tiny_run, source, tmp_path / "out.ome.zarr")
    said = json.loads((tmp_path / "out.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert said["version"] == "0.5"
    (image_said,) = said["multiscales"]
    assert [axis["name"] for axis in image_said["axes"]] == ["c", "y", "x"]
    assert image_said["axes"][1] == {"name": "y", "type": "space", "unit": "micrometer"}
    scales = [each["coordinateTransformations"][0]["scale"] for each in image_said["datasets"]]
    assert np.allclose(scales[0], [1, 2, 1], rtol=1e-3)
    assert np.allclose(scales[1], [1, 4, 2], rtol=1e-3)
    assert [each["label"] for each in said["omero"]["channels"]] == ["red", "green", "blue"]


def test_older_readers_get_the_same_pixels(
    small_shards: None, noisy_model: Path, tmp_path: Path
) -> None:
    """OME-Zarr 0.4: a shard is there when all of its chunks are."""
    source = noise(tmp_path / "in.png", 150, 170)
    new, old = tmp_path / "new.ome.zarr", tmp_path / "old.ome.zarr"
    translate(noisy_model, source, new, tile="64")
    same = {"tile": "64", "ome_zarr": "0.4"}
    assert not translate(noisy_model, source, old, shard="0/2", **same)
    (part,) = tmp_path.glob(".old*part")
    (part / "0" / "0" / "1" / "2").unlink()
    assert not translate(noisy_model, source, old, shard="1/2", **same)
    with pytest.raises(SincutError) as caught:
        translate(noisy_model, source, old, tile="64", resume=True)
    assert str(caught.value) == (
        f"{old} was begun with another --ome-zarr; try the same as before, or --force to start anew"
    )
    assert translate(noisy_model, source, old, resume=True, **same)
    for number in range(4):
        assert np.array_equal(level(old, number), level(new, number))
    assert np.array_equal(read_picture(old).rgb, level(new))
    said = json.loads((old / ".zattrs").read_text())
    newer = json.loads((new / "zarr.json").read_text())["attributes"]["ome"]
    (image,), (newer_image,) = said["multiscales"], newer["multiscales"]
    assert image == {**newer_image, "name": "old", "version": "0.4"}
    assert said["omero"] == {**newer["omero"], "version": "0.4"}
    array = json.loads((old / "0" / ".zarray").read_text())
    assert (array["zarr_format"], array["chunks"]) == (2, [3, 16, 16])
    assert (array["dimension_separator"], array["compressor"]["id"]) == ("/", "blosc")
    assert translate(noisy_model, source, old, force=True, tile="64")  # it is known as sincut's


def test_shares_make_the_same_bytes_as_one_process(
    small_shards: None, noisy_model: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "in.png", 150, 170)
    translate(noisy_model, source, tmp_path / "one.ome.zarr")
    told: list[Share] = []
    for index in (2, 0, 1):
        done = translate(
            noisy_model,
            source,
            tmp_path / "shared.ome.zarr",
            shard=f"{index}/3",
            on_share=told.append,
        )
    assert [(each.shard, each.done, each.total) for each in told] == [("2/3", 3, 9), ("0/3", 6, 9)]
    assert len(done) == 1
    assert files(tmp_path / "one.ome.zarr") == files(tmp_path / "shared.ome.zarr")
    assert not list(tmp_path.glob(".*"))


def test_what_others_left_is_finished_by_other_numbers_of_processes(
    small_shards: None, noisy_model: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "in.png", 150, 170)
    translate(noisy_model, source, tmp_path / "one.ome.zarr")
    for name, rest in (
        ("two", [{"shard": "0/2"}, {"shard": "1/2"}]),
        ("alone", [{"resume": True}]),
    ):
        target = tmp_path / f"{name}.ome.zarr"
        translate(noisy_model, source, target, shard="1/3")
        for options in rest:
            translate(noisy_model, source, target, **options)
        assert files(target) == files(tmp_path / "one.ome.zarr")


def test_an_interrupted_image_goes_on(
    small_shards: None, noisy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(tmp_path / "in.png", 150, 170)
    translate(noisy_model, source, tmp_path / "one.ome.zarr")
    target = tmp_path / "out.ome.zarr"

    def stop(progress: Progress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        translate(noisy_model, source, target, on_tile=stop)
    assert str(caught.value) == (
        f"{target} is 4 of 9 shards done; the same command with --resume goes on"
    )
    assert not target.exists()
    with pytest.raises(SincutError) as refused:
        translate(noisy_model, source, target)
    assert str(refused.value) == (
        f"{target} was begun before and is 4 of 9 shards done; try --resume, or --force to start "
        "anew"
    )
    with pytest.raises(SincutError) as refused:
        translate(noisy_model, source, target, seed=5, resume=True)
    assert str(refused.value) == (
        f"{target} was begun with another --seed; try the same as before, or --force to start anew"
    )
    plans: list[Plan] = []
    made = []
    real = ShardMaker.make
    monkeypatch.setattr(ShardMaker, "make", lambda *args: made.append(1) or real(*args))
    translate(noisy_model, source, target, resume=True, on_plan=plans.append)
    assert (plans[0].done, len(made)) == (4, 5)
    assert files(tmp_path / "one.ome.zarr") == files(target)
    assert translate(noisy_model, source, target, resume=True) == []  # it is there


def test_a_full_disk_keeps_what_is_done(
    small_shards: None, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = noise(tmp_path / "in.png", 150, 170), tmp_path / "out.ome.zarr"
    real = ome_zarr.OmeZarr.write

    def full(self: ome_zarr.OmeZarr, index: int, pixels: Pixels) -> None:
        with ome_zarr.told(self.target):
            if index == 5:
                raise OSError(28, "No space left on device")
            real(self, index, pixels)

    monkeypatch.setattr(ome_zarr.OmeZarr, "write", full)
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, source, target)
    assert str(caught.value) == (
        f"cannot write {target} (No space left on device); check the place and its free space; "
        "5 of 9 shards are kept: --resume goes on with them, --force starts anew"
    )
    monkeypatch.setattr(ome_zarr.OmeZarr, "write", real)
    translate(tiny_run, source, target, resume=True)
    translate(tiny_run, source, tmp_path / "one.ome.zarr")
    assert files(target) == files(tmp_path / "one.ome.zarr")


def test_floats_that_are_no_numbers_are_told(
    small_shards: None, tiny_run: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).random((100, 90, 3), np.float32)
    pixels[3:9, 4:8] = np.nan
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    (done,) = translate(tiny_run, tmp_path / "in.tif", tmp_path / "out.ome.zarr")
    assert any("are not numbers and stay so" in notice for notice in done.notices)
    assert np.isnan(level(tmp_path / "out.ome.zarr")[3:9, 4:8]).all()
    (done,) = translate(tiny_run, tmp_path / "in.tif", tmp_path / "whole.ome.zarr", depth="8")
    assert any("are not numbers and become black" in notice for notice in done.notices)


def test_what_sincut_did_not_write_is_not_replaced(
    small_shards: None, tiny_run: Path, tmp_path: Path
) -> None:
    source, target = noise(tmp_path / "in.png", 40, 50), tmp_path / "precious.zarr"
    zarr.create_group(store=str(target))
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, source, target)
    assert str(caught.value) == f"{target} exists already; try --force or another -o"
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, source, target, force=True)
    assert str(caught.value) == (
        f"{target} was not written by sincut and is not replaced; remove it or give another -o"
    )
    assert (target / "zarr.json").exists()
    translate(tiny_run, source, tmp_path / "own.zarr")
    translate(tiny_run, source, tmp_path / "own.zarr", force=True, seed=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "4/4"}, "shard must be I/N, a process's number from 0 and how many there are, "
         "got 4/4; try --shard 0/4"),
        ({"shard": "a/2"}, "shard must be I/N, a process's number from 0 and how many there are, "
         "got a/2; try --shard 0/4"),
        ({"shard": "1/2", "workers": 2}, "--workers 2 and --shard 1/2 both divide an image; "
         "try one of them"),
        ({"cluster": "tcp://here:1", "workers": 3}, "--workers 3 and --cluster tcp://here:1 both "
         "divide an image; try one of them"),
        ({"shard": "1/2", "force": True}, "shard goes on with what the others have begun, got "
         "--force, which starts anew; try it without, after removing what was begun"),
        ({"workers": 0}, "workers must be from 1 to 1024, got 0; try --workers 1"),
    ],
)  # fmt: skip
def test_wrong_shares_are_refused(
    options: dict[str, Any], message: str, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, tmp_path / "in.png", tmp_path / "out.ome.zarr", **options)
    assert str(caught.value) == message


def test_shares_are_of_ome_zarr(tiny_run: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "in.png", 40, 50)
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, source, tmp_path / "out.tif", workers=2)
    assert str(caught.value) == (
        "several processes share an image that is written as OME-Zarr, got "
        f"{tmp_path / 'out.tif'}; try out.ome.zarr"
    )


def test_a_working_width_is_not_shared(small_shards: None, tiny_run: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "in.png", 96, 130)
    options: dict[str, Any] = {"working_width": 64}
    with pytest.raises(SincutError) as caught:
        translate(tiny_run, source, tmp_path / "out.ome.zarr", workers=2, **options)
    assert str(caught.value) == (
        "--working-width has to see the whole image first, which one process does; try without "
        "--workers, --shard and --cluster"
    )
    translate(tiny_run, source, tmp_path / "out.ome.zarr", **options)
    translate(tiny_run, source, tmp_path / "out.png", **options)
    with Image.open(tmp_path / "out.png") as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(level(tmp_path / "out.ome.zarr") - expected).max() <= 1


def test_masks_and_strength_leave_pixels_as_they_are(
    small_shards: None, tiny_run: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "in.png", 96, 130)
    with Image.open(source) as image:
        content = np.asarray(image)
    mask = np.zeros((96, 130), np.uint8)
    mask[30:70, 50:90] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options: dict[str, Any] = {"mask": str(tmp_path / "mask.png")}
    translate(tiny_run, source, tmp_path / "masked.ome.zarr", **options)
    got = level(tmp_path / "masked.ome.zarr")
    assert np.array_equal(got[mask == 0], content[mask == 0])
    assert not np.array_equal(got[mask > 0], content[mask > 0])
    translate(tiny_run, source, tmp_path / "same.ome.zarr", strength=0)
    assert np.array_equal(level(tmp_path / "same.ome.zarr"), content)


def test_a_zarr_is_read_by_windows_and_a_png_by_rows(
    small_shards: None, tiny_run: Path, tmp_path: Path
) -> None:
    source = noise(tmp_path / "in.png", 96, 130)
    translate(tiny_run, source, tmp_path / "copy.ome.zarr", strength=0)
    model = LoadedModel(tiny_run, None, "", None)  # type: ignore[arg-type]
    image = ShardedImage(model, source, tmp_path / "x.zarr", _config())
    windows = [(slice(0, 40), slice(10, 50)), (slice(0, 40), slice(50, 130)),
               (slice(30, 96), slice(0, 20)), (slice(90, 96), slice(100, 130)),
               (slice(3, 30), slice(0, 9))]  # fmt: skip
    readers = []
    for path in (source, tmp_path / "copy.ome.zarr"):
        opened = image._opened(path)
        readers.append(WindowReader(opened, partial(image._opened, path)))
    assert [reader.source.by_window for reader in readers] == [False, True]
    for window in windows:
        one, other = (reader.read(*window) for reader in readers)
        assert np.array_equal(one, other)
    for reader in readers:
        reader.close()
        reader.source.close()


def _config() -> Any:
    from sincut.config.translating import TranslateConfig

    return TranslateConfig()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """520 × 6,200 pixels: four shards of true size."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    rows = np.arange(6200)[:, None] * np.arange(520)[None] % 251
    Image.fromarray(np.stack([rows, rows[::-1], rows[:, ::-1]], axis=2).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process and those that it starts compute with one: others may round otherwise."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_workers_share_an_image_and_a_killed_one_is_started_again(
    large: Path,
    tiny_run: Path,
    tmp_path: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    translate(tiny_run, large, tmp_path / "one.ome.zarr")
    started: list[subprocess.Popen[str]] = []
    real = SharedImage._started

    def noted(self: SharedImage, index: int, count: int) -> subprocess.Popen[str]:
        started.append(real(self, index, count))
        return started[-1]

    def kill() -> None:
        while len(started) < 2:
            time.sleep(0.05)
        time.sleep(1.0)
        started[0].kill()

    monkeypatch.setattr(SharedImage, "_started", noted)
    killer = threading.Thread(target=kill)
    killer.start()
    seen: list[Progress] = []
    (done,) = translate(
        tiny_run, large, tmp_path / "shared.ome.zarr", workers=2, on_tile=seen.append
    )
    killer.join()
    assert len(started) == 3
    assert (seen[-1].done, seen[-1].total) == (4, 4)
    assert (done.width, done.height) == (520, 6200)
    assert files(tmp_path / "one.ome.zarr") == files(tmp_path / "shared.ome.zarr")
    assert not list(tmp_path.glob(".*"))


def test_a_worker_that_cannot_go_on_says_why(
    large: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SharedImage._started

    def without_model(self: SharedImage, index: int, count: int) -> subprocess.Popen[str]:
        self.model = type(self.model)(
            tmp_path / "gone",
            *[getattr(self.model, name) for name in ("generator", "digest", "learned")],
        )
        return real(self, index, count)

    monkeypatch.setattr(SharedImage, "_started", without_model)
    with pytest.raises(SincutError, match=r"gone does not exist"):
        translate(tiny_run, large, tmp_path / "out.ome.zarr", workers=2)


def test_a_killed_command_goes_on_with_the_same_bytes(
    large: Path, tiny_run: Path, tmp_path: Path, one_thread: None
) -> None:
    one, other = tmp_path / "one.ome.zarr", tmp_path / "out.ome.zarr"
    translate(tiny_run, large, one)
    command = [sys.executable, "-m", "sincut", "translate", str(tiny_run), str(large)]
    process = subprocess.Popen(
        [*command, "-o", str(other), "--workers", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    part, limit = tmp_path / ".out.ome.zarr.part", time.monotonic() + 60
    while not list(part.glob("0/c/*/*/*")) and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert not other.exists()
    plans: list[Plan] = []
    translate(tiny_run, large, other, resume=True, on_plan=plans.append)
    assert plans[0].done > 0
    assert files(one) == files(other)
