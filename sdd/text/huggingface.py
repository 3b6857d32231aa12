"""Hugging Face's tokenizers: ``tokenizer.json`` and the files beside it, by the package ``tokenizers``."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sdd import lookup
from sdd.text.files import first_line, package, read_json, read_text
from sdd.text.tokenizer import fit_vocab, valid_ids

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that have a role, in the order in which templates get them."""


class HuggingFaceTokenizer:
    """A tokenizer of the package ``tokenizers``, with what a language model's files say about it.

    ``encode`` adds no start token, even where the model's own tokenizer does: a chat template writes the
    start token itself, and whoever wants it elsewhere puts `bos_id` in front. Where no token pads, the first
    stop token does, or else the unknown one: masks tell padding from text.

    Args:
      backend: the ``tokenizers.Tokenizer``; it is changed: truncation and padding are switched off.
      special_tokens: texts by role, for example ``{"eos_token": "<|im_end|>"}``; roles as in `NAMES`.
      stop_ids: ids that end a response, beside that of ``eos_token``.
      vocab_size: rows of the model's embedding, where that is known; it may have more than there are ids.
      where: the file, for errors.

    Raises:
      ValueError: a special token that is no token, no token that ends a response, or more ids than
        `vocab_size`.
    """

    def __init__(
        self,
        backend: Any,
        special_tokens: Mapping[str, str],
        stop_ids: Sequence[int] = (),
        vocab_size: int = 0,
        where: str = "tokenizer",
    ):
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        vocab = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = fit_vocab(where, max(vocab.values(), default=-1) + 1, vocab_size)
        for name, token in special_tokens.items():
            if token not in vocab:
                raise ValueError(
                    f"{where}: {name} is {token!r}, which is no token{lookup.nearest(token, vocab)}; "
                    "valid: a token of the vocabulary"
                )
        self.special_tokens = {name: special_tokens[name] for name in NAMES if name in special_tokens}
        ids = {name: vocab[token] for name, token in self.special_tokens.items()}
        self.bos_id: int | None = ids.get("bos_token")
        stops = [ids["eos_token"]] if "eos_token" in ids else []
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*stops, *stop_ids]))
        if not self.stop_ids:
            raise ValueError(f"{where}: no token ends a response; valid: an eos_token, or eos_token_id")
        valid_ids(self.stop_ids, self.vocab_size)
        self.pad_id = ids.get("pad_token", self.stop_ids[0])

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, without added start or stop tokens.

        As everywhere in Hugging Face's libraries, the text of a special token becomes that token, and what
        the vocabulary cannot spell leaves none (SmolLM2's lacks six control characters).

        Raises:
          ValueError: `text` holds half of a surrogate pair, which UTF-8 cannot.
        """
        try:
            return np.array(self._backend.encode(text, add_special_tokens=False).ids, dtype=np.int32)
        except (UnicodeEncodeError, TypeError) as error:
            raise ValueError(f"text {text[:40]!r}: {first_line(error)}; valid: what UTF-8 can hold") from None

    encode_special = encode

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; special tokens leave no text, and bytes that are no UTF-8 become U+FFFD.

        Raises:
          ValueError: an id is outside ``[0, vocab_size)``.
        """
        return self._backend.decode(valid_ids(ids, self.vocab_size), skip_special_tokens=True)

    def decode_special(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`, special tokens included."""
        return self._backend.decode(valid_ids(ids, self.vocab_size), skip_special_tokens=False)

    def to_json(self) -> str:
        """Returns the text of the tokenizer.json that holds this tokenizer."""
        return self._backend.to_str()


def read_huggingface(path: epath.PathLike, vocab_size: int = 0) -> HuggingFaceTokenizer:
    """Reads a tokenizer as a model's maker publishes it.

    Beside tokenizer.json it reads, where they are: tokenizer_config.json (special tokens; models of before
    2023 keep them in special_tokens_map.json), and generation_config.json or else config.json (ids that end
    a response: there may be several).

    Args:
      path: a folder with tokenizer.json, or that file.
      vocab_size: rows of the model's embedding, where that is known.

    Raises:
      ValueError: a file that is missing or damaged, or as :class:`HuggingFaceTokenizer`.
    """
    path = epath.Path(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    tokenizers, text = package("tokenizers", str(path)), read_text(path)
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{path}: {first_line(error)}; valid: a file of the package tokenizers") from None
    config_path = path.parent / "tokenizer_config.json"
    config = read_json(config_path)
    _add_tokens(backend, config.get("added_tokens_decoder") or {}, config_path)
    special_tokens = _special_tokens(config)
    if "added_tokens_decoder" not in config:  # files of that age keep their special tokens apart
        special_tokens |= _special_tokens(read_json(path.parent / "special_tokens_map.json"))
    where = str(config_path if config_path.is_file() else path)
    return HuggingFaceTokenizer(backend, special_tokens, _stop_ids(path.parent), vocab_size, where)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Texts by role; the files spell a token as a text, or as an object with its content."""
    found = {name: config[name] for name in NAMES if config.get(name)}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in found.items()}


def _stop_ids(folder: epath.Path) -> list[int]:
    for name in ("generation_config.json", "config.json"):
        found = read_json(folder / name).get("eos_token_id")
        if found is None:
            continue
        ids = found if isinstance(found, list) else [found]
        if not all(isinstance(i, int) and i >= 0 for i in ids):
            raise ValueError(f"{folder / name}: eos_token_id is {found!r}; valid: an id, or a list of ids")
        return ids
    return []


def _add_tokens(backend: Any, added: Mapping[str, Mapping[str, Any]], where: epath.Path) -> None:
    """Adds tokens that only tokenizer_config.json knows; their ids must come out as it writes them."""
    from tokenizers import AddedToken

    def missing() -> Iterator[tuple[int, AddedToken]]:
        for i, entry in sorted((int(i), entry) for i, entry in added.items()):
            if backend.token_to_id(entry["content"]) != i:
                yield i, AddedToken(**{key: value for key, value in entry.items() if key != "__type"})

    try:
        wanted = list(missing())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: added_tokens_decoder: {first_line(error)}; valid: tokens by id") from None
    for i, token in wanted:
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != i:
            raise ValueError(
                f"{where}: added_tokens_decoder: {token.content!r} has id {i} there and "
                f"{backend.token_to_id(token.content)} in tokenizer.json; valid: the files of one model"
            )


def huggingface_files(
    tokenizer: HuggingFaceTokenizer, templates: Mapping[str, str], add_bos: bool, add_eos: bool
) -> dict[str, str]:
    """Returns the files that :func:`read_huggingface` and transformers read: name -> text.

    Args:
      tokenizer: what they describe.
      templates: its chat templates by name; that of most chats is called "default".
      add_bos: transformers puts the start token in front of a text.
      add_eos: transformers puts ``eos_token`` behind a text.
    """
    tokens = tokenizer.special_tokens
    add_bos, add_eos = add_bos and "bos_token" in tokens, add_eos and "eos_token" in tokens
    named = [{"name": name, "template": text} for name, text in templates.items()]
    template = templates["default"] if list(templates) == ["default"] else named
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{"add_bos_token": add_bos, "add_eos_token": add_eos},
        **tokens,
        **({"chat_template": template} if template else {}),
    }
    generation: dict[str, Any] = {"eos_token_id": list(tokenizer.stop_ids)}
    generation |= {"bos_token_id": tokenizer.bos_id} if "bos_token" in tokens else {}
    generation |= {"pad_token_id": tokenizer.pad_id} if "pad_token" in tokens else {}
    return {
        "tokenizer.json": _surrounding(tokenizer, add_bos, add_eos),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2) + "\n",
        "generation_config.json": json.dumps(generation, indent=2) + "\n",
    }


def _surrounding(tokenizer: HuggingFaceTokenizer, add_bos: bool, add_eos: bool) -> str:
    """A tokenizer.json that puts start and stop tokens around a text: transformers 4 reads it from there."""
    if not add_bos and not add_eos:
        return tokenizer.to_json()
    from tokenizers import Tokenizer, processors

    before = [(tokenizer.special_tokens["bos_token"], tokenizer.bos_id)] if add_bos else []
    after = [(tokenizer.special_tokens["eos_token"], tokenizer.stop_ids[0])] if add_eos else []
    backend = Tokenizer.from_str(tokenizer.to_json())  # a copy
    one, two = (
        [f"{token}:{i}" for token, _ in before] + [f"${text}:{i}"] + [f"{token}:{i}" for token, _ in after]
        for i, text in enumerate("AB")
    )
    backend.post_processor = processors.TemplateProcessing(
        single=one, pair=[*one, *two], special_tokens=[*before, *after]
    )
    return backend.to_str()
