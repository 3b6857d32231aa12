"""Golden files, scripts that a shell would accept, and a program that keeps sdd's contract without jax."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]

STAND_IN = '''
"""Counts to --count, and exits as sdd does: 75 after SIGTERM, with the number saved for the next start.

--fail=CODE: process 0 ends with CODE, and all others with 76, but only at the first start. What a sweep
sets is read as well: --config.fail, and --config.save, the seconds that saving takes.
"""
import os, pathlib, signal, sys, time

options = {"count": "2", "config.save": "0.5"}
options |= dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
place = os.environ.get("SLURM_PROCID", os.environ.get("JAX_PROCESS_ID", "0"))
folder = pathlib.Path(options["workdir"])
folder.mkdir(parents=True, exist_ok=True)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
saved = folder / f"count_{place}"
count = int(saved.read_text()) if saved.exists() else 0


def log(text):
    print(text, flush=True)
    with open(folder / f"log_{place}", "a") as file:
        file.write(text + chr(10))


first = not (folder / f"log_{place}").exists()
log(f"start {count}")
fail = options.get("fail", options.get("config.fail", "0"))
if first and fail != "0":
    time.sleep(0.2 if place == "0" else 0.6)
    sys.exit(int(fail) if place == "0" else 76)
while count < int(options["count"]):
    time.sleep(0.1)
    count += 1
    if asked:
        time.sleep(float(options["config.save"]))
        saved.write_text(str(count))
        log(f"saved {count}")
        sys.exit(75)
log(f"finished {count}")
'''


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares a text with a golden file; paths of this checkout and this Python read the same anywhere.

    To write the files anew: ``UPDATE_GOLDEN=1 python -m pytest tests/launch``, and look at the difference.
    """

    def check(name: str, text: str) -> None:
        text = text.replace(sys.executable, "python").replace(str(ROOT), "/checkout")
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs; UPDATE_GOLDEN=1 writes it anew"

    return check


@pytest.fixture
def valid_bash() -> Callable[[str], None]:
    """``bash -n`` and, where it is installed, shellcheck accept a script."""

    def check(script: str) -> None:
        result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert result.returncode == 0 and not result.stderr, result.stderr
        if shutil.which("shellcheck"):
            command = ["shellcheck", "--shell=bash", "-"]
            result = subprocess.run(command, input=script, capture_output=True, text=True)
            assert result.returncode == 0, result.stdout

    return check


@pytest.fixture
def stand_in(tmp_path) -> Path:
    """A folder in which ``python -m sdd`` is the program above."""
    (tmp_path / "sdd").mkdir()
    (tmp_path / "sdd" / "__init__.py").touch()
    (tmp_path / "sdd" / "__main__.py").write_text(STAND_IN)
    return tmp_path
