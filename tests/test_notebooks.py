"""What ``--nbval`` alone does not see: outputs that are missing, out of order, or hold what must not be published."""

import pathlib
import re

import nbformat
import pytest

BOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MUST_NOT_APPEAR = re.compile(r"sk-[A-Za-z0-9]{16,}|/home/|/root/|/Users/|/tmp/|/toolkit/\w+\.py|application/vnd\.jupyter\.widget-view")


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_a_notebook_was_run_from_top_to_bottom_and_shows_what_came_out(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    assert not MUST_NOT_APPEAR.search(path.read_text())


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_a_notebook_has_a_title_and_headings_and_uses_public_names_only(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].source.startswith("# ")
    assert any(cell.cell_type == "markdown" and cell.source.startswith("## ") for cell in cells)
    for cell in cells:
        if cell.cell_type == "code":
            assert not re.search(r"\._\w", cell.source), f"a private name in {cell.source!r}"


def test_there_are_notebooks():
    assert len(BOOKS) >= 2
