"""What the launchers share: exit codes, the command behind ``--``, and how commands are shown and run.

Every launcher is called as ``python launch/NAME.py [options] -- run CONFIG --workdir=...``: what stands
behind ``--`` is a command of sdd, the same in every process of a job. ``--dry_run`` prints what would be
executed, exactly, and executes nothing.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

# sdd's exit codes, see ``sdd --help``. After these two the same command goes on where the run was saved.
STOPPED, LOST = 75, 76
RETRY = (STOPPED, LOST)

# Where the hosts of a pod see the share that ``--nfs`` names.
SHARED = "/mnt/sdd"


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (the launcher's own arguments, the command behind the first ``--``)."""
    at = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def make_parser(name: str, usage: str) -> argparse.ArgumentParser:
    """A parser with what every launcher has."""
    parser = argparse.ArgumentParser(prog=f"launch/{name}.py", usage=f"python launch/{name}.py {usage}")
    parser.add_argument("--dry_run", action="store_true", help="print what would be executed; do nothing")
    return parser


def add_retries(parser: argparse.ArgumentParser, default: int) -> None:
    """``--retries``, which means the same in every launcher."""
    parser.add_argument(
        "--retries",
        type=at_least(0),
        default=default,
        metavar="R",
        help=f"start again up to R times after exit code 75 or 76 (default: {default})",
    )


def at_least(smallest: int):
    """A type for argparse: an integer that is not below ``smallest``."""

    def number(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text}: valid: {smallest} or more")
        return int(text)

    return number


def add_nfs(parser: argparse.ArgumentParser) -> None:
    """``--nfs``, which means the same in every launcher of a pod."""
    parser.add_argument(
        "--nfs",
        type=nfs_share,
        metavar="HOST:/SHARE",
        help=f"the file share of all hosts, put at {SHARED}: where --workdir lies",
    )


def nfs_share(text: str) -> tuple[str, str]:
    """``HOST:/SHARE`` -> (HOST, /SHARE): a type for argparse."""
    host, _, share = text.partition(":")
    if not re.fullmatch(r"[\w.-]+", host) or not re.fullmatch(r"(/[\w.-]+)+", share):
        raise argparse.ArgumentTypeError(f"{text}: valid: HOST:/SHARE")
    return host, share


def variable(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` -> (NAME, VALUE): a type for argparse."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise argparse.ArgumentTypeError(f"{text}: valid: NAME=VALUE")
    return name, value


def need_command(parser: argparse.ArgumentParser, command: Sequence[str]) -> None:
    """Ends the program, in one line, where nothing stands behind ``--``."""
    if not command:
        parser.error(
            "nothing to run: put the command of sdd after --, for example -- run CONFIG --workdir=..."
        )


def workdir_of(command: Sequence[str]) -> str:
    """The run folder that a command of sdd names; empty where it names none."""
    for i, word in enumerate(command):
        if word in ("--workdir", "-workdir") and i + 1 < len(command):
            return command[i + 1]
        if match := re.fullmatch(r"--?workdir=(.*)", word, re.DOTALL):
            return match[1]
    return ""


def need_shared_workdir(parser: argparse.ArgumentParser, command: Sequence[str]) -> None:
    """Ends the program, in one line, where the run folder would be another on every host."""
    workdir = workdir_of(command)
    if not workdir.startswith(("/", "gs://")):
        parser.error(
            f"--workdir={workdir}: the hosts share no such folder; valid: such as {SHARED}/runs/NAME"
        )


def job_name(command: Sequence[str]) -> str:
    """A name for a job that tells its run folder: lower case letters, digits and dashes, 40 at most."""
    words = re.sub(r"[^a-z0-9]+", "-", workdir_of(command).lower()).strip("-")
    return f"sdd-{words[-36:]}".replace("--", "-").strip("-")


def shell_line(variables: Mapping[str, str], command: Sequence[str]) -> str:
    """What a person would type to get the same."""
    return " ".join(
        [*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command)]
    )


def exports(variables: Iterable[tuple[str, str]]) -> str:
    """The lines of a script that set variables."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables]
    return "\n".join(["# shellcheck disable=SC2016 # values are as they are", *lines])


def execute(commands: Iterable[Sequence[str]], dry_run: bool) -> int:
    """Shows each command and, unless it is a dry run, runs it; stops at the first that fails.

    Returns:
      0, or the exit code of the command that failed.
    """
    for command in commands:
        print(shlex.join(command), flush=True)
        if not dry_run:
            code = subprocess.run(command).returncode
            if code:
                return say(f"exit code {code}: {command[0]}", shell_code(code))
    return 0


def confirm(question: str, yes: bool) -> bool:
    """Asks, unless it was answered on the command line; without a terminal the answer is no."""
    if yes:
        return True
    if not sys.stdin.isatty():
        print(f"{question}: nobody to ask; add --yes", file=sys.stderr)
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def shell_code(code: int) -> int:
    """What a shell calls the end of a process: 128 + the signal that ended it."""
    return 128 - code if code < 0 else code


def verdict(codes: Iterable[int]) -> int:
    """One exit code for several processes, given in the order in which they ended.

    A process that fails takes the others with it, and these say 76. So the first that says something
    else is why the job ended; 76 is the answer only where no process says more.
    """
    failed = [code for code in codes if code]
    return next((code for code in failed if code != LOST), failed[0] if failed else 0)


def say(message: str, code: int) -> int:
    """One line on stderr; returns the exit code."""
    print(f"launch: {message}", file=sys.stderr, flush=True)
    return code
