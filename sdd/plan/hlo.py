"""The collectives of an optimized HLO module: kind, mesh axes and bytes, counted as often as they run."""

import collections
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16, "token": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][a-z\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+[0-9a-z]*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')


class Collective(NamedTuple):
    """Attributes:
    kind: of KINDS.
    axis: mesh axes within which values are exchanged, joined by "+"; "?" where groups are no axes.
    bytes: of one chip's larger side, operand or result, times how often it runs.
    ways: chips that exchange.
    """

    kind: str
    axis: str
    bytes: float
    ways: int


class Parsed(NamedTuple):
    """Attributes:
    collectives: one for each kind and axis, the largest first.
    unknown_loops: loops with collectives whose trip count is not known; they are counted as if run once.
    """

    collectives: tuple[Collective, ...]
    unknown_loops: int


class _Instruction(NamedTuple):
    name: str
    opcode: str
    shape: str
    rest: str


def collectives(text: str, axes: dict[str, int], loop_trips: int = 0) -> Parsed:
    """Reads the collectives of a module.

    Args:
      text: the optimized module, as ``compiled.as_text()`` gives it.
      axes: name and size of the mesh axes, in the order in which devices are numbered.
      loop_trips: how often a loop runs whose trip count the module does not tell; 0: not known.
    """
    computations, entry = _computations(text)
    found: dict[tuple[str, str, int], float] = collections.defaultdict(float)
    unknown = 0

    def has_any(name: str) -> bool:
        return any(
            _kind(i.opcode) is not None or any(map(has_any, _called(i))) for i in computations.get(name, ())
        )

    def walk(name: str, times: float) -> None:
        nonlocal unknown
        sizes = {i.name: i.shape for i in computations.get(name, ())}
        for instruction in computations.get(name, ()):
            kind = _kind(instruction.opcode)
            if kind is not None:
                groups = _groups(instruction.rest, kind, math.prod(axes.values()))
                axis, ways = _axis(groups, axes)
                found[kind, axis, ways] += times * _payload(instruction, sizes)
                continue
            count = times
            if instruction.opcode == "while":
                trips = _TRIPS.search(instruction.rest)
                known = int(trips[1]) if trips else loop_trips
                unknown += not known and any(map(has_any, _called(instruction)))
                count *= known or 1
            for called in _called(instruction):
                walk(called, count)

    walk(entry, 1)
    each = (Collective(kind, axis, size, ways) for (kind, axis, ways), size in found.items())
    moved = (c for c in each if c.ways > 1 and c.bytes)
    return Parsed(tuple(sorted(moved, key=lambda c: -c.bytes)), unknown)


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    found: dict[str, list[_Instruction]] = {}
    entry, inside = "", ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            inside = header[2]
            found[inside] = []
            entry = inside if header[1] else entry
        elif inside and (match := _INSTRUCTION.match(line)):
            opcode = _OPCODE.search(match[2])
            if opcode:
                found[inside].append(
                    _Instruction(match[1], opcode[1], match[2][: opcode.start(1)], match[2][opcode.end() :])
                )
    return found, entry


def _kind(opcode: str) -> str | None:
    kind = opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def _called(instruction: _Instruction) -> Iterator[str]:
    if instruction.opcode.endswith(("-done", "-update")):  # named again what the -start has run
        return
    if instruction.opcode in ("reduce", "sort", "scatter", "map", "reduce-window", "select-and-scatter"):
        return
    yield from _CALLED.findall(instruction.rest)
    for branches in _BRANCHES.findall(instruction.rest):
        yield from (name.strip().lstrip("%") for name in branches.split(","))


def _array_bytes(shape: str) -> list[float]:
    sizes = []
    for dtype, dims in _ARRAY.findall(shape):
        digits = re.search(r"\d+", dtype)
        width = _BYTES.get(dtype, int(digits[0]) / 8 if digits else 0)
        sizes.append(width * math.prod(int(d) for d in dims.split(",") if d))
    return sizes


def _payload(instruction: _Instruction, sizes: dict[str, str]) -> float:
    """The larger of what goes in and what comes out; a -start gives both."""
    operands = re.findall(r"%?([\w.\-]+)", instruction.rest.split(")", 1)[0])
    inside = sum(sum(_array_bytes(sizes.get(name, ""))) for name in operands)
    result = _array_bytes(instruction.shape)
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        return max([inside, *result])  # (operand, result, context)
    return max(inside, sum(result))


def _groups(rest: str, kind: str, devices: int) -> list[list[int]]:
    """Groups of devices that exchange values."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", rest)
        return _lists(pairs[1] + "}") if pairs else []
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        shape, dims = ([int(n) for n in iota[i].split(",")] for i in (1, 2))
        ids = np.arange(math.prod(dims)).reshape(dims)
        if iota[3]:
            ids = ids.transpose([int(n) for n in iota[3].split(",")])
        return ids.reshape(shape).tolist()
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", rest)
    return _lists(listed[1]) if listed else [list(range(devices))]


def _lists(text: str) -> list[list[int]]:
    return [[int(n) for n in group.split(",") if n.strip()] for group in re.findall(r"\{([\d,\s]*)\}", text)]


def _axis(groups: Sequence[Sequence[int]], axes: dict[str, int]) -> tuple[str, int]:
    """The mesh axes along which the members of each group differ."""
    ways = max((len(group) for group in groups), default=1)
    if ways == 1:
        return "?", 1
    names, shape = list(axes), tuple(axes.values())
    varying = set()
    for group in groups:
        places = np.array(np.unravel_index(list(group), shape))
        varying |= {name for name, place in zip(names, places, strict=True) if len(set(place.tolist())) > 1}
    label = "+".join(name for name in names if name in varying)
    return (label or "?"), ways
