"""Concept graphs: a task whose right answers fall into countable strategies (arXiv 2606.26091).

A graph has a start place and chains that leave it, each made of entities of one concept, in edges
listed in shuffled order. A chain is valid when it ends in the goal place; a broken one ends in a
decoy place. The answer is a path from start to goal, and its concept is its strategy.

    prompt                  <bos> (a b <sep>)* <query> start goal
    with a demonstration    <bos> (a b <sep>)* <demo> node .. goal <query> start goal
    answer                  node .. goal <eos>

Splits: "train" and "id" alike; "larger" with longer chains; "harder", where the chain that the base
policy likes best is broken and others are broken more often. Every graph has a valid chain.

The base policy, which a warm start imitates, picks a chain by `chain_scores` whether or not it is
broken, and errs at interior nodes (`Config.noise`). So it is right about as often with each
strategy: only then is a loss of strategies not simply a gain in skill.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sdd.tasks.base import TRAIN, Example, Grade, RandomAccessSource, Task
from sdd.tasks.concept_graph_config import (
    BOS,
    DEMO,
    EOS,
    QUERY,
    SEP,
    SPLITS,
    Config,
    chain_scores,
    make_tokenizer,
)
from sdd.tasks.concept_graph_draw import make_draw

__all__ = ["Config", "decode", "make"]


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; its data are prepared in `data_dir` when `source` is first called.

    Args:
      config: settings.
      data_dir: folder of prepared data sets; it may be shared by runs, seeds and settings.
      seed: seed of the graphs.
    """
    return Task(
        name="concept_graph",
        tokenizer=make_tokenizer(config),
        strategies=config.strategies,
        splits=SPLITS,
        context_length=config.context_length,
        # The marker, and a demonstration as long as any response.
        demonstration_context_length=config.context_length + 1 + config.response_length,
        response_length=config.response_length,
        source=_make_source(config, data_dir, seed),
        prompt=_prompt,
        demonstration_prompt=_make_demonstration_prompt(config),
        grade=_make_grade(config),
        supervised=_make_supervised(config),
        draw=make_draw(config),
    )


class _DecodedSource:
    """Examples of prepared records, decoded when they are asked for."""

    def __init__(self, records: RandomAccessSource):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        return decode(self._records[index])


def _make_source(config: Config, data_dir: str, seed: int) -> Callable[[str], RandomAccessSource]:
    def source(split: str) -> RandomAccessSource:
        """Returns the examples of `split`; raises ValueError for an unknown one."""
        valid = (TRAIN, *SPLITS)
        if split not in valid:
            near = difflib.get_close_matches(split, valid, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"concept_graph has no split {split!r}: did you mean {near!r}? valid: {', '.join(valid)}"
            )
        from sdd.tasks.concept_graph_builder import prepared_source  # heavy import, only where data is read

        return _DecodedSource(prepared_source(config, data_dir, seed, split))

    return source


def decode(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an example: a record of `generate` (or its stored form) plus what the verifier looks up.

    Fields: ``prompt_id`` str; ``start``, ``goal`` int; ``edges`` int32 [num_edges, 2], as listed in
    the prompt; ``chains``, a tuple of tuples of ints: interior nodes and the place where the chain
    ends, sorted by concept; ``edge_set``, a frozenset of (a, b); ``nodes``, the frozenset of nodes
    that can be reached from start; ``live``, the frozenset of nodes from which goal can be reached.
    """
    prompt_id = record["prompt_id"]
    if isinstance(prompt_id, bytes):  # TFDS reads text as bytes
        prompt_id = prompt_id.decode()
    goal = int(record["goal"])
    edges = np.asarray(record["edges"], dtype=np.int32)
    chains = tuple(tuple(n for n in row if n >= 0) for row in np.asarray(record["chains"]).tolist())
    return {
        "prompt_id": prompt_id,
        "start": int(record["start"]),
        "goal": goal,
        "edges": edges,
        "chains": chains,
        "edge_set": frozenset(map(tuple, edges.tolist())),
        "nodes": frozenset(node for chain in chains for node in chain),
        "live": frozenset(node for chain in chains if chain[-1] == goal for node in chain),
    }


def _edge_tokens(example: Example) -> np.ndarray:
    edges = example["edges"]
    tokens = np.empty(1 + 3 * len(edges), dtype=np.int32)
    tokens[0] = BOS
    tokens[1::3], tokens[2::3], tokens[3::3] = edges[:, 0], edges[:, 1], SEP
    return tokens


def _prompt(example: Example) -> np.ndarray:
    """Returns the prompt, int32 ``[<= context_length]``."""
    question = np.array([QUERY, example["start"], example["goal"]], dtype=np.int32)
    return np.concatenate([_edge_tokens(example), question])


def _make_demonstration_prompt(config: Config) -> Callable[[Example, np.ndarray], np.ndarray]:
    def demonstration_prompt(example: Example, demonstration: np.ndarray) -> np.ndarray:
        """Returns the prompt with a demonstration before the question.

        The demonstration ends at its first EOS, which is not shown. One with no token before that
        gives exactly the plain prompt. Raises ValueError for one longer than a response can be.
        """
        shown = np.asarray(demonstration, dtype=np.int32)
        stops = np.flatnonzero(shown == EOS)
        shown = shown[: stops[0]] if stops.size else shown
        if len(shown) > config.response_length:
            raise ValueError(
                f"{example['prompt_id']}: a demonstration of {len(shown)} tokens; "
                f"at most response_length={config.response_length} fit"
            )
        if not len(shown):
            return _prompt(example)
        question = np.array([QUERY, example["start"], example["goal"]], dtype=np.int32)
        marker = np.array([DEMO], dtype=np.int32)
        return np.concatenate([_edge_tokens(example), marker, shown, question])

    return demonstration_prompt


def _make_grade(config: Config) -> Callable[[Example, np.ndarray], Grade]:
    first_entity, group = config.first_entity, config.entities_per_concept
    last_entity = first_entity + group * config.num_concepts - 1

    def grade(example: Example, response: np.ndarray) -> Grade:
        """Returns the verdict on a response.

        Right: every edge exists, the first node follows start, and the path ends in the goal and
        stops with EOS. The strategy is the concept of the first node if that is an entity of the
        graph, for wrong answers too. The right prefix disregards the limit of the response's length.
        """
        tokens = np.asarray(response).tolist()
        edge_set, live, goal = example["edge_set"], example["live"], example["goal"]
        node, right_prefix, correct = example["start"], 0, False
        for token in tokens:
            if token == EOS and node == goal:
                right_prefix += 1
                correct = right_prefix == len(tokens)  # nothing may follow EOS
                break
            if token not in live or (node, token) not in edge_set:
                break
            node, right_prefix = token, right_prefix + 1
        first = tokens[0] if tokens else -1
        known = first_entity <= first <= last_entity and first in example["nodes"]
        strategy = (first - first_entity) // group if known else -1
        return Grade(correct, float(correct), strategy, right_prefix)

    return grade


def _make_supervised(
    config: Config,
) -> Callable[[Example, np.random.Generator, int], list[tuple[np.ndarray, list[np.ndarray]]]]:
    demonstration_prompt = _make_demonstration_prompt(config)
    group = config.entities_per_concept

    def noisy(chain: tuple[int, ...], rng: np.random.Generator) -> list[int]:
        nodes = list(chain)
        for i in np.flatnonzero(rng.random(len(nodes) - 1) < config.noise):
            base = nodes[i] - (nodes[i] - config.first_entity) % group
            # Another entity of the concept, each with the same chance.
            nodes[i] = base + (nodes[i] - base + int(rng.integers(1, group))) % group
        return nodes

    def supervised(
        example: Example, rng: np.random.Generator, num_answers: int
    ) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """Returns the plain prompt and a demonstration prompt, each with `num_answers` answers.

        Plain: answers of the base policy, noise and broken chains included. With a demonstration:
        that is a noise-free right answer, uniform over valid chains; an answer follows its chain
        with probability `Config.follow` and otherwise takes a valid chain by the base policy's
        weights (perhaps the same one). These answers are noise-free and never broken: the network
        is to learn that a demonstration prompt is answered rightly, so a teacher that reads one is
        better than the student.
        """
        chains, goal = example["chains"], example["goal"]
        concepts = np.array([(chain[0] - config.first_entity) // group for chain in chains])
        lengths = np.array([len(chain) - 1 for chain in chains])
        weights = np.exp(chain_scores(config, concepts, lengths))
        valid = np.flatnonzero([chain[-1] == goal for chain in chains])
        plain = [_answer(noisy(chains[i], rng)) for i in _choose(weights, rng.random(num_answers))]
        shown = chains[valid[rng.integers(len(valid))]]
        other = valid[_choose(weights[valid], rng.random(num_answers))]
        follows = rng.random(num_answers) < config.follow
        taught = [_answer(shown if yes else chains[i]) for yes, i in zip(follows, other, strict=True)]
        return [(_prompt(example), plain), (demonstration_prompt(example, _answer(shown)), taught)]

    return supervised


def _answer(nodes: list[int] | tuple[int, ...]) -> np.ndarray:
    return np.array([*nodes, EOS], dtype=np.int32)


def _choose(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Returns one index a uniform number, drawn in proportion to `weights`."""
    cumulative = np.cumsum(weights)
    choice = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    return np.minimum(choice, len(weights) - 1)  # rounding can reach the total
