"""The files of a BERT encoder as sentence-transformers saves it, read and checked."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sdd.embedders.base import EmbedderError
from sdd.typed import error_line
from sdd.types import Params

FOLDER = "valid: a folder with config.json, tokenizer.json, model.safetensors"

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
}

# Dense layers and norms of a layer, and the sizes of their output and input in letters.
LAYER = {
    "attention.self.query": "EE",
    "attention.self.key": "EE",
    "attention.self.value": "EE",
    "attention.output.dense": "EE",
    "attention.output.LayerNorm": "E",
    "intermediate.dense": "FE",
    "output.dense": "EF",
    "output.LayerNorm": "E",
}


class Bert(NamedTuple):
    """The architecture, from config.json, and what sentence-transformers adds to it.

    Attributes:
      num_layers, width, num_heads, mlp_dim, vocab_size, num_positions, num_types: sizes.
      norm_eps: epsilon of the layer norms.
      activation: a key of ACTIVATIONS.
      max_tokens: longer texts are cut, [CLS] and [SEP] included.
    """

    num_layers: int
    width: int
    num_heads: int
    mlp_dim: int
    vocab_size: int
    num_positions: int
    num_types: int
    norm_eps: float
    activation: str
    max_tokens: int


def read_config(folder: Path) -> Bert:
    """The architecture of a folder.

    Raises:
      EmbedderError: config.json is missing or incomplete, or asks for what is not built here.
    """
    config = read_json(folder / "config.json")
    check_supported(folder, config)
    sentence, tokenizer = (
        read_json(folder / name, {}) for name in ("sentence_bert_config.json", "tokenizer_config.json")
    )
    try:
        num_positions = int(config["max_position_embeddings"])
        # The library wrote the length into the first file until its version 5, and into the second since.
        longest = sentence.get("max_seq_length") or tokenizer.get("model_max_length") or num_positions
        bert = Bert(
            num_layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            num_heads=int(config["num_attention_heads"]),
            mlp_dim=int(config["intermediate_size"]),
            vocab_size=int(config["vocab_size"]),
            num_positions=num_positions,
            num_types=int(config.get("type_vocab_size", 2)),
            norm_eps=float(config.get("layer_norm_eps", 1e-12)),
            activation=config.get("hidden_act", "gelu"),
            max_tokens=min(int(longest), num_positions),
        )
    except KeyError as error:
        raise EmbedderError(f"{folder}/config.json: no {error.args[0]!r}; valid: a BERT's config") from None
    except (TypeError, ValueError) as error:
        raise EmbedderError(f"{folder}/config.json: {error_line(error)}; valid: a BERT's config") from None
    if min(bert[:7]) < 1 or bert.width % bert.num_heads or bert.max_tokens < 3:
        raise EmbedderError(
            f"{folder}/config.json: {bert}; valid: sizes of at least 1, num_heads that divide width, "
            "max_tokens of at least 3"
        )
    return bert


def check_supported(folder: Path, config: dict[str, Any]) -> None:
    """Raises EmbedderError in one line for a model that is no BERT, or not pooled by the mean over tokens."""
    pooling = read_json(folder / "1_Pooling" / "config.json", {})
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    modes = modes or [f"pooling_mode_{pooling.get('pooling_mode', 'mean')}_tokens"]
    positions = config.get("position_embedding_type", "absolute")
    for what, value, valid in (
        ("config.json: model_type", config.get("model_type", "bert"), ["bert"]),
        ("config.json: position_embedding_type", positions, ["absolute"]),
        ("config.json: hidden_act", config.get("hidden_act", "gelu"), list(ACTIVATIONS)),
        ("1_Pooling/config.json: pooling", ", ".join(modes), ["pooling_mode_mean_tokens"]),
    ):
        if value not in valid:
            raise EmbedderError(f"{folder}/{what} is {value!r}; valid: {', '.join(valid)}")
    steps = read_json(folder / "modules.json", [])
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps if isinstance(step, dict)]
    other = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if other:
        raise EmbedderError(
            f"{folder}/modules.json: {', '.join(sorted(other))}; valid: Transformer, Pooling, Normalize"
        )


def read_json(path: Path, default: Any = None) -> Any:
    """What is in a file: an object, or a list where ``default`` is one, which stands for a missing file.

    Raises:
      EmbedderError: no such file, no JSON, or JSON of another type.
    """
    if not path.is_file():
        if default is None:
            raise EmbedderError(f"{path}: no such file; {FOLDER}")
        return default
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EmbedderError(f"{path}: {error_line(error)}; {FOLDER}") from None
    expected = list if isinstance(default, list) else dict
    if not isinstance(found, expected):
        raise EmbedderError(f"{path}: a {type(found).__name__}; valid: a {expected.__name__}")
    return found


def read_tokenizer(folder: Path, bert: Bert) -> Any:
    """The ``tokenizers.Tokenizer`` of a folder: it cuts at ``bert.max_tokens`` and does not pad.

    Raises:
      EmbedderError: tokenizer.json is missing, no tokenizer, or that of another model.
      ModuleNotFoundError: ``tokenizers`` is not installed.
    """
    import tokenizers

    path = folder / "tokenizer.json"
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise EmbedderError(f"{path}: {error_line(error)}; {FOLDER}") from None
    num_words = tokenizer.get_vocab_size()
    if num_words > bert.vocab_size:
        raise EmbedderError(
            f"{path}: {num_words} words; valid: at most vocab_size={bert.vocab_size} of config.json"
        )
    tokenizer.enable_truncation(bert.max_tokens)
    tokenizer.no_padding()  # the file of all-MiniLM-L6-v2 asks for 128 columns
    return tokenizer


def tensor_shapes(bert: Bert) -> dict[str, tuple[int, ...]]:
    """The tensors that a BERT of these sizes is read from, by their names without ``bert.`` in front."""
    size = {"E": bert.width, "F": bert.mlp_dim}
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (bert.vocab_size, bert.width),
        "embeddings.position_embeddings.weight": (bert.num_positions, bert.width),
        "embeddings.token_type_embeddings.weight": (bert.num_types, bert.width),
        "embeddings.LayerNorm.weight": (bert.width,),
        "embeddings.LayerNorm.bias": (bert.width,),
    }
    for i in range(bert.num_layers):
        for part, letters in LAYER.items():
            shapes[f"encoder.layer.{i}.{part}.weight"] = tuple(size[letter] for letter in letters)
            shapes[f"encoder.layer.{i}.{part}.bias"] = (size[letters[0]],)
    return shapes


def read_params(folder: Path, bert: Bert) -> Params:
    """The parameters in model.safetensors, numpy float32; the layers' are stacked, with L in front.

    ``{"embeddings": {table or "LayerNorm": ...}, "layers": {part: {"weight", "bias"}}}``.

    Raises:
      EmbedderError: no such file, or tensors that are missing or of another shape.
      ModuleNotFoundError: ``safetensors`` is not installed.
    """
    import safetensors

    path = folder / "model.safetensors"
    shapes = tensor_shapes(bert)
    try:
        # Memory-mapped: a tensor is read when it is asked for.
        with safetensors.safe_open(path, framework="np") as file:
            names = set(file.keys())
            prefix = "bert." if f"bert.{next(iter(shapes))}" in names else ""
            found = {
                name: tuple(file.get_slice(prefix + name).get_shape())
                for name in shapes
                if prefix + name in names
            }
            check_shapes(path, shapes, found)
            tensors = {name: file.get_tensor(prefix + name).astype(np.float32) for name in shapes}
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise EmbedderError(f"{path}: {error_line(error)}; {FOLDER}") from None
    affine = lambda name: {part: tensors[f"{name}.{part}"] for part in ("weight", "bias")}  # noqa: E731
    layers = [{part: affine(f"encoder.layer.{i}.{part}") for part in LAYER} for i in range(bert.num_layers)]
    tables = {
        table: tensors[f"embeddings.{table}.weight"]
        for table in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    }
    return {
        "embeddings": {**tables, "LayerNorm": affine("embeddings.LayerNorm")},
        "layers": {
            part: {kind: np.stack([layer[part][kind] for layer in layers]) for kind in ("weight", "bias")}
            for part in LAYER
        },
    }


def check_shapes(path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Raises EmbedderError in one line unless every tensor is there in the shape that config.json implies."""
    wrong = [name for name, shape in expected.items() if found.get(name) != shape]
    if wrong:
        listed = "; ".join(
            f"{name}: expected {expected[name]}, found {found.get(name, 'none')}" for name in wrong[:3]
        )
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise EmbedderError(f"{path}: {len(wrong)} tensors do not fit config.json: {listed}{more}")
