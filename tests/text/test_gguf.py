"""Tokenizers inside GGUF files against three truths.

A byte-level BPE written here the naive way, with the word rules as llama.cpp (src/llama-vocab.cpp) spells
them; SentencePiece itself; and transformers' reading of SmolLM2's file (golden.json).
"""

import io
import itertools
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.text import gguf as ours
from sdd.text.load import load

gguf = pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")
regex = pytest.importorskip("regex")

HERE = Path(__file__).parent
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CASES = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}NUM| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3, QWEN2 = (f"{CASES}|{REST.replace('NUM', number)}" for number in ("{1,3}", ""))
RULES = {  # by name: the expressions in turn, whether the text is composed, whether a word may stay whole
    **dict.fromkeys(["default", "gpt-2"], ([GPT2], False, False)),
    **dict.fromkeys(["smollm", "starcoder"], ([r"\p{N}", GPT2], False, False)),
    **dict.fromkeys(["llama-bpe", "llama3", "llama-v3"], ([LLAMA3], False, True)),
    "dbrx": ([LLAMA3], False, False),
    **dict.fromkeys(["qwen2", "deepseek-r1-qwen"], ([QWEN2], True, False)),
}
QUESTIONS = [
    "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many is that?",
    "Weng earns $12 an hour. Today she did 50 minutes; she'd earn $(12/60)*50 = $<<0.2*50=10>>10.\n#### 10",
    "James writes a 3-page letter to 2 different friends twice a week: 3*2*2*52 = 624  pages\t(a year)!",
    "It's 1,000.50\u20ac;  12  eggs,\n\n  7 % of 2\u00b3 is \u00bd\u2026 We'LL see.   ",
]

# Characters that every Unicode table since version 14 knows alike; \u017f folds to s in one library only.
characters = st.characters(max_codepoint=0x2FFF, exclude_categories=["Cn", "Cs", "Co", "Cc"]).filter(
    lambda c: c != "\u017f"
)
pieces = st.sampled_from(
    [*" \n\r\t019.-", "'s", "'LL", "  ", "\r\n", "the", " old", "e\u0301", "Eggs", "123"]
)
texts = st.lists(pieces | characters, max_size=30).map("".join)


def byte_letters():
    """GPT-2's spelling: printable bytes as themselves, the others as letters from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def split(texts, expression):
    """Cuts every text into matches of an expression and what lies between them."""
    found = []
    for text in texts:
        start = 0
        for match in regex.finditer(expression, text):
            found += [text[start : match.start()], match.group()]
            start = match.end()
        found.append(text[start:])
    return [word for word in found if word]


def naive_bpe(text, name, vocab, ranks):
    """Byte-level BPE: of all neighbours, the pair of the lowest rank joins first, the leftmost of equals."""
    expressions, compose, whole = RULES[name]
    words = [unicodedata.normalize("NFC", text) if compose else text]
    for expression in expressions:
        words = split(words, expression)
    letters, ids = byte_letters(), []
    for word in words:
        spelled = "".join(letters[byte] for byte in word.encode())
        parts = [spelled] if whole and spelled in vocab else list(spelled)
        while True:
            pairs = [(ranks.get(pair, np.inf), i) for i, pair in enumerate(itertools.pairwise(parts))]
            rank, i = min(pairs, default=(np.inf, 0))
            if rank == np.inf:
                break
            parts[i : i + 2] = ["".join(parts[i : i + 2])]
        ids += [vocab[part] for part in parts]
    return ids


def write(path, model, tokens, kinds, *, merges=None, scores=None, pre=None, prefix=None, **ids):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for value, add in (
        (pre, writer.add_tokenizer_pre),
        (merges, writer.add_token_merges),
        (scores, writer.add_token_scores),
        (prefix, writer.add_add_space_prefix),
    ):
        if value is not None:
            add(value)
    for name, i in ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", i)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def byte_level():
    """Tokens and merges of a small byte-level BPE, and whole words that no merges lead to."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(
        [*QUESTIONS, " 123 1234 \n\n\n'll 've \u00e9\u00e9 the old eggs Eggs"] * 4, trainer
    )
    content = json.loads(model.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    merges = [" ".join(merge) for merge in content["merges"]]
    extra = ["\u0120zyzzyva", "123", "<|endoftext|>", "<|im_end|>", "<think>"]
    tokens += [token for token in extra if token not in tokens]
    kinds = [{"<|endoftext|>": 3, "<|im_end|>": 3, "<think>": 4}.get(token, 1) for token in tokens]
    return tokens, kinds, merges


def write_files(folder, metadata, **config):
    """The files of Hugging Face's, beside the config.json of a model."""
    folder.mkdir()
    for name, text in ours.make_files(metadata, str(folder)).items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    return folder


@pytest.fixture(scope="module")
def by_rule(byte_level, tmp_path_factory):
    """By the rule: the tokenizer of a GGUF file, and the folder with the same as Hugging Face has it."""
    tokens, kinds, merges = byte_level
    place, end = tmp_path_factory.mktemp("gguf"), tokens.index("<|endoftext|>")
    made = {}
    for name in RULES:
        path = write(place / f"{name}.gguf", "gpt2", tokens, kinds, merges=merges, pre=name, eos=end)
        metadata = ours.read_metadata(path)
        made[name] = (ours.make_tokenizer(metadata, name), write_files(place / name, metadata))
    return made


@pytest.fixture(scope="module")
def read_again(by_rule):
    return {name: load(str(folder)) for name, (_, folder) in by_rule.items()}


def test_the_rules_are_all_tested():
    assert set(RULES) == set(ours.WORD_RULES)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(text=texts | st.sampled_from([*QUESTIONS, "a zyzzyva 123456 <think>"]))
def test_words_and_merges_equal_the_naive_way(by_rule, read_again, byte_level, text):
    tokens, _, merges = byte_level
    vocab = {token: i for i, token in enumerate(tokens)}
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    for name, (tokenizer, _) in by_rule.items():
        wanted = []
        for i, part in enumerate(text.split("<think>")):
            wanted += [vocab["<think>"]] * (i > 0) + naive_bpe(part, name, vocab, ranks)
        found = tokenizer.encode(text)
        assert found.tolist() == wanted == read_again[name].encode(text).tolist(), name
        composed = unicodedata.normalize("NFC", text) if RULES[name][1] else text
        assert tokenizer.decode(found) == composed == read_again[name].decode(found)


def test_special_ids(byte_level, by_rule, tmp_path):
    tokens, kinds, merges = byte_level
    end, turn = tokens.index("<|endoftext|>"), tokens.index("<|im_end|>")
    tokenizer = by_rule["qwen2"][0]
    assert tokenizer.vocab_size == len(tokens)
    assert tokenizer.stop_ids == (end, turn)  # the end of a turn is known by its name
    assert (tokenizer.pad_id, tokenizer.bos_id) == (end, None)
    assert tokenizer.special_tokens == {"eos_token": "<|endoftext|>"}
    ids = {"bos": 5, "eos": turn, "eot": 7, "eom": 8, "padding": 9, "unknown": 10}
    path = write(tmp_path / "m.gguf", "gpt2", tokens, kinds, merges=merges, pre="gpt-2", **ids)
    tokenizer = ours.make_tokenizer(ours.read_metadata(path), "m")
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.stop_ids) == (5, 9, (turn, 7, 8))


def test_smollm2_equals_transformers(smollm2):
    golden = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))["smollm2"]
    for text, ids in golden:
        assert smollm2.encode(text).tolist() == ids, text
        assert smollm2.decode_special(ids) == text
    assert (smollm2.vocab_size, smollm2.pad_id, smollm2.stop_ids, smollm2.bos_id) == (49152, 2, (2,), 1)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(text=texts | st.sampled_from(QUESTIONS))
def test_smollm2_equals_the_naive_way(smollm2, smollm2_naive, text):
    ids = smollm2.encode(text)
    assert ids.tolist() == smollm2_naive(text)
    assert smollm2.decode(ids) == text


@pytest.fixture(scope="module")
def smollm2_naive(smollm2_metadata):
    vocab = {token: i for i, token in enumerate(smollm2_metadata["tokenizer.ggml.tokens"])}
    merges = smollm2_metadata["tokenizer.ggml.merges"]
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    return lambda text: naive_bpe(text, "smollm", vocab, ranks)


# SmolLM2's vocabulary lacks 21 of the 256 bytes: those that UTF-8 never uses, the first bytes of code points
# 0x40000 to 0xbffff (none is assigned), and six control characters.
spelled = st.characters(exclude_characters="\x04\x06\x13\x14\x16\x1d", exclude_categories=["Cs", "Cn"])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=st.text(spelled))
def test_smollm2_gives_any_text_back(smollm2, text):
    assert smollm2.decode_special(smollm2.encode(text)) == text


def test_smollm2_leaves_out_what_it_cannot_spell(smollm2):
    assert smollm2.decode(smollm2.encode("a\x04b")) == "ab"


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "no prefix"])
def piece_model(request, tmp_path_factory):
    """A SentencePiece model, and the tokenizers of a GGUF file and of a folder that hold the same."""
    import sentencepiece

    model, added = io.BytesIO(), [] if request.param else ["<start>", "\n\n"]
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(QUESTIONS * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=0.98,
        user_defined_symbols=added,
        add_dummy_prefix=request.param,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    tokens = [reference.IdToPiece(i) for i in range(reference.vocab_size())]
    kinds = [
        4
        if token in added
        else 2 * reference.IsUnknown(i) + 3 * reference.IsControl(i) + 6 * reference.IsByte(i) or 1
        for i, token in enumerate(tokens)
    ]
    place = tmp_path_factory.mktemp("gguf")
    path = write(
        place / "m.gguf",
        *("llama", tokens, kinds),
        scores=[reference.GetScore(i) for i in range(reference.vocab_size())],
        prefix=None if request.param else False,  # that there is one goes without saying
        **{"bos": 1, "eos": 2, "unknown": 0},
    )
    metadata = ours.read_metadata(path)
    folder = write_files(place / "folder", metadata)
    return reference, (ours.make_tokenizer(metadata, "m.gguf"), load(str(folder)))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=st.text() | texts | st.sampled_from([*QUESTIONS, "<start>a b\n\n\nc  d"]))
def test_scores_equal_sentencepiece(piece_model, text):
    reference, tokenizers = piece_model
    text = text.replace("\u2581", "_").replace("<s>", "").replace("</s>", "")  # controls are no plain text
    for tokenizer in tokenizers:
        ids = tokenizer.encode(text)
        assert ids.tolist() == reference.encode(text)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tokenizer.ggml.model": "t5"}, ["m.gguf: tokenizer.ggml.model is 't5'", "gpt2, llama"]),
        ({"tokenizer.ggml.model": None}, ["tokenizer.ggml.model is None"]),
        ({"tokenizer.ggml.pre": "smolm"}, ["tokenizer.ggml.pre is 'smolm'", "(nearest: smollm", "qwen2"]),
        ({"tokenizer.ggml.merges": None}, ["no tokenizer.ggml.merges", "'gpt2'"]),
        ({"tokenizer.ggml.merges": ["the zebra"]}, ["tokenizer.ggml.merges"]),
        ({"tokenizer.ggml.tokens": None}, ["no tokenizer.ggml.tokens"]),
        ({"tokenizer.ggml.eos_token_id": 9999}, ["m.gguf", "special token", "tokens"]),
        ({"tokenizer.ggml.eos_token_id": None, "tokenizer.ggml.pre": "qwen2"}, ["m.gguf: no token ends"]),
    ],
)
def test_metadata_that_do_not_do(byte_level, changes, words):
    tokens, _, merges = byte_level
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [token.replace("<|im_end|>", "<|other|>") for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 3,
        **changes,
    }
    with pytest.raises(ValueError) as error:
        ours.make_tokenizer({key: value for key, value in metadata.items() if value is not None}, "m.gguf")
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_file_cut_short_is_named(byte_level, tmp_path):
    tokens, kinds, merges = byte_level
    path = write(tmp_path / "m.gguf", "gpt2", tokens, kinds, merges=merges, eos=3)
    content = path.read_bytes()
    for size in (0, 3, 30, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"m\.gguf: ") as error:
            ours.read_metadata(path)
        assert "\n" not in str(error.value)
