"""The sweep of tasks, sizes and methods: what it runs, in which order, with which settings."""

import ast
from pathlib import Path

import pytest

from sdd import config, experiment, overrides

FILE = Path(__file__).parents[1] / "experiments" / "study" / "scale.py"


@pytest.fixture(scope="module")
def study():
    return experiment.load(FILE)


def changed(study, *args):
    return overrides.apply(experiment.get_config(study), list(args))


def test_every_task_has_three_sizes_and_all_methods(study):
    cells = study.resolve(study.get_config())
    tasks, sizes = zip(*cells)
    assert sorted(set(tasks)) == ["arithmetic", "concept_graph", "countdown", "graph_colouring"]
    assert len(cells) == 12 and all(sizes.count(size) == 4 for size in ("small", "middle", "large"))
    for (task, _), runs in cells.items():
        assert list(runs) == ["warm_start", "grpo", "sdsd_k1", "grpo_diversity"]
        assert {run.task.name for run in runs.values()} == {f"sdd.tasks.{task}"}
        assert all(run.model == runs["warm_start"].model for run in runs.values())
        assert all(run.task == runs["warm_start"].task for run in runs.values())


@pytest.mark.parametrize("quick", [False, True])
def test_methods_differ_in_nothing_but_the_method(study, quick):
    for runs in study.resolve(changed(study, f"--config.quick={quick}")).values():
        dicts = [config.to_dict(run) for name, run in runs.items() if name != "warm_start"]
        for values in dicts:
            del values["step"]
            del values["eval"]["every"]
        assert all(values == dicts[0] for values in dicts)


def test_learning_rates_fall_with_the_width_for_all_alike(study):
    for runs in study.resolve(study.get_config()).values():
        for name, run in runs.items():
            rate = run.optimizer.learning_rate * run.model.width / 64
            assert rate == pytest.approx(5e-3 if name == "warm_start" else 4e-4)


def test_the_middle_concept_graph_cell_is_the_concept_graph_study(study):
    runs = study.resolve(study.get_config())["concept_graph", "middle"]
    folder = FILE.parents[1] / "concept_graph"
    for name, file in (("warm_start", "warm_start"), ("grpo", "grpo"), ("sdsd_k1", "sdsd")):
        other = config.resolve(experiment.get_config(experiment.load(folder / f"{file}.py")))
        ours = config.to_dict(runs[name])
        for key in ("model", "optimizer", "step", "sampling", "task"):
            assert ours[key] == config.to_dict(other)[key], key
        for key in ("num_steps", "prompts_per_step", "group_size"):
            assert ours["train"][key] == getattr(other.train, key)


def test_runs_come_seed_by_seed_and_start_from_their_warm_start(study, monkeypatch, tmp_path):
    calls = []
    answer = {"cells": [], "paragraph": "so it is"}
    monkeypatch.setattr("sdd.loop.run", lambda c, folder, console, data_dir: calls.append((c, folder)))
    monkeypatch.setattr("sdd.claims.scale.write", lambda folder: answer)
    monkeypatch.setattr("experiments.study.scale_figure.draw", lambda answer: b"png")
    c = changed(study, "--config.tasks=countdown", "--config.sizes=small,large", "--config.seed=3")
    study.run(c, tmp_path, 2)
    names = [str(folder.relative_to(tmp_path)) for _, folder in calls]
    methods = ("warm_start", "grpo", "sdsd_k1", "grpo_diversity")
    assert names == [
        f"countdown/{size}/seed_{seed}/{name}"
        for seed in (3, 4)
        for size in ("small", "large")
        for name in methods
    ]
    for run, folder in calls:
        assert f"seed_{run.seed}" == folder.parent.name
        from_warm = str(folder.parent / "warm_start")
        assert run.train.init_from == ("" if folder.name == "warm_start" else from_warm)
    assert (tmp_path / "scale.png").read_bytes() == b"png"


def test_the_figure_has_a_line_for_each_task(study):
    from experiments.study.scale_figure import draw

    interval = {"value": -1.0, "low": -1.5, "high": -0.5}
    cell = {"k": 32, "against_grpo": {"distinct": interval, "harder_pass": interval}}
    cells = [{**cell, "task": t, "parameters": p} for t in ("a", "b") for p in (1000, 9000)]
    assert draw({"cells": cells}).startswith(b"\x89PNG")


@pytest.mark.parametrize("key", ["tasks", "sizes", "methods"])
def test_an_unknown_name_is_refused_in_one_line(study, key):
    with pytest.raises(config.ConfigError, match=rf"^config\.{key}: there is no 'x'; valid: "):
        study.resolve(changed(study, f"--config.{key}=x"))


def test_the_docstring_opens_with_a_command_that_works():
    first = ast.get_docstring(ast.parse(FILE.read_text())).splitlines()[0]
    assert first == "sdd run experiments/study/scale.py --workdir=runs/scale"
