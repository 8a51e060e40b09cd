"""A real server in a process of its own, and a client that says what a browser says."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
# What a page sends for the smallest training.
SETTINGS = {
    name: str(value).lower()
    for name, value in TINY.items()
    if name not in ("preset", "steps", "warm_steps")
}


@dataclass
class Server:
    """A server that runs, its folder, and requests to it."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    token: str

    @property
    def address(self) -> str:
        """What it printed, without the token."""
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. ``headers`` by names with ``_`` go over a browser's own, and
        ``None`` leaves one out."""
        sent: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Cookie": f"sincut-{self.port}={self.token}",
            "Origin": None if method == "GET" else self.address,
        }
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if payload is not None and "content_length" not in headers:
                connection.putheader("Content-Length", str(len(payload)))
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(payload)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The JSON of a request that is granted."""
        status, _, text = self.request(method, path, body)
        assert status == 200, text
        return dict(json.loads(text))

    def refused(self, method: str, path: str, body: Any = None, **headers: str | None) -> str:
        """The one line by which a request is refused."""
        status, _, text = self.request(method, path, body, **headers)
        assert 400 <= status < 500, text
        said = text.decode()
        line = json.loads(said)["error"] if said.startswith("{") else said.removesuffix("\n")
        assert "\n" not in line
        return str(line)

    def upload(self, file: Path, name: str = "") -> str:
        """Send a file as a page does; its number."""
        data = file.read_bytes()
        said = {"name": name or file.name, "size": len(data)}
        number = str(self.ask("POST", "/api/images", said)["id"])
        self.ask("PUT", f"/api/images/{number}", data)
        return number

    def train(self, content: Path, style: Path, **more: Any) -> str:
        """Start the smallest training of uploaded images; the run's name."""
        steps = str(more.pop("steps", 6))
        given = {"content": self.upload(content), "style": self.upload(style), "minutes": ""}
        settings = {**SETTINGS, "steps": steps, "warm_steps": "2", **more.pop("settings", {})}
        return str(self.ask("POST", "/api/runs", {**given, "settings": settings, **more})["name"])

    def until(self, name: str, *states: str, seconds: float = 90.0) -> dict[str, Any]:
        """The run as soon as its state is one of these."""
        return self.wait(f"/api/runs/{name}", lambda run: run["state"] in states, seconds)

    def wait(self, path: str, true: Any, seconds: float = 90.0) -> dict[str, Any]:
        """What an address says as soon as that is true of it."""
        end = time.monotonic() + seconds
        while not true(found := self.ask("GET", path)):
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[Server]:
    """``sincut app`` for a folder, until the block ends; with a ``BROWSER`` it opens that."""
    options = [] if "BROWSER" in environment else ["--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sincut", "app", "--folder", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("sincut app: http://127.0.0.1:"), process.stderr.read()
        address, _, token = line.split()[2].partition("?token=")
        yield Server(process, folder, int(address.split(":")[2].partition("/")[0]), token)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
    assert "Traceback" not in said, said


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One with an empty folder of its own."""
    with serving(tmp_path / "runs") as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for a module's tests, which leave each other's runs alone."""
    with serving(tmp_path_factory.mktemp("app") / "runs") as found:
        yield found
