"""Submits a command of sdd to Slurm: one process a node, or one a GPU.

    python launch/slurm.py --nodes 2 --time 12:00:00 -- run CONFIG --workdir=runs/try
    python launch/slurm.py --nodes 2 --gpus_per_node 8 -- run CONFIG --workdir=runs/try --config.mesh.fsdp=16

Two minutes before the time limit, and when the job is preempted or requeued, Slurm sends SIGTERM to the
processes; sdd then saves and exits with 75. The script puts the job back into the queue after 75 and after
76, and the same command goes on from there. It ends for good after any other exit code. Jobs of one run
folder have one name and never run at the same time. The checkout and the run folder must be on a file
system that all nodes share. ``--dry_run`` prints the command and the script, and submits nothing.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import common

SCRIPT = r"""#!/usr/bin/env bash
{directives}
set -u
cd {checkout} || exit 1
{exports}
# What each process exited with: srun itself knows only the highest, and says 76 where one failed with 1
# and the others lost it.
codes=$(mktemp -d {folder}/codes-XXXXXX) || exit 1
export codes
trap 'rm -rf "$codes"' EXIT

# Slurm may send SIGTERM to this script as well as to the processes: it is theirs to act on.
trap : TERM
# shellcheck disable=SC2016 # the process's own shell puts the values in
srun --kill-on-bad-exit=0 bash -c \
  'trap : TERM; "$@"; code=$?; echo "$code" > "$codes/$SLURM_PROCID"; exit "$code"' task \
  {command} &
child=$!
while :; do # a signal ends the wait early, not srun
  wait "$child"
  code=$?
  kill -0 "$child" 2> /dev/null || break
done
for file in "$codes"/*; do
  case $(cat "$file" 2> /dev/null) in
    '' | 0 | {lost}) ;;
    {stopped}) if [ "$code" = {lost} ]; then code={stopped}; fi ;;
    *) code=$(cat "$file") && break ;;
  esac
done

echo "slurm: exit code $code, restart ${{SLURM_RESTART_COUNT:-0}} of at most {retries}"
case $code in
  {stopped} | {lost})
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {retries} ]; then
      scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script in that time
    fi
    ;;
esac
exit "$code"
"""


def directives(options: argparse.Namespace, name: str) -> list[str]:
    """The lines that tell Slurm what the job needs."""
    tasks = options.gpus_per_node or 1
    lines = [
        f"--job-name={name}",
        "--dependency=singleton",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={tasks}",
    ]
    if options.gpus_per_node:
        # Not --gpus-per-task: jax picks a process's GPU by its number among all of the node.
        lines.append(f"--gpus-per-node={options.gpus_per_node}")
    if options.time:
        lines.append(f"--time={options.time}")
    return [
        *lines,
        "--requeue",
        "--open-mode=append",
        f"--signal=TERM@{options.save_seconds}",
        f"--output={options.log_dir}/%x-%j.log",
        *options.sbatch,
    ]


def script(options: argparse.Namespace, command: Sequence[str], checkout: Path, python: str) -> str:
    """The batch script, a pure function of the options."""
    return SCRIPT.format(
        directives="\n".join(
            f"#SBATCH {line}" for line in directives(options, options.name or common.job_name(command))
        ),
        checkout=shlex.quote(str(checkout)),
        exports=common.exports(options.env),
        folder=shlex.quote(str(options.log_dir)),
        command=shlex.join([python, "-m", "sdd", *command]),
        stopped=common.STOPPED,
        lost=common.LOST,
        retries=options.retries,
    )


def make_parser() -> argparse.ArgumentParser:
    """The options of this launcher."""
    parser = common.make_parser(
        "slurm", "[--nodes N] [--gpus_per_node M] [--time LIMIT] [--dry_run] -- run ..."
    )
    parser.add_argument("--nodes", type=common.at_least(1), default=1, metavar="N", help="(default: 1)")
    parser.add_argument(
        "--gpus_per_node",
        type=common.at_least(0),
        default=0,
        metavar="M",
        help="one process a GPU; without it, one a node",
    )
    parser.add_argument("--time", default="", help="the time limit, as sbatch has it, such as 12:00:00")
    parser.add_argument(
        "--save_seconds",
        type=common.at_least(1),
        default=120,
        help="SIGTERM comes so long before the time limit (default: 120)",
    )
    parser.add_argument(
        "--log_dir",
        type=Path,
        default=Path("runs/slurm"),
        help="where the output goes, on every node (default: runs/slurm)",
    )
    parser.add_argument("--name", default="", help="of the job (default: from the run folder)")
    parser.add_argument(
        "--env", type=common.variable, action="append", default=[], metavar="NAME=VALUE", help="for the job"
    )
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="--FLAG=VALUE",
        help="what else to tell sbatch: --sbatch=--partition=long --sbatch=--account=lab",
    )
    parser.add_argument("--wait", action="store_true", help="wait for the job; its exit code is this one's")
    common.add_retries(parser, default=100)
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns sbatch's exit code; with ``--wait`` the job's."""
    own, command = common.split_command(argv)
    parser = make_parser()
    options = parser.parse_args(own)
    common.need_command(parser, command)
    options.log_dir = options.log_dir.absolute()
    text = script(options, command, Path.cwd(), sys.executable)
    submit = ["sbatch", *(["--wait"] if options.wait else [])]
    print(shlex.join(submit))
    if options.dry_run:
        print(text, end="")
        return 0
    options.log_dir.mkdir(parents=True, exist_ok=True)  # Slurm does not make it, and says nothing
    sys.stdout.flush()
    return subprocess.run(submit, input=text, text=True).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
