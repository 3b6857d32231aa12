"""`sdd sample` and `sdd eval` of a small run, and a run that learns from what was sampled."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from sdd import cli, loop, mesh
from sdd.config import ConfigError, Section
from sdd.measure.run import Request, measure
from sdd.sample import policy, rollouts
from sdd.steps import sdft
from sdd.tasks.base import TRAIN

SMALL = Path(__file__).parent / "small.py"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def snapshot(folder):
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def sampled(undisturbed, tmp_path_factory):
    """All prompts that training met, six rollouts each."""
    out = tmp_path_factory.mktemp("sampled") / "train.jsonl"
    assert cli.main(["sample", str(undisturbed), "--split=train", "--num_samples=6", f"--out={out}"]) == 0
    return out


def test_the_last_evaluation_is_repeated_bit_for_bit_and_the_run_is_left_alone(undisturbed, tmp_path, capsys):
    before = snapshot(undisturbed)
    assert cli.main(["eval", str(undisturbed), "--json", f"--out={tmp_path / 'out'}"]) == 0
    assert snapshot(undisturbed) == before
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["step"] == 6
    for row in lines(undisturbed / "evaluations.jsonl"):
        if row["step"] == 6:
            mine = found["splits"][row["split"]]
            theirs = {name: e for name, e in row["metrics"].items() if not name.startswith("teacher_")}
            assert mine["metrics"] == theirs
            assert lines(tmp_path / "out" / "rollouts" / f"{row['split']}.jsonl") == lines(
                undisturbed / "rollouts" / "step_000006" / f"{row['split']}.jsonl"
            )


def test_an_older_checkpoint_and_other_sizes(undisturbed, capsys):
    args = ["eval", str(undisturbed), "--step=4", "--splits=harder,train", "--num_samples=2", "--json"]
    assert cli.main([*args, "--num_prompts=5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 4 and list(found["splits"]) == ["harder", "train"]
    assert {(s["num_prompts"], s["num_samples"]) for s in found["splits"].values()} == {(5, 2)}
    assert cli.main([*args[:2], "--splits=id", "--num_prompts=5"]) == 0
    assert "pass@1" in capsys.readouterr().out


def test_the_training_prompts_are_sampled_in_the_order_of_training(sampled, undisturbed):
    """6 steps of 8 prompts from 32: one epoch and a half, so each prompt once."""
    found = lines(sampled)
    with policy.opened(undisturbed) as (job, _, step):
        assert step == 6
        data = loop.batches(job.parts.task.source(TRAIN), batch_size=8, seed=0)
        met = [e["prompt_id"] for _ in range(4) for e in next(data)]
        few = [e["prompt_id"] for e in policy.examples(job, TRAIN, 5)]
    assert [record["prompt_id"] for record in found] == met and few == met[:5]
    assert {len(record["completion"]) for record in found} == {6}
    assert 0 < np.mean([record["correct"] for record in found]) < 1


def test_sdd_measure_reads_the_file(sampled):
    measured = measure(Request(files=(str(sampled),), embedders=()))
    want = np.mean([record["correct"] for record in lines(sampled)])
    assert measured.comparison.metrics["pass@1"].value == pytest.approx(want)


def test_the_same_seed_repeats_the_file_and_right_rollouts_alone(sampled, undisturbed, tmp_path):
    args = ["sample", str(undisturbed), "--split=train", "--num_samples=6"]
    assert cli.main([*args, "--correct_only", f"--out={tmp_path / 'right.jsonl'}"]) == 0
    want = [
        record | {"completion": [t for t, right in zip(record["completion"], record["correct"]) if right]}
        for record in lines(sampled)
        if any(record["correct"])
    ]
    found = lines(tmp_path / "right.jsonl")
    assert [r["completion"] for r in found] == [r["completion"] for r in want]
    assert all(all(r["correct"]) and len(r["score"]) == len(r["correct"]) for r in found)
    assert cli.main([*args, "--seed=1", f"--out={tmp_path / 'other.jsonl'}"]) == 0
    other = lines(tmp_path / "other.jsonl")
    assert [r["completion"] for r in other] != [r["completion"] for r in lines(sampled)]
    assert [r["prompt_id"] for r in other] == [r["prompt_id"] for r in lines(sampled)]


def test_without_heat_all_samples_of_a_prompt_agree(undisturbed, tmp_path):
    out = tmp_path / "cold.jsonl"
    args = ["--split=id", "--num_samples=3", "--num_prompts=4", "--temperature=0"]
    assert cli.main(["sample", str(undisturbed), *args, f"--out={out}"]) == 0
    assert [len(set(record["completion"])) for record in lines(out)] == [1] * 4


def test_an_experiment_file_names_weights(undisturbed, tmp_path):
    """The weights of a run, by config.train.init_from; the same numbers as the run itself gives."""
    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    tail = ["--split=id", "--num_samples=3"]
    weights = f"--config.train.init_from={undisturbed}"
    assert cli.main(["sample", str(undisturbed), "--step=6", *tail, f"--out={outs[0]}"]) == 0
    assert cli.main(["sample", str(SMALL), weights, *tail, f"--out={outs[1]}"]) == 0
    a, b = ([r["prompt_id"] for r in lines(out)] for out in outs)
    assert a == b


def test_several_devices_draw_the_same(sampled, undisturbed, one_device, tmp_path):
    out = tmp_path / "train.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "make_mesh", mesh.make_mesh.func)  # all eight
        assert jax.device_count() == 8
        args = ["--config.mesh.fsdp=2", "--split=train", "--num_samples=6", f"--out={out}"]
        assert cli.main(["sample", str(undisturbed), *args]) == 0
    same = [a["completion"] == b["completion"] for a, b in zip(lines(out), lines(sampled), strict=True)]
    assert np.mean(same) > 0.9  # sums in another order may turn a draw


def test_a_stop_leaves_no_file(undisturbed, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(rollouts, "prompt_records", interrupted)
    out = tmp_path / "id.jsonl"
    assert cli.main(["sample", str(undisturbed), "--split=id", f"--out={out}"]) == 130
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_work_is_refused_in_one_line(undisturbed, tmp_path, capsys):
    run, out = str(undisturbed), f"--out={tmp_path / 'x.jsonl'}"
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir(), other.mkdir()
    shutil.copy(undisturbed / "config.json", empty)
    (other / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    wrong = {
        "valid: train, id, larger, harder": ["sample", run, "--split=idd", out],
        "--num_prompts=99": ["sample", run, "--split=id", "--num_prompts=99", out],
        "checkpoints of the steps 4, 6": ["sample", run, "--split=id", "--step=5", out],
        "no config.json": ["sample", str(tmp_path / "nowhere"), "--split=id", out],
        "there is no checkpoint": ["sample", str(empty), "--split=id", out],
        "not of a run": ["sample", str(other), "--split=id", out],
        "which weights?": ["sample", str(SMALL), "--split=id", out],
        "valid: a run's folder, or no --step": ["sample", str(SMALL), "--step=1", "--split=id", out],
        "valid: a file": ["sample", run, "--split=id", f"--out={tmp_path}"],
        "is no folder": ["sample", run, "--split=id", f"--out={undisturbed / 'config.json' / 'x'}"],
        "--out": ["sample", run, "--split=id"],
        "valid: 1, 2, 3": ["eval", run, "--num_samples=0"],
        "valid: a folder": ["eval", run, f"--out={undisturbed / 'config.json'}"],
        "config.eval.topp": ["eval", run, "--config.eval.topp=1"],
    }
    for says, args in wrong.items():
        assert cli.main(args) == 2, args
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, (args, said)
    assert not (tmp_path / "x.jsonl").exists()


def test_a_run_learns_from_the_file_and_one_that_lacks_prompts_is_refused(
    sampled, small, quiet_run, tmp_path
):
    options = sdft.Config(demonstrations=str(sampled), ema_decay=0.9)
    config = dataclasses.replace(small(), step=Section("sdd.steps.sdft", options))
    quiet_run(config, tmp_path / "learns")
    metrics = lines(tmp_path / "learns" / "metrics.jsonl")
    right = {r["prompt_id"] for r in lines(sampled) if any(r["correct"])}
    assert len(metrics) == 6 and all(row["grad_norm"] > 0 for row in metrics)
    assert np.mean([row["demo_rows"] for row in metrics]) == pytest.approx(len(right) / 32, abs=0.1)

    few = tmp_path / "few.jsonl"
    few.write_text("".join(sampled.read_text().splitlines(keepends=True)[:5]))
    config = dataclasses.replace(
        config, step=Section("sdd.steps.sdft", dataclasses.replace(options, demonstrations=str(few)))
    )
    with pytest.raises(ConfigError, match="of the 32 prompts that training meets"):
        quiet_run(config, tmp_path / "lacks")
    assert not (tmp_path / "lacks" / "metrics.jsonl").exists()
