"""Countdown: the verifier against arithmetic on the prompt's words, splits, base policy, warm-start rows."""

import fractions
import itertools
import operator

import numpy as np
import pytest

from sdd.tasks import countdown
from sdd.tasks.concept_graph_config import EOS

CONFIG = countdown.Config(num_train=300, num_eval=60)
MEANING = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@pytest.fixture(scope="module")
def task():
    return countdown.make(CONFIG, "", 0)


def read_prompt(task, example):
    """(numbers, target) from the prompt's words alone."""
    words = task.tokenizer.decode(task.prompt(example)).split()
    assert words[0] == "<bos>" and words[-1] == "<query>"
    target, *numbers = map(int, words[1:-1])
    return numbers, target


def right_answers(task, example):
    numbers, target = read_prompt(task, example)
    return {
        tuple(task.tokenizer.encode(f"{op} {a} {b} <eos>").tolist())
        for op, (a, b) in itertools.product(MEANING, itertools.permutations(numbers, 2))
        if MEANING[op](fractions.Fraction(a), b) == target
    }


@pytest.mark.parametrize("split", ["train", "id", "harder"])
def test_the_verifier_agrees_with_arithmetic(task, split):
    symbols = range(task.tokenizer.vocab_size)
    operators = task.tokenizer.encode("+ - * /").tolist()
    for example in task.source(split)[:3]:
        right = right_answers(task, example)
        prefixes = {row[:n] for row in right for n in range(5)}
        assert right
        for row in itertools.product(operators, symbols, symbols):
            verdict = task.grade(example, np.array([*row, EOS]))
            assert verdict.correct == ((*row, EOS) in right) and verdict.score == verdict.correct
            assert task.strategies[verdict.strategy] == task.tokenizer.decode(row[:1])
            reached = max(n for n in range(5) if (*row, EOS)[:n] in prefixes)
            assert verdict.right_prefix == reached
        for row in right:
            for wrong in (row[:-1], (*row, EOS), row[:2], (*row[:3], 7), row[1:], ()):
                assert not task.grade(example, np.array(wrong, np.int32)).correct
            assert task.grade(example, np.array((*row, EOS))).right_prefix == 4
    assert task.grade(example, np.array([EOS])).strategy == -1


def test_no_question_is_in_two_splits_of_any_seed():
    found = {}
    for seed in (0, 1):
        task = countdown.make(CONFIG, "", seed)
        for split in ("train", "id", "harder"):
            questions = [tuple(map(tuple, [sorted(n), [t]])) for n, t in _read_all(task, split)]
            assert len(set(questions)) == len(questions) == (300 if split == "train" else 60)
            for (other_seed, other), those in found.items():
                assert other == split or not set(questions) & those, (other_seed, other)
            found[seed, split] = set(questions)
            assert len({e["prompt_id"] for e in task.source(split)}) == len(questions)
    assert found[0, "id"] != found[1, "id"]


def _read_all(task, split):
    return [read_prompt(task, example) for example in task.source(split)]


def test_the_favourite_reaches_the_target_in_no_harder_question(task):
    solvable = {}
    for split in ("id", "harder"):
        rows = [right_answers(task, e) for e in task.source(split)]
        names = [{task.tokenizer.decode(row[:1]) for row in right} for right in rows]
        solvable[split] = {op: np.mean([op in found for found in names]) for op in MEANING}
        assert all(names)
    assert solvable["harder"]["+"] == 0 and min(solvable["id"].values()) > 0.7
    assert min(solvable["harder"][op] for op in "-*/") > 0.5


def test_the_base_policy_is_right_about_as_often_with_each_operator():
    config = countdown.Config(num_train=300, num_eval=300, noise=0.2)
    task, rng = countdown.make(config, "", 0), np.random.default_rng(0)
    strategies, right = [], {op: [] for op in MEANING}
    for example in task.source("id"):
        ((_, plain), _) = task.supervised(example, rng, 40)
        solvable = {task.tokenizer.decode(row[:1]) for row in right_answers(task, example)}
        for row in plain:
            verdict, op = task.grade(example, row), task.tokenizer.decode(row[:1])
            strategies.append(verdict.strategy)
            if op in solvable:
                right[op].append(verdict.correct)
            else:  # taken as often all the same, and never right
                assert not verdict.correct
    weights = np.exp(config.logits)
    share = np.bincount(strategies) / len(strategies)
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.02)
    # No number replaced: 0.8 squared; a replaced one is seldom right by chance.
    for op in MEANING:
        assert 0.62 < np.mean(right[op]) < 0.71


def test_demonstrations_are_followed_and_answers_to_them_are_right(task):
    rng, follows, shown = np.random.default_rng(0), [], []
    for example in task.source("train")[:200]:
        (plain_context, _), (context, taught) = task.supervised(example, rng, 8)
        np.testing.assert_array_equal(plain_context, task.prompt(example))
        demonstration = np.array([*context[-4:-1], EOS])
        np.testing.assert_array_equal(context, task.demonstration_prompt(example, demonstration))
        assert task.grade(example, demonstration).correct
        assert all(task.grade(example, row).correct for row in taught)
        follows += [row.tolist() == demonstration.tolist() for row in taught]
        shown.append(task.grade(example, demonstration).strategy)
    assert 0.85 < np.mean(follows) < 0.95  # 0.85, and by chance where it is not followed
    assert np.bincount(shown).min() > 30  # operators alike, not by the base policy's liking
    empty = task.demonstration_prompt(example, np.array([EOS]))
    np.testing.assert_array_equal(empty, task.prompt(example))
    with pytest.raises(ValueError, match="response_length=5"):
        task.demonstration_prompt(example, np.full(6, 12))


def test_lengths_are_those_declared(task):
    rng = np.random.default_rng(0)
    for split in ("train", *task.splits):
        for example in task.source(split)[:50]:
            for context, rows in task.supervised(example, rng, 4):
                assert len(context) <= task.demonstration_context_length
                assert max(map(len, rows)) <= task.response_length
            assert len(task.prompt(example)) == task.context_length


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"noise": 1.5}, "countdown.noise is 1.5; it must be 0.0 to 1.0"),
        ({"targets": (20,)}, "countdown.targets"),
        ({"logits": (1.0,)}, "countdown.logits"),
        ({"num_numbers": 4}, "countdown.num_numbers is 4"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as error:
        countdown.Config(**changes)
    assert "\n" not in str(error.value)


def test_an_unknown_split_and_too_many_questions_are_refused(task):
    with pytest.raises(ValueError, match="did you mean 'harder'"):
        task.source("hard")
    few = countdown.Config(num_train=10**6, targets=(6,), largest=12, num_numbers=12)
    with pytest.raises(ValueError, match=r"countdown: found only .* distinct questions of the 1000000"):
        countdown.make(few, "", 0).source("train")


def test_the_verifier_agrees_with_reasoning_gym(task):
    """On its own questions: two numbers, a target that some operator reaches."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    numbers = {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": CONFIG.largest}
    data = reasoning_gym.create_dataset(
        "countdown", **numbers, min_target=2, max_target=CONFIG.largest, size=60, seed=1
    )
    verdicts = set()
    for i in range(60):
        entry = data[i]
        a, b = entry["metadata"]["numbers"]
        if a == b:  # numbers of a question here are different ones
            continue
        example = {"prompt_id": "", "numbers": (a, b), "target": entry["metadata"]["target"]}
        for op, (x, y) in itertools.product(MEANING, ((a, b), (b, a))):
            ours = task.grade(example, task.tokenizer.encode(f"{op} {x} {y} <eos>")).correct
            assert ours == (data.score_answer(f"{x} {op} {y}", entry) == 1.0), (op, x, y, entry)
            verdicts.add((op, ours))
    assert len(verdicts) == 8  # each operator right and wrong
