"""Weights in and out: Hugging Face's folders, GGUF files, checkpoints of runs; ``sdd convert``.

:func:`load_params` reads any of them into a model; `sdd.weights.safetensors.save` writes a folder that
transformers loads. Packages are imported when something is read, so that ``sdd --help`` is quick.
"""

from typing import TYPE_CHECKING, Any

from sdd.weights.errors import WeightsError

if TYPE_CHECKING:
    import os

    from jax.sharding import Mesh

    from sdd.model import Model

__all__ = ["WeightsError", "load_params"]


def load_params(path: "str | os.PathLike[str]", model: "Model", mesh: "Mesh") -> Any:
    """The parameters that a path holds, float32, sharded as ``model.init`` would have them.

    Args:
      path: a folder of Hugging Face's (config.json and safetensors), a .gguf file, or the folder of a
        run (its newest checkpoint), told apart by what they hold.
      model: the decoder that the parameters are for.
      mesh: where they go.

    Raises:
      ConfigError: nothing of these is there, it is damaged, or it is another model's; one line.
    """
    from sdd.weights import convert

    return convert.load_params(path, model, mesh)
