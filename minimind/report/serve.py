"""The page of runs for a browser on this machine, which follows them as they go on.

Others share a login node: the page is on this machine's own address alone, behind a random word
in its link, and answers to no other name of the machine, which a page elsewhere could have made
up (DNS rebinding). It shows the runs that it was given, and no log that lies elsewhere.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minimind.errors import ConfigError, MiniMindError
from minimind.report.page import render
from minimind.report.read import RunRecord, log_of, read_run
from minimind.system.tail import last_lines
from minimind.system.terminal import visible

HOST = "127.0.0.1"
NAMES = (HOST, "localhost", "::1")
"""What the machine is called in a link to it; a tunnel's other end may use another port."""
LOG_LINES = 40
LEAST_SECONDS = 2.0
"""Between two readings of the runs, however many windows ask."""
SLOWEST_SECONDS = 10.0
"""For one request to come: who says nothing does not stay."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LivePage:
    """The page as of now, read anew at most every :data:`LEAST_SECONDS`."""

    def __init__(self, folders: Sequence[Path], title: str = "") -> None:
        self._folders, self._title = folders, title
        self._lock = threading.Lock()
        self._page, self._read_at = "", -LEAST_SECONDS

    def __call__(self) -> str:
        """Raises MiniMindError where a run cannot be read any more."""
        with self._lock:
            if time.monotonic() - self._read_at >= LEAST_SECONDS:
                runs = [read_run(folder) for folder in self._folders]
                self._page = render(runs, self._title, [log_tail(run) for run in runs])
                self._read_at = time.monotonic()
            return self._page


def log_tail(run: RunRecord) -> str:
    """The last lines of a run's log."""
    log = log_of(run.folder)
    if log is None or not log.resolve().is_relative_to(run.folder.resolve()):
        return ""
    return visible(last_lines(log, LOG_LINES))


class Server(ThreadingHTTPServer):
    """Serves one page under a link that nobody guesses."""

    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], str]) -> None:
        """``port``: 0 for any that is free.

        Raises:
            ConfigError: the port is taken, or not for everybody.
        """
        try:
            super().__init__((HOST, port), Handler)
        except OverflowError:
            raise ConfigError(f"--serve {port}: a port is 0 to 65535") from None
        except OSError as error:
            raise ConfigError(
                f"--serve {port}: {error.strerror}; choose another port, or none for a free one"
            ) from None
        self.page = page
        self.path = f"/{secrets.token_urlsafe(16)}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A window that is closed while it is sent something is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def link(self) -> str:
        return f"http://{HOST}:{self.server_port}{self.path}"


class Handler(BaseHTTPRequestHandler):
    """Answers with the page, or not at all."""

    server: Server
    timeout = SLOWEST_SECONDS
    server_version, sys_version = "minimind", ""

    def do_GET(self) -> None:
        if not self._is_for_us():
            self._answer(HTTPStatus.NOT_FOUND, "no such page\n")
            return
        try:
            page = self.server.page()
        except MiniMindError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
            return
        tag = f'"{hashlib.sha256(page.encode()).hexdigest()}"'
        if self.headers.get("If-None-Match") == tag:
            self._answer(HTTPStatus.NOT_MODIFIED, "", tag)
        else:
            self._answer(HTTPStatus.OK, page, tag, "text/html")

    def _is_for_us(self) -> bool:
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        except ValueError:
            return False
        right = secrets.compare_digest(self.path.encode(), self.server.path.encode())
        return right and name in NAMES

    def _answer(
        self, status: HTTPStatus, body: str, tag: str = "", kind: str = "text/plain"
    ) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the link's word would be in it."""
