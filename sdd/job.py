"""What stays the same through a run, and how the run speaks."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import rich.console
from etils import epath
from rich.markup import escape

from sdd.build import Parts
from sdd.config import RunConfig
from sdd.terminal import shown
from sdd.writers import Writers


class Job(NamedTuple):
    """Attributes:
    config: the resolved config.
    workdir: the run folder.
    parts: what the config was built into.
    writers: the open logs.
    console: where to say what happens.
    stop_asked: ``() -> bool``, whether a signal asked the run to save and stop.
    most: ``(number) -> int``, the largest that any process gave; see `sdd.processes.most`.
    check_lock: raises ConfigError when another run has taken the folder over.
    """

    config: RunConfig
    workdir: epath.Path
    parts: Parts
    writers: Writers
    console: rich.console.Console
    stop_asked: Callable[[], bool]
    most: Callable[[int], int] = int
    check_lock: Callable[[], None] = lambda: None


def say(job: Job, text: str) -> None:
    """A line on the terminal, from the first process."""
    if jax.process_index() == 0:
        job.console.print(escape(shown(text)), highlight=False, soft_wrap=True)


def announce(job: Job, step: int, event: str, message: str) -> None:
    """Something a person should know: on the terminal and in events.jsonl."""
    job.writers.log_event(step, event, message)
    if jax.process_index() == 0:
        text = shown(message.removeprefix(f"{event}: "))
        job.console.print(
            f"[bold yellow]{escape(shown(event))}:[/] {escape(text)}", highlight=False, soft_wrap=True
        )
