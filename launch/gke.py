"""Runs a command of sdd on TPU slices of a GKE cluster, as a JobSet.

    python launch/gke.py --image IMAGE --accelerator tpu-v6e-slice --topology 8x8 --nfs HOST:/SHARE \\
        --dry_run -- run CONFIG --workdir=/mnt/sdd/runs/NAME
    python launch/gke.py --xpk --image IMAGE --cluster CLUSTER --zone ZONE --project PROJECT \\
        --tpu_type v6e-64 -- run CONFIG --workdir=/mnt/sdd/runs/NAME

``--dry_run`` prints the manifest; without it, it goes to ``kubectl apply``. A pod that was stopped after
saving (exit code 75) or taken away by the cluster restarts the job without limit; one that lost another
(76) restarts it up to ``--retries`` times; any other exit code ends it. With ``--xpk`` the same is asked of
xpk, for clusters that xpk has made. The cluster needs JobSet 0.10.1 or later.

Sources: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/,
https://cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice
"""

import argparse
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from launch import common

CONTAINER = "sdd"
# Rules are tried in order, and the Job's message ends with the number of the one that matched. Kubernetes
# gives all of them the same reason, so this number is how JobSet tells them apart.
POD_RULES: tuple[dict[str, Any], ...] = (
    {
        "action": "FailJob",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [common.STOPPED]},
    },
    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {
        "action": "FailJob",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [common.LOST]},
    },
)
JOBSET_RULES: tuple[dict[str, Any], ...] = (
    {
        "name": "savedOrTakenAway",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
        "onJobFailureMessagePatterns": ["matching FailJob rule at index [01]$"],
    },
    {
        "name": "lostAnother",
        "action": "RestartJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
        "onJobFailureMessagePatterns": ["matching FailJob rule at index 2$"],
    },
    {"name": "failed", "action": "FailJobSet"},
)


def hosts(topology: str, chips_per_host: int) -> int:
    """How many machines a slice has: 4x8 chips, 4 a host -> 8.

    Raises:
      ValueError: the chips do not fill the hosts.
    """
    if not re.fullmatch(r"\d+(x\d+){1,2}", topology):
        raise ValueError(f"--topology={topology}: valid: such as 4x8 or 4x4x4")
    chips = math.prod(int(side) for side in topology.split("x"))
    if chips % chips_per_host:
        raise ValueError(f"--topology={topology}: {chips} chips, {chips_per_host} a host: does not divide")
    return chips // chips_per_host


def manifest(options: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """The JobSet, a pure function of the options."""
    num_hosts = hosts(options.topology, options.chips_per_host)
    job = {
        "parallelism": num_hosts,
        "completions": num_hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": list(POD_RULES)},
        "template": {"spec": pod(options, command)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": options.name or common.job_name(command),
            "namespace": options.namespace,
            # One slice, one node pool: no two jobs share a slice.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": options.retries, "rules": list(JOBSET_RULES)},
            "replicatedJobs": [{"name": "slice", "replicas": options.slices, "template": {"spec": job}}],
        },
    }


def pod(options: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """What runs on each host of a slice."""
    container = {
        "name": CONTAINER,
        "image": options.image,
        "command": ["sdd", *command],
        "env": [{"name": name, "value": value} for name, value in options.env],
        # Between the hosts of a slice, and between slices.
        "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
        **({"volumeMounts": [{"name": "shared", "mountPath": common.SHARED}]} if options.nfs else {}),
        "resources": {"limits": {"google.com/tpu": options.chips_per_host}},
    }
    spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    share = options.nfs and {"server": options.nfs[0], "path": options.nfs[1]}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": options.grace_seconds,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": options.accelerator,
            "cloud.google.com/gke-tpu-topology": options.topology,
            **({"cloud.google.com/gke-spot": "true"} if options.spot else {}),
        },
        **({"tolerations": [spot]} if options.spot else {}),
        **({"serviceAccountName": options.service_account} if options.service_account else {}),
        "containers": [container],
        **({"volumes": [{"name": "shared", "nfs": share}]} if share else {}),
    }


def xpk(options: argparse.Namespace, command: Sequence[str]) -> list[str]:
    """The same for xpk, which writes its own JobSet."""
    return [
        *("xpk", "workload", "create"),
        f"--workload={options.name or common.job_name(command)}",
        f"--cluster={options.cluster}",
        *([f"--project={options.project}"] if options.project else []),
        f"--zone={options.zone}",
        f"--tpu-type={options.tpu_type}",
        f"--num-slices={options.slices}",
        f"--docker-image={options.image}",
        f"--max-restarts={options.retries}",
        f"--restart-on-exit-codes={common.STOPPED},{common.LOST}",
        f"--termination-grace-period-seconds={options.grace_seconds}",
        *(word for name, value in options.env for word in ("--env", f"{name}={value}")),
        f"--command={shlex.join(['sdd', *command])}",
    ]


def make_parser() -> argparse.ArgumentParser:
    """The options of this launcher."""
    parser = common.make_parser("gke", "--image IMAGE --accelerator A --topology T [options] -- run ...")
    parser.add_argument("--image", required=True, help="a container image in which sdd is installed")
    parser.add_argument("--accelerator", default="", help="of the node pool, such as tpu-v6e-slice")
    parser.add_argument("--topology", default="", help="of a slice, such as 8x8")
    parser.add_argument("--chips_per_host", type=common.at_least(1), default=4, help="(default: 4)")
    parser.add_argument("--slices", type=common.at_least(1), default=1, help="(default: 1)")
    parser.add_argument("--spot", action="store_true", help="on node pools of Spot VMs")
    parser.add_argument("--name", default="", help="of the JobSet (default: from the run folder)")
    parser.add_argument("--namespace", default="default", help="(default: default)")
    parser.add_argument("--service_account", default="", help="of Kubernetes")
    common.add_nfs(parser)
    parser.add_argument(
        "--env", type=common.variable, action="append", default=[], metavar="NAME=VALUE", help="for the run"
    )
    parser.add_argument(
        "--grace_seconds",
        type=common.at_least(0),
        default=300,
        help="how long a pod may save before it is killed (default: 300)",
    )
    parser.add_argument("--xpk", action="store_true", help="leave the JobSet to xpk")
    parser.add_argument("--cluster", default="", help="xpk: the cluster")
    parser.add_argument("--zone", default="", help="xpk: where it is")
    parser.add_argument("--project", default="", help="xpk: (default: gcloud's own)")
    parser.add_argument("--tpu_type", default="", help="xpk: such as v6e-64")
    common.add_retries(parser, default=20)
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns the exit code of kubectl or xpk."""
    own, command = common.split_command(argv)
    parser = make_parser()
    options = parser.parse_args(own)
    common.need_command(parser, command)
    common.need_shared_workdir(parser, command)
    needed = ("cluster", "zone", "tpu_type") if options.xpk else ("accelerator", "topology")
    for name in needed:
        if not getattr(options, name):
            parser.error(f"--{name} is missing")
    name = options.name or common.job_name(command)
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        parser.error(f"--name={name}: valid: lower case letters, digits and dashes, 40 at most")
    if options.xpk and options.nfs:
        parser.error("--nfs: xpk writes its own pods; valid: `xpk storage attach`, and no --nfs")
    if options.xpk:
        return common.execute([xpk(options, command)], options.dry_run)
    try:
        text = json.dumps(manifest(options, command), indent=2)
    except ValueError as error:
        parser.error(str(error))
    if options.dry_run:
        print(text)
        return 0
    apply = ["kubectl", "apply", "-f", "-"]
    print(f"{text}\n{shlex.join(apply)}", flush=True)
    return subprocess.run(apply, input=text, text=True).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
