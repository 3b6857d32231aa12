"""``sdd sample`` and ``sdd eval``: their arguments, their output, their exit codes."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdd.shell import FINISHED, USAGE, UsageError, prepare_environment, say

POLICY_HELP = """  SOURCE              a run's folder; or an experiment file whose config.train.init_from
                      names weights (a folder of Hugging Face's, a .gguf file)
  --step=N            of a run: which checkpoint (default: the newest)
  --data_dir=DIR      where the task's data are (default: where the run keeps them)
  --config.KEY=VALUE  changes a value of the config, for example --config.eval.top_p=0.95 or
                      --config.mesh.fsdp=4
  --force_cpu_devices=N  the CPU, split into N devices
"""

SAMPLE_HELP = f"""sdd sample: rollouts of a run or a model, graded, as a file

usage:
  sdd sample SOURCE --split=S --out=FILE.jsonl [options]

{POLICY_HELP}  --split=S           train, or an evaluation split
  --num_prompts=N     the first N prompts: of train in the order in which the run's seed meets them
                      (default: all that training meets, or as many as the final evaluation)
  --num_samples=N     rollouts a prompt (default: 8)
  --temperature=X     (default: that of config.eval)
  --correct_only      leaves out wrong rollouts, and prompts without a right one
  --seed=N            of the sampling alone (default: the config's)
  --out=FILE.jsonl    a line a prompt, in the format of sdd measure; appears when all is sampled

examples:
  sdd sample runs/grpo --split=harder --num_samples=32 --out=harder.jsonl
  sdd sample runs/grpo --split=train --correct_only --out=demonstrations.jsonl
  sdd sample experiments/concept_graph/grpo.py --config.train.init_from=runs/warm --split=id --out=id.jsonl

exit codes:
  0    the file is written
  2    bad usage, or a run that cannot be read: one line says what is valid
  130  interrupted; no file is written
"""

EVAL_HELP = f"""sdd eval: evaluates a checkpoint as training does, without touching the run

usage:
  sdd eval SOURCE [options]

{POLICY_HELP}  --splits=S,...      (default: those of config.eval)
  --num_prompts=N     prompts of each split (default: config.eval.final_num_prompts)
  --num_samples=N     rollouts a prompt (default: config.eval.final_num_samples)
  --out=DIR           writes evaluation.json and rollouts/SPLIT.jsonl there
  --json              prints what evaluation.json holds, and no table

The numbers of a run's last checkpoint at its own sizes are those of its final evaluation, bit for bit on
the same kind of device. Metrics of a teacher are not measured.

examples:
  sdd eval runs/sdsd
  sdd eval runs/sdsd --step=250 --splits=harder --num_samples=128 --out=reports/step_250
  sdd eval runs/sdsd --json --config.eval.likelihood_samples=8

exit codes:
  0    evaluated
  2    bad usage, or a run that cannot be read: one line says what is valid
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(message)


def sample(args: Sequence[str]) -> int:
    """``sdd sample``: returns the exit code."""
    parser = _parser("sdd sample")
    parser.add_argument("--split", required=True)
    parser.add_argument("--num_prompts", type=_positive)
    parser.add_argument("--num_samples", type=_positive, default=8)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--correct_only", action="store_true")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", required=True)
    return _with_policy(parser, args, _sample)


def evaluate(args: Sequence[str]) -> int:
    """``sdd eval``: returns the exit code."""
    parser = _parser("sdd eval")
    parser.add_argument("--splits", type=lambda text: tuple(filter(None, text.split(","))), default=())
    parser.add_argument("--num_prompts", type=_positive)
    parser.add_argument("--num_samples", type=_positive)
    parser.add_argument("--out", default="")
    parser.add_argument("--json", action="store_true")
    return _with_policy(parser, args, _evaluate)


def _parser(name: str) -> _Parser:
    parser = _Parser(prog=name, add_help=False, allow_abbrev=False)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--step", type=int)
    parser.add_argument("--data_dir")
    parser.add_argument("--force_cpu_devices", type=_positive, default=0)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}; valid: 1, 2, 3, ...")
    return int(text)


def _with_policy(parser: _Parser, args: Sequence[str], command: Callable[..., None]) -> int:
    from sdd import overrides
    from sdd.typed import ConfigError

    changes, rest = overrides.split(args)
    options = parser.parse_intermixed_args(list(rest))
    if getattr(options, "temperature", None) is not None:
        changes.append(f"--config.eval.temperature={options.temperature}")
    prepare_environment(options.force_cpu_devices)
    from sdd.sample import policy

    try:
        _check_out(options)
        with policy.opened(options.source, changes, options.step, options.data_dir) as opened:
            command(options, *opened)
    except ConfigError as error:
        return say(str(error), USAGE)
    return FINISHED


def _check_out(options: argparse.Namespace) -> None:
    """Before an hour of sampling, not after it."""
    out = Path(options.out or ".")
    folder_wanted = hasattr(options, "splits")
    if out.exists() and out.is_dir() != folder_wanted:
        wanted = "a folder" if folder_wanted else "a file"
        raise UsageError(
            f"--out={options.out} is {'a file' if folder_wanted else 'a folder'}; valid: {wanted}"
        )
    parent = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not parent.is_dir() and parent != out:
        raise UsageError(f"--out={options.out}: {parent} is no folder; valid: a path in a folder")


def _sample(options: argparse.Namespace, job, params, step: int) -> None:
    from sdd.sample import policy, rollouts

    examples = policy.examples(job, options.split, options.num_prompts)
    seed = job.config.seed if options.seed is None else options.seed
    done = rollouts.write(
        job,
        params,
        examples,
        Path(options.out),
        split=options.split,
        num_samples=options.num_samples,
        seed=seed,
        step=step,
        correct_only=options.correct_only,
    )
    print(
        f"{options.out}: {done.prompts} prompts, {options.num_samples} rollouts each, "
        f"{100 * done.pass_at_1:.1f} % right, {done.solved} prompts with a right one"
    )


def _evaluate(options: argparse.Namespace, job, params, step: int) -> None:
    from sdd.sample import evaluation
    from sdd.writers import jsonable

    splits = options.splits or job.config.eval.splits
    found = evaluation.evaluate(
        job,
        params,
        splits,
        num_prompts=options.num_prompts,
        num_samples=options.num_samples,
        step=step,
        out=Path(options.out) if options.out else None,
    )
    if options.json:
        print(json.dumps(jsonable(found), allow_nan=False))
        return
    _print(found)
    if options.out:
        print(Path(options.out) / "evaluation.json")


def _print(found: dict[str, Any]) -> None:
    """Metrics down, splits across; of a curve the ends and 8."""
    from rich.console import Console
    from rich.table import Table

    splits = found["splits"]
    sizes = {f"{s['num_prompts']} prompts x {s['num_samples']}" for s in splits.values()}
    table = Table(title=f"step {found['step']}, {', '.join(sorted(sizes))}", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
    shown = {"1", "8", str(max(s["num_samples"] for s in splits.values()))}
    names = dict.fromkeys(name for s in splits.values() for name in s["metrics"])
    for name in names:
        at = name.rpartition("@")[2]
        if at.isdigit() and at not in shown:
            continue
        table.add_row(name, *(_interval(s["metrics"].get(name)) for s in splits.values()))
    Console(file=sys.stdout).print(table)


def _interval(e: dict[str, Any] | None) -> str:
    if e is None or e["value"] != e["value"]:
        return "–"
    return f"{e['value']:.3g} [{e['low']:.3g}, {e['high']:.3g}]"
