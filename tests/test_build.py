import dataclasses
import math

import jax.numpy as jnp
import optax
import pytest

from sdd import build, config
from sdd.config import ConfigError, OptimizerConfig
from sdd.testing import tiny_mesh, tiny_task


def schedule(**changes):
    return build.make_optimizer(OptimizerConfig(**{"learning_rate": 1.0} | changes), 10)[1]


def rates(schedule, counts):
    return [float(schedule(count)) for count in counts]


def test_linear_schedule():
    """Up in four updates, the first of which already moves; down to 0 over the other six."""
    found = rates(schedule(schedule="linear", warmup_steps=4), range(12))
    by_hand = [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0, 0.0]
    assert found == pytest.approx(by_hand, abs=1e-6)


def test_cosine_schedule():
    found = rates(schedule(schedule="cosine", warmup_steps=2), [0, 1, 2, 4, 6, 10])
    by_hand = [0.5, 1.0, 1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0.0]
    assert found == pytest.approx(by_hand, abs=1e-6)


def test_constant_schedule_without_warm_up():
    assert rates(schedule(schedule="constant", warmup_steps=0), [0, 1, 9]) == [1.0, 1.0, 1.0]


def test_clipping():
    """Adam's first update is g / (|g| + eps); with eps = 1 it shows the size that clipping left of g."""
    settings = OptimizerConfig(learning_rate=1.0, schedule="constant", warmup_steps=0, clip_norm=1.0, eps=1.0)
    optimizer, _ = build.make_optimizer(settings, 10)
    params = {"w": jnp.array([1.0, 2.0])}
    changes, _ = optimizer.update({"w": jnp.array([30.0, -40.0])}, optimizer.init(params), params)
    assert changes["w"].tolist() == pytest.approx([-0.6 / 1.6, 0.8 / 1.8], rel=1e-5)


def test_weight_decay_is_decoupled():
    settings = OptimizerConfig(learning_rate=0.1, schedule="constant", warmup_steps=0, weight_decay=0.5)
    optimizer, _ = build.make_optimizer(settings, 10)
    params = {"w": jnp.array([2.0])}
    changes, _ = optimizer.update({"w": jnp.array([0.0])}, optimizer.init(params), params)
    assert optax.apply_updates(params, changes)["w"].tolist() == pytest.approx([2.0 - 0.1 * 0.5 * 2.0])


@pytest.fixture
def run():
    """``(section_field=value, ...) -> RunConfig``."""

    def make(**changes):
        resolved = config.resolve(config.default("sdd.tasks.concept_graph", "sdd.steps.sdsd"))
        for name, value in changes.items():
            section, field = name.split("_", 1)
            part = dataclasses.replace(getattr(resolved, section), **{field: value})
            resolved = dataclasses.replace(resolved, **{section: part})
        return resolved

    return make


def test_rows_that_the_mesh_does_not_divide(run):
    build.check_mesh(run(train_prompts_per_step=8), tiny_mesh(2, 2, 2))
    with pytest.raises(ConfigError, match=r"^config\.train\.prompts_per_step=6: .* data x fsdp = 4$"):
        build.check_mesh(run(train_prompts_per_step=6), tiny_mesh(2, 2, 2))


def test_heads_that_the_mesh_does_not_divide(run):
    with pytest.raises(
        ConfigError, match=r"^config\.mesh\.tensor=8: must divide config\.model\.num_heads=4$"
    ):
        build.check_mesh(run(), tiny_mesh(1, 1, 8))


def test_more_prompts_than_a_split_has(run):
    task = tiny_task(num_eval=16)
    fits = {"eval_num_prompts": 16, "eval_final_num_prompts": 16}
    build.check_prompts(run(**fits), task)
    for key in ("num_prompts", "final_num_prompts"):
        message = rf"^config\.eval\.{key}=17: the split 'id' of concept_graph has 16 prompts; valid: 1 to 16$"
        with pytest.raises(ConfigError, match=message):
            build.check_prompts(run(**fits | {f"eval_{key}": 17}), task)
    # Without evaluations on the way, only the last one's size counts.
    build.check_prompts(run(**fits | {"eval_num_prompts": 17, "eval_every": 0}), task)


def test_metrics_that_are_not_there():
    build.check_metric("sdd.metrics.rollouts.pass_hat_metrics")
    with pytest.raises(
        ConfigError, match=r"^config\.eval\.metrics='sdd\.metrics\.pas_metrics': .*pass_metrics"
    ):
        build.check_metric("sdd.metrics.pas_metrics")
    with pytest.raises(ConfigError, match="not a function"):
        build.check_metric("sdd.metrics.rollouts.METRICS")
