"""SentencePiece models (1808.06226): read from a ``.model`` file, or trained from text files."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from sdd.text.files import first_line, read_text
from sdd.text.tokenizer import fit_vocab, valid_ids


class SentencePieceTokenizer:
    """A SentencePiece model, read from a ``.model`` file (local, or any path that epath opens).

    ``stop_ids`` is the model's end-of-sentence piece. Where the model has no padding piece (many
    have none) the unknown piece pads: every model has one, and masks tell padding from text.

    Args:
      path: the model file.
      vocab_size: rows of the model's embedding, where that is known; it may have more than there are pieces.

    Raises:
      ValueError: no such file, not a SentencePiece model, a model without an end-of-sentence piece, or
        more pieces than `vocab_size`.
    """

    def __init__(self, path: epath.PathLike, vocab_size: int = 0):
        import sentencepiece  # a compiled library; only those who use it pay for it

        path = epath.Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; a SentencePiece .model file is needed")
        self._processor = processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(path.read_bytes())
        except RuntimeError as error:
            raise ValueError(f"{path}: not a SentencePiece model") from error
        if processor.eos_id() < 0:
            raise ValueError(f"{path}: the model has no end-of-sentence piece; train it with eos_id >= 0")
        self._pieces = int(processor.vocab_size())
        self.vocab_size = fit_vocab(str(path), self._pieces, vocab_size)
        ids = {name: getattr(processor, f"{name}_id")() for name in ("bos", "eos", "unk", "pad")}
        self.pad_id = int(ids["pad"] if ids["pad"] >= 0 else ids["unk"])
        self.stop_ids: tuple[int, ...] = (int(ids["eos"]),)
        self.bos_id = int(ids["bos"]) if ids["bos"] >= 0 else None
        self.special_tokens = {f"{name}_token": processor.IdToPiece(i) for name, i in ids.items() if i >= 0}
        controls = [i for i in range(self._pieces) if processor.IsControl(i)]
        self._controls = {processor.IdToPiece(i): i for i in controls}
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, without start and stop pieces.

        User-defined pieces are found in the text, control pieces (``</s>``) are not: SentencePiece's rule.
        """
        return np.array(self._processor.encode(text), dtype=np.int32)

    def encode_special(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, in which the name of a control piece stands for that piece."""
        ids: list[int] = []
        start = 0
        for match in self._split.finditer(text):
            ids += [*self._processor.encode(text[start : match.start()]), self._controls[match.group()]]
            start = match.end()
        return np.array(ids + self._processor.encode(text[start:]), dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; control pieces (start, stop, padding) leave no text.

        Raises:
          ValueError: an id is outside ``[0, vocab_size)``.
        """
        return self._processor.decode([i for i in valid_ids(ids, self.vocab_size) if i < self._pieces])

    def decode_special(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids` with the names of control pieces, as :meth:`encode_special` reads it."""
        texts: list[str] = []
        run: list[int] = []
        for i in valid_ids(ids, self.vocab_size):
            if i >= self._pieces or not self._processor.IsControl(i):
                run.append(i)
                continue
            texts += [self.decode(run), self._processor.IdToPiece(i)]
            run = []
        return "".join([*texts, self.decode(run)])


def train_sentencepiece(
    text_files: Sequence[epath.PathLike],
    vocab_size: int,
    path: epath.PathLike,
    *,
    special: Sequence[str] = (),
    end: str = "</s>",
    algorithm: Literal["bpe", "unigram"] = "bpe",
) -> SentencePieceTokenizer:
    """Trains a SentencePiece model on the lines of text files, for tests and small studies.

    The model is lossless: no normalisation, and what it has not seen is spelled in bytes. It adds no
    space in front, so the texts of joined ids are joined texts. The same files give the same bytes,
    wherever they lie: one thread, and no paths in the model. Ids: ``<pad>`` 0, ``<unk>`` 1, ``<s>`` 2,
    `end` 3, then `special`, then 256 bytes.

    Args:
      text_files: UTF-8 texts, a sentence a line.
      vocab_size: pieces of the model, those above included.
      path: the ``.model`` file to write; it appears complete or not at all.
      special: pieces that are never split, such as ``<|im_start|>``.
      end: the piece that ends a response; a chat names its own, such as ``<|im_end|>``.
      algorithm: how pieces are chosen.

    Raises:
      ValueError: a file that is missing or not UTF-8, no text, or a size that these texts cannot fill.
    """
    import sentencepiece

    path, model = epath.Path(path), io.BytesIO()
    sentences = [line for name in text_files for line in read_text(epath.Path(name)).splitlines()]
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "eos_piece": end}
    lossless = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    options: dict[str, Any] = {**ids, **lossless, "byte_fallback": True, "add_dummy_prefix": False}
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=algorithm,
            vocab_size=vocab_size,
            user_defined_symbols=list(special),
            character_coverage=1.0,
            max_sentence_length=1 + max((4 * len(line) for line in sentences), default=0),  # none is left out
            num_threads=1,
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        reason = first_line(error).removeprefix("INTERNAL: ").rpartition("] ")[2]
        raise ValueError(f"{path}: vocab_size {vocab_size}: {reason or 'the files hold no text'}") from None
    partial = path.parent / f".{path.name}.partial"
    partial.write_bytes(model.getvalue())
    partial.replace(path)
    return SentencePieceTokenizer(path)
