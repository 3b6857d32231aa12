"""Run folders and study folders -> claims, figures, tables, one HTML page, tables for the terminal.

Everything is imported when it is used: `sdd.cli` reads this package for a help text, and
whoever imports `sdd.study` may never draw.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from sdd.claims.runs import Study

_PACKAGES = ("altair", "vl_convert")


def write_study_report(study_path: str | Path, console: Console | None = None) -> dict[str, dict[str, Any]]:
    """Writes ``claims.json``, ``figures/``, ``tables/`` and ``report.html`` into a study folder.

    Without the packages of the extra ``report`` only ``claims.json`` is written, and the console says so.

    Args:
      study_path: holds ``seed_<s>/<method>/`` run folders.
      console: where the tables are printed; nowhere if None.

    Returns:
      The claims, see `sdd.claims`.

    Raises:
      ValueError: one line that names the missing or torn file.
    """
    from sdd import claims as claims_lib
    from sdd.claims.runs import load_study
    from sdd.writers import write_json_atomic

    study = load_study(study_path)
    claims = claims_lib.compute(study)
    write_json_atomic(study.path / "claims.json", claims)
    _write(study, claims, study.path / "report.html", console)
    return claims


def write_run_report(run_path: str | Path, console: Console | None = None) -> Path:
    """Writes ``figures/``, ``tables/`` and ``report.html`` into a run folder, with what it holds so far.

    Returns:
      The path of the page.

    Raises:
      ValueError: one line that names the missing or torn file.
    """
    from sdd.report import load

    return _write(load.load_one_run(run_path), {}, Path(run_path) / "report.html", console)


def write_report(paths: Sequence[str | Path], out: str | Path, console: Console | None = None) -> Path:
    """Writes a page of a study, a run, or of several compared, and ``figures/`` and ``tables/`` beside it.

    Args:
      paths: study folders and run folders; claims are shown for one study folder alone.
      out: the page's file.

    Returns:
      ``out``.

    Raises:
      ValueError: one line that names the missing or torn file.
    """
    from sdd.report import load

    study = load.load(paths)
    return _write(study, _claims(paths, study), Path(out), console)


def page_of(paths: str | Path | Sequence[str | Path]) -> str:
    """The page of folders that may still be written to: what is torn or missing is left out.

    Writes nothing. The same for the same files, except that rollouts are left out by size.

    Raises:
      ValueError: one line, where a folder holds no run at all.
      ModuleNotFoundError: one line that names what to install.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    require()
    from sdd.report import load, page

    study = load.load(paths, tolerant=True)
    try:
        claims = _claims(paths, study)
    except ValueError:  # a file that a claim needs is half written
        claims = {}
    return page.write_page(page.gather(study, claims))


def missing() -> list[str]:
    """Packages that a page needs and that are not installed."""
    return [name.replace("_", "-") for name in _PACKAGES if importlib.util.find_spec(name) is None]


def require() -> None:
    """Raises ModuleNotFoundError in one line where packages are missing."""
    if names := missing():
        raise ModuleNotFoundError(
            f"a report needs {' and '.join(names)}; install them with: pip install 'sdd[report]'"
        )


def _claims(paths: Sequence[str | Path], study: Study) -> dict[str, dict[str, Any]]:
    from sdd import claims as claims_lib
    from sdd.report import load

    alone = len(paths) == 1 and not load.is_run(Path(paths[0]))
    return claims_lib.compute(study) if alone else {}


def _write(study: Study, claims: dict[str, dict[str, Any]], out: Path, console: Console | None) -> Path:
    from sdd.report import summary, table

    if missing():
        if console is not None:
            table.print_study(study, summary.final_rows(study), claims, console)
            console.print(
                f"no page: {' and '.join(missing())} not installed; pip install 'sdd[report]'", markup=False
            )
        return out
    from sdd.report import figures, page, tables

    report = page.gather(study, claims)
    out.parent.mkdir(parents=True, exist_ok=True)
    figures.write(list(report.figures.values()), out.parent / "figures")
    tables.write(report.tables, out.parent / "tables")
    out.write_text(page.write_page(report), encoding="utf-8")
    if console is not None:
        table.print_study(study, report.rows, claims, console)
    return out
