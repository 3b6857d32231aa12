"""What transformers saves is read here with its logits, and what is written here is loaded there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parity tests need torch")
transformers = pytest.importorskip("transformers", reason="the parity tests need transformers")

from sdd import weights  # noqa: E402
from sdd.model import make  # noqa: E402
from sdd.testing import tiny_mesh  # noqa: E402
from sdd.weights import convert, export  # noqa: E402

FAMILIES = ("llama", "smollm2", "mistral", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3_text")
IDS = np.random.default_rng(0).integers(3, 40, (2, 12)).astype(np.int32)


def their_logits(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    model, info = model
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        return model.eval()(torch.tensor(IDS.astype(np.int64))).logits.numpy()


def our_logits(model, params):
    positions = np.broadcast_to(np.arange(IDS.shape[1], dtype=np.int32), IDS.shape)
    with jax.set_mesh(tiny_mesh()):
        hidden, _ = model.apply(params, jnp.asarray(IDS), jnp.asarray(positions))
        return np.asarray(model.unembed(params, hidden))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_same_both_ways(tiny, tmp_path, family):
    config = dict(tiny.CONFIGS[family])
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    )
    with torch.no_grad():
        for p in made.parameters():  # norms and biases too, which begin as ones and zeros
            p.add_(0.3 * torch.randn_like(p))
    made.save_pretrained(tmp_path / "theirs", max_shard_size="8KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    expected = their_logits(tmp_path / "theirs")

    architecture = convert.architecture_of(tmp_path / "theirs")
    model = make(architecture.config, architecture.vocab_size)
    params = weights.load_params(tmp_path / "theirs", model, tiny_mesh())
    np.testing.assert_allclose(our_logits(model, params), expected, atol=1e-4)

    export.save(params, architecture, tmp_path / "ours", max_shard_bytes=8000)
    np.testing.assert_array_equal(their_logits(tmp_path / "ours"), expected)
