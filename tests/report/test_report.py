import base64
import csv
import hashlib
import html as std_html
import io
import json
import re

import html5lib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sdd import report
from sdd.claims.runs import load_study
from sdd.report import html, load, summary, tables, words

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
    for other in (study / "seed_0").glob("*/rollouts/step_*/harder.jsonl"):  # the methods share prompts
        rows = [json.loads(line) for line in other.read_text().splitlines()]
        maker.write_lines(other, [rows[0] | {"prompt": HOSTILE}, *rows[1:]])
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
    names = {"pass_at_k", "over_steps", "plane", "prompts", "teacher", "training"}
    assert {path.stem for path in (study / "figures").glob("*.png")} == names
    assert {path.stem for path in (study / "figures").glob("*.svg")} == names
    for path in (study / "figures").glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.width > 500 and np.asarray(image.convert("L")).std() > 5  # not blank
    assert (study / "report.html").stat().st_size < 3_000_000


def test_page_is_well_formed_and_asks_for_nothing(text):
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    for element in document.iter():
        for name, value in element.attrib.items():
            assert not str(name).startswith("on"), (element.tag, name)
            assert name not in ("src", "href") or value.startswith("#"), (element.tag, value)
        assert element.tag not in ("link", "iframe", "img", "object")
    ids = [element.attrib["id"] for element in document.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))


def test_only_the_scripts_of_the_page_may_run(text):
    policy = std_html.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', text)[1])
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 3  # the library, the page, the rollout browser
    assert re.search(r"script-src ([^;]*)", policy)[1].split() == [f"'sha256-{digest}'" for digest in digests]


def shown_data(text):
    return json.loads(re.search(r'<script type="application/json" id="report-data">(.*?)</script>', text)[1])


def records(packed):
    columns = {
        name: [column["levels"][code] for code in column["codes"]] if isinstance(column, dict) else column
        for name, column in packed.items()
    }
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def test_hostile_names_are_text(text):
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\\x1b[31mred\\u202egnirts\\x00 \\ud800" in text
    point = next(r for r in records(shown_data(text)["datasets"]["prompts"]) if "alert" in r["text"])
    assert point["text"].startswith("<script>alert(1)</script>\\x1b[31mred\\u202egnirts")


def test_terminal_shows_data_as_text(reported):
    _, out = reported
    assert "\x1b" not in out and "\u202e" not in out
    assert "[bold]x[/bold]" in out and "runaway" in out
    assert "SDSD, K = 1" in out and "✓ │ C1" in out


def test_headline_states_the_claims_numbers(text, reported):
    claims, _ = reported
    line = std_html.unescape(re.search(r'<p class="headline">(.*?)</p>', text)[1])
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

    line = words.headline(compute(load_study(study)))
    assert ("it finds more distinct" in line and "1 of 6 claims hold" in line) or "2 of 6" in line
    assert "fewer distinct correct strategies among 32 draws than GRPO" not in line


def test_runaway_is_prominent(text, reported):
    runaway = {name: claim["details"].get("runaway") for name, claim in reported[0].items()}
    assert runaway["C1"] == ["sdsd_k1 (seed 0): runaway at step 250"] and runaway["C5"] is None
    assert text.index("runaway: SDSD, K = 1, seed 0, step 250 (2 times)") < text.index(">Claims</h2>")
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
    assert "seed 0: step 50 of 300" in text and "my &lt;b&gt;method" in text and "<b>m" not in text
    assert "in distribution, against the first evaluation</strong>: pass@1 " in text
    assert "unfinished" in out and (path.parent / "figures/over_steps.svg").exists()


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
    assert "lost a strategy" not in (study / "report.html").read_text()


def test_text_is_cut_and_escaped():
    assert html.text("a\nb\tc<") == "a\nb\\tc&lt;"
    assert html.text("x" * 30, limit=10) == "x" * 10 + " ... (20 more characters)"
    assert html.tag("p", html.tag("b", "<i>")) == "<p><b>&lt;i&gt;</b></p>"


def test_curves_and_points_agree_with_the_files(study, text):
    data = shown_data(text)["datasets"]
    path = study / "seed_0/grpo/rollouts/step_000300/id.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [r for r in records(data["prompts"]) if (r["method"], r["split"]) == ("GRPO", "in distribution")]
    assert [r["prompt"] for r in found] == [row["prompt_id"] for row in rows]
    assert [r["pass_end"] for r in found] == pytest.approx([np.mean(r["correct"]) for r in rows], rel=1e-4)
    start = study / "seed_0/warm_start/rollouts/step_001300/id.jsonl"
    for point, row, first in zip(found, rows, map(json.loads, start.read_text().splitlines())):
        had, has = ({s for s, correct in zip(r["strategy"], r["correct"]) if correct} for r in (first, row))
        assert point["lost"] == (", ".join(sorted(had - has)) or "none")
        assert point["gained"] == (", ".join(sorted(has - had)) or "none")
    values = []
    for seed in (0, 1):
        lines = (study / f"seed_{seed}/sdsd_k1/evaluations.jsonl").read_text().splitlines()
        values += [
            e["metrics"]["token_entropy"]["value"]
            for e in map(json.loads, lines)
            if (e["step"], e["split"]) == (200, "harder")
        ]
    place = {"method": "SDSD, K = 1", "split": "harder", "metric": "token entropy (nats)", "step": 200}
    point = next(r for r in records(data["over_steps"]) if place.items() <= r.items())
    numbers = (point["value"], point["low"], point["high"])
    assert numbers == pytest.approx((np.mean(values), min(values), max(values)), rel=1e-4)


def test_csv_holds_the_numbers(study, text):
    rows = summary.final_rows(load_study(study))
    with (study / "tables/final.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    line = next(r for r in read if (r["split"], r["method"]) == ("harder", "GRPO"))
    for end in ("value", "low", "high"):
        column = "pass@1" if end == "value" else f"pass@1 {end}"
        assert float(line[column]) == rows["grpo", "harder"].metrics["pass@1"][end]
    assert (study / "tables/final.csv").read_text() == shown_data(text)["tables"]["final"]["csv"]


def test_latex_is_whole_and_escaped(study):
    for path in (study / "tables").glob("*.tex"):
        lines = path.read_text().splitlines()
        columns = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[1])[1]
        body = [line for line in lines[2:] if line.endswith(r" \\")]
        assert len(body) == len(lines) - 6 and lines[-1] == r"\end{tabular}"
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body} == {len(columns)}, path
        assert not re.search(r"(?<!\\)[#%_]", "".join(body))
    assert tables.escape(r"50% of a_b & c\d {x} ~^") == (
        r"50\% of a\_b \& c\textbackslash{}d \{x\} \textasciitilde{}\textasciicircum{}"
    )


def test_words_follow_the_intervals():
    up, down, unclear = ({"value": v, "low": v - 0.1, "high": v + 0.1} for v in (0.3, -0.3, 0.05))
    assert words._verb(up).startswith("rose (+0.300") and words._verb(down).startswith("fell (−0.300")
    assert words._verb(unclear).startswith("did not clearly change")


def test_several_folders_are_compared(tmp_path, maker):
    counts = {name: maker.COUNTS[name] for name in ("warm_start", "grpo")}
    for name in "ab":
        maker.write_study(tmp_path / name, counts=counts, prompts=4, final=4)
    study = load.load([tmp_path / "a", tmp_path / "b"])
    assert study.methods == ("a/grpo", "a/warm_start", "b/grpo", "b/warm_start")
    assert load.start_of(study, "b/grpo") == "b/warm_start"
    runs = [tmp_path / "a/seed_0/grpo", tmp_path / "b/seed_0/warm_start"]
    assert load.load(runs).methods == ("warm_start", "grpo")
    page = report.write_report(runs, tmp_path / "out/page.html")
    assert page.exists() and (tmp_path / "out/tables/change.csv").exists()
    assert not (tmp_path / "claims.json").exists()


def test_many_methods_stay_apart():
    from sdd.report import look

    names = ["warm_start", *look.STYLES, *look._LABELS, *(f"mine_{i}" for i in range(6))]
    names = list(dict.fromkeys(names))
    styles = [look.style(name, names) for name in names]
    assert len({(s.color, s.dash, s.shape) for s in styles}) == len(names) > 20
    assert look.style("simko", names) == look.style("simko", ["simko"])  # not by its place in the study


def test_page_of_a_run_that_is_being_written(tmp_path, maker):
    folder = tmp_path / "grpo"
    folder.mkdir()
    (folder / "config.json").write_text('{"seed": 0, "train": {"num_steps"')
    assert "No final rollouts" in report.page_of(folder)
    record = maker.row("a", "id", (30, 2, 0, 0, 0), 0.5, wrong=32)
    maker.write_run(folder, {0: {"id": [record]}, 10: {"id": [record]}}, num_steps=300)
    for name in ("evaluations.jsonl", "metrics.jsonl", "events.jsonl", "timings.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 20, "spl')
    (folder / "rollouts/step_000010/id.jsonl").write_text('{"prompt_id": "a", "comp')
    text = report.page_of([folder])
    assert "over_steps" in text and "No final rollouts" in text
    (folder / "evaluations.jsonl").unlink()
    assert "No final rollouts" in report.page_of(folder)
    with pytest.raises(ValueError, match="no runs found"):
        report.page_of(tmp_path / "nothing")


def test_without_the_packages_one_line_says_what_to_install(tmp_path, maker, monkeypatch):
    monkeypatch.setattr(report, "missing", lambda: ["altair"])
    study = maker.write_study(tmp_path, counts={"grpo": maker.COUNTS["grpo"]}, prompts=4, final=4)
    _, out = printed(report.write_study_report, study)
    assert "altair not installed; pip install 'sdd[report]'" in out.replace("\n", " ")
    assert (study / "claims.json").exists() and not (study / "report.html").exists()
    with pytest.raises(ModuleNotFoundError, match="a report needs altair"):
        report.page_of(study)
