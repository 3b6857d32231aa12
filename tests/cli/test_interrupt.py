"""Ctrl-C in real processes: once ends a command in one line, twice even in the middle of a compiler."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SLOW = """
import hashlib, sys, time, types
from sdd import cli

def run(args):
    print("at work", flush=True)
    if args == ["python"]:
        time.sleep(100)
    elif args == ["run"]:
        from sdd.signals import stop_on_signal

        with stop_on_signal("test") as asked:
            print("ready", flush=True)
            while not asked():
                time.sleep(0.01)
            print("saving", flush=True)
            time.sleep(100)
    else:  # one instruction of Python, in which its handlers do not run
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)
    return 0

sys.modules["slow"] = types.SimpleNamespace(run=run, HELP="")
cli.COMMANDS["slow"] = cli.Command("slow", "", "")
sys.exit(cli.main())
"""

SLEEPING = """
import time
from pathlib import Path

def get_config():
    with open(Path(__file__).with_name("fifo"), "rb") as fifo:
        fifo.read()
"""


@contextlib.contextmanager
def opened(fifo, process):
    """A FIFO that nobody writes, open once the process reads it."""
    while process.poll() is None:
        try:
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no reader yet
            time.sleep(0.05)
            continue
        yield
        os.close(writer)
        return
    raise AssertionError(f"ended before it read: {process.communicate()}")


def start(*command, folder=None):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_twice_ends_a_process_that_is_not_in_python():
    process = start("-c", SLOW, "slow")
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "sdd: interrupted\n")
    assert time.monotonic() - began < 20


def test_once_ends_what_is_in_python():
    process = start("-c", SLOW, "slow", "python")
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "sdd: interrupted\n")


def test_a_run_saves_after_the_first_and_ends_at_the_second():
    process = start("-c", SLOW, "slow", "run")
    assert [process.stdout.readline() for _ in range(2)] == ["at work\n", "ready\n"]
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "SIGINT: saving and stopping\nsdd: interrupted\n")


@pytest.mark.parametrize(
    ("command", "fifo"),
    [
        ("theory . . --out=out", "evaluations.jsonl"),
        ("run config.py --workdir=out", "fifo"),
        ("doctor config.py", "fifo"),
    ],
)
def test_commands_end_in_one_line(tmp_path, command, fifo):
    """Each waits for a file that nobody writes when Ctrl-C comes."""
    os.mkfifo(tmp_path / fifo)
    (tmp_path / "config.py").write_text(SLEEPING)
    process = start("-m", "sdd", *command.split(), folder=tmp_path)
    with opened(tmp_path / fifo, process):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=100)
    assert (process.returncode, error) == (130, "sdd: interrupted\n")


def test_a_reader_that_has_stopped_reading():
    process = start(
        "-c", SLOW.replace('print("at work", flush=True)', "[print(i) for i in range(10**6)]"), "slow"
    )
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 1
    assert error == "sdd: whoever read the output has stopped reading\n"
