"""Hugging Face tokenizers: transformers' own answers (golden.json), random texts, damaged files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.text.huggingface import HuggingFaceTokenizer, read_huggingface
from sdd.text.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))["tiny"]


@pytest.fixture(scope="module")
def tiny():
    return read_huggingface(HERE / "tiny")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(HERE / "tiny", tmp_path / "tiny"))


def change(path, **fields):
    """Writes fields into a JSON file; None takes one out."""
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_ids_equal_transformers(tiny):
    assert isinstance(tiny, Tokenizer)
    assert tiny.special_tokens == GOLDEN["special_tokens"] and tiny.vocab_size == GOLDEN["length"]
    for text, ids in GOLDEN["ids"]:
        found = tiny.encode(text)
        assert found.dtype == np.int32 and found.ndim == 1
        np.testing.assert_array_equal(found, ids, err_msg=text)
        assert tiny.decode_special(found) == text


def test_special_ids(tiny):
    start, end, text_end = (tiny.encode(f"<|{name}|>")[0] for name in ("im_start", "im_end", "endoftext"))
    assert tiny.bos_id == start
    assert tiny.stop_ids == (end, text_end)  # of generation_config.json; eos_token first
    assert tiny.pad_id == tiny.encode("<pad>")[0]
    assert start not in tiny.encode("Hello")
    assert tiny.decode([start, *tiny.encode("Hi <think>"), end]) == "Hi <think>"  # added, but not special


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=st.text())
def test_random_texts_come_back(tiny, text):
    ids = tiny.encode(text)
    assert tiny.decode_special(ids) == text and (ids < tiny.vocab_size).all()


def test_truncation_and_padding_of_the_file_are_switched_off(folder):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", backend.token_to_id("<bos>"))]
    )
    backend.save(str(folder / "tokenizer.json"))
    text = "Janet's ducks lay 16 eggs"
    np.testing.assert_array_equal(read_huggingface(folder).encode(text), backend_ids(text))


def backend_ids(text):
    plain = tokenizers.Tokenizer.from_file(str(HERE / "tiny" / "tokenizer.json"))
    return plain.encode(text, add_special_tokens=False).ids


def test_what_pads_where_nothing_is_named(folder):
    change(folder / "tokenizer_config.json", pad_token=None)
    tokenizer = read_huggingface(folder)
    assert tokenizer.pad_id == tokenizer.stop_ids[0] and "pad_token" not in tokenizer.special_tokens


def test_stop_ids_where_there_is_no_generation_config(folder):
    (folder / "generation_config.json").unlink()
    end = read_huggingface(folder).encode("<|im_end|>")[0]
    assert read_huggingface(folder).stop_ids == (end,)
    (folder / "config.json").write_text('{"eos_token_id": 7}')
    assert read_huggingface(folder).stop_ids == (end, 7)
    (folder / "generation_config.json").write_text('{"eos_token_id": 8}')
    assert read_huggingface(folder).stop_ids == (end, 8)


def test_special_tokens_of_old_files(folder):
    change(folder / "tokenizer_config.json", added_tokens_decoder=None, eos_token=None)
    (folder / "generation_config.json").unlink()
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "<eos>"}, "unk_token": "<bos>"}'
    )
    tokenizer = read_huggingface(folder)
    assert tokenizer.special_tokens["unk_token"] == "<bos>"
    assert tokenizer.stop_ids == tuple(tokenizer.encode("<eos>"))


def test_a_model_may_have_more_ids_and_never_fewer(tiny):
    padded = read_huggingface(HERE / "tiny", vocab_size=384)
    assert padded.vocab_size == 384
    assert padded.decode([*padded.encode("Hello"), 383]) == "Hello"
    with pytest.raises(
        ValueError, match=r"tokenizer_config\.json: the tokenizer has 335 ids, .*vocab_size is 334"
    ):
        read_huggingface(HERE / "tiny", vocab_size=334)
    with pytest.raises(ValueError, match="334"):
        tiny.decode([335])


def test_a_later_token_has_the_id_that_its_file_says(folder, tiny):
    assert list(tiny.encode("<late>")) == [334]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    late = config["added_tokens_decoder"].pop("334")
    change(folder / "tokenizer_config.json", added_tokens_decoder={"336": late})
    with pytest.raises(
        ValueError, match=r"tokenizer_config\.json: added_tokens_decoder: '<late>' has id 336"
    ):
        read_huggingface(folder)


@pytest.mark.parametrize(
    "file, content, words",
    [
        ("tokenizer.json", None, ["tokenizer.json", "no such file"]),
        ("tokenizer.json", '{"version": "1.0", "mod', ["tokenizer.json", "valid"]),
        ("tokenizer.json", b"\xff\xfe", ["tokenizer.json", "UTF-8"]),
        ("tokenizer_config.json", '{\n"eos_token": ', ["tokenizer_config.json", "line 2"]),
        ("tokenizer_config.json", "[]", ["tokenizer_config.json", "list", "object"]),
        (
            "tokenizer_config.json",
            '{"eos_token": "<|im_ed|>"}',
            ["config.json: eos_token", "(nearest: <|im_end|>"],
        ),
        ("generation_config.json", '{"eos_token_id": "x"}', ["generation_config.json: eos_token_id", "'x'"]),
        ("generation_config.json", '{"eos_token_id": 999}', ["999", "0 to 334"]),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"a": 1}}', ["added_tokens_decoder"]),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(folder, file, content, words):
    path = folder / file
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        read_huggingface(folder)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_no_end_and_no_utf8(tiny):
    backend = tokenizers.Tokenizer.from_file(str(HERE / "tiny" / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"here: no token ends a response"):
        HuggingFaceTokenizer(backend, {}, where="here")
    with pytest.raises(ValueError, match="UTF-8"):
        tiny.encode("half a pair: \ud83e")
