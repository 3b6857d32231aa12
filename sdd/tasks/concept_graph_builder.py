"""Concept graphs as a `tensorflow_datasets` builder: prepared once, read by index, without TensorFlow.

Importing this module imports `tensorflow_datasets`; `sdd.tasks.concept_graph` does so on first use.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from sdd.tasks import _tfds
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


def prepared_source(config: Config, data_dir: str, seed: int, split: str) -> RandomAccessSource:
    """Returns the records of a split, prepared first where they are not in `data_dir` yet.

    Each pair of settings and seed has its own folder; see `sdd.tasks._tfds.prepared_source`.

    Args:
      config: the task's settings.
      data_dir: where prepared data sets live.
      seed: seed of the graphs.
      split: "train", "id", "larger" or "harder".
    """
    return _tfds.prepared_source(lambda: _builder(config, data_dir, seed), split)


def _builder(config: Config, data_dir: str, seed: int) -> ConceptGraph:
    name = f"seed_{seed}_{fingerprint(config)}"
    builder_config = GraphBuilderConfig(name=name, description="Concept graphs.", task=config, seed=seed)
    return ConceptGraph(config=builder_config, data_dir=os.fspath(data_dir), file_format=_tfds.FORMAT)
