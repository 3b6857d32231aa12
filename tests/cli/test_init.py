"""``sdd init``: what it writes passes as it is, in a folder of its own, and trains."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdd import cli

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "sdd" / "scaffold" / "templates"


def python(folder, *args):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-m", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder outside of any repository with the files of one of each kind."""
    folder = tmp_path_factory.mktemp("fresh")
    for kind in ("method", "task", "metric"):
        code, said = python(folder, "sdd", "init", f"my_{kind}", f"--kind={kind}")
        assert code == 0, said
        assert said.splitlines()[:3] == [f"my_{kind}.py", f"my_{kind}_config.py", f"test_my_{kind}.py"]
    return folder


def test_no_placeholder_is_left_and_the_code_is_tidy(written):
    files = sorted(path.name for path in written.glob("*.py"))
    assert len(files) == 9
    for name in files:
        text = (written / name).read_text()
        assert not re.search(r"my_name|MY_PATH", text), name
        assert len(text.splitlines()) < 120
    code, said = python(written, "ruff", "check", f"--config={ROOT / 'pyproject.toml'}", ".")
    assert code == 0, said


def test_the_quick_tests_pass_as_written(written):
    code, said = python(written, "pytest", "-q", "-k", "not trains and not run_measures")
    assert code == 0, said
    assert re.search(r"\b11 passed", said), said


@pytest.mark.slow
def test_all_tests_pass_as_written(written):
    code, said = python(written, "pytest", "-q")
    assert code == 0, said
    assert re.search(r"\b14 passed", said), said


def test_the_tests_of_the_method_notice_a_wrong_baseline(written, tmp_path):
    for path in written.glob("*my_method*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    code = (tmp_path / "my_method.py").read_text()
    own_left_out = "(reward_BxG.sum(axis=1, keepdims=True) - reward_BxG) / (group_size - 1)"
    assert own_left_out in code
    (tmp_path / "my_method.py").write_text(
        code.replace(own_left_out, "reward_BxG.mean(axis=1, keepdims=True)")
    )
    code, said = python(tmp_path, "pytest", "-q", "-k", "gradient")
    failed = "FAILED test_my_method.py::test_the_expected_gradient_is_that_of_the_expected_reward[True]"
    assert code == 1 and failed in said and "1 failed, 1 passed" in said, said


@pytest.mark.slow
def test_the_method_trains(written):
    command = ("sdd", "run", "my_method_config.py", "--workdir=run", "--config.train.num_steps=2")
    code, said = python(written, *command, "--config.model.num_layers=1", "--config.eval.splits=id")
    assert code == 0, said
    lines = [json.loads(line) for line in (written / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and all(line["skipped"] == 0 for line in lines)


def test_in_a_repository_the_config_names_the_whole_path(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "rloo_too", "--dir=research/methods"]) == 0
    capsys.readouterr()
    text = (tmp_path / "research" / "methods" / "rloo_too_config.py").read_text()
    assert 'step="research.methods.rloo_too"' in text
    assert cli.main(["init", "other", "--dir=a-b"]) == 2
    assert "no config can name a module in 'a-b'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("2nd", "is no name of a module"),
        ("my-method", "is no name of a module"),
        ("a.b", "is no name of a module"),
        ("../up", "is no name of a module"),
        ("méthode", "is no name of a module"),
        ("class", "is no name of a module"),
        ("", "is no name of a module"),
        ("json", "is a module of Python"),
        ("numpy", "is an installed module"),
        ("sdd", "is an installed module"),
    ],
)
def test_names_that_cannot_be(tmp_path, monkeypatch, capsys, name, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", name]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_mine.py").write_text("precious")
    assert cli.main(["init", "mine"]) == 2
    assert "test_mine.py exists already, nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert cli.main(["init", "other", "--kind=optimizer"]) == 2
    assert cli.main(["init"]) == 2


@pytest.mark.parametrize(
    ("template", "page", "first"), [("task", "add_a_task", "task"), ("metric", "add_a_metric", "metrics")]
)
def test_templates_are_those_of_the_documentation(template, page, first):
    """One example of each, so that there is one to keep right."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    code = re.search(rf"```python\n# my_package/my_{first}.py\n(.*?)```", text, re.DOTALL)[1]
    code = code.replace("effective_strategies", "my_name").replace('name="divisors"', 'name="my_name"')
    assert (TEMPLATES / f"{template}.py").read_text() == code
