"""Runs the notebooks and keeps what they print and draw: python docs/run_notebooks.py [NAME ...]"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).with_name("notebooks")


def executed(path: Path, timeout_s: int = 1800) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel.

    Raises:
      CellExecutionError: a cell failed.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the kernel inherits it
    notebook = nbformat.read(path, as_version=4)
    quiet = ["--log-level=40"]
    NotebookClient(notebook, timeout=timeout_s, kernel_name="python3", extra_arguments=quiet).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran: would change every time
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        nbformat.write(executed(FOLDER / f"{name}.ipynb"), FOLDER / f"{name}.ipynb")
