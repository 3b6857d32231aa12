"""A command ``sdd`` on a PATH of its own, and a repository with a run folder and an experiment in it."""

import os
import stat
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXPERIMENT = '''
"""What this file is for."""
from sdd import config

def get_config():
    return config.default("sdd.tasks.concept_graph", "sdd.steps.sdsd")
'''


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a new user's shell that finds this sdd."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "sdd"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sdd "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    paths = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return os.environ | paths | {"TERM": "dumb", "HOME": str(folder)}


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "one.py").write_text(EXPERIMENT)
    (tmp_path / "experiments" / "helper.py").write_text("x = 1\n")
    for run in ("runs/lone", "runs/study/seed_0/grpo"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.json").write_text("{}")
    return tmp_path
