"""Demonstrations of files, against the enumerated divergence and against opsd with the same answers."""

import dataclasses
import gzip
import json
from collections import Counter

import jax
import numpy as np
import pytest

from sdd import mesh as mesh_lib
from sdd.config import RunConfig, Section, TrainConfig
from sdd.data import batches, first_met
from sdd.steps import opsd, sdft
from sdd.steps.base import LossBatch
from sdd.tasks.base import TRAIN
from sdd.teacher import written
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task
from sdd.theory import tabular
from sdd.typed import ConfigError

POLICY = np.array([0.05, 0.15, 0.6, 0.2])
TAUGHT = np.array(
    [[0.6, 0.2, 0.1, 0.1], [0.3, 0.45, 0.15, 0.1], [0.2, 0.1, 0.65, 0.05], [0.35, 0.2, 0.05, 0.4]]
)
CORRECT = np.array([True, True, False, True])


@pytest.fixture(autouse=True)
def one_device():
    with jax.set_mesh(tiny_mesh()):
        yield


@pytest.fixture
def lines(tmp_path):
    """``(records, name) -> path`` of a file that holds them."""

    def write(records, name="demos.jsonl"):
        path = tmp_path / name
        text = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return str(path)

    return write


class Numbers:
    """Answers as the text of their number."""

    pad_id, stop_ids, vocab_size = 0, (), 4
    encode = staticmethod(lambda text: np.array([int(word) for word in text.split()], np.int32))
    decode = staticmethod(lambda ids: " ".join(str(int(i)) for i in ids))


def table():
    task = tabular.task(CORRECT, np.zeros(4, int))
    shown = [(np.array([y], np.int32), [row]) for y, row in enumerate(TAUGHT)]
    model, params = tabular.tables(task, 4, [POLICY], shown)
    return task._replace(tokenizer=Numbers()), model, params


def kl(p, q):
    return float(np.sum(p * np.log(p / q)))


@pytest.mark.parametrize("num_demos", [1, 2])
def test_the_loss_is_the_divergence_to_readers_of_the_files_demonstrations(lines, num_demos):
    """Three prompts, with two right demonstrations, one and none; what is wrong in the file never shows."""
    task, model, params = table()
    example = task.source(TRAIN)[0]
    examples = [{**example, "prompt_id": name} for name in "abc"]
    path = lines(
        [
            {"prompt_id": "a", "completion": ["2", "0", "1"], "correct": [False, True, True]},
            {"prompt_id": "b", "completion": "3"},
            {"prompt_id": "c", "completion": ["2"], "correct": [False]},
        ]
    )
    step = sdft.make(sdft.Config(demonstrations=path, num_demos=num_demos, teacher="frozen"))
    answers = [[np.array([y], np.int32) for y in group] for group in ([0, 2, 1], [2, 2, 0], [1, 3, 3])]
    graded = graded_batch(task, answers, examples)
    shown = Counter()
    for seed in range(40):
        chosen = step.choose(task, graded, generators(seed, 3))
        batch = LossBatch(graded.rollouts, chosen.targets, chosen.contexts)
        want = []
        for row in range(6):
            has = chosen.targets.weight_NxK[row] > 0
            demos = [int(chosen.contexts.tokens_NxKxD[row, k][-2]) for k in np.flatnonzero(has)]
            assert set(demos) <= ({0, 1} if row < 3 else {3}) and len(set(demos)) == len(demos)
            assert len(demos) == min(num_demos, 2 if row < 3 else 1)
            shown.update(demos if row < 3 else ())
            want.append(np.mean([kl(POLICY, TAUGHT[demo]) for demo in demos]))
        np.testing.assert_array_equal(chosen.targets.weight_NxK[6:], 0)
        assert chosen.metrics["demo_rows"] == (6, 9)
    loss, _ = step.loss(model, params, step.begin(params), batch)
    np.testing.assert_allclose(float(loss.value), np.mean(want), rtol=1e-5)
    drawn = sum(shown.values())
    assert abs(shown[0] - drawn / 2) < 4 * np.sqrt(drawn / 4)


def test_a_file_of_the_tasks_own_answers_is_opsd(lines):
    """One right answer a prompt, so nothing is left to chance; on a decoder, in loss and gradient."""
    task, model = tiny_task(), tiny_model(num_layers=1)
    examples, rng = task.source(TRAIN)[:4], np.random.default_rng(0)
    graded = graded_batch(task, [task.supervised(e, rng, 3)[0][1] for e in examples], examples)
    answers = [opsd.written(task, e, r, 30, 1)[0] for e, r in zip(examples, generators(5, 4), strict=True)]
    path = lines(
        [
            {"prompt_id": e["prompt_id"], "completion": task.tokenizer.decode(answer)}
            for e, answer in zip(examples, answers, strict=True)
        ],
        "demos.jsonl.gz",
    )
    options = {"teacher": "live", "divergence": "js"}
    steps = (
        opsd.make(opsd.Config(**options, tries=30)),
        sdft.make(sdft.Config(**options, demonstrations=path)),
    )
    params = model.init(jax.random.key(0))
    found = []
    for step in steps:
        chosen = step.choose(task, graded, generators(5, 4))
        batch = LossBatch(graded.rollouts, chosen.targets, chosen.contexts)
        value = lambda p, step=step, batch=batch: step.loss(model, p, step.begin(p), batch)[0].value  # noqa: E731
        found.append(jax.jit(jax.value_and_grad(value))(params))
    (a, da), (b, db) = found
    assert float(a) == pytest.approx(float(b), rel=1e-6) and float(a) > 1e-3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), da, db)


def test_the_teacher_is_an_average_that_moves_by_a_hundredth():
    params = table()[2]
    step = sdft.make(sdft.Config(demonstrations="none.jsonl"))
    teacher = step.after(step.begin(params), jax.tree.map(lambda x: x + 1, params))
    np.testing.assert_allclose(teacher.params["logits"], params["logits"] + 0.01, atol=1e-6)


def test_rows_heads_and_vocabulary_may_be_split(lines):
    """Traced only: with Explicit axes a wrong split is an error of the trace."""
    task = tiny_task()
    examples, rng = task.source(TRAIN)[:8], np.random.default_rng(0)
    graded = graded_batch(task, [task.supervised(e, rng, 4)[0][1] for e in examples], examples)
    path = lines(records_of(task, 8))
    step = sdft.make(sdft.Config(demonstrations=path, num_demos=2))
    chosen = step.choose(task, graded, generators(0, 8))
    mesh = tiny_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        batch = mesh_lib.put_rows(mesh, LossBatch(graded.rollouts, chosen.targets, chosen.contexts))
        model = tiny_model(vocab_size=80)
        params = jax.eval_shape(model.init, jax.random.key(0))

        def value(params):
            loss, metrics = step.loss(model, params, step.begin(params), batch)
            return loss.total, (loss.weight, metrics)

        grads, _ = jax.eval_shape(jax.grad(value, has_aux=True), params)
        assert jax.tree.structure(grads) == jax.tree.structure(params)


# What is refused before the first step


def records_of(task, count, skip=0, **changes):
    rng = np.random.default_rng(0)
    return [
        {
            "prompt_id": e["prompt_id"],
            "prompt": task.tokenizer.decode(task.prompt(e)),
            "completion": [task.tokenizer.decode(a) for a in opsd.written(task, e, rng, 30, 2)],
        }
        | changes
        for e in (task.source(TRAIN)[i] for i in range(skip, count))
    ]


def ready(task, path, **changes):
    options = sdft.Config(**{"demonstrations": path} | changes)
    train = TrainConfig(num_steps=4, prompts_per_step=16)
    sdft.make(options).ready(task, RunConfig(Section("task", None), Section("step", options), train=train))


def test_files_that_fit_are_ready(lines, tmp_path):
    task = tiny_task()
    lines(records_of(task, 32), "a.jsonl"), lines(records_of(task, 64, skip=32), "b.jsonl")
    ready(task, str(tmp_path / "*.jsonl"), coverage=1.0)
    ready(task, str(tmp_path / "b.jsonl"), coverage=0.5)


@pytest.mark.parametrize("count, coverage, says", [(10, 0.5, "10 of the 64"), (0, 0.0, "0 of the 64")])
def test_too_few_prompts_are_refused_with_their_number(lines, count, coverage, says):
    task = tiny_task()
    path = lines([*records_of(task, count), {"prompt_id": "elsewhere", "completion": "x"}])
    with pytest.raises(ConfigError, match=rf"demonstrations for {says} prompts that training meets; [^\n]+$"):
        ready(task, path, coverage=coverage)


def test_prompts_of_another_seed_are_refused(lines):
    task, other = tiny_task(), tiny_task(num_concepts=7)
    with pytest.raises(ConfigError, match=r"^config\.step\.demonstrations=[^\n]+ is another prompt [^\n]+$"):
        ready(task, lines(records_of(other, 64)))


def test_words_that_the_task_does_not_know_are_refused(lines):
    task = tiny_task()
    with pytest.raises(ConfigError, match=r"cannot be read \(unknown word 'Paris'[^\n]+$"):
        ready(task, lines(records_of(task, 64, completion="Paris")))


@pytest.mark.parametrize(
    "line, says",
    [
        ("{", "demos.jsonl:2: not a JSON object"),
        ('["a"]', "demos.jsonl:2: not a JSON object"),
        ('{"prompt_id": 3, "completion": "a"}', "demos.jsonl:2: prompt_id is 3"),
        ('{"prompt_id": "a", "completion": [1]}', r"demos.jsonl:2: completion is \[1\]"),
        ('{"prompt_id": "a", "completion": ["a"], "correct": [true, false]}', "demos.jsonl:2: 2 entries"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = tmp_path / "demos.jsonl"
    path.write_text('{"prompt_id": "a", "completion": "a"}\n' + line)
    with pytest.raises(ConfigError, match=rf"^KEY: [^\n]*{says}[^\n]*$"):
        written.read(str(path), "KEY")


def test_a_file_that_is_not_there_is_said_with_its_key():
    with pytest.raises(
        ConfigError, match=r"^config\.step\.demonstrations='no\.jsonl': no such file; [^\n]+$"
    ):
        ready(tiny_task(), "no.jsonl")


def test_a_long_demonstration_is_cut_to_a_response():
    task = tiny_task()
    assert len(written.tokens(task, "place0 " * 500)) == task.response_length


def test_options_are_refused_in_one_line():
    options = sdft.Config(demonstrations="a.jsonl")
    run = RunConfig(Section("task", None), Section("step", options), train=TrainConfig(group_size=1))
    dataclasses.replace(options, num_demos=3).check(run)  # a file may hold more than a group
    for changes in ({"num_demos": 0}, {"coverage": 1.5}, {"demonstrations": ""}, {"ema_decay": 2.0}):
        with pytest.raises(ConfigError, match=rf"^config\.step\.{next(iter(changes))}=[^\n]+$"):
            dataclasses.replace(options, **changes).check(run)


@pytest.mark.parametrize("length, num_batches", [(50, 4), (50, 20), (7, 3)])
def test_the_first_met_are_those_that_batches_yield(length, num_batches):
    read = batches([f"e{i}" for i in range(length)], batch_size=8, seed=3)
    met = dict.fromkeys(e for _ in range(num_batches) for e in next(read))
    assert [f"e{i}" for i in first_met(length, batch_size=8, num_batches=num_batches, seed=3)] == list(met)
