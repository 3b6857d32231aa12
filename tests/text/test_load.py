"""From names to tokenizers."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sdd.text import gguf
from sdd.text.huggingface import HuggingFaceTokenizer
from sdd.text.load import load
from sdd.text.sentencepiece import SentencePieceTokenizer, train_sentencepiece

TINY = Path(__file__).parent / "tiny"


@pytest.fixture
def model(tmp_path):
    (tmp_path / "t.txt").write_text("the old river\n" * 9)
    train_sentencepiece([tmp_path / "t.txt"], 270, tmp_path / "tokenizer.model")
    return tmp_path / "tokenizer.model"


def test_every_kind(model):
    pytest.importorskip("tokenizers")
    for spec in (TINY, TINY / "tokenizer.json"):
        assert isinstance(load(str(spec)), HuggingFaceTokenizer)
    for spec in (model, model.parent):  # the folder has no tokenizer.json
        assert isinstance(load(str(spec), 300), SentencePieceTokenizer)
    assert load(str(model), 300).vocab_size == 300
    shutil.copy(TINY / "tokenizer.json", model.parent)
    shutil.copy(TINY / "tokenizer_config.json", model.parent)
    assert isinstance(load(str(model.parent)), HuggingFaceTokenizer)


def test_smollm2_by_name(smollm2, smollm2_metadata, monkeypatch):
    known = {str(gguf.packaged_smollm2()): smollm2_metadata}
    monkeypatch.setattr("sdd.text.gguf.read_metadata", lambda path: known[str(path)])  # reading takes seconds
    loaded = load("smollm2", 49408)
    assert (smollm2.vocab_size, loaded.vocab_size) == (49152, 49408)
    np.testing.assert_array_equal(loaded.encode("Hello there"), smollm2.encode("Hello there"))


@pytest.mark.parametrize(
    "spec, words",
    [
        ("smolm2", ["'smolm2'", "(nearest: smollm2)", "tokenizer.json", "FILE.gguf"]),
        ("", ["no such file", "FILE.model"]),
        ("{tmp}", ["neither tokenizer.json nor tokenizer.model"]),
        ("{tmp}/t.txt", ["t.txt", "another kind", "FILE.model"]),
        ("{tmp}/none.gguf", ["none.gguf", "no such file"]),
        ("{tmp}/bad.gguf", ["bad.gguf", "GGUF"]),
        ("{tmp}/bad.model", ["bad.model", "SentencePiece"]),
    ],
)
def test_errors_are_one_line_that_lists_what_is_valid(tmp_path, spec, words):
    pytest.importorskip("gguf")
    for name in ("t.txt", "bad.gguf", "bad.model"):
        (tmp_path / name).write_text("nothing of use")
    with pytest.raises(ValueError) as error:
        load(spec.format(tmp=tmp_path))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)
