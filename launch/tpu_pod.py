"""Runs a command of sdd on a Cloud TPU pod, through gcloud: from asking for the TPU to deleting it.

    python launch/tpu_pod.py create --name pod --zone ZONE --type v6e-64 --runtime v2-alpha-tpuv6e --spot
    python launch/tpu_pod.py install --name pod --zone ZONE
    python launch/tpu_pod.py run --name pod --zone ZONE --nfs HOST:/SHARE \\
        -- run CONFIG --workdir=/mnt/sdd/runs/NAME
    python launch/tpu_pod.py logs --name pod --zone ZONE --worker 0
    python launch/tpu_pod.py delete --name pod --zone ZONE

``watch``, with the options of create and the command of run, does all of this but the last, and again
whenever the pod is preempted, until the run has finished. Every gcloud command is shown before it is
executed (the looks of ``watch`` once); ``--dry_run`` only shows them. Nothing is created or deleted before
a question, or ``--yes``.

What is executed stands in `launch/tpu_commands.py`.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from launch import common, tpu_commands
from launch.tpu_commands import Pod

MAX_FAILURES = 5


def next_step(state: str, worker: str) -> str:
    """What `watch` does now; a pure function of what it sees.

    Args:
      state: of the queued resource, or NOT_FOUND.
      worker: what the probe says of the first worker; empty where it says nothing.

    Returns:
      wait, create, recreate, install, run, or, at the end, finished or failed.
    """
    if state == "NOT_FOUND":
        return "create"
    if state in ("SUSPENDED", "FAILED", "PREEMPTED"):
        return "recreate"
    if state != "ACTIVE":
        return "wait"
    if worker.isdigit() and int(worker) not in common.RETRY:
        return "failed" if int(worker) else "finished"
    # A run that has stopped and saved: somebody asked for it, or the pod is about to go.
    return {"absent": "install", "lost": "run"}.get(worker, "wait")


def look(pod: Pod) -> tuple[str, str]:
    """(state of the queued resource, what the first worker says), both as `next_step` takes them."""
    answer = subprocess.run(tpu_commands.state(pod), capture_output=True, text=True)
    if answer.returncode:
        return ("NOT_FOUND" if "NOT_FOUND" in answer.stderr else "UNREACHABLE"), ""
    now = answer.stdout.strip()
    if now != "ACTIVE":
        return now, ""
    words = subprocess.run(tpu_commands.probe(pod), capture_output=True, text=True).stdout.split()
    return now, words[-1] if words else ""


def watch(pod: Pod, start: list[list[str]], every: float) -> int:
    """Brings the run to its end through preemptions; returns its exit code.

    Args:
      start: the commands that start the run.
      every: seconds between looks.
    """
    common.execute(tpu_commands.status(pod), dry_run=True)  # said once: these are its looks
    said, failures = "", 0
    while True:
        now, worker = look(pod)
        step = next_step(now, worker)
        if f"{now} {worker} {step}" != said:
            said = f"{now} {worker} {step}"
            print(f"{time.strftime('%H:%M:%S')} {pod.name}: {now} {worker or '-'}: {step}", flush=True)
        if step in ("finished", "failed"):
            return int(worker)
        with tempfile.TemporaryDirectory() as folder:
            code = common.execute(commands_of(step, pod, start, folder), dry_run=False)
        if code or now == "FAILED":
            failures += 1
        elif now == "ACTIVE":
            failures = 0
        if failures > MAX_FAILURES:  # the pod may be paid for while this goes wrong
            return common.say(f"{step} failed {failures} times in a row; see to {pod.name}", code or 1)
        time.sleep(every)


def commands_of(step: str, pod: Pod, start: list[list[str]], folder: str) -> list[list[str]]:
    """The commands of a step of `watch`."""
    match step:
        case "create":
            return tpu_commands.create(pod)
        case "recreate":
            return [*tpu_commands.delete(pod), *tpu_commands.create(pod)]
        case "install":
            return [*tpu_commands.install(pod, folder), *start]
        case "run":
            return start
    return []


def make_parser() -> argparse.ArgumentParser:
    """The options of this launcher."""
    parser = common.make_parser("tpu_pod", "ACTION --name NAME --zone ZONE [options] [-- run CONFIG ...]")
    actions = ("create", "install", "run", "stop", "logs", "status", "watch", "delete")
    parser.add_argument("action", choices=actions)
    parser.add_argument("--name", required=True, help="of the queued resource")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", default="", help="(default: gcloud's own)")
    parser.add_argument("--type", default="", help="create, watch: the accelerator type, such as v6e-64")
    parser.add_argument("--runtime", default="", help="create, watch: the image, such as v2-alpha-tpuv6e")
    parser.add_argument("--slices", type=common.at_least(1), default=1, help="create, watch: (default: 1)")
    tier = parser.add_mutually_exclusive_group()
    tier.add_argument("--spot", dest="tier", action="store_const", const="spot", help="may be preempted")
    tier.add_argument("--reserved", dest="tier", action="store_const", const="reserved")
    parser.set_defaults(tier="on_demand")
    parser.add_argument("--service_account", default="", help="create, watch: who the VMs act as")
    parser.add_argument(
        "--env", type=common.variable, action="append", default=[], metavar="NAME=VALUE", help="for the run"
    )
    common.add_nfs(parser)
    parser.add_argument("--node", type=common.at_least(0), default=0, help="logs: the slice (default: 0)")
    parser.add_argument("--worker", type=common.at_least(0), default=0, help="logs: (default: 0)")
    parser.add_argument("--every", type=common.at_least(1), default=60, help="watch: seconds (default: 60)")
    parser.add_argument("--yes", action="store_true", help="do not ask before something is made or deleted")
    common.add_retries(parser, default=100)
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: gcloud's, or for ``watch`` the run's."""
    own, command = common.split_command(argv)
    parser = make_parser()
    options = parser.parse_args(own)
    action = options.action
    if action in ("run", "watch"):
        common.need_command(parser, command)
        common.need_shared_workdir(parser, command)
    if action in ("create", "watch") and not (options.type and options.runtime):
        parser.error(
            f"{action} needs --type and --runtime, for example --type v6e-64 --runtime v2-alpha-tpuv6e"
        )
    pod = Pod(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Pod)})
    start = tpu_commands.run(pod, command, options.env, options.retries) if command else []
    if options.dry_run:
        return common.execute(shown(options, pod, start), dry_run=True)

    if action in ("create", "watch", "delete"):
        what = "with all on its disks" if action == "delete" else f"{pod.slices} x {pod.type}, {pod.tier}"
        if not common.confirm(f"{action} {pod.name} in {pod.zone} ({what})?", options.yes):
            return 1
    if action == "watch":
        try:
            return watch(pod, start, options.every)
        except KeyboardInterrupt:
            return common.say(f"{pod.name} and its run go on without being watched", 130)
    with tempfile.TemporaryDirectory() as folder:
        return common.execute(one_action(options, pod, start, folder), dry_run=False)


def one_action(options: argparse.Namespace, pod: Pod, start: list[list[str]], folder: str) -> list[list[str]]:
    """The commands of an action that is not `watch`."""
    match options.action:
        case "install":
            return tpu_commands.install(pod, folder)
        case "run":
            return start
        case "logs":
            return tpu_commands.logs(pod, options.node, options.worker)
    simple = {"create": tpu_commands.create, "delete": tpu_commands.delete}
    return {**simple, "stop": tpu_commands.stop, "status": tpu_commands.status}[options.action](pod)


def shown(options: argparse.Namespace, pod: Pod, start: list[list[str]]) -> list[list[str]]:
    """What a dry run prints; of `watch` everything, in the order in which it would come."""
    if options.action != "watch":
        return one_action(options, pod, start, "FOLDER")
    look_at = tpu_commands.status(pod)
    steps = ("create", "install", "recreate")
    return [*look_at, *(c for step in steps for c in commands_of(step, pod, start, "FOLDER"))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
