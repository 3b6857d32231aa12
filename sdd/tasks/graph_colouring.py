"""Graph colouring: give the nodes of a small graph three colours so that no edge joins two of a colour.

    prompt                  <bos> node.. <sep> (later earlier <sep>)* (<fix> node colour <sep>)* <query>
    answer                  node colour node colour .. <eos>       (nodes in the order of the prompt)

An edge is listed once, the node that comes later in the answer first. A fixed node has to have the given
colour. The strategy is the partition of the nodes, which colours name: "ABACB" puts the first and the third
node together, and the second and the fifth.

Splits: "train" and "id" alike, where a node is fixed to any colour with `Config.fix_probability`; "harder",
where a node is fixed to a colour that one of its neighbours before has in the favourite colouring, the one
that takes the best liked colour wherever an edge does not forbid it. Every question has a right answer.

The base policy, which a warm start imitates, goes from node to node, takes a colour by `Config.logits` among
those that no neighbour before has, does not look ahead to fixed nodes, and errs with `Config.noise` by taking
the colour of a neighbour.

After reasoning-gym's ``graph_color`` (whose verifier agrees, see the tests), with fixed nodes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdd.tasks import _symbolic
from sdd.tasks._symbolic import FIRST, Right, Rules
from sdd.tasks.base import Example, Grade, Task
from sdd.tasks.concept_graph_config import EOS, SEP

COLOURS = ("red", "green", "blue")
_FIX = FIRST
_FIRST_COLOUR = FIRST + 1
_FIRST_NODE = _FIRST_COLOUR + len(COLOURS)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the task.

    Attributes:
      num_train: training questions.
      num_eval: questions of each evaluation split.
      num_names: names that nodes can have.
      num_nodes: nodes of a graph.
      min_edges: fewest edges of a graph.
      max_edges: most edges of a graph.
      fix_probability: chance that a node is fixed (train and id).
      logits: the base policy takes a colour with weight exp(logit).
      noise: chance, at each node with a neighbour before it, that the base policy takes that one's colour.
      follow: chance that an answer to a demonstration prompt is the demonstrated one.
      spare_response_tokens: room in a response beyond a right answer.
    """

    num_train: int = 16000
    num_eval: int = 512
    num_names: int = 8
    num_nodes: int = 5
    min_edges: int = 4
    max_edges: int = 6
    fix_probability: float = 0.5
    logits: tuple[float, ...] = (1.5, 0.75, 0.0)
    noise: float = 0.07
    follow: float = 0.85
    spare_response_tokens: int = 1

    def __post_init__(self) -> None:
        most = self.num_nodes * (self.num_nodes - 1) // 2
        ranges: dict[str, tuple[float, float | None]] = {
            "num_train": (1, None),
            "num_eval": (1, None),
            "num_names": (3, 26),
            "num_nodes": (3, min(self.num_names, 7)),
            "min_edges": (1, self.max_edges),
            "max_edges": (1, most),
            "fix_probability": (0.0, 1.0),
            "noise": (0.0, 1.0),
            "follow": (0.0, 1.0),
            "spare_response_tokens": (0, None),
        }
        _symbolic.check_config("graph_colouring", self, ranges)
        if len(self.logits) != len(COLOURS):
            raise ValueError(
                f"graph_colouring.logits is {self.logits}; it must have one of {', '.join(COLOURS)}"
            )


def make(config: Config, data_dir: str, seed: int) -> Task:
    """Returns the task; its questions are made in memory when `source` is first called.

    Args:
      config: settings.
      data_dir: not used.
      seed: seed of the questions.
    """
    del data_dir
    names = [chr(ord("a") + i) for i in range(config.num_names)]
    length = 2 + config.num_nodes + 1 + 3 * config.max_edges + 4
    rules = Rules(
        name="graph_colouring",
        draw=functools.partial(_draw, config),
        body=_body,
        base=functools.partial(_base, config),
        right=functools.partial(_right, config),
        follow=config.follow,
        response_length=2 * config.num_nodes + 1 + config.spare_response_tokens,
    )
    return Task(
        name=rules.name,
        tokenizer=_symbolic.make_tokenizer(["<fix>", *COLOURS, *names]),
        strategies=partitions(config.num_nodes),
        splits=_symbolic.SPLITS,
        context_length=length,
        demonstration_context_length=length + 1 + rules.response_length,
        response_length=rules.response_length,
        source=_symbolic.make_source(rules, config.num_train, config.num_eval, seed),
        prompt=_symbolic.make_prompt(rules),
        demonstration_prompt=_symbolic.make_demonstration_prompt(rules),
        grade=_make_grade(config),
        supervised=_symbolic.make_supervised(rules),
    )


def normal_form(colours: Sequence[int]) -> str:
    """Names the partition that colours make: colours become letters in the order of their appearance."""
    letters: dict[int, str] = {}
    return "".join(letters.setdefault(c, chr(ord("A") + len(letters))) for c in colours)


@functools.cache
def partitions(num_nodes: int) -> tuple[str, ...]:
    """The normal forms of all colourings."""
    return tuple(sorted({normal_form(c) for c in itertools.product(range(len(COLOURS)), repeat=num_nodes)}))


@functools.cache
def _colourings(num_nodes: int) -> np.ndarray:
    """All colourings, right or wrong, AxV."""
    return np.array(list(itertools.product(range(len(COLOURS)), repeat=num_nodes)))


def _draw(config: Config, rng: np.random.Generator, split: str) -> dict | None:
    """A question, see `question`; None to be drawn again."""
    V = config.num_nodes
    nodes = tuple(rng.permutation(config.num_names)[:V].tolist())
    all_edges = [(v, u) for v in range(V) for u in range(v)]
    chosen = rng.permutation(len(all_edges))[: int(rng.integers(config.min_edges, config.max_edges + 1))]
    edges = [all_edges[i] for i in chosen]
    fixed: dict[int, int] = {}
    if split == "harder":
        favourite = _favourite(config, _earlier(V, edges))
        place = int(rng.integers(V))
        near = [u for edge in edges for u in edge if place in edge and u != place]
        # Conflicts with a node before it, which the base policy has coloured without looking ahead.
        before = [u for u in near if u < place]
        if not before:
            return None
        fixed = {place: favourite[before[int(rng.integers(len(before)))]]}
    elif rng.random() < config.fix_probability:
        fixed = {int(rng.integers(V)): int(rng.integers(len(COLOURS)))}
    return question(nodes, edges, fixed)


def question(
    nodes: Sequence[int], edges: Sequence[tuple[int, int]], fixed: dict[int, int]
) -> dict[str, Any] | None:
    """Returns the question of a graph, without a ``prompt_id``; None where no colouring is right.

    Args:
      nodes: V numbers of names, in the order of the answer.
      edges: pairs of places in ``nodes``, the later one first.
      fixed: place -> index into `COLOURS`.

    Returns:
      The same, and ``earlier``: of each place the neighbours before it; ``right_AxV``: the right colourings.
    """
    V = len(nodes)
    all_AxV = _colourings(V)
    keep_A = np.ones(len(all_AxV), bool)
    for v, u in edges:
        keep_A &= all_AxV[:, v] != all_AxV[:, u]
    for place, colour in fixed.items():
        keep_A &= all_AxV[:, place] == colour
    if not keep_A.any():
        return None
    return {
        "nodes": nodes,
        "edges": edges,
        "fixed": fixed,
        "earlier": _earlier(V, edges),
        "right_AxV": all_AxV[keep_A],
        "key": (nodes, tuple(sorted(edges)), tuple(fixed.items())),
    }


def _earlier(num_nodes: int, edges: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(u for v, u in edges if v == place) for place in range(num_nodes))


def _favourite(config: Config, earlier: Sequence[Sequence[int]]) -> list[int]:
    order = np.argsort(config.logits)[::-1].tolist()
    colours: list[int] = []
    for before in earlier:
        free = [c for c in order if c not in {colours[u] for u in before}]
        colours.append((free or order)[0])
    return colours


def _body(example: Example) -> list[int]:
    nodes = [_FIRST_NODE + n for n in example["nodes"]]
    edges = [token for v, u in example["edges"] for token in (nodes[v], nodes[u], SEP)]
    fixed = [t for v, c in example["fixed"].items() for t in (_FIX, nodes[v], _FIRST_COLOUR + c, SEP)]
    return [*nodes, SEP, *edges, *fixed]


def _write(example: Example, colours: Sequence[int]) -> tuple[int, ...]:
    pairs = zip(example["nodes"], colours, strict=True)
    return tuple(token for n, c in pairs for token in (_FIRST_NODE + n, _FIRST_COLOUR + int(c)))


def _base(config: Config, example: Example, rng: np.random.Generator) -> Sequence[int]:
    weights = np.exp(config.logits)
    uniforms = rng.random((config.num_nodes, 2)).tolist()
    colours: list[int] = []
    for place, before in enumerate(example["earlier"]):
        slip, at = uniforms[place]
        taken = {colours[u] for u in before}
        if place in example["fixed"]:
            options = [example["fixed"][place]]
        elif taken and slip < config.noise:
            options = sorted(taken)
        else:
            options = [c for c in range(len(COLOURS)) if c not in taken] or list(range(len(COLOURS)))
        total = np.cumsum(weights[options])
        colours.append(options[min(int(np.searchsorted(total, at * total[-1], "right")), len(options) - 1)])
    return _write(example, colours)


def _right(config: Config, example: Example) -> Right:
    right_AxV = example["right_AxV"]
    names = [normal_form(row) for row in right_AxV.tolist()]
    weights_A = np.exp(np.asarray(config.logits)[right_AxV].sum(1))
    groups_A = np.unique(names, return_inverse=True)[1]
    return Right([_write(example, row) for row in right_AxV], groups_A, weights_A)


def _make_grade(config: Config) -> Callable[[Example, np.ndarray], Grade]:
    index = {name: i for i, name in enumerate(partitions(config.num_nodes))}
    length = 2 * config.num_nodes

    def grade(example: Example, response: np.ndarray) -> Grade:
        """Right: each node in order with a colour, as edges and fixed nodes ask, and <eos>.

        A wrong answer has a strategy too if it gives every node a colour.
        """
        tokens = np.asarray(response).tolist()
        left_AxV, prefix = example["right_AxV"], 0
        for i, token in enumerate(tokens[:length]):
            place = i // 2
            if i % 2 == 0:
                if token != _FIRST_NODE + example["nodes"][place]:
                    break
            else:
                left_AxV = left_AxV[left_AxV[:, place] == token - _FIRST_COLOUR]
                if not len(left_AxV):
                    break
            prefix += 1
        correct = prefix == length and tokens[length:] == [EOS]
        if prefix == length and tokens[length : length + 1] == [EOS]:
            prefix += 1
        nodes, colours = tokens[0:length:2], [t - _FIRST_COLOUR for t in tokens[1:length:2]]
        whole = nodes == [_FIRST_NODE + n for n in example["nodes"]]
        named = whole and len(colours) == len(nodes) and all(0 <= c < len(COLOURS) for c in colours)
        strategy = index[normal_form(colours)] if named else -1
        return Grade(correct, float(correct), strategy, prefix)

    return grade
