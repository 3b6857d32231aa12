"""What lies beside a rollouts file, for those who look at rollouts: tokens with log-probabilities, drawings.

``SPLIT.jsonl`` has the texts and verdicts and is read by programs, line by line. The tokens are many
numbers, which as text would be larger than all texts, so they lie beside it in ``SPLIT.details.npz``: two to
four bytes a token for its id and two for its log-probability, compressed. Equal rollouts give equal bytes.
Runs of older versions have no such file, and nothing but the report's browser asks for it.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdd.tasks.base import Example, Task
from sdd.text.tokenizer import Tokenizer
from sdd.types import Rollouts


class Details(NamedTuple):
    """Rollouts are in the order of the rollouts file: N = B * n, those of a prompt side by side.

    Attributes:
      length_N: int32, tokens of each rollout.
      token_M: uint16 or int32, ids of the tokens of all rollouts, one after the other.
      logp_M: float16, nats, log-probability of each under the model itself (about three digits).
      pieces: id -> text of the token by itself.
      drawings: of each prompt, as `drawings_of` makes them; empty where the task has none.
    """

    length_N: np.ndarray
    token_M: np.ndarray
    logp_M: np.ndarray
    pieces: dict[int, str]
    drawings: list[dict[str, Any]]


def details_of(tokenizer: Tokenizer, rollouts: Rollouts, drawings: Sequence[dict[str, Any]]) -> Details:
    """The details of rollouts on the host."""
    mask_NxT = np.asarray(rollouts.mask_NxT)
    token_M = np.asarray(rollouts.response_NxT)[mask_NxT]
    kind = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    pieces = {int(i): tokenizer.decode([int(i)]) for i in np.unique(token_M)}
    return Details(
        mask_NxT.sum(axis=1, dtype=np.int32),
        token_M.astype(kind),
        np.asarray(rollouts.model_logp_NxT)[mask_NxT].astype(np.float16),
        pieces,
        list(drawings),
    )


def drawings_of(task: Task, examples: Sequence[Example], rollouts: Rollouts) -> list[dict[str, Any]]:
    """The picture of each prompt, and what each of its rollouts adds; empty where the task does not draw.

    ``{"nodes": [[label, x, y, kind], ..], "edges": [[i, j], ..], "text": .., "responses": [response, ..],
    "of": [number of the response, one a rollout]}`` with responses ``{"nodes": [further ones],
    "path": [i, ..]}``; equal ones once.

    Raises:
      ValueError: the drawing of a response has not the nodes and edges of that of its example.
    """
    if task.draw is None or not examples:
        return []
    response_NxT, length_N = np.asarray(rollouts.response_NxT), np.asarray(rollouts.mask_NxT).sum(axis=1)
    n = len(length_N) // len(examples)
    found = []
    for b, example in enumerate(examples):
        plain = task.draw(example, None)
        rows = [response_NxT[row, : length_N[row]] for row in range(b * n, (b + 1) * n)]
        number: dict[bytes, int] = {}
        of = [number.setdefault(row.tobytes(), len(number)) for row in rows]
        responses = []
        for first in (of.index(i) for i in range(len(number))):
            drawn = task.draw(example, rows[first])
            if drawn.nodes[: len(plain.nodes)] != plain.nodes or drawn.edges != plain.edges:
                raise ValueError(
                    f"{task.name}: the drawing of a response to {example['prompt_id']} must begin with the "
                    "nodes of its example's drawing and have the same edges"
                )
            added = drawn.nodes[len(plain.nodes) :]
            responses.append({"nodes": added, "path": drawn.path})
        picture = {"nodes": plain.nodes, "edges": plain.edges, "text": plain.text}
        found.append(picture | {"responses": responses, "of": of})
    return found


def to_bytes(details: Details) -> bytes:
    """The content of the file."""
    texts = {"pieces": [[i, text] for i, text in details.pieces.items()], "drawings": details.drawings}
    file = io.BytesIO()
    np.savez_compressed(
        file,
        length_N=details.length_N,
        token_M=details.token_M,
        logp_M=details.logp_M,
        texts=np.frombuffer(json.dumps(texts).encode(), np.uint8),
    )
    return file.getvalue()


def read(path: str | Path) -> Details:
    """Reads a file of `to_bytes`.

    Raises:
      ValueError: one line, for a missing or torn file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            length_N, token_M, logp_M = (file[name] for name in ("length_N", "token_M", "logp_M"))
            texts = json.loads(file["texts"].tobytes())
        if not length_N.sum() == len(token_M) == len(logp_M):
            raise ValueError("lengths do not match")
        pieces = {int(i): str(text) for i, text in texts["pieces"]}
        return Details(length_N, token_M, logp_M, pieces, texts["drawings"])
    except FileNotFoundError:
        raise ValueError(f"{path}: file is missing") from None
    except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of token details ({error})") from None
