"""Conversations as a model reads them: a tokenizer, and the template that its maker wrote for it."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from sdd import lookup
from sdd.text import gguf
from sdd.text.files import read_json, read_text
from sdd.text.load import Source, find, load
from sdd.text.template import Message, Template, check_options, compile_template, render
from sdd.text.tokenizer import Tokenizer

_MARK = "\ue000tail\ue001"  # ends the last user turn, to find out what a template writes after it


class Chat(NamedTuple):
    """A tokenizer and its chat template; made by :func:`load_chat` or :func:`make_chat`.

    Attributes:
      tokenizer: with ``special_tokens`` and ``encode_special``, where it has special tokens.
      template: the text of the template.
      compiled: the template, ready to be rendered.
      now: the time that templates are told (Llama 3.1's writes the date into the system turn); None: the
        clock's, with which the same config renders another prompt tomorrow.
    """

    tokenizer: Tokenizer
    template: str
    compiled: Template
    now: datetime.datetime | None = None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True, **options: Any) -> str:
        """Returns the text of a conversation.

        Where the template has no system turn (Gemma 2's), the system's text opens the first user turn,
        followed by a blank line.

        Args:
          messages: turns, each a dict with ``role`` (system, user, assistant) and ``content``.
          add_generation_prompt: end where the model's answer begins.
          **options: what the template reads beside that. ``enable_thinking`` switches the thinking of
            Qwen 3 and its like; templates without such a switch ignore it.

        Raises:
          ValueError: messages that the template refuses, an error in it, or an option that it does not read.
        """
        check_options(self.compiled, options)
        clock = {} if self.now is None else {"strftime_now": self.now.strftime}
        given = {**_special_tokens(self.tokenizer), **clock, **options}
        return render(self.compiled, messages, {**given, "add_generation_prompt": add_generation_prompt})

    def encode(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **options: Any
    ) -> np.ndarray:
        """Returns the int32 ids of a conversation; arguments and errors as in :meth:`render`.

        Special tokens that the template writes become those tokens. So do those that somebody writes into
        a message: texts from outside can end a turn early.
        """
        text = self.render(messages, add_generation_prompt, **options)
        return _encode(self.tokenizer, text)


def make_chat(
    tokenizer: Tokenizer, template: str, where: str = "template", now: datetime.datetime | None = None
) -> Chat:
    """Returns the chat of a tokenizer and a template.

    Args:
      tokenizer: whose special tokens the template reads.
      template: its text, in Jinja's language.
      where: the template's file, for errors.
      now: the time that it is told; None: the clock's.

    Raises:
      ValueError: an error in the template; the line names file and line.
    """
    return Chat(tokenizer, template, compile_template(template, where, _special_tokens(tokenizer)), now)


def load_chat(
    spec: str, template: str = "", vocab_size: int = 0, now: datetime.datetime | None = None
) -> Chat:
    """Returns the chat of a tokenizer's name.

    Args:
      spec: the tokenizer, as in :func:`sdd.text.load.load`.
      template: the path of a template's file, or the name of one of the tokenizer's templates; empty: the
        tokenizer's default, which is in chat_template.jinja, in tokenizer_config.json (``chat_template``: a
        text, or a list with one named "default"), or in the GGUF file.
      vocab_size: rows of the model's embedding, where that is known.
      now: the time that the template is told; None: the clock's.

    Raises:
      ValueError: as :func:`sdd.text.load.load`; no template, no such template, or an error in it.
    """
    source = find(spec)
    if source.kind == "gguf":
        metadata = gguf.read_metadata(source.path)
        tokenizer: Tokenizer = gguf.make_tokenizer(metadata, str(source.path), vocab_size)
    else:
        metadata, tokenizer = {}, load(spec, vocab_size)
    path = epath.Path(template).expanduser()
    if template and path.is_file():
        return make_chat(tokenizer, read_text(path), str(path), now)
    known = _templates(source, metadata)
    wanted = template or "default"
    if wanted not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise ValueError(
            f"tokenizer {spec!r}: no chat template {wanted!r}{lookup.nearest(wanted, known)}; "
            f"valid: the path of a template's file, or one of its own ({listed})"
        )
    where, text = known[wanted]
    return make_chat(tokenizer, text, where, now)


def _encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return getattr(tokenizer, "encode_special", tokenizer.encode)(text)


def _decode(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    return getattr(tokenizer, "decode_special", tokenizer.decode)(ids)


def _special_tokens(tokenizer: Tokenizer) -> Mapping[str, str]:
    return getattr(tokenizer, "special_tokens", {})


def _templates(source: Source, metadata: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A tokenizer's own templates by name: where each was found, and its text."""
    if source.kind == "gguf":
        texts = gguf.chat_templates(metadata)
        return {name: (f"{source.path}: chat template {name}", text) for name, text in texts.items()}
    folder = source.path.parent
    config = folder / "tokenizer_config.json"
    field, where = read_json(config).get("chat_template") or [], f"{config}: chat_template"
    entries = [{"name": "default", "template": field}] if isinstance(field, str) else field
    try:
        known = {entry["name"]: (where, str(entry["template"])) for entry in entries}
    except (KeyError, TypeError):
        raise ValueError(f"{where}: valid: a text, or a list of objects with name and template") from None
    file = folder / "chat_template.jinja"  # newer than the field, and wins over it
    if file.is_file():
        known["default"] = (str(file), read_text(file))
    return known


def tail_of(chat: Chat, messages: Sequence[Message], **options: Any) -> np.ndarray:
    """Returns the last int32 ids of a rendered conversation: all that hold text after the last user turn's.

    That is what the model reads between the question and the first token of its answer: the end of the turn,
    the header of the answer, and what switches thinking off. A token that holds the end of the question too
    is part of it.

    Args:
      chat: renders the conversation, with the generation prompt.
      messages: turns, a user turn among them.
      **options: as in :meth:`Chat.render`.

    Raises:
      ValueError: no user turn, or as :meth:`Chat.render`.
    """
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    if not users or not isinstance(messages[users[-1]].get("content"), str):
        raise ValueError("messages: no user turn with a text; valid: at least one")
    marked = [dict(message) for message in messages]
    marked[users[-1]]["content"] += _MARK
    tail = chat.render(marked, **options).rpartition(_MARK)[2]
    ids = chat.encode(messages, **options)
    text = _decode(chat.tokenizer, ids)
    if not text.endswith(tail):
        raise ValueError(f"{chat.compiled.where}: {tail!r} ends the chat, and its ids decode to another text")
    before = text[: len(text) - len(tail)]
    start = len(ids)
    # What comes before is decoded, not the end: SentencePiece decodes a first piece otherwise.
    while not before.startswith(_decode(chat.tokenizer, ids[:start])):
        start -= 1
    return ids[start:]


def check_tail(
    chat: Chat,
    student_messages: Sequence[Message],
    teacher_messages: Sequence[Message],
    teacher_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> np.ndarray:
    """Returns the ids that both student and teacher read last before the answer, as :func:`tail_of` says.

    A teacher that scores the student's answer after another header scores its first tokens wrongly. Tasks
    call this when they are made, with one example of each.

    Args:
      chat: renders both.
      student_messages: the question.
      teacher_messages: the question, a demonstration in the same user turn.
      teacher_options: the teacher's options where they are not the student's.
      **options: as in :meth:`Chat.render`.

    Raises:
      ValueError: the tails differ; one line with both. Or as :func:`tail_of`.
    """
    student = tail_of(chat, student_messages, **options)
    teacher = tail_of(chat, teacher_messages, **(options if teacher_options is None else teacher_options))
    if not np.array_equal(student, teacher):
        said = [f"{_decode(chat.tokenizer, tail)!r} ({tail.tolist()})" for tail in (student, teacher)]
        raise ValueError(
            f"{chat.compiled.where}: after the last user turn the student reads {said[0]} "
            f"and the teacher {said[1]}; valid: the same tokens"
        )
    return student
