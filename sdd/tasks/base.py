"""What a task offers: examples, prompts with and without a demonstration, and a verifier."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from sdd.text.tokenizer import Tokenizer

Example = Mapping[str, Any]
"""One example; ``prompt_id`` (a str, unique in the task) is the key that every task has."""

TRAIN = "train"
"""The name of the training split in every task."""


class RandomAccessSource(Protocol):
    """Examples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class Grade(NamedTuple):
    """The verifier's verdict on one response.

    Attributes:
      correct: whether the response is right.
      score: the verifier's score, 1.0 for right and 0.0 for wrong unless a task says otherwise.
      strategy: index into `Task.strategies`, or -1 where none can be told.
      right_prefix: number of leading response tokens after which a right answer can still be
        reached (all of them for a right response); -1 where the task cannot tell.
    """

    correct: bool
    score: float
    strategy: int
    right_prefix: int


class Task(NamedTuple):
    """A task, as pure functions.

    Attributes:
      name: the task's name.
      tokenizer: turns its texts into ids and back.
      strategies: names of the countable ways to be right.
      splits: the evaluation splits; the first is in distribution. The training split is ``"train"``.
      context_length: most tokens that `prompt` returns.
      demonstration_context_length: most tokens that `demonstration_prompt` returns.
      response_length: most tokens of a response, the stop token included.
      source: ``split -> RandomAccessSource`` of that split's examples.
      prompt: ``example -> int32 [<= context_length]``.
      demonstration_prompt: ``(example, demonstration int32 [<= response_length]) -> int32
        [<= demonstration_context_length]``; an empty demonstration gives exactly `prompt(example)`.
      grade: ``(example, response int32 without padding) -> Grade``.
      supervised: ``(example, rng, num_answers) -> [(context, responses), ...]``, the rows of a warm
        start: contexts (the plain prompt, and one with a demonstration), each with `num_answers`
        responses.
    """

    name: str
    tokenizer: Tokenizer
    strategies: tuple[str, ...]
    splits: tuple[str, ...]
    context_length: int
    demonstration_context_length: int
    response_length: int
    source: Callable[[str], RandomAccessSource]
    prompt: Callable[[Example], np.ndarray]
    demonstration_prompt: Callable[[Example, np.ndarray], np.ndarray]
    grade: Callable[[Example, np.ndarray], Grade]
    supervised: Callable[[Example, np.random.Generator, int], list[tuple[np.ndarray, list[np.ndarray]]]]
