import dataclasses
import errno
import json
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sdd import config, runfolder
from sdd.config import ConfigError

HOLD = """
import sys
import types
from pathlib import Path
from sdd import runfolder
with runfolder.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def run():
    return config.resolve(config.default("sdd.tasks.concept_graph", "sdd.steps.sdsd"))


def test_another_process_is_refused_until_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="is in use by another process"), runfolder.locked(tmp_path):
            pass
        other.kill()  # no clean end: the lock goes with the process
        other.wait()
    with runfolder.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    folder, message = tmp_path / "file" / "run", r"cannot be written \(Not a directory\)"
    with pytest.raises(ConfigError, match=message) as caught, runfolder.locked(folder):
        pass
    assert "\n" not in str(caught.value)


def test_the_first_difference_is_named(run, tmp_path):
    runfolder.check_owner(tmp_path, run)
    runfolder.claim(tmp_path, run)
    runfolder.check_owner(tmp_path, run)
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, width=128))
    with pytest.raises(ConfigError, match=r"^config\.model\.width=128: .* was begun with 64; use that value"):
        runfolder.check_owner(tmp_path, other)


def test_what_does_not_change_the_run_may_change(run, tmp_path):
    runfolder.claim(tmp_path, run)
    other = dataclasses.replace(
        run, mesh=config.MeshConfig(fsdp=2), writers=config.WriterConfig(progress=False)
    )
    runfolder.check_owner(tmp_path, other)


def test_a_key_that_is_new_or_gone_is_named(run, tmp_path):
    runfolder.claim(tmp_path, run)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    values["train"]["old_key"] = values["train"].pop("num_steps")
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"^config\.train\.num_steps=300: .* was begun with None"):
        runfolder.check_owner(tmp_path, run)
    file.write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        runfolder.check_owner(tmp_path, run)


def test_only_the_disk_is_put_in_one_line(tmp_path):
    for error in (OSError(errno.ENOENT, "No such file"), ValueError("x"), ConfigError("y")):
        with pytest.raises(type(error)) as caught, runfolder.full_disk_in_one_line(tmp_path):
            raise error
        assert caught.value is error
    for number in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        caught = pytest.raises(ConfigError, match="/some/file cannot be used")
        with caught, runfolder.full_disk_in_one_line(tmp_path):
            raise OSError(number, "text", "/some/file")


def test_a_batch_comes_back(tmp_path):
    batch = {"tokens": jnp.arange(6).reshape(2, 3), "factor": jnp.array([jnp.nan, 1.0])}
    arrays = np.load(runfolder.write_batch(tmp_path, 7, batch))
    assert {name: arrays[name].tolist() for name in arrays}["['tokens']"] == [[0, 1, 2], [3, 4, 5]]
    np.testing.assert_array_equal(arrays["['factor']"], [np.nan, 1.0])


def test_environment_names_versions_and_devices():
    found = runfolder.environment()
    assert found["num_devices"] == 8 and found["platform"] == "cpu" and "jax" in found["versions"]


def test_a_disk_without_room_for_a_checkpoint_is_refused(tmp_path, monkeypatch):
    state = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32), "n": np.zeros((), np.int32)}
    runfolder.check_room(epath.Path(tmp_path), state)
    monkeypatch.setattr(runfolder.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=4_000_003))
    with pytest.raises(ConfigError, match=r"0\.00 GB free, a checkpoint takes 0\.00 GB; valid: a folder"):
        runfolder.check_room(epath.Path(tmp_path), state)
    monkeypatch.setattr(runfolder.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=4_000_004))
    runfolder.check_room(epath.Path(tmp_path), state)


def test_a_task_keeps_its_data_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runfolder.data_folder(runfolder.folder(tmp_path / "run")) == tmp_path / "run" / "data"
    remote = runfolder.data_folder(runfolder.folder("gs://bucket/run"))
    assert remote.parent == tmp_path / "sdd" / "data"
    assert remote != runfolder.data_folder(runfolder.folder("gs://bucket/other"))
