import ast
from pathlib import Path

import pytest

from sdd import cli, config, experiment, overrides
from sdd import study as study_lib

FOLDER = Path(__file__).parents[1] / "experiments" / "concept_graph"
RUNS = ("warm_start", "sdsd", "sdsd_k3", "grpo", "grpo_diversity", "smoke")
ON_POLICY = ("sdsd", "sdsd_k3", "grpo", "grpo_diversity")


STUDIES = FOLDER.parent / "study"


def resolved(name: str) -> config.RunConfig:
    return config.resolve(experiment.get_config(experiment.load(FOLDER / f"{name}.py")))


@pytest.fixture
def study():
    return experiment.load(FOLDER / "study.py")


def test_every_file_is_tested():
    assert {p.stem for p in FOLDER.glob("*.py")} == {*RUNS, "study", "base"}


@pytest.mark.parametrize("name", RUNS)
def test_experiments_resolve(name):
    run = resolved(name)
    assert run.task.name == "sdd.tasks.concept_graph"
    assert config.from_dict(config.to_dict(run)) == run


@pytest.mark.parametrize("name", [*RUNS, "study"])
def test_the_docstring_opens_with_a_command_that_works(name, monkeypatch):
    first = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())).splitlines()[0]
    command, verb, file, *rest = first.split()
    assert (command, verb, file) == ("sdd", "run", f"experiments/concept_graph/{name}.py")
    assert rest[0].startswith("--workdir=runs/")
    changes, _ = overrides.split(rest)
    overrides.apply(experiment.get_config(experiment.load(FOLDER / f"{name}.py")), changes)


def test_methods_differ_in_nothing_but_the_method():
    runs = [config.to_dict(resolved(name)) for name in ON_POLICY]
    for run in runs:
        del run["step"]
    assert all(run == runs[0] for run in runs)


def test_methods_fit_the_warm_start():
    warm = resolved("warm_start")
    for name in ON_POLICY:
        assert resolved(name).model == warm.model
        assert resolved(name).task == warm.task


def test_the_recipe():
    warm, sdsd, k3 = resolved("warm_start"), resolved("sdsd"), resolved("sdsd_k3")
    assert (warm.train.num_steps, warm.train.prompts_per_step, warm.step.options.num_answers) == (1500, 32, 4)
    assert (warm.optimizer.learning_rate, warm.optimizer.schedule) == (5e-3, "cosine")
    assert (sdsd.train.num_steps, sdsd.train.prompts_per_step, sdsd.train.group_size) == (500, 16, 4)
    assert (sdsd.optimizer.learning_rate, sdsd.optimizer.warmup_steps) == (4e-4, 10)
    assert (sdsd.optimizer.schedule, sdsd.optimizer.b2, sdsd.sampling.temperature) == ("linear", 0.98, 1.0)
    assert (sdsd.step.options.ema_decay, sdsd.step.options.estimator) == (0.995, "exact")
    assert (sdsd.step.options.num_demos, k3.step.options.num_demos) == (1, 3)
    assert resolved("grpo_diversity").step.options.bonus == 0.5
    assert (sdsd.model.rope_fraction, sdsd.model.token_shift, sdsd.task.options.follow) == (0.5, True, 0.85)


def test_experiments_load_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolved("smoke").train.num_steps == 4


def test_study_resolves_to_the_experiments(study):
    runs = study_lib.resolve(study.get_config())
    assert list(runs) == ["warm_start", "sdsd_k1", "sdsd_k3", "grpo", "grpo_diversity"]
    assert runs["sdsd_k1"] == resolved("sdsd")
    assert runs["warm_start"] == resolved("warm_start")


def test_study_keys_change_what_they_say(study):
    args = [
        "--config.seed=5",
        "--config.num_steps=70",
        "--config.warm_start_steps=90",
        "--config.eval_every=35",
        "--config.final_num_prompts=48",
        "--config.methods=grpo",
        "--config.experiments.grpo.optimizer.learning_rate=2e-4",
    ]
    runs = study_lib.resolve(overrides.apply(study.get_config(), args))
    assert list(runs) == ["warm_start", "grpo"]
    assert [run.seed for run in runs.values()] == [5, 5]
    assert [run.train.num_steps for run in runs.values()] == [90, 70]
    assert [run.eval.every for run in runs.values()] == [0, 35]
    assert [run.eval.final_num_prompts for run in runs.values()] == [48, 48]
    assert runs["grpo"].optimizer.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("--config.methods=grppo", ["config.methods", "'grppo'", "valid: ", "grpo_diversity"]),
        ("--config.experiments.grpo.train.group_size=1", ["grpo: config.train.group_size=1"]),
        (
            "--config.experiments.grpo.train.group_sze=2",
            ["config.experiments.grpo.train.group_size"],
        ),
        ("--config.num_stps=2", ["config.num_stps='2'", "nearest: ", "config.num_steps"]),
    ],
)
def test_study_refuses_in_one_line(capsys, tmp_path, arg, said, monkeypatch):
    monkeypatch.setattr("os.environ", {})
    assert cli.main(["run", str(FOLDER / "study.py"), f"--workdir={tmp_path}", arg]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for text in said:
        assert text in line
    assert list(tmp_path.iterdir()) == []


def test_study_hands_the_runs_to_sdd_study(study, monkeypatch):
    calls = []
    monkeypatch.setattr("sdd.study.run", lambda *args, **kwargs: calls.append((args, kwargs)))
    study.run(study.get_config(), "out", 2)
    (((warm, methods, workdir), kwargs),) = calls
    assert warm.step.name == "sdd.steps.sft"
    assert list(methods) == ["sdsd_k1", "sdsd_k3", "grpo", "grpo_diversity"]
    assert (workdir, kwargs) == ("out", {"seeds": 2})


@pytest.mark.slow
def test_the_smoke_experiment_runs(tmp_path):
    from sdd import loop

    final = loop.run(resolved("smoke"), tmp_path / "run")
    assert set(final) == {"id", "larger", "harder"}


def test_the_study_of_methods_has_them_all_and_keeps_what_the_first_study_ran(study):
    methods = experiment.load(STUDIES / "methods.py")
    runs, first = study_lib.resolve(methods.get_config()), study_lib.resolve(study.get_config())
    assert {name: runs[name] for name in first} == first  # so a folder of the one goes on with the other
    steps = FOLDER.parents[1] / "sdd" / "steps"
    elsewhere = {"base", "sdft"}  # sdft needs demonstrations: experiments/study/external.py
    files = {path.stem for path in steps.glob("*.py") if not path.stem.startswith("_")} - elsewhere
    assert {run.step.name.removeprefix("sdd.steps.") for run in runs.values()} == files
    on_policy = [config.to_dict(run) for name, run in runs.items() if name != "warm_start"]
    for run in on_policy:
        del run["step"], run["eval"]["every"]
    assert all(run == on_policy[0] for run in on_policy)
