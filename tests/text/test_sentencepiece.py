"""SentencePiece models: round trips, errors, special ids, training."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.text.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from sdd.text.tokenizer import Tokenizer

TEXT = "the red bird sat on the old river\na green fruit fell in the river\nold birds eat red fruit\n" * 5
SPECIAL = ("<|im_start|>", "<think>")


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    return train_sentencepiece(
        [folder / "text.txt"], 300, folder / "m.model", special=SPECIAL, end="<|im_end|>"
    )


def test_trained_ids_are_where_the_docstring_says(trained):
    assert (trained.vocab_size, trained.pad_id, trained.stop_ids, trained.bos_id) == (300, 0, (3,), 2)
    assert trained.special_tokens == {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
    }
    np.testing.assert_array_equal(trained.encode("<|im_start|><think>"), [4, 5])
    assert 3 not in trained.encode("<|im_end|>")  # a control piece is not read from plain text
    assert len(trained.encode("the river")) < len("the river")  # it learned something


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(), st.text())
def test_trained_model_is_lossless_and_joins(trained, one, two):
    ids = trained.encode(one)
    assert trained.decode(ids) == one
    assert trained.decode([*ids, *trained.encode(two)]) == one + two


def test_control_pieces_are_read_and_written_on_request(trained):
    text = "<s><|im_start|>user\nthe bird<|im_end|>\n<think>"
    ids = trained.encode_special(text)
    assert ids.dtype == np.int32 and ids[0] == 2 and list(ids).count(3) == 1 and ids[-1] == 5
    assert trained.decode_special(ids) == text
    assert trained.decode(ids) == "<|im_start|>user\nthe bird\n<think>"
    np.testing.assert_array_equal(trained.encode_special("old river"), trained.encode("old river"))


def test_training_gives_the_same_bytes_anywhere(tmp_path):
    models = []
    for name, algorithm in (("a", "bpe"), ("b", "bpe"), ("c", "unigram"), ("d", "unigram")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.txt").write_text(TEXT)
        path = folder / f"{name}.model"
        train_sentencepiece([folder / f"{name}.txt"], 285, path, special=SPECIAL, algorithm=algorithm)
        models.append(path.read_bytes())
        assert sorted(p.name for p in folder.iterdir()) == [f"{name}.model", f"{name}.txt"]
    assert models[0] == models[1] and models[2] == models[3] and models[0] != models[2]


def test_no_line_is_too_long_to_learn_from(tmp_path):
    (tmp_path / "t.txt").write_text("zq" * 5000 + "\n")
    tokenizer = train_sentencepiece([tmp_path / "t.txt"], 266, tmp_path / "m.model")
    assert len(tokenizer.encode("zqzq")) < 4


@pytest.mark.parametrize(
    "content, vocab_size, options, words",
    [
        (None, 300, {}, ["none.txt", "no such file"]),
        (b"\xff\xfe", 300, {}, ["t.txt", "UTF-8"]),
        (b"", 300, {}, ["m.model", "no text"]),
        (TEXT.encode(), 100, {}, ["m.model", "vocab_size 100", "smaller"]),
        (TEXT.encode(), 5000, {}, ["m.model", "vocab_size 5000", "too high"]),
        (TEXT.encode(), 300, {"special": ["<a>", "<a>"]}, ["<a>", "already defined"]),
    ],
)
def test_training_errors_are_one_line_and_leave_no_file(tmp_path, content, vocab_size, options, words):
    path = tmp_path / ("none.txt" if content is None else "t.txt")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        train_sentencepiece([path], vocab_size, tmp_path / "m.model", **options)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["t.txt"])


def test_a_model_may_have_more_ids_and_never_fewer(tmp_path):
    path = _train(tmp_path / "m.model")
    padded = SentencePieceTokenizer(path, vocab_size=32)
    assert padded.vocab_size == 32
    assert padded.decode([*padded.encode("red bird"), 31]) == "red bird"
    with pytest.raises(ValueError, match=r"m\.model: the tokenizer has 24 ids, the model's vocab_size is 20"):
        SentencePieceTokenizer(path, vocab_size=20)
