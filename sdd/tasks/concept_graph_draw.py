"""The picture of a concept graph: a row for each chain, start on the left, goal on the right."""

from collections.abc import Callable

import numpy as np

from sdd.tasks.base import Drawing, Example, Node
from sdd.tasks.concept_graph_config import EOS, Config, make_tokenizer


def make_draw(config: Config) -> Callable[[Example, np.ndarray | None], Drawing]:
    """Returns ``draw(example, response or None) -> Drawing``; nodes that are not in the graph come last."""
    words = make_tokenizer(config).words

    def draw(example: Example, response: np.ndarray | None) -> Drawing:
        places = _places(example)
        nodes = tuple(Node(words[token], *place) for token, place in places.items())
        number = {token: i for i, token in enumerate(places)}
        edges = tuple((number[a], number[b]) for a, b in sorted(example["edge_set"]))
        ends = f"from {words[example['start']]} to {words[example['goal']]}"
        whole = sum(chain[-1] == example["goal"] for chain in example["chains"])
        text = f"{len(example['chains'])} chains {ends}, {whole} of them unbroken"
        if response is None:
            return Drawing(nodes, edges, text=text)
        path = [token for token in np.asarray(response).tolist() if token != EOS]
        strays = [token for token in dict.fromkeys(path) if token not in number]
        number |= {token: len(nodes) + i for i, token in enumerate(strays)}
        nodes += tuple(
            Node(words[token], round((i + 1) / (len(strays) + 1), 3), 1.0, "stray")
            for i, token in enumerate(strays)
        )
        return Drawing(nodes, edges, tuple(number[token] for token in [example["start"], *path]), text)

    return draw


def _places(example: Example) -> dict[int, tuple[float, float, str]]:
    """Token -> (x, y, kind) of every node; the lowest tenth is left free for nodes that are not there."""
    start, goal, chains = example["start"], example["goal"], example["chains"]
    columns = max(len(chain) - (chain[-1] == goal) for chain in chains) + 1  # the goal's comes last
    found = {start: (0.0, 0.45, "start"), goal: (1.0, 0.45, "goal")}
    for row, chain in enumerate(chains):
        y = round(0.9 * (row + 0.5) / len(chains), 3)
        kind = "" if chain[-1] == goal else "dead"
        for column, token in enumerate(chain, 1):
            found.setdefault(token, (round(column / columns, 3), y, kind))
    return found
