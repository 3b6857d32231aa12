"""The report in a real Chromium: opens from disk, filters, keyboard, both themes, axe."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ALL_DRAWN = """Array.from(document.querySelectorAll('[data-figure]')).every(
  (place) => place.querySelector('svg.marks, canvas.marks')) && document.documentElement.dataset.drawn"""
DRAWN = 60_000  # ms


def draw_all(opened):
    """Figures are drawn as they come into view, and all of them for printing."""
    opened.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    opened.until(ALL_DRAWN)
    return opened.page


def filtered(opened, methods, splits):
    opened.until(f"document.documentElement.dataset.filtered === '[{methods},{splits}]'")


def points(page, figure):
    """How many points a figure shows."""
    return page.locator(f"[data-figure={figure}] .mark-symbol path").count()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_opens_from_disk_and_has_no_serious_fault(open_page, study_page, screenshots, theme):
    opened = open_page(study_page, theme)
    page = draw_all(opened)
    assert opened.requests == [] and opened.complaints == []
    assert page.locator(".chart svg, .chart canvas").count() == page.locator(".chart").count() >= 6
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (theme == "light")
    page.screenshot(path=screenshots / f"report_{theme}.png", full_page=True)
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)  # not add_script_tag: the page's policy refuses scripts that are not its own
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [
        (fault["id"], [node["html"][:200] for node in fault["nodes"][:3]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == [], json.dumps(serious, indent=1)


def test_methods_and_splits_are_filtered_everywhere(open_page, study_page):
    opened = open_page(study_page)
    page = draw_all(opened)
    filtered(opened, 5, 3)
    before = points(page, "pass_at_k")
    assert before == 5 * 3 * 7  # methods, splits, k
    page.get_by_role("checkbox", name=re.compile("SDSD, K = 1")).uncheck()
    filtered(opened, 4, 3)
    assert points(page, "pass_at_k") == 4 * 3 * 7
    assert page.locator("tr[data-method='SDSD, K = 1']:visible").count() == 0
    assert page.locator("tr[data-method='GRPO']:visible").count() > 0
    assert page.locator("#status").inner_text() == "4 of 5 methods shown"
    page.locator("#split").select_option("harder")
    filtered(opened, 4, 1)
    assert points(page, "pass_at_k") == 4 * 7
    assert page.locator("tr[data-split='larger']:visible").count() == 0
    page.reload()  # what was chosen stays
    draw_all(opened)
    filtered(opened, 4, 1)
    assert points(page, "pass_at_k") == 4 * 7
    page.get_by_role("button", name="None").click()
    filtered(opened, 0, 1)
    page.get_by_role("button", name="All").click()
    filtered(opened, 5, 1)
    assert points(page, "pass_at_k") == 5 * 7


def test_the_metric_is_picked(open_page, study_page):
    opened = open_page(study_page)
    page = draw_all(opened)
    select = page.locator("select[data-parameter=metric]")
    names = select.locator("option").all_inner_texts()
    assert "token entropy (nats)" in names and "pass@1" in names
    titles = page.locator("[data-figure=over_steps] .role-title-text")
    assert names[0] in titles.all_text_contents()
    select.select_option("token entropy (nats)")
    opened.until(
        "document.querySelector('[data-figure=over_steps]').textContent.includes('token entropy (nats)')"
    )
    assert names[0] not in titles.all_text_contents()
    assert opened.complaints == []


def test_keyboard_alone(open_page, study_page):
    opened = open_page(study_page)
    page = draw_all(opened)
    filtered(opened, 5, 3)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid" and page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    page.locator("#theme").focus()
    page.keyboard.press("Space")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('input.method')"):
            break
    page.keyboard.press("Space")
    filtered(opened, 4, 3)
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"  # remembered


def test_tooltips_name_what_a_prompt_lost(open_page, study_page):
    opened = open_page(study_page)
    page = draw_all(opened)
    page.wait_for_timeout(300)
    page.locator("[data-figure=plane]").scroll_into_view_if_needed()
    page.locator("[data-figure=plane] .mark-symbol path").last.hover(force=True)
    page.locator("#vg-tooltip-element.visible").wait_for(timeout=5000)
    tooltip = page.locator("#vg-tooltip-element").inner_text()
    assert "method" in tooltip and "pass@1" in tooltip


def test_figures_and_tables_are_saved(open_page, study_page, study):
    opened = open_page(study_page)
    page = draw_all(opened)
    saved = {}
    for name in ("plane as SVG", "plane as PNG", "table final as CSV", "table final as LaTeX"):
        with page.expect_download(timeout=DRAWN) as download:
            page.get_by_role("button", name=name, exact=True).click()
        saved[name] = Path(download.value.path()).read_bytes()
    assert saved["plane as SVG"].startswith(b"<svg") and b"starting model" in saved["plane as SVG"]
    assert saved["plane as PNG"].startswith(b"\x89PNG")
    assert saved["table final as CSV"] == (study / "tables/final.csv").read_bytes()
    assert saved["table final as LaTeX"] == (study / "tables/final.tex").read_bytes()


def test_print_and_narrow(open_page, study_page, screenshots):
    opened = open_page(study_page)
    page = draw_all(opened)
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400  # wide parts scroll by themselves
    page.screenshot(path=screenshots / "report_narrow.png")
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible() and page.locator("h1").is_visible()
