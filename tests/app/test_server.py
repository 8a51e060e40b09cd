"""The command, the guard, idleness: who may ask, and what it costs to wait."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason='the app needs the extra app: pip install ".[app]"')

from tests.app.conftest import ROOT, Server, serving

OPEN = "open the address that sincut app printed"


def said(*words: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of ``sincut app``."""
    result = subprocess.run(
        [sys.executable, "-m", "sincut", "app", "--no-browser", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert result.stdout == ""
    return result.returncode, result.stderr


def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert said("--folder", str(tmp_path), f"--port={port}") == (
            2,
            f"Error: cannot listen on port {port} (Address already in use); try another --port, "
            "or none for a free one\n",
        )


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    line = "Error: --port must be from 0 to 65535, got 70000; try it without\n"
    assert said("--folder", str(tmp_path), "--port=70000") == (2, line)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    line = f"Error: {file} is a file, not a folder; give another --folder\n"
    assert said("--folder", str(file)) == (2, line)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    line = f"Error: the folder {tmp_path} must not be written to; give another --folder\n"
    assert said("--folder", str(tmp_path)) == (2, line)


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')")
    places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert said("--folder", str(tmp_path / "runs"), PYTHONPATH=places) == (
        2,
        "Error: sincut app needs uvicorn, which is not installed here; "
        'try pip install -c constraints.txt ".[app]"\n',
    )
    assert not (tmp_path / "runs").exists()


def test_the_first_visit_becomes_a_cookie(shared: Server) -> None:
    status, headers, _ = shared.request("GET", f"/new?token={shared.token}", cookie=None)
    assert (status, headers["location"]) == (303, "/new")
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"sincut-{shared.port}={shared.token};")
    assert {"HttpOnly", "SameSite=strict"} <= {word.strip() for word in cookie.split(";")}
    assert shared.request("GET", "/")[0] == 200


def test_the_address_of_a_browser_that_is_started_works_once(tmp_path: Path) -> None:
    """Others may read the words that a process is started with."""
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/address\n')
    (tmp_path / "browser").chmod(0o700)
    with serving(tmp_path / "runs", BROWSER=str(tmp_path / "browser")) as server:
        end = time.monotonic() + 20
        while not (file := tmp_path / "address").exists() or not file.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        given = file.read_text().strip()
        assert given.startswith(f"{server.address}/?token=")
        assert server.token not in given
        path = given.removeprefix(server.address)
        status, headers, _ = server.request("GET", path, cookie=None)
        assert (status, headers["set-cookie"].partition(";")[0]) == (
            303,
            f"sincut-{server.port}={server.token}",
        )
        assert server.request("GET", path, cookie=None)[0] == 403


@pytest.mark.parametrize("cookie", [None, "", "sincut-{}=wrong", "sincut-{}="])
def test_who_has_no_token_is_refused(shared: Server, cookie: str | None) -> None:
    given = cookie.format(shared.port) if cookie else cookie
    for path in ("/", "/api/runs", "/static/app.js", "/?token=wrong", "/?token="):
        assert shared.refused("GET", path, cookie=given) == (
            "Error: this page is for whoever started it, and the token is missing or of another "
            f"start; {OPEN}"
        )


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "127.0.0.1:1", "example.org:{}", ""])
def test_another_host_is_refused(shared: Server, host: str) -> None:
    host = host.format(shared.port)
    status, _, text = shared.request("GET", "/", host=host)
    assert status == 421
    assert text.decode() == (
        f"Error: this server answers to 127.0.0.1:{shared.port}, got the host {host}; {OPEN}\n"
    )


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://127.0.0.1:1", "file://"])
def test_another_origin_is_refused(shared: Server, origin: str) -> None:
    for method, path in (("POST", "/api/runs"), ("GET", "/api/runs"), ("DELETE", "/api/runs/x")):
        assert shared.refused(method, path, origin=origin) == (
            f"Error: requests of other pages are refused, got one of {origin}; {OPEN}"
        )


def test_a_change_without_an_origin_is_refused(shared: Server) -> None:
    assert shared.refused("POST", "/api/runs", {}, origin=None) == (
        f"Error: a request that changes something must say its origin, got none; {OPEN}"
    )


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_loads_is_refused(shared: Server, site: str) -> None:
    assert shared.refused("GET", "/api/runs", sec_fetch_site=site) == (
        f"Error: this page is for whoever started it, and another page asked; {OPEN}"
    )


def test_a_program_may_ask_with_the_token_in_a_header(shared: Server) -> None:
    headers = {"cookie": None, "x_sincut_token": shared.token}
    assert shared.request("GET", "/api/runs", **headers)[0] == 200
    assert shared.request("POST", "/api/runs", {}, origin=None, **headers)[0] == 404


@pytest.mark.parametrize("path", ["/", "/new", "/nothing", "/static/app.js", "/api/runs"])
def test_every_answer_forbids_what_is_not_from_here(shared: Server, path: str) -> None:
    _, headers, _ = shared.request("GET", path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' blob: data:; object-src 'none'")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


def test_pages_hold_no_script_and_no_style_and_name_no_other_host(shared: Server) -> None:
    for path in ("/", "/new", "/nothing"):
        text = shared.request("GET", path, accept="text/html")[2].decode()
        assert re.findall(r"<script(?! src=\"/static/| type=\"application/json\")", text) == []
        assert re.findall(r"<style| style=| on\w+=", text) == []
        assert re.findall(r"(?:src|href|action)=\"(?!/|data:,|#)", text) == []


def test_it_listens_to_this_machine_only(shared: Server) -> None:
    inodes = set()
    for link in Path(f"/proc/{shared.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if (target := str(link.readlink())).startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    tables = ("tcp", "tcp6", "udp", "udp6")
    rows = [
        line.split()
        for table in tables
        if (path := Path(f"/proc/{shared.process.pid}/net/{table}")).exists()
        for line in path.read_text().splitlines()[1:]
    ]
    mine = [row for row in rows if row[9] in inodes]
    assert {row[1] for row in mine} == {f"0100007F:{shared.port:04X}"}
    assert {row[2].partition(":")[0] for row in mine} <= {"00000000", "0100007F"}


def seconds_of(process: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_waiting_costs_nothing(server: Server) -> None:
    for path in ("/", "/new", "/api/runs", "/static/app.js"):
        assert server.request("GET", path)[0] == 200
    process = server.process.pid
    status = Path(f"/proc/{process}/status").read_text()
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 60_000
    for _ in range(3):  # what a page asked for may still be put away in the first
        before = seconds_of(process)
        time.sleep(2)
        if (spent := seconds_of(process) - before) == 0:
            break
    assert spent == 0
    maps = Path(f"/proc/{process}/maps").read_text()
    assert "torch" not in maps
    assert "numpy" not in maps


def test_it_loads_quickly_and_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import sincut.app.server; "
        "print(time.process_time() - start, *{n.split('.')[0] for n in sys.modules})"
    )
    seconds, *names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert float(seconds) < 1
    assert not {"torch", "numpy", "PIL", "scipy", "triton"} & set(names)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path / "runs") as server:
        server.process.send_signal(number)
        server.process.wait(5)
