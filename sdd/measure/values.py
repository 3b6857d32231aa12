"""Groups of completions -> a value a prompt of every metric, a chunk of prompts at a time."""

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from sdd.embedders import Embedder
from sdd.measure.store import Group
from sdd.metrics import METRICS, Samples, majority_metrics, rollout_metrics, text_metrics
from sdd.metrics.strategies import numbered

CHUNK = 8192  # completions that are held at once, unless one prompt has more

WITHOUT_TEXT = (*(metric for metric in METRICS if metric is not text_metrics), majority_metrics)

# Means over samples, pairs or draws without replacement: the same on average for every n.
_FREE_OF_N = (
    *("pass@", "pass^", "maj@", "distinct@", "distinct_correct@", "distinct_text@"),
    *("cosine_distance", "rouge_l", "response_"),
)


class Values(NamedTuple):
    """Attributes:
    keys: B, what tells prompts apart, see `Group.key`.
    by_name: metric -> B float64; nan where it is undefined for a prompt.
    """

    keys: list[tuple[str, str]]
    by_name: dict[str, np.ndarray]


def depends_on_num_samples(name: str) -> bool:
    """Whether a metric's expected value moves with the number of samples a prompt at equal diversity."""
    return not name.startswith(_FREE_OF_N)


def measure_groups(
    groups: Iterable[Group], ks: Sequence[int], embedders: Sequence[Embedder], workers: int = 0
) -> Values:
    """Applies every metric to every group, in bounded memory.

    Args:
      groups: prompts with their completions.
      ks: of pass@k and the like; nan for prompts with fewer samples.
      embedders: each gives metrics that carry its name.
      workers: processes that share the work on texts; 0 and 1: this one.
    """
    keys: list[tuple[str, str]] = []
    chunks: list[dict[str, np.ndarray]] = []
    waiting: deque[tuple[list[Group], dict[str, np.ndarray], Future]] = deque()
    with contextlib.ExitStack() as stack:
        submit: Callable[..., Future] = _at_once
        if workers > 1:
            # Spawned: a fork of a process with jax's threads in it may hang.
            context = multiprocessing.get_context("spawn")
            submit = stack.enter_context(ProcessPoolExecutor(workers, context)).submit
        for chunk in _chunks(groups):
            keys += [group.key for group in chunk]
            samples = to_samples(chunk, ks, embedders)
            of_texts = submit(rollout_metrics, samples._replace(embeddings={}), (text_metrics,))
            waiting.append((chunk, rollout_metrics(samples._replace(texts_BxN=None), WITHOUT_TEXT), of_texts))
            if len(waiting) > 2 * workers:
                chunks.append(_finish(*waiting.popleft()))
        chunks += [_finish(*parts) for parts in waiting]
    names = dict.fromkeys(name for values in chunks for name in values)
    sizes = [len(next(iter(values.values()))) for values in chunks]
    filled = {
        name: [values.get(name, np.full(size, np.nan)) for values, size in zip(chunks, sizes)]
        for name in names
    }
    return Values(keys, {name: np.concatenate(parts) for name, parts in filled.items()})


def _at_once(function: Callable[..., Any], *args: Any) -> Future:
    done: Future = Future()
    done.set_result(function(*args))
    return done


def _finish(
    groups: Sequence[Group], values: dict[str, np.ndarray], of_texts: Future
) -> dict[str, np.ndarray]:
    """All values of a chunk; what needs correctness is undefined where it is not known."""
    values = values | of_texts.result()
    graded_B = np.array([group.correct is not None for group in groups])
    if graded_B.all():
        return values
    ungraded = ("pass@", "maj@", "distinct_correct@", "top_correct")
    return {
        name: np.where(graded_B, value_B, np.nan) if name.startswith(ungraded) else value_B
        for name, value_B in values.items()
        if graded_B.any() or not name.startswith(ungraded)
    }


def draw_samples(group: Group, size: int, seed: int) -> Group:
    """A group with ``size`` of its samples, drawn uniformly without replacement; the key is in the seed."""
    n = len(group.completions)
    if size >= n:
        return group
    rng = np.random.default_rng([seed, *map(ord, group.key[1][-32:])])
    rows = np.sort(rng.permutation(n)[:size])
    pick = lambda values: [values[i] for i in rows]  # noqa: E731
    return group._replace(
        completions=pick(group.completions),
        correct=None if group.correct is None else group.correct[rows],
        strategy=pick(group.strategy),
        answer=pick(group.answer),
    )


def _chunks(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Consecutive groups whose rectangle of prompts x most samples stays within CHUNK."""
    chunk: list[Group] = []
    most = 0
    for group in groups:
        most = max(most, len(group.completions))
        if chunk and most * (len(chunk) + 1) > CHUNK:
            yield chunk
            chunk, most = [], len(group.completions)
        chunk.append(group)
    if chunk:
        yield chunk


def to_samples(groups: Sequence[Group], ks: Sequence[int], embedders: Sequence[Embedder]) -> Samples:
    """Groups of unequal size -> the rectangle that metrics read; filler is marked as such."""
    n_B = [len(group.completions) for group in groups]
    shape = (len(groups), max([*n_B, *ks]))
    correct, valid = np.zeros(shape, bool), np.zeros(shape, bool)
    strategy, answer = np.full(shape, -1), np.full(shape, -1)
    for b, group in enumerate(groups):
        valid[b, : n_B[b]] = True
        correct[b, : n_B[b]] = False if group.correct is None else group.correct
        strategy[b, : n_B[b]] = numbered(group.strategy)
        answer[b, : n_B[b]] = numbered(group.answer)
    return Samples(
        correct_BxN=correct,
        strategy_BxN=strategy,
        num_strategies=int(strategy.max(initial=-1)) + 1,
        answer_BxN=answer if (answer >= 0).any() else None,
        texts_BxN=[[*group.completions, *[""] * (shape[1] - n)] for group, n in zip(groups, n_B)],
        embeddings={e.name: _embed(e, groups, valid) for e in embedders},
        valid_BxN=valid,
        ks=tuple(ks),
    )


def _embed(embedder: Embedder, groups: Sequence[Group], valid_BxN: np.ndarray) -> np.ndarray:
    """Embeddings of all completions of a chunk; each different text is embedded once."""
    texts = [text for group in groups for text in group.completions]
    different = list(dict.fromkeys(texts))
    place = {text: i for i, text in enumerate(different)}
    embedded_TxE = embedder(different)
    out = np.zeros((*valid_BxN.shape, embedded_TxE.shape[1]), np.float32)
    out[valid_BxN] = embedded_TxE[[place[text] for text in texts]]
    return out
