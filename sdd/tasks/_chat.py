"""A chat's prompts: the student's, and the teacher's with a demonstration.

The student reads the task's system text and the question, rendered by the chat template. The teacher
reads the same system text and one user turn: the question, a demonstration under a heading, and an
instruction to solve the original question (SDPO, arXiv 2601.20802). Both end in the same tokens,
after which the student's response follows.

A demonstration enters as the student's own token ids, and is cut to `ChatConfig.demonstration_length`
tokens. The rest of the teacher's prompt is never cut: an example that does not fit is not in a split.
"""

import dataclasses
import datetime
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from sdd.tasks._demonstrations import shown_ids, special_finder, until_stop
from sdd.tasks.base import Example
from sdd.text.tokenizer import Tokenizer
from sdd.typed import ConfigError

if TYPE_CHECKING:
    from sdd.text.chat import Chat

TEACHER_TEXT = """{question}

Correct solution:

{demonstration}

Correctly solve the original question."""

_MARK = "\ue000demonstration\ue000"  # private use: no text that people write holds it
_SLACK = 8  # tokens by which the parts of a teacher's prompt may differ from question to question


@dataclasses.dataclass(frozen=True)
class ChatConfig:
    """Settings that every task in natural language has.

    Attributes:
      tokenizer: what `sdd.text.load.load` reads.
      chat_template: a Jinja file, or the name of one of the tokenizer's templates; "" for its default.
      vocab_size: rows of the model's embedding where they are more than the tokenizer's ids; 0: they are not.
      thinking: whether the template lets the model think first, where it offers that.
      date: what templates are told as today's date (some write it), so that a run can be repeated.
      system: the system text; "" for the task's own.
      response_start: text that begins every response: prompts end in it, and verdicts read it too. It
        brings a small model to a form, for example "<answer>".
      prompt_length: most tokens of a prompt; examples with longer ones are left out, and counted.
      response_length: most tokens of a response, the stop token included.
      demonstration_length: most tokens of a demonstration; what is longer is cut. 0: as `response_length`.
      demonstration_cut: what is cut out of a long one, its "middle" or its "end".
      demonstration_thinking: whether the part up to ``</think>`` is shown too.
      teacher_text: the teacher's user turn, with ``{question}`` and ``{demonstration}``.
      num_train: training examples, the first so many; 0: all there are.
      num_test: the same of each evaluation split.
      embedder: strategies are clusters of the reasoning's embeddings by this embedder (see
        `sdd.embedders.load`); "": the task's other notion of a strategy.
      cluster_threshold: mean cosine similarity from which two clusters are one strategy. Of 18 solutions
        written by hand in two strategies a question, 0.7 told strategies apart best, by wordllama and by
        minilm, and far from perfectly: look at what it joins before you trust a number.
    """

    tokenizer: str = ""
    chat_template: str = ""
    vocab_size: int = 0
    thinking: bool = False
    date: str = "2024-07-26"
    system: str = ""
    response_start: str = ""
    prompt_length: int = 2048
    response_length: int = 8192
    demonstration_length: int = 0
    demonstration_cut: Literal["middle", "end"] = "middle"
    demonstration_thinking: bool = False
    teacher_text: str = TEACHER_TEXT
    num_train: int = 0
    num_test: int = 0
    embedder: str = ""
    cluster_threshold: float = 0.7

    def __post_init__(self) -> None:
        lows = {"prompt_length": 1, "response_length": 2}
        lows |= dict.fromkeys(("vocab_size", "demonstration_length", "num_train", "num_test"), 0)
        for name, low in lows.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; valid: {low} or more")
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError:
            raise ValueError(f"date is {self.date!r}; valid: like 2024-07-26") from None
        if not -1 < self.cluster_threshold <= 1:
            raise ValueError(f"cluster_threshold is {self.cluster_threshold}; valid: above -1, at most 1")
        for part in ("{question}", "{demonstration}"):
            if (times := self.teacher_text.count(part)) != 1:
                raise ValueError(f"teacher_text has {part} {times} times; valid: exactly once")

    @property
    def longest_demonstration(self) -> int:
        """Most tokens of a demonstration that are shown."""
        return self.demonstration_length or self.response_length


class Prompts(NamedTuple):
    """A chat's prompts, as pure functions.

    Attributes:
      tokenizer: of the chat.
      context_length: most tokens of a prompt.
      demonstration_context_length: most tokens of a prompt with a demonstration.
      prompt, demonstration_prompt, demonstration_cut: see `sdd.tasks.base.Task`.
      fits: ``example -> bool``, whether its prompts are short enough.
      text: ``response ids -> str``, with its start, without what comes from its first stop token on.
      response: ``text -> int32``, as the model would write it: its tokens and the stop token.
    """

    tokenizer: Tokenizer
    context_length: int
    demonstration_context_length: int
    prompt: Callable[[Example], np.ndarray]
    demonstration_prompt: Callable[[Example, np.ndarray], np.ndarray]
    demonstration_cut: Callable[[np.ndarray], int]
    fits: Callable[[Example], bool]
    text: Callable[[np.ndarray], str]
    response: Callable[[str], np.ndarray]


def make_prompts(config: ChatConfig) -> Prompts:
    """Loads the chat and builds its prompts.

    An example has a ``question``, and may have a ``system`` text, which `ChatConfig.system` replaces.

    Raises:
      ConfigError: no such tokenizer or template, or one under which student and teacher read other
        tokens before the response.
    """
    chat = _load(config)
    tokenizer = chat.tokenizer
    stops = frozenset(tokenizer.stop_ids)
    text_of = getattr(tokenizer, "decode_special", tokenizer.decode)
    show = functools.partial(shown_ids, config, tokenizer, special_finder(tokenizer))
    # The demonstrations of a prompt come one after another.
    frame_of = functools.lru_cache(maxsize=256)(functools.partial(_frame, config, chat))
    start = tokenizer.encode(config.response_start)
    join = lambda *parts: np.concatenate(parts).astype(np.int32)  # noqa: E731

    def student(example: Example) -> np.ndarray:
        return join(_student(config, chat, example), start)

    def frame(example: Example) -> tuple[np.ndarray, np.ndarray]:
        before, after = frame_of(example.get("system", ""), example["question"])
        return before, join(after, start)

    sample = {"prompt_id": "sample", "system": "Answer.", "question": "What is it?"}
    extra = sum(map(len, frame(sample))) - len(student(sample)) + _SLACK
    longest_frame = config.prompt_length + extra
    _check_ends(config, chat, frame_of(sample["system"], sample["question"])[1])

    def prompt(example: Example) -> np.ndarray:
        """Returns the student's prompt; raises ValueError for one that is too long."""
        ids = student(example)
        check_length(example, "prompt", len(ids), config.prompt_length)
        return ids

    def demonstration_prompt(example: Example, demonstration: np.ndarray) -> np.ndarray:
        """Returns the teacher's prompt; the plain one if the demonstration shows nothing."""
        shown, _ = show(demonstration)
        if not len(shown):
            return prompt(example)
        before, after = frame(example)
        check_length(example, "teacher's question and instruction", len(before) + len(after), longest_frame)
        return join(before, start, shown, after)

    def fits(example: Example) -> bool:
        short = len(student(example)) <= config.prompt_length
        return short and sum(map(len, frame(example))) <= longest_frame

    longest = longest_frame + len(start) + config.longest_demonstration
    return Prompts(
        tokenizer=tokenizer,
        context_length=config.prompt_length,
        demonstration_context_length=longest + -longest % 16,  # devices lay arrays in tiles of 8 or 16 rows
        prompt=prompt,
        demonstration_prompt=demonstration_prompt,
        demonstration_cut=lambda demonstration: show(demonstration)[1],
        fits=fits,
        text=lambda ids: config.response_start + text_of(until_stop(ids, stops)),
        response=lambda text: join(
            tokenizer.encode(text.removeprefix(config.response_start)), [turn_end(config, chat)]
        ),
    )


def turn_end(config: ChatConfig, chat: "Chat") -> int:
    """The stop token with which the template ends the assistant's turn."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    rest = chat.render(turns, add_generation_prompt=False, **_options(config)).rpartition(_MARK)[2]
    stops = chat.tokenizer.stop_ids
    return next((i for i in _encode(chat, rest).tolist() if i in stops), stops[0])


def check_length(example: Example, what: str, length: int, limit: int, key: str = "prompt_length") -> None:
    """Raises ValueError where a part of an example's row is longer than the row has room for."""
    if length > limit:
        raise ValueError(
            f"{example['prompt_id']}: a {what} of {length} tokens; at most {limit} fit (config.task.{key})"
        )


def _load(config: ChatConfig) -> "Chat":
    from sdd.text.chat import load_chat

    if not config.tokenizer:
        raise ConfigError(
            "config.task.tokenizer='': a task in natural language needs one; valid: a folder with "
            "tokenizer.json, a SentencePiece .model, a .gguf, or smollm2"
        )
    now = datetime.datetime.fromisoformat(config.date)
    try:
        return load_chat(config.tokenizer, config.chat_template, config.vocab_size, now)
    except ValueError as error:
        raise ConfigError(f"config.task.tokenizer={config.tokenizer!r}: {error}") from None


def _options(config: ChatConfig) -> dict[str, Any]:
    return {"enable_thinking": config.thinking}


def _encode(chat: "Chat", text: str) -> np.ndarray:
    return getattr(chat.tokenizer, "encode_special", chat.tokenizer.encode)(text)


def _messages(config: ChatConfig, system: str, user: str) -> list[dict[str, str]]:
    system = config.system or system
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def _student(config: ChatConfig, chat: "Chat", example: Example) -> np.ndarray:
    messages = _messages(config, example.get("system", ""), example["question"])
    return chat.encode(messages, **_options(config))


def _frame(config: ChatConfig, chat: "Chat", system: str, question: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids before and after the demonstration in the teacher's prompt."""
    user = config.teacher_text.replace("{demonstration}", _MARK).replace("{question}", question)
    parts = chat.render(_messages(config, system, user), **_options(config)).split(_MARK)
    if len(parts) != 2:
        raise ConfigError(
            f"config.task.chat_template={config.chat_template!r}: it writes the user's turn "
            f"{len(parts) - 1} times; valid: once"
        )
    return _encode(chat, parts[0]), _encode(chat, parts[1])


def _check_ends(config: ChatConfig, chat: "Chat", after: np.ndarray) -> None:
    """Refuses a template under which the student's prompt and the teacher's end in other tokens."""
    from sdd.text.chat import check_tail

    student, teacher = (_messages(config, "Answer.", text) for text in ("What is it?", config.teacher_text))
    try:
        tail = check_tail(chat, student, teacher, **_options(config))
    except ValueError as error:
        raise ConfigError(f"config.task.chat_template={config.chat_template!r}: {error}") from None
    if after[len(after) - len(tail) :].tolist() != tail.tolist():
        raise ConfigError(
            f"config.task.teacher_text: after a demonstration it ends in the ids "
            f"{after[-len(tail) :].tolist()}, "
            f"and the student's prompt in {tail.tolist()}; valid: a text that does not merge with them"
        )
