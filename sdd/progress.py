"""How far a run is, shown to the person who waits for it."""

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import rich.console
import rich.progress
import rich.text

from sdd.terminal import printable as printable


@contextmanager
def busy(text: str, console: rich.console.Console | None, after: float = 2.0) -> Iterator[None]:
    """Shows that something is done, and for how long, where it takes longer than ``after`` seconds.

    Args:
      text: what is done.
      console: a terminal; on None, and on what is no terminal, nothing is shown.
      after: seconds.
    """
    if console is None or not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    columns = (rich.progress.SpinnerColumn(), rich.progress.TextColumn(text, markup=False))
    # What is printed meanwhile goes where it was meant to go, which may be a file.
    shown = rich.progress.Progress(
        *columns,
        rich.progress.TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    shown.add_task("", total=None)
    timer = threading.Timer(after, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may just be starting
        shown.stop()


def working(text: str) -> AbstractContextManager[None]:
    """`busy` on standard error: what a command prints may be read by a program."""
    return busy(text, rich.console.Console(stderr=True))


class _RateColumn(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(_rate(task.finished_speed or task.speed, task.fields["unit"]))


def _rate(per_second: float | None, unit: str) -> str:
    if per_second is None:
        return f"- {unit}s/s"
    digits = ".3g" if per_second < 1000 else ".0f"
    return f"{per_second:{digits}} {unit}s/s"


@contextmanager
def progress(
    total: int,
    start: int = 0,
    enabled: bool = True,
    console: rich.console.Console | None = None,
    unit: str = "step",
) -> Iterator[Callable[..., None]]:
    """Shows how far a run is, how fast it goes and how long it still takes.

    On a terminal a live bar; elsewhere (a log file, a pipe) a plain line at about every tenth of the way.

    Args:
      total: number of steps of the whole run.
      start: steps finished before this process began; they count as done, not into the rate.
      enabled: False shows nothing.
      console: where to show it; standard output when None.
      unit: what is counted.

    Yields:
      ``update(step, text="")``: ``step`` steps are finished; ``text`` is a short note such as ``loss 0.123``.
    """
    console = console or rich.console.Console()
    if not enabled:
        yield lambda step, text="": None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as bar:
            task = bar.add_task("", total=total, completed=start, text="", unit=unit)
            yield lambda step, text="": bar.update(task, completed=step, text=printable(text))
    else:
        yield _plain_lines(total, start, console, unit)


def _bar(console: rich.console.Console) -> rich.progress.Progress:
    columns = (
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _RateColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[text]}", markup=False),  # [x] in a text is not a style
    )
    # A step of a large model can take longer than the 30 s over which rich averages.
    return rich.progress.Progress(*columns, console=console, speed_estimate_period=600)


def _plain_lines(total: int, start: int, console: rich.console.Console, unit: str) -> Callable[..., None]:
    began = time.monotonic()
    shown = 0  # tenths of this process's share of the run

    def update(step: int, text: str = "") -> None:
        nonlocal shown
        tenth = 10 * (step - start) // max(total - start, 1)
        if tenth <= shown:
            return
        shown = tenth
        seconds = max(time.monotonic() - began, 1e-9)
        rate = (step - start) / seconds
        elapsed, left = (datetime.timedelta(seconds=int(s)) for s in (seconds, (total - step) / rate))
        line = (
            f"{unit} {step}/{total}  {_rate(rate, unit)}  elapsed {elapsed}  left {left}  {printable(text)}"
        )
        console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)

    return update
