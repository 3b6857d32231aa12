import dataclasses
import json
import sys
import textwrap

import pytest

from sdd import config
from sdd.config import ConfigError

STUB = """
import dataclasses
from typing import Literal

@dataclasses.dataclass(frozen=True)
class Config:
    how: Literal["near", "far"] = "near"
    weight: float = 1
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None

    def __post_init__(self):
        if self.weight > 9:
            raise ValueError(f"weight is {self.weight};\\n valid are at most 9")

    def check(self, run):
        from sdd.config import ConfigError
        if run.train.group_size == 13:
            raise ConfigError("config.train.group_size=13: unlucky; valid: another")

def make(config):
    return config
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A config whose task and step are stubs."""
    (tmp_path / "stub_module.py").write_text(STUB)
    (tmp_path / "stub_other.py").write_text(
        STUB.replace('how: Literal["near", "far"] = "near"', "other: bool = True")
    )
    (tmp_path / "stub_without_make.py").write_text(STUB.partition("def make")[0])
    (tmp_path / "stub_without_dataclass.py").write_text("Config = dict\ndef make(config): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield config.default("stub_module", "stub_module")
    for name in [name for name in sys.modules if name.startswith("stub_")]:
        del sys.modules[name]


def refusal(values: dict, **changes) -> str:
    """The one line that refuses the config with some dotted keys changed."""
    for key, value in changes.items():
        *parents, last = key.split(".")
        holder = values
        for parent in parents:
            holder = holder[parent]
        holder[last] = value
    with pytest.raises(ConfigError) as error:
        config.from_dict(values)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults_resolve_to_the_dataclasses(base):
    run = config.resolve(base)
    assert run.model == config.ModelConfig()
    assert run.optimizer == config.OptimizerConfig()
    assert run.train == config.TrainConfig()
    assert run.eval == config.EvalConfig()
    assert run.seed == 0
    assert run.step.name == "stub_module"
    assert run.step.options.how == "near"
    assert run.step.options.limit is None


def test_a_run_config_is_frozen(base):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.resolve(base).train.num_steps = 3


def test_round_trip_through_json(base):
    base.step.limit = 3
    base.step.sizes = (4, 5, 6)
    base.eval.ks = (1, 2)
    base.train.num_steps = 77
    run = config.resolve(base)
    again = config.from_dict(json.loads(json.dumps(config.to_dict(run))))
    assert again == run
    assert again.step.options.sizes == (4, 5, 6)
    assert again.eval.ks == (1, 2)
    assert again.step.options.limit == 3


def test_keys_that_an_older_config_lacks_take_their_default(base):
    values = base.to_dict()
    del values["train"]["updates_per_batch"], values["writers"], values["step"]["how"]
    run = config.from_dict(values)
    assert run.train.updates_per_batch == 1
    assert run.writers == config.WriterConfig()
    assert run.step.options.how == "near"


def test_an_int_does_for_a_float_and_becomes_one(base):
    values = base.to_dict()
    values["optimizer"]["learning_rate"] = 1
    rate = config.from_dict(values).optimizer.learning_rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_a_float_field_with_an_int_default_can_be_set_to_a_float(base):
    base.step.weight = 0.5  # a ConfigDict takes the type from the default, which is written as 1
    assert config.resolve(base).step.options.weight == 0.5


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        # unknown keys: the nearest, in other sections too
        ("train.num_stps", 3, ["config.train.num_stps=3: unknown key", "nearest: config.train.num_steps"]),
        (
            "train.learning_rate",
            0.1,
            ["config.train.learning_rate=0.1", "nearest: config.optimizer.learning_rate"],
        ),
        ("top_p", 1, ["config.top_p=1: unknown key", "nearest: config.eval.top_p, config.sampling.top_p"]),
        ("modle", 1, ["config.modle=1: unknown key", "config.model"]),
        ("step.hwo", "far", ["config.step.hwo='far': unknown key", "nearest: config.step.how"]),
        # types
        ("train.num_steps", "300", ["config.train.num_steps='300'", "type str", "a whole number (int)"]),
        ("train.num_steps", 3.0, ["config.train.num_steps=3.0", "type float", "a whole number (int)"]),
        ("train.num_steps", True, ["config.train.num_steps=True", "type bool", "a whole number (int)"]),
        ("optimizer.b1", "0.9", ["config.optimizer.b1='0.9'", "type str", "a number (float)"]),
        ("optimizer.b1", False, ["config.optimizer.b1=False", "a number (float)"]),
        ("optimizer.learning_rate", float("nan"), ["config.optimizer.learning_rate=nan", "a finite number"]),
        ("model.attention_bias", 1, ["config.model.attention_bias=1", "True or False (bool)"]),
        ("train.init_from", 3, ["config.train.init_from=3", "text (str)"]),
        ("eval.splits", "id", ["config.eval.splits='id'", "a tuple, each entry text (str)"]),
        ("eval.ks", (1, "2"), ["config.eval.ks[1]='2'", "a whole number (int)"]),
        ("train", 3, ["config.train=3", "a section with keys"]),
        ("step.limit", "x", ["config.step.limit='x'", "a whole number (int)"]),
        # choices
        (
            "optimizer.schedule",
            "cosin",
            ["config.optimizer.schedule='cosin'", "nearest: 'cosine'", "'constant', 'linear', 'cosine'"],
        ),
        ("model.remat", "dot", ["config.model.remat='dot'", "nearest: 'dots'"]),
        (
            "model.compute_dtype",
            "float16",
            ["config.model.compute_dtype='float16'", "valid: 'float32', 'bfloat16'"],
        ),
        ("step.how", "fra", ["config.step.how='fra'", "nearest: 'far'"]),
        # ranges
        ("seed", -1, ["config.seed=-1", "valid: 0 or more and at most 4294967295"]),
        ("seed", 2**32, ["config.seed=4294967296", "at most 4294967295"]),
        ("model.num_layers", 0, ["config.model.num_layers=0", "valid: 1 or more"]),
        ("model.width", -8, ["config.model.width=-8", "valid: 1 or more"]),
        ("model.rope_fraction", 1.5, ["config.model.rope_fraction=1.5", "valid: 0 or more and at most 1"]),
        ("model.norm_eps", 0.0, ["config.model.norm_eps=0.0", "valid: more than 0"]),
        ("sampling.top_p", 0.0, ["config.sampling.top_p=0.0", "valid: more than 0 and at most 1"]),
        ("eval.top_p", 1.1, ["config.eval.top_p=1.1", "valid: more than 0 and at most 1"]),
        ("sampling.temperature", -0.1, ["config.sampling.temperature=-0.1", "valid: 0 or more"]),
        ("optimizer.b2", 1.0, ["config.optimizer.b2=1.0", "valid: 0 or more and less than 1"]),
        ("train.prompts_per_step", 0, ["config.train.prompts_per_step=0", "valid: 1 or more"]),
        ("train.group_size", 0, ["config.train.group_size=0", "valid: 1 or more"]),
        ("eval.every", -1, ["config.eval.every=-1", "valid: 0 or more"]),
        # values that do not fit each other
        (
            "model.num_kv_heads",
            3,
            ["config.model.num_kv_heads=3", "config.model.num_heads=4", "nearest: 2; valid: 1, 2, 4"],
        ),
        ("mesh.fsdp", -1, ["config.mesh.fsdp=-1", "config.mesh.data is -1 too", "at most one -1"]),
        ("mesh.tensor", 0, ["config.mesh.tensor=0", "valid: 1 or more, or -1"]),
        ("eval.ks", (1, 33), ["config.eval.ks[1]=33", "valid: 1 to 32", "num_samples=32"]),
        ("eval.ks", (0,), ["config.eval.ks[0]=0", "valid: 1 to 32"]),
        (
            "eval.rows_per_call",
            63,
            ["config.eval.rows_per_call=63", "config.eval.final_num_samples=64", "64 or more"],
        ),
        ("eval.splits", ("id", "id"), ["config.eval.splits[1]='id'", "each split once"]),
        (
            "optimizer.warmup_steps",
            301,
            ["config.optimizer.warmup_steps=301", "config.train.num_steps=300", "valid: 0 to 300"],
        ),
        # the module's own checks
        ("train.group_size", 13, ["config.train.group_size=13: unlucky"]),
        ("step.weight", 10.0, ["config.step: weight is 10.0; valid are at most 9"]),
        # the module
        ("step.name", "stub_modul", ["config.step.name='stub_modul'", "nearest: ", "stub_module"]),
        ("step.name", "sdd.lookups", ["config.step.name='sdd.lookups'", "'sdd' has no 'lookups'", "lookup"]),
        ("step.name", "stub_without_make", ["config.step.name='stub_without_make'", "it has no make"]),
        ("step.name", "stub_without_dataclass", ["'stub_without_dataclass'", "a dataclass Config"]),
        ("step.name", 3, ["config.step.name=3", "valid: the dotted path of a module"]),
        ("task", 3, ["config.task.name=3", "valid: the dotted path of a module"]),
    ],
)
def test_refusals_name_the_key_the_value_and_what_is_valid(base, key, value, said):
    line = refusal(base.to_dict(), **{key: value})
    for text in said:
        assert text in line


def test_ks_must_fit_the_smaller_number_of_samples(base):
    line = refusal(base.to_dict(), **{"eval.ks": (16,), "eval.final_num_samples": 8})
    assert "config.eval.ks[0]=16" in line
    assert "valid: 1 to 8" in line


def test_warm_up_counts_updates(base):
    base.train.num_steps, base.train.updates_per_batch, base.optimizer.warmup_steps = 10, 4, 40
    assert config.resolve(base).optimizer.warmup_steps == 40
    assert "valid: 0 to 40" in refusal(base.to_dict(), **{"optimizer.warmup_steps": 41})


def test_a_typo_set_in_an_experiment_file_is_refused(base):
    base.train.num_stesp = 5
    with pytest.raises(ConfigError, match=r"config\.train\.num_stesp=5.*nearest: config\.train\.num_steps"):
        config.resolve(base)


def test_another_module_brings_its_own_defaults(base):
    base.step.weight = 2.0
    config.with_module(base, "step", "stub_other")
    options = config.resolve(base).step.options
    assert options.other is True
    assert options.weight == 1.0
    assert not hasattr(options, "how")


def test_lengths(base):
    base.model.max_length = 20
    run = config.resolve(base)
    config.check_lengths(run, context_length=10, response_length=5, teacher_context_length=15)
    with pytest.raises(ConfigError, match=r"max_length=20: .* demonstration context of 16 .* need 21"):
        config.check_lengths(run, context_length=10, response_length=5, teacher_context_length=16)
    with pytest.raises(ConfigError, match=r"max_length=20: the task's context of 18 tokens"):
        config.check_lengths(run, context_length=18, response_length=5, teacher_context_length=15)
    base.model.max_length = 0
    config.check_lengths(config.resolve(base), 10**6, 10**6, 10**6)


def test_splits(base):
    run = config.resolve(base)
    config.check_splits(run, ("id", "larger", "harder"))
    with pytest.raises(
        ConfigError, match=r"splits\[2\]='harder': .*nearest: hard.*; valid: id, larger, hard$"
    ):
        config.check_splits(run, ("id", "larger", "hard"))


def test_every_field_is_documented():
    sections = [
        value
        for value in vars(config).values()
        if dataclasses.is_dataclass(value) and value.__module__.startswith("sdd.")
    ]
    assert len(sections) == 10
    for section in sections:
        documented = textwrap.dedent(section.__doc__)
        for field in dataclasses.fields(section):
            assert f"{field.name}: " in documented, f"{section.__name__}.{field.name}"
