"""Concept graphs as a `tensorflow_datasets` builder: prepared once, read by index, without TensorFlow.

Importing this module imports `tensorflow_datasets`; `sdd.tasks.concept_graph` does so on first use.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from sdd.tasks.base import TRAIN, RandomAccessSource
from sdd.tasks.concept_graph_config import SPLITS, Config, fingerprint
from sdd.tasks.concept_graph_generate import generate


@dataclasses.dataclass(kw_only=True)
class GraphBuilderConfig(tfds.core.BuilderConfig):
    """The task's settings and seed, which also name the folder of the prepared data."""

    task: Config = dataclasses.field(default_factory=Config)
    seed: int = 0


class ConceptGraph(tfds.core.GeneratorBasedBuilder):
    """Concept graphs; see `sdd.tasks.concept_graph_generate.generate` for the fields."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        task = self.builder_config.task
        features = tfds.features.FeaturesDict(
            {
                "prompt_id": tfds.features.Text(),
                "start": tfds.features.Scalar(np.int32),
                "goal": tfds.features.Scalar(np.int32),
                "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
                "chains": tfds.features.Tensor(
                    shape=(task.num_branches, task.longest_chain + 1), dtype=np.int32
                ),
            }
        )
        # In order of generation: examples are shuffled later, by a seed that the run controls.
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in (TRAIN, *SPLITS)}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, object]]]:
        yield from enumerate(generate(self.builder_config.task, self.builder_config.seed, split))

    def _log_download_bytes(self) -> None:
        """TFDS prints here what it is about to download; nothing is downloaded."""

    def _log_download_done(self) -> None:
        """As above."""


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


def prepared_source(config: Config, data_dir: str, seed: int, split: str) -> RandomAccessSource:
    """Returns the records of a split, prepared first where they are not in `data_dir` yet.

    Each pair of settings and seed has its own folder. TFDS writes into a folder of another name and
    renames it when it is whole, so a killed preparation leaves nothing that is ever read.

    Args:
      config: the task's settings.
      data_dir: where prepared data sets live.
      seed: seed of the graphs.
      split: "train", "id", "larger" or "harder".
    """
    with _quiet():
        builder = _builder(config, data_dir, seed)
        folder = epath.Path(builder.data_dir)
        if not folder.exists():
            try:
                builder.download_and_prepare()
            except OSError:
                # Another process may have finished the same folder first. Its data are the same.
                if not folder.exists():
                    raise
            builder = _builder(config, data_dir, seed)  # reads what lies in the folder
        return builder.as_data_source(split=split)


def _builder(config: Config, data_dir: str, seed: int) -> ConceptGraph:
    name = f"seed_{seed}_{fingerprint(config)}"
    builder_config = GraphBuilderConfig(name=name, description="Concept graphs.", task=config, seed=seed)
    # Not parquet: TFDS loses rows in that format on Python 3.11.
    return ConceptGraph(config=builder_config, data_dir=os.fspath(data_dir), file_format="array_record")
