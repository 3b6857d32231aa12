"""Runs a command of sdd on this machine, on several CPU devices, in one process or in several.

    python launch/local.py --devices 8 -- run CONFIG --workdir=runs/try --config.mesh.fsdp=4
    python launch/local.py --processes 2 --devices 4 -- run CONFIG --workdir=runs/try --config.mesh.fsdp=4

A mesh that will later cover accelerators can be tried this way on a laptop: XLA splits the CPU into that
many devices. Several processes find each other as those of a pod do; each has that many devices, and a
``[p]`` before a line says which process wrote it. SIGTERM and Ctrl-C go to all of them.
``--dry_run`` prints the commands, ready for a shell, and starts nothing.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from launch import common

DEVICES_FLAG = "--xla_force_host_platform_device_count"


def environment(num_devices: int, xla_flags: str) -> dict[str, str]:
    """The variables that the command runs with; other flags that are already in ``xla_flags`` stay."""
    others = [flag for flag in xla_flags.split() if flag.split("=")[0] != DEVICES_FLAG]
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join([*others, f"{DEVICES_FLAG}={num_devices}"])}


def job_variables(port: int, num_processes: int) -> list[dict[str, str]]:
    """What tells each process its place; nothing where there is only one."""
    if num_processes == 1:
        return [{}]
    return [
        {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(num_processes),
            "JAX_PROCESS_ID": str(process),
        }
        for process in range(num_processes)
    ]


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(command: Sequence[str], shared: Mapping[str, str], num_processes: int) -> list[subprocess.Popen]:
    """Starts the processes of a job, at a port of its own."""
    return [
        subprocess.Popen(
            command,
            env=os.environ | {**shared, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: a terminal would send Ctrl-C to all, and the launcher a second one.
            start_new_session=True,
        )
        for own in job_variables(free_port(), num_processes)
    ]


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """Prints what the processes write until all have ended; returns the exit code of the whole."""
    ended: list[int] = []

    def follow(place: int, process: subprocess.Popen) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.buffer.write(b"[%d] %s\n" % (place, line.rstrip(b"\r\n")))
            sys.stdout.buffer.flush()
        ended.append(common.shell_code(process.wait()))

    threads = [threading.Thread(target=follow, args=each) for each in enumerate(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return common.verdict(ended)


def supervise(command: Sequence[str], shared: Mapping[str, str], num_processes: int, retries: int) -> int:
    """Runs a job, and again while its exit code asks for that; returns the last exit code."""
    running: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for process in running:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    attempt = 0
    while True:
        running[:] = start(command, shared, num_processes)
        if received:  # it came while they were being started
            pass_on(received[0], None)
        code = wait(running)
        if code not in common.RETRY or received or attempt == retries:
            return code
        attempt += 1
        common.say(f"exit code {code}: starting again ({attempt} of {retries})", code)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code; one process without retries becomes the command itself."""
    own, command = common.split_command(argv)
    parser = common.make_parser("local", "[--processes N] [--devices M] [--retries R] [--dry_run] -- run ...")
    parser.add_argument(
        "--processes",
        type=common.at_least(1),
        default=1,
        metavar="N",
        help="number of processes (default: 1)",
    )
    parser.add_argument(
        "--devices",
        type=common.at_least(1),
        default=8,
        metavar="M",
        help="number of CPU devices of each process (default: 8)",
    )
    common.add_retries(parser, default=0)
    options = parser.parse_args(own)
    common.need_command(parser, command)

    shared = environment(options.devices, os.environ.get("XLA_FLAGS", ""))
    command = [sys.executable, "-m", "sdd", *command]
    if options.dry_run:
        for variables in job_variables(free_port(), options.processes):
            print(common.shell_line({**shared, **variables}, command))
        return 0
    if options.processes == 1 and not options.retries:
        sys.stdout.flush()
        # Signals and the exit code are then the command's own.
        os.execve(command[0], command, os.environ | shared)
    return supervise(command, shared, options.processes, options.retries)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
