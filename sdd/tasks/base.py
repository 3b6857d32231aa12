"""What a task offers: examples, prompts with and without a demonstration, and a verifier."""

from collections.abc import Callable, Mapping, Sequence
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
      strategy: index into `Task.strategies`; of a task whose strategies cannot be listed, a number from 0
        to 2**31 - 1 that is the same for the same strategy; -1 where none can be told.
      right_prefix: number of leading response tokens after which a right answer can still be
        reached (all of them for a right response); -1 where the task cannot tell.
    """

    correct: bool
    score: float
    strategy: int
    right_prefix: int


class Node(NamedTuple):
    """A place in a drawing.

    Attributes:
      label: what is written there.
      x, y: from 0 to 1, to the right and downwards.
      kind: "" or a word of the task's own; known are "start", "goal", "dead" (no way leads on to a goal) and
        "stray" (not part of the example).
    """

    label: str
    x: float
    y: float
    kind: str = ""


class Drawing(NamedTuple):
    """A picture of an example, or of a response to it, as a graph.

    Attributes:
      nodes: the places.
      edges: pairs of numbers of `nodes`.
      path: numbers of the nodes that a response visits, in order; a step that is no edge is shown as broken.
      text: the example in words, for who does not see the picture.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    path: tuple[int, ...] = ()
    text: str = ""


class Task(NamedTuple):
    """A task, as pure functions.

    Attributes:
      name: the task's name.
      tokenizer: turns its texts into ids and back.
      strategies: names of the countable ways to be right; empty where they cannot be listed, and
        are then told apart by number (`Grade.strategy`, or `cluster`).
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
        responses. A task without reference solutions raises ConfigError.
      cluster: ``(example, responses of one prompt) -> a strategy each``, in place of `Grade.strategy`,
        for strategies that can only be told by comparing responses. The numbers hold within the call
        alone; -1 where none can be told.
      demonstration_cut: ``demonstration -> how many of its tokens demonstration_prompt leaves out``.
      facts: numbers that a run should say and log: what is in the data, what was left out, and how
        often the verifier failed so far in this process.
      draw: ``(example, response or None) -> Drawing`` for reports. That of a response has the nodes of
        that without, perhaps further ones after them, and the same edges. None: the task has no picture.
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
    cluster: Callable[[Example, Sequence[np.ndarray]], Sequence[int]] | None = None
    demonstration_cut: Callable[[np.ndarray], int] = lambda demonstration: 0
    facts: Callable[[], Mapping[str, int]] = dict
    draw: Callable[[Example, np.ndarray | None], Drawing] | None = None
