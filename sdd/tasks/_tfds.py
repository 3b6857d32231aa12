"""Data of `tensorflow_datasets`, prepared once and read by index, without TensorFlow.

Importing this module imports `tensorflow_datasets`; tasks do so on first use.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import tensorflow_datasets as tfds
from etils import epath

from sdd.tasks.base import RandomAccessSource

# Not parquet: TFDS loses rows in that format on Python 3.11.
FORMAT = "array_record"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences absl's warnings and the progress bars of TFDS; errors still show."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    absl_logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        absl_logger.setLevel(level)


def prepared_source(make_builder: Callable[[], tfds.core.DatasetBuilder], split: str) -> RandomAccessSource:
    """Returns the records of a split, prepared first where they are not in the builder's folder yet.

    TFDS writes into a folder of another name and renames it when it is whole, so a killed
    preparation leaves nothing that is ever read.

    Args:
      make_builder: a builder that writes `FORMAT`; called again once the data are there.
      split: of the data set.

    Raises:
      ValueError: by TFDS, the data in the folder are in another format.
    """
    with _quiet():
        builder = make_builder()
        folder = epath.Path(builder.data_dir)
        if not folder.exists():
            try:
                builder.download_and_prepare()
            except OSError:
                # Another process may have finished the same folder first. Its data are the same.
                if not folder.exists():
                    raise
            builder = make_builder()  # reads what lies in the folder
        return builder.as_data_source(split=split)


def named_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """The builder of a data set of TFDS, for example "ai2_arc/ARC-Easy"."""
    return tfds.builder(name, data_dir=os.fspath(data_dir), file_format=FORMAT)
