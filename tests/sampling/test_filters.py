"""Filters against naive numpy, row by row."""

import numpy as np
import pytest

from sdd.config import SamplingConfig
from sdd.sampling import filter_logits


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def naive_kept(logits, c):
    """The set of tokens that may be drawn."""
    kept = set(range(len(logits)))
    logits = logits / c.temperature
    if c.top_k:
        kept = set(np.argsort(-logits)[: c.top_k].tolist())
    if c.top_p < 1:
        order = sorted(kept, key=lambda i: -logits[i])
        p = softmax(logits[order])
        total, chosen = 0.0, []
        for i, q in zip(order, p, strict=True):
            chosen.append(i)
            total += q
            if total >= c.top_p:
                break
        kept = set(chosen)
    if c.min_p:
        best = max(logits[i] for i in kept)
        kept = {i for i in kept if logits[i] >= best + np.log(c.min_p)}
    return kept


@pytest.mark.parametrize(
    "c",
    [
        SamplingConfig(temperature=0.7),
        SamplingConfig(top_k=5),
        SamplingConfig(top_p=0.8),
        SamplingConfig(min_p=0.1),
        SamplingConfig(temperature=1.5, top_k=9, top_p=0.9, min_p=0.05),
    ],
)
def test_keeps_what_the_naive_filter_keeps(c):
    logits = np.random.default_rng(0).normal(0, 2, (20, 31)).astype(np.float32)
    filtered = np.asarray(filter_logits(logits, c))
    for row, out in zip(logits, filtered, strict=True):
        assert set(np.flatnonzero(np.isfinite(out)).tolist()) == naive_kept(row.astype(np.float64), c)
        np.testing.assert_allclose(out[np.isfinite(out)], (row / c.temperature)[np.isfinite(out)], rtol=1e-6)


def test_greedy_leaves_the_most_likely():
    logits = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    out = np.asarray(filter_logits(logits, SamplingConfig(temperature=0.0)))
    assert (np.isfinite(out).sum(1) == 1).all() and (out.argmax(1) == logits.argmax(1)).all()


def test_the_most_likely_token_always_stays():
    logits = np.array([[0.0, 10.0, -3.0]], np.float32)
    out = np.asarray(filter_logits(logits, SamplingConfig(top_p=1e-6, min_p=1.0, top_k=1)))
    assert np.isfinite(out).tolist() == [[False, True, False]]
