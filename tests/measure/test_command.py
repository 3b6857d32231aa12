"""``sdd measure`` as it is typed: output, files, exit codes, and one clear line for whatever is wrong."""

import json
import math

import pytest

from sdd import cli


def line(**fields):
    return json.dumps({"prompt_id": "p", "completion": "a b", "correct": True} | fields)


def write(path, lines):
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def after(tmp_path):
    """Twenty prompts, four samples each: all right, one way."""
    return write(
        tmp_path / "after.jsonl",
        [
            line(prompt_id=i, completion=["a b c d"] * 4, correct=[True] * 4, strategy=["x"] * 4)
            for i in range(20)
        ],
    )


@pytest.fixture
def before(tmp_path):
    """The same prompts: half right, four ways."""
    ways = ["w", "x", "y", "z"]
    texts = [f"{way} goes another way {way}" for way in ways]
    right = [True, True, False, False]
    return write(
        tmp_path / "before.jsonl",
        [line(prompt_id=i, completion=texts, correct=right, strategy=ways) for i in range(20)],
    )


def measure(*args):
    return cli.main(["measure", "--embedder=none", *args])


def test_the_json_has_what_a_program_needs(after, before, capsys):
    assert measure(after, "--baseline", before, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["prompts"] == 20 and out["samples"] == 80 and out["shared_prompts"] == 20
    assert out["metrics"]["pass@1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert out["baseline"]["pass@1"]["value"] == pytest.approx(0.5)
    assert out["change"]["distinct@4"]["value"] == pytest.approx(-3)
    assert out["warnings"] == []
    assert out["verdict"].endswith("more right answers, about as many problems within 4 tries, fewer ways")


def test_nothing_that_is_no_json_is_printed(tmp_path, capsys):
    """One sample a prompt: many metrics are undefined, and NaN is no JSON."""
    assert measure(write(tmp_path / "a.jsonl", [line()]), "--json") == 0
    out = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert out["metrics"]["rouge_l"]["value"] is None
    assert out["warnings"] == ["one sample a prompt: diversity within a prompt is undefined"]


def test_the_table_the_sentence_and_the_page(after, before, tmp_path, capsys):
    out = tmp_path / "out"
    assert measure(after, "--baseline", before, "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "pass@1" in printed and "fewer ways" in printed and str(out / "report.html") in printed
    assert {p.name for p in out.iterdir()} == {"report.html", "curves.png", "curves.svg", "metrics.csv"}
    page = (out / "report.html").read_text()
    assert "more right answers" in page and "http" not in page.split("</style>")[1]
    rows = (out / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("metric,file_value,file_low") and rows[1].startswith("pass@1,1.0,1.0,1.0,")


@pytest.mark.parametrize(
    ("condition", "code"),
    [("distinct@4 < 0.8 * baseline", 3), ("distinct@4 < 0.2 * baseline", 0), ("pass@1.change.high < 0", 0)],
)
def test_the_exit_code_of_a_condition(after, before, condition, code, capsys):
    assert measure(after, "--baseline", before, "--fail-if", condition) == code
    assert ("holds" in capsys.readouterr().err) == bool(code)


def test_bad_lines_stop_it_or_are_counted(after, tmp_path, capsys):
    lines = (tmp_path / "after.jsonl").read_text().splitlines()
    path = write(tmp_path / "bad.jsonl", [*lines[:3], line(correct=math.nan), *lines[3:], '{"prompt_id": 1'])
    assert measure(path) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"sdd: {path}:4: correct is NaN; valid: ") and message.count("\n") == 1
    assert measure(path, "--skip-bad", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["samples"] == 80
    assert out["warnings"][0].startswith(f"2 bad lines left out, the first: {path}:4: correct is NaN")


def test_unequal_sizes_are_said(tmp_path, capsys):
    lines = [line(prompt_id=i, completion=["a b"] * 4, correct=[True] * 4) for i in range(9)]
    path = write(tmp_path / "a.jsonl", [*lines, line(prompt_id="few", completion=["a"], correct=[False])])
    assert measure(path, "--k=1,4", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["metrics"]["pass@1"]["value"] == pytest.approx(0.9)
    assert out["metrics"]["pass@4"]["value"] == pytest.approx(1)
    assert [w.split(":")[0] for w in out["warnings"]] == ["samples a prompt differ (1 to 4)", "k = 4"]
    assert "1 of 10 prompts have fewer samples and are left out of @4" in out["warnings"][1]


def test_splits_are_named_and_chosen(tmp_path, capsys):
    lines = [line(split=s, prompt_id=i, correct=s == "easy") for s in ("easy", "hard") for i in range(3)]
    path = write(tmp_path / "a.jsonl", lines)
    assert measure(path, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["prompts"] == 6 and "easy (3 prompts), hard (3 prompts)" in out["warnings"][0]
    assert measure(path, "--json", "--split=hard") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["prompts"] == 3 and out["metrics"]["pass@1"]["value"] == 0
    assert out["warnings"][0] == "3 completions of other splits than 'hard' left out"


def test_an_embedders_name_is_in_its_metrics(after, capsys):
    assert cli.main(["measure", after, "--json", "--embedder=wordllama"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["metrics"]["vendi[wordllama]"]["value"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "no file is given"),
        (("{after}", "--k=0"), "--k 0: the largest prompt has 4 samples; valid: 1 to 4"),
        (("{after}", "--k=5"), "--k 5: the largest prompt has 4 samples; valid: 1 to 4"),
        (("{after}", "--k=two"), "'two' is no list of numbers"),
        (("{after}", "--formt=sdd"), "unrecognized arguments: --formt=sdd"),
        (("{after}", "--format=vrl"), "format vrl: unknown; valid: auto"),
        (("{after}", "--embedder=wordlama"), "nearest: wordllama"),
        (("{after}", "--fail-if=distinct@4 < baseline"), "there is no baseline"),
        (("{after}", "--fail-if=distinct@4"), "not a condition"),
        (("{after}", "--baseline", "{other}"), "share no prompt"),
        (("{after}", "--split=x"), "no completion is of split 'x'"),
        (("{after}", "--out={after}"), "exists and is no folder"),
        (("{after}", "--workers=-1"), "--workers"),
        (("nowhere.jsonl",), "nowhere.jsonl: no such file"),
        (("{empty}",), "an empty file"),
    ],
)
def test_what_cannot_be_done_is_one_line(args, says, after, tmp_path, capsys):
    other = write(tmp_path / "other.jsonl", [line(prompt_id="another")])
    names = {"after": after, "other": other, "empty": write(tmp_path / "empty.jsonl", [])}
    assert measure(*(a.format(**names) for a in args)) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and captured.out == ""
