"""``sdd measure``: its arguments, its output, its exit code."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sdd.terminal import shown

CONDITION_HOLDS = 3

HELP = """sdd measure: metrics of rollouts that any program wrote, with intervals, and against a baseline

usage:
  sdd measure FILE... [--baseline FILE...] [options]

  FILE                   JSON lines (also .gz), parquet, or a folder of them
  --baseline FILE...     rollouts on the same prompts, to compare with
  --format=FORMAT        auto (default), sdd, verl, trl or openai
  --threshold=X          a score of at least X is right (default 1)
  --score=NAME           which field or reward column is the score
  --step=N               of dumps with several steps: which (default: the last)
  --split=NAME           only prompts of this split
  --ungraded             correctness is not known: diversity only
  --k=1,2,4,...          of pass@k and distinct@k (default: powers of two)
  --embedder=NAME        wordllama, minilm, minilm:FOLDER or package.module:function; may be repeated;
                         none: no embeddings (default: wordllama where it is installed)
  --out=DIR              writes report.html, curves.png, curves.svg and metrics.csv there
  --json                 prints one JSON object instead of a table
  --fail-if=CONDITION    exit code 3 where it holds; may be repeated
  --skip-bad             leaves bad lines out and counts them, instead of stopping at the first
  --workers=N            processes for the work on texts (default: 1)
  --seed=N               of the bootstrap (default 0)

A line of the format sdd is one completion, or one prompt with lists:
  {"prompt_id": "7", "prompt": "2 + 2 =", "completion": "4", "correct": true, "strategy": "recall"}
  {"prompt_id": "7", "prompt": "2 + 2 =", "completion": ["4", "5"], "correct": [true, false]}
prompt, strategy, answer and split are optional; correct may be a number (see --threshold).

examples:
  sdd measure after.jsonl --baseline before.jsonl
  sdd measure outputs/step_200.jsonl --format=verl --out=reports/step_200
  sdd measure after.jsonl --baseline before.jsonl --fail-if='distinct@8 < 0.8 * baseline'
  sdd measure after.jsonl --baseline before.jsonl --fail-if='pass@1.change.high < 0' --json

exit codes:
  0    measured
  2    bad usage or bad input: one line says where and what is valid
  3    measured, and a --fail-if condition holds
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        from sdd.measure.records import MeasureError

        raise MeasureError(f"{message} (see sdd measure --help)")


def run(args: Sequence[str]) -> int:
    """``sdd measure``: returns the exit code; errors are one line on stderr."""
    from sdd.embedders import EmbedderError
    from sdd.measure.records import BadLine, MeasureError

    try:
        return _run(_parse(args))
    except (MeasureError, BadLine, EmbedderError) as error:
        print(f"sdd: {shown(error)}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from sdd.measure import conditions, words
    from sdd.measure.records import MeasureError
    from sdd.measure.run import measure, to_json
    from sdd.progress import printable, working

    conditions_ = [conditions.parse(text) for text in options.fail_if]
    if options.out and Path(options.out).exists() and not Path(options.out).is_dir():
        raise MeasureError(f"--out {options.out}: exists and is no folder; valid: a folder, new or not")
    with working("measuring"):
        measured = measure(_request(options))
    c = measured.comparison
    failed = [cond.text for cond in conditions_ if conditions.holds(cond, c.metrics, c.baseline, c.change)]
    sentence = words.verdict(c.metrics, c.baseline, c.change)
    names = _names(options.files, options.baseline)
    if options.out:
        from sdd.measure import page

        with working("writing the page"):
            written = page.write(Path(options.out), measured, sentence, names)
    if options.json:
        print(json.dumps(to_json(measured) | {"verdict": sentence}, allow_nan=False))
    else:
        few = {measured.ks[0], 8, measured.ks[-1]} if not options.k else set(measured.ks)
        _print(measured, names, sorted(few))
        for warning in measured.warnings:
            print(f"note: {printable(warning)}")
        print(shown(sentence))
        if options.out:
            print(shown(written))
    for text in failed:
        print(f"sdd: --fail-if {text!r} holds", file=sys.stderr)
    return CONDITION_HOLDS if failed else 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="sdd measure", add_help=False, allow_abbrev=False)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--baseline", nargs="+", default=[])
    parser.add_argument("--format", default="auto")
    parser.add_argument("--threshold", type=float, default=1.0)
    parser.add_argument("--score", default="")
    parser.add_argument("--step", type=int, default=None)
    parser.add_argument("--split", default="")
    parser.add_argument("--ungraded", action="store_true")
    parser.add_argument("--k", type=_ks, default=())
    parser.add_argument("--embedder", action="append", default=[])
    parser.add_argument("--out", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fail-if", action="append", default=[])
    parser.add_argument("--skip-bad", action="store_true")
    parser.add_argument("--workers", type=_count, default=1)
    parser.add_argument("--seed", type=_count, default=0)
    options = parser.parse_intermixed_args(list(args))
    if not options.files:
        parser.error("no file is given")
    return options


def _ks(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(k) for k in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers; valid: 1,2,4") from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; valid: 0, 1, 2, ...")
    return int(text)


def _request(options: argparse.Namespace):
    from sdd.measure.records import Options
    from sdd.measure.run import Request

    return Request(
        files=tuple(options.files),
        baseline=tuple(options.baseline),
        format=options.format,
        options=Options(
            threshold=options.threshold, score=options.score, graded=not options.ungraded, step=options.step
        ),
        ks=options.k,
        embedders=_embedders(options.embedder),
        split=options.split,
        skip_bad=options.skip_bad,
        workers=options.workers,
        seed=options.seed,
    )


def _embedders(asked: Sequence[str]) -> tuple[str, ...]:
    """Those asked for; by default wordllama where it is installed."""
    import importlib.util

    if not asked:
        return ("wordllama",) if importlib.util.find_spec("wordllama") else ()
    return tuple(name for name in asked if name != "none")


def _names(files: Sequence[str], baseline: Sequence[str]) -> tuple[str, str]:
    """Short names of both sets of files: as much of the first one's path as tells them apart."""
    parts = [Path(side[0]).parts if side else () for side in (files, baseline)]
    depth = 1
    while parts[0][-depth:] == parts[1][-depth:] and depth < len(parts[0]):
        depth += 1
    more = [f" and {len(side) - 1} more" if len(side) > 1 else "" for side in (files, baseline)]
    return "/".join(parts[0][-depth:]) + more[0], "/".join(parts[1][-depth:]) + more[1]


def _print(measured, names: tuple[str, str], ks: Sequence[int]) -> None:
    """The table for the terminal; of each curve the rows at ``ks``, intervals where they decide."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sdd.measure.page import rows
    from sdd.progress import printable

    paired = measured.before is not None
    table = Table(title=f"{measured.prompts} prompts, {measured.samples} samples", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for head in names if paired else ():
        table.add_column(Text(printable(head)), justify="right")
    table.add_column("change" if paired else Text(printable(names[0])), justify="right", no_wrap=True)
    for name, value, before, change in rows(measured):
        at = name.rpartition("@")[2]
        if at.isdigit() and int(at) not in ks:
            continue
        cells = [_number(value), _number(before), _interval(change)] if paired else [_interval(value)]
        told = paired and change is not None and (change.low > 0 or change.high < 0)
        table.add_row(Text(printable(name)), *cells[:-1], Text(cells[-1], "bold" if told else ""))
    Console().print(table)


def _number(e) -> str:
    return "–" if e is None else f"{e.value:.3g}"


def _interval(e) -> str:
    return "–" if e is None else f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]"
