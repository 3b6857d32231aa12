"""Countdown: reach a target with two of the given numbers, by one of four operators.

    prompt                  <bos> target number.. <query>
    answer                  operator a b <eos>          (a operator b is the target)

Its numbers and targets are small enough for a network of a hundred thousand parameters that has never seen
arithmetic. The answer is in prefix notation, so the operator, which is the strategy, comes first. An
operator is broken in a question where no two of its numbers reach the target by it.

Splits: "train" and "id" alike, each operator broken with `Config.break_probability`; "harder", where the
operator that the base policy likes best is broken and the others are broken more often. In every question
some operator reaches the target.

The base policy, which a warm start imitates, picks an operator by `Config.logits` whether or not it is broken
(then it takes any two numbers), and errs in each number with probability `Config.noise`. So it is right about
as often with each operator.

After reasoning-gym's ``countdown`` (whose verifier agrees, see the tests), with two numbers of several.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from sdd.tasks import _symbolic
from sdd.tasks._symbolic import FIRST, Right, Rules
from sdd.tasks.base import Example, Grade, Task
from sdd.tasks.concept_graph_config import EOS

OPERATORS = ("+", "-", "*", "/")
_FIRST_NUMBER = FIRST + len(OPERATORS)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task.

    Attributes:
      num_train: training questions.
      num_eval: questions of each evaluation split.
      largest: numbers are 1 to this.
      targets: what has to be reached.
      num_numbers: numbers of a question, all different.
      break_probability: chance that an operator is meant to be broken (train and id).
      harder_break_probability: the same in "harder", for operators other than the favourite.
      logits: the base policy takes an operator with weight exp(logit).
      noise: chance, for each number of an answer of the base policy, that another number replaces it.
      follow: chance that an answer to a demonstration prompt is the demonstrated one.
      spare_response_tokens: room in a response beyond a right answer.
    """

    num_train: int = 16000
    num_eval: int = 512
    largest: int = 24
    targets: tuple[int, ...] = (6, 8, 10, 12)
    num_numbers: int = 8
    break_probability: float = 0.15
    harder_break_probability: float = 0.3
    logits: tuple[float, ...] = (1.5, 1.0, 0.5, 0.0)
    noise: float = 0.15
    follow: float = 0.85
    spare_response_tokens: int = 1

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float | None]] = {
            "num_train": (1, None),
            "num_eval": (1, None),
            "largest": (8, None),
            "num_numbers": (8, self.largest),
            "break_probability": (0.0, 0.9),
            "harder_break_probability": (0.0, 0.9),
            "noise": (0.0, 1.0),
            "follow": (0.0, 1.0),
            "spare_response_tokens": (0, None),
        }
        _symbolic.check_config("countdown", self, ranges)
        if len(self.logits) != len(OPERATORS):
            raise ValueError(f"countdown.logits is {self.logits}; it must have one of {', '.join(OPERATORS)}")
        if not self.targets or min(self.targets) < 2 or max(self.targets) > self.largest // 2:
            raise ValueError(
                f"countdown.targets is {self.targets}; they must be 2 to {self.largest // 2}, half of largest"
            )


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; its questions are made in memory when `source` is first called.

    Args:
      config: settings.
      data_dir: not used.
      seed: seed of the questions.
    """
    del data_dir
    numbers = [str(n) for n in range(1, config.largest + 1)]
    length = 2 + config.num_numbers + 1
    rules = Rules(
        name="countdown",
        draw=functools.partial(_draw, config),
        body=_body,
        base=functools.partial(_base, config),
        right=functools.partial(_right, config),
        follow=config.follow,
        response_length=4 + config.spare_response_tokens,
    )
    return Task(
        name=rules.name,
        tokenizer=_symbolic.make_tokenizer([*OPERATORS, *numbers]),
        strategies=OPERATORS,
        splits=_symbolic.SPLITS,
        context_length=length,
        demonstration_context_length=length + 1 + rules.response_length,
        response_length=rules.response_length,
        source=_symbolic.make_source(rules, config.num_train, config.num_eval, seed),
        prompt=_symbolic.make_prompt(rules),
        demonstration_prompt=_symbolic.make_demonstration_prompt(rules),
        grade=_make_grade(config),
        supervised=_symbolic.make_supervised(rules),
    )


def reaches(operator: str, a: int, b: int, target: int) -> bool:
    """Whether ``a operator b`` is the target; a division has to leave no rest."""
    if operator == "+":
        return a + b == target
    if operator == "-":
        return a - b == target
    if operator == "*":
        return a * b == target
    return a == target * b


def pairs(operator: str, numbers: tuple[int, ...], target: int) -> list[tuple[int, int]]:
    """The pairs ``(a, b)`` of different numbers that reach the target; larger first where both orders do."""
    ordered = sorted(numbers, reverse=True)
    return [
        (a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :] if reaches(operator, a, b, target)
    ]


@functools.cache
def _facts(largest: int, operator: str, target: int) -> list[tuple[int, int]]:
    return pairs(operator, tuple(range(1, largest + 1)), target)


def _draw(config: Config, rng: np.random.Generator, split: str) -> dict | None:
    """A question: ``target``, ``numbers``, ``pairs`` of each operator, ``key``; None to be drawn again."""
    target = int(rng.choice(config.targets))
    chance = config.harder_break_probability if split == "harder" else config.break_probability
    broken_S = rng.random(len(OPERATORS)) < chance
    if split == "harder":
        broken_S[int(np.argmax(config.logits))] = True
    if broken_S.all():
        return None
    chosen: set[int] = set()
    for operator, broken in zip(OPERATORS, broken_S, strict=True):
        facts = _facts(config.largest, operator, target)
        if not broken and facts:
            chosen |= set(facts[int(rng.integers(len(facts)))])
    rest = [n for n in range(1, config.largest + 1) if n not in chosen]
    chosen |= set(rng.permutation(rest)[: config.num_numbers - len(chosen)].tolist())
    numbers = tuple(rng.permutation(sorted(chosen)).tolist())
    found = [pairs(operator, numbers, target) for operator in OPERATORS]
    if any(bool(p) == bool(broken) for p, broken in zip(found, broken_S, strict=True)):
        return None  # solved by accident, or no such pair exists
    return {"target": target, "numbers": numbers, "pairs": found, "key": target}


def _number(value: int) -> int:
    return _FIRST_NUMBER + value - 1


def _body(example: Example) -> list[int]:
    return [_number(example["target"]), *map(_number, example["numbers"])]


def _base(config: Config, example: Example, rng: np.random.Generator) -> list[int]:
    weights_S = np.exp(config.logits)
    operator = int(rng.choice(len(OPERATORS), p=weights_S / weights_S.sum()))
    found, numbers = example["pairs"][operator], example["numbers"]
    pair = list(found[int(rng.integers(len(found)))] if found else rng.choice(numbers, 2, replace=False))
    for i in np.flatnonzero(rng.random(2) < config.noise):
        pair[i] = rng.choice([n for n in numbers if n != pair[i]])
    return [FIRST + operator, *(_number(int(n)) for n in pair)]


def _right(config: Config, example: Example) -> Right:
    rows = [(s, pair, len(found)) for s, found in enumerate(example["pairs"]) for pair in found]
    return Right(
        [(FIRST + s, _number(a), _number(b)) for s, (a, b), _ in rows],
        np.array([s for s, _, _ in rows]),
        np.array([np.exp(config.logits[s]) / count for s, _, count in rows]),
    )


def _make_grade(config: Config) -> Callable[[Example, np.ndarray], Grade]:
    last = _number(config.largest)

    def grade(example: Example, response: np.ndarray) -> Grade:
        """Right: an operator, two different numbers of the question that reach the target by it, and <eos>.

        The strategy is the operator, for wrong answers too.
        """
        tokens = np.asarray(response).tolist()
        strategy = tokens[0] - FIRST if tokens and FIRST <= tokens[0] < _FIRST_NUMBER else -1
        target, given = example["target"], set(example["numbers"])
        values = [t - _FIRST_NUMBER + 1 if _FIRST_NUMBER <= t <= last else -1 for t in tokens[1:3]]
        ways = set()
        if strategy >= 0:
            ways = {
                p for pair in pairs(OPERATORS[strategy], tuple(given), target) for p in (pair, pair[::-1])
            }
            ways = {(a, b) for a, b in ways if reaches(OPERATORS[strategy], a, b, target)}
        if not ways:
            return Grade(False, 0.0, strategy, 0)
        prefix = 1
        if values and any(a == values[0] for a, _ in ways):
            prefix = 2
            if tuple(values) in ways:
                prefix = 4 if tokens[3:4] == [EOS] else 3
        correct = prefix == 4 and len(tokens) == 4
        return Grade(correct, float(correct), strategy, prefix)

    return grade
