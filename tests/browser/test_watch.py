"""The page of ``sdd watch`` in a real browser: it renews itself, and keeps its place and its choices."""

import json
import threading

import pytest

from sdd.claims.runs import load_run
from sdd.live import pages, server

pytestmark = pytest.mark.slow

REPORT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>r</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'">
</head><body>
<p id="steps">{steps} evaluations</p>
<select><option>grpo</option><option>sdsd</option></select><label><input type="checkbox"> bands</label>
<details><summary>config</summary>text</details><p id="chosen">none</p><div style="height: 4000px">tall</div>
<img src="x" onerror="document.title = 'attacked'"><p onclick="document.title = 'attacked'" id="trap">x</p>
<script>document.querySelector("select").addEventListener("change", (event) => {{
  document.getElementById("chosen").textContent = event.target.value; }});</script></body></html>"""


def write(folder, steps):
    (folder / "config.json").write_text(json.dumps({"train": {"num_steps": 9}}))
    lines = [json.dumps({"step": step, "split": "id", "metrics": {}}) for step in range(steps)]
    (folder / "evaluations.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PAUSE", 0.0)
    report = lambda folder: REPORT.format(steps=len(load_run(folder).evaluations))  # noqa: E731
    live = server.bind(pages.Pages(tmp_path, report))
    thread = threading.Thread(target=live.server.serve_forever)
    thread.start()
    yield live.url
    live.server.shutdown()
    live.server.server_close()
    thread.join()


def test_it_renews_itself_and_keeps_what_the_reader_did(browser, url, tmp_path):
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    page.get_by_text("The report appears here").wait_for()
    write(tmp_path, 1)
    page.get_by_text("1 evaluations").wait_for(timeout=60_000)

    page.locator("select").select_option("sdsd")
    page.locator("input").check()
    page.locator("summary").click()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 1234)")
    page.locator("#trap").evaluate("element => element.click()")
    write(tmp_path, 2)
    page.get_by_text("2 evaluations").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)  # the place is taken again once figures may have been drawn
    assert page.evaluate("scrollY") == 1234
    assert page.locator("select").input_value() == "sdsd"
    assert page.locator("#chosen").text_content() == "sdsd"  # the page's own script was told
    assert page.locator("input").is_checked()
    assert page.locator("details").evaluate("element => element.open")
    assert page.title() == "r"  # handlers within the markup do not run
    assert page.locator("#sdd-live").text_content().startswith("step 0 of 9, written ")

    assert all(each.startswith(url) for each in asked)
    refused = [text for text in said if "Content Security Policy" not in text]
    assert not refused
    page.close()
