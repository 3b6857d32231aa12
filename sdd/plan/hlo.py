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
_CALLED = re.compile(r"(?:calls|to_apply|condition|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_NAMED = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?\{([^}]*)\}"
)
# Names that the compiler for TPUs gives: a sum of which each chip keeps its part; and the later places of an
# exchange that is done bit by bit between other work, and stands whole in each.
_SCATTERS, _LATER = "all-reduce-scatter", ("async-collective-done", "async_collective_fusion")
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


def collectives(text: str, axes: dict[str, int], trips: Sequence[float] = ()) -> Parsed:
    """Reads the collectives of a module.

    Args:
      text: the optimized module, as ``compiled.as_text()`` gives it.
      axes: name and size of the mesh axes, in the order in which devices are numbered.
      trips: how often each loop runs whose trip count the module does not tell, in the order of the program;
        a loop that holds such a loop runs once and hands its number on.
    """
    computations, entry = _computations(text)
    found: dict[tuple[str, str, int], float] = collections.defaultdict(float)
    unknown, left = 0, iter(trips)

    def open_loop(instruction: _Instruction) -> bool:
        return instruction.opcode == "while" and _trips(instruction, computations) is None

    def holds_loop(name: str) -> bool:
        return any(open_loop(i) or any(map(holds_loop, _called(i))) for i in computations.get(name, ()))

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
                if name.startswith(_SCATTERS):
                    kind = "reduce-scatter"
                groups = _groups(instruction.rest, kind, math.prod(axes.values()))
                axis, ways = _axis(groups, axes)
                found[kind, axis, ways] += times * _payload(instruction, sizes)
                continue
            count = times
            if open_loop(instruction) and not any(map(holds_loop, _called(instruction))):
                runs = next(left, None)
                unknown += runs is None and any(map(has_any, _called(instruction)))
                count *= 1 if runs is None else runs
            elif instruction.opcode == "while":
                count *= _trips(instruction, computations) or 1
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


def _trips(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int | None:
    """How often a loop runs: as the compiler notes it, or up to the constant that its counter stays below."""
    if noted := _TRIPS.search(loop.rest):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    inside = computations.get(condition[1], []) if condition else []
    if not inside or inside[-1].opcode != "compare" or "direction=LT" not in inside[-1].rest:
        return None
    of = {i.name: i for i in inside}
    sides = [of.get(name) for name in re.findall(r"%?([\w.\-]+)", inside[-1].rest.split(")", 1)[0])]
    if [side and side.opcode for side in sides] != ["get-tuple-element", "constant"]:
        return None
    limit = re.match(r"(\d+)\)", sides[1].rest) if sides[1] else None
    return int(limit[1]) if limit else None


def _kind(opcode: str) -> str | None:
    kind = opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def _called(instruction: _Instruction) -> Iterator[str]:
    if instruction.opcode.endswith(("-done", "-update")):  # named again what the -start has run
        return
    if instruction.name.startswith(_LATER):
        return
    if instruction.opcode in ("reduce", "sort", "scatter", "map", "reduce-window", "select-and-scatter"):
        return
    yield from (name for name in _CALLED.findall(instruction.rest) if not name.startswith(_LATER))
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
        return _numbered(iota[2], iota[3]).reshape(_ints(iota[1])).tolist()
    if named := _NAMED.search(rest):
        return _named_groups(*named.groups())
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", rest)
    return _lists(listed[1]) if listed else [list(range(devices))]


def _named_groups(axes: str, dims: str | None, order: str | None, names: str) -> list[list[int]]:
    """Groups along named axes, ``'a'``, or along a part of one, ``'a':(2)4``: 4 ways inside of 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    parts: dict[str, list[int]] = {name: [size] for name, size in sizes.items()}
    places: dict[str, int] = dict.fromkeys(re.findall(r"'([^']+)'", names), 0)
    for name, outer, size in re.findall(r"'([^']+)':\((\d+)\)(\d+)", names):
        parts[name] = [int(outer), int(size), sizes[name] // int(outer) // int(size)]
        places[name] = 1
    shape = [size for name in sizes for size in parts[name]]
    starts = {name: sum(len(parts[n]) for n in list(sizes)[:i]) for i, name in enumerate(sizes)}
    inside = [starts[name] + place for name, place in places.items()]
    ids = _numbered(dims or str(math.prod(shape)), order).reshape(shape)
    ids = np.moveaxis(ids, inside, range(-len(inside), 0))
    return ids.reshape(-1, math.prod(shape[i] for i in inside)).tolist()


def _numbered(dims: str, order: str | None) -> np.ndarray:
    """Devices counted through in an array of these dimensions, whose axes are then put in another order."""
    ids = np.arange(math.prod(_ints(dims))).reshape(_ints(dims))
    return ids.transpose(_ints(order)) if order else ids


def _ints(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


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
