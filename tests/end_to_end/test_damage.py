"""A checkpoint that a disk or a person damaged: the one before is used, the damaged one is kept aside."""

import gc
import json
import shutil

import pytest

from sdd.config import ConfigError


def truncate(folder):
    """The largest file of arrays loses its second half."""
    file = max(folder.glob("params/**/d/*"), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(folder):
    """One bit in the middle of an array."""
    file = max(folder.glob("rest/**/d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


def forge(folder):
    """A file that decodes and says something else: only the digest can notice."""
    file = folder / "meta" / "metadata"
    meta = json.loads(file.read_text())
    meta["digest"][".step"] += 1
    file.write_text(json.dumps(meta))


def lose_metadata(folder):
    (folder / "params" / "manifest.ocdbt").unlink()


def lose_meta(folder):
    shutil.rmtree(folder / "meta")


# orbax leaves coroutines behind when a read fails, and Python says so when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def copy(undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    yield folder
    gc.collect()


@pytest.mark.parametrize("damage", [truncate, flip, forge, lose_metadata, lose_meta])
def test_the_one_before_is_used(small, quiet_run, undisturbed, leaves, copy, damage):
    damage(copy / "checkpoints" / "6")
    shown = quiet_run(small(), copy)
    assert "damaged_checkpoint: checkpoint 6 is damaged" in shown and "resuming from step 4" in shown
    [event] = [json.loads(e) for e in (copy / "events.jsonl").read_text().splitlines() if "damaged" in e]
    assert (event["event"], event["step"]) == ("damaged_checkpoint", 4)
    assert "using step 4" in event["message"]
    assert leaves(copy) == leaves(undisturbed)
    assert sorted(p.name for p in (copy / "checkpoints").iterdir()) == ["4", "6", "damaged_6"]


def test_damaged_twice_at_the_same_step(small, quiet_run, undisturbed, leaves, copy):
    for _ in range(2):
        truncate(copy / "checkpoints" / "6")
        quiet_run(small(), copy)
    assert leaves(copy) == leaves(undisturbed)
    names = sorted(p.name for p in (copy / "checkpoints").iterdir())
    assert names == ["4", "6", "damaged_6", "damaged_6_2"]


def test_all_damaged(small, quiet_run, copy):
    for step in ("4", "6"):
        truncate(copy / "checkpoints" / step)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "terminal.txt"}
    with pytest.raises(ConfigError, match=r"no checkpoint in .* can be read \(newest: step 6: ") as caught:
        quiet_run(small(), copy)
    assert "\n" not in str(caught.value)
    now = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "terminal.txt"}
    assert now == before
