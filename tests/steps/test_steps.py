"""Every method on a real batch: its loss, where its gradient points, and the same on a mesh of eight."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdd import mesh as mesh_lib
from sdd.losses.divergence import token_logp
from sdd.model import lora
from sdd.sampling.score import unshared_response_hidden
from sdd.steps import grpo, grpo_diversity, sdsd, sft
from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.tasks.base import TRAIN
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task

B, G = 8, 4


@pytest.fixture(scope="module")
def task():
    return tiny_task()


def batch_of(task, seed=0):
    """Right and wrong answers: those of the base policy."""
    examples = task.source(TRAIN)[:B]
    rng = np.random.default_rng(seed)
    return graded_batch(task, [task.supervised(e, rng, G)[0][1] for e in examples], examples, logp=-1.5)


def prepared(step, task, seed=0):
    graded = batch_of(task, seed)
    chosen = step.choose(task, graded, generators(seed, len(graded.examples)))
    return LossBatch(graded.rollouts, chosen.targets, chosen.contexts), chosen


METHODS = {
    "sft": sft.make(sft.Config()),
    "grpo": grpo.make(grpo.Config(kl_coefficient=0.1, normalise_advantages=True)),
    "grpo_diversity": grpo_diversity.make(grpo_diversity.Config()),
    "sdsd": sdsd.make(sdsd.Config(num_demos=2, trust_region=0.3)),
    "sdsd_mixture_topk": sdsd.make(
        sdsd.Config(
            num_demos=3, combine="mixture", estimator="top_k", top_k=5, divergence="js", teacher="live"
        )
    ),
    "sdsd_sampled": sdsd.make(sdsd.Config(estimator="sampled", return_to_go=True, teacher="frozen")),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_mesh_of_eight_devices_equals_one(name, task):
    """Tolerance: 2e-5 in the loss, 1e-4 in each parameter's change (float32, other order of sums)."""
    step = METHODS[name]
    batch, _ = prepared(step, task)
    results = []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh = tiny_mesh(*sizes)
        with jax.set_mesh(mesh):
            model = tiny_model()
            state = init_state(step, optax.sgd(1.0), model.init(jax.random.key(0)))
            before = jax.tree.map(np.asarray, state.params)
            train_step = make_train_step(step, model, optax.sgd(1.0))
            state, metrics = train_step(state, mesh_lib.put_rows(mesh, batch))
            change = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, before)
            results.append((float(metrics["loss"]), change))
    (loss_1, change_1), (loss_8, change_8) = results
    assert abs(loss_1 - loss_8) < 2e-5
    moved = False
    for a, b in zip(jax.tree.leaves(change_1), jax.tree.leaves(change_8), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
        moved |= bool(np.abs(a).max() > 1e-3)
    assert moved


BLOCKED = {
    "sft": (sft, {}),
    "grpo": (grpo, {"kl_coefficient": 0.1, "loss_mean": "token"}),
    "sdsd": (sdsd, {"num_demos": 2, "trust_region": 0.3}),
    "sdsd_sampled": (sdsd, {"estimator": "sampled", "return_to_go": True}),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_of_tokens_change_nothing(one_device, task, name):
    """Loss, metrics and gradient, in blocks of 3 tokens (no divisor of the length) and whole."""
    module, options = BLOCKED[name]
    model = tiny_model()
    params = model.init(jax.random.key(0))
    start = jax.tree.map(lambda x: 1.05 * x, params)
    found = []
    for block_size in (0, 3):
        step = module.make(module.Config(**options, block_size=block_size))
        batch, _ = prepared(step, task)
        run = lambda p, step=step, batch=batch: step.loss(model, p, step.begin(start), batch)  # noqa: E731

        def value(p, run=run):
            loss, metrics = run(p)
            return loss.value, (loss.weight, metrics)

        found.append(jax.jit(jax.value_and_grad(value, has_aux=True))(params))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_adapters_leave_the_unembedding_without_a_gradient(one_device, task):
    """Traced only: whether a matrix product of the gradient has the unembedding's shape."""

    def products(**changes):
        model = tiny_model(**changes)
        step = sdsd.make(sdsd.Config(teacher="live", block_size=2))
        trained, frozen = lora.split(model.init(jax.random.key(0)))
        batch, _ = prepared(step, task)
        loss = lambda p: step.loss(model, lora.join(p, frozen), step.begin(()), batch)[0].total  # noqa: E731
        return len(
            re.findall(r":f32\[78\S*,32\S*\] = dot_general", str(jax.make_jaxpr(jax.grad(loss))(trained)))
        )

    assert products() == 1
    assert products(lora_rank=2) == 0


def logp_of(model, params, rollouts):
    repeat = lambda x: np.repeat(np.asarray(x), G, axis=0)  # noqa: E731
    hidden = unshared_response_hidden(
        model, params, repeat(rollouts.context_BxP), repeat(rollouts.context_length_B), rollouts.response_NxT
    )
    return np.asarray(token_logp(model.unembed(params, hidden), rollouts.response_NxT))


@pytest.fixture
def one_device():
    with jax.set_mesh(tiny_mesh()):
        yield


def test_a_live_teacher_without_demonstrations_is_the_student(one_device, task):
    """Alignment: with an empty demonstration the teacher scores every token as the student does."""
    model = tiny_model()
    params = model.init(jax.random.key(0))
    config = sdsd.Config(teacher="live")
    step = sdsd.make(config)
    batch, _ = prepared(step, task)
    empty_index = np.full((B * G, 1), -1, np.int32)
    graded = batch_of(task)
    contexts = sdsd.demonstration_contexts(task, graded.examples, graded.rollouts, empty_index)
    everybody = batch.targets._replace(weight_NxK=np.ones((B * G, 1), np.float32))
    loss, metrics = step.loss(
        model, params, sdsd.teacher_params.Teacher((), ()), LossBatch(batch.rollouts, everybody, contexts)
    )
    assert abs(float(loss.value)) < 1e-6 and abs(float(metrics["divergence"].value)) < 1e-6
    mask = batch.rollouts.mask_NxT
    expected = (logp_of(model, params, batch.rollouts) * mask * batch.targets.correct_N[:, None]).sum()
    np.testing.assert_allclose(
        metrics["teacher_logp_right"].value,
        expected / (mask * batch.targets.correct_N[:, None]).sum(),
        rtol=1e-5,
    )
    with_demo, _ = step.loss(model, params, sdsd.teacher_params.Teacher((), ()), batch)
    assert float(with_demo.value) > 1e-3


def test_sdsd_pulls_the_student_towards_the_teacher(one_device, task):
    model = tiny_model()
    step = sdsd.make(sdsd.Config(teacher="frozen"))
    batch, _ = prepared(step, task)
    state = init_state(step, optax.adam(3e-3), model.init(jax.random.key(0)))
    train_step = make_train_step(step, model, optax.adam(3e-3))
    losses = []
    for _ in range(60):
        state, metrics = train_step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0]


def test_rows_without_a_demonstration_give_no_gradient(one_device, task):
    model = tiny_model()
    params = model.init(jax.random.key(0))
    step = sdsd.make(sdsd.Config(teacher="live"))
    batch, _ = prepared(step, task)
    nobody = batch._replace(targets=batch.targets._replace(weight_NxK=np.zeros((B * G, 1), np.float32)))
    grads = jax.grad(lambda p: step.loss(model, p, sdsd.teacher_params.Teacher((), ()), nobody)[0].value)(
        params
    )
    assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(grads))


def test_grpo_raises_right_answers_and_lowers_wrong_ones(one_device, task):
    model = tiny_model()
    params = model.init(jax.random.key(0))
    step = grpo.make(grpo.Config())
    batch, _ = prepared(step, task)
    before = logp_of(model, params, batch.rollouts)
    batch = batch._replace(rollouts=batch.rollouts._replace(model_logp_NxT=before))
    grads = jax.grad(lambda p: step.loss(model, p, (), batch)[0].value)(params)
    after = logp_of(model, jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), batch.rollouts)
    gain_N = ((after - before) * batch.rollouts.mask_NxT).sum(axis=1)
    assert np.corrcoef(gain_N, batch.targets.advantage_N)[0, 1] > 0.5


def test_grpo_gradient_is_the_policy_gradient(one_device, task):
    """With ratio one: grad = - mean_i mean_t A_i grad log pi, here against autodiff of that formula."""
    model = tiny_model()
    params = model.init(jax.random.key(0))
    step = grpo.make(grpo.Config())
    batch, _ = prepared(step, task)
    batch = batch._replace(
        rollouts=batch.rollouts._replace(model_logp_NxT=logp_of(model, params, batch.rollouts))
    )
    rollouts = batch.rollouts

    def reinforce(p):
        repeat = lambda x: np.repeat(x, G, axis=0)  # noqa: E731
        hidden = unshared_response_hidden(
            model, p, repeat(rollouts.context_BxP), repeat(rollouts.context_length_B), rollouts.response_NxT
        )
        logp = token_logp(model.unembed(p, hidden), rollouts.response_NxT)
        per_row = (logp * rollouts.mask_NxT).sum(1) / rollouts.mask_NxT.sum(1)
        return -jnp.mean(batch.targets.advantage_N * per_row)

    a = jax.grad(lambda p: step.loss(model, p, (), batch)[0].value)(params)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(jax.grad(reinforce)(params)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("block_size", [0, 3])
def test_grpo_adds_the_pull_to_the_start(one_device, task, block_size):
    model = tiny_model()
    params = model.init(jax.random.key(0))
    start = jax.tree.map(lambda x: 1.2 * x, params)
    found = {}
    for coefficient in (0.0, 0.1, 0.5):
        config = grpo.Config(kl_coefficient=coefficient, loss_mean="token", block_size=block_size)
        step = grpo.make(config)
        batch, _ = prepared(step, task)
        loss, metrics = jax.jit(lambda p, s=step, b=batch: s.loss(model, p, s.begin(start), b))(params)
        found[coefficient] = float(loss.value)
    now, then = (logp_of(model, p, batch.rollouts) for p in (params, start))
    mask = batch.rollouts.mask_NxT
    k3 = np.sum((np.exp(then - now) - (then - now) - 1) * mask) / np.sum(mask)
    assert k3 > 1e-3
    np.testing.assert_allclose(metrics["kl_to_start"].value, k3, rtol=1e-4)
    for coefficient in (0.1, 0.5):
        np.testing.assert_allclose(found[coefficient] - found[0.0], coefficient * k3, rtol=1e-3)


def test_the_diversity_bonus_favours_the_rare(task):
    _, chosen = prepared(METHODS["grpo_diversity"], task)
    graded = batch_of(task)
    correct, strategy = graded.grades.correct_N.reshape(B, G), graded.grades.strategy_N.reshape(B, G)
    advantage = chosen.targets.advantage_N.reshape(B, G)
    compared = 0
    for b in range(B):
        count = lambda i, b=b: (strategy[b] == strategy[b, i]).sum()  # noqa: E731
        for i in range(G):
            for j in range(G):
                if correct[b, i] and correct[b, j] and count(i) < count(j):
                    assert advantage[b, i] > advantage[b, j]
                    compared += 1
    assert compared and chosen.metrics["bonus"].total > 0


def test_a_non_finite_update_is_skipped_and_counted(one_device, task):
    model = tiny_model()
    plain = sdsd.make(sdsd.Config())

    def scaled(model, params, teacher, batch):
        loss, metrics = plain.loss(model, params, teacher, batch._replace(targets=batch.targets[0]))
        return loss._replace(total=loss.total * batch.targets[1]), metrics

    step = plain._replace(loss=scaled)
    batch, _ = prepared(plain, task)
    good, broken = (batch._replace(targets=(batch.targets, np.float32(x))) for x in (1.0, np.nan))
    state = init_state(step, optax.adam(1e-3), model.init(jax.random.key(0)))
    before = jax.tree.map(np.array, (state.params, state.opt_state, state.teacher))
    train_step = make_train_step(step, model, optax.adam(1e-3))
    for count in (1, 2):
        state, _ = train_step(state, broken)
        assert int(state.skipped) == int(state.skipped_in_a_row) == count and int(state.step) == count
    for a, b in zip(
        jax.tree.leaves(before), jax.tree.leaves((state.params, state.opt_state, state.teacher)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    state, metrics = train_step(state, good)
    assert int(state.skipped) == 2 and int(state.skipped_in_a_row) == 0 and np.isfinite(metrics["loss"])
    after = np.asarray(state.params["shell"]["embed"]["embedding"])
    assert (after != before[0]["shell"]["embed"]["embedding"]).any()


def test_the_teacher_follows_after_the_update(one_device, task):
    model = tiny_model()
    step = sdsd.make(sdsd.Config(ema_decay=0.9))
    batch, _ = prepared(step, task)
    state = init_state(step, optax.sgd(0.1), model.init(jax.random.key(0)))
    start = jax.tree.map(np.array, state.params)
    state, _ = make_train_step(step, model, optax.sgd(0.1))(state, batch)
    for a, b, c in zip(*map(jax.tree.leaves, (start, state.params, state.teacher.params)), strict=True):
        np.testing.assert_allclose(c, 0.9 * a + 0.1 * np.asarray(b), atol=1e-6)


@pytest.mark.parametrize("name", ["grpo", "sdsd"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 2)])
def test_micro_batches_change_nothing(task, name, shape):
    """Rows of unequal length and weight, in one piece and in two: a mean of means would differ."""
    options = {"grpo": grpo.Config(loss_mean="token"), "sdsd": sdsd.Config(denominator="active")}
    step = {"grpo": grpo, "sdsd": sdsd}[name].make(options[name])
    batch, _ = prepared(step, task)
    mask = np.array(batch.rollouts.mask_NxT)
    mask[: len(mask) // 2, 1:] = False
    batch = batch._replace(rollouts=batch.rollouts._replace(mask_NxT=mask))
    found = {}
    with jax.set_mesh(tiny_mesh(*shape)):
        model = tiny_model()
        on_mesh = mesh_lib.put_rows(tiny_mesh(*shape), batch)
        for parts in (1, 2):
            state = init_state(step, optax.sgd(0.1), model.init(jax.random.key(0)))
            state, metrics = make_train_step(step, model, optax.sgd(0.1), micro_batches=parts)(state, on_mesh)
            found[parts] = jax.tree.map(np.asarray, (state.params, metrics))
    for one, two in zip(*(jax.tree.leaves(found[parts]) for parts in (1, 2)), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-6)


def test_a_loss_that_is_no_mean_is_refused(one_device, task):
    model = tiny_model()
    plain = grpo.make(grpo.Config())
    step = plain._replace(loss=lambda *args: (plain.loss(*args)[0].value, {}))
    batch, _ = prepared(plain, task)
    state = init_state(step, optax.sgd(0.1), model.init(jax.random.key(0)))
    with pytest.raises(TypeError, match=r"^StepDef.loss: the loss is of type .*; valid: a sdd.losses"):
        make_train_step(step, model, optax.sgd(0.1))(state, batch)


def test_optimizer_and_teacher_are_sharded_like_the_parameters(task):
    with jax.set_mesh(tiny_mesh(2, 2, 2)):
        model = tiny_model(vocab_size=80)
        step = sdsd.make(sdsd.Config(teacher="ema"))
        state = init_state(step, optax.adamw(1e-3), model.init(jax.random.key(0)))
        wanted = [(x.shape, x.sharding.spec) for x in jax.tree.leaves(state.params)]
        assert (
            sum("fsdp" in spec for _, spec in wanted) >= 8
            and sum("tensor" in spec for _, spec in wanted) >= 8
        )
        for kept in (state.opt_state[0].mu, state.opt_state[0].nu, state.teacher.params):
            assert [(x.shape, x.sharding.spec) for x in jax.tree.leaves(kept)] == wanted
