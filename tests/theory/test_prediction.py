"""Predictions against networks: made-up likelihoods with a known answer, tiny runs, the command."""

import json

import jax
import numpy as np
import optax
import pytest

from sdd import checkpoint
from sdd import config as config_lib
from sdd.build import make_task
from sdd.claims.runs import load_run
from sdd.information import Information
from sdd.losses.divergence import token_logp
from sdd.model import make as make_model
from sdd.sampling.score import unshared_response_hidden
from sdd.steps import sft
from sdd.steps.base import init_state
from sdd.tasks.base import TRAIN
from sdd.testing import tiny_mesh, tiny_model, tiny_task
from sdd.theory import command, figure, optima, prediction
from sdd.writers import write_json_atomic


def made_up(seed=0, prompts=40, size=3, lean=0.0):
    """A start's likelihoods, of answers and of answers given answers; leaning to the likelier ones."""
    rng = np.random.default_rng(seed)
    logp = rng.normal(-4, 1, (prompts, size))
    conditional = (1 + lean) * logp[:, :, None] + rng.normal(0, 1, (prompts, size, size))
    return Information(conditional, logp, np.full((prompts, size), 5))


def after(start, gain):
    """A network whose log-likelihoods gained that much, up to a constant a prompt."""
    shift = np.random.default_rng(1).normal(0, 3, (len(gain), 1))
    return start._replace(logp_BxM=start.logp_BxM + gain + shift)


def naive_gain(start, beta):
    """1 / (1 + beta) E_d i(y; d), d drawn by pi_0 among the listed."""
    weight = np.exp(start.logp_BxM) / np.exp(start.logp_BxM).sum(1, keepdims=True)
    information = start.conditional_logp_BxMxM - start.logp_BxM[:, :, None]  # [a, d]
    return np.einsum("bd,bad->ba", weight, information) / (1 + beta)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_network_at_the_sdsd_optimum_is_on_the_line(beta):
    start = made_up()
    pairs = prediction.compare([3] * 40, start, after(start, naive_gain(start, beta)), beta)
    assert len(pairs.prompt_X) == 40 * 3
    np.testing.assert_allclose(pairs.measured_X, pairs.given_X, atol=1e-9)
    fit = prediction.agreement(pairs, "given")
    np.testing.assert_allclose([*fit["correlation"], *fit["slope"], *fit["partial"]], 1)
    found = prediction.summary(pairs)
    assert (found["prompts"], found["pairs"]) == (40, 120)
    json.dumps(found, allow_nan=False)


def test_a_network_at_the_rl_optimum_does_not_move():
    start = made_up()
    pairs = prediction.compare([3] * 40, start, after(start, np.zeros((40, 3))))
    np.testing.assert_allclose(pairs.measured_X, 0, atol=1e-9)
    still = pairs._replace(measured_X=np.zeros_like(pairs.measured_X))
    assert np.isnan(prediction.agreement(still, "given")["correlation"].value)
    assert prediction.summary(still)["given"]["correlation"]["value"] is None


def test_a_network_that_only_sharpens_leaves_nothing_to_the_prediction():
    start = made_up(prompts=400, lean=1.0)
    rng = np.random.default_rng(2)
    pairs = prediction.compare([3] * 400, start, after(start, start.logp_BxM + rng.normal(0, 1, (400, 3))))
    fits = {name: prediction.agreement(pairs, name) for name in prediction.PREDICTIONS}
    assert fits["start"]["correlation"].low > 0.5 and fits["given"]["correlation"].low > 0.5
    assert fits["given"]["partial"].low < 0 < fits["given"]["partial"].high


def test_the_interval_is_that_of_resampled_prompts():
    start = made_up()
    noise = np.random.default_rng(3).normal(0, 1, (40, 3))
    pairs = prediction.compare([3] * 40, start, after(start, naive_gain(start, 0) + noise))
    got = prediction.agreement(pairs, "given")["correlation"]
    about_zero = lambda x, y: x @ y / np.sqrt(x @ x * (y @ y))  # noqa: E731
    assert got.value == pytest.approx(about_zero(pairs.given_X, pairs.measured_X))
    rng, values = np.random.default_rng(4), []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(pairs.prompt_X == b) for b in rng.integers(0, 40, 40)])
        values.append(about_zero(pairs.given_X[rows], pairs.measured_X[rows]))
    np.testing.assert_allclose([got.low, got.high], np.quantile(values, [0.025, 0.975]), atol=0.02)


def test_fewer_real_answers_are_left_out():
    start = made_up(prompts=3)
    pairs = prediction.compare([3, 2, 2], start, after(start, naive_gain(start, 0)))
    assert pairs.prompt_X.tolist() == [0, 0, 0, 1, 2]
    two = Information(start.conditional_logp_BxMxM[1:2, :2, :2], start.logp_BxM[1:2, :2], np.full((1, 2), 5))
    np.testing.assert_allclose(pairs.given_X[3], optima.differences(naive_gain(two, 0)[0])[0, 1])


def test_likelihoods_are_the_models_own():
    """Answers of a prompt with two, beside one with three, against one plain forward pass."""
    task = tiny_task()
    examples = task.source(TRAIN)[:2]
    valid = lambda e: [np.array([*c, 2], np.int32) for c in e["chains"] if c[-1] == e["goal"]]  # noqa: E731
    listed = prediction.Listed(examples, [valid(examples[0])[:2], valid(examples[1])[:3]])
    assert [len(rows) for rows in listed.answers] == [2, 3]
    mesh = tiny_mesh()
    with jax.set_mesh(mesh):
        model = tiny_model()
        params = model.init(jax.random.key(0))
        got = prediction.informed(model, params, task, mesh, listed)

        @jax.jit
        def score(*rows):
            return token_logp(model.unembed(params, unshared_response_hidden(model, params, *rows)), rows[-1])

        def logp(context, answer):
            rows = np.asarray(context)[None], np.array([len(context)], np.int32), answer[None]
            return float(score(*rows).sum())

        first, second = listed.answers[0]
        shown = task.demonstration_prompt(examples[0], second)
        np.testing.assert_allclose(got.logp_BxM[0, 1], logp(task.prompt(examples[0]), second), rtol=1e-4)
        np.testing.assert_allclose(got.conditional_logp_BxMxM[0, 0, 1], logp(shown, first), rtol=1e-4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs as training leaves them, untrained, whose rollouts are the chains of the graphs."""
    folder = tmp_path_factory.mktemp("runs")
    c = config_lib.default("sdd.tasks.concept_graph", "sdd.steps.sft")
    c.task.num_train, c.task.num_eval = 8, 8
    c.model.num_layers, c.model.width, c.model.head_dim, c.model.mlp_dim = 1, 16, 4, 16
    config = config_lib.resolve(c)
    task = make_task(config, folder / "data")
    records = []
    for index in range(len(task.source("id"))):
        example = task.source("id")[index]
        texts = [task.tokenizer.decode([*chain, 2]) for chain in example["chains"]]
        correct = [chain[-1] == example["goal"] for chain in example["chains"]]
        records.append({"prompt_id": example["prompt_id"], "completion": texts * 2, "correct": correct * 2})
    model = make_model(config.model, task.tokenizer.vocab_size)
    for key, name in enumerate(("start", "end")):
        rollouts = folder / name / "rollouts" / "step_000000"
        rollouts.mkdir(parents=True)
        (rollouts / "id.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        write_json_atomic(folder / name / "config.json", config_lib.to_dict(config))
        write_json_atomic(folder / name / "environment.json", {})
        evaluation = {"step": 0, "split": "id", "metrics": {}}
        (folder / name / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
        with jax.set_mesh(tiny_mesh()):
            state = init_state(sft.make(sft.Config()), optax.sgd(0.1), model.init(jax.random.key(key)))
            with checkpoint.open_manager(folder / name, 1) as manager:
                checkpoint.save(manager, state, {})
    return folder


def test_right_answers_are_those_of_the_rollouts(runs):
    start = load_run(runs / "start")
    _, task = prediction.load_task(start)
    listed = prediction.right_answers(start, task, "id", 100)
    for example, rows in zip(listed.examples, listed.answers, strict=True):
        wanted = {(*c, 2) for c in example["chains"] if c[-1] == example["goal"]}
        assert {tuple(row.tolist()) for row in rows} == wanted and len(rows) == len(wanted) >= 2
    assert max(len(r) for r in prediction.right_answers(start, task, "id", 100, most=2).answers) == 2


def test_the_command_writes_numbers_and_a_figure(runs, tmp_path, capsys):
    args = [str(runs / "start"), str(runs / "end"), f"--out={tmp_path / 'out'}"]
    assert command.run([*args, "--json", "--prompts=5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "theory.json").read_text())
    assert printed["runs"]["end"]["prompts"] <= 5 and printed["runs"]["end"]["measured_rms"] > 0
    assert (tmp_path / "out" / "theory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "args, said",
    [
        (["{start}", "{end}"], "required: --out"),
        (["{start}", "{end}", "--out=x", "--split=nowhere"], "split 'nowhere' is not one of"),
        (["{start}", "{end}", "--out=x", "--prompts=0"], "--prompts=0; valid: 1 or more"),
        (["{start}", "{end}", "{end}", "--out=x"], "valid: different names"),
        (["{start}", "missing", "--out=x"], "missing"),
        (["bandit", "--follow=2"], "--follow=2.0; valid: 0 to 1"),
        (["bandit", "--beta=0"], "--beta=0.0; valid: above 0"),
    ],
)
def test_bad_usage_is_one_line(runs, capsys, monkeypatch, tmp_path, args, said):
    monkeypatch.chdir(tmp_path)
    args = [arg.format(start=runs / "start", end=runs / "end") for arg in args]
    assert command.run(args) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("sdd: ")


def test_the_bandit_is_a_table(capsys):
    assert command.run(["bandit"]) == 0
    shown = capsys.readouterr().out
    assert "0.570" in shown and "RL optimum" in shown
    assert command.run(["bandit", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(abs(sum(p) - 1) < 1e-9 for p in found.values())


def test_the_figure_shows_every_run():
    start = made_up()
    pairs = prediction.compare([3] * 40, start, after(start, naive_gain(start, 0)))
    assert figure.draw({"sdsd_k1": pairs, "grpo": pairs}).startswith(b"\x89PNG")
