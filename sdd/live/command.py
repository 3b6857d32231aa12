"""``sdd watch``: its arguments, what it serves, its exit code."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sdd.shell import FINISHED, Parser, UsageError, exit_codes

HELP = f"""sdd watch: the report of a run or study while it goes on, in a browser on this machine

usage:
  sdd watch DIR [--port=N] [--open]

  DIR        a run's or a study's folder, which need not be there yet; it is only read
  --port=N   of the loopback, 1024 to 65535 (default: a free one)
  --open     also opens the page in the browser

Prints the page's address and serves it until Ctrl-C. The page says how far the run is and shows a new report
when an evaluation has been written. The address holds a token that nobody else knows: whoever has it can
read the report until the command ends. From another machine: ssh -L N:127.0.0.1:N HOST, with --port=N.

examples:
  sdd watch runs/smoke
  sdd watch runs/study --port=8631

{exit_codes(FINISHED, 2)}"""


def run(args: Sequence[str]) -> int:
    """``sdd watch``: returns the exit code, once Ctrl-C or SIGTERM asks it to end.

    Raises:
      UsageError: an argument that means nothing, or a port that cannot be had.
    """
    options = _parse(args)
    from sdd.live import pages, server

    folder = Path(options.folder)
    try:
        live = server.bind(pages.Pages(folder, pages.report_of), options.port)
    except OSError as error:
        why = f"{error.strerror}; valid: another port, or none for a free one"
        raise UsageError(f"--port={options.port}: {why}") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{live.url}\nCtrl-C ends it", flush=True)
    if options.open:
        _open(live.url)
    try:
        live.server.serve_forever()
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    finally:
        live.server.server_close()
    return FINISHED


def _open(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        print("sdd: no browser found; open the address above", file=sys.stderr)


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser("sdd watch")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--port", type=_port, default=0)
    parser.add_argument("--open", action="store_true")
    options = parser.parse_intermixed_args(list(args))
    if "://" in options.folder:
        raise UsageError(f"{options.folder}: valid: a folder of this machine")
    if Path(options.folder).exists() and not Path(options.folder).is_dir():
        raise UsageError(f"{options.folder} is no folder; valid: the folder of a run or a study")
    return options


def _port(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}; valid: 1024 to 65535")
    return int(text)
