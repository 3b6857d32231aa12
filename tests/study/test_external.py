"""The study of external demonstrations: what its runs differ in, and which it does not run again."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from experiments.concept_graph import grpo_diversity, sdsd
from experiments.study import external
from sdd import cli, config, experiment, overrides
from sdd.steps import sdft

FILE = Path(external.__file__)


@pytest.fixture
def runs():
    return external.resolve(external.get_config())


def test_the_docstring_opens_with_a_command_that_works():
    command, verb, file, *rest = ast.get_docstring(ast.parse(FILE.read_text())).splitlines()[0].split()
    assert (command, verb) == ("sdd", "run") and FILE.match(f"*/{file}") and rest[0].startswith("--workdir=")
    module = experiment.load(FILE)
    changed = overrides.apply(experiment.get_config(module), ["--config.quick", "--config.num_steps=9"])
    found = module.resolve(changed)
    assert {run.train.num_steps for name, run in found.items() if name != "warm_start"} == {20}


def test_students_are_sdsd_but_for_the_demonstrations(runs):
    reference = config.resolve(sdsd.get_config())
    students = {name: run for name, run in runs.items() if name.startswith(external.STUDENT)}
    assert [run.step.options.demonstrations for run in students.values()] == [
        *("warm_start", "grpo", "grpo_diversity", "grpo_diversity_2")
    ]
    for run in students.values():
        mine, theirs = vars(run.step.options), vars(reference.step.options)
        assert {name: mine[name] for name in theirs} == theirs
        assert isinstance(run.step.options, sdft.Config)
        same = dataclasses.replace(run, step=reference.step, eval=reference.eval)
        assert same == reference
        assert dataclasses.replace(run.eval, every=reference.eval.every) == reference.eval


def test_writers_come_before_their_students_and_differ_in_the_bonus(runs):
    names = list(runs)
    for name, run in runs.items():
        if name.startswith(external.STUDENT):
            assert names.index(run.step.options.demonstrations) < names.index(name)
    plain = config.resolve(grpo_diversity.get_config())
    assert runs["grpo_diversity"] == plain
    assert runs["grpo_diversity_2"].step.options == dataclasses.replace(plain.step.options, bonus=2.0)


def test_a_finished_run_is_used_wherever_it_was_begun(runs, tmp_path):
    run = runs["sdft_grpo"]
    moved = config.to_dict(run)
    moved["train"]["init_from"], moved["step"]["demonstrations"] = "/there/warm", "/there/grpo.jsonl"
    (tmp_path / "config.json").write_text(json.dumps(moved))
    assert not external.finished(tmp_path, run)
    row = {"step": 499, "split": "id", "metrics": {}}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    assert not external.finished(tmp_path, run)
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(row | {"step": 500}) + "\n")
    assert external.finished(tmp_path, run)
    for section, key, value in (("optimizer", "learning_rate", 1.0), ("step", "num_demos", 2)):
        other = json.loads(json.dumps(moved))
        other[section][key] = value
        (tmp_path / "config.json").write_text(json.dumps(other))
        assert not external.finished(tmp_path, run), key


def test_too_few_demonstrations_are_refused(runs, tmp_path, capsys):
    args = ["run", str(FILE), f"--workdir={tmp_path / 'x'}", "--config.num_demonstrations=0"]
    assert cli.main(args) == 2
    assert capsys.readouterr().err.startswith("sdd: config.num_demonstrations=0: ")


@pytest.mark.slow
def test_the_study_runs_and_goes_on(tmp_path, monkeypatch):
    args = ["run", str(FILE), f"--workdir={tmp_path}", "--config.quick"]
    assert cli.main(args) == 0
    found = json.loads((tmp_path / "external.json").read_text())
    assert set(found["sets"]) == {"warm_start", "grpo", "grpo_diversity", "grpo_diversity_2"}
    assert found["C6"]["seeds"] == [0] and (tmp_path / "external.png").exists()
    monkeypatch.setattr("sdd.loop.run", None)  # nothing is left to do
    (tmp_path / "external.json").unlink()
    assert cli.main(args) == 0 and json.loads((tmp_path / "external.json").read_text()) == found
