"""Arithmetic in several ways: add two numbers of two digits by one of four methods, with the steps shown.

    prompt                  <bos> tens ones + tens ones (<not> method)* <query>
    answer                  method step.. = tens ones <eos>

    37 + 45    written    1 2 8      ones give 1 2, the tens with the carry 8            = 8 2
               split      7 1 2      tens give 7, ones give 1 2                          = 8 2
               step       7 7        37 and the 40 of 45 are 77, and the 5 is left       = 8 2
               round      8 7 5      45 rounded up is 50, 37 and 50 are 87, less 5       = 8 2

A question may forbid methods. An answer is right if its method is not forbidden, its steps are that
method's, and the sum is right; the strategy is the method.

Splits: "train" and "id" alike, each method forbidden with `Config.forbid_probability`; "harder", where the
method that the base policy likes best is forbidden and the others are forbidden more often. In every question
some method is allowed. No sum is in two splits.

The base policy, which a warm start imitates, picks a method by `Config.logits` whether or not it is
forbidden, and with probability `Config.noise` gets one digit wrong. So it is right as often with each method.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from sdd.tasks import _symbolic
from sdd.tasks._symbolic import FIRST, Right, Rules
from sdd.tasks.base import Example, Grade, Task
from sdd.tasks.concept_graph_config import EOS

METHODS = ("written", "split", "step", "round")
_FIRST_DIGIT = FIRST + len(METHODS)
_PLUS, _EQUALS, _NOT = range(_FIRST_DIGIT + 10, _FIRST_DIGIT + 13)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task.

    Attributes:
      num_train: training questions.
      num_eval: questions of each evaluation split.
      forbid_probability: chance that a method is forbidden (train and id).
      harder_forbid_probability: the same in "harder", for methods other than the favourite.
      logits: the base policy takes a method with weight exp(logit).
      noise: chance that an answer of the base policy has a wrong digit.
      follow: chance that an answer to a demonstration prompt is the demonstrated one.
      spare_response_tokens: room in a response beyond the longest right answer.
    """

    num_train: int = 8000
    num_eval: int = 512
    forbid_probability: float = 0.15
    harder_forbid_probability: float = 0.3
    logits: tuple[float, ...] = (1.5, 1.0, 0.5, 0.0)
    noise: float = 0.3
    follow: float = 0.85
    spare_response_tokens: int = 1

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float | None]] = {
            "num_train": (1, None),
            "num_eval": (1, None),
            "forbid_probability": (0.0, 0.9),
            "harder_forbid_probability": (0.0, 0.9),
            "noise": (0.0, 1.0),
            "follow": (0.0, 1.0),
            "spare_response_tokens": (0, None),
        }
        _symbolic.check_config("arithmetic", self, ranges)
        if len(self.logits) != len(METHODS):
            raise ValueError(f"arithmetic.logits is {self.logits}; it must have one of {', '.join(METHODS)}")


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; its questions are made in memory when `source` is first called.

    Args:
      config: settings.
      data_dir: not used.
      seed: seed of the questions.
    """
    del data_dir
    length = 2 + 5 + 2 * (len(METHODS) - 1)
    rules = Rules(
        name="arithmetic",
        draw=functools.partial(_draw, config),
        body=_body,
        base=functools.partial(_base, config),
        right=functools.partial(_right, config),
        follow=config.follow,
        response_length=8 + config.spare_response_tokens,
    )
    return Task(
        name=rules.name,
        tokenizer=_symbolic.make_tokenizer([*METHODS, *map(str, range(10)), "+", "=", "<not>"]),
        strategies=METHODS,
        splits=_symbolic.SPLITS,
        context_length=length,
        demonstration_context_length=length + 1 + rules.response_length,
        response_length=rules.response_length,
        source=_symbolic.make_source(rules, config.num_train, config.num_eval, seed),
        prompt=_symbolic.make_prompt(rules),
        demonstration_prompt=_symbolic.make_demonstration_prompt(rules),
        grade=_make_grade(),
        supervised=_symbolic.make_supervised(rules),
    )


def steps(method: str, a: int, b: int) -> tuple[int, ...]:
    """The digits that a method writes before the sum; the tens of a and b add up to 8 at most."""
    tens, ones = a // 10 + b // 10, a % 10 + b % 10
    if method == "written":
        return (ones // 10, ones % 10, tens + ones // 10)
    if method == "split":
        return (tens, ones // 10, ones % 10)
    if method == "step":
        return (tens, a % 10)
    return (tens + 1, a % 10, 10 - b % 10)


def _draw(config: Config, rng: np.random.Generator, split: str) -> dict | None:
    """A question: ``a``, ``b``, ``forbidden`` methods by number; None to be drawn again."""
    a, b = (int(n) for n in rng.integers(11, 80, 2))
    chance = config.harder_forbid_probability if split == "harder" else config.forbid_probability
    forbidden_S = rng.random(len(METHODS)) < chance
    if split == "harder":
        forbidden_S[int(np.argmax(config.logits))] = True
    # Numbers that end in 0 have nothing to round or to carry.
    if a % 10 == 0 or b % 10 == 0 or a // 10 + b // 10 > 8 or forbidden_S.all():
        return None
    forbidden = tuple(rng.permutation(np.flatnonzero(forbidden_S)).tolist())
    return {"a": a, "b": b, "forbidden": forbidden, "key": (a, b), "group": (a, b)}


def _digits(*values: int) -> list[int]:
    return [_FIRST_DIGIT + value for value in values]


def _body(example: Example) -> list[int]:
    a, b = example["a"], example["b"]
    bans = [token for s in example["forbidden"] for token in (_NOT, FIRST + s)]
    return [*_digits(a // 10, a % 10), _PLUS, *_digits(b // 10, b % 10), *bans]


def _write(method: int, a: int, b: int) -> list[int]:
    total = a + b
    shown = _digits(*steps(METHODS[method], a, b))
    return [FIRST + method, *shown, _EQUALS, *_digits(total // 10, total % 10)]


def _base(config: Config, example: Example, rng: np.random.Generator) -> list[int]:
    weights_S = np.exp(config.logits)
    method = int(rng.choice(len(METHODS), p=weights_S / weights_S.sum()))
    tokens = _write(method, example["a"], example["b"])
    if rng.random() < config.noise:
        at = int(rng.choice([i for i, t in enumerate(tokens) if _FIRST_DIGIT <= t < _PLUS]))
        tokens[at] = _FIRST_DIGIT + (tokens[at] - _FIRST_DIGIT + int(rng.integers(1, 10))) % 10
    return tokens


def _right(config: Config, example: Example) -> Right:
    allowed = [s for s in range(len(METHODS)) if s not in example["forbidden"]]
    answers = [tuple(_write(s, example["a"], example["b"])) for s in allowed]
    return Right(answers, np.array(allowed), np.exp(np.asarray(config.logits)[allowed]))


def _make_grade() -> Callable[[Example, np.ndarray], Grade]:
    def grade(example: Example, response: np.ndarray) -> Grade:
        """Right: a method that is not forbidden, its steps, the sum, and <eos>.

        The strategy is the method, for wrong answers too.
        """
        tokens = np.asarray(response).tolist()
        method = tokens[0] - FIRST if tokens and FIRST <= tokens[0] < _FIRST_DIGIT else -1
        if method < 0 or method in example["forbidden"]:
            return Grade(False, 0.0, method, 0)
        right = [*_write(method, example["a"], example["b"]), EOS]
        same = [t == r for t, r in zip(tokens, right)]
        prefix = same.index(False) if False in same else len(same)
        correct = tokens == right
        return Grade(correct, float(correct), method, prefix)

    return grade
