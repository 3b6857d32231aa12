"""Tokenizers behind one Protocol: a word-level symbolic vocabulary, and SentencePiece models."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from etils import epath


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of sdd asks of a tokenizer.

    Attributes:
      vocab_size: number of ids, ``V``; every id is in ``[0, V)``.
      pad_id: the id that fills a row. Padding is told from text by masks, never by this id.
      stop_ids: ids that end a response.
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
        ids = np.asarray(ids, dtype=np.int64).reshape(-1).tolist()
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"unknown token id {i}: valid ids are 0 to {self.vocab_size - 1}")
        return " ".join(self.words[i] for i in ids)


class SentencePieceTokenizer:
    """A SentencePiece model, read from a ``.model`` file (local, or any path that epath opens).

    ``stop_ids`` is the model's end-of-sentence piece. Where the model has no padding piece (many
    have none) the unknown piece pads: every model has one, and masks tell padding from text.

    Args:
      path: the model file.

    Raises:
      ValueError: no such file, not a SentencePiece model, or a model without an end-of-sentence piece.
    """

    def __init__(self, path: epath.PathLike):
        import sentencepiece  # a compiled library; only those who use it pay for it

        path = epath.Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; a SentencePiece .model file is needed")
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(path.read_bytes())
        except RuntimeError as error:
            raise ValueError(f"{path}: not a SentencePiece model") from error
        if self._processor.eos_id() < 0:
            raise ValueError(f"{path}: the model has no end-of-sentence piece; train it with eos_id >= 0")
        self.vocab_size = int(self._processor.vocab_size())
        pad_id = self._processor.pad_id()
        self.pad_id = int(pad_id if pad_id >= 0 else self._processor.unk_id())
        self.stop_ids = (int(self._processor.eos_id()),)

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, without start and stop pieces."""
        return np.array(self._processor.encode(text), dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; control pieces (start, stop, padding) leave no text.

        Raises:
          ValueError: an id is outside ``[0, vocab_size)``.
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1).tolist()
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"unknown token id {i}: valid ids are 0 to {self.vocab_size - 1}")
        return self._processor.decode(ids)
