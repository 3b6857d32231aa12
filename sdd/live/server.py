"""One page and its version over HTTP, for browsers of this machine that know a token; nothing else is there.

Any program here, and any page that a browser here has open, can reach a port of the loopback. So a request
has to know the token, has to come to the address that was printed (against names that are made to point
here), and must not come from another origin. Paths are compared whole: they are never those of files.
"""

import hmac
import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from sdd.live.pages import Page, Pages

ADDRESS = "127.0.0.1"
TIMEOUT = 10.0  # seconds that a request may take to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a reader that never reads must not keep the process alive

    def handle_error(self, request, client_address) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Live(NamedTuple):
    """A server, not yet serving: ``server.serve_forever()``, then ``server.server_close()``.

    Attributes:
      server: bound to the loopback.
      url: of the page, with the token.
    """

    server: ThreadingHTTPServer
    url: str


def bind(pages: Pages, port: int = 0) -> Live:
    """Binds a port of the loopback; 0: a free one.

    Raises:
      OSError: the port is taken or not ours to take.
    """
    token = secrets.token_urlsafe(32)

    class Bound(Handler):
        def __init__(self, *args, **kwargs):
            super().__init__(pages, token, *args, **kwargs)

    server = _Server((ADDRESS, port), Bound)
    return Live(server, f"http://{ADDRESS}:{server.server_port}/{token}/")


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of ``/TOKEN/`` and ``/TOKEN/version``."""

    timeout = TIMEOUT

    def __init__(self, pages: Pages, token: str, *args, **kwargs):
        self._pages, self._token = pages, token
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        refused = self._refusal()
        if refused is not None:
            self.send_error(refused)
            return
        _, _, name = self.path[1:].partition("/")
        page = self._pages.current()
        if name == "version":
            said = {"version": page.version, "status": self._pages.status()}
            self._answer(HTTPStatus.OK, "application/json", json.dumps(said).encode())
        else:
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page.body, page)

    do_HEAD = do_GET

    def _refusal(self) -> HTTPStatus | None:
        """Why a request is not answered, or None."""
        port = self.connection.getsockname()[1]
        hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        if (self.headers.get_all("Host") or []) not in [[host] for host in hosts]:
            return HTTPStatus.FORBIDDEN
        origins = {f"http://{host}" for host in hosts}
        if not origins.issuperset(self.headers.get_all("Origin") or []):
            return HTTPStatus.FORBIDDEN
        # A page of another origin may lead here (a link in a browser's terminal), but not read from here.
        site = self.headers.get("Sec-Fetch-Site", "none")
        leads = (self.headers.get("Sec-Fetch-Mode"), self.headers.get("Sec-Fetch-Dest"))
        if site not in ("none", "same-origin") and leads != ("navigate", "document"):
            return HTTPStatus.FORBIDDEN
        given, slash, name = self.path[1:].partition("/")
        known = hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())
        if not known or not self.path.startswith("/"):
            return HTTPStatus.FORBIDDEN
        return None if slash and name in ("", "version") else HTTPStatus.NOT_FOUND

    def _answer(self, code: HTTPStatus, kind: str, body: bytes, page: Page | None = None) -> None:
        self.send_response(code)
        own = {"Content-Security-Policy": page.policy} if page else {}
        allow = {"Allow": "GET, HEAD"} if code == HTTPStatus.METHOD_NOT_ALLOWED else {}
        size = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in (HEADERS | own | allow | size).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Says the code's name and nothing of the request; what is no GET or HEAD is not allowed."""
        del message, explain
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._answer(status, "text/plain; charset=utf-8", f"{status.value} {status.phrase}\n".encode())

    def version_string(self) -> str:
        return "sdd"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a request holds the token."""
