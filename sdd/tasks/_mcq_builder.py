"""Prepares and opens a data set of `tensorflow_datasets`, without TensorFlow.

Importing this module imports `tensorflow_datasets`; `sdd.tasks.mcq` does so on first use.
"""

import contextlib
import logging
import os
from collections.abc import Iterator

import tensorflow_datasets as tfds
from etils import epath

from sdd.tasks.base import RandomAccessSource

# Not parquet: TFDS loses rows in that format on Python 3.11.
_FORMAT = "array_record"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences absl's warnings and the progress bars of TFDS; errors still show."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    absl_logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        absl_logger.setLevel(level)


def prepared_source(name: str, data_dir: str, split: str) -> RandomAccessSource:
    """Returns the records of a split, prepared first where they are not in `data_dir` yet.

    TFDS writes into a folder of another name and renames it when it is whole, so a killed
    preparation leaves nothing that is ever read.

    Args:
      name: for example "ai2_arc/ARC-Easy".
      data_dir: where prepared data sets live.
      split: of the data set.

    Raises:
      ValueError: by TFDS, the data in `data_dir` are in another format than array_record.
    """
    with quiet():
        builder = tfds.builder(name, data_dir=os.fspath(data_dir), file_format=_FORMAT)
        folder = epath.Path(builder.data_dir)
        if not folder.exists():
            try:
                builder.download_and_prepare(file_format=_FORMAT)
            except OSError:
                # Another process may have finished the same folder first. Its data are the same.
                if not folder.exists():
                    raise
            builder = tfds.builder(name, data_dir=os.fspath(data_dir), file_format=_FORMAT)
        return builder.as_data_source(split=split)
