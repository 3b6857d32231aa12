"""Runs one experiment with many settings, and puts what they ended with into one table.

    python launch/sweep.py --grid config.step.num_demos=1,2,4 --grid config.seed=0,1 \\
        -- run CONFIG --workdir=runs/sweep
    python launch/sweep.py --list settings.txt --jobs 4 --launcher 'launch/slurm.py --wait --nodes 2' \\
        -- run CONFIG --workdir=runs/sweep

Every combination of a grid is a run in a folder of its own under --workdir; of a list, every line, which
holds overrides as they stand on the command line (a value with commas can only stand there). The same
command goes on where a sweep was stopped: runs that have their last evaluation are skipped, others resume.
What a run prints is in NAME.log beside its folder. In the end, and with ``--table`` at once, there are the
table and --workdir/sweep.csv. ``--dry_run`` prints the command of each run that is not finished.
"""

import argparse
import csv
import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
import rich.table

from launch import common

POLL_SECONDS = 0.2
METRICS = ("pass", "distinct_correct")  # at 1 and at the largest k that was measured


class Run(NamedTuple):
    """Attributes:
    name: of its folder under the sweep's.
    overrides: what is added to the command.
    """

    name: str
    overrides: tuple[str, ...]


def grid(axes: Sequence[str]) -> list[list[str]]:
    """``["config.a=1,2", "config.b=x"]`` -> the overrides of every combination, the last axis fastest.

    Raises:
      ValueError: an axis that is not KEY=VALUE,...
    """
    choices = []
    for axis in axes:
        key, equals, values = axis.lstrip("-").partition("=")
        if not equals or not key.startswith("config.") or not all(values.split(",")):
            raise ValueError(f"--grid={axis}: valid: config.KEY=VALUE,VALUE,...")
        choices.append([f"--{key}={value}" for value in values.split(",")])
    return [list(combination) for combination in itertools.product(*choices)]


def listed(text: str) -> list[list[str]]:
    """The overrides of every line; empty lines and what follows a ``#`` count for nothing.

    Raises:
      ValueError: a word that is no override.
    """
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    for word in itertools.chain(*lines):
        if not re.match(r"--(no)?config\.\w", word):
            raise ValueError(f"--list: {word!r}: valid: --config.KEY=VALUE")
    return [line for line in lines if line]


def named(settings: Sequence[Sequence[str]]) -> list[Run]:
    """Names each run by its settings: ``num_demos=1_seed=0``; by whole keys where their ends are equal.

    Raises:
      ValueError: two runs with the same settings.
    """
    keys = {re.split("=", word.lstrip("-"), maxsplit=1)[0] for words in settings for word in words}
    ends = [key.split(".")[-1] for key in keys]
    short = len(set(ends)) == len(ends)
    runs = []
    for words in settings:
        parts = []
        for word in words:
            key, equals, value = word.lstrip("-").partition("=")
            parts.append((key.split(".")[-1] if short else key) + equals + value)
        runs.append(Run(re.sub(r"[^\w.=+-]", "-", "_".join(parts)) or "default", tuple(words)))
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two runs would be called {name}; valid: each setting once")
    return runs


def command_of(run: Run, base: Sequence[str], workdir: Path, launcher: str) -> list[str]:
    """What is executed for a run: the command behind ``--`` with its own folder and overrides."""
    words, skip = [], False
    for word in base:
        if not skip and not re.match(r"--?workdir(=|$)", word):
            words.append(word)
        skip = word in ("--workdir", "-workdir")
    command = [*words, f"--workdir={workdir / run.name}", *run.overrides]
    if launcher:
        return [sys.executable, *shlex.split(launcher), "--", *command]
    return [sys.executable, "-m", "sdd", *command]


def final(folder: Path) -> dict[str, dict[str, Any]]:
    """Split -> metrics of the last evaluation of a finished run; empty while it is not finished."""
    try:
        config = json.loads((folder / "config.json").read_text())
        lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    except (OSError, ValueError):  # not begun, or killed in the middle of a line
        return {}
    last = {line["split"]: line["metrics"] for line in lines if line["step"] == config["train"]["num_steps"]}
    return last if set(config["eval"]["splits"]) <= set(last) else {}


def shown_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """pass@1, pass@k and distinct_correct@k, k being the largest that was measured."""
    largest: dict[str, int] = {}
    for name in metrics:
        if match := re.fullmatch(rf"({'|'.join(METRICS)})@(\d+)", name):
            largest[match[1]] = max(int(match[2]), largest.get(match[1], 0))
    columns = [f"{METRICS[0]}@1", *(f"{name}@{largest[name]}" for name in METRICS if name in largest)]
    return [name for name in dict.fromkeys(columns) if name in metrics]


def table(runs: Sequence[Run], workdir: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns (columns of metrics, a row a run and split); a run that is not finished has an empty row."""
    columns: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for run in runs:
        splits = final(workdir / run.name)
        for split, metrics in splits.items():
            shown = shown_metrics(metrics)
            columns |= dict.fromkeys(shown)
            rows.append({"run": run.name, "split": split, **{name: metrics[name] for name in shown}})
        if not splits:
            rows.append({"run": run.name, "split": "not finished"})
    return list(columns), rows


def write_table(runs: Sequence[Run], workdir: Path, console: rich.console.Console) -> None:
    """Prints the table and writes it to sweep.csv, with the ends of each 95 % interval."""
    columns, rows = table(runs, workdir)
    shown = rich.table.Table("run", "split", *columns)
    for row in rows:
        shown.add_row(row["run"], row["split"], *(cell(row.get(name)) for name in columns))
    console.print(shown)
    parts = ("value", "low", "high")
    with open(workdir / "sweep.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "split", *(f"{name} {part}" for name in columns for part in parts)])
        for row in rows:
            values = [row.get(name, {}).get(part) for name in columns for part in parts]
            writer.writerow([row["run"], row["split"], *values])
    console.print(str(workdir / "sweep.csv"), highlight=False, soft_wrap=True)


def cell(estimate: Mapping[str, Any] | None) -> str:
    """``0.250 [0.125, 0.375]``."""
    if estimate is None or estimate["value"] is None:
        return "-"
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**estimate)


def execute(commands: Mapping[str, list[str]], workdir: Path, jobs: int) -> tuple[dict[str, int], bool]:
    """Runs the commands, ``jobs`` at a time; SIGTERM and Ctrl-C go to those that run, and no other begins.

    Returns:
      (name -> exit code of those that ran, whether it was told to stop).
    """
    running: dict[str, subprocess.Popen] = {}
    received: list[int] = []
    codes: dict[str, int] = {}

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for process in list(running.values()):
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    waiting = list(commands)
    while running or (waiting and not received):
        if waiting and len(running) < jobs and not received:
            name = waiting.pop(0)
            with open(workdir / f"{name}.log", "ab") as log:
                running[name] = subprocess.Popen(
                    commands[name], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            if received:  # it came while this one was being started
                running[name].send_signal(received[0])
            print(f"{name}: started", flush=True)
            continue
        for name, process in list(running.items()):
            if (code := process.poll()) is not None:
                codes[name] = common.shell_code(code)
                del running[name]
                print(f"{name}: exit code {codes[name]}", flush=True)
        time.sleep(POLL_SECONDS)
    return codes, bool(received)


def make_parser() -> argparse.ArgumentParser:
    """The options of this launcher."""
    parser = common.make_parser("sweep", "[--grid KEY=VALUES ...] [--list FILE] [options] -- run ...")
    parser.add_argument("--grid", action="append", default=[], metavar="config.KEY=V,V", help="an axis")
    parser.add_argument("--list", type=Path, metavar="FILE", help="a line of overrides a run")
    parser.add_argument("--launcher", default="", help="such as 'launch/local.py --devices 4'")
    parser.add_argument("--jobs", type=common.at_least(1), default=1, help="runs at a time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns 0 when all is finished, 75 when it was told to stop, or else the code of the first failure."""
    own, command = common.split_command(argv)
    parser = make_parser()
    options = parser.parse_args(own)
    common.need_command(parser, command)
    workdir = common.workdir_of(command)
    if not workdir or "://" in workdir:
        parser.error(f"--workdir={workdir}: valid: a folder of this machine, where the table is read from")
    if bool(options.grid) == bool(options.list):
        parser.error("valid: --grid, once an axis, or --list FILE")
    try:
        runs = named(listed(options.list.read_text()) if options.list else grid(options.grid))
    except (OSError, ValueError) as error:
        parser.error(str(error))

    folder = Path(workdir)
    left = {
        run.name: command_of(run, command, folder, options.launcher)
        for run in runs
        if not final(folder / run.name)
    }
    if options.dry_run:
        for words in left.values():
            print(shlex.join(words))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    codes: dict[str, int] = {}
    stopped = False
    if not options.table:
        print(f"{len(runs)} runs, {len(runs) - len(left)} of them finished", flush=True)
        codes, stopped = execute(left, folder, options.jobs)
    # In a file no line is too long.
    write_table(runs, folder, rich.console.Console(width=None if sys.stdout.isatty() else 200))
    return common.STOPPED if stopped else common.verdict(codes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
