"""The decoder: the only folder that knows flax.

Everything outside sees a :class:`~sdd.model.transformer.Model`: pure ``init``,
``apply`` and ``unembed``.
"""

from sdd.model.cache import Cache, apart, empty, fork
from sdd.model.transformer import Model, make

__all__ = ["Cache", "Model", "apart", "empty", "fork", "make"]
