"""The gcloud commands of `launch/tpu_pod.py`, and what they run on the workers: pure functions.

All goes through queued resources, which is how Google asks for TPUs to be requested, and the only way to
several slices. Source: https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources
"""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from launch import common

ROOT = Path(__file__).parents[1]
GCLOUD = ("gcloud", "compute", "tpus", "queued-resources")
PYTHON = "3.11"
CONSTRAINTS = "constraints/py311.txt"
EXTRAS = "tpu,hf,gcs"
TARBALL = "sdd.tar.gz"

# The images bring an older Python than sdd needs, so uv fetches one; nothing outside the home folder changes.
INSTALL = f"""set -eu
rm -rf sdd
mkdir sdd
tar -xzf {TARBALL} -C sdd
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --user --quiet uv
python3 -m uv venv --quiet --python {PYTHON} sdd/.venv
cd sdd
python3 -m uv pip install --quiet --python .venv/bin/python -c {CONSTRAINTS} -e '.[{EXTRAS}]'
"""

# After a reboot the share is gone, so whatever starts the run puts it there.
MOUNT = """\
if ! mountpoint -q {at}; then
  command -v mount.nfs > /dev/null || {{ sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common; }}
  sudo mkdir -p {at}
  sudo mount -t nfs {host}:{share} {at} || {{ echo 1 > ~/sdd_run.exit; exit 1; }}
  sudo chmod 1777 {at}
fi
"""

# Kept on the worker: `bash sdd_run.sh` runs the same again.
RUN = r"""#!/usr/bin/env bash
# Written by launch/tpu_pod.py: one process of a run, and again after exit code {stopped} or {lost}.
set -u
cd ~/sdd || exit 1
echo $$ > ~/sdd_run.pid
rm -f ~/sdd_run.exit
{mount}{exports}
told_to_stop=
child=
code={stopped}
trap 'told_to_stop=1; if [ -n "$child" ]; then kill -TERM "$child"; fi' TERM
attempt=0
while [ -z "$told_to_stop" ]; do
  {command} &
  child=$!
  while :; do # a signal ends the wait early, not the process
    wait "$child"
    code=$?
    kill -0 "$child" 2> /dev/null || break
  done
  echo "exit code $code, attempt $attempt of at most {retries}"
  case $code in {stopped} | {lost}) ;; *) break ;; esac
  if [ "$attempt" -ge {retries} ]; then break; fi
  attempt=$((attempt + 1))
done
echo "$code" > ~/sdd_run.exit
"""

# The lock is the run's as long as any of it lives: a second start does nothing.
START = """cat > sdd_run.sh << 'END_OF_SCRIPT'
{script}END_OF_SCRIPT
setsid nohup flock -n sdd_run.lock bash sdd_run.sh >> sdd_run.log 2>&1 < /dev/null &
"""

# Says in one word how things are on a worker; `next_step` of launch/tpu_pod.py reads it.
PROBE = """\
if [ ! -e sdd/.venv ] || [ ! -e sdd_run.sh ]; then echo absent
elif [ -e sdd_run.exit ]; then cat sdd_run.exit
elif kill -0 "$(cat sdd_run.pid)" 2> /dev/null; then echo running
else echo lost; fi
"""


@dataclasses.dataclass(frozen=True)
class Pod:
    """Attributes:
    name: of the queued resource, and of its nodes.
    zone, project: where; an empty project is gcloud's own.
    type: the accelerator type, such as v6e-64.
    runtime: the image of the VMs, such as v2-alpha-tpuv6e.
    slices: how many, joined by the data centre's network.
    tier: spot, reserved or on_demand.
    service_account: who the VMs act as; empty: the project's default.
    nfs: (host, share) of the file share of all workers.
    """

    name: str
    zone: str
    project: str = ""
    type: str = ""
    runtime: str = ""
    slices: int = 1
    tier: str = "on_demand"
    service_account: str = ""
    nfs: tuple[str, str] | None = None


def create(pod: Pod) -> list[list[str]]:
    """Asks for the TPU; it is there once `status` says ACTIVE."""
    one = [f"--node-id={pod.name}"]
    several = [f"--node-count={pod.slices}", f"--node-prefix={pod.name}"]
    return [
        [
            *(*GCLOUD, "create", pod.name, *where(pod)),
            *(f"--accelerator-type={pod.type}", f"--runtime-version={pod.runtime}"),
            *(one if pod.slices == 1 else several),
            *([] if pod.tier == "on_demand" else [f"--{pod.tier}"]),
            *([f"--service-account={pod.service_account}"] if pod.service_account else []),
            *("--scopes=https://www.googleapis.com/auth/cloud-platform", "--async"),
        ]
    ]


def install(pod: Pod, folder: str) -> list[list[str]]:
    """Brings the last commit of this checkout to all workers, with Python and the pinned packages.

    Args:
      folder: where the archive is put before it is copied.
    """
    archive = f"{folder}/{TARBALL}"
    return [
        ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"],
        [*GCLOUD, "scp", archive, f"{pod.name}:", *where(pod), "--node=all", "--worker=all", "--quiet"],
        ssh(pod, INSTALL),
    ]


def run(
    pod: Pod, command: Sequence[str], variables: Sequence[tuple[str, str]], retries: int
) -> list[list[str]]:
    """Starts the command on all workers; it goes on when the connection ends."""
    script = run_script(command, variables, retries, pod.nfs)
    return [ssh(pod, START.format(script=script))]


def run_script(
    command: Sequence[str],
    variables: Sequence[tuple[str, str]],
    retries: int,
    nfs: tuple[str, str] | None = None,
) -> str:
    """What runs on each worker."""
    return RUN.format(
        mount=MOUNT.format(host=nfs[0], share=nfs[1], at=common.SHARED) if nfs else "",
        exports=common.exports(variables),
        command=shlex.join([".venv/bin/python", "-m", "sdd", *command]),
        stopped=common.STOPPED,
        lost=common.LOST,
        retries=retries,
    )


def stop(pod: Pod) -> list[list[str]]:
    """Tells the run to save and to end; `run` goes on from there."""
    return [ssh(pod, 'kill -TERM "$(cat sdd_run.pid)"')]


def logs(pod: Pod, node: int, worker: int) -> list[list[str]]:
    """Follows what one worker writes."""
    return [ssh(pod, "tail -n 200 -F sdd_run.log", str(node), str(worker))]


def status(pod: Pod) -> list[list[str]]:
    """How the request stands, and how the run does on the first worker."""
    return [state(pod), probe(pod)]


def delete(pod: Pod) -> list[list[str]]:
    """Gives the TPU back, with everything on its disks."""
    return [[*GCLOUD, "delete", pod.name, *where(pod), "--force", "--quiet"]]


def state(pod: Pod) -> list[str]:
    """Prints one word: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDING, SUSPENDED, FAILED, ..."""
    return [*GCLOUD, "describe", pod.name, *where(pod), "--format=value(state.state)"]


def probe(pod: Pod) -> list[str]:
    """Prints one word: absent, running, lost, or an exit code."""
    return ssh(pod, PROBE, "0", "0")


def ssh(pod: Pod, script: str, node: str = "all", worker: str = "all") -> list[str]:
    """Runs a script on workers."""
    at = [f"--node={node}", f"--worker={worker}"]
    return [*GCLOUD, "ssh", pod.name, *where(pod), *at, "--quiet", f"--command={script}"]


def where(pod: Pod) -> list[str]:
    """The flags that every command has."""
    return [f"--zone={pod.zone}", *([f"--project={pod.project}"] if pod.project else [])]
