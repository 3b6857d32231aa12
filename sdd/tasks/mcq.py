"""Multiple choice from `tensorflow_datasets`: ai2_arc (arXiv 1803.05457) and openbookqa (arXiv 1809.02789).

The data are prepared in the run's data folder, and downloaded for that if they are not there; TensorFlow
is not needed. A response is right when the text after its last ``<answer>``, up to ``</answer>``, stripped,
is the letter. A strategy is a cluster of the reasoning's embeddings, within the rollouts of a prompt.

Splits: "train", "test", and the test questions of other data sets, which nothing was trained on: each of
`Config.held_out` by its name, and "harder", those of arc_challenge, where the data set is arc_easy.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

from sdd import lookup
from sdd.tasks._rows import RowError
from sdd.tasks.base import TRAIN, Example, RandomAccessSource, Task
from sdd.tasks.chat_task import ChatConfig, chat_task, check_split, fitting, make_prompts, tagged_answer
from sdd.typed import ConfigError

BUILDERS = {
    "arc_easy": "ai2_arc/ARC-Easy",
    "arc_challenge": "ai2_arc/ARC-Challenge",
    "openbookqa": "openbookqa",
}
SYSTEM = (
    "Given a question and options, select the right answer. Reason step by step between <reasoning> and "
    "</reasoning>. Then give only the letter of the right option between <answer> and </answer>."
)
_LETTERS = "ABCDE"


@dataclasses.dataclass(frozen=True)
class Config(ChatConfig):
    """Settings of mcq; see `ChatConfig` for those of every chat.

    Attributes:
      dataset: what is trained on.
      held_out: other data sets, each an evaluation split of its name.
      embedder: as in `ChatConfig`; "" for no strategies.
      system, prompt_length, response_length: as in `ChatConfig`.
    """

    dataset: Literal["arc_easy", "arc_challenge", "openbookqa"] = "arc_easy"
    held_out: tuple[str, ...] = ()
    embedder: str = "wordllama"
    system: str = SYSTEM
    prompt_length: int = 512
    response_length: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.held_out:
            if name not in BUILDERS or name == self.dataset:
                others = ", ".join(sorted(set(BUILDERS) - {self.dataset}))
                near = lookup.nearest(name, BUILDERS)
                raise ValueError(f"held_out has {name!r}{near}; valid: {others}")


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; its data are prepared in `data_dir` when `source` is first called.

    Raises:
      ConfigError: what `make_prompts` and `chat_task` raise.
    """
    del seed  # nothing is random
    prompts = make_prompts(config)
    parts: dict[str, tuple[str, str]] = {TRAIN: (config.dataset, "train"), "test": (config.dataset, "test")}
    if config.dataset == "arc_easy":
        parts["harder"] = ("arc_challenge", "test")
    parts |= {name: (name, "test") for name in config.held_out}

    counts: dict[str, int] = {}  # of the splits that were read: the others may not be there

    @functools.cache
    def of_split(split: str) -> list[Example]:
        dataset, part = parts[split]
        limit = config.num_train if split == TRAIN else config.num_test
        rows, too_long = fitting(prompts, read(dataset, part, data_dir), limit, f"mcq {split}")
        counts.update({f"rows_{split}": len(rows), f"too_long_{split}": too_long})
        return rows

    def source(split: str) -> RandomAccessSource:
        """Returns the examples of `split`; raises ValueError for an unknown one, or an unusable row."""
        check_split("mcq", split, tuple(parts))
        return of_split(split)

    def judge(example: Example, text: str) -> tuple[float, int]:
        return float(tagged_answer(text) == example["answer"]), -1

    return chat_task(
        "mcq",
        config,
        prompts,
        splits=tuple(parts)[1:],
        source=source,
        judge=judge,
        facts=lambda: dict(counts),
    )


def read(dataset: str, part: str, data_dir: str) -> list[Example]:
    """The examples of a data set: ``prompt_id`` ("arc_easy/test/ID"), ``question``, ``answer``.

    Raises:
      ConfigError: the data are not prepared and cannot be downloaded.
      RowError: a row whose answer is none of its options, or an id that occurs twice.
    """
    from sdd.tasks import _tfds  # heavy import, only where data is read

    try:
        records = _tfds.prepared_source(lambda: _tfds.named_builder(BUILDERS[dataset], data_dir), part)
    except Exception as error:  # the network has many
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason if len(reason) < 200 else f"...{reason[-200:]}"  # TFDS puts the cause last
        raise ConfigError(
            f"config.task.dataset={dataset!r}: {BUILDERS[dataset]} cannot be read from {data_dir} or "
            f"prepared there ({reason}); valid: a machine with a network, or data that were prepared "
            "elsewhere with file_format='array_record'"
        ) from None
    parse = _parse_openbookqa if dataset == "openbookqa" else _parse_arc
    examples: list[Example] = []
    seen: set[str] = set()
    for i in range(len(records)):
        where = f"{BUILDERS[dataset]} {part} row {i}"
        name, stem, options, answer = parse(records[i], i)
        if answer not in options:
            raise RowError(
                f"{where}: field 'answerKey' is {answer!r}; valid: {', '.join(options) or 'options, none'}"
            )
        if name in seen:
            raise RowError(f"{where}: field 'id' {name!r} occurs twice; valid: unique ids")
        seen.add(name)
        lines = [f"{letter}: {text}" for letter, text in options.items()]
        examples.append(
            {
                "prompt_id": f"{dataset}/{part}/{name}",
                "question": "\n".join([stem, "", *lines]),
                "answer": answer,
            }
        )
    return examples


def _parse_arc(record: Mapping[str, Any], index: int) -> tuple[str, str, dict[str, str], str]:
    choices = record["choices"]
    letters = [_letter(label) for label in choices["label"]]
    options = dict(zip(letters, map(_text, choices["text"]), strict=True))
    return _text(record["id"]), _text(record["question"]), options, _letter(record["answerKey"])


def _parse_openbookqa(record: Mapping[str, Any], index: int) -> tuple[str, str, dict[str, str], str]:
    question = record["question"]
    options = {letter: _text(question[f"choice_{letter}"]) for letter in _LETTERS[:4]}
    return str(index), _text(question["stem"]), options, _letter(record["answerKey"])  # it stores no id


def _letter(label: Any) -> str:
    """A class label as its letter; "" for one that is none."""
    return _LETTERS[int(label)] if 0 <= int(label) < len(_LETTERS) else ""


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()
