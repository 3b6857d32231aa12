"""What small tasks of symbols share: splits that share no question, demonstration prompts, warm-start rows.

    prompt                  <bos> body <query>
    with a demonstration    <bos> body <demo> demonstration <query>
    answer                  symbols <eos>

A task of symbols says how a question is drawn and what the words of its body are (`Rules`), what its base
policy answers, and what answers are right. `sdd.tasks.concept_graph` is older and has its own of all this.
"""

import difflib
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sdd.tasks.base import TRAIN, Example
from sdd.tasks.concept_graph_config import BOS, DEMO, EOS, QUERY, SPECIALS
from sdd.text.tokenizer import SymbolTokenizer

SPLITS = ("id", "harder")
"""Evaluation splits; the first is in distribution."""

FIRST = len(SPECIALS)
"""Id of a task's first own word."""

# A question's hash says to which split it may belong, so splits are disjoint whatever the seeds.
_BUCKETS = {TRAIN: range(0, 6), "id": range(6, 7), "harder": range(7, 8)}
_NUM_BUCKETS = 8
_MAX_BARREN_DRAWS = 20000


class Right(NamedTuple):
    """The right answers of a question, one a row, and how the base policy weighs them.

    Attributes:
      answers: A rows of symbols, without <eos>.
      groups_A: int, answers with the same number are the same strategy.
      weights_A: float, at least 0; not all 0.
    """

    answers: list[tuple[int, ...]]
    groups_A: np.ndarray
    weights_A: np.ndarray


class Rules(NamedTuple):
    """What a task of symbols has of its own.

    Attributes:
      name: the task's name, for errors.
      draw: ``(rng, split) -> example`` without its ``prompt_id``; None where the draw has to be rejected.
        Questions with equal ``key`` and equal words, in any order, are the same; those with an equal
        ``group``, if there is one, are of the same split.
      body: ``example -> the words of the question``.
      base: ``(example, rng) -> one answer of the base policy``, without <eos>.
      right: ``example -> Right``.
      follow: chance that an answer to a demonstration prompt is the demonstrated one.
      response_length: most tokens of a response.
    """

    name: str
    draw: Callable[[np.random.Generator, str], dict | None]
    body: Callable[[Example], list[int]]
    base: Callable[[Example, np.random.Generator], Sequence[int]]
    right: Callable[[Example], Right]
    follow: float
    response_length: int


def make_tokenizer(words: Sequence[str]) -> SymbolTokenizer:
    """The special words, which all tasks of symbols share, and a task's own."""
    return SymbolTokenizer([*SPECIALS, *words], pad="<pad>", stop=("<eos>",))


def make_source(rules: Rules, num_train: int, num_eval: int, seed: int) -> Callable[[str], list[Example]]:
    """Returns ``split -> examples``, made when they are first asked for and then kept.

    Raises (the returned function):
      ValueError: no such split, or fewer distinct questions than were asked for.
    """

    @functools.cache
    def source(split: str) -> list[Example]:
        valid = (TRAIN, *SPLITS)
        if split not in valid:
            near = difflib.get_close_matches(split, valid, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{rules.name} has no split {split!r}: did you mean {near!r}? valid: {', '.join(valid)}"
            )
        return _generate(rules, num_train if split == TRAIN else num_eval, seed, split)

    return source


def _generate(rules: Rules, wanted: int, seed: int, split: str) -> list[Example]:
    rng = np.random.default_rng([seed, (TRAIN, *SPLITS).index(split)])
    seen: set[bytes] = set()
    found: list[Example] = []
    barren = 0
    while len(found) < wanted:
        example = rules.draw(rng, split)
        barren += 1
        if barren > _MAX_BARREN_DRAWS:
            raise ValueError(
                f"{rules.name}: found only {len(found)} distinct questions of the {wanted} asked for in "
                f"split {split!r}; ask for fewer, or allow more"
            )
        if example is None:
            continue
        words = np.sort(np.array(rules.body(example), "<i4")).tobytes() + repr(example["key"]).encode()
        digest = _digest(words)
        place = _digest(repr(example["group"]).encode()) if "group" in example else digest
        if place[0] % _NUM_BUCKETS in _BUCKETS[split] and digest not in seen:
            seen.add(digest)
            found.append({"prompt_id": f"{split}/{len(found)}", **example})
            barren = 0
    return found


def _digest(words: bytes) -> bytes:
    return hashlib.blake2b(words, digest_size=16).digest()


def make_prompt(rules: Rules) -> Callable[[Example], np.ndarray]:
    """Returns ``example -> int32``, the plain prompt."""

    def prompt(example: Example) -> np.ndarray:
        return np.array([BOS, *rules.body(example), QUERY], np.int32)

    return prompt


def make_demonstration_prompt(rules: Rules) -> Callable[[Example, np.ndarray], np.ndarray]:
    """Returns ``(example, demonstration) -> int32``, the prompt that shows an answer."""

    def demonstration_prompt(example: Example, demonstration: np.ndarray) -> np.ndarray:
        """The demonstration is shown up to its first <eos>; an empty one gives the plain prompt."""
        shown = np.asarray(demonstration, np.int32)
        stops = np.flatnonzero(shown == EOS)
        shown = shown[: stops[0]] if stops.size else shown
        if len(shown) > rules.response_length:
            raise ValueError(
                f"{example['prompt_id']}: a demonstration of {len(shown)} tokens; "
                f"at most response_length={rules.response_length} fit"
            )
        marked = [DEMO, *shown] if len(shown) else []
        return np.array([BOS, *rules.body(example), *marked, QUERY], np.int32)

    return demonstration_prompt


def make_supervised(
    rules: Rules,
) -> Callable[[Example, np.random.Generator, int], list[tuple[np.ndarray, list[np.ndarray]]]]:
    """Returns a task's ``supervised``: the plain prompt and a demonstration prompt, with answers each.

    Plain: answers of the base policy, errors included. With a demonstration: that is right, of a strategy
    drawn uniformly and within it by the base policy's weights; an answer repeats it with probability
    ``follow`` and is otherwise another right one, drawn by those weights. So the network learns that
    a demonstration prompt is answered rightly: a teacher that reads one is better than the student.
    """
    prompt, demonstration_prompt = make_prompt(rules), make_demonstration_prompt(rules)

    def supervised(
        example: Example, rng: np.random.Generator, num_answers: int
    ) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        plain = [answer(rules.base(example, rng)) for _ in range(num_answers)]
        answers, groups_A, weights_A = rules.right(example)
        chances_A = weights_A / weights_A.sum()
        group = rng.choice(np.unique(groups_A))
        inside_A = np.where(groups_A == group, chances_A, 0.0)
        shown = rng.choice(len(answers), p=inside_A / inside_A.sum())
        other = rng.choice(len(answers), num_answers, p=chances_A)
        follows = rng.random(num_answers) < rules.follow
        taught = [answer(answers[i]) for i in np.where(follows, shown, other)]
        return [
            (prompt(example), plain),
            (demonstration_prompt(example, answer(answers[shown])), taught),
        ]

    return supervised


def answer(symbols: Sequence[int]) -> np.ndarray:
    """The symbols and <eos>."""
    return np.array([*symbols, EOS], np.int32)


def check_config(name: str, config: object, ranges: dict[str, tuple[float, float | None]]) -> None:
    """Refuses fields out of range.

    Raises:
      ValueError: one line with the field, its value and what is valid.
    """
    for field, (low, high) in ranges.items():
        value = getattr(config, field)
        if value < low or (high is not None and value > high):
            valid = f"at least {low}" if high is None else f"{low} to {high}"
            raise ValueError(f"{name}.{field} is {value}; it must be {valid}")
