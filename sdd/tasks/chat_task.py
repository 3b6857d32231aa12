"""Tasks in natural language: what they share, from the config to the `Task`.

A task of your own has a ``Config(ChatConfig)`` and a ``make`` that hands `chat_task` its examples and
a function ``(example, response as text) -> (score, strategy)``; see `sdd.tasks.science_qa`.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sdd import lookup
from sdd.tasks._answers import after_thinking, reasoning, tagged_answer
from sdd.tasks._chat import ChatConfig, Prompts, check_length, make_prompts
from sdd.tasks._strategies import text_clusters
from sdd.tasks.base import Example, Grade, RandomAccessSource, Task
from sdd.typed import ConfigError

__all__ = [
    "ChatConfig",
    "Prompts",
    "after_thinking",
    "chat_task",
    "check_split",
    "fitting",
    "make_prompts",
    "reasoning",
    "tagged_answer",
]


def chat_task(
    name: str,
    config: ChatConfig,
    prompts: Prompts,
    *,
    splits: tuple[str, ...],
    source: Callable[[str], RandomAccessSource],
    judge: Callable[[Example, str], tuple[float, int]],
    reference: Callable[[Example], str] | None = None,
    facts: Callable[[], dict[str, int]] = dict,
) -> Task:
    """A `Task` of a chat.

    Args:
      name: the task's name.
      config: its settings.
      prompts: of `make_prompts`.
      splits: the evaluation splits.
      source: examples; each has ``prompt_id``, ``question`` and whatever `judge` reads.
      judge: ``(example, response as text) -> (score, strategy)``; right is a score of exactly 1.
      reference: ``example -> a right response``, for a warm start; None where there are none.
      facts: see `Task`.

    Raises:
      ConfigError: the embedder cannot be had.
    """
    cluster = text_clusters(config.embedder, config.cluster_threshold) if config.embedder else None

    def grade(example: Example, response: np.ndarray) -> Grade:
        score, strategy = judge(example, prompts.text(response))
        return Grade(score == 1.0, float(score), strategy, -1)

    def cluster_responses(example: Example, responses: Sequence[np.ndarray]) -> Sequence[int]:
        assert cluster is not None
        return cluster([reasoning(prompts.text(ids)) for ids in responses]).tolist()

    def supervised(example: Example, rng: np.random.Generator, num_answers: int) -> list:
        """Returns the prompt, and the prompt with the reference as demonstration, with the reference."""
        if reference is None:
            raise ConfigError(
                f"config.task.name: {name} has no reference solutions to imitate; valid: a method that "
                "samples (sdd.steps.grpo, sdd.steps.sdsd), or a task that has them (sdd.tasks.gsm8k)"
            )
        answer = prompts.response(reference(example))
        check_length(example, "reference solution", len(answer), config.response_length, "response_length")
        contexts = (prompts.prompt(example), prompts.demonstration_prompt(example, answer))
        return [(context, [answer] * num_answers) for context in contexts]

    return Task(
        name=name,
        tokenizer=prompts.tokenizer,
        strategies=(),
        splits=splits,
        context_length=prompts.context_length,
        demonstration_context_length=prompts.demonstration_context_length,
        response_length=config.response_length,
        source=source,
        prompt=prompts.prompt,
        demonstration_prompt=prompts.demonstration_prompt,
        grade=grade,
        supervised=supervised,
        cluster=cluster_responses if cluster else None,
        demonstration_cut=prompts.demonstration_cut,
        facts=facts,
    )


def fitting(prompts: Prompts, rows: Iterable[Example], limit: int, name: str) -> tuple[list[Example], int]:
    """The rows whose prompts fit, at most ``limit`` (0: all), and how many had to be passed over.

    Raises:
      ConfigError: none fits.
    """
    kept: list[Example] = []
    too_long = 0
    for row in rows:
        if limit and len(kept) == limit:
            break
        if prompts.fits(row):
            kept.append(row)
        else:
            too_long += 1
    if too_long and not kept:
        raise ConfigError(
            f"config.task.prompt_length={prompts.context_length}: of {name} none of {too_long} prompts fits"
        )
    return kept, too_long


def check_split(task: str, split: str, valid: Sequence[str]) -> None:
    """Raises ValueError for a split that the task does not have."""
    if split not in valid:
        near = lookup.nearest(split, valid)
        raise ValueError(f"{task} has no split {split!r}{near}; valid: {', '.join(valid)}")
