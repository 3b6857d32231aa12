"""No text of a model, a file or a path acts on the terminal."""

import io
import json
import os

import pytest
import rich.console

from sdd import cli, job, shell, terminal
from sdd.report import table

# Clears the screen, sets the title, rings, goes back over the line, turns the text around, half a character.
HOSTILE = "a\x1b[2J\x1b]0;title\x07\rb\u202ec\u2066d\x9b1m\ud800"


def harmless(text):
    return all(c == "\n" or c.isprintable() for c in text)


def test_every_character_that_a_terminal_acts_on_is_spelled_out():
    assert terminal.shown(HOSTILE) == "a\\x1b[2J\\x1b]0;title\\x07\\rb\\u202ec\\u2066d\\x9b1m\\ud800"
    assert terminal.shown("two\nlines, as ordinary as ψ → 語 🙂") == "two\nlines, as ordinary as ψ → 語 🙂"
    assert all(harmless(terminal.shown(chr(code))) for code in range(0x11000))


def test_errors(capsys):
    assert shell.say(f"prompt {HOSTILE}", 2) == 2
    assert harmless(capsys.readouterr().err)


def test_what_a_run_says():
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=False, width=500)
    writers = type("Writers", (), {"log_event": lambda self, *given: None})()
    some = job.Job(None, None, None, writers, console, lambda: False)
    job.say(some, f"data: [red]{HOSTILE}")
    job.announce(some, 3, f"e{HOSTILE}", f"e{HOSTILE}: found {HOSTILE}")
    job.announce(some, 3, "damaged", f"checkpoint is damaged ({HOSTILE})")
    assert harmless(file.getvalue()) and "[red]" in file.getvalue() and "\\x1b[2J" in file.getvalue()


def test_tables_of_a_study():
    file = io.StringIO()
    study = type("Study", (), {"path": type("P", (), {"name": HOSTILE})(), "splits": (HOSTILE,)})()
    study.methods, study.seeds = (HOSTILE,), {}
    console = rich.console.Console(file=file, force_terminal=False, width=500)
    console.print(table.results_table(study, {}))
    claim = {"statement": HOSTILE, "holds": None, "value": None, "low": None, "high": None, "details": {}}
    console.print(table.claims_table({"C1": claim}))
    assert harmless(file.getvalue()) and "\\x1b[2J" in file.getvalue()


@pytest.mark.parametrize("field", ["prompt_id", "completion", "strategy", "split"])
def test_what_measure_prints(tmp_path, capsys, field):
    name = HOSTILE.replace("\ud800", "").replace("\x1b]0;", "").replace("/", "")
    path = tmp_path / f"{name}.jsonl"
    lines = [{"prompt_id": f"p{i}", "completion": "x y", "correct": True, "strategy": "s"} for i in range(4)]
    bad = json.dumps(lines[0] | {field: HOSTILE, "correct": 3 if field == "prompt_id" else False})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + bad + "\n" + "{torn\n")
    for flags in ([], ["--skip-bad"], ["--skip-bad", "--baseline", str(path), f"--out={tmp_path / name}"]):
        cli.main(["measure", str(path), "--embedder=none", *flags])
    said = capsys.readouterr()
    assert harmless(said.out) and harmless(said.err)
    assert "\\x1b[2J" in said.out + said.err


@pytest.mark.parametrize("command", ["run", "report", "measure", "convert", "plan", "theory", HOSTILE])
def test_errors_about_what_is_asked_for(capsys, command):
    assert cli.main([command, f"nowhere{os.sep}{HOSTILE}"]) != 0
    said = capsys.readouterr()
    assert harmless(said.out) and harmless(said.err) and said.err
