"""Arithmetic in several ways: the verifier against what each method's steps mean, splits, the base policy."""

import itertools

import numpy as np
import pytest

from sdd.tasks import arithmetic
from sdd.tasks.concept_graph_config import EOS

CONFIG = arithmetic.Config(num_train=400, num_eval=80)


@pytest.fixture(scope="module")
def task():
    return arithmetic.make(CONFIG, "", 0)


def read_prompt(task, example):
    """(a, b, forbidden methods) from the prompt's words alone."""
    words = task.tokenizer.decode(task.prompt(example)).split()
    assert words[0] == "<bos>" and words[3] == "+" and words[-1] == "<query>"
    bans = words[6:-1]
    assert bans[::2] == ["<not>"] * (len(bans) // 2)
    return int(words[1] + words[2]), int(words[4] + words[5]), set(bans[1::2])


def means_what_it_says(method, shown, a, b):
    """Whether digits are the steps of a method, by the equations that the steps stand for."""
    if len(shown) != (2 if method == "step" else 3):
        return False
    if method == "written":
        carry, ones, tens = shown
        return 10 * carry + ones == a % 10 + b % 10 and tens == a // 10 + b // 10 + carry
    if method == "split":
        tens, carry, ones = shown
        return 10 * tens == (a - a % 10) + (b - b % 10) and 10 * carry + ones == a % 10 + b % 10
    if method == "step":
        return 10 * shown[0] + shown[1] == a + (b - b % 10)
    rounded = b + shown[2]
    return rounded % 10 == 0 and 0 < shown[2] < 10 and 10 * shown[0] + shown[1] == a + rounded


def test_the_verifier_agrees_with_the_meaning_of_the_steps(task):
    for example in [task.source(split)[i] for split in ("train", "harder") for i in range(4)]:
        a, b, forbidden = read_prompt(task, example)
        total, found = f"{a + b:02d}", 0
        for method in arithmetic.METHODS:
            for shown in itertools.product(range(10), repeat=2 if method == "step" else 3):
                row = f"{method} {' '.join(map(str, shown))} = {total[0]} {total[1]} <eos>"
                verdict = task.grade(example, task.tokenizer.encode(row))
                right = method not in forbidden and means_what_it_says(method, shown, a, b)
                assert verdict.correct == right and verdict.score == right
                assert task.strategies[verdict.strategy] == method
                found += right
        assert found == 4 - len(forbidden)


def test_other_answers_are_wrong_and_the_right_prefix_is_what_may_still_become_right(task):
    for example in task.source("id")[:20]:
        a, b, forbidden = read_prompt(task, example)
        context_rows = task.supervised(example, np.random.default_rng(0), 12)[1][1]
        rights = {tuple(row.tolist()) for row in context_rows}
        for row in rights:
            assert task.grade(example, np.array(row)) == (True, 1.0, row[0] - 6, len(row))
            for i in range(len(row)):
                for token in {3, row[i] + 1, row[i] - 1} - {row[i]}:
                    wrong = [*row[:i], token, *row[i + 1 :]]
                    verdict = task.grade(example, np.array(wrong))
                    assert not verdict.correct
                    if i:
                        assert verdict.right_prefix == i
                assert not task.grade(example, np.array(row[:i], np.int32)).correct
            assert not task.grade(example, np.array([*row, EOS])).correct
        for method in forbidden:
            assert task.grade(example, task.tokenizer.encode(method)).right_prefix == 0
        assert a + b < 100


def test_no_sum_is_in_two_splits_of_any_seed():
    found = {}
    for seed in (0, 1):
        task = arithmetic.make(CONFIG, "", seed)
        for split in ("train", "id", "harder"):
            read = [read_prompt(task, e) for e in task.source(split)]
            assert len({(a, b, frozenset(bans)) for a, b, bans in read}) == len(read)
            sums = {(a, b) for a, b, _ in read}
            assert all(other == split or not sums & those for (_, other), those in found.items())
            found[seed, split] = sums


def test_harder_forbids_the_favourite(task):
    bans = {s: [read_prompt(task, e)[2] for e in task.source(s)] for s in ("id", "harder")}
    assert all("written" in ban for ban in bans["harder"])
    share = np.mean([[m in ban for m in arithmetic.METHODS] for ban in bans["id"]], axis=0)
    np.testing.assert_allclose(share, 0.15, atol=0.1)
    assert max(map(len, bans["harder"])) < 4


def test_the_base_policy_is_right_as_often_with_each_method():
    config = arithmetic.Config(num_train=300, num_eval=300)
    task, rng = arithmetic.make(config, "", 0), np.random.default_rng(0)
    methods, right = [], {m: [] for m in arithmetic.METHODS}
    for example in task.source("id"):
        ((_, plain), _) = task.supervised(example, rng, 30)
        forbidden = read_prompt(task, example)[2]
        for row in plain:
            verdict = task.grade(example, row)
            methods.append(verdict.strategy)
            if task.strategies[verdict.strategy] not in forbidden:
                right[task.strategies[verdict.strategy]].append(verdict.correct)
    weights = np.exp(config.logits)
    np.testing.assert_allclose(np.bincount(methods) / len(methods), weights / weights.sum(), atol=0.02)
    for method in arithmetic.METHODS:
        assert np.mean(right[method]) == pytest.approx(0.7, abs=0.04)


def test_demonstrations_are_followed_and_lengths_are_those_declared(task):
    rng, follows = np.random.default_rng(0), []
    for split in ("train", *task.splits):
        for example in task.source(split)[:80]:
            (plain_context, plain), (context, taught) = task.supervised(example, rng, 8)
            np.testing.assert_array_equal(plain_context, task.prompt(example))
            at = context.tolist().index(5) + 1
            demonstration = np.array([*context[at:-1], EOS])
            np.testing.assert_array_equal(context, task.demonstration_prompt(example, demonstration))
            assert all(task.grade(example, row).correct for row in [demonstration, *taught])
            follows += [row.tolist() == demonstration.tolist() for row in taught]
            assert len(context) <= task.demonstration_context_length
            assert len(plain_context) <= task.context_length
            assert max(map(len, [*plain, *taught])) <= task.response_length
    assert 0.85 < np.mean(follows) < 0.97


def test_settings_out_of_range_are_refused_in_one_line():
    for changes, said in (
        ({"noise": -1.0}, "arithmetic.noise is -1.0"),
        ({"logits": ()}, "arithmetic.logits"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            arithmetic.Config(**changes)
        assert "\n" not in str(error.value)
