"""``sdd plan``: bytes are those of the arithmetic, what does not fit is said, and the JSON has its keys."""

import importlib.util
import json
import math
import os
import re
from pathlib import Path

import jax
import pytest

from sdd import config as config_lib
from sdd import experiment, initial
from sdd.plan import advice, chips, command, compiled, inputs, plans, programs, roofline, search
from sdd.plan.hlo import Collective
from sdd.steps.base import init_state
from sdd.testing import tiny_mesh
from sdd.typed import ConfigError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SDSD = str(EXPERIMENTS / "concept_graph" / "sdsd.py")
KEYS = [
    *("topology", "chips", "bytes_per_chip", "fits", "flops_per_step", "collectives"),
    *("step_seconds_roofline", "bound_by"),
]
# One layer and few prompts: the programs are the same, and compile sooner.
LIGHT = ["--config.model.num_layers=1", "--config.train.prompts_per_step=8"]
BYTES = ["parameters", "optimizer", "teacher", "cache", "temporary", "total", "available"]


needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no libtpu")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the command sets for its process is undone after each test."""
    for name, value in command.ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))


def resolved(path: str = SDSD, **train):
    raw = experiment.get_config(experiment.load(path))
    raw.train.update(train)
    return config_lib.resolve(raw)


def number_of_parameters(config, vocab: int) -> int:
    m = config.model
    layer = m.width * m.head_dim * (2 * m.num_heads + 2 * m.num_kv_heads) + 3 * m.width * m.mlp_dim
    norms = 2 * m.width + (2 * m.head_dim if m.qk_norm == "head" else 0)
    return m.num_layers * (layer + norms) + vocab * m.width + m.width + m.width**2  # token shift


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_parameters_optimizer_and_teacher_are_those_of_the_arithmetic(shape):
    config = resolved()
    config = plans.with_mesh(config, dict(zip(("data", "fsdp", "tensor"), shape, strict=True)), 1)
    sizes, mesh = inputs.sizes_of(config), tiny_mesh(*shape)
    found = programs.resident_bytes(config, programs.make_plan_parts(config, sizes, mesh), sizes)
    expected = 4 * number_of_parameters(config, sizes.vocab_size) / (shape[1] * shape[2])
    # Norms and the token shift are whole on every chip, here a large share of a small decoder.
    whole = 4 * (config.model.num_layers * 2 + 1 + config.model.width) * config.model.width
    expected += whole * (1 - 1 / (shape[1] * shape[2]))
    assert found.parameters == pytest.approx(expected, rel=0.01)
    assert found.optimizer == pytest.approx(2 * expected, rel=0.01)
    assert found.teacher == pytest.approx(expected, rel=0.01)


def test_bytes_and_shapes_are_those_of_a_real_state():
    config, mesh = resolved(), tiny_mesh(1, 2, 2)
    sizes = inputs.sizes_of(config)
    parts = programs.make_plan_parts(config, sizes, mesh)
    with jax.set_mesh(mesh):
        state = init_state(parts.step, parts.optimizer, parts.model.init(jax.random.key(0)))
        abstract = initial.abstract_state(parts)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), abstract
    )
    on_first = lambda tree: sum(  # noqa: E731
        s.data.nbytes
        for x in jax.tree.leaves(tree)
        for s in x.addressable_shards
        if s.device == jax.devices()[0]
    )
    found = programs.resident_bytes(config, parts, sizes)
    assert found[:3] == (on_first(state.params), on_first(state.opt_state), on_first(state.teacher))


@pytest.mark.parametrize("method", ["grpo", "sdsd", "sft"])
def test_every_method_gives_its_own_targets(method):
    raw = experiment.get_config(experiment.load(SDSD))
    raw.step = config_lib.default("sdd.tasks.concept_graph", f"sdd.steps.{method}").step
    config = config_lib.resolve(raw)
    sizes, mesh = inputs.sizes_of(config), tiny_mesh(2, 2, 1)
    with jax.set_mesh(mesh):
        batch = inputs.abstract_batch(config, inputs.step_of(config), sizes)
    if method == "sdsd":
        assert batch.contexts.tokens_NxKxD.shape == (64, 1, sizes.demonstration_context)
        assert batch.targets.weight_NxK.shape == (64, 1)
    assert batch.rollouts.response_NxT.shape == (128 if method == "sft" else 64, sizes.response)
    assert batch.rollouts.response_NxT.sharding.spec[0] == ("data", "fsdp")


def test_the_json_of_a_plan_has_its_keys_in_order(capsys):
    assert command.run([SDSD, *LIGHT, "--topology=gpu:h100:8", "--json", "--config.mesh.fsdp=2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found)[: len(KEYS)] == KEYS and list(found["bytes_per_chip"]) == BYTES
    assert found["chips"] == 8 and found["fits"] and found["mesh"] == {"data": 4, "fsdp": 2, "tensor": 1}
    parts = found["bytes_per_chip"]
    held = [parts[name] for name in ("parameters", "optimizer", "teacher", "temporary")]
    held += [parts["cache"]] if found["larger"] == "sampling" else []
    assert parts["total"] == pytest.approx(sum(held), abs=8)
    assert {"kind", "axis", "bytes"} == set(found["collectives"][0])
    assert found["step_seconds_roofline"] == pytest.approx(
        sum(max(each.values()) for each in found["phases"].values())
    )


def small(monkeypatch, memory: float):
    monkeypatch.setitem(chips.CHIPS, "h100", chips.CHIPS["h100"]._replace(memory=memory))


def test_what_does_not_fit_exits_with_1_and_says_what_helps(monkeypatch, capsys):
    here = [SDSD, *LIGHT, "--topology=gpu:h100:2", "--json"]
    assert command.run(here) == 0
    total = json.loads(capsys.readouterr().out)["bytes_per_chip"]["total"]
    small(monkeypatch, 0.9 * total)
    assert command.run(here) == 1
    out, err = capsys.readouterr()
    assert not json.loads(out)["fits"] and err.startswith("sdd: ") and len(err.splitlines()) == 1
    change = re.search(r"(--config\.train\.micro_batches=\d) needs about", err)
    assert change is not None
    assert command.run([*here, change[1]]) == 0  # the advice is true: the compiler agrees


def test_what_nothing_helps_says_so(monkeypatch, capsys):
    small(monkeypatch, 1e4)
    config = resolved(prompts_per_step=8)
    sizes, devices = inputs.sizes_of(config), jax.devices()
    topology = chips.parse("gpu:h100:8")
    plan = plans.estimate(config, sizes, topology, plans.counted(config, sizes, devices))
    assert not plan.fits
    assert advice.advise(plan, sizes, devices).endswith("more chips, or --fit")


def test_fit_ranks_what_fits_by_time_and_compiles_one(capsys):
    fewer = "--config.train.prompts_per_step=4"
    assert command.run([SDSD, *LIGHT, fewer, "--topology=gpu:h100:2", "--fit", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ranked = found["plans"]
    # Two rows a chip for data or fsdp, in 1 or 2 parts; four for tensor, in 1, 2 or 4.
    assert len(ranked) == 2 * 2 + 3
    assert [p["compiled"] for p in ranked] == [True] + [False] * (len(ranked) - 1)
    seconds = [p["step_seconds_roofline"] for p in ranked[1:]]
    assert seconds == sorted(seconds) and all(p["fits"] for p in ranked)
    assert found["mesh"] == ranked[0]["mesh"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--topology=v7x:2x2"], "no such chip"),
        (["--topology=v5p:4x4"], "v5p has 3 axes and this names 2"),
        (["--topology=gpu:h100:nine"], "is no shape"),
        (["--topology=gpu:h100:8", "--slices=0"], "--slices=0: valid: 1 or more"),
        (
            ["--topology=gpu:h100:8", "--config.mesh.data=8", "--config.train.prompts_per_step=4"],
            "--fit finds",
        ),
        (["--topology=gpu:h100:8", "--config.train.nummsteps=4"], "nummsteps"),
        (["--topology=gpu:h100:8", "--what"], "--what"),
        ([], "--topology"),
    ],
)
def test_an_error_is_one_line(args, said, capsys):
    assert command.run([SDSD, *args]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sdd: ") and said in err and len(err.splitlines()) == 1


def test_a_task_without_its_files_needs_its_lengths():
    path = str(EXPERIMENTS / "science_qa" / "qwen3_8b_sdsd.py")
    sizes = inputs.sizes_of(resolved(path))
    assert sizes[:4] == (151936, 2048, 10240, 8192) and "options" in sizes.note
    raw = experiment.get_config(experiment.load(path))
    raw.task.vocab_size = 0
    with pytest.raises(ConfigError, match=r"config\.task\.vocab_size=0: sdd plan needs it"):
        inputs.sizes_of(config_lib.resolve(raw))


def test_without_libtpu_it_is_said_what_to_install(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else found(name))
    assert command.run([SDSD, "--topology=v5e:2x2"]) == 2
    assert "pip install 'sdd[plan]'" in capsys.readouterr().err


@needs_libtpu
def test_a_small_config_on_a_tpu_that_is_not_there(capsys):
    assert (
        command.run([SDSD, "--topology=v5e:2x2", "--json", "--config.mesh.data=1", "--config.mesh.fsdp=4"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    config, vocab = resolved(), 78
    whole = 4 * (config.model.num_layers * 2 + 1 + config.model.width) * config.model.width
    expected = 4 * number_of_parameters(config, vocab) / 4 + whole * 3 / 4
    # 78 rows of embeddings are not divided by tensor, and their width is by fsdp.
    assert found["bytes_per_chip"]["parameters"] == pytest.approx(expected, rel=0.01)
    assert found["bytes_per_chip"]["optimizer"] == pytest.approx(2 * expected, rel=0.01)
    assert found["compiled"] and {c["axis"] for c in found["collectives"]} >= {"fsdp"}


def test_what_an_exchange_sends():
    near, far = roofline.traffic(Collective("all-gather", "fsdp", 100.0, 4), 2)
    assert (near, far) == (75.0, 0.0)
    near, far = roofline.traffic(Collective("all-reduce", "data+fsdp", 100.0, 8), 2)
    assert near == 2 * 100 * 3 / 4 and far == 2 * 100 / 4 / 2


def test_meshes_that_are_tried_fill_the_chips_and_divide_the_batch():
    config = resolved(prompts_per_step=8)
    topology = chips.parse("v5e:2x2", slices=2)
    found = list(search.candidates(config, topology))
    assert len(found) == len({json.dumps(each) for each in found})
    for shape, parts in found:
        assert math.prod(shape.values()) == 8 and shape["data"] % 2 == 0
        assert 8 % (shape["data"] * shape["fsdp"] * parts) == 0 and 4 % shape["tensor"] == 0


def test_a_program_that_the_compiler_finds_too_large_has_its_size():
    class TooLarge:
        jaxpr = jax.jit(lambda x: x + 1).trace(jax.ShapeDtypeStruct((256,), "float32")).jaxpr

        def lower(self):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
                "(46.5G) exceeds available HBM (15.75G)."
            )

    found = compiled.compile_traced(TooLarge(), {}, ())
    assert found.bytes == 1024 + 46.5 * 2**30 and found.collectives is None


@needs_libtpu
def test_only_data_goes_from_slice_to_slice():
    command.prepare_environment(0)
    config = plans.with_mesh(resolved(), {"data": 2, "fsdp": 4, "tensor": 1}, 1)
    topology, sizes = chips.parse("v5e:2x2", slices=2), inputs.sizes_of(config)
    known = plans.counted(config, sizes, compiled.devices_of(topology))
    assert [{d.slice_index for d in row.flat} for row in known.mesh.devices] == [{0}, {1}]
    update = plans.estimate(config, sizes, topology, known).phases[1]
    assert update.seconds_of["dcn"] > 0
