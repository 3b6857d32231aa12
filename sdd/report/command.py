"""``sdd report``: its arguments, its output, its exit code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

HELP = """sdd report: one page of a study, of a run, or of several compared

usage:
  sdd report RUN... [--out=FILE]

  RUN          a study's folder (with seed_0/ ...) or a run's folder (with config.json)
  --out=FILE   the page; figures/ and tables/ go beside it (default, of one RUN: report.html in its folder).
               Needed where several are compared.

Writes one page that opens from disk and asks the network for nothing, figures/*.png and *.svg, and
tables/*.csv and *.tex (for LaTeX with booktabs); of a study also claims.json in its folder.

examples:
  sdd report runs/study
  sdd report runs/study/seed_0/sdsd_k1
  sdd report runs/study/seed_0/grpo runs/sdsd --out=reports/compared.html

exit codes:
  0    written
  2    bad usage or a broken file: one line says where and what is valid
"""


class _Usage(Exception):
    """A slip on the command line, as one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise _Usage(f"{message} (see sdd report --help)")


def run(args: Sequence[str]) -> int:
    """``sdd report``: returns the exit code; errors are one line on stderr."""
    import rich.console

    import sdd.report
    from sdd.progress import working
    from sdd.terminal import shown

    try:
        options = _parse(args)
        sdd.report.require()
        console = rich.console.Console()
        folder = Path(options.runs[0])
        with working("numbers, figures and the page"):
            if options.out:
                page = sdd.report.write_report(options.runs, options.out, console)
            elif (folder / "config.json").exists():
                page = sdd.report.write_run_report(folder, console)
            else:
                sdd.report.write_study_report(folder, console)
                page = folder / "report.html"
    except (_Usage, ValueError, ModuleNotFoundError) as error:
        if "\n" in str(error):  # not one of the report's own, which are one line
            raise
        print(f"sdd: {error}", file=sys.stderr)
        return 2
    print(shown(page))
    return 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="sdd report", add_help=False, allow_abbrev=False)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--out", default="")
    options = parser.parse_intermixed_args(list(args))
    if not options.runs:
        parser.error("no folder is given; valid: the folders of runs and studies")
    for name in options.runs:
        if not Path(name).is_dir():
            parser.error(f"there is no folder {name!r}")
    if len(options.runs) > 1 and not options.out:
        parser.error("several folders need --out=FILE, the page to write")
    if options.out and Path(options.out).is_dir():
        parser.error(f"--out={options.out} is a folder; valid: a file, for example {options.out}/report.html")
    return options
