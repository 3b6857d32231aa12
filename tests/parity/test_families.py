"""The decoder against transformers on random weights: prefill, 32 decoded steps, and config.json both ways.

Needs torch and transformers. CPU, float32, tolerance 1e-4 on logits of order 10.
"""

import inspect
import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from sdd.model import empty, fork
from sdd.model.kinds import layer_kinds
from sdd.model.presets import PRESETS, Architecture, from_hf, preset, to_hf
from sdd.testing import tiny_mesh

torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers")

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "models" / "make.py"))
CASES = MAKE["CASES"]
LENGTHS, P, T, G = (21, 9, 14), 21, 32, 2
TIED = {"tied": True, "untied": False}


def stepwise_reference(model, tokens, positions):
    """Logits of a prefill of P columns and of T single tokens behind its cache, as N x (P+T) x V."""
    cache_name = (
        "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
    )
    mask, position_ids = torch.tensor(positions >= 0).long(), torch.tensor(positions).long().clamp(min=0)
    cache, logits, start = None, [], 0
    with torch.no_grad():
        for end in (P, *range(P + 1, P + T + 1)):
            out = model(
                input_ids=torch.tensor(tokens[:, start:end]).long(),
                attention_mask=mask[:, :end],
                position_ids=position_ids[:, start:end],
                use_cache=True,
                **{cache_name: cache},
            )
            cache, start = out[cache_name], end
            logits.append(out.logits.numpy())
    return np.concatenate(logits, axis=1)


def stepwise(model, params, tokens, positions):
    """The same of the decoder; each prompt is read once, and its cache shared by G rows."""
    apply = jax.jit(model.apply)
    hidden, cache = apply(params, tokens[::G, :P], positions[::G, :P], empty(model.config, len(LENGTHS), P))
    hiddens = [np.repeat(np.asarray(hidden), G, axis=0)]
    cache = fork(cache, model.config, G, T)
    for t in range(P, P + T):
        hidden, cache = apply(params, tokens[:, t : t + 1], positions[:, t : t + 1], cache)
        hiddens.append(np.asarray(hidden))
    return np.asarray(model.unembed(params, np.concatenate(hiddens, axis=1)))


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("name", CASES)
def test_prefill_and_32_decoded_steps_equal_transformers(name, tied):
    values = {**CASES[name], "tie_word_embeddings": TIED[tied]}
    tokens, positions = MAKE["inputs"](P + T, LENGTHS)
    tokens, positions = np.repeat(tokens, G, axis=0), np.repeat(positions, G, axis=0)
    tokens[1::G, P:] = 42 - tokens[1::G, P:]  # the rows of a group differ after their prompt
    with jax.set_mesh(tiny_mesh()):
        model, params = MAKE["build"](values)
        found = stepwise(model, params, tokens, positions)
    expected = stepwise_reference(MAKE["reference"](values, params, model.config), tokens, positions)
    assert np.abs(expected).max() > 2
    worst = np.abs(found - expected)[positions >= 0].max()
    print(f"{name} {tied}: largest difference {worst:.1e} of logits up to {np.abs(expected).max():.1f}")
    assert worst < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_a_written_config_gives_the_same_model_in_transformers(name, tmp_path):
    """to_hf -> a file -> transformers, with logits equal to the model of the first config.json."""
    values = CASES[name]
    with jax.set_mesh(tiny_mesh()):
        model, params = MAKE["build"](values)
    written = to_hf(Architecture(model.config, MAKE["VOCAB"], from_hf(values).family))
    first = MAKE["reference"](values, params, model.config)
    second = MAKE["reference"](written, params, model.config)
    logits = [MAKE["reference_logits"](m, *MAKE["inputs"]()) for m in (first, second)]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-6)
    second.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert from_hf(saved) == from_hf(values)  # what transformers writes is read as well


@pytest.mark.parametrize("name", PRESETS)
def test_transformers_reads_a_preset_as_we_do(name):
    """Sizes, windows, scales and frequencies that transformers makes of the written preset."""
    architecture = preset(name)
    theirs = transformers.AutoConfig.for_model(**to_hf(architecture))
    assert from_hf(theirs.to_dict()) == architecture
    config = architecture.config
    kinds = getattr(theirs, "layer_types", None) or ["full_attention"] * config.num_layers
    rope_class = {
        "gemma3": transformers.models.gemma3.modeling_gemma3.Gemma3RotaryEmbedding,
        "olmo3": transformers.models.olmo3.modeling_olmo3.Olmo3RotaryEmbedding,
    }.get(architecture.family, transformers.models.llama.modeling_llama.LlamaRotaryEmbedding)
    rope = rope_class(theirs)
    ours = layer_kinds(config)
    for i, kind in enumerate(kinds):
        named = hasattr(rope, f"{kind}_inv_freq")
        frequency = getattr(rope, f"{kind}_inv_freq") if named else rope.inv_freq
        magnitude = getattr(rope, f"{kind}_attention_scaling") if named else rope.attention_scaling
        np.testing.assert_allclose(ours.frequency_R[i], frequency.numpy(), rtol=2e-6)
        assert magnitude == pytest.approx(1 if ours.magnitude is None else ours.magnitude[i])
