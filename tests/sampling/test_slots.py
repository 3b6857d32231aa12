"""Slots: whoever shares a batch, and whenever a rollout gets its slot, it is the same rollout."""

import jax
import numpy as np
import pytest

from sdd import sampling
from sdd.config import SamplingConfig
from sdd.sampling import loop
from sdd.testing import tiny_mesh, tiny_model

B, P, G, T = 8, 12, 4, 40
STOP = (2, 5)
CONFIGS = {"plain": {}, "shift and windows": {"token_shift": True, "windows": (6, 0)}}


def contexts():
    rng = np.random.default_rng(0)
    length = np.array([P, 3, 8, 1, 5, 7, P, 2], np.int32)
    tokens = rng.integers(1, 16, (B, P)).astype(np.int32)
    tokens[np.arange(P) < P - length[:, None]] = 0
    return tokens, length


def draw(mesh=(1, 1, 1), group_size=G, model_changes=(), **changes):
    """Rollouts as numpy arrays."""
    with jax.set_mesh(tiny_mesh(*mesh)):
        model = tiny_model(vocab_size=16, **dict(model_changes))
        sampler = sampling.make(
            model, SamplingConfig(**changes), group_size=group_size, max_tokens=T, stop_ids=STOP
        )
        params = model.init(jax.random.key(0))
        tokens, length = contexts()
        repeat = G // group_size
        tokens, length = np.repeat(tokens, repeat, 0), np.repeat(length, repeat)
        rows = np.arange(B * G, dtype=np.int32)
        return jax.tree.map(np.asarray, sampler(params, tokens, length, rows, jax.random.key(1)))


def assert_same(a, b):
    np.testing.assert_array_equal(a.response_NxT, b.response_NxT)
    np.testing.assert_array_equal(a.mask_NxT, b.mask_NxT)
    for name in ("sampling_logp_NxT", "model_logp_NxT", "entropy_NxT", "embedding_NxE"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=2e-5)


@pytest.fixture(scope="module", params=CONFIGS)
def whole(request):
    """All rollouts at once in one loop, without closing up: the plain path."""
    changes = CONFIGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "WORTH_CLOSING", T + 1)
        drawn = draw(model_changes=changes.items())
    length_N = drawn.mask_NxT.sum(axis=1)
    assert length_N.min() < 4 and length_N.max() > 20  # lengths vary
    return drawn, changes


@pytest.mark.parametrize("slots", [1, 5, 8, 31])
def test_rollouts_do_not_depend_on_the_number_of_slots(whole, slots):
    drawn, changes = whole
    assert_same(drawn, draw(slots=slots, model_changes=changes.items()))


def test_closing_up_changes_nothing(whole):
    drawn, changes = whole
    assert loop.slot_counts(B * G, T, True) == [32, 16, 8, 0]
    assert_same(drawn, draw(model_changes=changes.items()))


def test_groups_of_one_and_their_own_contexts_change_nothing(whole):
    drawn, changes = whole
    alone = draw(group_size=1, model_changes=changes.items())
    np.testing.assert_array_equal(alone.context_BxP, np.repeat(drawn.context_BxP, G, 0))
    assert_same(drawn, alone)


@pytest.mark.parametrize("slots", [0, 6])
def test_a_growing_cache_changes_nothing(whole, slots, monkeypatch):
    drawn, changes = whole
    monkeypatch.setattr(loop, "SHORT", 6)
    assert loop.capacities(T) == [10, 20, 40]
    assert_same(drawn, draw(slots=slots, model_changes=changes.items()))


@pytest.mark.parametrize("slots", [0, 8, 14])
def test_a_mesh_of_eight_devices_draws_the_same(whole, slots):
    drawn, changes = whole
    assert_same(drawn, draw((2, 2, 2), slots=slots, model_changes=changes.items()))


def test_slots_stay_busy(monkeypatch):
    """Tokens drawn in idle slots are few: the batch is full while rollouts wait."""
    steps, run_phase = [], loop.run_phase

    def counted(*args):
        state = run_phase(*args)
        jax.debug.callback(lambda step: steps.append(int(step)), state.step)
        return state

    monkeypatch.setattr(loop, "run_phase", counted)
    drawn = draw(slots=8)
    jax.effects_barrier()
    length_N = drawn.mask_NxT.sum(axis=1)
    assert length_N.sum() / 8 <= max(steps) <= length_N.sum() / 8 + length_N.max()
