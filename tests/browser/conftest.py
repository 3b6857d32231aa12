"""A real headless Chromium and pages to look at. Debian: apt-get install chromium; then make test-browser.

SDD_SCREENSHOTS names a folder where screenshots are kept; by default where pytest keeps temporary files.
"""

import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

WIDTH, HEIGHT = 1200, 900


@pytest.fixture(scope="session")
def maker():
    """The module that writes synthetic studies (importlib mode puts no test folder on the path)."""
    path = Path(__file__).parents[1] / "report" / "study_maker.py"
    spec = importlib.util.spec_from_file_location("study_maker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by playwright."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: make test-browser"
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, headless=True)
        yield chromium
        chromium.close()


class Opened(NamedTuple):
    """An opened page; what it asked the network for and what it complained about, as lists that grow."""

    page: Any
    requests: list
    complaints: list

    def until(self, expression: str, seconds: float = 60) -> None:
        """Waits until a JavaScript expression is true (the policy of our pages forbids wait_for_function)."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert self.complaints == []
            assert time.monotonic() < end, f"not within {seconds} seconds: {expression}"
            self.page.wait_for_timeout(50)


@pytest.fixture
def open_page(browser):
    """Opens a file from disk: ``open_page(path, theme="dark")``; records what it asks for beside itself."""
    contexts = []

    def opened(path: Path, theme: str = "light", **settings) -> Opened:
        viewport = {"width": WIDTH, "height": HEIGHT}
        context = browser.new_context(
            color_scheme=theme, viewport=viewport, accept_downloads=True, **settings
        )
        contexts.append(context)
        page, requests, complaints = context.new_page(), [], []
        address = path.resolve().as_uri()
        page.on("request", lambda r: requests.append(r.url) if r.url != address else None)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return Opened(page, requests, complaints)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where screenshots are kept."""
    folder = os.environ.get("SDD_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def study(tmp_path_factory, maker) -> Path:
    """A synthetic study of two seeds."""
    return maker.write_study(tmp_path_factory.mktemp("study"), seeds=(0, 1))


@pytest.fixture(scope="session")
def study_page(study) -> Path:
    """The report of the synthetic study."""
    from sdd import report

    report.write_study_report(study)
    return study / "report.html"
