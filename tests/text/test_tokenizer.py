"""Tokenizers: round trips, errors, special ids."""

import io

import numpy as np
import pytest

from sdd.text.tokenizer import SentencePieceTokenizer, SymbolTokenizer, Tokenizer

WORDS = ("<pad>", "<eos>", "bird0", "bird1", "fruit0")


def test_symbol_round_trip_keeps_every_word():
    tokenizer = SymbolTokenizer(WORDS)
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.stop_ids) == (5, 0, (1,))
    ids = tokenizer.encode("fruit0  bird1\n<eos> <pad>")
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, [4, 3, 1, 0])
    assert tokenizer.decode(ids) == "fruit0 bird1 <eos> <pad>"
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda t: t.encode("bird0 frut0"), ["'frut0'", "'fruit0'"]),
        (lambda t: t.decode([2, 5]), ["5", "0 to 4"]),
        (lambda t: t.decode([-1]), ["-1", "0 to 4"]),
        (lambda t: SymbolTokenizer(["a", "b", "a"]), ["'a'"]),
        (lambda t: SymbolTokenizer(["a b"]), ["'a b'"]),
        (lambda t: SymbolTokenizer(["<pad>", "<end>"]), ["'<eos>'", "'<end>'"]),
    ],
)
def test_symbol_errors_are_one_line_that_names_the_trouble(call, words):
    with pytest.raises(ValueError) as error:
        call(SymbolTokenizer(WORDS))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def _train(path, **options):
    import sentencepiece

    model = io.BytesIO()
    text = ["the red bird sat on the old river", "a green fruit fell in the river", "old birds eat red fruit"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 5), model_writer=model, vocab_size=24, minloglevel=2, **options
    )
    path.write_bytes(model.getvalue())
    return path


def test_sentencepiece_round_trip(tmp_path):
    tokenizer = SentencePieceTokenizer(_train(tmp_path / "m.model", pad_id=3))
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.stop_ids) == (24, 3, (2,))
    text = "the green bird sat in the river"
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1 and 2 not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, 2, 3, 3]) == text  # control pieces leave no text


def test_sentencepiece_without_padding_piece_pads_with_unknown(tmp_path):
    tokenizer = SentencePieceTokenizer(_train(tmp_path / "m.model"))
    assert tokenizer.pad_id == 0


def test_sentencepiece_errors(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        SentencePieceTokenizer(tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        SentencePieceTokenizer(tmp_path / "bad.model")
    with pytest.raises(ValueError, match="end-of-sentence"):
        SentencePieceTokenizer(_train(tmp_path / "no_eos.model", eos_id=-1))
    tokenizer = SentencePieceTokenizer(_train(tmp_path / "m.model"))
    with pytest.raises(ValueError, match="24"):
        tokenizer.decode([24])
