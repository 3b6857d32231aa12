"""Procedural questions of the package reasoning-gym (arXiv 2505.24760), by the name of a data set.

A response is right when the package's own verifier gives the text after its last ``<answer>``, up to
``</answer>``, a score of 1.0; less is partial credit (`Grade.score`). Verifiers run in a process of
their own: some evaluate what the model wrote. One that fails or takes too long means wrong, and is counted.

A strategy is the normal form of the answer (words in lower case), as a number: it tells ways to be
right apart where many answers are right (countdown, n_queens), and not where one is. There name an
embedder: then it is a cluster of the reasoning.

Splits: "train"; "test", other questions (a question's hash says to which of the two it belongs); and
"harder", by the package's curriculum, or where it has none for the data set "fresh": another seed.
"""

import dataclasses
import functools
import hashlib
from typing import Any

from sdd.tasks import _reasoning_gym as package
from sdd.tasks._strategies import stable_id
from sdd.tasks._verifier import Verifier
from sdd.tasks.base import TRAIN, Example, RandomAccessSource, Task
from sdd.tasks.chat_task import (
    ChatConfig,
    Prompts,
    after_thinking,
    chat_task,
    check_split,
    make_prompts,
    tagged_answer,
)
from sdd.typed import ConfigError

SYSTEM = (
    "Think about the question step by step. Then give the final answer, and nothing else, between <answer> "
    "and </answer>."
)
_BUCKETS = 4  # one of them for evaluation
_PROBES = 4  # questions that tell whether prompts of the harder split fit
# Tries come in blocks, each a data set of its own: some cost time by their size, others by their number. An
# evaluation question is not found in 64 tries with a chance of 1e-8, a training question in 16 with 2e-10.
_BLOCKS = ((0, 4), (4, 16), (16, 64))
_TRIES = _BLOCKS[-1][1]


@dataclasses.dataclass(frozen=True)
class Config(ChatConfig):
    """Settings of reasoning_gym; see `ChatConfig` for those of every chat.

    Attributes:
      dataset: a name of the package, for example "countdown".
      options: the data set's options as JSON, for example '{"max_numbers": 5}'.
      harder: the options of the split "harder", as JSON; "": from the package's curriculum.
      harder_levels: levels of the curriculum by which "harder" goes up, or fewer: as many as give prompts
        that fit. `Task.facts` says how many. Above 1, questions of some data sets take minutes (knight_swap,
        zebra_puzzles).
      verify_seconds: time limit of one verdict.
      system, prompt_length, response_length: as in `ChatConfig`.
      num_train, num_test: numbers of questions, 1 or more.
    """

    dataset: str = "chain_sum"
    options: str = "{}"
    harder: str = ""
    harder_levels: int = 1
    verify_seconds: float = 10.0
    system: str = SYSTEM
    prompt_length: int = 1024
    response_length: int = 1024
    num_train: int = 4096
    num_test: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_train", "num_test", "harder_levels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; valid: 1 or more")


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; questions are made when they are asked for.

    Raises:
      ConfigError: the package is not installed, no such data set or option, or what `make_prompts`
        and `chat_task` raise.
    """
    del data_dir  # nothing is stored
    package_options(config)  # before the tokenizer is read, which takes longer
    prompts = make_prompts(config)
    options, levels = splits_options(config, prompts)
    verify = Verifier("sdd.tasks._reasoning_gym.score", config.verify_seconds)

    @functools.cache
    def of_split(split: str) -> "Questions":
        size = config.num_train if split == TRAIN else config.num_test
        return Questions(config.dataset, options[split], split, size, seed, prompts)

    def source(split: str) -> RandomAccessSource:
        """Returns the questions of `split`; raises ValueError for an unknown one."""
        check_split("reasoning_gym", split, tuple(options))
        return of_split(split)

    def judge(example: Example, text: str) -> tuple[float, int]:
        answer = tagged_answer(after_thinking(text))
        if not answer:
            return 0.0, -1
        verdict = verify(config.dataset, example["options"], answer, example["entry"])
        return float(verdict.value or 0.0), stable_id(" ".join(answer.lower().split()))

    return chat_task(
        f"reasoning_gym.{config.dataset}",
        config,
        prompts,
        splits=tuple(options)[1:],
        source=source,
        judge=judge,
        facts=lambda: {
            "harder_levels": levels,
            **{f"verifier_{name}": n for name, n in verify.problems.items()},
        },
    )


def package_options(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the data set, and of its harder split; checked.

    Raises:
      ConfigError: see `make`.
    """
    try:
        package.prepare()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"config.task.name: the package {error.name!r} is not installed; pip install reasoning-gym"
        ) from None
    options = package.parse_options(config.options, "options")
    harder = package.parse_options(config.harder, "harder")
    package.check(config.dataset, options, "options")
    package.check(config.dataset, harder, "harder")
    return options, harder


def splits_options(config: Config, prompts: Prompts) -> tuple[dict[str, dict[str, Any]], int]:
    """Split -> options of its data set, the training split first; and by how many levels "harder" is up."""
    options, harder = package_options(config)
    splits = {TRAIN: options, "test": options}
    if harder:
        return {**splits, "harder": harder}, 0
    for levels in range(config.harder_levels, 0, -1):
        raised = package.harder_options(config.dataset, options, levels)
        if raised is not None and any(
            map(prompts.fits, package.first_items(config.dataset, raised, _PROBES))
        ):
            return {**splits, "harder": raised}, levels
    return {**splits, "fresh": options}, 0


class Questions:
    """The questions of a split, made by index.

    An index has `_TRIES` candidates; the first whose hash belongs to the split and whose prompt fits is
    taken. So no question is in "train" and in another split, and none has to be stored.
    """

    def __init__(
        self, dataset: str, options: dict[str, Any], split: str, size: int, seed: int, prompts: Prompts
    ):
        stream = hashlib.blake2b(f"{seed}/{split}".encode(), digest_size=4).digest()
        first = int.from_bytes(stream, "little") >> 2
        self._options, self._size, self._prompts = options, size, prompts
        self._training, self._name = split == TRAIN, f"{dataset}/{split}"

        @functools.cache
        def block(start: int, stop: int) -> Any:
            # The package adds the index to the seed, so no two blocks hold the same question.
            own = {"seed": first + start * size, "size": (stop - start) * size}
            return package.build(dataset, {**options, **own})

        self._block = block

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        """Returns an example: ``prompt_id``, ``question``, ``entry``, ``options``.

        Raises:
          IndexError: out of range.
          ValueError: no candidate fits.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"reasoning_gym {self._name}: {index}; valid: 0 to {self._size - 1}")
        failure = ""
        tries = ((block, i) for block in _BLOCKS for i in range(*block))
        for block, i in tries:
            try:
                entry = package.item(self._block(*block), index + (i - block[0]) * self._size)
            except Exception as error:  # the package gives up on some seeds
                failure = f"; reasoning-gym: {error}"
                continue
            example = {
                "prompt_id": f"{self._name}/{index + i * self._size}",
                "question": entry["question"],
                "entry": entry,
                "options": self._options,
            }
            if held_out(entry["question"]) != self._training and self._prompts.fits(example):
                return example
        raise ValueError(
            f"reasoning_gym {self._name}/{index}: none of {_TRIES} questions is new and fits "
            f"config.task.prompt_length={self._prompts.context_length}{failure}"
        )


def held_out(question: str) -> bool:
    """Whether a question belongs to evaluation."""
    return hashlib.blake2b(question.encode(), digest_size=4).digest()[0] % _BUCKETS == 0
