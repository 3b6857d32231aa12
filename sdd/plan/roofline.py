r"""The shortest time of a step that a chip's figures allow.

.. math::
    t = \sum_{p} \max(F_p / f,\; M_p / m,\; I_p / i,\; D_p / d)

over the phases p of a step, sampling and update: F operations and M bytes of HBM of a chip, I bytes that it
sends to chips of its slice and D to other slices; f, m, i and d are the chip's figures. Within a phase
everything is thought to overlap, and every figure to be reached. It knows nothing of the host's work
(verdicts, choosing, input), of chips that wait for each other, of how good the compiled kernels are, or of
links that an exchange leaves idle; responses are all thought to have the longest length. A ring moves (n-1)/n
of an array for a gather, a scatter or an all-to-all of n chips, and twice that for an all-reduce.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sdd.plan.chips import Topology
from sdd.plan.hlo import Collective
from sdd.plan.work import Work

BOUNDS = ("compute", "memory", "ici", "dcn")


class Phase(NamedTuple):
    """Attributes:
    name: "sampling" or "update".
    seconds_of: seconds of each of BOUNDS, if there were nothing else.
    """

    name: str
    seconds_of: dict[str, float]

    @property
    def seconds(self) -> float:
        return max(self.seconds_of.values())

    @property
    def bound_by(self) -> str:
        return max(self.seconds_of, key=lambda name: self.seconds_of[name])


def phase(
    name: str, work: Work, more_bytes: float, collectives: Sequence[Collective], topology: Topology
) -> Phase:
    """The time of a phase.

    Args:
      name: of the phase.
      work: its operations and memory traffic.
      more_bytes: traffic of a chip with its memory beside that of products, as an optimizer has.
      collectives: its exchanges.
      topology: which chips.
    """
    chip, slices = topology.chip, topology.slices
    sent = [traffic(c, slices) for c in collectives]
    if topology.is_gpu:  # a "slice" is a host: what goes beyond one goes over its adapters
        sent = [traffic(c, max(topology.chips // chip.chips_per_host, 1)) for c in collectives]
    return Phase(
        name,
        {
            "compute": work.chip_flops / chip.flops,
            "memory": (work.chip_bytes + more_bytes) / chip.hbm,
            "ici": sum(near for near, _ in sent) / chip.ici,
            "dcn": sum(far for _, far in sent) / chip.dcn,
        },
    )


def traffic(collective: Collective, slices: int) -> tuple[float, float]:
    """Bytes that a chip sends within its slice and to other slices; only the data axis leaves a slice."""
    times = 2 if collective.kind == "all-reduce" else 1
    if collective.kind == "collective-permute":
        return collective.bytes, 0.0
    outside = slices if slices > 1 and "data" in collective.axis.split("+") else 1
    inside = max(collective.ways // outside, 1)
    near = times * collective.bytes * (inside - 1) / inside
    return near, times * collective.bytes / inside * (outside - 1) / outside


def joined(phases: Sequence[Phase]) -> tuple[float, str]:
    """Seconds of a step, and what bounds its longest phase."""
    seconds = math.fsum(phase.seconds for phase in phases)
    return seconds, max(phases, key=lambda phase: phase.seconds).bound_by
