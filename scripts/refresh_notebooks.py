"""Run every notebook from top to bottom in a fresh kernel and keep its outputs: ``make notebooks``.

Each runs in a home of its own, offline and without a progress display, as the tests run it.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
VOLATILE = ("execution", "widgets", "language_info")


def refresh(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"TOOLKIT_HOME": home, "TOOLKIT_OFFLINE": "1", "CI": "1"}
        NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for name in VOLATILE:
        notebook.metadata.pop(name, None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    chosen = [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in chosen:
        refresh(path)
        print(path.name)
