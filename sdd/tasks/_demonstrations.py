"""What a teacher is shown of a response: the tokens before its stop, no thoughts, no special tokens, cut."""

import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from sdd.tasks._answers import after_thinking
from sdd.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sdd.tasks._chat import ChatConfig


def until_stop(ids: np.ndarray, stops: Collection[int]) -> np.ndarray:
    """The ids before the first stop token."""
    ids = np.asarray(ids, np.int32)
    found = np.flatnonzero(np.isin(ids, list(stops)))
    return ids[: found[0]] if found.size else ids


def special_finder(tokenizer: Tokenizer) -> Callable[[int], bool]:
    """Whether an id is a special token, which could end the user's turn from inside a demonstration."""
    decode_special = getattr(tokenizer, "decode_special", None)
    if decode_special is None:
        return lambda i: False
    return functools.cache(lambda i: tokenizer.decode([i]) == "" and decode_special([i]) != "")


def shown_ids(
    config: "ChatConfig", tokenizer: Tokenizer, special: Callable[[int], bool], demonstration: np.ndarray
) -> tuple[np.ndarray, int]:
    """The ids of a demonstration that are shown, and how many were cut."""
    ids = until_stop(demonstration, tokenizer.stop_ids)
    if not config.demonstration_thinking:
        text = getattr(tokenizer, "decode_special", tokenizer.decode)(ids)
        if "</think>" in text:
            ids = tokenizer.encode(after_thinking(text).strip())
    ids = np.array([i for i in ids.tolist() if not special(i)], np.int32)
    limit = config.longest_demonstration
    cut = max(len(ids) - limit, 0)
    if cut:
        head = limit if config.demonstration_cut == "end" else limit // 2
        ids = np.concatenate([ids[:head], ids[head + cut :]])
    return ids, cut
