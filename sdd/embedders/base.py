"""What an embedder is, and how a name becomes one.

To add an embedder write a function ``texts -> TxE`` and name it by its path,
``my_package.my_module:my_function``; nothing has to be registered.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from sdd import lookup

BUILT_IN = ("minilm", "wordllama")
VALID = "valid: wordllama, minilm, minilm:FOLDER, or the path of a function, package.module:function"


class EmbedderError(ValueError):
    """An embedder that cannot be had, or that answered with something else than vectors; one line."""


class Embedder(Protocol):
    """Texts in, vectors out.

    Attributes:
      name: goes into the names of the metrics, so two embedders that differ need two names.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 TxE, a finite row for each of the T texts, of any scale (metrics normalise)."""
        ...


class Checked(NamedTuple):
    """An embedder that checks what goes in and what comes out.

    Attributes:
      name: as in :class:`Embedder`.
      embed: ``list of str -> TxE``, whatever numpy can read as numbers.
    """

    name: str
    embed: Callable[[list[str]], Any]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 TxE.

        Raises:
          EmbedderError: something that is no text, or not a finite row of numbers for each text.
        """
        if isinstance(texts, str):
            raise EmbedderError(f"embedder {self.name!r}: got one str; valid: a list of texts")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise EmbedderError(
                    f"embedder {self.name!r}: text {i} is of type {type(text).__name__}; valid: str"
                )
        return check_vectors(self.name, self.embed([encodable(text) for text in texts]), len(texts))


def encodable(text: str) -> str:
    """The text with its lone surrogates (JSON may hold them, UTF-8 may not) replaced by ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def check_vectors(name: str, vectors: Any, num_texts: int) -> np.ndarray:
    """Returns what an embedder gave as float32 TxE.

    Raises:
      EmbedderError: another shape, something that is not a number, or nan or infinity.
    """
    try:
        array = np.asarray(vectors)
        if array.dtype.kind in "OSUMmc":
            raise TypeError(f"numbers of type {array.dtype}")
        with np.errstate(over="ignore"):  # what float32 cannot hold is found below
            array_TxE = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EmbedderError(
            f"embedder {name!r}: its answer is no array of numbers ({reason}); valid: a matrix, a row a text"
        ) from None
    if array_TxE.ndim != 2 or len(array_TxE) != num_texts or array_TxE.shape[1] == 0:
        raise EmbedderError(
            f"embedder {name!r}: shape {array.shape} for {num_texts} texts; valid: ({num_texts}, E), E >= 1"
        )
    bad_T = ~np.isfinite(array_TxE).all(axis=1)
    if bad_T.any():
        raise EmbedderError(
            f"embedder {name!r}: nan or infinity in {bad_T.sum()} of {num_texts} rows, "
            f"first in row {bad_T.argmax()}; valid: finite float32 numbers"
        )
    return array_TxE


def load(spec: str) -> Embedder:
    """Returns the embedder of a name; nothing is ever downloaded.

    Args:
      spec: ``"wordllama"`` (static token vectors, quick), ``"minilm"`` (all-MiniLM-L6-v2),
        ``"minilm:FOLDER"`` (another BERT that sentence-transformers saved), or the path of a function
        ``texts -> TxE``, as ``package.module:function`` or with dots only. Such a function's ``name``,
        where it has one, is the embedder's name, else its ``__name__``.

    Raises:
      EmbedderError: an unknown name, a package that is not installed, unusable weights, or no function.
    """
    kind, _, folder = spec.partition(":")
    if kind == "minilm" and (folder or spec == kind):
        return _packaged(spec, _load_minilm, folder)
    if spec == "wordllama":
        return _packaged(spec, _load_wordllama)
    if spec == "policy":
        raise EmbedderError(
            "embedder 'policy': reads rollouts, not texts; sdd.embedders.policy.make makes it of a model"
        )
    path = spec.replace(":", ".", 1)
    if kind in BUILT_IN or "." not in path:
        raise EmbedderError(f"embedder {spec!r}: unknown{lookup.nearest(spec, BUILT_IN)}; {VALID}")
    return _load_function(spec, path)


def _packaged(spec: str, loader: Callable[..., Embedder], *args: str) -> Embedder:
    """Runs a loader; a package that is missing becomes one line that says what to install."""
    try:
        return loader(*args)
    except ModuleNotFoundError as error:
        raise EmbedderError(
            f"embedder {spec!r}: the package {error.name!r} is not installed; pip install 'sdd[embed]'"
        ) from None


def _load_wordllama() -> Embedder:
    from sdd.embedders import wordllama

    return Checked("wordllama", wordllama.make())


def _load_minilm(folder: str) -> Embedder:
    from sdd.embedders import minilm

    where = minilm.as_folder(folder) if folder else minilm.packaged_folder()
    return Checked(f"minilm:{where.name}" if folder else "minilm", minilm.make(where))


def _load_function(spec: str, path: str) -> Embedder:
    try:
        found = lookup.resolve(path)
    except lookup.PathError as error:
        raise EmbedderError(f"embedder {spec!r}: {error}") from None
    if not callable(found) or inspect.isclass(found):
        raise EmbedderError(
            f"embedder {spec!r}: of type {type(found).__name__}, not a function; valid: texts -> TxE"
        )
    name = getattr(found, "name", None) or getattr(found, "__name__", None) or type(found).__name__
    return Checked(str(name), found)
