"""Several processes as one run: how they find each other, agree, and wait for each other.

All of it goes through the coordination service that `jax.distributed` starts in process 0, and none of it
through the devices: nobody waits here for what a device has to do. With one process nothing is started and
every question is answered at once.
"""

import contextlib
import importlib.util
import itertools
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax

from sdd import watch
from sdd.typed import ConfigError, error_line

INTERRUPTED = 130  # the exit code after Ctrl-C
STUCK_AFTER = 1800.0  # seconds that a process waits at a barrier for one that is alive


class LostProcess(RuntimeError):
    """A process did not come to where the others wait."""


class Place(NamedTuple):
    """This process's place in a job.

    Attributes:
      coordinator: "HOST:PORT" of process 0.
      num_processes: how many there are.
      process_id: from 0 on.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def place(given: Place, environ: Mapping[str, str] = os.environ) -> Place | None:
    """Where this process stands: as given, or as JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID say; all None: on a cluster that jax knows, which finds it out. None: it is alone.

    Raises:
      ConfigError: only some of the three are given, or what is given cannot be.
    """
    address = given.coordinator or environ.get("JAX_COORDINATOR_ADDRESS") or None
    num_processes = _number(given.num_processes, "JAX_NUM_PROCESSES", environ)
    process_id = _number(given.process_id, "JAX_PROCESS_ID", environ)
    if address is None and num_processes is None and process_id is None:
        return Place() if _on_a_cluster(environ) else None
    if address is None or num_processes is None or process_id is None:
        raise ConfigError(
            "a process of several needs all of --coordinator, --num_processes and --process_id "
            "(or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator={address}: valid: HOST:PORT of process 0")
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id} with --num_processes={num_processes}: valid: from 0 to one less "
            "than their number"
        )
    return Place(address, num_processes, process_id)


def _number(given: int | None, name: str, environ: Mapping[str, str]) -> int | None:
    if given is not None or not environ.get(name):
        return given
    try:
        return int(environ[name])
    except ValueError:
        raise ConfigError(f"{name}={environ[name]}: valid: a whole number") from None


def _on_a_cluster(environ: Mapping[str, str]) -> bool:
    """Whether jax would find other processes: tasks of a step of SLURM or of Open MPI, or TPU hosts.

    A batch script of SLURM outside srun, a login node and a laptop have none.
    """
    tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    several_slices = bool(environ.get("MEGASCALE_COORDINATOR_ADDRESS"))
    return tasks != "1" or "," in hosts or several_slices or _on_a_tpu_host(environ)


def _on_a_tpu_host(environ: Mapping[str, str]) -> bool:
    """Whether there are TPU chips that jax will use; the host's metadata then tell jax of the other hosts."""
    chips = any(os.path.exists(f"/dev/{name}") for name in ("accel0", "vfio/0"))
    wanted = environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")
    return chips and wanted and importlib.util.find_spec("libtpu") is not None


@contextlib.contextmanager
def joined(at: Place | None, lost_after: float) -> Iterator[Callable[[int, str], None]]:
    """Joins a job, and leaves it at the end of the block. Call it before jax has devices.

    Within the block a lost process ends this one; see `sdd.watch`. An exception that leaves the block ends
    it too, after its traceback, and the others with it, since they would wait for this one for ever.

    Args:
      at: see `place`; None: this process is alone, and nothing is done.
      lost_after: seconds of silence after which a process is lost.

    Yields:
      ``fail(code, message)``: tells the others, which end with the same code, and ends this process. Alone,
      it does nothing.

    Raises:
      ConfigError: the processes did not find each other.
    """
    if at is None:
        yield lambda code, message: None
        return
    try:
        jax.distributed.initialize(*at, heartbeat_timeout_seconds=int(4 * lost_after) + 60)
    except Exception as error:
        raise ConfigError(
            f"the processes of this job did not find each other: {error_line(error)}; for one that is alone: "
            "--coordinator=127.0.0.1:7000 --num_processes=1 --process_id=0"
        ) from None
    guard = watch.start(lost_after)
    try:
        yield guard.fail
    except KeyboardInterrupt:
        guard.fail(INTERRUPTED, "interrupted")
    except BaseException as error:
        traceback.print_exc()
        if _of_the_devices(error):  # perhaps only since another process is gone
            guard.wait()
        guard.fail(watch.LOST if isinstance(error, LostProcess) else 1, error_line(error))
    guard.stop()
    with contextlib.suppress(Exception):  # the work is done
        jax.distributed.shutdown()


def _of_the_devices(error: BaseException) -> bool:
    """Whether XLA raised it, at times as a ValueError: its messages begin with a status ("UNKNOWN: ...")."""
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(re.match(r"[A-Z_]{5,}: ", str(error)))


def agreement(name: str) -> Callable[[bool], bool]:
    """``agreed(asked)``: whether any process was asked; all must call it as often, and all get one answer."""
    if jax.process_count() == 1:
        return bool
    ticks = itertools.count()
    said: list[int] = []

    def agreed(asked: bool) -> bool:
        tick = next(ticks)
        if asked and not said:
            said.append(tick)
            watch.client().key_value_set(f"sdd/asked/{name}/{jax.process_index()}", str(tick))
        barrier(f"{name} {tick}")
        # What was said after this tick some have read by now, and others have not: it counts from the next.
        return any(int(at) <= tick for _, at in watch.client().key_value_dir_get(f"sdd/asked/{name}/"))

    return agreed


def most(name: str) -> Callable[[int], int]:
    """``largest(number)``: the largest that any process gave; all must call it as often."""
    if jax.process_count() == 1:
        return int
    ticks = itertools.count()

    def largest(number: int) -> int:
        tick = next(ticks)
        # Two folders in turn: who is at the next tick has read this one, so that it may be written anew then.
        folder = f"sdd/most/{name}/{tick % 2}/"
        watch.client().key_value_set(f"{folder}{jax.process_index()}", str(number), allow_overwrite=True)
        barrier(f"most {name} {tick}")
        return max(int(said) for _, said in watch.client().key_value_dir_get(folder))

    return largest


def barrier(name: str, seconds: float = STUCK_AFTER) -> None:
    """Returns when every process has come here.

    Raises:
      LostProcess: some did not within the time; names them.
    """
    if jax.process_count() == 1:
        return
    try:
        watch.client().wait_at_barrier(f"sdd/{name}", int(seconds * 1000))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        numbers = str(error).partition("timed out task names:")[2].partition("RPC:")[0].split()
        hosts = watch.hosts()
        late = ", ".join(f"process {n} ({hosts.get(int(n), 'never seen')})" for n in numbers if n.isdigit())
        raise LostProcess(
            f"{late or 'some process'} did not come to {name!r} within {seconds:.0f} s"
        ) from None


@contextlib.contextmanager
def first_alone(name: str) -> Iterator[None]:
    """What process 0 does before the others do it: files that are made once and then read by all."""
    if jax.process_index() != 0:
        barrier(name)
    yield
    if jax.process_index() == 0:
        barrier(name)
