"""Every launcher command of the documentation is one that its launcher accepts."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^ *```(?:bash)?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    blocks = [block.replace("\\\n", " ") for block in FENCE.findall(page.read_text())]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("python launch/")]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_launchers_accept_what_is_documented(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for _, path, *arguments in commands(page):
        launcher = importlib.import_module(f"launch.{Path(path).stem}")
        action = [arguments.pop(0)] if path.endswith("tpu_pod.py") else []
        if "--table" not in arguments:  # which is as harmless, and writes a file
            assert launcher.main([*action, "--dry_run", *arguments]) == 0
    capsys.readouterr()


def test_the_commands_are_found():
    found = {words[1] for words in commands(ROOT / "docs" / "pods.md")}
    assert found == {f"launch/{name}.py" for name in ("local", "tpu_pod", "gke", "slurm", "sweep")}
