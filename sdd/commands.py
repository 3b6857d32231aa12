"""The table of commands: what each does, an example, and the module that it is in."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command of the table below.

    Attributes:
      module: has ``HELP`` and ``run(args) -> exit code``, and imports nothing heavy by itself.
      summary: what it does, in a few words.
      example: a command line.
      on_the_cpu: it computes little, and starts no accelerator.
      help, run: other names for the module's ``HELP`` and ``run``.
    """

    module: str
    summary: str
    example: str
    on_the_cpu: bool = True
    help: str = "HELP"
    run: str = "run"


COMMANDS = {
    "run": Command(
        "sdd.run",
        "train by a config, or run a study",
        "sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke",
        on_the_cpu=False,
    ),
    "watch": Command(
        "sdd.live.command",
        "the report of a run or study while it goes on, in the browser",
        "sdd watch runs/smoke",
    ),
    "report": Command(
        "sdd.report.command",
        "write the report of a study, a run or several",
        "sdd report runs/study",
    ),
    "eval": Command(
        "sdd.sample.command",
        "evaluate a checkpoint as training does",
        "sdd eval runs/sdsd --json",
        on_the_cpu=False,
        help="EVAL_HELP",
        run="evaluate",
    ),
    "sample": Command(
        "sdd.sample.command",
        "rollouts of a run or a model, graded, as a file",
        "sdd sample runs/grpo --split=harder --out=harder.jsonl",
        on_the_cpu=False,
        help="SAMPLE_HELP",
        run="sample",
    ),
    "measure": Command(
        "sdd.measure.command",
        "metrics of rollouts that any program wrote",
        "sdd measure after.jsonl --baseline before.jsonl",
    ),
    "plan": Command(
        "sdd.plan.command",
        "what a config needs on chips that are not there",
        "sdd plan experiments/concept_graph/sdsd.py --topology=v5e:2x2",
    ),
    "doctor": Command(
        "sdd.doctor.command",
        "what this machine has, and whether a config fits it",
        "sdd doctor experiments/concept_graph/sdsd.py",
        on_the_cpu=False,
    ),
    "theory": Command(
        "sdd.theory.command",
        "where training must end, and where it did",
        "sdd theory bandit --follow=0.9",
    ),
    "convert": Command(
        "sdd.weights.command",
        "weights from one kind of folder to another",
        "sdd convert runs/smollm2 exported",
    ),
    "init": Command(
        "sdd.scaffold.command",
        "the files of a new method, task or metric, with tests",
        "sdd init my_method",
    ),
    "completion": Command(
        "sdd.completion.command",
        "completion of command lines for bash, zsh and fish",
        'eval "$(sdd completion bash)"',
    ),
}
