"""Settings and vocabulary of the concept graph task (see `sdd.tasks.concept_graph`)."""

import dataclasses
import hashlib
import json

import numpy as np

from sdd.text.tokenizer import SymbolTokenizer

SPLITS = ("id", "larger", "harder")
"""Evaluation splits; the first is in distribution."""

SPECIALS = ("<pad>", "<bos>", "<eos>", "<sep>", "<query>", "<demo>")
PAD, BOS, EOS, SEP, QUERY, DEMO = range(len(SPECIALS))
FIRST_PLACE = len(SPECIALS)

_CONCEPTS = ("bird", "fruit", "metal", "tool", "river", "flower", "fish", "star")
_FORMAT = 1  # raise it when generation changes: data prepared by older code is then not read


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the concept graph task; the defaults are those at which the finding was seen.

    Attributes:
      num_train: training graphs.
      num_eval: graphs of each evaluation split.
      num_concepts: concepts, hence strategies.
      entities_per_concept: entities (tokens) of each concept.
      num_places: place tokens; each graph takes one as its start, one as its goal, the rest are decoys.
      num_branches: chains of a graph, each of another concept.
      min_interior: fewest interior nodes of a chain (train, id and harder).
      max_interior: most interior nodes of a chain (train, id and harder).
      larger_min_interior: fewest interior nodes of a chain in the larger split.
      larger_max_interior: most interior nodes of a chain in the larger split.
      break_probability: chance that a chain ends in a decoy place (train, id and larger).
      harder_break_probability: the same in the harder split, for chains other than the favourite;
        the favourite, the chain with the highest prior, is always broken there.
      bias: by what the base policy prefers chains, "concept" or "length". The default is "concept":
        with "length" the loss of diversity showed too, but more weakly, in the trial that compared them.
      concept_logits: with bias "concept" a chain has weight exp(logit of its concept); concepts
        beyond the tuple have logit 0, entries beyond `num_concepts` are not used.
      length_bias: with bias "length" a chain has weight exp(-length_bias * interior nodes).
      noise: chance, for each interior node of an answer of the base policy, that a wrong entity of
        the same concept replaces it.
      follow: chance that an answer to a demonstration prompt follows the demonstrated chain; below 1
        the demonstration is a hint and not an order to copy.
      spare_response_tokens: room in a response beyond the longest right answer.
    """

    num_train: int = 16000
    num_eval: int = 512
    num_concepts: int = 8
    entities_per_concept: int = 8
    num_places: int = 8
    num_branches: int = 5
    min_interior: int = 1
    max_interior: int = 3
    larger_min_interior: int = 3
    larger_max_interior: int = 4
    break_probability: float = 0.15
    harder_break_probability: float = 0.3
    bias: str = "concept"
    concept_logits: tuple[float, ...] = (1.5, 1.0, 0.5)
    length_bias: float = 0.7
    noise: float = 0.15
    follow: float = 0.85
    spare_response_tokens: int = 2

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_train", 1, None),
            ("num_eval", 1, None),
            ("num_concepts", 2, None),
            ("entities_per_concept", 2, None),
            ("num_places", 3, None),
            ("num_branches", 2, self.num_concepts),
            ("min_interior", 1, self.max_interior),
            ("max_interior", 1, self.entities_per_concept),
            ("larger_min_interior", 1, self.larger_max_interior),
            ("larger_max_interior", 1, self.entities_per_concept),
            ("spare_response_tokens", 0, None),
            ("noise", 0.0, 1.0),
            ("follow", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                valid = f"at least {low}" if high is None else f"{low} to {high}"
                raise ValueError(f"concept_graph.{name} is {value}; it must be {valid}")
        for name in ("break_probability", "harder_break_probability"):
            if not 0.0 <= getattr(self, name) < 1.0:  # at 1 no chain is valid
                raise ValueError(f"concept_graph.{name} is {getattr(self, name)}; it must be in [0, 1)")
        if self.bias not in ("concept", "length"):
            raise ValueError(f"concept_graph.bias is {self.bias!r}; valid are 'concept' and 'length'")

    @property
    def first_entity(self) -> int:
        """Token id of the first entity; the entities of a concept are neighbours."""
        return FIRST_PLACE + self.num_places

    @property
    def longest_chain(self) -> int:
        """Most interior nodes of a chain in any split."""
        return max(self.max_interior, self.larger_max_interior)

    @property
    def context_length(self) -> int:
        """Most tokens of a prompt: BOS, three an edge, then QUERY start goal."""
        return 1 + 3 * self.num_branches * (self.longest_chain + 1) + 3

    @property
    def response_length(self) -> int:
        """Most tokens of a response: interior nodes, goal, EOS and the spare ones."""
        return self.longest_chain + 2 + self.spare_response_tokens

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the concepts."""
        return tuple(
            _CONCEPTS[i] if i < len(_CONCEPTS) else f"concept_{i}_" for i in range(self.num_concepts)
        )


def make_tokenizer(config: Config) -> SymbolTokenizer:
    """Returns the vocabulary: special words, then places, then entities grouped by concept."""
    places = [f"place{i}" for i in range(config.num_places)]
    entities = [f"{name}{i}" for name in config.strategies for i in range(config.entities_per_concept)]
    return SymbolTokenizer([*SPECIALS, *places, *entities], pad="<pad>", stop=("<eos>",))


def chain_scores(config: Config, concepts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the base policy's log-weight of chains, before normalisation, nats.

    Args:
      config: the task's settings.
      concepts: int, any shape: each chain's concept.
      lengths: int, the same shape: each chain's number of interior nodes.
    """
    if config.bias == "length":
        return -config.length_bias * lengths.astype(np.float64)
    logits = np.zeros(config.num_concepts)
    known = config.concept_logits[: config.num_concepts]
    logits[: len(known)] = known
    return logits[concepts]


def fingerprint(config: Config) -> str:
    """Returns a short hash of every setting; it names the prepared data."""
    text = json.dumps([_FORMAT, dataclasses.asdict(config)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
