"""Science questions with options (SciKnowEval, arXiv 2406.09098), in the form that SDPO trained on.

The files are yours: a folder with ``SUBJECT/train.jsonl`` and ``SUBJECT/test.jsonl``, one object a
line with ``idx`` (int), ``answer`` (a letter), ``prompt`` (question and option lines) and ``system``.

A response is right when the text after its last ``<answer>``, up to ``</answer>``, stripped, is the
letter. A strategy is a cluster of the reasoning's embeddings, within the rollouts of a prompt.

Splits: "train"; "test"; "test_unseen", the test questions whose text before the options does not occur
in training. `Task.facts` says how many do.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any, Literal

from etils import epath

from sdd import lookup
from sdd.tasks._rows import RowError, read_rows, unique
from sdd.tasks.base import TRAIN, Example, RandomAccessSource, Task
from sdd.tasks.chat_task import (
    ChatConfig,
    chat_task,
    check_split,
    fitting,
    make_prompts,
    tagged_answer,
)
from sdd.typed import ConfigError

SPLITS = ("test", "test_unseen")
_FIELDS = {"idx": int, "answer": str, "prompt": str, "system": str}
_OPTION = re.compile(r"^([A-Z]): ", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Config(ChatConfig):
    """Settings of science_qa; see `ChatConfig` for those of every chat.

    Attributes:
      path: the folder of subjects.
      subjects: which of them, for example "biology", "chemistry", "material", "physics".
      drop_overlap: where questions whose text before the options is in both files are left out: "train",
        "test", or "none".
      embedder: as in `ChatConfig`; "" for no strategies.
    """

    path: str = ""
    subjects: tuple[str, ...] = ("chemistry",)
    drop_overlap: Literal["none", "train", "test"] = "none"
    embedder: str = "wordllama"


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; the files are read when `source` is first called.

    Raises:
      ConfigError: no path, no such subject, or what `make_prompts` and `chat_task` raise.
    """
    del data_dir, seed  # nothing is prepared, nothing is random
    check_subjects(config)
    prompts = make_prompts(config)

    @functools.cache
    def data() -> tuple[dict[str, list[Example]], dict[str, int]]:
        return _splits(config, prompts)

    def source(split: str) -> RandomAccessSource:
        """Returns the examples of `split`; raises ValueError for an unknown one, or an unusable row."""
        check_split("science_qa", split, (TRAIN, *SPLITS))
        return data()[0][split]

    def judge(example: Example, text: str) -> tuple[float, int]:
        return float(tagged_answer(text) == example["answer"]), -1

    return chat_task(
        "science_qa",
        config,
        prompts,
        splits=SPLITS,
        source=source,
        judge=judge,
        facts=lambda: dict(data()[1]),
    )


def check_subjects(config: Config) -> None:
    """Raises ConfigError for a path that holds no such subjects."""
    path = epath.Path(config.path)
    if not config.path or not path.is_dir():
        raise ConfigError(
            f"config.task.path={config.path!r}: no such folder; valid: a folder with SUBJECT/train.jsonl and "
            "SUBJECT/test.jsonl (SciKnowEval as the SDPO repository has it)"
        )
    known = sorted(p.name for p in path.iterdir() if p.is_dir())
    if not config.subjects:
        raise ConfigError("config.task.subjects=(): valid: one or more")
    for i, subject in enumerate(config.subjects):
        if subject not in known:
            raise ConfigError(
                f"config.task.subjects[{i}]={subject!r}: no such folder in {path}"
                f"{lookup.nearest(subject, known)}; valid: {', '.join(known)}"
            )


def read_subject(path: epath.Path, subject: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ``("FILE:LINE", example)``.

    An example has ``prompt_id`` ("biology/test/17"), ``system``, ``question``, ``answer`` and ``stem``, the
    question without options and what follows them.

    Raises:
      RowError: a row without an answer, or whose answer is none of its options.
    """
    for where, row in read_rows(path / subject / f"{split}.jsonl", _FIELDS):
        options = _OPTION.findall(row["prompt"])
        if not options:
            raise RowError(f"{where}: field 'prompt' has no option lines; valid: lines like 'A: ...'")
        if row["answer"] not in options:
            raise RowError(f"{where}: field 'answer' is {row['answer']!r}; valid: {', '.join(options)}")
        yield (
            where,
            {
                "prompt_id": f"{subject}/{split}/{row['idx']}",
                "system": row["system"],
                "question": row["prompt"],
                "answer": row["answer"],
                "stem": _OPTION.split(row["prompt"], maxsplit=1)[0].strip(),
            },
        )


def _splits(config: Config, prompts: Any) -> tuple[dict[str, list[Example]], dict[str, int]]:
    path = epath.Path(config.path)
    files = {
        split: [
            example
            for subject in config.subjects
            for _, example in unique(
                read_subject(path, subject, split), lambda example: example["prompt_id"], "field 'idx':"
            )
        ]
        for split in (TRAIN, "test")
    }
    stems = {split: {example["stem"] for example in rows} for split, rows in files.items()}
    facts = {"overlap": sum(example["stem"] in stems[TRAIN] for example in files["test"])}
    unseen = [example for example in files["test"] if example["stem"] not in stems[TRAIN]]
    if config.drop_overlap == "train":
        files[TRAIN] = [example for example in files[TRAIN] if example["stem"] not in stems["test"]]
        unseen = files["test"]
    elif config.drop_overlap == "test":
        files["test"] = unseen
    splits: dict[str, list[Example]] = {}
    for split, rows in {**files, "test_unseen": unseen}.items():
        limit = config.num_train if split == TRAIN else config.num_test
        splits[split], too_long = fitting(prompts, rows, limit, f"science_qa {split}")
        facts |= {f"rows_{split}": len(splits[split]), f"too_long_{split}": too_long}
    return splits, facts
