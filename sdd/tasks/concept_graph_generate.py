"""Vectorised generation of concept graphs, with splits that cannot share a graph.

Shapes: ``X`` graphs, ``R`` branches, ``M`` most interior nodes of a chain, ``F = R * (M + 1)``
most edges.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sdd.tasks.base import TRAIN
from sdd.tasks.concept_graph_config import FIRST_PLACE, SPLITS, Config, chain_scores

# A graph's hash says to which split it may belong, so splits are disjoint whatever the seeds that
# made them: the training graphs of one seed are not the evaluation graphs of another either.
_BUCKETS = {TRAIN: range(0, 5), "id": range(5, 6), "larger": range(6, 7), "harder": range(7, 8)}
_NUM_BUCKETS = 8
_MAX_BARREN_DRAWS = 50


class Graphs(NamedTuple):
    """A batch of graphs in canonical form: chains sorted by concept, which are all distinct.

    So start, goal and chains are one-to-one with (start, goal, set of edges).

    Attributes:
      start_X: int32 place tokens.
      goal_X: int32 place tokens.
      chains_XxRxM1: int32, width M + 1: interior nodes, the place where the chain ends, then -1.
    """

    start_X: np.ndarray
    goal_X: np.ndarray
    chains_XxRxM1: np.ndarray


def generate(config: Config, seed: int, split: str) -> Iterator[dict[str, object]]:
    """Yields a split's graphs as plain records; no graph occurs twice in it or in another split.

    Args:
      config: the task's settings.
      seed: every split has its own stream of this seed.
      split: "train", "id", "larger" or "harder".

    Yields:
      ``prompt_id`` str ("id/17"), ``start`` and ``goal`` int, ``edges`` int32 [num_edges, 2] in the
      prompt's shuffled order, ``chains`` int32 [num_branches, M + 1] (see `Graphs`).

    Raises:
      ValueError: the settings allow fewer distinct graphs than were asked for, or no valid chain.
    """
    rng = np.random.default_rng([seed, (TRAIN, *SPLITS).index(split)])
    wanted = config.num_train if split == TRAIN else config.num_eval
    share = len(_BUCKETS[split]) / _NUM_BUCKETS
    seen: set[bytes] = set()
    barren = 0
    while len(seen) < wanted:
        missing = wanted - len(seen)
        graphs = _draw(config, rng, split, int(1.2 * missing / share) + 64)
        fresh = _admit(graphs, split, seen, missing)
        barren = 0 if fresh else barren + 1
        if barren == _MAX_BARREN_DRAWS:
            raise ValueError(
                f"concept_graph: found only {len(seen)} distinct graphs of the {wanted} asked for in split "
                f"{split!r}; ask for fewer, allow more entities or places, or break fewer chains"
            )
        graphs = Graphs(*(array[fresh] for array in graphs))
        edges_XxFx2, num_edges_X = _shuffled_edges(graphs, rng)
        first = len(seen) - len(fresh)
        for i, (start, goal) in enumerate(zip(graphs.start_X.tolist(), graphs.goal_X.tolist(), strict=True)):
            yield {
                "prompt_id": f"{split}/{first + i}",
                "start": start,
                "goal": goal,
                "edges": edges_XxFx2[i, : num_edges_X[i]],
                "chains": graphs.chains_XxRxM1[i],
            }


def _admit(graphs: Graphs, split: str, seen: set[bytes], limit: int) -> list[int]:
    """Returns indices of new graphs whose hash belongs to `split`, at most `limit`; notes them in `seen`."""
    num_graphs = len(graphs.start_X)
    chains = graphs.chains_XxRxM1.reshape(num_graphs, -1)
    rows = np.concatenate([graphs.start_X[:, None], graphs.goal_X[:, None], chains], axis=1).astype("<i4")
    bucket, fresh = _BUCKETS[split], []
    for i in range(num_graphs):
        digest = hashlib.blake2b(rows[i].tobytes(), digest_size=16).digest()
        if digest[0] % _NUM_BUCKETS in bucket and digest not in seen:
            seen.add(digest)
            fresh.append(i)
            if len(fresh) == limit:
                break
    return fresh


def _draw(config: Config, rng: np.random.Generator, split: str, num_graphs: int) -> Graphs:
    """Draws up to `num_graphs` graphs of a split's kind; those without a valid chain are dropped."""
    X, R, M = num_graphs, config.num_branches, config.longest_chain
    low, high = config.min_interior, config.max_interior
    if split == "larger":
        low, high = config.larger_min_interior, config.larger_max_interior
    concepts_XxR = np.sort(rng.random((X, config.num_concepts)).argsort(axis=1)[:, :R], axis=1)
    lengths_XxR = rng.integers(low, high + 1, (X, R))
    entities_XxRxM = rng.random((X, R, config.entities_per_concept)).argsort(axis=2)[:, :, :M]
    places_XxA = FIRST_PLACE + rng.random((X, config.num_places)).argsort(axis=1)
    start_X, goal_X, decoys_XxA = places_XxA[:, 0], places_XxA[:, 1], places_XxA[:, 2:]

    break_probability = config.harder_break_probability if split == "harder" else config.break_probability
    broken_XxR = rng.random((X, R)) < break_probability
    if split == "harder":  # ties go to the first chain, the one whose concept has the lowest index
        favourite_X = chain_scores(config, concepts_XxR, lengths_XxR).argmax(axis=1)
        broken_XxR[np.arange(X), favourite_X] = True
    decoy_XxR = np.take_along_axis(decoys_XxA, rng.integers(0, decoys_XxA.shape[1], (X, R)), axis=1)
    end_XxR = np.where(broken_XxR, decoy_XxR, goal_X[:, None])

    nodes = config.first_entity + concepts_XxR[..., None] * config.entities_per_concept + entities_XxRxM
    chains = np.full((X, R, M + 1), -1)
    chains[..., :M] = np.where(np.arange(M) < lengths_XxR[..., None], nodes, -1)
    np.put_along_axis(chains, lengths_XxR[..., None], end_XxR[..., None], axis=2)
    keep_X = ~broken_XxR.all(axis=1)
    return Graphs(*(array[keep_X].astype(np.int32) for array in (start_X, goal_X, chains)))


def _shuffled_edges(graphs: Graphs, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``(edges_XxFx2, num_edges_X)``; the real edges come first, in random order."""
    X, R, width = graphs.chains_XxRxM1.shape
    start_XxRx1 = np.broadcast_to(graphs.start_X[:, None, None], (X, R, 1))
    sources = np.concatenate([start_XxRx1, graphs.chains_XxRxM1[..., :-1]], axis=2)
    edges_XxFx2 = np.stack([sources, graphs.chains_XxRxM1], axis=-1).reshape(X, R * width, 2)
    real_XxF = edges_XxFx2[..., 1] >= 0
    order_XxF = np.where(real_XxF, rng.random(real_XxF.shape), 2.0).argsort(axis=1)
    return np.take_along_axis(edges_XxFx2, order_XxF[..., None], axis=1), real_XxF.sum(axis=1)
