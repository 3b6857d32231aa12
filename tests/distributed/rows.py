"""python rows.py COORDINATOR NUM_PROCESSES PROCESS_ID: rows go to the devices and come back, in any layout.

A layout is named by whose devices lie along the rows: process 0, process 0, process 1, process 1, and so on.
"""

import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from sdd import mesh as mesh_lib
from sdd import processes

coordinator, *numbers = sys.argv[1:]
with processes.joined(processes.Place(coordinator, *map(int, numbers)), lost_after=20.0):
    own, count = jax.process_index(), jax.process_count()
    for order in ("0011", "1100", "0101", "1001"):
        left = {p: [d for d in jax.devices() if d.process_index == p] for p in range(count)}
        devices = np.array([left[int(p)].pop(0) for p in order]).reshape(2, 2, 1)
        mesh = Mesh(devices, mesh_lib.AXES, axis_types=(AxisType.Explicit,) * 3)
        assert mesh_lib.rows_stay_apart(devices), order
        rows_NxT = np.arange(24, dtype=np.int32).reshape(8, 3) + 100 * own
        with jax.set_mesh(mesh):
            array_NxT, mask_N = mesh_lib.put_rows(mesh, (rows_NxT, rows_NxT[:, 0] > 3))
            assert array_NxT.shape == (8 * count, 3)
            back_NxT, back_N = mesh_lib.get_rows((array_NxT, mask_N))
            np.testing.assert_array_equal(back_NxT, rows_NxT, err_msg=order)
            np.testing.assert_array_equal(back_N, rows_NxT[:, 0] > 3, err_msg=order)
            total = sum(np.sum(rows_NxT - 100 * own + 100 * p) for p in range(count))
            assert int(jax.jit(lambda x: x.sum())(array_NxT)) == total, order
            sums = mesh_lib.add_processes(mesh, np.array([own + 1.0, 10.0]))
            np.testing.assert_array_equal(sums, [3.0, 20.0], err_msg=order)
        # Process 1 has prompts 0, 2 and 3 of five, two rows each; then none at all.
        for mine in ([1, 4] if own == 0 else [0, 2, 3], [0, 1, 2, 3, 4] if own == 0 else []):
            rows_Rx1 = (
                np.repeat(np.array(mine, np.int32), 2)[:, None] * 10 + np.arange(2 * len(mine))[:, None] % 2
            )
            whole = mesh_lib.gather(mine, 5, {"x": rows_Rx1.astype(np.int32)})["x"]
            np.testing.assert_array_equal(whole[:, 0], [0, 1, 10, 11, 20, 21, 30, 31, 40, 41])
    print("all rows came back")
