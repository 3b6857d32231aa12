"""``sdd theory``: its arguments, its output, its exit code."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

HELP = """sdd theory: where training must end, and whether trained networks went there

usage:
  sdd theory bandit [--beta=B] [--follow=F] [--json]
  sdd theory START_RUN END_RUN... --out=FOLDER [--split=S] [--prompts=N] [--json]

  bandit         five answers, three of them right: the optima of RL, GRPO and SDSD as a table
  --beta=B       weight of the pull to the start in the RL optimum and GRPO (default 0.2)
  --follow=F     how strongly a reader follows its demonstration, 0 to 1 (default 0.6)

  START_RUN      the run that training started from, for example a warm start
  END_RUN...     runs that were trained from it
  --out=FOLDER   theory.json and theory.png go there
  --split=S      of the evaluations (default: the task's first)
  --prompts=N    of START_RUN's last rollouts, at most (default 128)
  --json         print what theory.json holds

For pairs of right answers to a prompt that START_RUN gave: the change of their log-ratio that the SDSD
optimum predicts from START_RUN's likelihoods, against the change in END_RUN. The RL optimum predicts 0.
What the numbers mean: docs/theory.md.

examples:
  sdd theory bandit --follow=0.9
  sdd theory runs/study/seed_0/warm_start runs/study/seed_0/sdsd_k1 --out=runs/study/theory

exit codes:
  0    finished
  2    bad usage, or a run that cannot be read: one line says what is valid
"""

FINISHED, USAGE = 0, 2


class _Usage(Exception):
    """A command line that means nothing: one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise _Usage(f"{message} (see sdd theory --help)")


def run(args: Sequence[str]) -> int:
    """``sdd theory``: returns the exit code; errors are one line on stderr."""
    from sdd.typed import ConfigError

    try:
        if args and args[0] == "bandit":
            return _bandit(args[1:])
        return _compare(args)
    except (_Usage, ConfigError, ValueError) as error:
        if "\n" in str(error):  # not one of ours, which are one line
            raise
        print(f"sdd: {error}", file=sys.stderr)
        return USAGE


def _bandit(args: Sequence[str]) -> int:
    parser = _Parser(prog="sdd theory bandit", add_help=False, allow_abbrev=False)
    parser.add_argument("--beta", type=float, default=0.2)
    parser.add_argument("--follow", type=float, default=0.6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(list(args))
    if not 0 <= options.follow <= 1:
        raise _Usage(f"--follow={options.follow}; valid: 0 to 1")
    if not options.beta > 0:
        raise _Usage(f"--beta={options.beta}; valid: above 0")
    from sdd.theory import bandit

    found = bandit.optima_of(options.beta, options.follow)
    if options.json:
        print(json.dumps({name: [float(p) for p in p_Y] for name, p_Y in found.items()}))
        return FINISHED
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"beta {options.beta:g}, follow {options.follow:g}", title_justify="left")
    table.add_column("probability of", no_wrap=True)
    for right in bandit.CORRECT:
        table.add_column("right" if right else "wrong", justify="right", no_wrap=True)
    table.add_column("ways", justify="right", no_wrap=True)
    for name, p_Y in found.items():
        table.add_row(name, *(f"{p:.3f}" for p in p_Y), f"{_ways(p_Y[bandit.CORRECT]):.2f}")
    Console().print(table)
    print("own: demonstrations are the trained policy's own right answers, from the start on")
    print("ways: exp of the entropy among right answers, how many of the three are in use")
    return FINISHED


def _ways(p_C) -> float:
    import numpy as np

    share_C = p_C / p_C.sum()
    return float(np.exp(-np.sum(share_C * np.log(np.maximum(share_C, 1e-300)))))


def _compare(args: Sequence[str]) -> int:
    parser = _Parser(prog="sdd theory", add_help=False, allow_abbrev=False)
    parser.add_argument("start", metavar="START_RUN")
    parser.add_argument("ends", metavar="END_RUN", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--split", default="")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_intermixed_args(list(args))
    if options.prompts < 1:
        raise _Usage(f"--prompts={options.prompts}; valid: 1 or more")
    from sdd.claims.runs import load_run
    from sdd.theory import prediction

    start, *ends = map(load_run, (options.start, *options.ends))
    names = [end.name for end in ends]
    if len(set(names)) < len(names):
        raise _Usage(f"END_RUN folders are called {', '.join(names)}; valid: different names")
    split = options.split or (start.splits or ("id",))[0]
    pairs_of = prediction.predict(start, ends, split, options.prompts)
    found = prediction.record(start, split, pairs_of)
    from sdd.claims.predicted import FILE
    from sdd.theory import figure
    from sdd.writers import write_json_atomic

    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / FILE, found)
    (out / "theory.png").write_bytes(figure.draw(pairs_of))
    if options.json:
        print(json.dumps(found))
        return FINISHED
    for name, each in found["runs"].items():
        print(f"{name}: {each['pairs']} pairs of {each['prompts']} prompts, split {split}")
        print(f"  measured change, root mean square {each['measured_rms']:.3g} nats (RL optimum: 0)")
        for key, text in prediction.PREDICTIONS.items():
            print(f"  {text}, root mean square {each[key]['rms']:.3g} nats")
            print(
                "    " + ", ".join(f"{what} {_interval(e)}" for what, e in each[key].items() if what != "rms")
            )
    print(out / "theory.png")
    return FINISHED


def _interval(e) -> str:
    return "–" if e["value"] is None else f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]"
