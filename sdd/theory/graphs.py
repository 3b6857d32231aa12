"""The concept-graph task with every answer listed: the base policy and its reader in closed form.

The base policy is what a warm start imitates (`sdd.tasks.concept_graph`), so this is what theory says
about a network that learned it perfectly.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sdd.tasks.base import Example
from sdd.tasks.concept_graph_config import EOS, Config, chain_scores
from sdd.theory import optima

MAX_ANSWERS = 100_000


class Answers(NamedTuple):
    """Every answer to a graph that the base policy can give, and how likely it is.

    Attributes:
      tokens: Y answers, with their stop token.
      start_Y: pi_0(y | x); sums to 1.
      correct_Y: bool; the C right answers.
      concept_Y: the strategies.
      taught_CxY: pi_0(y | x, d) for the right answers d in order.
    """

    tokens: tuple[tuple[int, ...], ...]
    start_Y: np.ndarray
    correct_Y: np.ndarray
    concept_Y: np.ndarray
    taught_CxY: np.ndarray


def answers(config: Config, example: Example) -> Answers:
    """Lists the answers to a graph.

    A chain has its weight among chains, broken or not; each interior node stays with chance 1 - noise and
    becomes each of the concept's other entities with chance noise / (entities - 1). A reader of d gives d
    with chance ``follow``, else a valid chain by its weight among valid ones.

    Raises:
      ValueError: more than `MAX_ANSWERS`; a config with fewer entities or shorter chains has fewer.
    """
    chains, size = example["chains"], config.entities_per_concept
    number = sum(size ** (len(chain) - 1) for chain in chains)
    if number > MAX_ANSWERS:
        raise ValueError(
            f"theory.graphs: {number} answers to {example['prompt_id']}; valid: at most {MAX_ANSWERS} "
            "(fewer entities_per_concept, or shorter chains)"
        )
    concept_R = np.array([(chain[0] - config.first_entity) // size for chain in chains])
    lengths_R = np.array([len(chain) - 1 for chain in chains])
    weight_R = optima.softmax(chain_scores(config, concept_R, lengths_R))
    tokens, start, correct, concepts, valid = [], [], [], [], []
    for chain, concept, weight in zip(chains, concept_R, weight_R, strict=True):
        first = config.first_entity + concept * size
        for nodes in itertools.product(range(first, first + size), repeat=len(chain) - 1):
            wrong = sum(a != b for a, b in zip(nodes, chain))
            chance = (1 - config.noise) ** (len(nodes) - wrong) * (config.noise / (size - 1)) ** wrong
            tokens.append((*nodes, chain[-1], EOS))
            start.append(weight * chance)
            correct.append(wrong == 0 and chain[-1] == example["goal"])
            concepts.append(concept)
            valid.append(weight if correct[-1] else 0.0)
    correct_Y, valid_Y = np.array(correct), np.array(valid) / np.sum(valid)
    taught_CxY = config.follow * np.eye(len(tokens))[correct_Y] + (1 - config.follow) * valid_Y
    return Answers(tuple(tokens), np.array(start), correct_Y, np.array(concepts), taught_CxY)


class Changes(NamedTuple):
    """Predicted changes of log pi(a|x) / pi(b|x) among the C right answers of a graph, nats, at [a, b].

    Attributes:
      rl_CxC: under the RL optimum: zero.
      given_CxC: under the SDSD optimum, demonstrations being the base policy's right answers.
      own_CxC: the same, demonstrations being those of the policy that is trained (self-consistent).
    """

    rl_CxC: np.ndarray
    given_CxC: np.ndarray
    own_CxC: np.ndarray


def predicted_changes(listed: Answers, rl_beta: float = 0.1, beta: float = 0.0) -> Changes:
    """What theory predicts for a graph.

    Args:
      listed: of `answers`.
      rl_beta: of the RL optimum.
      beta: of the SDSD optimum; 0 is what `sdd.steps.sdsd` trains to.
    """
    right = listed.correct_Y
    rl_Y = optima.rl_optimum(listed.start_Y, right, rl_beta)
    start_C = listed.start_Y[right]
    with np.errstate(divide="ignore"):  # a reader who always follows gives the other answers no chance
        given_C, own_C = optima.sdsd_gains(np.log(start_C), np.log(listed.taught_CxY[:, right]), beta)
    return Changes(
        optima.log_ratio_change(rl_Y[right], start_C), optima.differences(given_C), optima.differences(own_C)
    )


def report(config: Config, examples: Sequence[Example], beta: float = 0.0) -> list[dict[str, Any]]:
    """A row for each pair of right answers of each graph: chains, and the predicted changes in nats."""
    rows = []
    for example in examples:
        listed = answers(config, example)
        changes = predicted_changes(listed, beta=beta)
        concepts = listed.concept_Y[listed.correct_Y]
        for a, b in itertools.combinations(range(len(concepts)), 2):
            rows.append(
                {
                    "prompt_id": example["prompt_id"],
                    "a": config.strategies[concepts[a]],
                    "b": config.strategies[concepts[b]],
                    "rl": float(changes.rl_CxC[a, b]),
                    "sdsd": float(changes.given_CxC[a, b]),
                    "sdsd_own": float(changes.own_CxC[a, b]),
                }
            )
    return rows
