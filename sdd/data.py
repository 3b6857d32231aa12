"""Batches of examples, shuffled and resumable (grain), and the padding of token rows."""

from collections.abc import Sequence

import grain
import numpy as np

from sdd.tasks.base import RandomAccessSource


def batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    num_epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Returns an iterator over lists of examples.

    The order is a function of ``(len(source), batch_size, seed, shuffle)`` alone. Each epoch has
    another order; a batch may straddle two epochs, so none is cut short before the last epoch ends.
    Process ``p`` reads the ``p``-th of `process_count` equal runs of every global batch: the lists
    of all processes, joined in order, are the batch that one process alone would read, and no
    process decodes the examples of another.

    ``iterator.get_state()`` is a JSON-able dict that holds the number of batches read;
    ``iterator.set_state`` goes on from there exactly, also with another number of processes.

    Args:
      source: examples by index.
      batch_size: examples of a batch over all processes.
      seed: seed of the shuffle.
      shuffle: False reads in the source's order.
      num_epochs: None goes on for ever. With a number, the last batch holds what is left, so some
        processes may get a shorter, or empty, last list.
      process_index: this process, in ``[0, process_count)``.
      process_count: number of processes.

    Raises:
      ValueError: an empty source, or sizes that do not fit each other.
    """
    if len(source) == 0:
        raise ValueError("batches: the source is empty; at least one example is needed")
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(
            f"batches: process_index={process_index} of process_count={process_count}; "
            "it must be in [0, process_count)"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batches: batch_size={batch_size} must be a positive multiple of process_count={process_count}"
        )
    if num_epochs is not None and num_epochs < 1:
        raise ValueError(f"batches: num_epochs={num_epochs} must be None or at least 1")
    share = batch_size // process_count

    def read(indices: list[int]) -> list:
        return [source[int(i)] for i in indices[process_index * share : (process_index + 1) * share]]

    # Indices, not examples, are shuffled and batched: what other processes read is never decoded here.
    dataset = grain.MapDataset.range(len(source)).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    dataset = dataset.repeat(num_epochs).batch(batch_size, batch_fn=list).map(read)
    # No threads: decoding is quick, and the state then never runs ahead of what was read.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def first_met(length: int, *, batch_size: int, num_batches: int, seed: int) -> list[int]:
    """Places of the examples that the first batches of `batches` hold, each once, in the order of reading.

    Args:
      length: number of examples of the source.
      batch_size, seed: as for `batches`.
      num_batches: how many batches are read.
    """
    numbers = batches(np.arange(length), batch_size=batch_size, seed=seed)
    found: dict[int, None] = {}
    for _ in range(num_batches):
        if len(found) == length:
            break
        found |= dict.fromkeys(map(int, next(numbers)))
    return list(found)


def columns_for(needed: int, longest: int) -> int:
    """Columns of an array that must hold ``needed`` tokens: one of at most eight sizes up to ``longest``.

    Padding that nobody computes costs nothing, but every new shape is compiled once. Sizes are multiples of
    16, which processors like.
    """
    step = -(-longest // (8 * 16)) * 16
    return min(longest, -(-max(needed, 1) // step) * step)


def pad_left(rows: Sequence[np.ndarray], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads contexts on the left.

    Args:
      rows: ``N`` int vectors of at most `length` tokens.
      length: ``P``.
      pad_id: the token that fills.

    Returns:
      ``(tokens_NxP, length_N)``, both int32; ``length_N`` counts the real tokens.

    Raises:
      ValueError: a row is longer than `length`.
    """
    length_N = _lengths(rows, length)
    tokens_NxP = np.full((len(rows), length), pad_id, dtype=np.int32)
    for tokens_P, row, size in zip(tokens_NxP, rows, length_N.tolist(), strict=True):
        tokens_P[length - size :] = row
    return tokens_NxP, length_N


def pad_right(rows: Sequence[np.ndarray], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads responses on the right.

    Args:
      rows: ``N`` int vectors of at most `length` tokens.
      length: ``T``.
      pad_id: the token that fills.

    Returns:
      ``(tokens_NxT, mask_NxT)``: int32, and bool that is True on real tokens.

    Raises:
      ValueError: a row is longer than `length`.
    """
    length_N = _lengths(rows, length)
    tokens_NxT = np.full((len(rows), length), pad_id, dtype=np.int32)
    for tokens_T, row, size in zip(tokens_NxT, rows, length_N.tolist(), strict=True):
        tokens_T[:size] = row
    return tokens_NxT, np.arange(length) < length_N[:, None]


def _lengths(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    length_N = np.array([len(row) for row in rows], dtype=np.int32)
    if length_N.size and length_N.max() > length:
        worst = int(length_N.argmax())
        raise ValueError(f"row {worst} has {length_N[worst]} tokens; the padded length is only {length}")
    return length_N
