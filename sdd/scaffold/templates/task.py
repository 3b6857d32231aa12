"""Divisors: name a divisor of n that is not the forbidden one."""

import dataclasses

import numpy as np

from sdd.tasks.base import TRAIN, Grade, Task
from sdd.text.tokenizer import SymbolTokenizer


@dataclasses.dataclass(frozen=True)
class Config:
    """Attributes:
    largest: numbers go up to this.
    """

    largest: int = 12


def make(config: Config, data_dir: str, seed: int) -> Task:
    numbers = range(1, config.largest + 1)
    names = tuple(map(str, numbers))
    tokenizer = SymbolTokenizer(["<pad>", "<bos>", "<not>", "<demo>", "<eos>", *names])

    def example(split: str, n: int, banned: int) -> dict:
        right = [str(d) for d in numbers if n % d == 0 and d != banned]
        return {"prompt_id": f"{split}-{n}-{banned}", "n": n, "banned": banned, "right": right}

    def source(split: str) -> list[dict]:
        pairs = [(n, banned) for n in numbers for banned in numbers if min(n, banned) > 1]
        pairs = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
        kept = len(pairs) // 4  # for "id"
        chosen = {TRAIN: pairs[kept:], "id": pairs[:kept], "harder": [(n, 1) for n in numbers if n > 1]}
        return [example(split, n, banned) for n, banned in chosen[split]]

    def prompt(example: dict) -> np.ndarray:
        return tokenizer.encode(f"<bos> {example['n']} <not> {example['banned']}")

    def demonstration_prompt(example: dict, demonstration: np.ndarray) -> np.ndarray:
        shown = [token for token in demonstration if token not in tokenizer.stop_ids]
        marked = [*tokenizer.encode("<demo>"), *shown] if shown else []  # without one: the plain prompt
        return np.array([*prompt(example), *marked], np.int32)

    def grade(example: dict, response: np.ndarray) -> Grade:
        first, *rest = tokenizer.decode(response).split() or [""]
        on_path = first in example["right"]
        correct = on_path and rest == ["<eos>"]
        strategy = names.index(first) if first in names else -1
        return Grade(correct, float(correct), strategy, right_prefix=on_path + correct)

    def supervised(example: dict, rng: np.random.Generator, num_answers: int) -> list:
        answers = [tokenizer.encode(f"{d} <eos>") for d in rng.choice(example["right"], num_answers)]
        shown = answers[0]
        return [(prompt(example), answers), (demonstration_prompt(example, shown), [shown] * num_answers)]

    return Task(
        name="my_name",
        tokenizer=tokenizer,
        strategies=names,
        splits=("id", "harder"),
        context_length=4,
        demonstration_context_length=4 + 1 + 2,
        response_length=2,
        source=source,
        prompt=prompt,
        demonstration_prompt=demonstration_prompt,
        grade=grade,
        supervised=supervised,
    )
