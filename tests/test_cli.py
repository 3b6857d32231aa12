import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from sdd import cli, report, shell

STUB = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Config:
    num_demos: int = 1
    kind: str = "plain"

def make(config):
    return config
"""

EXPERIMENT = '''
"""What this file is for."""
from sdd import config

def get_config():
    c = config.default("cli_stub", "cli_stub")
    c.train.num_steps = 20
    return c
'''

STUDY = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict({"methods": ("a", "b"), "num_steps": 0})

def run(config, workdir, seeds):
    from sdd import loop
    loop.run((config.to_dict(), seeds), workdir)
"""


class Stopped(Exception):
    pass


class NonFiniteError(RuntimeError):
    pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository with an experiment and a study; leaves the process's environment and path alone."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "cli_stub.py").write_text(STUB)
    (tmp_path / "cli_stub_other.py").write_text(STUB.replace("num_demos", "num_others"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.py").write_text(EXPERIMENT)
    (tmp_path / "deep" / "study.py").write_text(STUDY)
    yield tmp_path
    for name in ("cli_stub", "cli_stub_other"):
        sys.modules.pop(name, None)


@pytest.fixture
def loop(monkeypatch):
    """A stand-in for sdd.loop that keeps what it was called with, and raises what it is told to."""
    module = types.ModuleType("sdd.loop")
    module.Stopped, module.NonFiniteError, module.calls, module.fails = Stopped, NonFiniteError, [], None

    def run(config, workdir, console=None):
        module.calls.append((config, workdir))
        if module.fails:
            raise module.fails

    module.run = run
    monkeypatch.setitem(sys.modules, "sdd.loop", module)
    monkeypatch.setattr("sdd.loop", module, raising=False)
    return module


def refusal(capsys, *args) -> str:
    """The one line on stderr of a command line with exit code 2."""
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("sdd: ")
    return err


def run_one(folder, *args) -> int:
    return cli.main(["run", str(folder / "deep" / "one.py"), "--workdir=out", *args])


def test_run_resolves_the_config_and_calls_the_loop(folder, loop):
    assert run_one(folder) == 0
    ((config, workdir),) = loop.calls
    assert config.train.num_steps == 20
    assert config.step.options.num_demos == 1
    assert workdir == "out"


def test_overrides(folder, loop):
    args = [
        "--config.step.num_demos=3",
        "--config.optimizer.learning_rate=1",
        "--config.eval.ks=1,2,4",
        "--config.eval.splits=id,harder",
        "--config.step.kind=fancy",
        "--config.writers.tensorboard",
        "--noconfig.writers.progress",
        "--config.model.token_shift=true",
        "--config.train.num_steps=30",
        "--config.train.num_steps=40",
    ]
    assert run_one(folder, *args) == 0
    config = loop.calls[0][0]
    assert config.step.options.num_demos == 3
    assert config.optimizer.learning_rate == 1.0
    assert config.eval.ks == (1, 2, 4)
    assert config.eval.splits == ("id", "harder")
    assert config.step.options.kind == "fancy"
    assert config.writers.tensorboard is True
    assert config.writers.progress is False
    assert config.model.token_shift is True
    assert config.train.num_steps == 40  # the last one counts


@pytest.mark.parametrize(
    ("text", "value"), [("id", ("id",)), ("('id',)", ("id",)), ("", ()), ("id, harder", ("id", "harder"))]
)
def test_tuples_of_text(folder, loop, text, value):
    assert run_one(folder, f"--config.eval.splits={text}") == 0
    assert loop.calls[0][0].eval.splits == value


def test_a_single_number_does_for_a_tuple(folder, loop):
    assert run_one(folder, "--config.eval.ks=4") == 0
    assert loop.calls[0][0].eval.ks == (4,)


def test_another_step_by_flag_takes_its_own_keys(folder, loop):
    args = ["--config.step.num_others=5", "--config.step.name=cli_stub_other"]
    assert run_one(folder, *args) == 0
    assert loop.calls[0][0].step.options.num_others == 5


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        (
            "--config.step.num_dmos=3",
            ["config.step.num_dmos='3': unknown key", "nearest: config.step.num_demos"],
        ),
        (
            "--config.learning_rate=3",
            ["config.learning_rate='3': unknown key", "nearest: config.optimizer.learning_rate"],
        ),
        ("--config.train=3", ["config.train='3': a section", "--config.train."]),
        ("--config.train.num_steps=abc", ["config.train.num_steps='abc'", "valid: a whole number (int)"]),
        ("--config.train.num_steps=1.5", ["config.train.num_steps='1.5'", "valid: a whole number (int)"]),
        ("--config.optimizer.b1=high", ["config.optimizer.b1='high'", "valid: a number (float)"]),
        (
            "--config.writers.progress=maybe",
            ["config.writers.progress='maybe'", "valid: True or False (bool)"],
        ),
        (
            "--config.train.num_steps",
            ["--config.train.num_steps: not a switch", "--config.train.num_steps=VALUE"],
        ),
        ("--noconfig.writers.progress=true", ["--config.writers.progress=false"]),
        ("--config.eval.ks=1,b", ["config.eval.ks[0]='1'", "a whole number (int)"]),
        ("--config.optimizer.schedule=lineer", ["config.optimizer.schedule='lineer'", "nearest: 'linear'"]),
        ("--config.train.num_steps=0", ["config.train.num_steps=0", "valid: 1 or more"]),
        ("--config.step.name=cli_stub_othr", ["config.step.name='cli_stub_othr'", "cli_stub_other"]),
        ("--mesh.fsdp=4", ["unknown flag --mesh.fsdp", "did you mean --config.mesh.fsdp=...?"]),
        ("--sedes=4", ["unknown flag --sedes", "nearest: --seeds"]),
        ("--seeds=0", ["seeds", "0", "positive integer"]),
        ("--seeds=2", ["--seeds=2", "is no study", "--config.seed=0"]),
        ("--force_cpu_devices=x", ["force_cpu_devices", "x"]),
        ("stray", ["unexpected argument 'stray'", "--config.KEY=VALUE"]),
    ],
)
def test_run_refuses_in_one_line(folder, loop, capsys, arg, said):
    line = refusal(capsys, "run", str(folder / "deep" / "one.py"), "--workdir=out", arg)
    for text in said:
        assert text in line
    assert loop.calls == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", ["has no get_config()"]),
        ("def get_config(:\n", ["bad.py:1: SyntaxError"]),
        ("\nimport absent_of_this_test\n", ["bad.py:2: ModuleNotFoundError", "absent_of_this_test"]),
        ("def get_config():\n    return 3\n", ["returned a value of type int", "ConfigDict"]),
        ("def get_config():\n    return {}['steps']\n", ["bad.py:2: KeyError: 'steps'"]),
        (
            EXPERIMENT.replace("= 20", "= 'many'"),
            ["bad.py:7: TypeError"],
        ),
    ],
)
def test_config_files_that_do_not_work(folder, loop, capsys, text, said):
    (folder / "bad.py").write_text(text)
    line = refusal(capsys, "run", str(folder / "bad.py"), "--workdir=out")
    for part in said:
        assert part in line


def test_usage(folder, capsys):
    file = str(folder / "deep" / "one.py")
    assert "--workdir" in refusal(capsys, "run", file)
    assert "needs a config file" in refusal(capsys, "run", "--workdir=out")
    assert "nearest: 'one.py'" in refusal(capsys, "run", file.replace("one", "onne"), "--workdir=out")
    assert "no folder" in refusal(capsys, "run", str(folder / "no" / "one.py"), "--workdir=out")
    line = refusal(capsys, "rum")
    assert "'rum'" in line and "nearest: run" in line and "valid: run, watch" in line
    assert "no folder is given" in refusal(capsys, "report")
    assert "several folders need --out" in refusal(capsys, "report", str(folder), str(folder))
    assert "no folder" in refusal(capsys, "report", str(folder / "nothing"))
    assert cli.main([]) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_study_gets_its_config_and_its_seeds(folder, loop):
    file = str(folder / "deep" / "study.py")
    assert cli.main(["run", file, "--workdir=out", "--seeds=3", "--config.methods=b"]) == 0
    assert cli.main(["run", file, "--workdir=out"]) == 0
    assert loop.calls == [
        (({"methods": ("b",), "num_steps": 0}, 3), "out"),
        (({"methods": ("a", "b"), "num_steps": 0}, 1), "out"),
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [(Stopped("saved at step 7"), 75), (NonFiniteError("10 in a row"), 70), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(folder, loop, capsys, error, code):
    loop.fails = error
    assert run_one(folder) == code
    err = capsys.readouterr().err
    assert str(error) in err
    assert err.count("\n") == 1
    assert f"  {code} " in cli.help_text()


def test_a_config_error_of_the_loop_is_usage_and_a_failure_is_not(folder, loop, capsys):
    from sdd.config import ConfigError

    loop.fails = ConfigError("mesh: does not fill 3 devices")
    assert run_one(folder) == 2
    assert capsys.readouterr().err == "sdd: mesh: does not fill 3 devices\n"
    loop.fails = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        run_one(folder)


def test_report_of_a_study_and_of_a_run(folder, monkeypatch, capsys):
    calls = []
    page = folder / "report.html"
    monkeypatch.setattr(report, "write_study_report", lambda path, console: calls.append(("study", path)))
    monkeypatch.setattr(report, "write_run_report", lambda path, console: calls.append(("run", path)) or page)
    assert cli.main(["report", str(folder)]) == 0
    (folder / "config.json").write_text("{}")
    assert cli.main(["report", str(folder)]) == 0
    assert calls == [("study", folder), ("run", folder)]
    assert str(page) in capsys.readouterr().out

    def refuse(path, console):
        raise ValueError("no metrics.jsonl")

    monkeypatch.setattr(report, "write_run_report", refuse)
    assert "no metrics.jsonl" in refusal(capsys, "report", str(folder))


def test_environment_is_set_once_and_what_is_set_stays(monkeypatch, tmp_path):
    environment = {
        "XDG_CACHE_HOME": str(tmp_path),
        "XLA_FLAGS": "--xla_other=1 --xla_force_host_platform_device_count=8",
    }
    monkeypatch.setattr(os, "environ", environment)
    shell.prepare_environment(0)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "sdd" / "jax")
    assert "JAX_PLATFORMS" not in environment
    environment["JAX_COMPILATION_CACHE_DIR"] = "elsewhere"
    shell.prepare_environment(2)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    assert environment["XLA_FLAGS"] == "--xla_other=1 --xla_force_host_platform_device_count=2"
    assert environment["JAX_PLATFORMS"] == "cpu"


def test_help_needs_no_heavy_package():
    code = (
        "import sys; from sdd.cli import main\n"
        "assert main(['--help']) == 0 and main(['run', '--help']) == 0\n"
        "heavy = {'jax', 'flax', 'ml_collections', 'matplotlib', 'rich', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke" in result.stdout


def test_help_shows_every_command_with_an_example():
    text = cli.help_text()
    for name, command in cli.COMMANDS.items():
        assert f"\n  {name} " in text and command.summary in text and command.example in text
        assert f"sdd {name} " in command.example
        assert "JAX" not in command.summary
    for code, said in shell.CODES.items():
        assert f"\n  {code:<4d} {said}\n" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_every_command(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"sdd {name}: ")
    for part in ("\nusage:\n", "\nexamples:\n", "\nexit codes:\n  0 "):
        assert part in text
    _, _, examples = text.partition("\nexamples:\n")
    assert f"sdd {name}" in examples.splitlines()[0]
    given = dict(re.findall(r"^  (\d+) +(.+)$", text.rpartition("exit codes:")[2], re.MULTILINE))
    assert set(map(int, given)) <= set(shell.CODES)
    assert max(map(len, text.splitlines())) <= 115


def test_help_takes_little_time():
    """Time of the processor, not of the clock: other work on the machine does not count."""
    process = subprocess.Popen([sys.executable, "-m", "sdd", "--help"], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0 and used.ru_utime + used.ru_stime < 0.3


def test_exit_codes_are_those_of_the_documentation():
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert {int(code): said for code, said in rows} == {
        c: s.replace("sdd plan", "`sdd plan`")
        .replace("sdd doctor", "`sdd doctor`")
        .replace("--fail-if", "`--fail-if`")
        for c, s in shell.CODES.items()
    }


def test_python_m_sdd_passes_the_exit_code_on():
    result = subprocess.run(
        [sys.executable, "-m", "sdd", "nonsense"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "unknown command 'nonsense'" in result.stderr


def test_help_of_a_file_lists_its_keys(folder, capsys):
    assert cli.main(["run", str(folder / "deep" / "one.py"), "--help", "--config.step.num_demos=2"]) == 0
    out = capsys.readouterr().out
    assert "What this file is for." in out
    assert "  --config.step.num_demos=2\n" in out
    assert "  --config.eval.splits=id,larger,harder\n" in out
