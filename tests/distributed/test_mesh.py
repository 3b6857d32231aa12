"""Meshes over several processes and slices, on devices that are only described."""

import collections
import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sdd import mesh as mesh_lib
from sdd.config import ConfigError, MeshConfig

ROWS_OF_TPUS = """
from types import SimpleNamespace
from jax.experimental import topologies
from sdd import mesh
from sdd.config import MeshConfig
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2", num_slices=2).devices
for sizes in ((-1, 1, 1), (2, 4, 1), (2, 1, 4), (4, 2, 1), (2, 2, 2), (-1, 2, 1)):
    made = mesh.make_mesh(MeshConfig(*sizes), devices)
    slices_DxFxT = [[[d.slice_index for d in row] for row in plane] for plane in made.devices]
    print(dict(made.shape), [sorted({s for row in plane for s in row}) for plane in slices_DxFxT], sep="|")
"""


def owned(owner_DxFxT):
    """Devices that belong to these processes."""
    one = np.vectorize(lambda p: SimpleNamespace(process_index=int(p)), otypes=[object])
    return one(np.array(owner_DxFxT))


@pytest.mark.parametrize(
    ("owner_DxFxT", "apart", "in_order"),
    [
        ([[[0], [0], [1], [1]]], True, True),
        ([[[0]], [[1]], [[2]], [[3]]], True, True),
        ([[[0, 0], [1, 1]]], True, True),  # tensor within a process
        ([[[1], [0], [1], [0]]], True, False),
        ([[[1, 1], [0, 0]]], True, False),
        ([[[0, 1], [0, 1]]], False, True),  # tensor across processes
        ([[[0, 0, 1, 1]]], False, True),
        ([[[0], [0], [0], [1]]], False, True),  # not as many rows each
    ],
)
def test_whose_rows_lie_where(owner_DxFxT, apart, in_order):
    devices_DxFxT = owned(owner_DxFxT)
    assert mesh_lib.rows_stay_apart(devices_DxFxT) is apart
    assert mesh_lib.rows_are_in_order(devices_DxFxT) is in_order


def tpus(num_slices, width, depth):
    """Slices of chips in a plane, four a host in a square of two by two, in no useful order."""
    per_slice = width * depth
    found = [
        SimpleNamespace(
            id=s * per_slice + y * width + x,
            platform="tpu",
            device_kind="TPU v5",
            slice_index=s,
            process_index=s * (per_slice // 4) + y // 2 * (width // 2) + x // 2,
            coords=(x, y, 0),
            core_on_chip=0,
        )
        for y in range(depth)
        for x in range(width)
        for s in range(num_slices)
    ]
    assert sorted(collections.Counter(d.process_index for d in found).values()) == [4] * (len(found) // 4)
    return found


@pytest.fixture
def make_grid(monkeypatch):
    """``make_grid(sizes, devices)``: as `make_mesh`, with devices that are no devices of jax."""
    monkeypatch.setattr(mesh_lib, "Mesh", lambda grid, axes, axis_types: grid)
    return lambda sizes, devices: mesh_lib.make_mesh(MeshConfig(*sizes), devices)


def assert_only_data_crosses(made):
    slices = [{d.slice_index for d in plane.flat} for plane in made]
    assert all(len(one) == 1 for one in slices)
    half = len(slices) // 2
    assert set.union(*slices[:half]).isdisjoint(set.union(*slices[half:]))


@pytest.mark.parametrize("sizes", [(-1, 1, 1), (2, 4, 1), (2, 1, 4), (4, 2, 1), (2, 2, 2), (4, 1, 2)])
def test_only_data_crosses_slices(make_grid, sizes):
    made = make_grid(sizes, tpus(2, 2, 2))
    assert sorted(d.id for d in made.flat) == list(range(8))
    assert_only_data_crosses(made)
    assert mesh_lib.rows_stay_apart(made)


@pytest.mark.parametrize("num_slices", [1, 2])
@pytest.mark.parametrize("within", [(8, 2, 1), (8, 1, 2), (4, 1, 4), (2, 4, 2), (1, 4, 4), (1, 8, 2)])
def test_whatever_fits_a_host_lies_on_one(make_grid, num_slices, within):
    """16 chips, four a host, in a square: with tensor up to four, each row belongs to one host."""
    made = make_grid((num_slices * within[0], *within[1:]), tpus(num_slices, 4, 4))
    assert sorted(d.id for d in made.flat) == list(range(16 * num_slices))
    assert mesh_lib.rows_stay_apart(made)
    if num_slices > 1:
        assert_only_data_crosses(made)


@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 1, 8), (1, -1, 2), (3, 4, 1)])
def test_other_axes_may_not_cross_slices(sizes):
    devices = tpus(2, 2, 2) if sizes[0] == 1 else tpus(2, 2, 4)[:12]
    with pytest.raises(
        ConfigError, match="2 slices, which only data may cross; valid: a multiple of 2"
    ) as caught:
        mesh_lib.make_mesh(MeshConfig(*sizes), devices)
    assert "\n" not in str(caught.value)


def test_only_data_crosses_real_slices(tmp_path):
    """As `test_only_data_crosses_slices`, on a topology that the TPU's compiler describes."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    environ = os.environ | {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", ROWS_OF_TPUS], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = [line.split("|")[1] for line in done.stdout.splitlines() if "|" in line]
    assert len(found) == 6
    for places in found:
        half = len(eval(places)) // 2
        assert all(place == [int(i >= half)] for i, place in enumerate(eval(places))), done.stdout
