"""Run folders and study folders -> claims, figures, one HTML page, a table for the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console

from sdd import claims as claims_lib
from sdd.claims.runs import Study, load_run, load_study
from sdd.writers import write_json_atomic


def write_study_report(study_path: str | Path, console: Console | None = None) -> dict[str, dict[str, Any]]:
    """Writes ``claims.json``, ``figures/*.png`` and ``report.html`` into a study folder.

    Args:
      study_path: holds ``seed_<s>/<method>/`` run folders.
      console: where the tables are printed; nowhere if None.

    Returns:
      The claims, see `sdd.claims`.

    Raises:
      ValueError: one line that names the missing or torn file.
    """
    study = load_study(study_path)
    claims = claims_lib.compute(study)
    write_json_atomic(study.path / "claims.json", claims)
    _write(study, claims, console)
    return claims


def write_run_report(run_path: str | Path, console: Console | None = None) -> Path:
    """Writes ``figures/*.png`` and ``report.html`` into a run folder, with what it holds so far.

    Returns:
      The path of the page.

    Raises:
      ValueError: one line that names the missing or torn file.
    """
    run = load_run(run_path)
    study = Study(run.path, {int(run.config.get("seed", 0)): {run.name: run}})
    _write(study, {}, console)
    return run.path / "report.html"


def _write(study: Study, claims: dict[str, dict[str, Any]], console: Console | None) -> None:
    # matplotlib is slow to import, and whoever imports sdd.study may never draw.
    from sdd.report import figures, page, summary, table

    rows = summary.final_rows(study)
    pngs = figures.draw_all(study, rows, study.path / "figures")
    page.write(study.path / "report.html", page.study_page(study, rows, pngs, claims))
    if console is not None:
        table.print_study(study, rows, claims, console)
