"""The server: one process on 127.0.0.1, which shows the library and starts commands. No torch."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sincut.app.guard import Guard
from sincut.app.images import Images
from sincut.app.library import Library, NotThere
from sincut.app.pages import Pages
from sincut.app.runs import Runs
from sincut.errors import SincutError, one_line

HOST = "127.0.0.1"
_PORTS = 65535


def serve(
    folder: Path, *, port: int, browser: bool, demo: bool, tell: Callable[[str], None]
) -> None:
    """Serve the library of a folder until a signal comes.

    Args:
        folder: made where it is missing.
        port: 0 takes any that is free.
        browser: open the page in the person's browser.
        demo: begin with the example pair filled in.
        tell: gets the address, in one line, once it answers.

    Raises:
        SincutError: the folder must not be written to, or the port is taken.
    """
    library = Library(folder)
    with _bound(port) as listening:
        token, ticket = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        port = listening.getsockname()[1]
        address = f"http://{HOST}:{port}/{'new/example' if demo else ''}?token="

        def ready() -> None:
            tell(f"sincut app: {address}{token} (Ctrl-C ends it; trainings go on)")
            if browser:  # which may not come back before the browser ends
                words = (address + ticket,)
                threading.Thread(target=webbrowser.open, args=words, daemon=True).start()

        config = uvicorn.Config(
            Guard(application(library), token, port, ticket if browser else ""),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            ws="none",
            loop="asyncio",
            http="h11",
            timeout_graceful_shutdown=1,
        )
        _Server(config, ready).run([listening])


def application(library: Library) -> Starlette:
    """What answers, behind the guard."""
    images = Images(library)
    routes = [*Pages(library).routes(), *images.routes(), *Runs(library, images).routes()]
    handlers = {SincutError: _told, HTTPException: _told}
    return Starlette(routes=routes, exception_handlers=handlers)


def _told(request: Request, error: Exception) -> Response:
    """Whatever went wrong, as one line."""
    status = 404 if isinstance(error, NotThere) else 400
    text = str(error)
    if isinstance(error, HTTPException):
        status = error.status_code
        text = error.detail if status != 404 else "there is no such page; go back to the runs"
    if "text/html" in request.headers.get("accept", ""):
        return Pages.error(request, one_line(text), status)
    return JSONResponse({"error": one_line(text)}, status)


def _bound(port: int) -> socket.socket:
    """A socket that listens on this machine only."""
    if not 0 <= port <= _PORTS:
        raise SincutError(f"--port must be from 0 to {_PORTS}, got {port}; try it without")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(64)
    except OSError as error:
        listening.close()
        why = os.strerror(error.errno or 0)
        raise SincutError(
            f"cannot listen on port {port} ({why}); try another --port, or none for a free one"
        ) from None
    return listening


class _Server(uvicorn.Server):
    """One that sleeps until something comes, where uvicorn's looks about ten times a second."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def main_loop(self) -> None:
        """Wait for a signal."""
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        self.ready()
        if not self.should_exit:
            await self.ended.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        super().handle_exit(sig, frame)
        if hasattr(self, "loop"):
            self.loop.call_soon_threadsafe(self.ended.set)
