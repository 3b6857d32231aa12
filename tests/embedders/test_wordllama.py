"""WordLlama's embedding is the mean of the rows of its table; nothing else is touched by loading it."""

import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.embedders import load
from sdd.embedders.wordllama import batches_of_like_length

pytestmark = pytest.mark.skipif(find_spec("wordllama") is None, reason="wordllama is not installed")

TEXTS = ["The goal, at last.", "", "Größe 日本 🙂", " ", "a", "b " * 700, "\n\ttabs"]


@pytest.fixture(scope="module")
def embed():
    return load("wordllama")


def test_it_is_the_mean_of_the_tokens_rows(embed):
    import safetensors.numpy
    import tokenizers

    folder = Path(find_spec("wordllama").origin).parent
    table = safetensors.numpy.load_file(folder / "weights" / "l2_supercat_256.safetensors")[
        "embedding.weight"
    ]
    tokenizer = tokenizers.Tokenizer.from_file(
        str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
    )
    tokenizer.no_padding()
    got = embed(TEXTS)
    assert embed.name == "wordllama" and got.dtype == np.float32 and got.shape == (len(TEXTS), 256)
    for text, row in zip(TEXTS, got):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        expected = np.mean([table[i].astype(np.float64) for i in ids], axis=0) if ids else np.zeros(256)
        np.testing.assert_allclose(row, expected, rtol=0, atol=2e-6)


def test_a_row_depends_on_its_text_alone(embed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = embed(TEXTS)
        alone = np.concatenate([embed([text]) for text in TEXTS])
        nothing = embed([])
    np.testing.assert_array_equal(together, alone)
    assert not together[1].any() and together[3].any() and nothing.shape == (0, 256)


def test_loading_changes_no_logging_and_opens_no_connection():
    script = """
import logging, socket
def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from sdd.embedders import load
embed = load("wordllama")
assert embed(["hello"]).any()
root = logging.getLogger()
assert not root.handlers and root.level == logging.WARNING, (root.handlers, root.level)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 12), max_size=20), st.integers(1, 30))
def test_batches_hold_each_text_once_and_stay_within_their_bound(sizes, bound):
    texts = ["x" * size for size in sizes]
    batches = list(batches_of_like_length(texts, bound))
    assert sorted(i for batch in batches for i in batch) == [i for i, text in enumerate(texts) if text]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[i] for i in batch) <= bound
