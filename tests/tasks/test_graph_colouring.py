"""Graph colouring: the verifier against every colouring of the prompt's graph, splits, the base policy."""

import itertools

import numpy as np
import pytest

from sdd.tasks import graph_colouring
from sdd.tasks.concept_graph_config import EOS
from sdd.tasks.graph_colouring import COLOURS

CONFIG = graph_colouring.Config(num_train=300, num_eval=60)


@pytest.fixture(scope="module")
def task():
    return graph_colouring.make(CONFIG, "", 0)


def read_prompt(task, example):
    """(nodes, edges, fixed) by their words, from the prompt alone."""
    words = task.tokenizer.decode(task.prompt(example)).split()
    assert words[0] == "<bos>" and words[-1] == "<query>"
    nodes, *rest = " ".join(words[1:-1]).split(" <sep>")
    parts = [part.split() for part in rest if part]
    fixed = {part[1]: part[2] for part in parts if part[0] == "<fix>"}
    return nodes.split(), [tuple(part) for part in parts if part[0] != "<fix>"], fixed


def is_right(question, colours):
    nodes, edges, fixed = question
    of = dict(zip(nodes, colours))
    return all(of[u] != of[v] for u, v in edges) and all(of[n] == c for n, c in fixed.items())


def blocks(nodes, colours):
    """The partition that colours make, as a set of sets."""
    return frozenset(frozenset(n for n, c in zip(nodes, colours) if c == colour) for colour in set(colours))


def encode(task, nodes, colours, end=" <eos>"):
    return task.tokenizer.encode(" ".join(f"{n} {c}" for n, c in zip(nodes, colours)) + end)


@pytest.mark.parametrize("split", ["train", "id", "harder"])
def test_the_verifier_agrees_with_enumeration(task, split):
    for example in task.source(split)[:6]:
        question = read_prompt(task, example)
        nodes = question[0]
        every = list(itertools.product(COLOURS, repeat=len(nodes)))
        right = {c for c in every if is_right(question, c)}
        assert right and (nodes, len(question[1])) == (nodes, len(set(question[1])))
        prefixes = {tuple(encode(task, nodes, c).tolist()[:n]) for c in right for n in range(12)}
        names = {}
        for colours in every:
            row = encode(task, nodes, colours)
            verdict = task.grade(example, row)
            assert verdict.correct == (colours in right) and verdict.score == verdict.correct
            reached = max(n for n in range(12) if tuple(row.tolist()[:n]) in prefixes)
            assert verdict.right_prefix == reached
            names.setdefault(blocks(nodes, colours), set()).add(task.strategies[verdict.strategy])
        # One name for one partition, and no name for two.
        assert all(len(found) == 1 for found in names.values())
        assert len(set().union(*names.values())) == len(names) == len(task.strategies) == 41
        best = encode(task, nodes, next(iter(right)))
        for wrong in (best[:-1], [*best, EOS], best[:4], [*best[2:4], *best[:2], *best[4:]], [], [EOS]):
            assert not task.grade(example, np.array(wrong, np.int32)).correct
        assert task.grade(example, best[:-3]).strategy == task.grade(example, best[1:]).strategy == -1


def test_no_question_is_in_two_splits_of_any_seed():
    found = {}
    for seed in (0, 1):
        task = graph_colouring.make(CONFIG, "", seed)
        for split in ("train", "id", "harder"):
            read = [read_prompt(task, e) for e in task.source(split)]
            keys = {(tuple(n), frozenset(edges), tuple(fixed.items())) for n, edges, fixed in read}
            assert len(keys) == len(read) == (300 if split == "train" else 60)
            assert all(other == split or not keys & those for (_, other), those in found.items())
            found[seed, split] = keys
    assert found[0, "id"] != found[1, "id"]


def favourite(nodes, edges):
    """Red where no neighbour before is red, else green, else blue; read from words."""
    of = {}
    for node in nodes:
        taken = {of[b] for a, b in edges if a == node} | {of[a] for a, b in edges if b == node and a in of}
        of[node] = next((c for c in COLOURS if c not in taken), COLOURS[0])
    return tuple(of[n] for n in nodes)


def test_the_favourite_colouring_is_wrong_in_every_harder_question(task):
    right = {}
    for split in ("id", "harder"):
        read = [read_prompt(task, e) for e in task.source(split)]
        right[split] = []
        for question in read:
            liked = favourite(*question[:2])
            # What a policy writes that colours as it likes and obeys the fixed node when it comes to it.
            obeyed = tuple(question[2].get(n, c) for n, c in zip(question[0], liked))
            right[split].append(is_right(question, liked) or is_right(question, obeyed))
        fixed = np.mean([len(q[2]) for q in read])
        assert fixed == 1 if split == "harder" else 0.3 < fixed < 0.7
    assert not any(right["harder"]) and np.mean(right["id"]) > 0.5


def test_the_base_policy_errs_as_often_as_it_should():
    config = graph_colouring.Config(num_train=300, num_eval=200, fix_probability=0.0, noise=0.1)
    task, rng = graph_colouring.make(config, "", 0), np.random.default_rng(0)
    rates, first = [], []
    for example in task.source("id"):
        ((_, plain), _) = task.supervised(example, rng, 20)
        nodes, edges, _ = read_prompt(task, example)
        later = {a for a, _ in edges}
        # Without fixed nodes an answer is right if no node slipped, unless three neighbours leave no colour.
        if max(sum(a == n for a, _ in edges) for n in nodes) <= 2:
            correct = np.mean([task.grade(example, row).correct for row in plain])
            rates.append(correct - 0.9 ** len(later))
        first += [task.tokenizer.decode(row[1:2]) for row in plain]
    assert np.mean(rates) == pytest.approx(0, abs=0.02)
    weights = np.exp(config.logits)
    share = [np.mean(np.array(first) == c) for c in COLOURS]
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.03)


def test_demonstrations_are_followed_and_answers_to_them_are_right(task):
    rng, follows = np.random.default_rng(0), []
    for example in task.source("train")[:150]:
        (plain_context, _), (context, taught) = task.supervised(example, rng, 8)
        np.testing.assert_array_equal(plain_context, task.prompt(example))
        demonstration = np.array([*context[-11:-1], EOS])
        np.testing.assert_array_equal(context, task.demonstration_prompt(example, demonstration))
        assert task.grade(example, demonstration).correct
        assert all(task.grade(example, row).correct for row in taught)
        follows += [row.tolist() == demonstration.tolist() for row in taught]
    assert 0.83 < np.mean(follows) < 0.95


def test_lengths_are_those_declared(task):
    rng, longest = np.random.default_rng(0), 0
    for split in ("train", *task.splits):
        for example in task.source(split):
            longest = max(longest, len(task.prompt(example)))
            for context, rows in task.supervised(example, rng, 1):
                assert len(context) <= task.demonstration_context_length
                assert max(map(len, rows)) <= task.response_length
    assert longest == task.context_length


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fix_probability": -0.5}, "graph_colouring.fix_probability is -0.5"),
        ({"max_edges": 20}, "graph_colouring.max_edges is 20; it must be 1 to 10"),
        ({"logits": (1.0,)}, "graph_colouring.logits"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as error:
        graph_colouring.Config(**changes)
    assert "\n" not in str(error.value)


def test_the_verifier_agrees_with_reasoning_gym(task):
    """On its own graphs, every colouring."""
    pytest.importorskip("reasoning_gym")
    import random

    from reasoning_gym.algorithmic import graph_color

    num_right = 0
    for seed in range(12):
        rng = random.Random(seed)
        puzzle = graph_color.generate_graph_coloring_puzzle(rng, 5, edge_probability=0.5, num_colors=3)
        edges = [(max(e), min(e)) for e in puzzle["edges"]]
        example = graph_colouring.question(tuple(range(5)), edges, {})
        if example is None:
            assert not any(
                graph_color.verify_graph_coloring_solution(puzzle, dict(enumerate(colours)))[0]
                for colours in itertools.product((1, 2, 3), repeat=5)
            )
            continue
        for colours in itertools.product((1, 2, 3), repeat=5):
            row = encode(task, "abcde", [COLOURS[c - 1] for c in colours])
            theirs, _ = graph_color.verify_graph_coloring_solution(puzzle, dict(enumerate(colours)))
            assert task.grade(example, row).correct == theirs
            num_right += theirs
    assert num_right > 50
