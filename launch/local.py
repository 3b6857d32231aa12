"""Runs a command of sdd on this machine, on several CPU devices.

    python launch/local.py --devices 8 -- run CONFIG --workdir=runs/try --config.mesh.fsdp=4

A mesh that will later cover accelerators can be tried this way on a laptop: XLA splits the CPU into that
many devices. ``--dry_run`` prints the command, ready for a shell, and starts nothing.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

DEVICES_FLAG = "--xla_force_host_platform_device_count"


def environment(num_devices: int, xla_flags: str) -> dict[str, str]:
    """The variables that the command runs with; other flags that are already in ``xla_flags`` stay."""
    others = [flag for flag in xla_flags.split() if flag.split("=")[0] != DEVICES_FLAG]
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join([*others, f"{DEVICES_FLAG}={num_devices}"])}


def shell_line(variables: Mapping[str, str], command: Sequence[str]) -> str:
    """What a person would type to get the same."""
    return " ".join(
        [*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command)]
    )


def main(argv: Sequence[str]) -> None:
    """Replaces this process by the command, so that signals and the exit code are the command's own."""
    own, command = list(argv), []
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="launch/local.py",
        usage="python launch/local.py [--devices N] [--dry_run] -- run CONFIG --workdir=...",
    )
    parser.add_argument("--devices", type=int, default=8, help="number of CPU devices (default: 8)")
    parser.add_argument("--dry_run", action="store_true", help="print what would be run; run nothing")
    options = parser.parse_args(own)
    if options.devices < 1:
        parser.error(f"--devices={options.devices}: valid: 1 or more")
    if not command:
        parser.error(
            "nothing to run: put the command of sdd after --, for example -- run CONFIG --workdir=..."
        )

    variables = environment(options.devices, os.environ.get("XLA_FLAGS", ""))
    command = [sys.executable, "-m", "sdd", *command]
    if options.dry_run:
        print(shell_line(variables, command))
    else:
        sys.stdout.flush()
        os.execve(command[0], command, os.environ | variables)


if __name__ == "__main__":
    main(sys.argv[1:])
