"""Vendi scores against the vendi-score package; distances and effective rank against loops and the SVD."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics import embeddings as module
from sdd.metrics.embeddings import (
    centroid_distance,
    effective_rank,
    embedding_metrics_of,
    hill_number,
    mean_pairwise_cosine_distance,
    vendi_score,
)

ORDERS = (0.5, 1.0, 2.0, math.inf)
METRICS = (vendi_score, mean_pairwise_cosine_distance, effective_rank, centroid_distance)


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.abs(rows).max(-1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def adversarial() -> dict[str, np.ndarray]:
    few = gaussian(3, 8)
    return {
        "fewer rows than width": gaussian(9, 24),
        "more rows than width": gaussian(50, 5),
        "as many": gaussian(7, 7),
        "64 rows": gaussian(64, 80),
        "130 rows": gaussian(130, 140),
        "one row": gaussian(1, 6),
        "all the same": np.repeat(gaussian(1, 6), 12, 0),
        "duplicates": few[[0, 1, 2, 0, 0, 1]],
        "opposite": np.concatenate([few, -few]),
        "orthogonal": 3.0 * np.eye(10),
        "nearly the same": few[[0]] + 1e-5 * gaussian(6, 8),
        "tiny norms": gaussian(6, 9) * 10.0 ** np.arange(-300, 0, 50)[:, None],
        "huge norms": gaussian(6, 9) * 10.0 ** np.arange(0, 300, 50)[:, None],
    }


@pytest.mark.parametrize("name", adversarial())
def test_it_is_the_vendi_score_of_the_package(name):
    vendi = pytest.importorskip("vendi_score.vendi")
    rows = unit(adversarial()[name])
    got = vendi_score(adversarial()[name], q=ORDERS)
    assert got.shape == (4,) and got.dtype == np.float64
    # score_K: score_X of that package forgets q.
    by_kernel = [vendi.score_K(rows @ rows.T, q="inf" if q == math.inf else q) for q in ORDERS]
    # Where K is singular, order 1/2 of the package counts the rounding of its eigenvalues.
    np.testing.assert_allclose(got, by_kernel, rtol=1e-6)
    np.testing.assert_allclose(got[1], vendi.score_X(rows), rtol=1e-6)
    if rows.shape[0] >= rows.shape[1]:
        by_dual = [vendi.score_dual(rows, q="inf" if q == math.inf else q) for q in ORDERS]
        np.testing.assert_allclose(got, by_dual, rtol=1e-6)
    np.testing.assert_allclose([vendi_score(adversarial()[name], q=q) for q in ORDERS], got, rtol=1e-9)


@pytest.mark.parametrize("name", adversarial())
def test_distances_and_rank_are_those_of_plain_loops(name):
    rows, given = unit(adversarial()[name]), adversarial()[name]
    if len(rows) > 1:
        distances = [1 - a @ b for a, b in itertools.combinations(rows, 2)]
        assert mean_pairwise_cosine_distance(given) == pytest.approx(np.mean(distances), abs=1e-12)
    centre = rows.mean(0)
    if np.linalg.norm(centre) > 1e-12:
        distances = [1 - row @ centre / np.linalg.norm(centre) for row in rows]
        assert centroid_distance(given) == pytest.approx(np.mean(distances), abs=1e-12)
    else:
        assert centroid_distance(given) == pytest.approx(1)
    singular = np.linalg.svd(rows, compute_uv=False)
    p = singular[singular > 1e-12] / singular.sum()
    assert effective_rank(given) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_the_centroid_tells_what_the_pairs_tell():
    rows = gaussian(20, 9, 4)
    r = 1 - centroid_distance(rows)
    np.testing.assert_allclose((1 - r**2) * 9 / 8, mean_pairwise_cosine_distance(rows), rtol=1e-12)


def test_order_two_gives_the_mean_of_squares_off_the_diagonal():
    rows = gaussian(9, 5)
    squares = [(a @ b) ** 2 for a, b in itertools.permutations(unit(rows), 2)]
    assert (9 / vendi_score(rows, q=2) - 1) / 8 == pytest.approx(np.mean(squares))


def test_the_bias_is_the_documented_one():
    rng = np.random.default_rng(0)
    drawn = np.eye(10)[rng.integers(10, size=(4000, 64))]  # ten strategies at right angles
    two, one = vendi_score(drawn, q=2), vendi_score(drawn, q=1)
    assert (1 / two).mean() == pytest.approx(1 / 64 + (1 - 1 / 64) / 10, rel=3e-3)
    assert two.mean() == pytest.approx(640 / 73, rel=0.01)
    assert np.log(10) - np.log(one).mean() == pytest.approx(9 / 128, rel=0.06)


seeds, counts = st.integers(0, 10**6), st.integers(1, 9)
orders = st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 7.5, math.inf])
quick = settings(max_examples=40, deadline=None, derandomize=True)


@quick
@given(seeds, counts, st.integers(1, 12), st.booleans())
def test_bounds_order_and_copies(seed, n, width, repeat):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, width))
    if repeat:
        rows = rows[rng.integers(n, size=n)]
    qs = [0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 7.5, math.inf]
    scores = vendi_score(rows, q=qs)
    assert (scores >= 1).all() and (scores <= n).all()
    assert (np.diff(scores) <= 1e-9).all()  # a higher order never counts more
    assert scores[0] == pytest.approx(np.linalg.matrix_rank(rows))
    shuffled = rng.permutation(rows) * rng.uniform(0.1, 9, (n, 1))  # neither order nor length matters
    copies = np.concatenate([rows] * 3)
    for metric in (vendi_score, effective_rank):
        assert metric(copies) == pytest.approx(metric(rows), rel=1e-6)
    np.testing.assert_allclose(vendi_score(copies, q=qs), scores, rtol=1e-6)
    np.testing.assert_allclose(vendi_score(shuffled, q=qs), scores, rtol=1e-6)
    assert centroid_distance(copies) == pytest.approx(centroid_distance(rows), abs=1e-9)
    for metric in METRICS:
        np.testing.assert_allclose(metric(shuffled), metric(rows), rtol=1e-6, atol=1e-9)


@quick
@given(seeds, counts, orders)
def test_alike_is_one_and_right_angles_are_n(seed, n, q):
    row = gaussian(1, 12, seed=seed)
    assert vendi_score(np.repeat(row, n, 0), q=q) == pytest.approx(1)
    assert effective_rank(np.repeat(row, n, 0)) == pytest.approx(1)
    turned = np.linalg.qr(gaussian(12, 12, seed=seed))[0][:n]
    assert vendi_score(turned, q=q) == pytest.approx(n)
    assert effective_rank(turned) == pytest.approx(n)
    if n > 1:
        assert mean_pairwise_cosine_distance(turned) == pytest.approx(1)
        assert mean_pairwise_cosine_distance(np.repeat(row, n, 0)) == pytest.approx(0, abs=1e-12)
    assert centroid_distance(turned) == pytest.approx(1 - 1 / math.sqrt(n))


@quick
@given(seeds, st.integers(1, 8), st.integers(1, 6))
def test_masked_rows_count_not_at_all(seed, n, width):
    rng = np.random.default_rng(seed)
    rows, mask = rng.normal(size=(3, n, width)), rng.random((3, n)) < 0.6
    padded = np.where(mask[..., None], rows, rng.choice([np.nan, np.inf, -np.inf, 0, 1e300], size=rows.shape))
    for metric in (*METRICS, lambda x, m=None: vendi_score(x, m, q=2)):
        got = metric(padded, mask)
        for b in range(3):
            if mask[b].any():
                np.testing.assert_allclose(got[b], metric(rows[b][mask[b]]), rtol=1e-6, atol=1e-9)
            else:
                assert np.isnan(got[b])


def test_rows_of_length_zero_share_a_direction_of_their_own():
    rows = np.stack(
        [np.concatenate([gaussian(z, w) * 0, gaussian(8 - z, w)]) for z, w in ((0, 6), (3, 6), (8, 6))]
    )
    for width in (20, 6):  # more and fewer than rows
        wide = np.concatenate([rows, np.zeros((3, 8, width - 6))], -1)
        replaced = np.concatenate([wide, (np.arange(8) < [[0], [3], [8]])[..., None]], -1)
        for metric in METRICS:
            np.testing.assert_allclose(metric(wide), metric(replaced), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(metric(jnp.asarray(wide)), metric(wide), rtol=1e-3, atol=1e-3)
    assert vendi_score(rows[2]) == 1 and mean_pairwise_cosine_distance(rows[2]) == 0


@pytest.mark.parametrize("shape", [(4, 6, 9), (4, 9, 5)])
def test_numpy_jax_jit_and_vmap_agree(shape):
    rows, mask = gaussian(*shape), np.random.default_rng(1).random(shape[:2]) < 0.8
    for metric in (*METRICS, lambda x, m: vendi_score(x, m, ORDERS), lambda x, m: vendi_score(x, m, 2)):
        want = metric(rows, mask)
        got = [
            metric(jnp.asarray(rows), mask),
            jax.jit(metric)(rows, mask),
            jax.jit(jax.vmap(metric))(rows, mask),
        ]
        for value in got:
            assert isinstance(value, jax.Array)
            np.testing.assert_allclose(value, want, rtol=2e-4, atol=1e-5)
    small = jnp.asarray(rows, jnp.float32) * 1e-30  # whose squares float32 does not hold
    np.testing.assert_allclose(vendi_score(small), vendi_score(rows), rtol=1e-4)


def test_leading_shapes_are_free_and_blocks_change_nothing(monkeypatch):
    rows = gaussian(2, 3, 5, 7)
    rows[1, 2, 0] = 0  # a further direction in one block only
    want = {metric: metric(rows) for metric in METRICS}
    for size in (1, 40, 10**9):
        monkeypatch.setattr(module, "_BLOCK", size)
        for metric in METRICS:
            assert metric(rows).shape == (2, 3)
            np.testing.assert_allclose(metric(rows), want[metric], rtol=1e-12)
            one_by_one = [[metric(x) for x in y] for y in rows]
            np.testing.assert_allclose(metric(rows), one_by_one, rtol=1e-12)
        narrow = rows[..., :3]
        np.testing.assert_allclose(
            vendi_score(narrow, q=ORDERS), [[vendi_score(x, q=ORDERS) for x in y] for y in narrow], rtol=1e-9
        )


def test_the_names_and_one_spectrum_for_all(monkeypatch):
    rows, mask = gaussian(3, 6, 8), np.arange(6) < np.array([[6], [1], [0]])
    calls = []
    monkeypatch.setattr(module, "eigenvalues", lambda x: calls.append(1) or np.linalg.eigvalsh(x))
    got = embedding_metrics_of(rows, mask, "policy")
    assert len(calls) == 1
    want = {
        "vendi_0.5[policy]": vendi_score(rows, mask, 0.5),
        "vendi[policy]": vendi_score(rows, mask),
        "vendi_2[policy]": vendi_score(rows, mask, 2),
        "vendi_inf[policy]": vendi_score(rows, mask, math.inf),
        "cosine_distance[policy]": mean_pairwise_cosine_distance(rows, mask),
        "effective_rank[policy]": effective_rank(rows, mask),
        "centroid_distance[policy]": centroid_distance(rows, mask),
    }
    assert list(got) == list(want)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-9, err_msg=name)


def test_few_rows_are_undefined_or_one_without_a_warning():
    with np.errstate(all="raise"):
        for rows in (np.zeros((1, 0, 4)), np.ones((1, 3, 4))):
            none = np.zeros(rows.shape[:2], bool)
            assert np.isnan([metric(rows, none) for metric in METRICS]).all()
            assert (
                np.isnan(vendi_score(rows, none, ORDERS)).all() and np.isnan(vendi_score(rows, none, 2)).all()
            )
        one = np.full((1, 4), 0.3)
        assert vendi_score(one, q=ORDERS).tolist() == [1] * 4 and effective_rank(one) == 1
        assert np.isnan(mean_pairwise_cosine_distance(one)) and centroid_distance(one) == pytest.approx(0)
        assert vendi_score(np.zeros((0, 5, 3))).shape == (0,)


@pytest.mark.parametrize("size", [1, 31, 33, 64, 128, 129])
def test_eigenvalues_are_those_of_lapack_by_another_way(size):
    rows = gaussian(3, size, size + 2)
    rows[0, size // 2 :] = rows[0, 0]
    matrix = rows @ rows.swapaxes(-1, -2)
    want = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(module.eigenvalues(matrix.copy()), want, atol=1e-12 * want.max())


def test_hill_numbers_near_their_limits():
    p = np.array([0.5, 0.25, 0.125, 0.125, 0.0])
    assert hill_number(p, 1) == pytest.approx(math.exp(1.75 * math.log(2)), rel=1e-12)
    for near in (1 - 1e-6, 1 + 1e-9, 1 - 1e-13, 1 + 1e-15):
        assert hill_number(p, near) == pytest.approx(
            hill_number(p, 1), abs=1e-5 if near == 1 - 1e-6 else 1e-8
        )
    assert hill_number(p, 1e5) == pytest.approx(2, rel=1e-4) and hill_number(p, math.inf) == 2
    assert hill_number(p, 0) == 4
    for q in (0.3, 0.7, 1.2, 3.0):
        positive = p[p > 0]
        assert hill_number(p, q) == pytest.approx((positive**q).sum() ** (1 / (1 - q)), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vendi_score(np.ones(3)), r"embeddings of shape \(3,\); valid: ... x rows x width"),
        (lambda: vendi_score(np.ones((2, 3)), np.ones(3, bool)), r"mask of shape \(3,\); valid: \(2,\)"),
        (lambda: vendi_score(np.ones((2, 3)), q=-1), "q = -1; valid: 0 <= q <= inf"),
        (lambda: vendi_score(np.ones((2, 3)), q=[1, math.nan]), "valid: 0 <= q <= inf"),
        (
            lambda: effective_rank(np.array([[1.0, math.nan], [1, 1]])),
            "effective_rank: prompt 0, row 0 is not",
        ),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_row_that_is_not_finite_is_named_by_numpy_and_nan_in_jax(monkeypatch):
    rows = gaussian(5, 4, 6)
    rows[3, 2, 1] = np.inf
    monkeypatch.setattr(module, "_BLOCK", 48)
    with pytest.raises(ValueError, match="prompt 3, row 2 is not finite"):
        vendi_score(rows)
    for metric in (*METRICS, *(lambda x, q=q: vendi_score(x, q=q) for q in (0, 0.5, 2, 3, math.inf))):
        assert np.isnan(metric(jnp.asarray(rows))).tolist() == [False] * 3 + [True, False]
