"""The tokenizer of a GGUF file, written as files of Hugging Face's and read by two readers.

That its ids are those of the file is in test_gguf.py too, for every word rule and for SentencePiece.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.text import gguf as ours
from sdd.text.chat import load_chat, make_chat
from sdd.text.load import load

tokenizers = pytest.importorskip("tokenizers")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LETTERS = [*"abcdehlo", "\u0120", "\u010a", "he", "ll", "hell"]
BYTE_LEVEL = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [*LETTERS, "<|end|>", "<|im_start|>", "<|im_end|>", "<think>", "[PAD17]"],
    "tokenizer.ggml.token_type": [*[1] * len(LETTERS), 3, 3, 3, 4, 5],
    "tokenizer.ggml.merges": ["h e", "l l", "he ll"],
    "tokenizer.ggml.bos_token_id": 14,
    "tokenizer.ggml.eos_token_id": 13,
    "tokenizer.chat_template": CHATML,
}
PIECES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581", *"ehlo", "he", "ll", "hell"],
    "tokenizer.ggml.token_type": [2, 3, 3, *[1] * 8],
    "tokenizer.ggml.scores": [0.0, 0.0, 0.0, *[-9.0] * 5, -1.0, -2.0, -3.0],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}
TEXTS = ["hello", " hello  he\nllo", "<|im_start|>hello<|im_end|><think>he</s>", "<s>ab<|end|>", ""]
TURNS = [{"role": "cab", "content": "hello\nold"}, {"role": "deal", "content": "hell<think>"}]


@pytest.fixture
def folder_of(tmp_path):
    """``(metadata, **config of the model) -> folder``"""

    def write(metadata, **config):
        for name, text in ours.make_files(metadata, "m.gguf").items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
        return tmp_path

    return write


def assert_same(ours, theirs):
    for name in ("vocab_size", "bos_id", "pad_id", "stop_ids", "special_tokens"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize(
    "metadata",
    [
        BYTE_LEVEL,
        BYTE_LEVEL | {"tokenizer.ggml.padding_token_id": 17, "tokenizer.ggml.eot_token_id": 16},
        PIECES,
        PIECES | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.eom_token_id": 0},
    ],
    ids=["bytes", "bytes, padded", "pieces", "pieces, no prefix"],
)
def test_a_folder_holds_the_same(folder_of, metadata):
    expected, found = ours.make_tokenizer(metadata, "m"), load(str(folder_of(metadata)))
    assert_same(found, expected)
    for text in TEXTS:
        ids = expected.encode(text)
        assert found.encode(text).tolist() == ids.tolist()
        assert found.decode_special(ids) == expected.decode_special(ids)


def test_hello(folder_of):
    """By hand: the rank of a merge, a special token, and one that its maker added."""
    tokens = BYTE_LEVEL["tokenizer.ggml.tokens"]
    ids = load(str(folder_of(BYTE_LEVEL))).encode("hello<think><|end|>")
    assert [tokens[i] for i in ids] == ["hell", "o", "<think>", "<|end|>"]


@pytest.mark.parametrize(
    "metadata, said, before, after",
    [
        (BYTE_LEVEL, {}, [], []),
        (BYTE_LEVEL, {"add_bos_token": True}, [14], []),
        (BYTE_LEVEL, {"add_bos_token": True, "add_eos_token": True}, [14], [13]),
        (BYTE_LEVEL, {"pre": "llama-bpe"}, [14], []),  # llama.cpp: add_bos is true for this rule
        (BYTE_LEVEL, {"pre": "llama-bpe", "add_bos_token": False}, [], []),
        (BYTE_LEVEL, {"pre": "dbrx"}, [], []),
        (BYTE_LEVEL, {"add_bos_token": True, "bos_token_id": None}, [], []),
        (PIECES, {}, [1], []),  # and for SentencePiece
        (PIECES, {"add_bos_token": False, "add_eos_token": True}, [], [2]),
    ],
)
def test_what_is_put_around_a_text(folder_of, metadata, said, before, after):
    folder = folder_of(metadata | {f"tokenizer.ggml.{key}": value for key, value in said.items()})
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain = backend.encode("hello", add_special_tokens=False).ids
    assert backend.encode("hello").ids == [*before, *plain, *after]
    assert backend.encode("hello", "he").ids == [
        *(*before, *plain, *after),
        *(*before, *backend.encode("he", add_special_tokens=False).ids, *after),
    ]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert (config["add_bos_token"], config["add_eos_token"]) == (bool(before), bool(after))
    assert load(str(folder)).encode("hello").tolist() == plain  # sdd itself adds none


def test_chats(folder_of):
    expected = make_chat(ours.make_tokenizer(BYTE_LEVEL, "m"), CHATML)
    found = load_chat(str(folder_of(BYTE_LEVEL)))
    assert found.render(TURNS) == expected.render(TURNS)
    assert found.encode(TURNS).tolist() == expected.encode(TURNS).tolist()


def test_chats_of_several_names(folder_of):
    more = {
        "tokenizer.chat_templates": ["rag"],
        "tokenizer.chat_template.rag": "hello {{ messages[0].content }}",
    }
    folder = str(folder_of(BYTE_LEVEL | more))
    assert load_chat(folder, "rag").render(TURNS) == "hello hello\nold"
    assert load_chat(folder).template == CHATML


def test_no_chat(folder_of):
    config = json.loads((folder_of(PIECES) / "tokenizer_config.json").read_text())
    assert "chat_template" not in config


# ---- SmolLM2's ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2_folder(smollm2_metadata, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    for name, text in ours.make_files(smollm2_metadata, "smollm2", 49152).items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture(scope="module")
def smollm2_again(smollm2_folder):
    return load(str(smollm2_folder), 49152)


WORDS = ["Janet", " has 16 eggs", " $2", "\n#### 18", "<<16-3=13>>", "<|im_start|>", "<|im_end|>", "\r\n\t"]
texts = st.lists(st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]))).map("".join)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=texts)
def test_smollm2(smollm2, smollm2_again, text):
    ids = smollm2.encode(text)
    assert smollm2_again.encode(text).tolist() == ids.tolist()
    assert smollm2_again.decode_special(ids) == smollm2.decode_special(ids)
    assert_same(smollm2_again, smollm2)


@pytest.mark.parametrize("turns", [TURNS, [{"role": "system", "content": "s"}, *TURNS], TURNS[:1]])
def test_chats_of_smollm2(smollm2_folder, turns):
    expected, found = load_chat("smollm2"), load_chat(str(smollm2_folder))
    assert found.encode(turns).tolist() == expected.encode(turns).tolist()


# ---- transformers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata, kind",
    [
        (BYTE_LEVEL, "llama"),
        (BYTE_LEVEL | {"tokenizer.ggml.pre": "qwen2"}, "qwen2"),
        (BYTE_LEVEL | {"tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.add_bos_token": False}, "qwen3"),
        (BYTE_LEVEL | {"tokenizer.ggml.pre": "dbrx"}, "olmo2"),
        (BYTE_LEVEL | {"tokenizer.ggml.pre": "llama-bpe"}, "llama"),
        (PIECES | {"tokenizer.chat_template": CHATML}, "llama"),
        (PIECES | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.chat_template": CHATML}, "gemma2"),
    ],
)
def test_transformers_reads_the_same(folder_of, metadata, kind):
    transformers = pytest.importorskip("transformers")
    folder = folder_of(metadata, model_type=kind)
    same_in_transformers(transformers, ours.make_tokenizer(metadata, "m"), folder, TEXTS, CHATML)


def test_transformers_reads_smollm2(smollm2, smollm2_folder, smollm2_metadata):
    transformers = pytest.importorskip("transformers")
    template = smollm2_metadata["tokenizer.chat_template"]
    same_in_transformers(transformers, smollm2, smollm2_folder, [*TEXTS, *WORDS, "".join(WORDS)], template)


def same_in_transformers(transformers, ours, folder, texts, template):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in texts:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text).tolist()
    around = theirs.encode("hello")
    said = json.loads((folder / "tokenizer_config.json").read_text())
    before, after = [ours.bos_id] * said["add_bos_token"], [ours.stop_ids[0]] * said["add_eos_token"]
    assert around == [*before, *ours.encode("hello").tolist(), *after]
    for role, token in ours.special_tokens.items():
        assert getattr(theirs, role) == token
    ids = theirs.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    assert ids == make_chat(ours, template).encode(TURNS).tolist()
    generation = transformers.GenerationConfig.from_pretrained(folder)
    assert tuple(generation.eos_token_id) == ours.stop_ids
