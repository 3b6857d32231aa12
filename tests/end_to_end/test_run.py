"""A whole run, where it may be written, what it may start from, and other meshes."""

import errno
import gc
import json
import shutil

import jax
import numpy as np
import pytest

from sdd import checkpoint, details, initial, loop, mesh, runfolder
from sdd.config import ConfigError, MeshConfig


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_every_step_and_every_evaluation_is_logged_once(undisturbed):
    assert [row["step"] for row in lines(undisturbed, "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in lines(undisturbed, "timings.jsonl")] == [1, 2, 3, 4, 5, 6]
    evaluations = [(row["step"], row["split"]) for row in lines(undisturbed, "evaluations.jsonl")]
    assert evaluations == [(step, split) for step in (0, 3, 6) for split in ("id", "harder")]


def test_the_small_run_is_not_idle(undisturbed):
    """Parameters, optimizer and teacher move at every step: else the tests beside this one could not fail."""
    losses = [row["loss"] for row in lines(undisturbed, "metrics.jsonl")]
    assert len(set(losses)) == 6
    four, six = (
        json.loads((undisturbed / "checkpoints" / step / "meta" / "metadata").read_text())["digest"]
        for step in ("4", "6")
    )
    for section in (".params", ".opt_state", ".teacher"):
        paths = [path for path in four if path.startswith(section)]
        assert paths and all(four[path] != six[path] for path in paths), section


def test_a_finished_run_is_not_run_again(small, quiet_run, undisturbed, leaves):
    before = leaves(undisturbed)
    quiet_run(small(), undisturbed)
    assert leaves(undisturbed) == before
    assert len(lines(undisturbed, "timings.jsonl")) == 6


def test_a_metric_named_in_the_config(small, quiet_run, undisturbed, tmp_path):
    names = ("sdd.metrics.rollouts.pass_hat_metrics",)
    shown = quiet_run(
        small(train_num_steps=1, optimizer_warmup_steps=0, eval_every=0, eval_metrics=names), tmp_path
    )
    metrics = lines(tmp_path, "evaluations.jsonl")[0]["metrics"]
    assert metrics["pass^1"]["value"] == pytest.approx(metrics["pass@1"]["value"])
    assert "pass^1" not in lines(undisturbed, "evaluations.jsonl")[0]["metrics"]
    assert f"id: pass@1 {metrics['pass@1']['value']:.3f}" in shown


def test_embeddings_and_likelihoods_in_an_evaluation(small, quiet_run, undisturbed, tmp_path):
    """The policy's own embedding is always there; the others are asked for, and change nothing else."""
    more = dict(eval_embedders=("wordllama",), eval_likelihood_samples=3)
    quiet_run(small(train_num_steps=1, optimizer_warmup_steps=0, eval_every=0, **more), tmp_path / "more")
    quiet_run(small(train_num_steps=1, optimizer_warmup_steps=0, eval_every=0), tmp_path / "plain")
    found, plain = (lines(tmp_path / name, "evaluations.jsonl") for name in ("more", "plain"))
    assert [line["split"] for line in found] == ["id", "harder"]
    for with_more, without in zip(found, plain, strict=True):
        metrics = with_more["metrics"]
        assert 1 <= metrics["vendi_inf[policy]"]["value"] <= metrics["vendi[policy]"]["value"] <= 4
        assert {k: v for k, v in metrics.items() if k in without["metrics"]} == without["metrics"]
        added = metrics.keys() - without["metrics"].keys()
        assert added >= {"vendi[wordllama]", "information", "vendi[likelihood]", "surprise_drop"}
        undefined = {name for name in added if metrics[name]["value"] is None}
        assert undefined <= {"information_strategy_share"}  # of 8 prompts, where 3 answers go one way each


def test_each_batch_has_the_metrics_of_evaluations(undisturbed):
    for row in lines(undisturbed, "metrics.jsonl"):
        assert 0 <= row["pass@1"] <= row["pass@4"] <= 1 and row["reward"] == pytest.approx(row["pass@1"])
        assert 1 <= row["vendi_2[policy]"] <= row["vendi[policy]"] <= 4
        assert row["token_entropy"] > 0 and row["distinct_correct@1"] <= row["distinct_correct@4"]


@pytest.mark.slow
def test_a_resumed_run_on_eight_devices(small, quiet_run, tmp_path):
    """Tolerance: 1e-3 relative, for other orders of sums in float32 over four steps."""
    quiet_run(small(train_keep_checkpoints=3), tmp_path)
    on_one = lines(tmp_path, "metrics.jsonl")
    for step in ("4", "6"):
        (tmp_path / "checkpoints" / step).rename(tmp_path / f"moved_{step}")
    wide = mesh.make_mesh.func(MeshConfig(2, 2, 2), jax.devices())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "make_mesh", lambda config: wide)
        shown = quiet_run(small(train_keep_checkpoints=3, mesh_data=2, mesh_fsdp=2, mesh_tensor=2), tmp_path)
    assert "data 2 x fsdp 2 x tensor 2" in shown and "resuming from step 2" in shown
    on_eight = lines(tmp_path, "metrics.jsonl")
    assert on_eight[:2] == on_one[:2]
    for ours, theirs in zip(on_eight, on_one, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-3, atol=1e-5)


def test_another_config_is_refused(small, quiet_run, undisturbed):
    with pytest.raises(ConfigError, match=r"^config.train.group_size=2: .* was begun with 4; use that value"):
        quiet_run(small(train_group_size=2), undisturbed)


def test_what_is_refused_leaves_no_claim(small, quiet_run, tmp_path):
    """So that the corrected command may use the same folder."""
    with pytest.raises(ConfigError, match=r"^config\.eval\.splits"):
        quiet_run(small(eval_splits=("idd",)), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_folder_in_use_is_refused(small, quiet_run, tmp_path):
    with runfolder.locked(tmp_path), pytest.raises(ConfigError, match="is in use by another process"):
        quiet_run(small(), tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Error writing ...\n[os_error_code=28: No space left on device]"),
    ],
)
def test_a_full_disk_is_one_line(small, quiet_run, tmp_path, monkeypatch, error):
    """As the system says it, and as orbax does (tensorstore's text)."""

    def save(*args):
        raise error

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(ConfigError, match=r"cannot be used \(No space left on device\)") as caught:
        quiet_run(small(), tmp_path)
    assert "\n" not in str(caught.value)


def test_init_from(small, undisturbed):
    """The parameters are those of the newest checkpoint; optimizer, teacher and counters begin anew."""
    config = small(train_init_from=str(undisturbed))
    parts = loop.make_parts(small(), None)
    with jax.set_mesh(parts.mesh):
        state = initial.make(config, parts, initial.first_state(config, parts))
    saved = json.loads((undisturbed / "checkpoints" / "6" / "meta" / "metadata").read_text())["digest"]
    begun = checkpoint.digest(state)
    assert all(begun[path] == bits for path, bits in saved.items() if path.startswith(".params"))
    assert int(state.step) == 0
    for student, teacher in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(state.teacher.params), strict=True
    ):
        np.testing.assert_array_equal(student, teacher)


def test_init_from_a_damaged_checkpoint(small, quiet_run, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "warm")
    file = tmp_path / "warm" / "checkpoints" / "6" / "meta" / "metadata"
    meta = json.loads(file.read_text())
    meta["digest"][next(path for path in meta["digest"] if path.startswith(".params"))] += 1
    file.write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match="is damaged; its parameters"):
        quiet_run(small(train_init_from=str(tmp_path / "warm")), tmp_path / "run")


# orbax leaves coroutines behind when a read fails, and Python says so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_init_from_what_does_not_fit(small, quiet_run, undisturbed, tmp_path):
    empty = tmp_path / "empty"
    cases = {
        "empty: there is nothing; valid: ": small(train_init_from=str(empty)),
        "cannot be read into this model": small(train_init_from=str(undisturbed), model_width=24),
    }
    for i, (message, config) in enumerate(cases.items()):
        with pytest.raises(ConfigError, match=r"^config.train.init_from(: |=').*" + message) as caught:
            quiet_run(config, tmp_path / str(i))
        assert "\n" not in str(caught.value)
        del caught
        gc.collect()


def test_bad_configs_exit_with_2(start, undisturbed, tmp_path):
    process = start(tmp_path, flags=("--config.eval.num_prompts=9",))
    output, _ = process.communicate()
    assert process.returncode == 2
    [line] = [line for line in output.splitlines() if line]
    assert line == (
        "sdd: config.eval.num_prompts=9: the split 'id' of concept_graph has 8 prompts; valid: 1 to 8"
    )


def test_numbers_come_back(small, quiet_run, undisturbed, tmp_path):
    """What run() returns is the last evaluation."""
    result = loop.run(small(), undisturbed)
    last = [row for row in lines(undisturbed, "evaluations.jsonl") if row["step"] == 6]
    assert result["id"]["pass@1"] == last[0]["metrics"]["pass@1"]["value"]
    assert set(result) == {"id", "harder"}


def test_training_rollouts_are_kept_with_those_who_taught_them(undisturbed):
    """Demonstrations are right rollouts of the same prompt, never the rollout itself."""
    for step in (3, 6):
        rows = lines(undisturbed, f"rollouts/step_{step:06d}/train.jsonl")
        metrics = lines(undisturbed, "metrics.jsonl")[step - 1]
        assert len(rows) == 8
        correct = [c for row in rows for c in row["correct"]]
        assert np.mean(correct) == pytest.approx(metrics["pass@1"])
        taught = [d for row in rows for d in row["demonstrations"]]
        assert len(taught) == len(correct) == 32 and any(taught)
        assert np.mean([bool(d) for d in taught]) == pytest.approx(metrics["demo_rows"])
        for row, demonstrations in enumerate(taught):
            assert all(correct[d] and d // 4 == row // 4 and d != row for d in demonstrations)
    assert not (undisturbed / "rollouts/step_000000/train.jsonl").exists()


@pytest.mark.parametrize("split", ["id", "harder", "train"])
def test_tokens_lie_beside_the_rollouts(undisturbed, split):
    folder = undisturbed / "rollouts/step_000006"
    found = details.read(folder / f"{split}.details.npz")
    rows = lines(folder, f"{split}.jsonl")
    assert found.length_N.tolist() == [n for row in rows for n in row["num_tokens"]]
    texts = [text for row in rows for text in row["completion"]]
    words = np.split(np.array([found.pieces[int(t)] for t in found.token_M]), np.cumsum(found.length_N)[:-1])
    assert [" ".join(w) for w in words] == texts
    assert found.logp_M.max() <= 0 and np.isfinite(found.logp_M).all() and found.logp_M.min() < -0.1
