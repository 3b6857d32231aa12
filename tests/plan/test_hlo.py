"""Collectives are read from a module's text with their kind, axes, bytes, and number of runs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sdd.plan import hlo
from sdd.plan.hlo import Collective
from sdd.testing import tiny_mesh

AXES = {"data": 2, "fsdp": 2, "tensor": 2}

TEXT = """HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]) parameter(0)
  %x = f32[8,16]{1,0} get-tuple-element(%p), index=1
  ROOT_LINE
}

%condition (q: (s32[], f32[8,16])) -> pred[] {
  %limit = s32[] constant(5)
  %q = (s32[], f32[8,16]) parameter(0)
  %i = s32[] get-tuple-element(%q), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (a: f32[8,16]) -> f32[8,16] {
  %a = f32[8,16]{1,0} parameter(0)
  ENTRY_LINES
}
"""


def module(entry: str, body: str = "%n = f32[8,16]{1,0} negate(%x)") -> str:
    return TEXT.replace("ROOT_LINE", body).replace("ENTRY_LINES", entry)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "%g = f32[16,16]{1,0} all-gather(%a), channel_id=1, replica_groups=[4,2]<=[8], dimensions={0}",
            Collective("all-gather", "tensor", 1024, 2),
        ),
        (
            "%g = f32[32,16]{1,0} all-gather(%a), replica_groups=[2,4]<=[2,2,2]T(1,0,2), dimensions={0}",
            Collective("all-gather", "data+tensor", 2048, 4),
        ),
        (
            "%g = f32[8,16]{1,0} all-reduce(%a), replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add",
            Collective("all-reduce", "data", 512, 2),
        ),
        (
            "%g = f32[8,16]{1,0} all-reduce(%a), replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','b'}",
            Collective("all-reduce", "data+fsdp", 512, 4),
        ),
        (
            "%g = f32[4,16]{1,0} reduce-scatter(%a), replica_groups={{0,2},{1,3},{4,6},{5,7}}, to_apply=%add",
            Collective("reduce-scatter", "fsdp", 512, 2),
        ),
        (
            "%g = (bf16[4,16]{1,0:T(8,128)}, bf16[8,16]) all-gather-start(%h), replica_groups=[4,2]<=[8]",
            Collective("all-gather", "tensor", 256, 2),
        ),
        (
            "%g = f32[8,16]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,0},{2,3},{3,2}}",
            Collective("collective-permute", "tensor", 512, 2),
        ),
        (
            "%g = f32[16,16] all-gather(%a), "
            "replica_groups=mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2)) {'a'}",
            Collective("all-gather", "fsdp", 1024, 2),
        ),
        (
            "%g = f32[16,16] all-gather(%a), replica_groups=mesh['a'=8] {'a':(2)2}",
            Collective("all-gather", "fsdp", 1024, 2),
        ),
        (
            "%g = f32[8,16]{1,0} all-to-all(%a), replica_groups={}, dimensions={0}",
            Collective("all-to-all", "data+fsdp+tensor", 512, 8),
        ),
    ],
)
def test_one_line_gives_kind_axes_bytes_and_ways(line, expected):
    assert hlo.collectives(module(line), AXES) == hlo.Parsed((expected,), 0)


GATHER = "%g = f32[16,16]{1,0} all-gather(%x), replica_groups=[4,2]<=[8], dimensions={0}"
LOOP = "%w = (s32[], f32[8,16]) while(%t), condition=%condition, body=%body"


def test_a_loop_counts_as_often_as_the_compiler_says():
    noted = f'{LOOP}, backend_config={{"known_trip_count":{{"n":"3"}}}}'
    assert hlo.collectives(module(noted, GATHER), AXES).collectives[0].bytes == 3 * 1024


def test_a_counter_below_a_constant_is_a_trip_count():
    assert hlo.collectives(module(LOOP, GATHER), AXES).collectives[0].bytes == 5 * 1024


def test_a_loop_of_unknown_length_is_said_unless_the_caller_knows():
    unknown = module(LOOP, GATHER).replace("direction=LT", "direction=GT")
    assert hlo.collectives(unknown, AXES).unknown_loops == 1
    assert hlo.collectives(unknown, AXES).collectives[0].bytes == 1024
    known = hlo.collectives(unknown, AXES, [7])
    assert known.unknown_loops == 0 and known.collectives[0].bytes == 7 * 1024


def test_what_a_tpu_does_bit_by_bit_is_counted_once():
    inner = "%i = f32[16,16]{1,0} all-gather(%x), channel_id=9, replica_groups=[4,2]<=[8]"
    computations = "".join(
        f"%{name} (x: f32[8,16]) -> f32[16,16] {{\n  %x = f32[8,16]{{1,0}} parameter(0)\n  {inner}\n}}\n\n"
        for name in ("fused_computation.1", "async_collective_fusion.1", "fused_computation.2")
    )
    entry = "\n  ".join(
        [
            "%async-collective-start.1 = f32[16,16] fusion(%a), kind=kCustom, calls=%fused_computation.1",
            "%fusion.4 = f32[16,16] fusion(%a), kind=kCustom, calls=%async_collective_fusion.1",
            "%async-collective-done.1 = f32[16,16] fusion(%a), kind=kCustom, calls=%fused_computation.2",
        ]
    )
    text = module(entry).replace("ENTRY", f"{computations}ENTRY", 1)
    assert hlo.collectives(text, AXES).collectives == (Collective("all-gather", "tensor", 1024, 2),)


@pytest.mark.parametrize("axis", ["data", "fsdp", "tensor"])
def test_a_sum_over_one_axis_of_a_compiled_function(axis):
    mesh = tiny_mesh(2, 2, 2)
    summed = jax.shard_map(
        lambda x: jax.lax.psum(x, axis), mesh=mesh, in_specs=P(axis, None), out_specs=P(None, None)
    )
    with jax.set_mesh(mesh):
        x = jax.ShapeDtypeStruct((6, 40), jnp.float32, sharding=NamedSharding(mesh, P(axis, None)))
        text = jax.jit(summed).lower(x).compile().as_text()
    found = hlo.collectives(text, dict(mesh.shape))
    assert found == hlo.Parsed((Collective("all-reduce", axis, 3 * 40 * 4, 2),), 0)


def test_a_gather_in_a_scan_of_a_compiled_function():
    mesh = tiny_mesh(2, 2, 2)

    def f(x, stacked):
        def one(x, w):
            return x @ jax.sharding.reshard(w, P(None, None)), None

        return jax.lax.scan(one, x, stacked)[0]

    with jax.set_mesh(mesh):
        of = lambda spec, *shape: jax.ShapeDtypeStruct(  # noqa: E731
            shape, jnp.float32, sharding=NamedSharding(mesh, spec)
        )
        inputs = of(P("data", None), 4, 16), of(P(None, "fsdp", None), 6, 16, 16)
        text = jax.jit(f).lower(*inputs).compile().as_text()
    found = hlo.collectives(text, dict(mesh.shape))
    assert found == hlo.Parsed((Collective("all-gather", "fsdp", 6 * 16 * 16 * 4, 2),), 0)
