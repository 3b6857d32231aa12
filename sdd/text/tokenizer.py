"""Tokenizers behind one Protocol, and the word-level symbolic vocabulary.

Tokenizers that are read from files are in the other files of this room; :func:`sdd.text.load.load`
finds the right one.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of sdd asks of a tokenizer.

    Attributes:
      vocab_size: number of ids, ``V``; every id is in ``[0, V)``.
      pad_id: the id that fills a row. Padding is told from text by masks, never by this id.
      stop_ids: ids that end a response.

    Tokenizers that chats can use well have three things more (see :mod:`sdd.text.chat`):
    ``special_tokens``, the texts of bos_token, eos_token and so on; ``encode_special``, which reads such
    texts as the tokens that they name; and ``decode_special``, which writes them out.
    """

    vocab_size: int
    pad_id: int
    stop_ids: tuple[int, ...]

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, shape ``[num_tokens]``, without added start or stop tokens."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`."""
        ...


class SymbolTokenizer:
    """A word-level tokenizer: a fixed list of words, separated by spaces.

    It is lossless: ``encode(decode(ids))`` is ``ids``, special words included.

    Args:
      words: the vocabulary; a word's place is its id.
      pad: the word that pads.
      stop: the words that end a response.

    Raises:
      ValueError: a word is listed twice, is empty or holds white space, or `pad` or `stop` is not listed.
    """

    def __init__(self, words: Sequence[str], pad: str = "<pad>", stop: Sequence[str] = ("<eos>",)):
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = next(word for word in self.words if self.words.count(word) > 1)
            raise ValueError(f"words: {twice!r} is listed more than once; every word needs one id")
        for word in self.words:
            if word.split() != [word]:
                raise ValueError(
                    f"words: {word!r} is empty or holds white space; a word must be a single one"
                )
        self.vocab_size = len(self.words)
        self.pad_id = self._id(pad)
        self.stop_ids = tuple(self._id(word) for word in stop)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            near = difflib.get_close_matches(word, self.words, n=1, cutoff=0.0)
            hint = f"the nearest of the {self.vocab_size} words is {near[0]!r}" if near else "no words at all"
            raise ValueError(f"unknown word {word!r}: {hint}")
        return self._ids[word]

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of the space-separated words of `text`.

        Raises:
          ValueError: a word is not in the vocabulary; the line names it and the nearest valid word.
        """
        return np.array([self._id(word) for word in text.split()], dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the words of `ids` joined by single spaces, special words included.

        Raises:
          ValueError: an id is outside ``[0, vocab_size)``.
        """
        return " ".join(self.words[i] for i in valid_ids(ids, self.vocab_size))


def valid_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Returns `ids` as a list of ints.

    Raises:
      ValueError: an id is outside ``[0, vocab_size)``.
    """
    found = np.asarray(ids if hasattr(ids, "__array__") else list(ids), dtype=np.int64).reshape(-1).tolist()
    for i in found:
        if not 0 <= i < vocab_size:
            raise ValueError(f"unknown token id {i}: valid ids are 0 to {vocab_size - 1}")
    return found


def fit_vocab(where: str, num_ids: int, vocab_size: int) -> int:
    """Returns the number of ids of a tokenizer that serves a model: models may pad their embedding.

    Args:
      where: the tokenizer's file, for the error.
      num_ids: ids that the tokenizer has.
      vocab_size: rows of the model's embedding; 0 where no model is asked.

    Raises:
      ValueError: the tokenizer has ids that the model does not know.
    """
    if vocab_size and num_ids > vocab_size:
        raise ValueError(
            f"{where}: the tokenizer has {num_ids} ids, the model's vocab_size is {vocab_size}; "
            f"valid: a tokenizer of at most {vocab_size} ids, or a model of at least {num_ids}"
        )
    return max(num_ids, vocab_size)
