"""Operations, memory traffic and exchanges of a traced function, counted from its jaxpr.

XLA's own count (``cost_analysis``) takes the body of a loop once, however often it runs. Here a scan counts
its length, and a ``while`` what the caller says. Counted are matrix products: they are nearly all operations
of a decoder, and what lies between them is fused by XLA. The mesh has explicit axes, so the type of every
array says how it is split, and from that follows a chip's part.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from sdd.plan.hlo import Collective


class Work(NamedTuple):
    """Attributes:
    flops: operations of all chips together, each counted once.
    chip_flops: operations of one chip, what it does like others included.
    chip_bytes: operands and results of one chip's products: traffic with HBM if what lies between is fused.
    exchanges: (kind, axes) -> bytes of one chip, of changes of sharding and sums over what is split.
    """

    flops: float
    chip_flops: float
    chip_bytes: float
    exchanges: dict[tuple[str, tuple[str, ...]], float]

    def plus(self, other: "Work", times: float = 1.0) -> "Work":
        """The sum of this and ``times`` the other."""
        joined = dict(self.exchanges)
        for key, size in other.exchanges.items():
            joined[key] = joined.get(key, 0.0) + times * size
        flops, chip_flops = self.flops + times * other.flops, self.chip_flops + times * other.chip_flops
        return Work(flops, chip_flops, self.chip_bytes + times * other.chip_bytes, joined)


NONE = Work(0.0, 0.0, 0.0, {})


def count(jaxpr: Any, mesh_shape: dict[str, int], trips: Iterator[float]) -> Work:
    """The work of a jaxpr.

    Args:
      jaxpr: of a function traced on a mesh with explicit axes.
      mesh_shape: the sizes of the mesh's axes.
      trips: how often each ``while`` runs, in the order of the program; one that holds another runs once
        and hands its number on. One without a number runs once.
    """
    total = NONE
    for eqn in jaxpr.eqns:
        total = total.plus(_of_equation(eqn, mesh_shape, trips))
    return total


def as_collectives(work: Work, mesh_shape: dict[str, int]) -> tuple[Collective, ...]:
    """The exchanges in the form in which those of a compiled program come."""
    found = [
        Collective(kind, "+".join(axes), size, math.prod(mesh_shape[a] for a in axes))
        for (kind, axes), size in work.exchanges.items()
    ]
    return tuple(sorted((c for c in found if c.ways > 1 and c.bytes), key=lambda c: -c.bytes))


def argument_bytes(jaxpr: Any, mesh_shape: dict[str, int]) -> float:
    """Bytes of a chip that a program's arguments take."""
    return sum(_local_bytes(variable.aval, mesh_shape) for variable in jaxpr.invars)


def _of_equation(eqn: Any, mesh: dict[str, int], trips: Iterator[float]) -> Work:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        return _product(eqn, mesh)
    if name == "reshard":
        return _reshard(eqn, mesh)
    if name == "scan":
        return NONE.plus(count(params["jaxpr"].jaxpr, mesh, trips), params["length"])
    if name == "while":
        body = params["body_jaxpr"].jaxpr
        times = 1.0 if any(inner.primitive.name == "while" for inner in _all(body)) else next(trips, 1.0)
        return NONE.plus(count(body, mesh, trips), times)
    if name == "cond":
        each = [count(branch.jaxpr, mesh, trips) for branch in params["branches"]]
        return max(each, key=lambda work: work.chip_flops)
    if name == "shard_map":  # shapes are those of one device inside
        inner = count(_inner(params["jaxpr"]), mesh, trips)
        return inner._replace(flops=inner.flops * math.prod(mesh.values()))
    total = NONE
    for part in _called(params):
        total = total.plus(count(part, mesh, trips))
    return total


def _called(params: dict[str, Any]) -> Iterator[Any]:
    """The program that an equation runs; of a custom derivative the plain one, not its rules."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            yield _inner(params[key])
            return


def _inner(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _all(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        inner = [p for p in jax.tree.leaves(list(eqn.params.values())) if hasattr(_inner(p), "eqns")]
        for part in inner:
            yield from _all(_inner(part))


def _axes(aval: Any) -> list[tuple[str, ...]]:
    """The mesh axes that split each dimension."""
    spec = getattr(getattr(aval, "sharding", None), "spec", None) or ()
    parts = [(s,) if isinstance(s, str) else tuple(s or ()) for s in spec]
    return [*parts, *[()] * (aval.ndim - len(parts))]


def _shards(aval: Any, mesh: dict[str, int]) -> int:
    return math.prod(mesh[axis] for part in _axes(aval) for axis in part)


def _local_bytes(aval: Any, mesh: dict[str, int]) -> float:
    return aval.size * aval.dtype.itemsize / _shards(aval, mesh)


def _product(eqn: Any, mesh: dict[str, int]) -> Work:
    left, right = (v.aval for v in eqn.invars)
    out = eqn.outvars[0].aval
    (contracted, _), _ = eqn.params["dimension_numbers"]
    summed = tuple(dict.fromkeys(axis for dim in contracted for axis in _axes(left)[dim]))
    flops = 2.0 * out.size * math.prod(left.shape[dim] for dim in contracted)
    used = {axis for aval in (left, right, out) for part in _axes(aval) for axis in part}
    moved = sum(_local_bytes(aval, mesh) for aval in (left, right, out))
    exchanges: dict[tuple[str, tuple[str, ...]], float] = {}
    if summed:  # each chip has a part of the sum
        still = set(summed) - {axis for part in _axes(out) for axis in part}
        if still:
            exchanges[("all-reduce", _ordered(still, mesh))] = _local_bytes(out, mesh)
    return Work(flops, flops / math.prod(mesh[axis] for axis in used), moved, exchanges)


def _reshard(eqn: Any, mesh: dict[str, int]) -> Work:
    before, after = eqn.invars[0].aval, eqn.outvars[0].aval
    gone = {axis for part in _axes(before) for axis in part} - {a for part in _axes(after) for a in part}
    exchanges = {("all-gather", _ordered(gone, mesh)): _local_bytes(after, mesh)} if gone else {}
    return Work(0.0, 0.0, 0.0, exchanges)


def _ordered(axes: set[str], mesh: dict[str, int]) -> tuple[str, ...]:
    return tuple(axis for axis in mesh if axis in axes)
