"""WordLlama: the mean of a text's static token vectors (256 numbers, from a large model's embeddings).

It knows words but not their order, so it is quick and coarse.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

# Characters of a batch, padding included: bounds the memory (a token has 1 kB, and most have several).
CHARACTERS_PER_CALL = 1 << 16


def make() -> Callable[[list[str]], np.ndarray]:
    """Returns ``texts -> float32 TxE``, E = 256, through the package ``wordllama`` with its wheel's files.

    A text without a token (the empty text) has a row of zeros. A row depends on its
    text alone, not on the others.

    Raises:
      ModuleNotFoundError: the package is not installed.
      FileNotFoundError: its files are not there; none is ever downloaded.
    """
    wordllama = _import_quietly()
    # The loader looks for tokenizer/ beside itself; the wheel ships tokenizers/, which it finds in a "cache".
    folder = Path(str(wordllama.__file__)).parent
    model = wordllama.WordLlama.load("l2_supercat", dim=256, cache_dir=folder, disable_download=True)

    def embed(texts: list[str]) -> np.ndarray:
        embeddings_TxE = np.zeros((len(texts), model.embedding.shape[1]), np.float32)
        for rows in batches_of_like_length(texts, CHARACTERS_PER_CALL):
            embeddings_TxE[rows] = model.embed([texts[i] for i in rows], batch_size=len(rows))
        return embeddings_TxE

    return embed


def batches_of_like_length(texts: list[str], max_characters: int) -> Iterator[list[int]]:
    """Indices of the texts, shortest first, in batches of at most ``max_characters`` padded characters.

    A text that is longer than that is a batch by itself. Empty texts are in no batch.
    """
    batch: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        if batch and (len(batch) + 1) * len(texts[i]) > max_characters:
            yield batch
            batch = []
        if texts[i]:
            batch.append(i)
    if batch:
        yield batch


def _import_quietly() -> ModuleType:
    """Imports the package without its ``logging.basicConfig``, which would change the log of the program."""
    placeholder, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(placeholder)  # basicConfig does nothing where there is a handler
    try:
        import wordllama
    finally:
        root.removeHandler(placeholder)
    return wordllama
