"""A checkpoint that a disk or a person damaged: the one before is used, the damaged one is kept aside."""

import gc
import json
import os
import shutil
import time

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


def test_a_half_written_checkpoint_and_a_stale_lock(small, quiet_run, undisturbed, leaves, copy):
    """What a process leaves that is gone: a folder without all its parts, a temporary one, a lock."""
    for name in ("metrics.jsonl", "evaluations.jsonl"):  # as if it had stopped after step 4
        lines = (copy / name).read_text().splitlines(keepends=True)
        (copy / name).write_text("".join(line for line in lines if json.loads(line)["step"] <= 4))
    newest = copy / "checkpoints" / "6"
    for part in ("rest", "meta"):
        shutil.rmtree(newest / part)
    shutil.copytree(newest, copy / "checkpoints" / "8.orbax-checkpoint-tmp-1")
    (copy / ".lock").write_text("a process that is gone")
    shown = quiet_run(small(), copy)
    assert "checkpoint 6 is damaged" in shown and "resuming from step 4" in shown
    assert leaves(copy) == leaves(undisturbed)


@pytest.mark.parametrize("seconds", [-(10**8), 10**8])
def test_clocks_may_disagree(small, quiet_run, undisturbed, leaves, copy, seconds):
    """Files that another host wrote, years ago or years ahead by its clock: steps count, not times."""
    newest = copy / "checkpoints" / "6"
    shutil.rmtree(newest)
    for path in [*copy.rglob("*"), copy]:
        os.utime(path, (time.time() + seconds,) * 2)
    assert "resuming from step 4" in quiet_run(small(), copy)
    assert leaves(copy) == leaves(undisturbed)
