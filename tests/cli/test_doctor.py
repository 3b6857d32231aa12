"""``sdd doctor``: what it says of this machine, against the system's own words, and of configs."""

import importlib.metadata
import json
import os
import shutil
import tomllib
from pathlib import Path

import jax
import pytest

from sdd import build, cli, experiment, initial
from sdd import config as config_lib
from sdd.doctor import machine, needs

ROOT = Path(__file__).parents[2]
SMOKE = str(ROOT / "experiments" / "concept_graph" / "smoke.py")


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr("sys.path", list(__import__("sys").path))


def doctor(capsys, *args):
    code = cli.main(["doctor", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_machine(capsys, tmp_path):
    code, out, err = doctor(capsys, "--json", f"--workdir={tmp_path}/not/there")
    found = json.loads(out)
    assert (code, err, found["problems"]) == (0, "", [])
    assert found["devices"]["local"] == len(jax.local_devices()) == 8
    assert found["devices"]["platform"] == "cpu" and found["devices"]["memory"] is None
    assert found["disk"]["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert 0 < found["host"]["free"] <= found["host"]["memory"]
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert found["host"]["memory"] <= int(meminfo["MemTotal"].split()[0]) * 1024 + 4096
    assert found["cache"]["folder"] == os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert found["packages"]["jax"]["version"] == importlib.metadata.version("jax")
    assert "XLA_FLAGS" in found["environment"]
    code, text, _ = doctor(capsys)
    assert code == 0 and "8 x cpu (cpu)" in text and text.endswith("fine\n")


def test_every_extra_says_what_it_gives():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(machine.EXTRAS) == set(project["optional-dependencies"])


def test_versions_against_what_is_asked_for(monkeypatch, capsys):
    versions = {"jax": "0.4.30", "numpy": "2.4.6", "jaxtyping": "1.0", "tensorboardX": "2.6"}
    asked = [
        "jax>=0.10.2",
        "numpy",
        "absent>=2",
        "jaxtyping; python_version >= '3'",
        "never; python_version < '3'",
        "tensorboardX; extra == 'tensorboard'",
        "jax[tpu]; extra == 'tpu'",
        "reasoning-gym; extra == 'gym'",
    ]

    class Metadata(dict):
        def get_all(self, name):
            return self.get(name)

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    fake = Metadata({"Requires-Python": [">=3.99"], "Provides-Extra": ["tensorboard", "tpu", "gym"]})
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: fake)
    requires = {"sdd": asked, "jax": ["jaxlib", "libtpu; extra == 'tpu'"]}
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires.get(name))
    monkeypatch.setattr(importlib.metadata, "version", version)
    found = machine.software()
    fits = {name: package["fits"] for name, package in found["packages"].items()}
    assert fits == {"jax": False, "numpy": True, "absent": False, "jaxtyping": True}
    missing = {name: extra["missing"] for name, extra in found["extras"].items()}
    assert missing == {"tensorboard": [], "tpu": ["jax[tpu]"], "gym": ["reasoning-gym"]}
    versions["libtpu"] = "1"
    assert machine.software()["extras"]["tpu"]["missing"] == []
    code, out, err = doctor(capsys)
    assert code == 1 and "fine" not in out
    assert "sdd: jax: 0.4.30; valid: >=0.10.2;" in err and "sdd: absent: not installed" in err
    assert "valid: >=3.99" in err and err.count("\n") == 3


def test_variables_that_matter(capsys):
    given = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--x", "HOME": "/", "TPU_NAME": "a", "JAX_API_TOKEN": "b"}
    assert machine.variables(given) == {
        "JAX_API_TOKEN": "(not shown)",
        "JAX_PLATFORMS": "cpu",
        "TPU_NAME": "a",
        "XLA_FLAGS": "--x",
    }
    os.environ |= {"JAX_NUM_PROCESSES": "2", "LIBTPU_INIT_ARGS": "a\x1b[31mb"}
    _, out, _ = doctor(capsys)
    assert "a run here is one process of several (JAX_NUM_PROCESSES)" in out
    assert "LIBTPU_INIT_ARGS=a\\x1b[31mb" in out


def test_an_accelerator_that_jax_does_not_use(monkeypatch, tmp_path):
    (tmp_path / "nvidia0").write_text("")
    monkeypatch.setattr(
        machine, "ACCELERATORS", {"gpu": ("a GPU", f"{tmp_path}/nvidia*"), "tpu": ("a TPU", "/no/*")}
    )
    assert machine.accelerators() == ["gpu"]
    missing = {"extras": {"gpu": {"missing": ["jax[cuda13]"]}}}
    assert "pip install 'sdd[gpu]'" in machine.hidden_accelerator("cpu", missing)
    assert "the driver" in machine.hidden_accelerator("cpu", {"extras": {"gpu": {"missing": []}}})
    assert machine.hidden_accelerator("gpu", missing) == ""


def test_a_config_needs_what_a_run_makes(tmp_path):
    """Parameters and checkpoint against the state that a run would start with."""
    config = config_lib.resolve(experiment.get_config(experiment.load(SMOKE)))
    need = needs.of_config(config)
    parts = build.make_parts(config, tmp_path)
    with jax.set_mesh(parts.mesh):
        state = initial.first_state(config, parts)
    leaves = jax.tree.leaves(state)
    assert need["parameters"] == sum(x.size for x in jax.tree.leaves(state.params))
    assert need["checkpoint"] == sum(x.nbytes for x in leaves)
    assert need["checkpoints"] == need["checkpoint"] * (config.train.keep_checkpoints + 1)
    shards = [sum(s.data.nbytes for s in x.addressable_shards[:1]) for x in jax.tree.leaves(state.params)]
    assert need["bytes_per_device"]["parameters"] == sum(shards)
    assert set(need["bytes_per_device"]["phases"]) == {"update", "sampling", "evaluation"}


def test_what_does_not_fit_is_one_line_each(capsys, monkeypatch, tmp_path):
    code, out, err = doctor(capsys, SMOKE)
    assert (code, err) == (0, "") and " parameters; a device holds " in out
    monkeypatch.setattr(machine, "host", lambda: {"cores": 2, "memory": 10, "free": 10, "system": "x"})
    monkeypatch.setattr(machine, "disk", lambda f: {"folder": str(f), "free": 99, "writable": True})
    code, out, err = doctor(capsys, SMOKE, f"--config.train.init_from={tmp_path}/no", "--json")
    assert code == 1 and json.loads(out)["problems"] == [line[5:] for line in err.splitlines()]
    memory, start, disk = err.splitlines()
    assert "of 1e-05 MB free on this machine" in memory and "remat=full" in memory
    assert start.endswith("/no': nothing is there") and "checkpoints take" in disk


def test_memory_is_that_of_a_device_where_it_has_its_own():
    need = {"total": 100, "checkpoints": 10, "init_from": ""}
    machine_ = {
        "devices": {"memory": 99, "local": 8},
        "host": {"free": 10**12},
        "disk": {"free": 10, "folder": "x"},
    }
    assert len(needs.problems({"": need}, machine_)) == 1
    machine_["devices"]["memory"] = 100
    assert needs.problems({"": need}, machine_) == []
    assert len(needs.problems({"a": need, "b": need}, machine_)) == 1  # both leave checkpoints on the disk


def test_a_study_and_slips(capsys, tmp_path):
    study = str(ROOT / "experiments" / "concept_graph" / "study.py")
    code, out, _ = doctor(capsys, study, "--json", "--config.methods=grpo")
    assert code == 0 and list(json.loads(out)["config"]) == ["warm_start", "grpo"]
    code, _, err = doctor(capsys, SMOKE, "--config.step.num_dmos=3")
    assert code == 2 and err.count("\n") == 1 and "nearest: config.step.num_demos" in err
    code, _, err = doctor(capsys, SMOKE, "--config.mesh.data=3")
    assert code == 2 and "does not fill 8 devices" in err
    assert doctor(capsys, SMOKE, "stray")[0] == 2
    (tmp_path / "study.py").write_text(
        "import ml_collections\nget_config = ml_collections.ConfigDict\nrun = 1\n"
    )
    code, _, err = doctor(capsys, str(tmp_path / "study.py"))
    assert code == 2 and "a study without resolve(config)" in err
