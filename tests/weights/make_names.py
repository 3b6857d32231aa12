"""Writes names.json, the tensors of every family in `tiny.py` as transformers names them.

python tests/weights/make_names.py   (with torch and transformers 5)
"""

import json
import re

import tiny
import transformers

names = {}
for family, config in tiny.CONFIGS.items():
    kwargs = dict(config)
    made = transformers.AutoConfig.for_model(kwargs.pop("model_type"), **kwargs)
    state = transformers.AutoModelForCausalLM.from_config(made).state_dict()
    tied = config["tie_word_embeddings"]  # a tied head is not saved
    names[family] = {
        re.sub(r"layers\.\d+\.", "layers.{i}.", name): list(x.shape)
        for name, x in state.items()
        if not (tied and name == "lm_head.weight")
    }
lines = [
    f'  "{family}": {{\n'
    + ",\n".join(f"    {json.dumps(name)}: {json.dumps(shape)}" for name, shape in found.items())
    + "\n  }"
    for family, found in names.items()
]
tiny.NAMES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
