"""The experiments on published models: they resolve, and their docstrings open with a command that works."""

import ast
import shlex
from pathlib import Path

import pytest

from sdd import config, experiment, overrides

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for name in ("science_qa", "smollm2") for path in (ROOT / "experiments" / name).glob("*.py")
)
RUNS = [path for path in FILES if path.stem != "base"]
ids = pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")


def test_they_exist():
    assert len(RUNS) == 8


@ids
def test_the_command_of_the_docstring_resolves(path):
    command = ast.get_docstring(ast.parse(path.read_text())).split("\n\n")[0].replace("\\\n", " ")
    sdd, run, file, *rest = shlex.split(command)
    assert (sdd, run, file) == ("sdd", "run", str(path.relative_to(ROOT)))
    changes, rest = overrides.split(rest)
    assert [word.split("=")[0] for word in rest] == ["--workdir"]
    resolved = config.resolve(overrides.apply(experiment.get_config(experiment.load(path)), changes))
    assert config.from_dict(config.to_dict(resolved)) == resolved
    assert resolved.train.init_from and resolved.task.options.tokenizer


@ids
def test_methods_differ_in_nothing_but_the_method(path):
    other = path.with_name(path.stem.replace("grpo_diversity", "sdsd").replace("grpo", "sdsd") + ".py")
    runs = [config.to_dict(config.resolve(experiment.get_config(experiment.load(p)))) for p in (path, other)]
    for run in runs:
        del run["step"]
    assert runs[0] == runs[1]


def test_the_papers_settings():
    """METHODS of arXiv 2606.26091 and SDPO (2601.20802) for SciKnowEval."""
    load = lambda name: config.resolve(  # noqa: E731
        experiment.get_config(experiment.load(ROOT / "experiments" / "science_qa" / f"{name}.py"))
    )
    sdsd, grpo = load("qwen3_8b_sdsd"), load("olmo3_7b_grpo")
    assert (sdsd.model.num_layers, sdsd.model.width, sdsd.model.qk_norm) == (36, 4096, "head")
    assert (grpo.model.num_layers, grpo.model.norm_placement, grpo.model.windows[-1]) == (32, "post", 0)
    for run in (sdsd, grpo):
        assert (run.train.prompts_per_step, run.train.group_size, run.sampling.temperature) == (32, 8, 1.0)
        assert (run.task.options.prompt_length, run.task.options.response_length) == (2048, 8192)
        assert (run.eval.num_samples, run.eval.temperature, run.eval.top_p) == (16, 0.6, 0.95)
        o = run.optimizer
        assert (o.learning_rate, o.schedule, o.warmup_steps, o.weight_decay) == (1e-5, "constant", 10, 0.01)
    step = sdsd.step.options
    assert (step.divergence, step.js_weight, step.estimator, step.top_k) == ("js", 0.5, "top_k", 100)
    assert (step.teacher, step.ema_decay) == ("ema", 0.95)
    step = grpo.step.options
    assert (step.normalise_advantages, step.clip_low, step.clip_high) == (False, 0.2, 0.28)
    assert step.kl_coefficient == 0
