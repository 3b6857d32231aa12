import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch import local

SCRIPT = Path(local.__file__)


def dry_run(*arguments: str, **variables: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, SCRIPT, "--dry_run", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return shlex.split(result.stdout)


def test_dry_run_prints_the_variables_and_the_command():
    assert dry_run("--devices", "3", "--", "run", "my config.py", "--workdir=runs/$HOME") == [
        "JAX_PLATFORMS=cpu",
        "XLA_FLAGS=--xla_force_host_platform_device_count=3",
        *(sys.executable, "-m", "sdd", "run", "my config.py", "--workdir=runs/$HOME"),
    ]


def test_flags_of_the_command_are_its_own():
    words = dry_run("--", "run", "c.py", "--devices=5", "--dry_run", "--", "x")
    assert words[-5:] == ["c.py", "--devices=5", "--dry_run", "--", "x"]


def test_other_xla_flags_stay_and_an_old_device_count_goes():
    old = "--xla_dump_to=/x --xla_force_host_platform_device_count=2 --xla_cpu_enable_fast_math=false"
    words = dry_run("--devices=4", "--", "run", XLA_FLAGS=old)
    flags = "--xla_dump_to=/x --xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=4"
    assert words[1] == f"XLA_FLAGS={flags}"


def test_the_printed_line_is_what_is_executed(monkeypatch, capsys):
    executed = []
    monkeypatch.setattr(local.os, "execve", lambda *arguments: executed.append(arguments))
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/x")
    local.main(["--devices=2", "--", "run", "c.py"])
    local.main(["--devices=2", "--dry_run", "--", "run", "c.py"])
    [(program, command, variables)] = executed
    assert program == command[0] == sys.executable
    words = shlex.split(capsys.readouterr().out)
    assert words[2:] == command
    assert words[:2] == [f"{name}={variables[name]}" for name in ("JAX_PLATFORMS", "XLA_FLAGS")]


def test_jax_sees_that_many_devices():
    count = "import jax; print(jax.device_count())"
    variables = local.environment(3, "")
    result = subprocess.run(
        [sys.executable, "-c", count], env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["3"]


@pytest.mark.parametrize("arguments", [["--devices=0", "--", "run"], ["--devices=2"], ["--devices=2", "--"]])
def test_mistakes_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit):
        local.main(arguments)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--devices=0: valid: 1 or more" in last or "put the command of sdd after --" in last
