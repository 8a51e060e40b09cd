"""Who may ask: a browser of this machine that came by the address which was printed. No torch.

Everything else that can reach a port of this machine, such as pages of the web, is refused before
any handler runs, in one line.
"""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sincut.errors import printable

# What pages may load: files of this server, pictures also out of the page itself.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
TOKEN_HEADER = "x-sincut-token"
_CHANGES_NOTHING = ("GET", "HEAD")
_OPEN_AGAIN = "open the address that sincut app printed"


class Guard:
    """Refuses what does not carry the token, and what was sent by another page.

    Args:
        app: what is guarded.
        token: the secret of the printed address; it becomes a cookie at the first visit.
        port: of this server, on 127.0.0.1.
        ticket: a secret that does the same once, for an address that others may read, as that of a
            browser that is started with it.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, ticket: str = "") -> None:
        self.app, self.token, self.ticket = app, token, ticket
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self.origins = tuple(f"http://{host}" for host in self.hosts)
        self.cookie = f"sincut-{port}"  # cookies do not know ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    sent.setdefault(name, value)
            await send(message)

        answer = self._refused(scope, headers) or self._welcomed(scope, headers)
        await (answer or self.app)(scope, receive, send_guarded)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """What another host or another page asked for."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts:
            return _refusal(
                421, f"this server answers to {self.hosts[0]}, got the host {host}; {_OPEN_AGAIN}"
            )
        if origin is not None and origin not in self.origins:
            return _refusal(
                403, f"requests of other pages are refused, got one of {origin}; {_OPEN_AGAIN}"
            )
        if scope["method"] not in _CHANGES_NOTHING and not (origin or self._header(headers)):
            return _refusal(
                403,
                f"a request that changes something must say its origin, got none; {_OPEN_AGAIN}",
            )
        return None

    def _welcomed(self, scope: Scope, headers: Headers) -> Response | None:
        """A visitor's first page, or a refusal; nothing for whoever has the token."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if given and scope["method"] == "GET" and self._is_welcome(given[0]):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        cookies = _cookies(headers.get("cookie", ""))
        from_elsewhere = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if self._header(headers):
            return None
        if self._is_token(cookies.get(self.cookie, "")) and not from_elsewhere:
            return None
        why = "another page asked" if from_elsewhere else "the token is missing or of another start"
        return _refusal(403, f"this page is for whoever started it, and {why}; {_OPEN_AGAIN}")

    def _is_welcome(self, given: str) -> bool:
        if self.ticket and secrets.compare_digest(given.encode(), self.ticket.encode()):
            self.ticket = ""
            return True
        return self._is_token(given)

    def _header(self, headers: Headers) -> bool:
        return self._is_token(headers.get(TOKEN_HEADER, ""))

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _cookies(header: str) -> dict[str, str]:
    pairs = (each.strip().partition("=") for each in header.split(";"))
    return {name: value for name, _, value in pairs}


def _refusal(status: int, text: str) -> Response:
    return PlainTextResponse(printable(f"Error: {text}") + "\n", status)
