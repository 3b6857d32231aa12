"""Two machines, as two network namespaces with a cable between them, which is pulled in mid-run."""

import os
import shutil
import subprocess
import time

import pytest

FLAGS = (
    "--config.mesh.fsdp=2",
    "--config.train.num_steps=40",
    "--config.train.checkpoint_every=2",
    "--config.eval.every=0",
)
LOST_AFTER, SOON = 5.0, 20.0
ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def machines(tmp_path):
    """``(prefix, link)``: ``prefix(p)`` starts a program on machine p; ``link("down")`` pulls the cable."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces need root, and the commands ip and unshare")
    names = [f"sdd-{os.getpid()}-{p}" for p in range(2)]
    ends = [f"sdd{os.getpid() % 100000}v{p}" for p in range(2)]
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
            for name, end, address in zip(names, ends, ADDRESSES):
                ip("-n", name, "address", "add", f"{address}/24", "dev", end)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", end, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        for p, address in enumerate(ADDRESSES):
            (tmp_path / f"hosts_{p}").write_text(f"127.0.0.1 localhost\n{address} machine-{p}\n")

        def prefix(p):
            # Each has a name of its own, which leads to its address, as machines of a cluster have.
            setup = f'hostname machine-{p} && mount --bind "{tmp_path}/hosts_{p}" /etc/hosts && exec "$@"'
            return ["ip", "netns", "exec", names[p], "unshare", "--mount", "--uts", "sh", "-c", setup, "sh"]

        yield prefix, lambda state: ip("-n", names[0], "link", "set", ends[0], state)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cable_is_pulled(machines, running, finished, last_step, same_bits, tmp_path):
    prefix, link = machines
    there = {"prefix": prefix, "host": ADDRESSES[0]}
    whole, folder = finished(tmp_path / "whole", 2, 2, *FLAGS, **there), tmp_path / "run"
    with running(folder, 2, 2, *FLAGS, **there) as job:
        job.wait_until(lambda: last_step(folder) >= 4)
        link("down")
        began = time.monotonic()
        assert job.codes(60) == [76, 76], job.everything()
        assert time.monotonic() - began < LOST_AFTER + SOON
    assert "nothing was heard of process 1 (machine-1)" in job.said(0)
    assert "process 0 (machine-0), which coordinates, has not answered" in job.said(1)
    assert last_step(folder) < last_step(whole)
    link("up")
    same_bits(finished(folder, 2, 2, *FLAGS, **there), whole)
