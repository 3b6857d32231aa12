import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sdd import report
from sdd.claims.runs import load_study
from sdd.report import html, page, summary

# Every figure is drawn in these tests, so a study is made and reported once.
HOSTILE = "<script>alert(1)</script>\x1b[31mred\u202egnirts\x00 \ud800 [bold]x[/bold] & \"q\" '$x_1$'"


def printed(function, *args):
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    result = function(*args, console)
    return result, console.file.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory, maker):
    study = maker.write_study(tmp_path_factory.mktemp("study"), seeds=(0, 1))
    folder = study / "seed_0/sdsd_k1"
    path = folder / "rollouts/step_000300/harder.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["completion"] = [HOSTILE] * 64
    rows[0]["prompt"] = HOSTILE
    rows[0]["strategy"] = [HOSTILE] * 64
    maker.write_lines(path, rows)
    event = {"step": 250, "event": "runaway", "message": "teacher fell " + HOSTILE}
    maker.write_lines(folder / "events.jsonl", [{"step": 9, "event": "resumed", "message": ""}, event, event])
    return study


@pytest.fixture(scope="module")
def reported(study):
    return printed(report.write_study_report, study)


@pytest.fixture(scope="module")
def text(study, reported):
    return (study / "report.html").read_text(encoding="utf-8")


def test_writes_claims_figures_and_page(study, reported):
    claims, _ = reported
    assert json.loads((study / "claims.json").read_text()) == claims
    names = {"pass_at_k", "diversity_over_steps", "plane", "teacher_health"}
    assert {path.stem for path in (study / "figures").glob("*.png")} == names
    for path in (study / "figures").glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.width > 500 and np.asarray(image.convert("L")).std() > 5  # not blank
    assert (study / "report.html").stat().st_size < 3_000_000


def test_page_needs_no_network_and_runs_nothing(text):
    assert not re.search(r"<script|<link|<iframe|\son\w+=|(src|href)=\"(?!data:image/png;base64,)", text)
    assert "default-src 'none'" in text


def test_hostile_rollout_is_text(text):
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\\x1b[31mred\\u202egnirts\\x00 \\ud800" in text


def test_terminal_shows_data_as_text(reported):
    _, out = reported
    assert "\x1b" not in out and "\u202e" not in out
    assert "[bold]x[/bold]" in out and "runaway" in out
    assert "SDSD, K = 1" in out and "✓ │ C1" in out


def test_headline_states_the_claims_numbers(text, reported):
    claims, _ = reported
    line = re.search(r'<p class="headline">(.*?)</p>', text)[1]
    for estimate in (
        claims["C1"],
        claims["C3"],
        claims["C4"],
        claims["C4"]["details"]["distinct_against_grpo"],
    ):
        for end in ("value", "low", "high"):
            assert f"{estimate[end]:+.3f}".replace("-", "−") in line
    assert "matches GRPO" in line and "fewer distinct" in line and "6 of 6 claims hold" in line


def test_headline_follows_the_numbers(maker, tmp_path):
    study = maker.write_study(tmp_path, counts=maker.NO_LOSS)
    from sdd.claims import compute

    line = page.headline(compute(load_study(study)))
    assert ("it finds more distinct" in line and "1 of 6 claims hold" in line) or "2 of 6" in line
    assert "fewer distinct correct strategies among 32 draws than GRPO" not in line


def test_runaway_is_prominent(text, reported):
    runaway = {name: claim["details"].get("runaway") for name, claim in reported[0].items()}
    assert runaway["C1"] == ["sdsd_k1 (seed 0): runaway at step 250"] and runaway["C5"] is None
    assert text.index("runaway: SDSD, K = 1, seed 0, step 250 (2 times)") < text.index("<h2>Claims</h2>")
    assert "no verdict of the verifier enters its target" in text
    assert "Careful: sdsd_k1 (seed 0): runaway at step 250" in text


def test_final_table_agrees_with_direct_numbers(study):
    rows = summary.final_rows(load_study(study))
    means = []
    for seed in (0, 1):
        path = study / f"seed_{seed}/grpo/rollouts/step_000300/harder.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        means.append(
            [
                np.mean([np.mean(r["correct"]) for r in records]),
                np.mean([max(map(r["strategy"].count, r["strategy"])) / 64 for r in records]),
            ]
        )
    row = rows["grpo", "harder"]
    expected = np.mean(means, axis=0)
    assert [row.metrics[n]["value"] for n in ("pass@1", "top_strategy_share")] == pytest.approx(expected)
    assert row.curve[1]["value"] == pytest.approx(row.metrics["pass@1"]["value"])
    assert list(row.curve) == [1, 2, 4, 8, 16, 32, 64]


def test_run_report_of_an_unfinished_run(tmp_path, maker):
    evaluations = {
        0: {"id": maker.records("id", (9, 5, 4, 3, 2), 6, 32, 0.5, seed=0)},
        50: {"id": maker.records("id", (20, 5, 1, 0, 0), 6, 32, 0.5, seed=1)},
    }
    maker.write_run(tmp_path / "my <b>method", evaluations, num_steps=300)
    path, out = printed(report.write_run_report, tmp_path / "my <b>method")
    text = path.read_text()
    assert "seed 0: step 50 of 300" in text and "my &lt;b&gt;method" in text and "<b>" not in text
    assert "unfinished" in out and (path.parent / "figures/diversity_over_steps.png").exists()


def test_run_report_without_rollouts(tmp_path, maker):
    maker.write_run(tmp_path / "grpo", {0: {"id": [maker.row("a", "id", (40, 0, 0, 0, 0), 0.5)]}})
    (tmp_path / "grpo/rollouts/step_000000/id.jsonl").unlink()
    text = report.write_run_report(tmp_path / "grpo").read_text()
    assert "No final rollouts" in text


def test_study_with_one_method(tmp_path, maker):
    counts = {"grpo": maker.COUNTS["grpo"]}
    claims, out = printed(report.write_study_report, maker.write_study(tmp_path, counts=counts))
    assert all(claim["holds"] is None for claim in claims.values())
    assert "sdsd_k1 (seed 0): not run" in out.replace("\n", " ")
    assert "No claim could be decided" in (tmp_path / "report.html").read_text()


def test_study_of_a_task_without_strategies(tmp_path, maker):
    counts = {name: maker.COUNTS[name] for name in ("warm_start", "grpo")}
    study = maker.write_study(tmp_path, counts=counts)
    for path in study.rglob("rollouts/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        maker.write_lines(path, [row | {"strategy": [None] * len(row["strategy"])} for row in rows])
    report.write_study_report(study)
    assert not (study / "figures/plane.png").exists() and (study / "figures/pass_at_k.png").exists()
    assert "no strategy: " in (study / "report.html").read_text()


def test_text_is_cut_and_escaped():
    assert html.text("a\nb\tc<") == "a\nb\\tc&lt;"
    assert html.text("x" * 30, limit=10) == "x" * 10 + " ... (20 more characters)"
    assert html.tag("p", html.tag("b", "<i>")) == "<p><b>&lt;i&gt;</b></p>"
