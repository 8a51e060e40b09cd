"""Images that come in: what is said of them, and what hostile ones come to."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

pytest.importorskip("starlette", reason='the app needs the extra app: pip install ".[app]"')

from sincut.app.images import KEPT_FREE, safe_name
from sincut.units import byte_text
from tests.app.conftest import Server


def files_of(server: Server) -> set[str]:
    """Everything that lies beside and in the server's folder."""
    return {str(path.relative_to(server.folder.parent)) for path in server.folder.parent.rglob("*")}


def test_an_image_is_sent_looked_at_and_shown(
    server: Server, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    number = server.upload(pair[0])
    assert server.ask("GET", f"/api/images/{number}") == {
        "id": number,
        "name": "content.png",
        "width": 160,
        "height": 128,
        "depth": "8",
        "profile": "",
        "alpha": False,
        "bytes": pair[0].stat().st_size,
        "notices": [],
        "picture": True,
    }
    status, headers, data = server.request("GET", f"/api/images/{number}/picture")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert data[:2] == b"\xff\xd8"
    assert (server.folder / "uploads" / number / "content.png").read_bytes() == pair[0].read_bytes()


def test_depth_profile_and_notices_are_those_of_the_command(shared: Server, tmp_path: Path) -> None:
    file = tmp_path / "deep.tif"
    pixels = np.random.default_rng(0).integers(0, 65535, (90, 3000, 3), np.uint16)
    tifffile.imwrite(file, pixels, photometric="rgb")
    look = shared.ask("GET", f"/api/images/{shared.upload(file)}")
    assert (look["depth"], look["width"], look["height"], look["picture"]) == ("16", 3000, 90, True)
    file = tmp_path / "profile.jpg"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (20, 10)).save(file, icc_profile=profile)
    assert "sRGB" in shared.ask("GET", f"/api/images/{shared.upload(file)}")["profile"]
    file = tmp_path / "palette.png"
    Image.new("P", (20, 10)).save(file)
    notices = shared.ask("GET", f"/api/images/{shared.upload(file)}")["notices"]
    assert notices == ["its palette is converted to RGB"]


def test_a_path_of_this_machine_is_left_where_it_is(
    shared: Server, pair: tuple[Path, Path]
) -> None:
    number = shared.ask("POST", "/api/images", {"path": str(pair[0])})["id"]
    assert shared.ask("GET", f"/api/images/{number}")["width"] == 160
    assert not list((shared.folder / "uploads" / number).glob("*.png"))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", "a path on this machine begins with /, got nothing; try /home/name/image.tif"),
        ("a.png", "a path on this machine begins with /, got a.png; try /home/name/image.tif"),
        ("/nowhere/a.png", "/nowhere/a.png does not exist; give an image file"),
        ("/no\nwhere", "/no\\nwhere does not exist; give an image file"),
    ],
)
def test_a_path_that_is_none_is_refused(shared: Server, path: str, line: str) -> None:
    assert shared.refused("POST", "/api/images", {"path": path}) == line


def test_a_folder_without_images_is_refused(shared: Server, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    number = shared.ask("POST", "/api/images", {"path": str(folder)})["id"]
    line = shared.refused("GET", f"/api/images/{number}")
    assert line.startswith(f"{folder} holds no image; allowed endings: .jpg, .jpeg, .png, ")


def test_a_pipe_is_refused(shared: Server, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    number = shared.ask("POST", "/api/images", {"path": str(tmp_path / "pipe")})["id"]
    line = f"{tmp_path / 'pipe'} is a pipe or a device, not a file; give an image file"
    assert shared.refused("GET", f"/api/images/{number}") == line


def test_what_is_no_image_is_refused_with_the_name_it_came_by(
    shared: Server, tmp_path: Path
) -> None:
    file = tmp_path / "words.png"
    file.write_text("these are words")
    assert shared.refused("GET", f"/api/images/{shared.upload(file)}").startswith(
        "words.png is not an image that can be read; allowed: "
    )


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    server: Server, tmp_path: Path
) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    side = 60_000
    file = tmp_path / "bomb.png"
    rows = zlib.compress(bytes(1 << 20), 9)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    line = server.refused("GET", f"/api/images/{server.upload(file)}")
    assert line.startswith("bomb.png ")
    assert server.ask("GET", "/api/runs") == {"runs": []}  # it goes on


def test_what_does_not_fit_on_the_disk_is_refused_before_it_comes(server: Server) -> None:
    before = files_of(server)
    size = 10**16
    line = server.refused("POST", "/api/images", {"name": "huge.tif", "size": size})
    free = shutil.disk_usage(server.folder).free - KEPT_FREE
    beginning = f"huge.tif has {byte_text(size)}, and the disk of {server.folder} has room for "
    assert line.startswith(beginning)
    assert abs(float(line.removeprefix(beginning).split()[0]) - free / 1e9) < 5
    assert line.endswith(
        " beside the 1.0 GB that stay free; give its path on this machine, which copies nothing"
    )
    assert files_of(server) == before


def test_no_more_comes_than_was_announced(shared: Server) -> None:
    number = shared.ask("POST", "/api/images", {"name": "a.png", "size": 10})["id"]
    line = "a.png was announced with 10 bytes and has more; give it once more"
    assert shared.refused("PUT", f"/api/images/{number}", bytes(11)) == line
    assert not list((shared.folder / "uploads" / number).glob("*.p*"))
    # Nor where nothing says how much comes.
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=20)
    headers = {"Cookie": f"sincut-{shared.port}={shared.token}", "Origin": shared.address}
    pieces = (bytes(4) for _ in range(5))
    connection.request("PUT", f"/api/images/{number}", pieces, headers, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (400, line)
    connection.close()
    assert {each.name for each in (shared.folder / "uploads" / number).iterdir()} == {"name.json"}


def test_less_than_was_announced_is_refused(shared: Server) -> None:
    number = shared.ask("POST", "/api/images", {"name": "a.png", "size": 10})["id"]
    line = "of a.png came 9 of 10 bytes; give it once more"
    assert shared.refused("PUT", f"/api/images/{number}", bytes(9)) == line
    assert {each.name for each in (shared.folder / "uploads" / number).iterdir()} == {"name.json"}


@pytest.mark.parametrize("size", [0, -1, "many", None, 1.5, True])
def test_a_size_that_is_none_is_refused(shared: Server, size: object) -> None:
    line = "a.png is empty; give an image file"
    assert shared.refused("POST", "/api/images", {"name": "a.png", "size": size}) == line


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/absolute.png", "absolute.png"),
        ("..", "image"),
        (".hidden.png", "hidden.png"),
        ("-rf.png", "rf.png"),
        ("a\nb\0c.png", "a_b_c.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("å画像.TIFF", "å画像.TIFF"),
        ("app.json", "image-app.json"),
        ("config.json", "image-config.json"),
        ("run", "image-run"),
        ("-run", "image-run"),
        ("x" * 500 + ".png", "x" * 100 + ".png"),
        ("", "image"),
        ("\ud800.png", "_.png"),
    ],
)
def test_names_from_outside_are_made_names_of_files(given: str, name: str) -> None:
    assert safe_name(given) == name
    assert "/" not in name


@pytest.mark.parametrize("number", ["..", "%2e%2e", "0" * 16, "example", "..%2f..%2fetc", "x" * 16])
def test_numbers_that_were_not_given_lead_nowhere(shared: Server, number: str) -> None:
    for path in (f"/api/images/{number}", f"/api/images/{number}/picture"):
        assert shared.request("GET", path)[0] == 404
    assert shared.request("PUT", f"/api/images/{number}", b"x")[0] == 404


@pytest.mark.parametrize("body", [b"", b"no", b"[1]", b"[" * 100_000, b"\xff"])
def test_what_is_no_request_is_refused(shared: Server, body: bytes) -> None:
    line = "a request must be a JSON object; reload the page"
    assert shared.refused("POST", "/api/images", body) == line


def test_a_large_request_is_refused(shared: Server) -> None:
    line = "a request has at most 1 MB; got more"
    assert shared.refused("POST", "/api/images", bytes(2_000_000)) == line


def test_old_uploads_are_removed_at_the_start(tmp_path: Path) -> None:
    from sincut.app.images import Images
    from sincut.app.library import Library

    old, new, other = (tmp_path / "uploads" / name for name in ("0" * 16, "1" * 16, "example"))
    for folder in (old, new, other):
        folder.mkdir(parents=True)
        (folder / "name.json").touch()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    Images(Library(tmp_path))
    assert {each.name for each in (tmp_path / "uploads").iterdir()} == {"1" * 16, "example"}
