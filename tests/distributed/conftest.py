"""Runs of several processes on this machine, each with its own CPU devices, and how two are compared."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp
import pytest

from sdd import details

HERE = Path(__file__).parent
END_TO_END = HERE.parent / "end_to_end"
SMALL = END_TO_END / "small.py"
LOST_AFTER = 5.0  # seconds of silence


class Job(NamedTuple):
    """Attributes:
    processes: from process 0 on; each leads a process group of its own.
    outputs: where what each writes goes.
    """

    processes: list[subprocess.Popen]
    outputs: list[Path]

    def said(self, process: int) -> str:
        return self.outputs[process].read_text()

    def everything(self) -> str:
        return "".join(f"----- process {p}\n{self.said(p)}\n" for p in range(len(self.outputs)))

    def codes(self, timeout: float = 250.0) -> list[int]:
        """The exit codes of all, each within ``timeout`` seconds from now."""
        until = time.monotonic() + timeout
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in self.processes:
                process.wait(max(until - time.monotonic(), 0.01))
        codes = [process.poll() for process in self.processes]
        known = [code for code in codes if code is not None]
        assert len(known) == len(codes), f"after {timeout} s: exit codes {codes}\n{self.everything()}"
        return known

    def kill(self, process: int) -> None:
        os.killpg(self.processes[process].pid, signal.SIGKILL)

    def wait_until(self, true, timeout: float = 250.0) -> None:
        """Returns when ``true()``, or at once when a process has ended."""
        until = time.monotonic() + timeout
        while not true() and all(process.poll() is None for process in self.processes):
            assert time.monotonic() < until, f"waited {timeout} s\n{self.everything()}"
            time.sleep(0.02)

    def sleep(self, seconds: float) -> None:
        """Returns after so many seconds, or when a process has ended."""
        until = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() > until)


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Compiled programs of this session. Not of the next as well: who is killed may leave half a file."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def started(compiled):
    """``with started(command, num_processes, devices, output, ...) as job``: Python programs, as one job.

    ``command`` follows ``python``; ``prefix(p)`` goes before it; ``own(p)`` are more arguments of process p,
    and ``variables(p)`` more of its environment. When the block ends, all are killed and what they wrote is
    printed.
    """

    @contextlib.contextmanager
    def start(
        command, num_processes, devices, output, prefix=lambda p: [], own=lambda p: [], variables=lambda p: {}
    ) -> Iterator[Job]:
        output.mkdir(parents=True, exist_ok=True)
        outputs = [output / f"process_{p}.txt" for p in range(num_processes)]
        shared = {
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, END_TO_END, HERE.parents[1]))),
            "PYTHONUNBUFFERED": "1",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        with contextlib.ExitStack() as stack:
            processes: list[subprocess.Popen] = []
            job = Job(processes, outputs)
            stack.callback(lambda: print(job.everything()))
            for p, path in enumerate(outputs):
                process = subprocess.Popen(
                    [*prefix(p), sys.executable, *command, *own(p)],
                    env=os.environ | shared | variables(p),
                    stdout=stack.enter_context(open(path, "w")),
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
                processes.append(process)
                stack.callback(_end, process)
            yield job

    return start


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def places(coordinator: str, num_processes: int):
    """``own`` of `started`: each process's place in the job; one process alone has none."""
    flags = [f"--coordinator={coordinator}", f"--num_processes={num_processes}", f"--lost_after={LOST_AFTER}"]
    return lambda p: [*flags, f"--process_id={p}"] if num_processes > 1 else []


@pytest.fixture(scope="session")
def running(started):
    """``with running(folder, num_processes, devices, *flags) as job``: ``sdd run small.py``."""

    def start(folder, num_processes, devices, *flags, host="127.0.0.1", **more):
        command = ["-m", "sdd", "run", str(SMALL), f"--workdir={folder}", *flags]
        own = places(f"{host}:{unused_port()}", num_processes)
        more = {"output": folder.parent / f"{folder.name}_output"} | more
        return started(command, num_processes, devices, own=own, **more)

    return start


@pytest.fixture(scope="session")
def finished(running):
    """As `running`, to the end; returns the folder."""

    def finish(folder, num_processes, devices, *flags, timeout=250.0, **more):
        with running(folder, num_processes, devices, *flags, **more) as job:
            assert job.codes(timeout) == [0] * num_processes, job.everything()
        return folder

    return finish


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def free_port():
    """``free_port() -> int``: one that nothing listens on now."""
    return unused_port


@pytest.fixture(scope="session")
def last_step():
    """``last_step(folder)``: the newest checkpoint's; 0 where there is none."""
    return newest_step


def newest_step(folder: Path) -> int:
    return max((int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def last_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, by its path, as one numpy array."""
    import jax

    newest = folder / "checkpoints" / str(newest_step(folder))
    found: dict[str, np.ndarray] = {}
    for item in ("params", "rest", "ahead"):
        if not (newest / item).exists():
            continue
        with ocp.PyTreeCheckpointer() as reader:
            like = reader.metadata(newest / item).item_metadata
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(like))
            tree = reader.restore(newest / item, restore_args=how)
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        found |= {item + jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
    return found


@pytest.fixture(scope="session")
def same_numbers():
    """``same_numbers(a, b)``: asserts that two runs did the same, although sums were taken in another order.

    Texts and verdicts are equal. Every number of metrics.jsonl agrees to 1e-5 of its size (or 1e-7), those of
    evaluations.jsonl and rollouts/ to 1e-6 of their size (or 1e-6: some are small differences of large
    numbers), and the final parameters to 1e-5.
    """

    def compare(a, b):
        tolerances = {"metrics.jsonl": (1e-5, 1e-7)}
        for name in ("metrics.jsonl", "evaluations.jsonl", *rollout_files(a, b)):
            _close(lines(a / name), lines(b / name), *tolerances.get(name, (1e-6, 1e-6)), name)
        for name in rollout_files(a, b, ".details.npz"):
            one, other = details.read(a / name), details.read(b / name)
            assert one.token_M.tolist() == other.token_M.tolist() and one.pieces == other.pieces, name
            assert one.length_N.tolist() == other.length_N.tolist() and one.drawings == other.drawings, name
            logp = [x.logp_M.astype(np.float64) for x in (one, other)]
            np.testing.assert_allclose(*logp, rtol=2e-3, atol=1e-5, err_msg=name)
        assert newest_step(a) == newest_step(b) > 0
        arrays, others = last_arrays(a), last_arrays(b)
        assert arrays.keys() == others.keys()
        for name in arrays:
            if name.startswith("params"):
                np.testing.assert_allclose(arrays[name], others[name], rtol=0, atol=1e-5, err_msg=name)

    return compare


@pytest.fixture(scope="session")
def same_bits():
    """``same_bits(a, b)``: asserts that two runs left the same logs, rollouts and last checkpoint."""

    def compare(a, b):
        for name in ("metrics.jsonl", "evaluations.jsonl", *rollout_files(a, b)):
            assert (a / name).read_text() == (b / name).read_text(), name
        for name in rollout_files(a, b, ".details.npz"):
            assert (a / name).read_bytes() == (b / name).read_bytes(), name
        assert newest_step(a) == newest_step(b) > 0
        arrays, others = last_arrays(a), last_arrays(b)
        assert arrays.keys() == others.keys()
        for name in arrays:
            assert arrays[name].tobytes() == others[name].tobytes(), name
        meta = [f / "checkpoints" / str(newest_step(f)) / "meta" / "metadata" for f in (a, b)]
        assert json.loads(meta[0].read_text()) == json.loads(meta[1].read_text())

    return compare


def rollout_files(a: Path, b: Path, ending: str = ".jsonl") -> list[str]:
    found = [sorted(str(p.relative_to(f)) for p in f.glob(f"rollouts/*/*{ending}")) for f in (a, b)]
    assert found[0] == found[1] and found[0]
    return found[0]


def _close(x, y, rtol: float, atol: float, where: str) -> None:
    if isinstance(x, dict):
        assert x.keys() == y.keys(), where
        for key in x:
            _close(x[key], y[key], rtol, atol, f"{where} {key}")
    elif isinstance(x, list):
        assert len(x) == len(y), where
        for i, (one, other) in enumerate(zip(x, y)):
            _close(one, other, rtol, atol, f"{where} {i}")
    elif isinstance(x, float) and isinstance(y, float):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=where)
    else:
        assert x == y, where
