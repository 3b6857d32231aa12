"""Concept graphs: the verifier against enumeration, splits, prompts, warm-start rows."""

import itertools
import math

import numpy as np
import pytest

from sdd.tasks.concept_graph import Config, decode, make
from sdd.tasks.concept_graph_config import EOS, SPLITS
from sdd.tasks.concept_graph_generate import generate

ALL = ("train", *SPLITS)
SMALL = Config(num_train=800, num_eval=512)
# So few graphs exist that splits drawn without care would overlap for certain.
TINY = Config(
    num_train=80, num_eval=12, num_concepts=2, entities_per_concept=2, num_places=3, num_branches=2,
    max_interior=2, larger_min_interior=1, larger_max_interior=2, spare_response_tokens=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def graphs():
    return {split: [decode(r) for r in generate(SMALL, 0, split)] for split in ALL}


@pytest.fixture(scope="module")
def task():
    return make(SMALL, "unused", 0)


def read_prompt(task, tokens):
    """Reads (edges, start, goal) back from a prompt's words: independent of the example's fields."""
    words = task.tokenizer.decode(tokens).split()
    assert words[0] == "<bos>" and words[-3] == "<query>"
    triples = [words[i : i + 3] for i in range(1, len(words) - 3, 3)]
    assert all(end == "<sep>" for _, _, end in triples)
    return [(a, b) for a, b, _ in triples], words[-2], words[-1]


def right_answers(task, example):
    """All right answers, found by walking the edges of the prompt."""
    edges, start, goal = read_prompt(task, task.prompt(example))
    answers, frontier = set(), [[start]]
    while frontier:
        path = frontier.pop()
        if path[-1] == goal:
            answers.add(tuple(task.tokenizer.encode(" ".join([*path[1:], "<eos>"])).tolist()))
        frontier += [[*path, b] for a, b in edges if a == path[-1] and b not in path]
    return answers


def check(task, example, answers, response):
    grade = task.grade(example, np.array(response, dtype=np.int32))
    assert grade.correct == (tuple(response) in answers)
    assert grade.score == float(grade.correct)
    reachable = [m for m in range(len(response) + 1) if any(a[:m] == tuple(response[:m]) for a in answers)]
    assert grade.right_prefix == max(reachable)
    return grade


def test_verifier_agrees_with_enumeration_of_every_short_answer():
    task = make(TINY, "unused", 0)
    seen = set()
    for record in itertools.islice(generate(TINY, 0, "train"), 6):
        example = decode(record)
        answers = right_answers(task, example)
        # The symbols that occur, EOS and an outsider stand for all tokens.
        symbols = [*sorted(example["nodes"]), example["start"], EOS, 0]
        for length in range(5):
            for response in itertools.product(symbols, repeat=length):
                seen.add(check(task, example, answers, response).correct)
    assert seen == {True, False}


def test_verifier_agrees_with_enumeration_on_mutated_answers(task, graphs):
    rng = np.random.default_rng(0)
    num_right = 0
    for split in ALL:
        for example in graphs[split][:60]:
            answers = right_answers(task, example)
            assert answers
            for response, _ in itertools.product([*answers, *map(list, example["chains"])], range(4)):
                response = list(response)
                if rng.random() < 0.7:
                    response[rng.integers(len(response))] = int(rng.integers(task.tokenizer.vocab_size))
                response = response[: rng.integers(len(response) + 1)] if rng.random() < 0.3 else response
                response += [int(EOS)] * int(rng.integers(2))
                num_right += check(task, example, answers, response).correct
            assert all(check(task, example, answers, list(a)).right_prefix == len(a) for a in answers)
    assert num_right > 100


def test_strategy_is_the_concept_of_the_path(task, graphs):
    word = task.tokenizer.decode
    for example in graphs["id"][:50]:
        for chain in example["chains"]:
            grade = task.grade(example, np.array([*chain, EOS]))
            assert word(chain[:1]).startswith(task.strategies[grade.strategy])
            # A wrong answer that begins in the graph has a strategy too.
            assert task.grade(example, np.array(chain[:1])).strategy == grade.strategy
        outside = set(range(task.tokenizer.vocab_size)) - {
            n for chain in example["chains"] for n in chain[:-1]
        }
        for token in outside:  # places, special tokens, entities of no chain
            assert task.grade(example, np.array([token, EOS])).strategy == -1
        assert task.grade(example, np.array([], dtype=np.int32)) == (False, 0.0, -1, 0)


def canonical(task, example):
    edges, start, goal = read_prompt(task, task.prompt(example))
    assert len(set(edges)) == len(edges)
    return start, goal, frozenset(edges)


@pytest.mark.parametrize("config", [SMALL, TINY])
def test_no_graph_occurs_twice_in_any_split_or_seed(config):
    task = make(config, "unused", 0)
    forms = {
        (seed, split): [canonical(task, decode(r)) for r in generate(config, seed, split)]
        for seed in (0, 1)
        for split in ALL
    }
    for (_, split), form in forms.items():
        assert len(form) == (config.num_train if split == "train" else config.num_eval)
        assert len(set(form)) == len(form)
    for (seed, split), (other_seed, other) in itertools.combinations(forms, 2):
        if split != other:
            assert not set(forms[seed, split]) & set(forms[other_seed, other])


def test_asking_for_more_graphs_than_exist_is_refused():
    config = Config(**{**vars(TINY), "num_train": 5000})
    with pytest.raises(ValueError, match="of the 5000 asked for in split 'train'") as error:
        list(generate(config, 0, "train"))
    assert "\n" not in str(error.value)


def test_generation_is_a_function_of_config_and_seed():
    def prompts(seed, split="id"):
        return [r["edges"].tolist() for r in itertools.islice(generate(SMALL, seed, split), 50)]

    assert prompts(3) == prompts(3)
    assert prompts(3) != prompts(4)


def chain_facts(task, example):
    """Per chain: name of its concept, interior nodes, whether it is broken; from the prompt alone."""
    edges, start, goal = read_prompt(task, task.prompt(example))
    facts = []
    for first in [b for a, b in edges if a == start]:
        path = [first]
        while not path[-1].startswith("place"):
            (following,) = [b for a, b in edges if a == path[-1]]
            path.append(following)
        assert path[-1] != start
        concepts = {node.rstrip("0123456789") for node in path[:-1]}
        assert len(concepts) == 1
        assert len(set(path)) == len(path)
        facts.append((concepts.pop(), len(path) - 1, path[-1] != goal))
    assert len({concept for concept, _, _ in facts}) == len(facts) == task_branches(edges, start)
    assert not all(broken for _, _, broken in facts)
    return facts


def task_branches(edges, start):
    return sum(a == start for a, _ in edges)


def prior(config, concept, length):
    if config.bias == "length":
        return -config.length_bias * length
    logits = [*config.concept_logits, *[0.0] * 8]
    return logits[config.strategies.index(concept)]


@pytest.mark.parametrize("bias", ["concept", "length"])
def test_split_properties(bias):
    config = Config(num_train=800, num_eval=512, bias=bias)
    task = make(config, "unused", 0)
    for split in ALL:
        rows = [chain_facts(task, decode(r)) for r in generate(config, 0, split)]
        assert all(len(row) == 5 for row in rows)
        lengths = {length for row in rows for _, length, _ in row}
        assert lengths == ({3, 4} if split == "larger" else {1, 2, 3})
        if split != "harder":
            assert np.mean([b for row in rows for _, _, b in row]) == pytest.approx(0.15, abs=0.025)
            continue
        others = []
        for row in rows:
            best = max(prior(config, c, n) for c, n, _ in row)
            favourites = [b for c, n, b in row if prior(config, c, n) == best]
            assert any(favourites)
            if len(favourites) == 1:
                others += [b for c, n, b in row if prior(config, c, n) < best]
        # 0.3, given that not all four are broken
        assert np.mean(others) == pytest.approx((0.3 - 0.3**4) / (1 - 0.3**4), abs=0.035)


def test_strategies_places_and_edge_order_are_spread_evenly(task, graphs):
    facts = [chain_facts(task, e) for e in graphs["train"]]
    counts = np.bincount([task.strategies.index(c) for row in facts for c, _, _ in row], minlength=8)
    assert np.abs(counts / counts.sum() - 1 / 8).max() < 0.02
    assert len({e["start"] for e in graphs["train"]}) == len({e["goal"] for e in graphs["train"]}) == 8
    # The chain of the first listed edge from start tells nothing: no concept comes first more often.
    first = [read_prompt(task, task.prompt(e)) for e in graphs["train"]]
    heads = [next(b for a, b in edges if a == start).rstrip("0123456789") for edges, start, _ in first]
    head_counts = np.bincount([task.strategies.index(h) for h in heads], minlength=8)
    assert np.abs(head_counts / head_counts.sum() - 1 / 8).max() < 0.05


def test_demonstration_prompt(task, graphs):
    for example in graphs["larger"][:20]:
        plain = task.prompt(example)
        for empty in ([], [EOS], [EOS, 20]):
            np.testing.assert_array_equal(
                task.demonstration_prompt(example, np.array(empty, np.int32)), plain
            )
        shown = task.demonstration_prompt(example, np.array([30, 31, 9, EOS]))
        assert shown.dtype == plain.dtype == np.int32
        words = task.tokenizer.decode(shown).split()
        question = task.tokenizer.decode(plain[-3:]).split()
        assert words[-3:] == question and question[0] == "<query>"
        assert words[-7:-3] == ["<demo>", *task.tokenizer.decode([30, 31, 9]).split()]
        np.testing.assert_array_equal(shown[:-7], plain[:-3])
        longest = np.full(task.response_length, 20)
        assert len(task.demonstration_prompt(example, longest)) == len(plain) + 1 + task.response_length
        with pytest.raises(ValueError, match="response_length=8"):
            task.demonstration_prompt(example, np.full(task.response_length + 1, 20))


@pytest.mark.parametrize("config", [SMALL, TINY])
def test_lengths_never_exceed_the_declared_ones(config):
    task = make(config, "unused", 0)
    rng = np.random.default_rng(0)
    longest = 0
    for split in ALL:
        for record in generate(config, 0, split):
            example = decode(record)
            longest = max(longest, len(task.prompt(example)))
            for context, responses in task.supervised(example, rng, 2):
                assert len(context) <= task.demonstration_context_length
                assert all(len(response) <= task.response_length for response in responses)
    assert longest == task.context_length  # and the declaration is not idle


def test_the_default_vocabulary_is_the_one_of_the_reproduction():
    task = make(Config(), "unused", 0)
    assert task.tokenizer.vocab_size == 78
    assert len(task.strategies) == 8
    assert task.tokenizer.words[:6] == ("<pad>", "<bos>", "<eos>", "<sep>", "<query>", "<demo>")
    assert task.tokenizer.decode([task.tokenizer.pad_id, *task.tokenizer.stop_ids]) == "<pad> <eos>"


@pytest.mark.parametrize("bias", ["concept", "length"])
def test_supervised_rows_follow_the_base_policy(bias):
    config = Config(num_train=300, bias=bias)
    task = make(config, "unused", 0)
    rng = np.random.default_rng(1)
    num = 24
    picked, expected = np.zeros(8), np.zeros(8)
    strayed, strayed_expected = np.zeros(8), np.zeros(8)
    wrong_nodes, followed, follow_expected, uniform_z, ends_wrong = [], [], [], [], []
    for record in generate(config, 0, "train"):
        example = decode(record)
        facts = {c: (n, b) for c, n, b in chain_facts(task, example)}
        weight = {c: math.exp(prior(config, c, n)) for c, (n, _) in facts.items()}
        total = sum(weight.values())
        (plain, answers), (_, taught) = task.supervised(example, rng, num)
        assert len(answers) == len(taught) == num
        # A demonstration prompt has one demonstration for all its answers: many prompts, one answer each.
        demonstrated = [task.supervised(example, rng, 1)[1] for _ in range(num)]
        for c, w in weight.items():
            expected[task.strategies.index(c)] += num * w / total
        by_concept = {
            task.strategies[task.grade(example, np.array(ch)).strategy]: ch for ch in example["chains"]
        }
        np.testing.assert_array_equal(plain, task.prompt(example))
        for response in answers:
            words = task.tokenizer.decode(response).split()
            concept = words[0].rstrip("0123456789")
            picked[task.strategies.index(concept)] += 1
            chain = by_concept[concept]
            assert words[-1] == "<eos>" and all(w.startswith(concept) for w in words[:-2])
            assert response[-2] == chain[-1] and len(response) == len(chain) + 1
            wrong_nodes += [a != b for a, b in zip(response[:-2].tolist(), chain[:-1], strict=True)]
            ends_wrong.append((facts[concept][1], sum(weight[c] for c in weight if facts[c][1]) / total))
        valid = [c for c in weight if not facts[c][1]]
        valid_total = sum(weight[c] for c in valid)
        counts = dict.fromkeys(valid, 0)
        for context, (response,) in demonstrated:
            grade = task.grade(example, response)
            assert grade.correct
            demonstration = context[len(task.prompt(example)) - 2 : -3]  # after BOS, edges and DEMO
            np.testing.assert_array_equal(context, task.demonstration_prompt(example, demonstration))
            shown = task.grade(example, np.array([*demonstration, EOS]))
            assert shown.correct
            concept = task.strategies[shown.strategy]
            counts[concept] += 1
            followed.append(grade.strategy == shown.strategy)
            follow_expected.append(0.85 + 0.15 * weight[concept] / valid_total)
            strayed[grade.strategy] += not followed[-1]
            for c in set(valid) - {concept}:
                strayed_expected[task.strategies.index(c)] += 0.15 * weight[c] / valid_total
        if len(valid) > 1:
            expect = num / len(valid)
            uniform_z.append(sum((n - expect) ** 2 / expect for n in counts.values()) / (len(valid) - 1))
    np.testing.assert_allclose(picked / picked.sum(), expected / expected.sum(), atol=0.015)
    assert np.mean(wrong_nodes) == pytest.approx(0.15, abs=0.01)
    assert np.mean(followed) == pytest.approx(np.mean(follow_expected), abs=0.012)
    # Those that do not follow choose among valid chains by the base policy's weights.
    np.testing.assert_allclose(strayed / strayed.sum(), strayed_expected / strayed_expected.sum(), atol=0.04)
    assert np.mean(uniform_z) == pytest.approx(1.0, abs=0.2)  # chi-square over its degrees of freedom
    broken, broken_expected = np.mean(ends_wrong, axis=0)
    assert broken == pytest.approx(broken_expected, abs=0.015)  # broken chains are picked like others


def test_supervised_rows_are_a_function_of_the_generator(task, graphs):
    def rows(seed):
        groups = task.supervised(graphs["train"][0], np.random.default_rng(seed), 6)
        return [(context, response) for context, responses in groups for response in responses]

    for (c, r), (c2, r2) in zip(rows(0), rows(0), strict=True):
        np.testing.assert_array_equal(c, c2)
        np.testing.assert_array_equal(r, r2)
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(rows(0), rows(1), strict=True))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_branches": 9}, "num_branches is 9; it must be 2 to 8"),
        ({"min_interior": 4}, "min_interior is 4; it must be 1 to 3"),
        ({"larger_max_interior": 9}, "larger_max_interior is 9"),
        ({"num_places": 2}, "num_places is 2; it must be at least 3"),
        ({"break_probability": 1.0}, "break_probability"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"follow": 1.5}, "follow is 1.5"),
        ({"bias": "lenght"}, "'concept' and 'length'"),
        ({"num_train": 0}, "num_train is 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(change, words):
    with pytest.raises(ValueError, match=words) as error:
        Config(**change)
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_refused(task):
    with pytest.raises(ValueError, match="'hardr': did you mean 'harder'"):
        task.source("hardr")
