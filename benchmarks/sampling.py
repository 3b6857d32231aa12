"""Drawing rollouts: sdd's sampler against those of Tunix and transformers, in real tokens a second of CPU.

    python benchmarks/sampling.py [--quick]

Every side has the same weights, the same N prompts of P tokens, no two alike, and draws from the whole
distribution at temperature 1 in float32 on one core. ``sampling``: no stop token, so all T tokens are drawn.
``sampling_long_tail``: every token of ``stops`` out of the vocabulary ends a response, which makes lengths
geometric and cuts them at T; each call draws with a new seed and only real tokens count, the one that stops
included; sdd decodes ``slots`` responses at once and gives a slot whose response has ended to the next.
``ratio`` is sdd's tokens a second of CPU over the other's; both rates and mean lengths are in ``shape``. sdd
and Tunix are jitted, Tunix without the log-probabilities that sdd writes down as it draws; transformers keeps
its key/value cache and runs under ``torch.no_grad``. Before anything is timed, the logits of the prompts are
compared.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from common import peers
from common.timing import begin, cpu_seconds, report

from sdd.mesh import make_mesh, put_rows
from sdd.model import Model
from sdd.model import make as make_model
from sdd.sampling import make as make_sampler
from sdd.settings import MeshConfig, ModelConfig, SamplingConfig

SHAPE = dict(N=64, P=32, T=96, stops=21, slots=16)
QUICK = dict(N=4, P=8, T=6, stops=128, slots=2)
Lengths = Callable[[int], np.ndarray]  # seed -> real tokens of each response
AGAINST = {"tunix": "Tunix: generate.Sampler", "transformers": "transformers: generate(do_sample=True)"}


def sdd_lengths(
    model: Model, params: Any, tokens_NxP: np.ndarray, T: int, stop_ids: tuple[int, ...], slots: int
) -> Lengths:
    """sdd's side."""
    N, P = tokens_NxP.shape
    config = SamplingConfig(slots=slots)
    mesh = jax.sharding.get_mesh()
    sampler = make_sampler(model, config, group_size=1, max_tokens=T, stop_ids=stop_ids)
    rows: Any = put_rows(mesh, (tokens_NxP, np.full(N, P, np.int32), np.arange(N, dtype=np.int32)))

    def lengths(seed: int) -> np.ndarray:
        with jax.set_mesh(mesh):
            rollouts = sampler(params, rows[0], rows[1], rows[2], jax.random.key(seed))
        return np.asarray(rollouts.mask_NxT).sum(1)

    return lengths


def tunix_lengths(config: ModelConfig, peer: Any, tokens_NxP, T: int, stop_ids: tuple[int, ...]) -> Lengths:
    """Tunix's side, its cache as long as prompt and response."""
    from tunix.generate import sampler as tunix

    P = tokens_NxP.shape[1]
    cache = tunix.CacheConfig(P + T, config.num_layers, config.num_kv_heads, config.head_dim)
    sampler = tunix.Sampler(peer, peers.Numbers(), cache)
    texts = [peers.Numbers().decode(row) for row in tokens_NxP]
    stops = list(stop_ids) or [peers.Numbers().eos_id()]

    def lengths(seed: int) -> np.ndarray:
        found = sampler(
            texts, T, max_prompt_length=P, eos_tokens=stops, temperature=1.0, top_p=1.0, seed=seed
        ).tokens
        # Tunix cuts before the token that stops, which was drawn like the others.
        return np.array([min(len(row) + 1, T) for row in found])

    return lengths


def torch_lengths(peer: Any, tokens_NxP: np.ndarray, T: int, stop_ids: tuple[int, ...]) -> Lengths:
    """transformers' side."""
    import torch

    P = tokens_NxP.shape[1]
    prompts = torch.from_numpy(tokens_NxP.astype(np.int64))
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    options |= {"max_new_tokens": T, "eos_token_id": list(stop_ids) or None, "pad_token_id": 0}

    def lengths(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        with torch.no_grad():
            drawn = peer.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
        stopped_NxT = np.isin(drawn[:, P:].numpy(), stop_ids)
        return np.where(stopped_NxT.any(1), stopped_NxT.argmax(1) + 1, T)

    return lengths


def check_logits(model: Model, params: Any, others: dict[str, Any], tokens_NxP: np.ndarray) -> None:
    """All sides are the same function, or the ratios mean nothing."""
    N, P = tokens_NxP.shape
    positions_NxP = np.broadcast_to(np.arange(P, dtype=np.int32), (N, P))
    ours = np.asarray(model.unembed(params, model.apply(params, tokens_NxP, positions_NxP)[0]))
    assert ours.std() > 1e-3
    if "tunix" in others:
        seen_NxPxP = np.broadcast_to(np.tril(np.ones((P, P), bool)), (N, P, P))
        theirs = others["tunix"](
            jax.numpy.asarray(tokens_NxP), jax.numpy.asarray(positions_NxP), None, seen_NxPxP
        )
        np.testing.assert_allclose(np.asarray(theirs[0]), ours, atol=2e-4)
    if "transformers" in others:
        import torch

        with torch.no_grad():
            theirs = others["transformers"](torch.from_numpy(tokens_NxP.astype(np.int64))).logits.numpy()
        np.testing.assert_allclose(theirs, ours, atol=2e-4)


def counted(lengths: Lengths, seen: list[float]) -> Callable[[], float]:
    """A call that says how many tokens it drew, each with a new seed; notes mean lengths."""
    seeds = itertools.count()

    def call() -> float:
        length_N = lengths(next(seeds))
        seen.append(float(length_N.mean()))
        return float(length_N.sum())

    return call


def main(argv: Sequence[str] | None = None) -> None:
    """Measures both distributions of lengths and prints a line for each peer that is installed."""
    quick = begin(__doc__, argv)
    shape, config = (QUICK, peers.TINY) if quick else (SHAPE, peers.FULL)
    here = peers.installed("sampling.py")
    rng = np.random.default_rng(0)
    tokens_NxP = rng.integers(0, peers.VOCABULARY, (shape["N"], shape["P"])).astype(np.int32)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = make_model(config, peers.VOCABULARY)
        params = model.init(jax.random.key(0))
    makers = {"tunix": peers.tunix_model, "transformers": peers.torch_model}
    others = {name: makers[name](config, params) for name in here}
    with jax.set_mesh(mesh):
        check_logits(model, params, others, tokens_NxP)
    for name, stops, slots in (
        ("sampling", 0, 0),
        ("sampling_long_tail", shape["stops"], shape["slots"]),
    ):
        stop_ids = tuple(range(stops))
        with jax.set_mesh(mesh):
            ours = sdd_lengths(model, params, tokens_NxP, shape["T"], stop_ids, slots)
        sides = {"sdd": ours}
        if "tunix" in here:
            sides["tunix"] = tunix_lengths(config, others["tunix"], tokens_NxP, shape["T"], stop_ids)
        if "transformers" in here:
            sides["transformers"] = torch_lengths(others["transformers"], tokens_NxP, shape["T"], stop_ids)
        seen: dict[str, list[float]] = {side: [] for side in sides}
        calls = {side: counted(lengths, seen[side]) for side, lengths in sides.items()}
        took = cpu_seconds(calls, 1 if quick or not here else 7)
        for peer in here:
            line_shape: dict[str, Any] = shape | {"stops": stops, "slots": slots}
            for side in ("sdd", peer):
                line_shape[f"{side}_tokens_per_second"] = round(float(np.median(1 / took[side])))
                line_shape[f"{side}_mean_length"] = round(float(np.mean(seen[side])), 2)
            line = report(name, AGAINST[peer], took[peer] / took["sdd"], line_shape)
            line["versions"] |= peers.versions(peer)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
