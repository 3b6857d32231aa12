"""A loss that is not a number: the update is skipped and counted; a run that only skips stops."""

import dataclasses
import json

import numpy as np
import pytest

from sdd import loop
from sdd.config import Section


@pytest.fixture
def broken(small):
    """``(first, last, **changes) -> RunConfig`` whose loss is NaN at steps first .. last."""

    def build(first, last, **changes):
        import broken_step

        run = small(**changes)
        options = {f.name: getattr(run.step.options, f.name) for f in dataclasses.fields(run.step.options)}
        options |= {"first": first, "last": last}
        return dataclasses.replace(run, step=Section("broken_step", broken_step.Config(**options)))

    return build


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def digests(folder, step):
    return json.loads((folder / "checkpoints" / str(step) / "meta" / "metadata").read_text())["digest"]


def test_a_single_one_is_skipped_and_the_run_goes_on(broken, quiet_run, tmp_path):
    shown = quiet_run(broken(3, 3, train_checkpoint_every=1, train_keep_checkpoints=6), tmp_path)
    rows = lines(tmp_path, "metrics.jsonl")
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1, 1, 1]
    assert [row["loss"] is None for row in rows] == [False, False, True, False, False, False]
    [event] = [e for e in lines(tmp_path, "events.jsonl") if e["event"] == "nonfinite"]
    assert event["step"] == 3 and "step 3: loss or gradient is not finite; skipped" in shown
    before, skipped, after = (digests(tmp_path, step) for step in (2, 3, 4))
    counters = {".step", ".skipped", ".skipped_in_a_row"}
    assert {path for path in before if before[path] != skipped[path]} == counters
    assert len({path for path in before if skipped[path] != after[path]}) > 10


def test_too_many_in_a_row_stop_the_run(broken, quiet_run, tmp_path):
    config = broken(4, 6, train_max_skipped_in_a_row=3, train_checkpoint_every=1, train_keep_checkpoints=6)
    with pytest.raises(loop.NonFiniteError) as caught:
        quiet_run(config, tmp_path)
    batch = tmp_path / "nonfinite_step_000006.npz"
    assert "\n" not in str(caught.value)
    for part in ("3 updates in a row", "step 6", "loss nan", str(batch), "last good update"):
        assert part in str(caught.value)
    arrays = np.load(batch)
    assert arrays["rollouts.response_NxT"].shape[0] == 32
    assert np.isnan(arrays["targets[1]"]).all()
    good, last = digests(tmp_path, 3), digests(tmp_path, 5)
    for path, bits in good.items():
        if path.startswith((".params", ".opt_state", ".teacher")):
            assert last[path] == bits
    assert [row["skipped"] for row in lines(tmp_path, "metrics.jsonl")] == [0, 0, 0, 1, 2, 3]


@pytest.mark.slow
def test_the_exit_code(start, tmp_path):
    flags = ("--config.step.name=broken_step", "--config.step.first=1", "--config.step.last=9")
    process = start(tmp_path, flags=(*flags, "--config.train.max_skipped_in_a_row=2"))
    output, _ = process.communicate()
    assert process.returncode == 70, output
    assert "sdd: 2 updates in a row were not finite, last at step 2" in output.splitlines()[-1]
    assert "Traceback" not in output
