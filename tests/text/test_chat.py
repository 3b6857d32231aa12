"""Chats: what transformers renders (golden.json), tails, templates' sources and errors."""

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdd.text.chat import check_tail, load_chat, make_chat, tail_of
from sdd.text.huggingface import HuggingFaceTokenizer
from sdd.text.sentencepiece import train_sentencepiece
from sdd.text.template import fold_system
from sdd.text.tokenizer import SymbolTokenizer

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))["chats"]
NOW = datetime.datetime(2025, 3, 4, 5, 6, 7)  # as in make_golden.py
SPECIALS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "qwen3": (None, "<|im_end|>"),
    "gemma2": ("<bos>", "<eos>"),
    "gemma3": ("<bos>", "<eos>"),
    "olmo": ("<|endoftext|>", "<|endoftext|>"),
}
ENDS = {  # what a model of the family reads between a question and its own first token
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen3": "<|im_end|>\n<|im_start|>assistant\n",
    "gemma2": "<end_of_turn>\n<start_of_turn>model\n",
    "gemma3": "<end_of_turn>\n<start_of_turn>model\n",
    "olmo": "\n<|assistant|>\n",
}
QUESTION = "How many ducks are there?"
DEMONSTRATION = f"{QUESTION}\n\nA solution:\n<think>\n1 + 1\n</think>\n\n2\n\nNow solve it yourself."
# The conversations that make_golden.py rendered.
DUCKS = "Janet's ducks lay 16 eggs per day.\nShe eats three. How many are left? 16 - 3 = ?"
BRIEF = "Answer briefly; \u00e9t\u00e9, \u96ea \U0001f986."
SHOWN = (
    f"{DUCKS}\n\nA correct solution:\n<think>\n16 - 3\n</think>\n\n13\n\nNow solve the question yourself. "
)
HELLO = "<think>\nsay hello\n</think>\n\nHello!"


def turns(*contents, system=None):
    """User and assistant in turn."""
    roles = ["user", "assistant"] * len(contents)
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, *({"role": r, "content": c} for r, c in zip(roles, contents))]


CHATS = {
    "question": turns(DUCKS),
    "system": turns(DUCKS, system=BRIEF),
    "demonstration": turns(SHOWN, system=BRIEF),
    "turns": turns("Hi ", HELLO, " 2 + 2?  "),
    "answered": turns("Hi", HELLO),
}


def family_chat(family):
    bos, eos = SPECIALS[family]
    backend = tokenizers.Tokenizer.from_file(str(HERE / "tiny" / "tokenizer.json"))
    named = {"bos_token": bos, "eos_token": eos}
    tokenizer = HuggingFaceTokenizer(backend, {name: token for name, token in named.items() if token})
    path = HERE / "templates" / f"{family}.jinja"
    return make_chat(tokenizer, path.read_text(), path.name, now=NOW)


@pytest.fixture(scope="module")
def chats():
    return {family: family_chat(family) for family in SPECIALS}


@pytest.mark.parametrize("family", SPECIALS)
def test_texts_and_ids_equal_transformers(chats, family):
    entries = [entry for entry in GOLDEN if entry["family"] == family]
    assert len(entries) >= 10
    for entry in entries:
        messages = CHATS[entry["chat"]]
        before = json.dumps(messages)
        assert chats[family].render(messages, **entry["options"]) == entry["text"], entry
        assert json.dumps(messages) == before
        if "ids" in entry:
            ids = chats[family].encode(messages, **entry["options"])
            assert ids.dtype == np.int32 and ids.tolist() == entry["ids"]
            assert chats[family].tokenizer.decode_special(ids) == entry["text"]


def test_only_a_template_without_a_system_turn_folds_it(chats):
    assert [family for family, chat in chats.items() if chat.compiled.folds_system] == ["gemma2"]
    folded = turns(f"Be brief.\n\n{QUESTION}")
    assert chats["gemma2"].render(turns(QUESTION, system="Be brief.")) == chats["gemma2"].render(folded)
    assert fold_system(turns(QUESTION, system="")) == turns(QUESTION)
    silent = make_chat(SymbolTokenizer(["<pad>", "<eos>"]), "{{ messages[-1].content }}")
    assert silent.render(turns("a", system="b")) == "b\n\na"  # it would have left the system out


def test_the_clock(chats):
    chat = make_chat(chats["llama3"].tokenizer, chats["llama3"].template)
    today = datetime.datetime.now().strftime("Today Date: %d %b %Y")
    assert today in chat.render(turns(QUESTION))
    assert "Today Date: 04 Mar 2025" in chat._replace(now=NOW).render(turns(QUESTION))
    assert "Today Date: then" in chat.render(turns(QUESTION), date_string="then")


@pytest.mark.parametrize("family", SPECIALS)
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_student_and_teacher_end_alike(chats, family, options):
    tail = ENDS[family]
    if family == "qwen3" and options.get("enable_thinking") is False:
        tail += "<think>\n\n</think>\n\n"
    chat = chats[family]
    for system in (None, "Be brief."):
        student, teacher = turns(QUESTION, system=system), turns(DEMONSTRATION, system=system)
        ids = check_tail(chat, student, teacher, **options)
        assert chat.tokenizer.decode_special(ids) == tail
        for messages in (student, teacher):
            assert chat.encode(messages, **options)[-len(ids) :].tolist() == ids.tolist()
    assert chat.tokenizer.decode_special(tail_of(chat, turns("Hi", "Ho", QUESTION), **options)) == tail


def test_smollm2_ends_alike(smollm2, smollm2_metadata):
    chat = make_chat(smollm2, smollm2_metadata["tokenizer.chat_template"])
    tail = check_tail(chat, turns(QUESTION), turns(DEMONSTRATION))
    assert tail.tolist() == [2, 198, 1, 520, 9531, 198]  # <|im_end|> \n <|im_start|> ass istant \n
    assert smollm2.decode_special(tail) == ENDS["chatml"]
    assert chat.encode(turns(QUESTION)).tolist()[:3] == [1, 9690, 198]  # <|im_start|> system \n


@pytest.mark.parametrize(
    "family, teacher, teacher_options, words",
    [
        ("qwen3", turns(DEMONSTRATION), {"enable_thinking": False}, ["qwen3.jinja", "<think>"]),
        ("qwen3", turns(DEMONSTRATION), {"add_generation_prompt": False}, ["'<|im_end|>\\n'"]),
        ("chatml", turns(QUESTION, DEMONSTRATION), None, ["chatml.jinja", "Now solve it yourself."]),
    ],
)
def test_another_tail_is_one_line_with_both(chats, family, teacher, teacher_options, words):
    with pytest.raises(ValueError) as error:
        check_tail(chats[family], turns(QUESTION), teacher, teacher_options)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in [*words, "student", "teacher"]), str(error.value)


def test_a_token_over_the_boundary_is_part_of_the_tail(chats):
    chat = make_chat(chats["olmo"].tokenizer, "{{ messages[0].content }}s: ")
    assert chat.tokenizer.decode(tail_of(chat, turns("She eat"))) == " eats: "
    assert chat.tokenizer.decode(tail_of(chat, turns("She x"))) == "s: "
    with pytest.raises(ValueError, match=r"' eats: '.* 's: '"):
        check_tail(chat, turns("She eat"), turns("She x"))
    check_tail(chat, turns("She y"), turns("She x"))
    nothing = make_chat(chats["olmo"].tokenizer, "{{ messages[0].content }}")
    assert check_tail(nothing, turns("a"), turns("b")).shape == (0,)


def test_chat_of_a_sentencepiece_model(tmp_path):
    (tmp_path / "t.txt").write_text(f"{DEMONSTRATION}\n" * 5)
    (tmp_path / "t.jinja").write_text((HERE / "templates" / "chatml.jinja").read_text())
    train_sentencepiece(
        [tmp_path / "t.txt"], 320, tmp_path / "t.model", special=["<|im_start|>"], end="<|im_end|>"
    )
    chat = load_chat(str(tmp_path / "t.model"), str(tmp_path / "t.jinja"), vocab_size=384)
    assert chat.tokenizer.vocab_size == 384
    ids = chat.encode(turns(QUESTION))
    assert [i for i in ids if i < 5] == [4, 3, 4, 3, 4]  # starts and ends of turns
    assert chat.tokenizer.decode_special(ids) == chat.render(turns(QUESTION))
    tail = check_tail(chat, turns(QUESTION), turns(DEMONSTRATION))
    assert chat.tokenizer.decode_special(tail) == ENDS["chatml"]


def test_chat_of_a_sentencepiece_model_with_a_space_in_front(tmp_path):
    import sentencepiece

    with (tmp_path / "t.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter([DEMONSTRATION, "[INST] Hi [/INST]"] * 5),
            model_writer=file,
            model_type="bpe",
            vocab_size=350,
            byte_fallback=True,
            minloglevel=2,
        )
    (tmp_path / "t.jinja").write_text("{{ bos_token }}[INST] {{ messages[0].content }} [/INST]")
    chat = load_chat(str(tmp_path / "t.model"), str(tmp_path / "t.jinja"))
    assert chat.encode(turns(QUESTION))[0] == 1  # <s>
    tail = check_tail(chat, turns(QUESTION), turns(DEMONSTRATION))
    assert chat.tokenizer.decode(tail) == "[/INST]"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(HERE / "tiny", tmp_path / "tiny"))


def test_sources_of_a_template(folder, tmp_path):
    with_list = load_chat(str(folder))
    assert with_list.render(turns("Hi")).startswith("<|im_start|>system\nYou are a careful assistant")
    assert load_chat(str(folder), "olmo").render(turns("Hi")).endswith("<|user|>\nHi\n<|assistant|>\n")
    (folder / "chat_template.jinja").write_text("jinja: {{ messages[0].content }}")
    assert load_chat(str(folder)).render(turns("Hi")) == "jinja: Hi"
    (tmp_path / "own.jinja").write_text("own: {{ messages[0].content }}{{ pad_token }}")
    assert load_chat(str(folder), str(tmp_path / "own.jinja")).render(turns("Hi")) == "own: Hi<pad>"
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "text: {{ messages[0].content }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_chat(str(folder)).render(turns("Hi")) == "text: Hi"


def test_template_of_a_gguf_file(smollm2_metadata, monkeypatch):
    named = {**smollm2_metadata, "tokenizer.chat_template.short": "{{ messages[0].content }}"}
    monkeypatch.setattr("sdd.text.gguf.read_metadata", lambda path: named)  # reading takes seconds
    assert load_chat("smollm2").template == smollm2_metadata["tokenizer.chat_template"]
    assert load_chat("smollm2", "short").render(turns("Hi")) == "Hi"
    with pytest.raises(ValueError, match=r"no chat template 'shrt' \(nearest: short\).*\(default, short\)"):
        load_chat("smollm2", "shrt")


@pytest.mark.parametrize(
    "template, words",
    [
        ("{{ messages }}\n{% for m in %}", ["chat_template.jinja", "line 2"]),
        ("{% if true %}\n", ["chat_template.jinja", "line", "endif"]),
        ("a\n\n{{ nothing.at.all }}", ["chat_template.jinja", "line 3", "nothing"]),
        ("a\n{{ raise_exception('no\\nuser') }}", ["chat_template.jinja", "line 2", "no"]),
        ("{{ messages[0].content + 1 }}", ["chat_template.jinja", "line 1"]),
        ("{{ ''.__class__.__mro__ }}", ["chat_template.jinja", "line 1", "unsafe"]),
        ("{{ messages.append(1) }}", ["chat_template.jinja", "line 1", "unsafe"]),
        ("{% include '/etc/hostname' %}", ["chat_template.jinja", "line 1"]),
    ],
)
def test_an_error_in_a_template_is_one_line_with_file_and_line(folder, template, words):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError) as error:
        load_chat(str(folder))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_templates_that_are_not_there(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no chat template 'olm' \(nearest: olmo\).*\(default, olmo\)"):
        load_chat(str(folder), "olm")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for field, words in (
        (None, r"no chat template 'default'.*\(none\)"),
        ([1], r"config\.json: chat_template"),
    ):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": field}))
        with pytest.raises(ValueError, match=words):
            load_chat(str(folder))


@pytest.mark.parametrize(
    "messages, options, words",
    [
        ([], {}, ["messages", "at least one"]),
        ("Hi", {}, ["messages: 'Hi'", "list of turns"]),
        ([{"content": "a"}], {}, ["messages[0]: no role"]),
        ([{"role": "system", "content": "a"}], {}, ["no user turn after it"]),
        (turns("a", "b")[1:], {}, ["gemma2.jinja: line 1: Roles must alternate"]),
        (
            turns("a"),
            {"enable_thinkin": True},
            ["no 'enable_thinkin' (nearest: enable_thinking)", "bos_token"],
        ),
    ],
)
def test_messages_and_options_that_do_not_do(chats, messages, options, words):
    with pytest.raises(ValueError) as error:
        chats["gemma2"].render(messages, **options)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_what_is_none_is_not_printed(chats):
    messages = [{"role": "user", "content": "Hi", "reasoning_content": None, "name": None}]
    template = "{% for key in messages[0] %}{{ key }} {% endfor %}"
    assert make_chat(chats["olmo"].tokenizer, template).render(messages) == "role content "
