"""Evaluation: sample n rollouts a prompt, grade them, apply the metrics, write what was sampled."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sdd import mesh as mesh_lib
from sdd.data import pad_left
from sdd.embedders import Embedder, policy
from sdd.information import Information
from sdd.losses.mean import Mean
from sdd.metrics import Estimate, Samples, bootstrap, rollout_metrics
from sdd.sampling import Sampler
from sdd.steps.base import Graded
from sdd.tasks.base import Example, Task
from sdd.teacher.context import pad_contexts
from sdd.types import Grades, Key, Params, Rollouts


class Evaluation(NamedTuple):
    """Attributes:
    metrics: each metric with its 95 % interval over prompts.
    records: a JSON-able record a prompt, as written to ``rollouts/``.
    rollouts, grades: all B * n rollouts and their verdicts.
    """

    metrics: dict[str, Estimate]
    records: list[dict[str, Any]]
    rollouts: Rollouts
    grades: Grades


def sample_prompts(
    task: Task,
    contexts: Sequence[np.ndarray],
    sampler: Sampler,
    params: Params,
    key: Key,
    mesh: Mesh,
    *,
    context_length: int,
    prompts_per_call: int,
    num_samples: int,
) -> Iterator[tuple[range, Rollouts]]:
    """Samples many contexts in calls of equal shape; the next call runs while one is consumed.

    Yields (numbers of contexts, their rollouts as numpy arrays); of several processes each gets a share of
    every call, which may be empty in the last one.
    """

    columns = pad_contexts(task, contexts, context_length)[0].shape[1]

    share = prompts_per_call // jax.process_count()
    with jax.set_mesh(mesh):  # the key may have been made on another mesh
        key = jax.random.wrap_key_data(jnp.asarray(np.asarray(jax.random.key_data(key))))

    def call(start: int):
        first = start + jax.process_index() * share
        own = range(first, max(min(first + share, len(contexts)), first))
        chunk = [contexts[i] for i in own] + [contexts[0]] * (share - len(own))
        tokens, length = pad_left(chunk, columns, task.tokenizer.pad_id)
        row_ids = first * num_samples + np.arange(share * num_samples, dtype=np.int32)
        with jax.set_mesh(mesh):
            tokens, length, row_ids = mesh_lib.put_rows(mesh, (tokens, length.astype(np.int32), row_ids))
            return own, sampler(params, tokens, length, row_ids, key)

    starts = range(0, len(contexts), prompts_per_call)
    ahead = call(starts[0])
    for start in [*starts[1:], None]:
        own, rollouts = ahead
        if start is not None:
            ahead = call(start)
        yield own, cut(mesh_lib.get_rows(rollouts), len(own), num_samples)


def cut(rollouts: Rollouts, num_prompts: int, num_samples: int) -> Rollouts:
    """The first prompts' rollouts."""
    sizes = {"context_BxP": num_prompts, "context_length_B": num_prompts}
    rows = num_prompts * num_samples
    return Rollouts(*(x[: sizes.get(name, rows)] for name, x in rollouts._asdict().items()))


def grade(task: Task, examples: Sequence[Example], rollouts: Rollouts) -> Grades:
    """The verifier's verdict on every rollout; row n belongs to example ``n // (N // B)``.

    Where the task tells strategies by comparison (``task.cluster``), the responses of a prompt are
    compared with each other, and their numbers hold within the prompt.
    """
    response_NxT, mask_NxT = np.asarray(rollouts.response_NxT), np.asarray(rollouts.mask_NxT)
    if not examples:
        return Grades(
            np.zeros(0, bool), np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32)
        )
    group_size = len(response_NxT) // len(examples)
    length_N = mask_NxT.sum(axis=1)
    responses = [response_NxT[n, : length_N[n]] for n in range(len(length_N))]
    verdicts = [task.grade(examples[n // group_size], response) for n, response in enumerate(responses)]
    correct, score, strategy, prefix = zip(*verdicts, strict=True)
    if task.cluster is not None:
        groups = [responses[b * group_size : (b + 1) * group_size] for b in range(len(examples))]
        told = [task.cluster(example, group) for example, group in zip(examples, groups, strict=True)]
        strategy = tuple(i for group in told for i in group)
    return Grades(
        np.array(correct, bool),
        np.array(score, np.float32),
        np.array(strategy, np.int32),
        np.array(prefix, np.int32),
    )


def sample_and_grade(
    task: Task,
    examples: Sequence[Example],
    contexts: Sequence[np.ndarray],
    sample: Callable[[Sequence[np.ndarray]], Iterator[tuple[range, Rollouts]]],
) -> tuple[Rollouts, Grades]:
    """Rollouts of all contexts, one an example, with their verdicts; each process grades what it sampled."""
    own: list[int] = []
    pieces = []
    for where, rollouts in sample(contexts):
        pieces.append((rollouts, grade(task, [examples[i] for i in where], rollouts)))
        own += where
    joined = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
    return mesh_lib.gather(own, len(examples), joined)


def evaluate(
    task: Task,
    examples: Sequence[Example],
    split: str,
    sample: Callable[[Sequence[np.ndarray]], Iterator[tuple[range, Rollouts]]],
    *,
    num_samples: int,
    ks: tuple[int, ...],
    resamples: int,
    extra: tuple[str, ...] = (),
    embedders: Sequence[Embedder] = (),
    information: Callable[[Sequence[Example], np.ndarray, np.ndarray], Information] | None = None,
    likelihood_samples: int = 0,
) -> Evaluation:
    """Samples, grades and measures the examples of a split.

    Args:
      task: prompts and the verifier.
      examples: B examples.
      split: their name, for the records.
      sample: ``contexts -> (numbers, rollouts)``, see :func:`sample_prompts`.
      num_samples: n, rollouts a prompt.
      ks: the k of pass@k and distinct@k; empty: powers of two up to n.
      resamples: of the bootstrap over prompts.
      extra: dotted paths of metrics beside the standard ones.
      embedders: of the responses' texts, beside the policy's own embedding.
      information: ``(examples, response_NxT, mask_NxT)`` -> what responses say about each other.
      likelihood_samples: the first so many rollouts a prompt that `information` gets.
    """
    rollouts, grades = sample_and_grade(task, examples, [task.prompt(e) for e in examples], sample)
    records = prompt_records(task, examples, split, rollouts, grades, num_samples)
    samples = group_samples(rollouts, grades, num_samples, len(task.strategies), ks)
    texts = [text for record in records for text in record["completion"]]
    embedded = {e.name: e(texts).reshape(len(examples), num_samples, -1) for e in embedders}
    samples = samples._replace(embeddings={**samples.embeddings, **embedded})
    if information is not None:
        first = [samples.tokens_BxNxT[:, :likelihood_samples], samples.mask_BxNxT[:, :likelihood_samples]]
        found = information(examples, *(x.reshape(-1, x.shape[-1]) for x in first))
        samples = samples._replace(likelihoods=found)
    values = rollout_metrics(samples, extra=extra)
    return Evaluation(bootstrap(values, seed=0, num_resamples=resamples), records, rollouts, grades)


def group_samples(
    rollouts: Rollouts, grades: Grades, num_samples: int, num_strategies: int, ks: tuple[int, ...]
) -> Samples:
    """Rows of rollouts -> what the metrics read, grouped by prompt (B x n).

    With ``num_strategies`` 0 the task cannot list its strategies. Those of a prompt are then numbered
    from 0 on, and their number is that of the prompt that has most; 0 where none can be told at all.
    """
    group = lambda x: np.asarray(x).reshape(-1, num_samples, *np.shape(x)[1:])  # noqa: E731
    strategy_BxN = group(grades.strategy_N)
    if num_strategies == 0:
        # -1 is put in front, so that it is the first of the sorted values whether or not it occurs.
        ranks = [np.unique(np.append(-1, row), return_inverse=True)[1][1:] - 1 for row in strategy_BxN]
        strategy_BxN = np.reshape(ranks, strategy_BxN.shape).astype(np.int32)
        num_strategies = int(strategy_BxN.max(initial=-1)) + 1
    return Samples(
        correct_BxN=group(grades.correct_N),
        strategy_BxN=strategy_BxN,
        num_strategies=num_strategies,
        tokens_BxNxT=group(rollouts.response_NxT),
        mask_BxNxT=group(rollouts.mask_NxT),
        entropy_BxNxT=group(rollouts.entropy_NxT),
        logp_BxNxT=group(rollouts.model_logp_NxT),
        embeddings={} if rollouts.embedding_NxE is None else {policy.NAME: group(rollouts.embedding_NxE)},
        ks=ks,
    )


def batch_metrics(graded: Graded, num_strategies: int) -> dict[str, Mean]:
    """The cheap metrics of a training batch, as evaluations have them: means over prompts."""
    samples = group_samples(graded.rollouts, graded.grades, graded.group_size, num_strategies, ())
    score_N = graded.grades.score_N.astype(np.float64)
    means = {"reward": Mean(score_N.sum(), len(score_N))}
    for name, value_B in rollout_metrics(samples).items():
        value_B = np.asarray(value_B, np.float64)
        means[name] = Mean(np.nansum(value_B), np.sum(~np.isnan(value_B)))
    return means


def prompt_records(task, examples, split, rollouts: Rollouts, grades: Grades, n: int) -> list[dict[str, Any]]:
    """One record a prompt, with lists over its n rollouts; strategies by name, or as the number's text."""
    length_N = rollouts.mask_NxT.sum(axis=1)
    entropy_N = (rollouts.entropy_NxT * rollouts.mask_NxT).sum(axis=1) / np.maximum(length_N, 1)
    names: Any = [*task.strategies, None]  # -1, the last, is no strategy
    if not task.strategies:
        names = {int(i): str(i) for i in np.unique(grades.strategy_N)} | {-1: None}
    records = []
    for b, example in enumerate(examples):
        rows = range(b * n, (b + 1) * n)
        records.append(
            {
                "prompt_id": example["prompt_id"],
                "prompt": task.tokenizer.decode(task.prompt(example)),
                "split": split,
                "completion": [task.tokenizer.decode(rollouts.response_NxT[r, : length_N[r]]) for r in rows],
                "correct": [bool(grades.correct_N[r]) for r in rows],
                "score": [float(grades.score_N[r]) for r in rows],
                "strategy": [names[int(grades.strategy_N[r])] for r in rows],
                "token_entropy": [float(entropy_N[r]) for r in rows],
                "num_tokens": [int(length_N[r]) for r in rows],
            }
        )
    return records


def teacher_health(
    task: Task,
    examples: Sequence[Example],
    student: Evaluation,
    sample: Callable[[Sequence[np.ndarray]], Iterator[tuple[range, Rollouts]]],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, Estimate]:
    """What the teacher answers when it reads a demonstration: the mode that a runaway loses first.

    The teacher samples answers to prompts with one of the student's correct rollouts
    (drawn uniformly). ``teacher_accuracy`` is their share of right answers,
    ``teacher_entropy`` their entropy per token (nats), ``teacher_follows`` the share
    that uses the demonstration's strategy. Prompts without a right rollout are left out.
    """
    correct_BxN = student.grades.correct_N.reshape(len(examples), -1)
    num_samples = correct_BxN.shape[1]
    demos = {
        b: b * num_samples + int(rng.choice(np.flatnonzero(row)))
        for b, row in enumerate(correct_BxN)
        if row.any()
    }
    if not demos:
        return {}
    rows_B = np.array(list(demos.values()))
    length_N = student.rollouts.mask_NxT.sum(axis=1)
    shown = [examples[b] for b in demos]
    contexts = [
        task.demonstration_prompt(examples[b], student.rollouts.response_NxT[row, : length_N[row]])
        for b, row in demos.items()
    ]
    strategy_Bx1 = student.grades.strategy_N[rows_B][:, None]
    rollouts, grades = sample_and_grade(task, shown, contexts, sample)
    group = lambda x: np.asarray(x).reshape(len(shown), -1)  # noqa: E731
    values = {
        "teacher_accuracy": group(grades.correct_N).mean(axis=1),
        "teacher_entropy": group(rollouts.entropy_NxT * rollouts.mask_NxT).sum(axis=1)
        / group(rollouts.mask_NxT).sum(axis=1),
    }
    if task.cluster is None:  # otherwise strategies are numbered anew in every group
        values["teacher_follows"] = (group(grades.strategy_N) == strategy_Bx1).mean(axis=1)
    return bootstrap(values, seed=0, num_resamples=resamples)
