"""The merge of all metrics: names, masking, further metrics by dotted path."""

import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from sdd import metrics
from sdd.metrics import Samples, distinct_n, pass_at_k, rollout_metrics, sequence_entropy, token_entropy
from sdd.metrics.majority import maj_at_k


def example(b: int = 5, n: int = 6, t: int = 7, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return Samples(
        correct_BxN=rng.random((b, n)) < 0.5,
        strategy_BxN=rng.integers(-1, 3, (b, n)),
        num_strategies=3,
        tokens_BxNxT=rng.integers(0, 4, (b, n, t)),
        mask_BxNxT=np.arange(t) < rng.integers(1, t + 1, (b, n))[..., None],
        entropy_BxNxT=rng.random((b, n, t)),
        logp_BxNxT=-rng.random((b, n, t)),
    )


def same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_names_and_values():
    s = example()
    got = rollout_metrics(s)
    at_k = [f"{m}@{k}" for m in ("pass", "distinct", "distinct_correct") for k in (1, 2, 4, 6)]
    rest = [
        "top_strategy_share",
        "top_correct_strategy_share",
        "strategy_entropy",
        "unseen_mass",
        "response_length",
    ]
    rest += ["token_entropy", "sequence_entropy", "token_nll", "sequence_nll", "distinct_2gram"]
    assert sorted(got) == sorted(at_k + rest)
    assert all(v.shape == (5,) and v.dtype == np.float64 for v in got.values())
    np.testing.assert_allclose(got["pass@4"], pass_at_k(6, s.correct_BxN.sum(1), 4))
    np.testing.assert_allclose(got["token_entropy"], token_entropy(s.entropy_BxNxT, s.mask_BxNxT))
    np.testing.assert_allclose(got["sequence_entropy"], sequence_entropy(s.entropy_BxNxT, s.mask_BxNxT))
    np.testing.assert_allclose(got["distinct_2gram"], distinct_n(s.tokens_BxNxT, s.mask_BxNxT))
    for b in range(5):
        kinds = [
            {x for x, ok in zip(s.strategy_BxN[b], keep) if ok and x >= 0}
            for keep in (np.ones(6), s.correct_BxN[b])
        ]
        assert got["distinct@6"][b] == pytest.approx(len(kinds[0]))
        assert got["distinct_correct@6"][b] == pytest.approx(len(kinds[1]))


def test_jax_arrays_and_any_order_of_rollouts_give_the_same():
    s = example()
    arrays = {k: v for k, v in s._asdict().items() if k.endswith(("xN", "xT")) and v is not None}
    same(rollout_metrics(s._replace(**{k: jnp.asarray(v) for k, v in arrays.items()})), rollout_metrics(s))
    order = np.random.default_rng(1).permutation(6)
    same(rollout_metrics(s._replace(**{k: v[:, order] for k, v in arrays.items()})), rollout_metrics(s))


def test_a_rollouts_file_knows_less_and_agrees():
    s = example()
    num_tokens = s.mask_BxNxT.sum(-1)
    mean = np.where(s.mask_BxNxT, s.entropy_BxNxT, 0).sum(-1) / num_tokens
    less = Samples(s.correct_BxN, s.strategy_BxN, 3, num_tokens_BxN=num_tokens, token_entropy_BxN=mean)
    got = rollout_metrics(less)
    assert "token_nll" not in got and "distinct_2gram" not in got
    same(got, {name: rollout_metrics(s)[name] for name in got})


def test_filler_changes_nothing_and_too_few_samples_are_undefined():
    s = example()
    valid = np.ones((5, 6), bool)
    valid[0, 4:] = False
    s.correct_BxN[0, 4:], s.strategy_BxN[0, 4:] = True, 2
    got = rollout_metrics(s._replace(valid_BxN=valid, ks=(1, 4, 6)))
    cut = s._replace(
        **{k: v[:1, :4] for k, v in s._asdict().items() if k.endswith(("xN", "xT")) and v is not None},
        ks=(1, 4),
    )
    for name, value in rollout_metrics(cut).items():
        np.testing.assert_allclose(got[name][:1], value, err_msg=name)
    assert np.isnan(got["pass@6"][0]) and np.isnan(got["distinct@6"][0])
    assert not np.isnan(got["pass@6"][1:]).any()
    short = s._replace(valid_BxN=np.arange(6) < np.full((5, 1), 3))  # all prompts: 3 of 6 are filler
    assert [k for k in rollout_metrics(short) if k.startswith("pass")] == ["pass@1", "pass@2", "pass@3"]


def test_a_task_without_strategies():
    s = Samples(np.ones((2, 4), bool), np.full((2, 4), -1), 0)
    assert list(rollout_metrics(s)) == ["pass@1", "pass@2", "pass@4"]


def test_a_further_metric_by_dotted_path(monkeypatch):
    module = types.ModuleType("somebodys_metric")
    module.longest = lambda samples: {"longest": samples.num_tokens_BxN.max(-1)}
    module.wrong = lambda samples: {"wrong": np.zeros(3)}
    monkeypatch.setitem(sys.modules, "somebodys_metric", module)
    s = example()
    got = rollout_metrics(s, extra=("somebodys_metric.longest", "sdd.metrics.pass_hat_metrics"))
    np.testing.assert_array_equal(got["longest"], s.mask_BxNxT.sum(-1).max(-1))
    np.testing.assert_array_equal(got["pass^6"], s.correct_BxN.all(1))
    assert list(rollout_metrics(s, metrics=("somebodys_metric.longest",))) == ["longest"]
    for path, message in [
        ("somebodys_metric.wrong", "one number a prompt"),
        ("somebodys_metric.absent", "'somebodys_metric.absent' is not found"),
        ("no_such_module.metric", "is not found"),
        ("sdd.metrics.pass_metrics", "exists already"),
        ("sdd.metrics.METRICS", "is not a function"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            rollout_metrics(s, extra=(path,))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": (1, 7)}, r"ks = \(1, 7\); valid: 1 .. 6"),
        ({"ks": (0,)}, "valid: 1 .. 6"),
        ({"mask_BxNxT": None}, "without mask_BxNxT"),
        ({"strategy_BxN": np.zeros((5, 5), int)}, "strategy_BxN has shape"),
        ({"entropy_BxNxT": np.zeros((5, 6))}, "entropy_BxNxT has shape"),
        ({"correct_BxN": np.zeros(5)}, "prompts x samples"),
    ],
)
def test_errors_are_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        rollout_metrics(example()._replace(**change))
    assert "\n" not in str(error.value)


def test_majority_votes_of_prompts_of_unequal_size():
    """Against maj_at_k of each prompt alone."""
    rng = np.random.default_rng(0)
    answer, valid = rng.integers(-1, 3, (6, 8)), np.ones((6, 8), bool)
    valid[2:4, 5:], valid[4, 1:] = False, False
    samples = metrics.Samples(
        answer == 0, np.full((6, 8), -1), 0, answer_BxN=answer, valid_BxN=valid, ks=(1, 2, 8)
    )
    found = metrics.majority_metrics(metrics.complete(samples))
    for b in range(6):
        mine = answer[b][valid[b]]
        counts = np.array([(mine == a).sum() for a in range(3)])
        for k in (1, 2, 8):
            expected = np.nan
            if k <= len(mine):
                right = np.array([True, False, False])
                expected = maj_at_k(counts[None], right[None], k, np.array([(mine < 0).sum()]))[0]
            np.testing.assert_allclose(found[f"maj@{k}"][b], expected, err_msg=f"{b} {k}")
