"""The published methods against independent truths: enumeration, autodiff of what they state, and limits.

A table over four answers of one token stands for the policy, with rows of its own for teachers, so that the
expected gradient of a method can be enumerated and compared with that of the objective in its docstring.
"""

import dataclasses
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdd import mesh as mesh_lib
from sdd.losses.divergence import divergence
from sdd.sampling.score import response_hidden
from sdd.steps import (
    anti_sd,
    beta_opsd,
    csd,
    dph,
    entropy_bonus,
    eopd,
    grpo,
    grpo_anchored,
    ida_opd,
    opsd,
    pass_at_k,
    pmi_residual,
    rlcsd,
    sc_sdpo,
    sdpo,
    sdsd,
    simko,
)
from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.tasks.base import TRAIN
from sdd.teacher.params import Teacher
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task
from sdd.theory import expected, fixed_points, tabular

G, V = 3, 4
CORRECT = np.array([True, True, False, True])
STRATEGY = np.array([0, 1, 0, 0])
START = np.array([0.4, 0.25, 0.25, 0.1])
POLICY = np.array([0.05, 0.15, 0.6, 0.2])
# What a reader of each answer says, right ones and the wrong one.
TAUGHT = np.array(
    [[0.6, 0.2, 0.1, 0.1], [0.3, 0.45, 0.15, 0.1], [0.2, 0.1, 0.65, 0.05], [0.35, 0.2, 0.05, 0.4]]
)
ANSWERS = [[0, 2, 1], [1, 3, 3], [2, 2, 0], [0, 1, 3], [2, 3, 2]]  # groups of a batch


@pytest.fixture(autouse=True)
def one_device():
    with jax.set_mesh(tiny_mesh()):
        yield


def table(policy=POLICY, correct=CORRECT):
    """A task, a model, and parameters: the policy's row first, then those of its readers."""
    task = tabular.task(correct, STRATEGY)
    shown = [(np.array([y], np.int32), [row]) for y, row in enumerate(TAUGHT)]
    model, params = tabular.tables(task, V, [policy], shown)
    return task, model, params


def batch_of(step, task, policy=POLICY, entropy=None, groups=ANSWERS):
    """A batch of groups of answers that the policy drew."""
    examples = [task.source(TRAIN)[0]] * len(groups)
    graded = graded_batch(task, [[np.array([y], np.int32) for y in group] for group in groups], examples)
    logp_Nx1 = np.log(policy)[graded.rollouts.response_NxT].astype(np.float32)
    rollouts = graded.rollouts._replace(model_logp_NxT=logp_Nx1)
    if entropy is not None:
        rollouts = rollouts._replace(entropy_NxT=np.asarray(entropy, np.float32))
    graded = graded._replace(rollouts=rollouts)
    chosen = step.choose(task, graded, generators(0, len(groups)))
    return LossBatch(rollouts, chosen.targets, chosen.contexts), chosen


def loss_and_grad(step, reference=START, policy=POLICY, **options):
    """Loss and gradient of the policy's logits; what the step keeps began at ``reference``."""
    task, model, params = table(policy)
    batch, _ = batch_of(step, task, policy, **options)
    kept = step.begin(table(reference)[2])
    value = lambda p: step.loss(model, p, kept, batch)[0].value  # noqa: E731
    loss, grads = jax.jit(jax.value_and_grad(value))(params)
    return float(loss), np.asarray(grads["logits"])


def same(step, other, **options):
    """Two methods agree in loss and gradient, and the gradient is not zero."""
    (a, da), (b, db) = loss_and_grad(step, **options), loss_and_grad(other, **options)
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(da, db, atol=1e-6)
    assert np.abs(da).max() > 1e-3


def differ(step, other, **options):
    difference = loss_and_grad(step, **options)[1] - loss_and_grad(other, **options)[1]
    assert np.abs(difference).max() > 1e-4


def expected_gradient(step, policy=POLICY, reference=START, correct=CORRECT, draws=False):
    """Of the policy's logits, over all groups that it may draw, and over all draws of demonstrations."""
    task, model, params = table(policy, correct)
    batch, log_count = expected.every_group(step, task, tabular.answers(V, 1), G, draws)
    whole = expected.expected(step, log_count)
    kept = step.begin(table(reference)[2])
    loss = lambda p: whole.loss(model, p, kept, batch)[0].value  # noqa: E731
    return np.asarray(jax.jit(jax.grad(loss))(params)["logits"][0])


def gradient_of(objective, policy=POLICY):
    """Of ``objective(probabilities)`` in the logits."""
    return np.asarray(jax.grad(lambda z: objective(jax.nn.softmax(z)))(jnp.log(jnp.asarray(policy))))


def kl(p, q):
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)))


def js(p, q):
    return 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2)


# Pass@k


@pytest.mark.parametrize("k", [1, 2])
def test_the_expected_gradient_of_pass_at_k_is_that_of_pass_at_k(k):
    def objective(p):
        return -(G - k) / G * (1 - (1 - jnp.sum(p * CORRECT)) ** k)

    got = expected_gradient(pass_at_k.make(pass_at_k.Config(k=k)))
    np.testing.assert_allclose(got, gradient_of(objective), atol=2e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_pass_at_k_advantages_are_those_of_all_subsets(normalise):
    """A rollout's worth is the mean over the k-subsets that hold it of whether one is right."""
    size, k = 5, 3
    for bits in range(2**size):
        correct = np.array([bits >> i & 1 for i in range(size)], bool)
        subsets = list(combinations(range(size), k))
        right = [max(correct[i] for i in subset) for subset in subsets]
        worth = [np.mean([r for r, s in zip(right, subsets, strict=True) if i in s]) for i in range(size)]
        mean, std = np.mean(right), np.std(right)
        scale = k if not normalise else 1 / std if std else 0
        want = scale * (np.array(worth) - mean)
        np.testing.assert_allclose(pass_at_k.advantages(correct, size, k, normalise), want, atol=1e-5)


def test_pass_at_one_is_grpo():
    same(pass_at_k.make(pass_at_k.Config(k=1)), grpo.make(grpo.Config()))
    differ(pass_at_k.make(pass_at_k.Config(k=2)), grpo.make(grpo.Config()))


# Anchors and the entropy


def test_the_entropy_bonus_adds_the_gradient_of_the_entropy_and_ends_at_the_tilt():
    step = entropy_bonus.make(entropy_bonus.Config(entropy_coefficient=0.3))

    def objective(p):
        return -(G - 1) / G * jnp.sum(p * CORRECT) + 0.3 * jnp.sum(p * jnp.log(p))

    np.testing.assert_allclose(expected_gradient(step), gradient_of(objective), atol=2e-6)
    tilt = np.exp((G - 1) / G * CORRECT / 0.3)
    assert np.abs(expected_gradient(step, tilt / tilt.sum())).max() < 2e-6
    same(entropy_bonus.make(entropy_bonus.Config(entropy_coefficient=0.0)), grpo.make(grpo.Config()))


@pytest.mark.parametrize("anchor", ["forward", "js"])
@pytest.mark.parametrize("where", ["all", "solved"])
def test_the_mass_covering_anchor_is_a_divergence_to_the_start(anchor, where):
    step = dph.make(dph.Config(anchor=anchor, anchor_coefficient=0.5, where=where))
    share = 1.0 if where == "all" else float(POLICY @ CORRECT) ** G

    def objective(p):
        pull = kl(jnp.asarray(START), p) if anchor == "forward" else js(p, jnp.asarray(START))
        return -(G - 1) / G * jnp.sum(p * CORRECT) + 0.5 * share * pull

    np.testing.assert_allclose(expected_gradient(step), gradient_of(objective), atol=2e-6)
    if where == "all":
        same(dph.make(dph.Config(anchor=anchor, anchor_coefficient=0.0)), grpo.make(grpo.Config()))


def test_a_forward_anchor_has_the_expected_gradient_of_the_k3_pull():
    a = expected_gradient(dph.make(dph.Config(anchor_coefficient=0.2)))
    b = expected_gradient(grpo.make(grpo.Config(kl_coefficient=0.2)))
    np.testing.assert_allclose(a, b, atol=2e-6)


def trained(step, updates=3):
    task, model, params = table()
    batch, _ = batch_of(step, task)
    state = init_state(step, optax.sgd(0.5), params)
    train_step = make_train_step(step, model, optax.sgd(0.5))
    for _ in range(updates):
        state, metrics = train_step(state, batch)
    return state, {name: float(x) for name, x in metrics.items()}


def test_an_anchor_that_stays_is_grpo_and_one_that_follows_at_once_does_not_pull():
    pulled, free = grpo.Config(kl_coefficient=2.0), grpo.Config()
    state, metrics = trained(grpo_anchored.make(grpo_anchored.Config(kl_coefficient=2.0, ema_decay=1.0)))
    want, wanted = trained(grpo.make(pulled))
    np.testing.assert_array_equal(state.params["logits"], want.params["logits"])
    assert metrics["kl_to_average"] == wanted["kl_to_start"] > 0
    state, metrics = trained(grpo_anchored.make(grpo_anchored.Config(kl_coefficient=2.0, ema_decay=0.0)))
    follows, _ = trained(grpo.make(free))
    np.testing.assert_allclose(state.params["logits"], follows.params["logits"], atol=1e-6)
    assert abs(metrics["kl_to_average"]) < 1e-6
    between, _ = trained(grpo_anchored.make(grpo_anchored.Config(kl_coefficient=2.0, ema_decay=0.5)))
    for other in (want, follows):
        assert np.abs(between.params["logits"] - other.params["logits"]).max() > 1e-3


def test_the_anchor_is_the_average_of_the_parameters():
    step = grpo_anchored.make(grpo_anchored.Config(ema_decay=0.9))
    average, now = {"x": jnp.array([1.0, 2.0])}, {"x": jnp.array([3.0, -2.0])}
    np.testing.assert_allclose(step.after(average, now)["x"], [1.2, 1.6], rtol=1e-6)


# Self-distillation

LIVE = {"teacher": "live"}


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_beta_opsd_rests_where_the_theory_says(beta):
    """The fixed point of sdsd with a pull of beta - 1, which was derived for another loss."""
    step = beta_opsd.make(beta_opsd.Config(beta=beta, teacher="live"))
    config = sdsd.Config(**LIVE)
    want = fixed_points.sdsd(config, G, TAUGHT[CORRECT], CORRECT, START, beta=beta - 1)
    assert np.abs(expected_gradient(step, want, draws=True)).max() < 3e-6
    assert np.abs(expected_gradient(step, POLICY, draws=True)).max() > 1e-3


def test_beta_opsd_at_one_is_sdsd_and_far_out_goes_to_the_start():
    options = {"teacher": "frozen", "num_demos": 2}
    same(beta_opsd.make(beta_opsd.Config(beta=1.0, **options)), sdsd.make(sdsd.Config(**options)))
    loss, _ = loss_and_grad(beta_opsd.make(beta_opsd.Config(beta=1e8, **options)))
    np.testing.assert_allclose(loss, float(kl(POLICY, START)), rtol=1e-4)


def test_calibrated_distillation_at_its_ends_is_forward_sdsd():
    options = {"teacher": "frozen", "num_demos": 2}
    forward = sdsd.make(sdsd.Config(divergence="forward", **options))
    same(csd.make(csd.Config(teacher_temperature=1.0, balance=0.0, **options)), forward)
    differ(csd.make(csd.Config(teacher_temperature=0.5, balance=0.0, **options)), forward)


def test_calibrated_distillation_rests_at_the_mean_of_sharpened_readers():
    step = csd.make(csd.Config(teacher_temperature=0.5, balance=0.0, **LIVE))
    sharp = TAUGHT[CORRECT] ** 2
    sharp /= sharp.sum(axis=1, keepdims=True)
    want = fixed_points.sdsd(sdsd.Config(divergence="forward", **LIVE), G, sharp, CORRECT, START)
    assert np.abs(expected_gradient(step, want, draws=True)).max() < 3e-6
    assert np.abs(expected_gradient(step, POLICY, draws=True)).max() > 1e-3


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_rare_demonstrations_are_drawn_more_often(balance):
    """A group of three right answers and a wrong one, many times: shares of the first demonstration."""
    task, repeats = table()[0], 4000
    step = csd.make(csd.Config(num_demos=2, balance=balance))
    _, chosen = batch_of(step, task, groups=[[0, 1, 2, 3]] * repeats)
    weight_NxK = chosen.targets.weight_NxK
    np.testing.assert_array_equal(weight_NxK[2::4], 0.5)  # the wrong one has two of three
    config = csd.Config(num_demos=2, balance=balance)
    examples = [task.source(TRAIN)[0]] * repeats
    graded = graded_batch(task, [[np.array([y], np.int32) for y in range(4)]] * repeats, examples)
    logp_Nx1 = np.log(POLICY)[graded.rollouts.response_NxT].astype(np.float32)
    graded = graded._replace(rollouts=graded.rollouts._replace(model_logp_NxT=logp_Nx1))
    index_NxK = csd.draw(config, graded, generators(0, repeats)).index_NxK
    index_RxGxK = index_NxK.reshape(repeats, 4, 2) % 4
    for row in range(4):
        others = [y for y in (0, 1, 3) if y != row]
        share = POLICY[others] ** -balance
        share /= share.sum()
        got = np.array([(index_RxGxK[:, row, 0] == y).mean() for y in others])
        np.testing.assert_allclose(got, share, atol=4 * np.sqrt(0.25 / repeats))
        assert (index_RxGxK[:, row, 0] != index_RxGxK[:, row, 1]).all()


def test_pass_rate_weights_weigh_groups():
    """Each group's loss from sdsd, on that group alone."""
    groups = [[0, 2, 1], [2, 2, 0], [0, 1, 3], [2, 3, 2]]
    plain = sdsd.make(sdsd.Config(**LIVE, demo_policy="first", denominator="all"))
    losses = [loss_and_grad(plain, groups=[group])[0] for group in groups]
    weights = [np.sqrt(CORRECT[g].mean() * (1 - CORRECT[g].mean())) for g in groups]
    assert len({round(w, 6) for w in weights}) == 2
    step = sc_sdpo.make(sc_sdpo.Config(**LIVE, demo_policy="first", denominator="all", exponent=0.5))
    got, _ = loss_and_grad(step, groups=groups)
    np.testing.assert_allclose(got, np.dot(weights, losses) / np.sum(weights), rtol=1e-5)


@pytest.mark.parametrize("denominator", ["active", "all"])
def test_equal_weights_are_sdsd(denominator):
    options = LIVE | {"denominator": denominator}
    same(sc_sdpo.make(sc_sdpo.Config(**options, exponent=0.0)), sdsd.make(sdsd.Config(**options)))
    differ(sc_sdpo.make(sc_sdpo.Config(**options, exponent=2.0)), sdsd.make(sdsd.Config(**options)))


@pytest.mark.parametrize("combine", ["loss_mean", "mixture"])
def test_entropy_aware_divergence_has_sdsd_at_both_ends(combine):
    options = LIVE | {"num_demos": 2, "combine": combine}
    never, always = (
        eopd.make(eopd.Config(**options, entropy_threshold=h, keep_reverse=False)) for h in (np.inf, -1.0)
    )
    same(never, sdsd.make(sdsd.Config(**options)))
    same(always, sdsd.make(sdsd.Config(**options, divergence="forward")))


@pytest.mark.parametrize("keep_reverse", [True, False])
def test_entropy_aware_divergence_switches_by_the_teachers_entropy(keep_reverse):
    h = 1.15  # between the entropies of the readers
    entropy = -(TAUGHT * np.log(TAUGHT)).sum(axis=1)
    assert (entropy[CORRECT] > h).any() and (entropy[CORRECT] < h).any()
    step = eopd.make(eopd.Config(**LIVE, entropy_threshold=h, keep_reverse=keep_reverse, demo_policy="first"))
    got, want = loss_and_grad(step)[0], []
    for group in ANSWERS:
        for i in range(G):
            shown = [y for j, y in enumerate(group) if j != i and CORRECT[y]]
            if shown:
                t, s = TAUGHT[shown[0]], POLICY
                reverse, forward = float(kl(s, t)), float(kl(t, s))
                high = forward + reverse * keep_reverse
                want.append(high if entropy[shown[0]] > h else reverse)
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)


def test_no_residual_is_sdsd():
    options = {"teacher": "frozen", "num_demos": 2}
    same(pmi_residual.make(pmi_residual.Config(**options, residual=0.0)), sdsd.make(sdsd.Config(**options)))


def test_the_residual_takes_off_the_tilt_of_another_groups_answer():
    step = pmi_residual.make(pmi_residual.Config(**LIVE, residual=0.7))
    task, _, _ = table()
    batch, chosen = batch_of(step, task)
    got, want = loss_and_grad(step)[0], []
    seen = set()
    for n, weight in enumerate(batch.targets.weight_NxK[:, 0]):
        shown = [
            int(chosen.contexts.tokens_NxKxD[n, k][-2]) if chosen.contexts.length_NxK[n, k] > 1 else None
            for k in (0, 1)
        ]
        right_elsewhere = {y for g, group in enumerate(ANSWERS) if g != n // G for y in group if CORRECT[y]}
        assert shown[1] in right_elsewhere
        seen.add(shown[1])
        if weight:
            z = np.log(TAUGHT[shown[0]]) - 0.7 * (np.log(TAUGHT[shown[1]]) - np.log(POLICY))
            want.append(float(kl(POLICY, np.exp(z) / np.exp(z).sum())))
    assert len(seen) > 1
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)


def test_the_residual_to_the_same_demonstration_leaves_the_student_alone():
    step = pmi_residual.make(pmi_residual.Config(**LIVE, residual=1.0))
    task, model, params = table()
    batch, _ = batch_of(step, task)
    same_twice = jax.tree.map(lambda x: x[:, [0, 0]], batch.contexts)
    loss, metrics = step.loss(model, params, Teacher((), ()), batch._replace(contexts=same_twice))
    assert abs(float(loss.value)) < 1e-6
    assert float(metrics["divergence"].weight) > 0


def test_other_demonstrations_are_right_and_of_another_group():
    rng, shown = np.random.default_rng(3), set()
    for seed in range(20):
        correct = rng.random(12) < 0.4
        found = pmi_residual.others(correct, G, generators(seed, 4))
        for row, other in enumerate(found):
            elsewhere = np.flatnonzero(correct & (np.arange(12) // G != row // G))
            assert other in elsewhere if len(elsewhere) else other == -1
        shown |= set(found)
    assert len(shown) > 10


@pytest.mark.parametrize("module", [beta_opsd, pmi_residual], ids=["beta_opsd", "pmi_residual"])
def test_with_the_demonstration_taken_off_networks_go_to_the_start_on_the_plain_prompt(module):
    """A decoder, whose hidden states are the reader's own, unlike a table's."""
    task, model = tiny_task(), tiny_model(num_layers=1)
    examples, rng = task.source(TRAIN)[:3], np.random.default_rng(0)
    graded = graded_batch(task, [task.supervised(e, rng, 4)[0][1] for e in examples], examples)
    options = {"beta": 1e8} if module is beta_opsd else {"residual": 1.0}
    step = module.make(module.Config(teacher="frozen", **options))
    chosen = step.choose(task, graded, generators(0, 3))
    contexts = chosen.contexts
    if module is pmi_residual:  # the other demonstration is the same one
        contexts = jax.tree.map(lambda x: x[:, [0, 0]], contexts)
    params = model.init(jax.random.key(0))
    start = jax.tree.map(lambda x: 1.5 * x, params)
    kept = Teacher(start, start)
    rollouts = graded.rollouts
    loss, _ = jax.jit(lambda p: step.loss(model, p, kept, LossBatch(rollouts, chosen.targets, contexts)))(
        params
    )

    def logits(p):
        plain = (rollouts.context_BxP, rollouts.context_length_B, rollouts.response_NxT)
        return model.unembed(p, response_hidden(model, p, *plain))

    kl_NxT = divergence(jax.jit(logits)(params), jax.jit(logits)(start), "reverse")
    mask_NxT, taught_N = rollouts.mask_NxT, chosen.targets.weight_NxK[:, 0] > 0
    want_N = np.sum(np.asarray(kl_NxT) * mask_NxT, axis=1) / mask_NxT.sum(axis=1)
    assert taught_N.any() and want_N.min() > 1e-3
    np.testing.assert_allclose(float(loss.value), want_N[taught_N].mean(), rtol=1e-4)


# Credit from teachers


def policy_gradient(advantage_N):
    """- mean_n A_n (e_y - pi) over the batch's answers."""
    y_N = np.concatenate(ANSWERS)
    return -np.mean(advantage_N[:, None] * (np.eye(V)[y_N] - POLICY), axis=0)


def test_right_against_wrong_demonstrations_are_the_credit():
    config = rlcsd.Config(contrast=0.3, bound=0.8, teacher="frozen")
    task, _, _ = table()
    step = rlcsd.make(config)
    batch, chosen = batch_of(step, task)
    want_N, clipped = np.array(batch.targets.policy.advantage_N, np.float64), 0
    for n, y in enumerate(np.concatenate(ANSWERS)):
        others = [z for j, z in enumerate(ANSWERS[n // G]) if j != n % G]
        both = {bool(CORRECT[z]) for z in others} == {True, False}
        assert bool(batch.targets.both_N[n]) == both
        if both:
            right, wrong = (int(chosen.contexts.tokens_NxKxD[n, k][-2]) for k in (0, 1))
            assert CORRECT[right] and not CORRECT[wrong] and {right, wrong} <= set(others)
            e = np.log(TAUGHT[right, y] / TAUGHT[wrong, y])
            clipped += abs(e) > config.bound
            want_N[n] += config.contrast * np.clip(e, -config.bound, config.bound)
    assert clipped and 0 < batch.targets.both_N.sum() < len(want_N)
    got = loss_and_grad(step, reference=POLICY)[1][0]
    np.testing.assert_allclose(got, policy_gradient(want_N), atol=1e-6)
    same(rlcsd.make(rlcsd.Config(contrast=0.0)), grpo.make(grpo.Config()))


def test_away_from_the_teacher_ascends_the_js_divergence():
    """All answers right: no reward tells them apart, and demonstrations are the policy's own draws."""
    step = anti_sd.make(anti_sd.Config(away=0.4, teacher="frozen"))

    def objective(p):
        return -0.4 * sum(POLICY[d] * js(p, jnp.asarray(TAUGHT[d])) for d in range(V))

    got = expected_gradient(step, correct=np.ones(V, bool), draws=True)
    np.testing.assert_allclose(got, gradient_of(objective), atol=2e-6)
    bounded = anti_sd.away_from(jnp.array([-0.1, -5.0]), jnp.array([-90.0, -90.0]))
    assert np.all(bounded <= np.log(2) / 2 + 1e-6)


def test_the_gate_and_no_weight_are_grpo():
    same(anti_sd.make(anti_sd.Config(away=0.0)), grpo.make(grpo.Config()))
    same(anti_sd.make(anti_sd.Config(away=5.0, entropy_floor=9.0)), grpo.make(grpo.Config()))
    floor = 1.15
    gated, free = (anti_sd.make(anti_sd.Config(away=5.0, entropy_floor=h)) for h in (floor, 0.0))
    differ(gated, free)
    differ(gated, grpo.make(grpo.Config()))


def test_the_influence_is_the_change_of_the_entropy():
    """Central differences of H(softmax(z + eps A (e_y - S))) in eps."""
    with jax.enable_x64(True):
        z = np.array([0.3, -1.2, 2.0, 0.1])
        s = np.exp(z) / np.exp(z).sum()

        def entropy(z):
            p = np.exp(z - z.max())
            p /= p.sum()
            return -(p * np.log(p)).sum()

        for y in range(V):
            for a in (0.7, -2.0):
                step = 1e-5 * a * (np.eye(V)[y] - s)
                want = (entropy(z + step) - entropy(z - step)) / 2e-5
                got = ida_opd.influence(jnp.array(z), jnp.log(s[y]), jnp.array(a))
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9)


def test_only_contracting_tokens_are_held_back():
    """shrinkage = 0 is sdsd from sampled tokens; an endless one drops the tokens of negative influence."""
    plain = sdsd.make(sdsd.Config(teacher="frozen", estimator="sampled", denominator="all"))
    free = ida_opd.make(ida_opd.Config(shrinkage=0.0, teacher="frozen"))
    np.testing.assert_allclose(loss_and_grad(free)[1], loss_and_grad(plain)[1], atol=1e-6)
    step = ida_opd.make(ida_opd.Config(shrinkage=1e9, teacher="frozen"))
    task, _, _ = table()
    batch, chosen = batch_of(step, task)
    h = -(POLICY * np.log(POLICY)).sum()
    mean = (POLICY**2 * (np.log(POLICY) + h)).sum()
    want_N = np.zeros(len(batch.targets[1].weight_NxK))
    for n, y in enumerate(np.concatenate(ANSWERS)):
        if batch.targets[1].weight_NxK[n, 0]:
            gap = np.log(TAUGHT[int(chosen.contexts.tokens_NxKxD[n, 0][-2]), y] / POLICY[y])
            want_N[n] = gap if gap * (mean - POLICY[y] * (np.log(POLICY[y]) + h)) >= 0 else 0.0
    assert (want_N != 0).any() and (want_N[batch.targets[1].weight_NxK[:, 0] > 0] == 0).any()
    np.testing.assert_allclose(loss_and_grad(step)[1][0], policy_gradient(want_N), atol=1e-6)


# SimKO


def test_tokens_above_their_responses_quantile_are_uncertain():
    entropy = np.array([[0.1, 0.9, 0.5, 0.7, 9.0], [1.0, 1.0, 1.0, 9.0, 9.0]])
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
    np.testing.assert_array_equal(simko.uncertain(entropy, mask, 0.6), [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])


@pytest.mark.parametrize("spread, penalty", [(0.0, 1.0), (0.25, 1.0), (0.0, 1.6), (0.25, 1.6)])
def test_simko_spreads_credit_and_punishes_the_surest(spread, penalty, monkeypatch):
    every_other = lambda e, mask, q: (np.arange(len(mask)) % 2 == 0)[:, None].astype(np.float32)  # noqa: E731
    monkeypatch.setattr(simko, "uncertain", every_other)
    step = simko.make(simko.Config(top_k=2, spread=spread, penalty=penalty))
    task, _, _ = table()
    batch, _ = batch_of(step, task)
    top, rivals = POLICY.argmax(), np.argsort(-POLICY)[:2]
    want = np.zeros(V)
    for n, y in enumerate(np.concatenate(ANSWERS)):
        a, uncertain = float(batch.targets.policy.advantage_N[n]), n % 2 == 0
        direction = np.eye(V)[y]
        if uncertain and CORRECT[y]:
            direction = (1 - spread) * direction + spread * np.eye(V)[rivals].mean(axis=0)
        if uncertain and a < 0 and y == top:
            a *= penalty
        want -= a * (direction - POLICY)
    got_loss, got = loss_and_grad(step)
    np.testing.assert_allclose(got[0], want / len(batch.targets.correct_N), atol=1e-6)
    if spread == 0 and penalty == 1:
        same(step, grpo.make(grpo.Config()))
    assert np.isfinite(got_loss)


# Settings of sdsd


def test_sdpo_is_sdsd_with_its_choices():
    options = {f.name: getattr(sdpo.Config(), f.name) for f in dataclasses.fields(sdsd.Config)}
    small = options | {"top_k": 2}
    same(sdpo.make(sdpo.Config(**small)), sdsd.make(sdsd.Config(**small)))
    changed = {name for name, value in options.items() if value != getattr(sdsd.Config(), name)}
    assert changed == {
        *("divergence", "estimator", "demo_policy", "demo_per", "ema_decay", "importance_clip", "denominator")
    }


def test_the_tasks_own_answers_demonstrate():
    """Two prompts; the second has no right answer among its tries."""
    task, model, params = table()
    made = {0: [2, 3, 1], 1: [2, 2, 2]}
    order = iter(range(2))
    task = task._replace(
        supervised=lambda example, rng, n: [((), [np.array([y], np.int32) for y in made[next(order)]])]
    )
    step = opsd.make(opsd.Config(tries=3))
    batch, chosen = batch_of(step, task, groups=[[2, 2, 2], [0, 1, 2]])
    np.testing.assert_array_equal(batch.targets.weight_NxK[:, 0], [1, 1, 1, 0, 0, 0])
    assert chosen.contexts.tokens_NxKxD.shape[:2] == (6, 1)
    loss, _ = step.loss(model, params, step.begin(params), batch)
    np.testing.assert_allclose(float(loss.value), float(js(POLICY, TAUGHT[3])), rtol=1e-5)


# All of them

METHODS = {
    pass_at_k: pass_at_k.Config(kl_coefficient=0.1),
    entropy_bonus: entropy_bonus.Config(),
    grpo_anchored: grpo_anchored.Config(),
    dph: dph.Config(anchor="js"),
    beta_opsd: beta_opsd.Config(num_demos=2),
    csd: csd.Config(num_demos=2),
    sc_sdpo: sc_sdpo.Config(),
    eopd: eopd.Config(),
    pmi_residual: pmi_residual.Config(),
    rlcsd: rlcsd.Config(kl_coefficient=0.1),
    anti_sd: anti_sd.Config(),
    ida_opd: ida_opd.Config(),
    simko: simko.Config(),
    sdpo: sdpo.Config(top_k=5),
    opsd: opsd.Config(),
}
methods = pytest.mark.parametrize("module", METHODS, ids=lambda module: module.__name__.rsplit(".", 1)[1])


def prepared(module):
    task, step = tiny_task(), module.make(METHODS[module])
    examples = task.source(TRAIN)[:8]
    rng = np.random.default_rng(0)
    graded = graded_batch(task, [task.supervised(e, rng, 4)[0][1] for e in examples], examples)
    chosen = step.choose(task, graded, generators(0, 8))
    return LossBatch(graded.rollouts, chosen.targets, chosen.contexts), chosen


@methods
def test_rows_heads_and_vocabulary_may_be_split(module):
    """Traced only: with Explicit axes a wrong split is an error of the trace. In blocks of 3 tokens too."""
    batch, _ = prepared(module)
    mesh = tiny_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        batch = mesh_lib.put_rows(mesh, batch)
        model = tiny_model(vocab_size=80)
        params = jax.eval_shape(model.init, jax.random.key(0))
        for block_size in (0, 3):
            step = module.make(dataclasses.replace(METHODS[module], block_size=block_size))

            def value(params, step=step):
                loss, metrics = step.loss(model, params, step.begin(params), batch)
                return loss.total, (loss.weight, metrics)

            grads, (_, metrics) = jax.eval_shape(jax.grad(value, has_aux=True), params)
            assert jax.tree.structure(grads) == jax.tree.structure(params)
            assert all(x.shape == () for x in jax.tree.leaves(metrics))


def test_what_is_logged_of_a_batch_is_a_mean_each():
    for module in METHODS:
        _, chosen = prepared(module)
        assert chosen.metrics and all(np.shape(m.total) == () for m in chosen.metrics.values()), module


def test_divergence_here_is_that_of_the_package():
    got = divergence(jnp.log(POLICY)[None], jnp.log(START)[None], "js")
    np.testing.assert_allclose(got[0], float(js(POLICY, START)), rtol=1e-5)
