"""Names and layouts: where a tensor of Hugging Face's lies in the decoder's parameters, a table a family."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sdd.settings import ModelConfig
from sdd.weights.errors import WeightsError

Index = tuple[slice, ...]


class Row(NamedTuple):
    """A line of a table.

    Attributes:
      name: of the tensor; ``{i}`` is the layer.
      ours: its axes in the parameters, without the layers' axis; letters of `sdd.types`, and M of the MLP.
      theirs: its axes in the file, where a group such as ``HC`` is one axis that runs over both.
    """

    name: str
    ours: str
    theirs: str


class Entry(NamedTuple):
    """One tensor of a file, and its place in the parameters.

    Attributes:
      path: of the parameter, as "layers/attention/q/kernel".
      layer: which slice of the stacked parameter it is; None where the parameter is not of a layer.
      name: of the tensor, as Hugging Face names it in a model of text alone.
      row: its layout.
      shape: of the parameter, without the layers' axis.
    """

    path: str
    layer: int | None
    name: str
    row: Row
    shape: tuple[int, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The tensor's shape in the file."""
        sizes = dict(zip(self.row.ours, self.shape, strict=True))
        return tuple(math.prod(sizes[letter] for letter in group) for group in self.row.theirs.split())


_LAYER = "model.layers.{i}."

COMMON = {
    "shell/embed/embedding": Row("model.embed_tokens.weight", "VE", "V E"),
    "shell/final_norm/scale": Row("model.norm.weight", "E", "E"),
    "shell/unembed/kernel": Row("lm_head.weight", "EV", "V E"),
    "layers/attention/q/kernel": Row(_LAYER + "self_attn.q_proj.weight", "EHC", "HC E"),
    "layers/attention/k/kernel": Row(_LAYER + "self_attn.k_proj.weight", "EJC", "JC E"),
    "layers/attention/v/kernel": Row(_LAYER + "self_attn.v_proj.weight", "EJC", "JC E"),
    "layers/attention/o/kernel": Row(_LAYER + "self_attn.o_proj.weight", "HCE", "E HC"),
    "layers/mlp/gate/kernel": Row(_LAYER + "mlp.gate_proj.weight", "EM", "M E"),
    "layers/mlp/up/kernel": Row(_LAYER + "mlp.up_proj.weight", "EM", "M E"),
    "layers/mlp/down/kernel": Row(_LAYER + "mlp.down_proj.weight", "ME", "E M"),
}

BIASES = {
    "layers/attention/q/bias": Row(_LAYER + "self_attn.q_proj.bias", "HC", "HC"),
    "layers/attention/k/bias": Row(_LAYER + "self_attn.k_proj.bias", "JC", "JC"),
    "layers/attention/v/bias": Row(_LAYER + "self_attn.v_proj.bias", "JC", "JC"),
}

HEAD_NORMS = {
    "layers/attention/q_norm/scale": Row(_LAYER + "self_attn.q_norm.weight", "C", "C"),
    "layers/attention/k_norm/scale": Row(_LAYER + "self_attn.k_norm.weight", "C", "C"),
}

PROJECTION_NORMS = {
    "layers/attention/q_norm/scale": Row(_LAYER + "self_attn.q_norm.weight", "HC", "HC"),
    "layers/attention/k_norm/scale": Row(_LAYER + "self_attn.k_norm.weight", "JC", "JC"),
}

# The same name means another norm in another family: Llama's post_attention_layernorm stands before the MLP.
PRE = {
    "layers/attention_norm/scale": Row(_LAYER + "input_layernorm.weight", "E", "E"),
    "layers/mlp_norm/scale": Row(_LAYER + "post_attention_layernorm.weight", "E", "E"),
}
POST = {
    "layers/attention_post_norm/scale": Row(_LAYER + "post_attention_layernorm.weight", "E", "E"),
    "layers/mlp_post_norm/scale": Row(_LAYER + "post_feedforward_layernorm.weight", "E", "E"),
}
BOTH = {
    **POST,
    "layers/attention_norm/scale": Row(_LAYER + "input_layernorm.weight", "E", "E"),
    "layers/mlp_norm/scale": Row(_LAYER + "pre_feedforward_layernorm.weight", "E", "E"),
}

# By the keys of `sdd.model.presets.FAMILIES`.
FAMILIES: Mapping[str, Mapping[str, Row]] = {
    "llama": COMMON | PRE,  # SmolLM2 too
    "mistral": COMMON | PRE,
    "qwen2": COMMON | BIASES | PRE,
    "qwen3": COMMON | HEAD_NORMS | PRE,
    "olmo2": COMMON | PROJECTION_NORMS | POST,
    "olmo3": COMMON | PROJECTION_NORMS | POST,
    "gemma2": COMMON | BOTH,
    "gemma3": COMMON | HEAD_NORMS | BOTH,
}

# (what stands for "model.", what comes before every other name): text alone; a multimodal model as the hub
# has it, and as transformers saves it; a decoder that was saved without its head.
ROOTS = (
    ("model.", ""),
    ("language_model.model.", "language_model."),
    ("model.language_model.", ""),
    ("", ""),
)


def shapes(config: ModelConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a decoder, as ``model.init`` makes them: layers are stacked."""
    sizes = {
        "V": vocab_size,
        "E": config.width,
        "H": config.num_heads,
        "J": config.num_kv_heads,
        "C": config.head_dim,
        "M": config.mlp_dim,
    }
    rows = {
        **COMMON,
        **(BIASES if config.attention_bias else {}),
        **{"none": {}, "head": HEAD_NORMS, "projection": PROJECTION_NORMS}[config.qk_norm],
        **{"pre": PRE, "post": POST, "both": BOTH}[config.norm_placement],
    }
    letters = {path: row.ours for path, row in rows.items()}
    if config.tied_embeddings:
        del letters["shell/unembed/kernel"]
    if config.token_shift:
        letters["shell/shift/kernel"] = "EE"
    return {
        path: (
            *((config.num_layers,) if path.startswith("layers/") else ()),
            *(sizes[letter] for letter in axes),
        )
        for path, axes in letters.items()
    }


def entries(config: ModelConfig, vocab_size: int, family: str) -> Iterator[Entry]:
    """The tensors that a decoder's parameters are made of, in the order in which a file usually has them.

    Raises:
      WeightsError: a family that has no table, or a decoder with a parameter that its table has not.
    """
    if family not in FAMILIES:
        raise WeightsError(f"family {family!r}: no table of names; valid: {', '.join(FAMILIES)}")
    table, found = FAMILIES[family], shapes(config, vocab_size)
    strange = [path for path in found if path not in table or len(table[path].ours) != rank(path, found)]
    if strange:
        raise WeightsError(
            f"{family} has no tensor for the parameter {', '.join(strange)}; valid: a {family}"
        )
    alone = [path for path in found if path.startswith("shell/")]
    layered = [path for path in found if path.startswith("layers/")]
    for path in alone[:1]:
        yield Entry(path, None, table[path].name, table[path], found[path])
    for i in range(config.num_layers):
        for path in layered:
            yield Entry(path, i, table[path].name.format(i=i), table[path], found[path][1:])
    for path in alone[1:]:
        yield Entry(path, None, table[path].name, table[path], found[path])


def rank(path: str, found: Mapping[str, tuple[int, ...]]) -> int:
    """Axes of a parameter, that of the layers not counted."""
    return len(found[path]) - path.startswith("layers/")


def renamed(name: str, root: tuple[str, str]) -> str:
    """A tensor's name under one of ROOTS."""
    inner, outer = root
    return inner + name.removeprefix("model.") if name.startswith("model.") else outer + name


def to_theirs(x_ours: np.ndarray, row: Row) -> np.ndarray:
    """A parameter (of one layer) as the file has it."""
    letters = row.theirs.replace(" ", "")
    sizes = dict(zip(row.ours, x_ours.shape, strict=True))
    turned = np.transpose(x_ours, [row.ours.index(letter) for letter in letters])
    return turned.reshape([math.prod(sizes[x] for x in group) for group in row.theirs.split()])


def read_ours(read: Callable[[Index], np.ndarray], entry: Entry, index: Sequence[slice]) -> np.ndarray:
    """A block of a parameter (of one layer), from no more of the file than it needs.

    Args:
      read: ``index of the stored tensor -> numpy array``.
      entry: the tensor.
      index: a slice for each axis of ``entry.shape``; steps of 1.
    """
    row = entry.row
    sizes = dict(zip(row.ours, entry.shape, strict=True))
    wanted = {x: slice(*s.indices(sizes[x])[:2]) for x, s in zip(row.ours, index, strict=True)}
    found, stored = dict(sizes), []
    for group in row.theirs.split():
        first, rest = group[0], group[1:]
        if any(wanted[x] != slice(0, sizes[x]) for x in rest):
            stored.append(slice(0, math.prod(sizes[x] for x in group)))  # cut below, once it is split
            continue
        inner = math.prod(sizes[x] for x in rest)
        stored.append(slice(wanted[first].start * inner, wanted[first].stop * inner))
        found[first] = wanted[first].stop - wanted[first].start
    letters = row.theirs.replace(" ", "")
    split = read(tuple(stored)).reshape([found[x] for x in letters])
    cut = tuple(slice(None) if found[x] != sizes[x] else wanted[x] for x in letters)
    return np.transpose(split[cut], [letters.index(x) for x in row.ours])
