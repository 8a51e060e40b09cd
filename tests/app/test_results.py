"""Translations that pages start: the bytes of the command, stopped, gone on with, downloaded."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

pytest.importorskip("starlette", reason='the app needs the extra app: pip install ".[app]"')

import sincut
from sincut.app.pyramid import TILE, write_pyramid
from tests.app.conftest import Server

Pair = tuple[Path, Path]


@pytest.fixture
def run(server: Server, tiny_run: Path, pair: Pair) -> str:
    """A finished run in the server's folder, as the app keeps one; its name."""
    folder = server.folder / "tiny"
    folder.mkdir()
    shutil.copytree(tiny_run, folder / "run")
    for file in pair:
        shutil.copy(file, folder)
    noted = {"title": "tiny", "content": str(folder / "content.png"), "style": "style.png"}
    (folder / "app.json").write_text(json.dumps(noted))
    return "tiny"


def result(server: Server, number: int = 1) -> dict[str, object]:
    """A translation of the run as soon as it has ended."""
    job = f"translate-{number:04d}"

    def ended(found: dict[str, object]) -> bool:
        assert isinstance(found["results"], list)
        return any(each["job"] == job and each["state"] != "running" for each in found["results"])

    found = server.wait("/api/runs/tiny/results", ended)
    return dict(next(each for each in found["results"] if each["job"] == job))


def test_the_bytes_are_those_of_the_command(
    server: Server, run: str, pair: Pair, tmp_path: Path
) -> None:
    api = f"/api/runs/{run}/results"
    given = {"ending": ".tif", "settings": {"strength": "0.5", "depth": "16"}}
    server.ask("POST", api, given)
    found = result(server)
    assert (found["state"], found["why"]) == ("finished", "")
    assert (found["input"], found["output"]) == ("content.png", "content.tif")
    options = {"strength": 0.5, "depth": "16"}
    sincut.translate(server.folder / run / "run", pair[0], tmp_path / "content.tif", **options)
    status, headers, data = server.request("GET", f"/runs/{run}/results/content.tif")
    assert (status, data) == (200, (tmp_path / "content.tif").read_bytes())
    assert headers["content-disposition"] == 'attachment; filename="content.tif"'
    server.ask("POST", api, given)
    assert result(server, 2)["output"] == "content-2.tif"
    server.ask("POST", f"{api}/translate-0001", {"action": "forget"})
    assert [each["job"] for each in server.ask("GET", api)["results"]] == ["translate-0002"]
    assert (server.folder / run / "results/content.tif").is_file()


def test_a_painted_mask_says_where_the_style_goes(server: Server, run: str, pair: Pair) -> None:
    painted = Image.new("RGBA", (40, 32))
    painted.paste((255, 255, 255, 255), (20, 0, 40, 32))
    buffer = io.BytesIO()
    painted.save(buffer, "PNG")
    kept = server.ask("PUT", f"/api/runs/{run}/mask", buffer.getvalue())
    assert kept == {"place": str(server.folder / run / "mask.png"), "width": 160, "height": 128}
    server.ask("POST", f"/api/runs/{run}/results", {"masked": True})
    assert result(server)["why"] == ""
    content = np.asarray(Image.open(pair[0]).convert("RGB")).astype(int)
    with Image.open(server.folder / run / "results/content.png") as made:
        change = np.abs(np.asarray(made.convert("RGB")).astype(int) - content).max(axis=2)
    assert change[:, :72].max() == 0
    assert np.median(change[:, 90:]) > 0


@pytest.mark.parametrize("body", [b"", b"words", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_mask_that_is_none_is_refused(server: Server, run: str, body: bytes) -> None:
    line = "the painted mask is no PNG; reload the page"
    assert server.refused("PUT", f"/api/runs/{run}/mask", body) == line
    assert server.refused("POST", f"/api/runs/{run}/results", {"masked": True}) == (
        "there is no mask yet; paint one first"
    )
    assert not list((server.folder / run).glob("mask*"))


def test_a_result_is_cut_into_tiles_beside_its_content(server: Server, run: str) -> None:
    api = f"/api/runs/{run}/results"
    server.ask("POST", api, {"ending": ".tif", "settings": {"depth": "16", "strength": "0.5"}})
    assert result(server)["why"] == ""
    server.ask("POST", f"{api}/translate-0001", {"action": "look"})
    found = server.wait(api, lambda now: not now["look"]["running"])
    assert found["look"]["why"] == ""
    assert found["shown"] == {
        "width": 160,
        "height": 128,
        "tile": 512,
        "output": "content.tif",
        "strength": 0.5,
    }
    for part, file in (("content", "content.png"), ("result", "results/content.tif")):
        status, headers, data = server.request("GET", f"/runs/{run}/look/{part}/8/0_0.png")
        assert (status, headers["content-type"]) == (200, "image/png")
        wanted = tifffile.imread if file.endswith("tif") else Image.open
        pixels = np.asarray(wanted(server.folder / run / file))
        pixels = pixels // 257 if pixels.dtype == np.uint16 else pixels
        with Image.open(io.BytesIO(data)) as tile:
            assert np.abs(np.asarray(tile).astype(int) - pixels[..., :3]).max() <= 1
        assert server.request("GET", f"/runs/{run}/look/{part}/0/0_0.png")[0] == 200
    for path in ("other/8/0_0.png", "..%2f8/0_0.png", "result/..%2flook.json", "result/8/9_9.png"):
        assert server.request("GET", f"/runs/{run}/look/{path}")[0] == 404


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 1500), (1537, 2), (1025, 513)])
def test_a_pyramid_has_every_tile_down_to_one_pixel(
    tmp_path: Path, height: int, width: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    assert write_pyramid(tmp_path / "in.tif", tmp_path / "out") == (width, height)
    level = (max(width, height) - 1).bit_length()
    while level >= 0:
        files = {each.name for each in (tmp_path / f"out/{level}").iterdir()}
        columns, rows = -(-width // TILE), -(-height // TILE)
        assert files == {f"{x}_{y}.png" for x in range(columns) for y in range(rows)}
        with Image.open(tmp_path / f"out/{level}/{columns - 1}_{rows - 1}.png") as last:
            assert last.size == (width - (columns - 1) * TILE, height - (rows - 1) * TILE)
        width, height, level = -(-width // 2), -(-height // 2), level - 1
    assert (width, height) == (1, 1)


def test_another_image_and_a_folder_of_them(
    server: Server, run: str, pair: Pair, tmp_path: Path
) -> None:
    number = server.upload(pair[1])
    server.ask("POST", f"/api/runs/{run}/results", {"image": number, "ending": ".jpg"})
    assert result(server)["output"] == "style.jpg"
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in pair:
        shutil.copy(file, folder)
    number = server.ask("POST", "/api/images", {"path": str(folder)})["id"]
    server.ask("POST", f"/api/runs/{run}/results", {"image": number})
    assert (result(server, 2)["state"], result(server, 2)["images"]) == ("finished", 2)
    made = server.folder / run / "results/photos"
    assert {each.name for each in made.iterdir()} == {"content.png", "style.png"}


@pytest.mark.long
def test_stopped_and_gone_on_with(server: Server, run: str, tmp_path: Path) -> None:
    file = tmp_path / "large.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3000, 1000, 3), np.uint8)
    tifffile.imwrite(file, pixels, photometric="rgb", tile=(256, 256))
    number = server.ask("POST", "/api/images", {"path": str(file)})["id"]
    api = f"/api/runs/{run}/results"
    given = {"image": number, "ending": ".tif", "settings": {"tile": "64"}}
    server.ask("POST", api, given)
    server.wait(api, lambda now: now["results"][0]["done"])
    line = "this picture is being made; stop it first"
    assert server.refused("POST", f"{api}/translate-0001", {"action": "forget"}) == line
    server.ask("POST", f"{api}/translate-0001", {"action": "stop"})
    found = result(server)
    assert (found["state"], found["why"], found["download"]) == ("stopped", "", False)
    server.ask("POST", f"{api}/translate-0001", {"action": "resume"})
    found = result(server)
    assert (found["state"], found["why"], found["download"]) == ("finished", "", True)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"ending": ".gif"}, "a result ends in one of .png, .jpg, .tif, .webp, .dzi, got .gif"),
        ({"ending": "/../x.png"}, "a result ends in one of .png, .jpg, .tif, .webp, .dzi, got "
         "/../x.png"),
        ({"settings": {"force": "true"}}, "force is not chosen here; allowed: strength, "),
        ({"settings": {"mask": "/etc/passwd"}}, "mask is not chosen here; allowed: strength, "),
        ({"settings": {"strength": "2"}}, "strength must be from 0 to 1, got 2.0; "),
        ({"image": "1" * 16}, "the image is not here any more; give it once more"),
    ],
)  # fmt: skip
def test_what_the_command_refuses_is_refused(
    server: Server, run: str, given: dict[str, object], line: str
) -> None:
    assert server.refused("POST", f"/api/runs/{run}/results", given).startswith(line)
    assert not list((server.folder / run / "results").glob("*"))


def test_a_model_that_is_a_pickle_is_refused_and_not_run(
    server: Server, run: str, tmp_path: Path
) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "harm"),)  # type: ignore[return-value]

    model = server.folder / run / "run/model.safetensors"
    for data in (pickle.dumps(Harmful()), _saved(Harmful())):
        model.write_bytes(data)
        server.ask("POST", f"/api/runs/{run}/results", {})
        jobs = server.ask("GET", f"/api/runs/{run}/results")["results"]
        found = result(server, len(jobs))
        assert found["state"] == "failed"
        assert str(found["why"]).startswith(str(model))
        assert "\n" not in str(found["why"])
    assert not (tmp_path / "harm").exists()
    assert not list((server.folder / run / "results").glob("*"))


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "path", ["..%2fapp.json", "%2e%2e", "app.json", "%2fetc%2fpasswd", ".x", "none.png"]
)
def test_only_results_are_downloaded(server: Server, run: str, path: str) -> None:
    folder = server.folder / run / "results"
    folder.mkdir()
    (folder / ".x").write_text("begun")
    (folder / "none.png").symlink_to("/etc/hostname")
    assert server.request("GET", f"/runs/{run}/results/{path}")[0] == 404


@pytest.mark.parametrize("job", ["train", "..", "translate-0009", "look"])
def test_only_translations_are_changed(server: Server, run: str, job: str) -> None:
    path = f"/api/runs/{run}/results/{job}"
    assert server.request("POST", path, {"action": "stop"})[0] in (404, 405)
