"""Small runs, in this process on one device or as processes of their own, and what they leave behind."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import rich.console

from sdd import build, experiment, loop, mesh
from sdd import config as config_lib

HERE = Path(__file__).parent
SMALL = HERE / "small.py"


@pytest.fixture(scope="module")
def one_device():
    """The mesh (1, 1, 1), although conftest.py splits the CPU; and modules in this folder can be named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        patch.setattr(mesh, "make_mesh", functools.partial(mesh.make_mesh, devices=jax.devices()[:1]))
        # What is made from equal configs is traced once: a run then takes a second, most of it its own.
        parts = functools.cache(lambda config: build.make_parts(config, Path()))
        patch.setattr(loop, "make_parts", lambda config, data_dir: parts(config))
        yield patch


@pytest.fixture(scope="module")
def small(one_device):
    """``(section_field=value, ...) -> RunConfig`` of small.py with changes."""

    def build(**changes):
        run = config_lib.resolve(experiment.get_config(experiment.load(SMALL)))
        for name, value in changes.items():
            section, field = name.split("_", 1)
            part = dataclasses.replace(getattr(run, section), **{field: value})
            run = dataclasses.replace(run, **{section: part})
        return run

    return build


@pytest.fixture(scope="module")
def quiet_run():
    """``(config, folder) -> what the terminal showed``; raises what the run raises."""

    def run(config, folder):
        with open(os.devnull, "w") as nowhere:
            console = rich.console.Console(file=nowhere, record=True, width=500)
            try:
                loop.run(config, folder, console)
            finally:
                folder.joinpath("terminal.txt").write_text(console.export_text())
        return folder.joinpath("terminal.txt").read_text()

    return run


@pytest.fixture(scope="module")
def undisturbed(small, quiet_run, tmp_path_factory):
    """The run folder of small.py, never interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    quiet_run(small(), folder)
    return folder


@pytest.fixture(scope="session")
def leaves():
    """``(folder) -> {file: content}``: what must not depend on how often a run was started."""

    def read(folder):
        steps = [int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]
        last = folder / "checkpoints" / str(max(steps)) / "meta" / "metadata"
        files = {name: (folder / name).read_text() for name in ("metrics.jsonl", "evaluations.jsonl")}
        files |= {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("rollouts/*/*")}
        return files | {"last checkpoint": (max(steps), json.loads(last.read_text()))}

    return read


@pytest.fixture(scope="session")
def start():
    """``(folder, signal=0, at=0, **environment) -> Popen`` of ``sdd run small.py`` on one device."""

    def begin(folder, signal=0, at=0, flags=(), **environment):
        variables = {
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
            "EASY_SIGNAL": str(int(signal)),
            "EASY_AT": str(at),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "sdd", "run", str(SMALL), f"--workdir={folder}", *flags],
            env=os.environ | variables | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin
