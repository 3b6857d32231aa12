"""The device mesh, and the one place that maps logical axes to mesh axes.

The mesh is always explicit (``AxisType.Explicit``): shardings are part of the
types of the arrays. One device is the mesh (1, 1, 1), not a special case.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sdd.config import ConfigError, LayoutConfig, MeshConfig

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # rows are split over both: fsdp is data parallelism with sharded parameters
RULES = {
    "batch": BATCH,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "head": None,
    "layers": None,
}


def make_mesh(config: MeshConfig | LayoutConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the explicit mesh (data, fsdp, tensor); a size of -1 takes what is left.

    Where the devices are slices of TPU chips, joined by the data centre's network, only the data axis crosses
    from one slice to another: what the other axes move stays within the slice's own network.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices, or do not fit the slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [config.data, config.fsdp, config.tensor]
    fixed = int(np.prod([s for s in sizes if s != -1]))
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if int(np.prod(sizes)) != len(devices):
        raise ConfigError(
            f"mesh: data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} does not fill "
            f"{len(devices)} devices; the sizes must multiply to {len(devices)} (one of them may be -1)"
        )
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        index = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(index, []).append(device)
    if sizes[0] % len(slices):
        raise ConfigError(
            f"mesh: data={sizes[0]}: the job has {len(slices)} slices, which only data may cross; "
            f"valid: a multiple of {len(slices)}"
        )
    within = (sizes[0] // len(slices), sizes[1], sizes[2])
    grid = np.concatenate([lay_out(within, slices[index]) for index in sorted(slices)])
    return Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * 3)


def lay_out(sizes: tuple[int, int, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices as an array of the three axes, near each other along each, if jax can tell how.

    A row of a batch must not lie on several processes: where jax's order would have it so, devices are
    ordered by process.
    """
    for split in (False, True):  # whether an axis of the mesh may be a part of an axis of the chips' torus
        with contextlib.suppress(NotImplementedError):
            grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=split)
            if rows_stay_apart(grid):
                return grid
    return np.array(sorted(devices, key=lambda d: (d.process_index, d.id))).reshape(sizes)


def sampling_mesh(config: MeshConfig, mesh: Mesh) -> Mesh:
    """The mesh that rollouts are drawn on: the same devices, in another layout where one is asked for.

    Raises:
      ConfigError: as `make_mesh`.
    """
    if config.sampling == LayoutConfig():
        return mesh
    try:
        return make_mesh(config.sampling, list(mesh.devices.flat))
    except ConfigError as error:
        raise ConfigError(f"config.mesh.sampling: {error}") from None


def spec(logical: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> P:
    """PartitionSpec of logical axes; an axis that the mesh does not divide stays whole."""
    axes = []
    for name, size in zip(logical, shape, strict=True):
        axis = RULES[name] if name else None
        parts = (axis,) if isinstance(axis, str) else axis or ()
        fits = size % int(np.prod([mesh.shape[a] for a in parts], dtype=int)) == 0
        axes.append(axis if fits else None)
    return P(*axes)


def abstract(make: Callable[..., Any], *args: Any) -> Any:
    """Shapes and shardings of what ``make(*args)`` would return on the mesh in use; nothing is computed."""
    mesh = jax.sharding.get_mesh()

    def on_mesh(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = x.sharding.spec if x.sharding else P()  # none: the same number on every device
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(on_mesh, jax.eval_shape(make, *args))


def rows(rank: int) -> P:
    """PartitionSpec of an array whose first axis is rows of a batch."""
    return P(BATCH, *(None,) * (rank - 1))


def row_multiple(mesh: Mesh | AbstractMesh) -> int:
    """Rows of a batch must come in multiples of this."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def owners(devices_DxFxT: np.ndarray) -> np.ndarray:
    """The process of each device of a mesh, with a row for each part of a batch's rows."""
    process_of = np.vectorize(lambda device: device.process_index)
    return process_of(devices_DxFxT).reshape(-1, devices_DxFxT.shape[2])


def rows_stay_apart(devices_DxFxT: np.ndarray) -> bool:
    """Whether every row of a batch lies on devices of one process, and each process has as many rows."""
    owner_RxT = owners(devices_DxFxT)
    even = len(set(np.unique(owner_RxT[:, 0], return_counts=True)[1].tolist())) == 1
    return even and bool((owner_RxT == owner_RxT[:, :1]).all())


def rows_are_in_order(devices_DxFxT: np.ndarray) -> bool:
    """Whether a global array begins with the rows of process 0, then come those of process 1, and so on.

    Only then do its rows belong to the same prompts for every number of processes; devices may be in another
    order, to be near each other.
    """
    return bool((np.diff(owners(devices_DxFxT)[:, 0]) >= 0).all())


def put_rows(mesh: Mesh, tree: Any) -> Any:
    """This process's rows of numpy arrays -> global arrays, sharded over the batch axes."""

    def put(x):
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(NamedSharding(mesh, rows(x.ndim)), x)

    return jax.tree.map(put, tree)


def add_processes(mesh: Mesh, values_M: np.ndarray) -> np.ndarray | jax.Array:
    """The sum over processes of a vector that each has its own of, on all of them.

    Nobody waits: with several processes the devices add, after what they have to do already, and the result
    is read when it is needed.
    """
    if jax.process_count() == 1:
        return values_M
    rows_DxM = np.zeros((row_multiple(mesh) // jax.process_count(), len(values_M)), np.float32)
    rows_DxM[0] = values_M
    return _add_rows(put_rows(mesh, rows_DxM))


@jax.jit
def _add_rows(rows_DxM: jax.Array) -> jax.Array:
    return jnp.sum(rows_DxM, axis=0)


def gather(own: Sequence[int], total: int, tree: Any) -> Any:
    """Numpy arrays of each process's own items -> those of all items, in order, on every process.

    Args:
      own: numbers of this process's items, all processes together 0 to ``total`` - 1 once each.
      total: how many items there are.
      tree: arrays whose first axis has the same number of rows for each item of ``own``; the other axes, and
        the rows an item, are the same on all processes, also where ``own`` is empty.
    """
    if jax.process_count() == 1:
        return tree
    most = int(np.max(process_allgather(np.array(len(own)))))
    index_Pxm = process_allgather(np.pad(np.array(own, np.int64), (0, most - len(own)), constant_values=-1))

    def whole(x):
        rows = len(x) // len(own) if own else 0
        rows = int(np.max(process_allgather(np.array(rows))))
        padded = np.zeros((most, rows, *x.shape[1:]), x.dtype)
        padded[: len(own)] = x.reshape(len(own), rows, *x.shape[1:])
        joined = np.empty((total, rows, *x.shape[1:]), x.dtype)
        joined[index_Pxm[index_Pxm >= 0]] = process_allgather(padded)[index_Pxm >= 0]
        return joined.reshape(total * rows, *x.shape[1:])

    return jax.tree.map(whole, tree)


def get_rows(tree: Any) -> Any:
    """Global arrays -> this process's rows as numpy arrays, in order and without replicas."""

    def get(x):
        if x.is_fully_addressable:
            return np.asarray(x)
        shards = {s.index[0].start or 0: s for s in x.addressable_shards}
        return np.concatenate([np.asarray(shards[i].data) for i in sorted(shards)])

    return jax.tree.map(get, tree)
