"""The page that `sdd watch` serves: the report with a script that looks whether there is a newer one."""

import base64
import hashlib
import html
import re
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from sdd.live import folders
from sdd.typed import error_line

PAUSE = 5.0  # seconds between two reports, at least
SHARE = 10  # making reports takes at most one part in so many of the time: the run needs the machine

_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script\s*>", re.IGNORECASE | re.DOTALL)
_POLICY = re.compile(r"<meta\b[^>]*http-equiv=[\"']?Content-Security-Policy[^>]*>", re.IGNORECASE)


class Page(NamedTuple):
    """Attributes:
    version: of the files that it shows, see `folders.version`; "" before there was a report.
    body: the page.
    policy: its Content-Security-Policy.
    """

    version: str
    body: bytes
    policy: str


class Pages:
    """The newest page of a folder. Reports are made in the background, one at a time, if somebody looks."""

    def __init__(self, folder: Path, report: Callable[[Path], str], clock: Callable[[], float] = time.time):
        self._folder, self._report, self._clock = folder, report, clock
        self._lock = threading.Lock()
        self._busy = False
        self._not_before = 0.0
        self._problem = ""
        self._page = live_page(waiting(folder), "")

    def current(self) -> Page:
        """The page as it is now; a newer one is begun where the folder has changed."""
        with self._lock:
            stale = folders.version(self._folder) != self._page.version
            if stale and not self._busy and self._clock() >= self._not_before:
                self._busy = True
                threading.Thread(target=self._make, daemon=True, name="sdd report").start()
            return self._page

    def status(self) -> str:
        """One line about the run, or about what keeps its report from being made."""
        if self._problem:
            return f"no newer report: {self._problem}"
        said = folders.status(self._folder)
        return f"{said}; making its report" if self._busy else said

    def _make(self) -> None:
        began, version, page, problem = self._clock(), folders.version(self._folder), None, ""
        try:
            with tempfile.TemporaryDirectory(prefix="sdd-watch-") as into:
                copy = folders.copied(self._folder, Path(into))
                if copy is not None:
                    page = live_page(self._report(copy), version)
        except Exception as error:  # a report of half a run may fail in any way; the next one may not
            problem = error_line(error)
        with self._lock:
            self._page = page or self._page
            self._problem, self._busy = problem, False
            now = self._clock()
            self._not_before = now + max(PAUSE, SHARE * (now - began))


def report_of(folder: Path) -> str:
    """The report of a run or study folder as one page of HTML; nothing is written.

    Raises:
      ValueError: one line that names the missing or torn file.
    """
    from sdd import report

    return report.page_of(folder)


def waiting(folder: Path) -> str:
    """The page before there is a report."""
    name = html.escape(str(folder).encode("utf-8", "backslashreplace").decode())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>sdd watch</title>'
        "<style>:root { color-scheme: light dark } body { font: 1rem/1.5 system-ui; margin: 3rem }"
        f"</style></head><body><h1>{name}</h1><p>The report appears here as soon as it is made, which takes "
        "a first evaluation.</p></body></html>\n"
    )


def live_page(report: str, version: str) -> Page:
    """A page with the script that keeps it new, and a policy that lets only its own scripts run."""
    script = resources.files("sdd.live").joinpath("refresh.js").read_text(encoding="utf-8")
    own = f'<div id="sdd-live" data-version="{version}"></div><script>{script}</script>'
    text = _POLICY.sub("", report.replace("\r\n", "\n"))  # of several policies each has to agree
    before, found, after = text.rpartition("</body>")
    text = before + own + found + after if found else text + own
    digests = sorted({_digest(script) for script in _SCRIPT.findall(text)})
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src " + " ".join(digests),
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "font-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return Page(version, text.encode("utf-8", "backslashreplace"), policy)


def _digest(script: str) -> str:
    sha = hashlib.sha256(script.encode("utf-8", "backslashreplace")).digest()
    return f"'sha256-{base64.b64encode(sha).decode()}'"
