"""The notebooks run in a fresh kernel, use public names alone, and are kept small with what they printed."""

import ast
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
executed = runpy.run_path(str(ROOT / "docs" / "run_notebooks.py"))["executed"]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(notebook) -> list[str]:
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [source.split("\n", 1)[1] if source.startswith("%%writefile") else source for source in cells]


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


@each
def test_public_names_alone_are_used(path):
    tree = ast.parse("\n".join(code(nbformat.read(path, as_version=4))))
    names = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [part for alias in node.names for part in alias.name.split(".")]
    assert "sdd" in names
    assert not [name for name in names if name.startswith("_") and name != "_replace"]


@each
def test_what_is_kept_is_small_and_whole(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 200_000
    assert any(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"), "run them again"
    assert "Traceback" not in printed(notebook) and "WARNING" not in printed(notebook)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each
def test_it_runs_and_finds_what_it_says(path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # a reader's machine has one CPU device
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    text = printed(executed(path))
    if path.stem == "measure":  # the toy's truth: training made it better at once and narrower
        assert "more right answers, fewer problems within 32 tries, fewer ways" in text
    else:  # it has checked itself that its table ends where theory says
        ways = {
            line.split()[0]: float(line.split()[-1]) for line in text.splitlines() if "ways in use" in line
        }
        assert ways["shared"] > ways["GRPO"] + 0.1
