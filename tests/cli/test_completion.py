"""What the last word of a command line may become, asked directly and through real shells."""

import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdd import cli
from sdd.completion import words

COMPLETION = Path(words.__file__).parent


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture(autouse=True)
def here(repository, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))


def test_commands_and_their_options():
    assert words.complete([""]) == sorted([*cli.COMMANDS, "--help", "--version"])
    assert words.complete(["re"]) == ["report"]
    assert words.complete(["run", "--w"]) == ["--workdir="]
    assert {"--topology=", "--fit", "--json", "--help"} <= set(words.complete(["plan", "--"]))
    for name in cli.COMMANDS:
        assert "--help" in words.complete([name, "-"])


def test_config_files_have_get_config():
    assert words.complete(["run", ""]) == ["experiments/"]
    assert words.complete(["run", "experiments/"]) == ["experiments/one.py"]
    assert words.complete(["run", "experiments/one.py", ""]) == []


def test_run_folders():
    assert words.complete(["watch", "runs/"]) == ["runs/lone", "runs/study", "runs/study/"]
    assert words.complete(["run", "experiments/one.py", "--workdir=runs/l"]) == ["--workdir=runs/lone"]
    assert words.complete(["report", "runs/study/seed_0/"]) == ["runs/study/seed_0/grpo"]


def test_keys_and_values_of_the_given_file():
    def after(*given):
        return words.complete(["run", "experiments/one.py", *given])

    assert "--config.step.num_demos=" in after("--config.st")
    assert "--config.step.num_demos=" not in after("--config.step.name=sdd.steps.grpo", "--config.st")
    assert "--config.step.clip_low=" in after("--config.step.name=sdd.steps.grpo", "--config.st")
    assert after("--noconfig.writers.p") == ["--noconfig.writers.progress"]
    assert after("--config.writers.progress=") == [
        f"--config.writers.progress={v}" for v in ("false", "true")
    ]
    assert after("--config.step.name=sdd.steps.grpo_d") == ["--config.step.name=sdd.steps.grpo_diversity"]
    assert words.complete(["run", "experiments/absent.py", "--config.st"]) == []


def run_shell(environment, *command):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


CASES = [
    ("sdd rep", {"report"}),
    ("sdd run experiments/", {"experiments/one.py"}),
    ("sdd run experiments/one.py --workdir=runs/l", {"--workdir=runs/lone"}),
    ("sdd plan experiments/one.py --topology=v5p:4", {"--topology=v5p:4x4x4"}),
]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash(environment, line, expected):
    """The function that bash calls, with bash's own cut of the line: it wants what follows the last = or :"""
    cut = re.split(r"[ ]|(?<==)|(?<=:)", line)
    script = (
        f"source {COMPLETION / 'sdd.bash'}; COMP_LINE={line!r}; COMP_POINT={len(line)}; "
        f'_sdd sdd {cut[-1]!r} x; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    found = run_shell(environment, "bash", "--norc", "-c", script)
    start = line.split()[-1]
    prefix = start[: max(start.rfind("="), start.rfind(":")) + 1]
    assert {prefix + each for each in found if each} == expected


@needs("fish")
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish(environment, line, expected):
    script = f"source {COMPLETION / 'sdd.fish'}; complete -C {line!r}"
    assert expected == {each for each in run_shell(environment, "fish", "--no-config", "-c", script) if each}


def typed(environment, shell, start, keys, wanted, seconds=30):
    """What a terminal shows after keys were typed at a shell's prompt, once it holds what is wanted."""
    # pty.spawn in a process of its own: this one has threads, and should not be forked.
    spawn = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *shell]
    process = subprocess.Popen(
        spawn, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    shown = b""
    try:
        # Keys that arrive before the prompt are echoed by the terminal, and not read by the line editor.
        prompt = re.compile(rb"ready\r.*@@ ", re.DOTALL)
        for text, until in (
            (f"PS1='@''@ '; {start}; echo rea''dy\n", prompt),
            (keys, re.compile(re.escape(wanted.encode()))),
        ):
            process.stdin.write(text.encode())
            end = time.monotonic() + seconds
            while not until.search(shown) and time.monotonic() < end:
                if select.select([process.stdout], [], [], 0.2)[0]:
                    shown += os.read(process.stdout.fileno(), 4096)
    finally:
        process.kill()
        process.communicate()
    return shown.decode(errors="replace")


@pytest.mark.parametrize(
    ("shell", "start"),
    [
        (["bash", "--norc", "--noprofile", "-i"], 'eval "$(sdd completion bash)"'),
        pytest.param(
            ["zsh", "-f", "-i"],
            'autoload -U compinit; compinit -u -D; eval "$(sdd completion zsh)"',
            marks=needs("zsh"),
        ),
    ],
)
def test_the_tab_key(environment, shell, start):
    wanted = "--workdir=runs/lone"
    shown = typed(environment | {"TERM": "xterm"}, shell, start, "sdd run x.py --workdir=runs/l\t", wanted)
    assert wanted in shown
    # A folder that goes on is not ended by a space, and what is complete is.
    shown = typed(environment | {"TERM": "xterm"}, shell, start, "sdd run exp\tone\tXX", "XX")
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert re.sub(r"[\x07\x08 ]", "", plain).endswith("experiments/one.pyXX")


def test_a_shell_that_there_is_not_is_refused(capsys):
    assert cli.main(["completion", "csh"]) == 2
    assert (
        capsys.readouterr().err
        == "sdd: sdd completion got csh; valid: bash, zsh, fish (see sdd completion --help)\n"
    )
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == (COMPLETION / "sdd.bash").read_text()
