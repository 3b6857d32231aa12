"""The symbolic tokenizer: round trips, errors, special ids."""

import numpy as np
import pytest

from sdd.text.tokenizer import SymbolTokenizer, Tokenizer

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
