"""The page of methods says what the docstrings say, and every method resolves in an experiment."""

import runpy
from pathlib import Path

import pytest

from experiments.concept_graph.base import on_policy
from sdd import config

ROOT = Path(__file__).parents[2]
WRITER = runpy.run_path(str(ROOT / "docs" / "write_methods.py"))
NEEDED = {"sdft": {"demonstrations": "demonstrations.jsonl"}}  # values that have no default
NOT_THERE = {"base", "sft", "grpo", "grpo_diversity", "sdsd"}  # described by hand


def test_the_page_is_current():
    page = (ROOT / "docs" / "methods.md").read_text()
    assert page == WRITER["current"](page), "run: python docs/write_methods.py"


def test_no_method_is_left_out():
    files = {path.stem for path in (ROOT / "sdd" / "steps").glob("[a-z]*.py")}
    assert set(WRITER["METHODS"]) == files - NOT_THERE


@pytest.mark.parametrize("name", WRITER["METHODS"])
def test_defaults_work_in_an_experiment(name):
    c = on_policy(f"sdd.steps.{name}")
    c.step.update(NEEDED.get(name, {}))
    config.resolve(c)


WRONG = {
    "pass_at_k": {"k": 4},
    "grpo_anchored": {"kl_coefficient": 0.0},
    "dph": {"anchor_coefficient": -1.0},
    "simko": {"entropy_quantile": 1.5},
    "sdpo": {"num_demos": 9},
    "opsd": {"tries": 0},
    "sdft": {"demonstrations": ""},
    "beta_opsd": {"beta": 0.0},
    "sc_sdpo": {"exponent": -1.0},
    "eopd": {"divergence": "js"},
    "pmi_residual": {"trust_region": 0.5},
    "rlcsd": {"bound": -1.0},
    "anti_sd": {"entropy_floor": -1.0},
    "ida_opd": {"shrinkage": -1.0},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused_in_one_line(name):
    c = on_policy(f"sdd.steps.{name}")
    ((key, value),) = WRONG[name].items()
    c.step[key] = value
    with pytest.raises(config.ConfigError, match=rf"^config\.step\.{key}=[^\n]+$"):
        config.resolve(c)
