"""What the rollout browser embeds, against the files that it comes from."""

import html.parser
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from sdd import details
from sdd.claims.runs import load_study
from sdd.report import browser
from sdd.report.browser import cells

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location(
        "rollouts_maker", Path(__file__).parent / "rollouts_maker.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def embedded(section):
    """{(method, seed, step, split, prompt_id): cell} of a section, and its tables."""
    data = json.loads(section.data)
    found = {}
    for c in data["cells"]:
        prompt = data["prompts"][c["q"]]
        where = (data["methods"][c["m"]][0], c["s"], c["t"], data["splits"][c["p"]], prompt["id"])
        assert where not in found
        found[where] = c
    return found, data


def samples(cell, data):
    """``[(text, strategy, correct, logp, labels of the path)]``, a sample each."""
    names = [*data["strategies"], None]
    said = []
    for right, strategy, pieces, logp, *drawn in cell["r"]:
        numbers = logp and [
            -(DIGITS.index(logp[i]) * 64 + DIGITS.index(logp[i + 1])) / 200 for i in range(0, len(logp), 2)
        ]
        path = None
        if drawn:
            nodes = data["prompts"][cell["q"]]["drawing"]["nodes"] + drawn[1]
            path = [nodes[i][0] for i in drawn[0]]
        said.append(("".join(data["pieces"][i] for i in pieces), names[strategy], bool(right), numbers, path))
    return [said[i] for i in cell["of"]]


def lines(run, step, split):
    path = run / f"rollouts/step_{step:06d}/{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_rollout_comes_back_as_it_is_in_the_files(make, tmp_path):
    make.write_study(tmp_path, seeds=(0, 3))
    found, data = embedded(browser.section(load_study(tmp_path), 10**6))
    count = 0
    for (method, seed, step, split, prompt_id), cell in found.items():
        run = tmp_path / f"seed_{seed}" / method
        rows = lines(run, step, split)
        number = [row["prompt_id"] for row in rows].index(prompt_id)
        row, n = rows[number], len(rows[number]["correct"])
        assert data["prompts"][cell["q"]]["text"] == row["prompt"] and cell["n"] == n
        kept = details.read(run / f"rollouts/step_{step:06d}/{split}.details.npz")
        logp = np.split(kept.logp_M, np.cumsum(kept.length_N)[:-1])[number * n : number * n + n]
        said = samples(cell, data)
        assert [s[:3] for s in said] == list(zip(row["completion"], row["strategy"], row["correct"]))
        for text, _, _, numbers, path in said:
            assert path == ["s", *text.split(" ")] and len(numbers) == len(path) - 1
        for sample in (cell["of"].index(i) for i in range(len(cell["r"]))):  # equal ones share the first's
            np.testing.assert_allclose(said[sample][3], logp[sample].astype(float), atol=1 / 400 + 1e-9)
        count += n
    assert count == 2 * (1 * 2 * 4 * 8 + 2 * 3 * 2 * 4 * 8 + 2 * 2 * 2 * 4)  # all there is


def test_demonstrations_are_the_rows_that_the_file_names(make, tmp_path):
    make.write_study(tmp_path)
    found, data = embedded(browser.section(load_study(tmp_path), 10**6))
    batches = {where: cell for where, cell in found.items() if where[3] == "train"}
    assert len(batches) == 2 * 2 * 2
    for (method, _, step, _, prompt_id), cell in batches.items():
        rows = lines(tmp_path / "seed_0" / method, step, "train")
        texts = [text for row in rows for text in row["completion"]]
        taught = next(row["demonstrations"] for row in rows if row["prompt_id"] == prompt_id)
        own, others = samples(cell, data), samples(cell | {"r": cell["others"], "of": [0]}, data)
        shown = [[(own[k] if k >= 0 else others[-1 - k])[0] for k in ks] for ks in cell["by"]]
        assert shown == [[texts[r] for r in rs] for rs in taught]
        assert any(k < 0 for ks in cell["by"] for k in ks)


def test_what_a_teacher_read_is_shown_where_it_is_no_rollout(make, tmp_path):
    prompts, _ = make.batch(np.random.default_rng(0))
    fields = {"teacher_contexts": ["<b>", "two"], "teacher_context": [[0], [1], [0, 1], []]}
    run = tmp_path / "seed_0/opsd"
    evaluations = {5: {"id": {"id/0": make.rollouts(np.random.default_rng(1), 4)}}}
    make.write_run(run, evaluations, {5: (prompts, dict.fromkeys(prompts, fields))})
    found, _ = embedded(browser.section(load_study(tmp_path), 10**6))
    cell = found["opsd", 0, 5, "train", "train/1"]
    assert [[cell["read"][k] for k in ks] for ks in cell["reads"]] == [["<b>"], ["two"], ["<b>", "two"], []]


def test_prompts_that_lost_strategies_come_first(make, tmp_path):
    def group(*names):
        return [(["a0"], name, True, [-0.1]) for name in names]

    before = {f"id/{i}": group("birds", "fruits", "tools") for i in range(4)}
    after = {"id/0": group("birds", "fruits", "tools"), "id/1": group("birds", "birds", "tools")}
    after |= {"id/2": group("birds", "birds", "birds"), "id/3": group("fruits", "tools", "tools")}
    make.write_run(tmp_path / "seed_0/sdsd_k1", {0: {"id": before}, 9: {"id": after}}, draw=False)
    data = json.loads(browser.section(load_study(tmp_path), 10**6).data)
    assert list(dict.fromkeys(data["prompts"][c["q"]]["id"] for c in data["cells"])) == [
        *("id/2", "id/1", "id/3", "id/0")
    ]


def test_runs_that_share_no_prompts_are_shown_beside_each_other(make, tmp_path):
    for method in ("one", "two"):
        prompts = {f"{method}/{i}": make.rollouts(np.random.default_rng(i), 4) for i in range(2)}
        make.write_run(tmp_path / "seed_0" / method, {3: {"id": prompts}})
    found, _ = embedded(browser.section(load_study(tmp_path), 10**6))
    assert {where[::4] for where in found} == {(m, f"{m}/{i}") for m in ("one", "two") for i in range(2)}


@pytest.mark.parametrize("budget", [40_000, 60_000, 120_000, 300_000])
def test_the_budget_is_kept_and_used(make, tmp_path, budget):
    make.write_study(tmp_path, seeds=(0, 1), prompts=12, n=64)
    study = load_study(tmp_path)
    section = browser.section(study, budget)
    size = sum(len(text.encode()) for text in section)
    found, data = embedded(section)
    whole = len(browser.section(study, 10**8).data)
    assert 0.5 * budget < size <= budget < whole
    assert {where[3] for where in found} >= {"id", "harder"}
    limit = max(len(cell["of"]) for cell in found.values())
    note = " ".join(section.html.split())
    assert (f"the first {limit} rollouts" in note) == (limit < 64)
    shown = {where[4] for where in found if where[1] == 0 and where[3] == "id"}
    assert f"id {len(shown)} of 12" in note or f"to {len(shown)} of 12" in note
    for where in found:  # a prompt comes with all methods and steps
        if where[3] != "train":
            assert {w[0] for w in found if w[1:2] + w[3:] == where[1:2] + where[3:]} == {
                m for m, _ in data["methods"]
            }


def test_a_run_of_many_steps_shows_the_first_the_last_and_some_between(make, tmp_path):
    prompts = {"id/0": make.rollouts(np.random.default_rng(0), 4)}
    make.write_run(tmp_path / "seed_0/grpo", {t: {"id": prompts} for t in range(0, 110, 10)})
    section = browser.section(load_study(tmp_path), 10**6)
    assert sorted(where[2] for where in embedded(section)[0]) == [0, 20, 50, 80, 100]
    assert "Left out: steps 10, 30, 40, 60, 70, 90." in section.html


def test_runs_without_details_and_broken_files(make, tmp_path):
    make.write_study(tmp_path, with_details=False)
    found, data = embedded(browser.section(load_study(tmp_path), 10**6))
    row = lines(tmp_path / "seed_0/grpo", 50, "id")[1]
    assert [s[0] for s in samples(found["grpo", 0, 50, "id", "id/1"], data)] == row["completion"]
    torn = tmp_path / "seed_0/grpo/rollouts/step_000050"
    (torn / "id.details.npz").write_bytes(b"PK torn")
    (torn / "harder.jsonl").write_text('{"prompt_id": "harder/0", "compl')
    (tmp_path / "seed_0/sdsd_k1/rollouts/step_000100/id.jsonl").unlink()
    section = browser.section(load_study(tmp_path), 10**6)
    assert "id.details.npz" in section.html and "harder.jsonl" in section.html
    assert ("sdsd_k1", 0, 50, "id", "id/1") in embedded(section)[0]


def test_a_study_without_rollouts_says_so(tmp_path):
    (tmp_path / "seed_0/grpo").mkdir(parents=True)
    (tmp_path / "seed_0/grpo/config.json").write_text("{}")
    (tmp_path / "seed_0/grpo/evaluations.jsonl").write_text("")
    section = browser.section(load_study(tmp_path), 10**6)
    assert "No rollouts are on disk." in section.html and json.loads(section.data)["cells"] == []


def test_no_text_leaves_the_script_that_holds_it(make, tmp_path):
    words = (
        "</script><script>alert(1)</script>",
        "<!--",
        "]]>",
        "&lt;",
        "\u2028",
        "\u2029",
        "\ud800",
        "\x00",
    )
    group = [([word], word, True, [-0.5]) for word in words]
    make.write_run(tmp_path / "seed_0/<img src=x>", {1: {"id<script>": {"<p>": group}}})
    section = browser.section(load_study(tmp_path), 10**6)
    assert section.data.isascii() and not set("<>&") & set(section.data)
    found, data = embedded(section)
    cell = found["<img src=x>", 0, 1, "id<script>", "<p>"]
    assert [s[:2] for s in samples(cell, data)] == [(word, word) for word in words]
    page = section.html + f'<script type="application/json" id="rollout-data">{section.data}</script>'
    seen = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append(tag)
    parser.feed(page)
    assert seen.count("script") == 1 and "img" not in seen


@pytest.mark.parametrize(
    "text", ["a b c", "naïve 🙂🙂 x", "  two  spaces ", "", "aaaa", "日本語 text\n\nmore\tthere"]
)
@pytest.mark.parametrize("how", ["words", "pieces", "bytes", "strange"])
def test_a_text_is_cut_into_its_tokens_and_nothing_is_lost(text, how):
    pieces = {
        "words": text.split(),
        "pieces": [text[i : i + 2] for i in range(0, len(text), 2)],
        "bytes": [bytes([b]).decode(errors="replace") for b in text.encode()],
        "strange": ["zzz", "", " ", *text.split()[::-1], "<eos>"],
    }[how]
    parts = cells.split_text(text, pieces)
    assert "".join(parts) == text
    assert len(parts) == len(pieces) or not pieces
    if how == "pieces":
        assert parts == pieces
    if how == "words":
        assert [part.strip() for part in parts] == pieces


def test_log_probabilities_are_kept_to_a_four_hundredth_nat():
    logp = np.array([0.0, -1e-4, -0.123, -5.0, -20.4, -50.0, -math.inf, math.nan])
    said = cells.coded(logp)
    numbers = [
        -(DIGITS.index(said[i]) * 64 + DIGITS.index(said[i + 1])) / 200 for i in range(0, len(said), 2)
    ]
    assert numbers[:5] == pytest.approx(logp[:5], abs=1 / 400) and set(numbers[5:]) == {-4095 / 200}
