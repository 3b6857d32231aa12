"""What chips can do, by their makers' documents, and the names of topologies."""

import math
import re
from typing import NamedTuple

from sdd.lookup import nearest
from sdd.typed import ConfigError

GB, GBIT = 1e9, 1e9 / 8


class Chip(NamedTuple):
    """Attributes:
    memory: bytes of HBM.
    flops: bfloat16 operations a second, dense.
    hbm: bytes a second between HBM and the chip.
    ici: bytes a second that a chip sends to its neighbours, over all of its links.
    dcn_per_host: bytes a second that a host sends to other hosts.
    chips_per_host: chips that share it.
    rank: axes of a topology's name.
    """

    memory: float
    flops: float
    hbm: float
    ici: float
    dcn_per_host: float
    chips_per_host: int
    rank: int

    @property
    def dcn(self) -> float:
        """A chip's share of its host's network, bytes a second."""
        return self.dcn_per_host / self.chips_per_host


# cloud.google.com/tpu/docs/v5p, /v5e and /v6e. ICI is there the sum of both directions (v5p: 1200 GB/s,
# v5e: 400 GB/s) or of one (v6e: 3584 Gbit/s); here it is one. DCN: v5p 50 Gbit/s a chip, v5e 2 x 100 a host,
# v6e 4 x 200 a host. H100: NVIDIA's data sheet of the SXM board (its 1979 TFLOP/s are with sparsity, NVLink's
# 900 GB/s the sum of both directions); a DGX H100 has eight adapters of 400 Gbit/s (its data sheet).
CHIPS = {
    "v5p": Chip(95 * GB, 459e12, 2765 * GB, 600 * GB, 4 * 50 * GBIT, 4, 3),
    "v5e": Chip(16 * GB, 197e12, 819 * GB, 200 * GB, 2 * 100 * GBIT, 8, 2),
    "v6e": Chip(32 * GB, 918e12, 1640 * GB, 448 * GB, 4 * 200 * GBIT, 8, 2),
    "h100": Chip(80 * GB, 989e12, 3350 * GB, 450 * GB, 8 * 400 * GBIT, 8, 1),
}
GPUS = ("h100",)
EXAMPLES = "v5p:4x4x4, v5e:8x8, v6e:4x4, gpu:h100:8"


class Topology(NamedTuple):
    """Attributes:
    name: as it was given.
    kind: key of CHIPS.
    shape: chips along each axis of a slice.
    slices: slices that are joined by DCN.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def is_gpu(self) -> bool:
        return self.kind in GPUS


def parse(name: str, slices: int = 1) -> Topology:
    """Reads ``v5p:4x4x4``, ``v5e:8x8``, ``v6e:4x4`` or ``gpu:h100:8``.

    Raises:
      ConfigError: an unknown chip, or a shape that it does not have.
    """
    kind, _, shape = name.removeprefix("gpu:").partition(":")
    valid = [k for k in CHIPS if (k in GPUS) == name.startswith("gpu:")]
    if kind not in valid:
        raise ConfigError(f"--topology={name}: no such chip{nearest(kind, valid)}; valid: {EXAMPLES}")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise ConfigError(f"--topology={name}: {shape!r} is no shape; valid: {EXAMPLES}")
    sizes = tuple(map(int, shape.split("x")))
    if len(sizes) != CHIPS[kind].rank:
        raise ConfigError(
            f"--topology={name}: {kind} has {CHIPS[kind].rank} axes and this names {len(sizes)}; "
            f"valid: {EXAMPLES}"
        )
    if slices < 1:
        raise ConfigError(f"--slices={slices}: valid: 1 or more")
    return Topology(name, kind, sizes, slices)
