"""The rollout browser in a real Chromium, in a page of its own under a strict policy for scripts."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from sdd.claims.runs import load_study
from sdd.report import browser as rollouts

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'sha256-{css}'; script-src 'sha256-{js}'"
HOSTILE = (
    "<img src=x onerror='document.title=1'>",
    "</script><script>document.title = 'hacked'</script>",
    "\x1b[31mred\x07<img src=y onerror='document.title=2'>",
    "\u202egnirts\u202c",
    "\ud800half",
    "שלום",
    "javascript:alert(1)",
)


@pytest.fixture(scope="module")
def make():
    path = HERE.parent / "report/rollouts_maker.py"
    spec = importlib.util.spec_from_file_location("rollouts_maker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(text):
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def shell(section):
    policy = POLICY.format(css=digest(section.css), js=digest(section.js))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rollouts</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{section.css}</style></head><body><main>{section.html}</main>"
        f'<script type="application/json" id="rollout-data">{section.data}</script>'
        f"<script>{section.js}</script></body></html>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """``opened(study folder, theme) -> page``; it asks for nothing and complains about nothing."""
    pages = []

    def open_page(study, theme="light", budget=10**7):
        path = tmp_path / f"page_{theme}.html"
        path.write_text(shell(rollouts.section(load_study(study), budget)), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=theme)
        trouble = []
        page.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("request", lambda r: trouble.append(r.url) if r.url != path.as_uri() else None)
        page.on("dialog", lambda d: trouble.append(d.message))
        page.goto(path.as_uri())
        pages.append((page, trouble))
        return page

    yield open_page
    for page, trouble in pages:
        assert trouble == []
        assert page.title() == "rollouts"
        page.close()


def one(strategy, correct, words, logp=-0.01):
    return (words.split(), strategy, correct, [logp] * len(words.split()))


@pytest.fixture(scope="module")
def study(make, tmp_path_factory):
    """A method that loses "fruits" on id/0 between step 0 and 9, with a training batch at step 9."""
    folder = tmp_path_factory.mktemp("study")
    a, b = one("birds", True, "a goal <eos>"), one("fruits", True, "b goal <eos>", -3.0)
    wrong = one("birds", False, "a x <eos>", -1.0)
    start = {"id/0": [a, b, b, wrong], "id/1": [a, a, a, a]}
    end = {"id/0": [a, a, a, wrong], "id/1": [a, a, a, a]}
    batch = {"train/7": [wrong, wrong, a, b]}
    taught = {"train/7": {"demonstrations": [[2], [3, 2], [3], []]}}
    train = {9: (batch, taught)}
    make.write_run(
        folder / "seed_0/sdsd_k1", {0: {"id": start, "harder": start}, 9: {"id": end, "harder": end}}, train
    )
    make.write_run(folder / "seed_0/grpo", {0: {"id": start, "harder": start}})
    return folder


def pick(page, name, label):
    page.select_option(f"[data-pick={name}]", label=label)


def groups(page):
    """``[(heading, [(button, text), ...]), ...]`` as they are shown."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".ro-list h4")].map((h) => [h.innerText,
        [...h.nextElementSibling.children].map((r) => [r.querySelector("button").innerText,
        r.querySelector(".ro-text").textContent])])"""
    )


def status(page):
    return page.inner_text(".ro-status")


def test_pickers_and_groups(opened, study):
    page = opened(study)
    assert page.input_value("[data-pick=method]") == "1"  # sdsd_k1, at its last step
    assert status(page) == "id/0: 3 of 4 right, 1 strategy among them; right at step 0 and not here: fruits."
    expected = [["✓ right × 3", "a goal <eos>"], ["✗ wrong #3", "a x <eos>"]]
    assert groups(page) == [["birds 3 right, 1 wrong (at step 0: 1 right of 4)", expected]]
    pick(page, "step", "0")
    heads = [head for head, _ in groups(page)]
    assert heads == ["fruits 2 right, 0 wrong", "birds 1 right, 1 wrong"]
    pick(page, "prompt", "id/1")
    assert status(page) == "id/1: 4 of 4 right, 1 strategy among them."
    pick(page, "split", "harder")
    pick(page, "method", "grpo")
    assert page.locator("[data-pick=split] option:checked").inner_text() == "harder"
    pick(page, "show", "wrong")
    pick(page, "prompt", "id/0")
    assert [row for _, rows in groups(page) for row in rows] == [["✗ wrong #3", "a x <eos>"]]
    pick(page, "show", "all")
    page.fill("[data-pick=search]", "B GOAL")
    assert page.locator("[data-pick=prompt] option").all_inner_texts() == ["id/0"]
    assert [row for _, rows in groups(page) for row in rows] == [["✓ right × 2", "b goal <eos>"]]
    page.fill("[data-pick=search]", "nowhere")
    assert status(page) == "No prompt or rollout matches." and groups(page) == []
    page.fill("[data-pick=search]", "")
    assert status(page).startswith("id/0")


def test_keyboard_alone(opened, study):
    page = opened(study)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "ro-list":
            break
    assert page.evaluate("document.activeElement.className") == "ro-list"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for key, prompt in (
        ("j", "id/1"),
        ("j", "id/1"),
        ("k", "id/0"),
        ("ArrowRight", "id/1"),
        ("ArrowLeft", "id/0"),
    ):
        page.keyboard.press(key)
        assert status(page).startswith(prompt), key
    page.keyboard.press("Tab")  # the first rollout's button
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    pressed = page.locator('[aria-pressed="true"]')
    assert pressed.all_inner_texts() == ["✗ wrong #3"]
    page.keyboard.press("j")
    assert status(page).startswith("id/1")  # the focus is not lost with the button
    page.keyboard.press("k")
    assert status(page).startswith("id/0")
    page.focus("[data-pick=search]")
    page.keyboard.type("jk")  # letters in a field are letters
    assert page.input_value("[data-pick=search]") == "jk"


def test_shading_and_numbers(opened, study):
    page = opened(study)
    pick(page, "step", "0")
    spans = page.evaluate(
        """() => [...document.querySelectorAll(".ro-list .ro-row:first-child .ro-text span")].map((s) =>
        [s.textContent, s.className, s.title, getComputedStyle(s).backgroundColor])"""
    )
    clear = "rgba(0, 0, 0, 0)"
    assert [s[:3] for s in spans[:3]] == [
        ["b", "ro-s6", "5 %, −3.00 nats"],
        [" goal", "ro-s6", "5 %, −3.00 nats"],
        [" <eos>", "ro-s6", "5 %, −3.00 nats"],
    ]
    assert [s[:3] for s in spans[3:]] == [[t, "", "99 %, −0.01 nats"] for t in ("a", " goal", " <eos>")]
    assert all(s[3] != clear for s in spans[:3]) and all(s[3] == clear for s in spans[3:])
    assert page.inner_text(".ro-chosen") == "3 tokens, −9.00 nats together; least likely: b, 5 %"


def test_demonstrations_stand_beside_what_they_taught(opened, study):
    page = opened(study)
    pick(page, "split", "training batch")
    rows = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".ro-row")].map((r) =>
        [r.querySelector("button").innerText, r.querySelector(".ro-by").innerText.split("\\n")]))"""
    )
    a, b = "✓ demonstration #2, birds", "✓ demonstration #3, fruits"
    assert rows == {
        "✗ wrong #0": [a, "a goal <eos>"],
        "✗ wrong #1": [b, "b goal <eos>", a, "a goal <eos>"],
        "✓ right #2": [b, "b goal <eos>"],
        "✓ right #3": ["no demonstration"],
    }
    boxes = page.locator(".ro-row").first.evaluate(
        "r => [...r.children].map((c) => c.getBoundingClientRect().left)"
    )
    assert boxes == sorted(boxes) and len(set(boxes)) == 3


def test_the_picture_shows_the_path_of_the_rollout_that_is_chosen(opened, study):
    page = opened(study)
    words = "two nodes. Path: s → a → goal → <eos>. No edge: s → a, a → goal, goal → <eos>"
    assert page.get_attribute(".ro-figure svg", "aria-label") == words
    assert page.inner_text("figcaption") == words
    page.locator(".ro-row button").nth(1).click()
    labels = page.locator(".ro-figure g.ro-on text").all_text_contents()
    assert labels == ["s", "a", "x", "<eos>"]
    assert page.locator(".ro-figure g:not(.ro-on) text").all_text_contents() == ["goal"]
    assert page.locator(".ro-figure line.ro-broken").count() == 3
    assert page.locator(".ro-figure line.ro-edge").count() == 1


def test_other_parts_of_the_page_can_ask_for_rollouts(opened, study):
    page = opened(study)
    detail = {"method": "grpo", "split": "harder", "prompt": "id/1"}
    page.evaluate("d => document.dispatchEvent(new CustomEvent('sdd:rollouts', {detail: d}))", detail)
    shown = [
        page.locator(f"[data-pick={n}] option:checked").inner_text() for n in ("method", "split", "prompt")
    ]
    assert shown == ["grpo", "harder", "id/1"]
    page.reload()
    shown = [
        page.locator(f"[data-pick={n}] option:checked").inner_text() for n in ("method", "split", "prompt")
    ]
    assert shown == ["grpo", "harder", "id/1"]  # as a page that refreshes itself does


def test_hostile_texts_are_texts(opened, make, tmp_path):
    group = [([text], text, True, [-1.0]) for text in HOSTILE]
    prompts = {text: group for text in HOSTILE[:2]}
    make.write_run(tmp_path / "seed_0" / HOSTILE[0].replace("/", ""), {1: {"id<b>": prompts}})
    page = opened(tmp_path)
    shown = [rows[0][1] for _, rows in groups(page)]
    spelled = [
        HOSTILE[2].replace("\x1b", "\\x1b").replace("\x07", "\\x07"),
        "\\u202egnirts\\u202c",
        "\\ud800half",
    ]
    assert sorted(shown) == sorted([*HOSTILE[:2], *spelled, *HOSTILE[5:]])
    assert page.locator("section img").count() == 0 and page.locator("section script").count() == 0
    texts = page.locator(".ro-text").all()
    assert all(
        text.evaluate("t => [t.tagName, getComputedStyle(t).unicodeBidi]") == ["BDI", "isolate"]
        for text in texts
    )
    page.select_option("[data-pick=prompt]", index=1)
    assert status(page).startswith(HOSTILE[1])


def test_long_rollouts_are_drawn_in_parts_and_wholly_when_asked(opened, make, tmp_path):
    group = [one("birds", True, " ".join(f"t{i}x{j}" for j in range(2000))) for i in range(30)]
    make.write_run(tmp_path / "seed_0/grpo", {1: {"id": {"id/0": group}}}, draw=False)
    page = opened(tmp_path)
    assert page.locator(".ro-list span").count() < 2000
    page.locator(".ro-text button").first.click()
    assert page.locator(".ro-text").first.text_content() == " ".join(f"t0x{j}" for j in range(2000))


REACTION = """(change) => new Promise((done) => {
  const began = performance.now();
  const [name, value] = change;
  const field = document.querySelector(`[data-pick=${name}]`);
  field.value = value;
  field.dispatchEvent(new Event(field.tagName === "INPUT" ? "input" : "change", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
})"""  # until the frame after the change is painted


@pytest.mark.parametrize(("prompts", "n"), [(1, 4096), (64, 64)])
def test_4096_rollouts_answer_within_200_ms(opened, make, tmp_path, prompts, n):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)]
    names = ["birds", "fruits", "tools", None]

    def many(seed):
        return [make.rollouts(rng, n, 80, names, words) for _ in range(prompts)]

    evaluations = {t: {"id": {f"id/{i}": g for i, g in enumerate(many(t))}} for t in (0, 9)}
    make.write_run(tmp_path / "seed_0/grpo", evaluations, draw=False)
    page = opened(tmp_path, budget=10**8)
    assert f"of {n} right" in status(page)
    changes = [("step", "0"), ("show", "wrong"), ("show", "all"), ("search", "w7 "), ("search", "")] * 3
    last = page.locator("[data-pick=prompt] option").last.get_attribute("value")
    took = {
        f"{i} {name} {value}": page.evaluate(REACTION, [name, value])
        for i, (name, value) in enumerate(changes)
    }
    took["last prompt"] = page.evaluate(REACTION, ["prompt", last])
    print(json.dumps({name: round(ms) for name, ms in took.items()}))
    # The machine may be at work on other things: the middle of the tries of each kind.
    kinds = {name.split(" ", 1)[-1] for name in took}
    middle = {kind: np.median([ms for name, ms in took.items() if name.endswith(kind)]) for kind in kinds}
    assert max(middle.values()) < 200, middle
    # All can be reached: rows come as the list is scrolled.
    drawn = page.locator(".ro-row").count()
    assert 0 < drawn < 200
    page.locator(".ro-more").click()
    assert page.locator(".ro-row").count() > drawn or n == 64


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_screenshots_of_both_themes(opened, study, theme, tmp_path):
    page = opened(study, theme)
    folder = Path(os.environ.get("SDD_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.locator("section.rollouts").screenshot(path=folder / f"rollouts_{theme}.png")
    pick(page, "split", "training batch")
    page.locator("section.rollouts").screenshot(path=folder / f"rollouts_training_{theme}.png")
    colour = page.evaluate("getComputedStyle(document.querySelector('.rollouts')).color")
    assert colour == ("rgb(27, 27, 27)" if theme == "light" else "rgb(232, 232, 232)")
    other = "dark" if theme == "light" else "light"
    page.evaluate("t => { document.documentElement.dataset.theme = t }", other)  # the page's own switch
    turned = page.evaluate("getComputedStyle(document.querySelector('.rollouts')).color")
    assert turned == ("rgb(27, 27, 27)" if other == "light" else "rgb(232, 232, 232)")
