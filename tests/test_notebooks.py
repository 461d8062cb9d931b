"""What ``--nbval`` alone does not see: outputs that are missing, out of order, or hold what must not be published."""

import json
import pathlib
import re

import nbformat
import pytest

from toolkit.monitor.redaction import redact_text

ROOT = pathlib.Path(__file__).parents[1]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MUST_NOT_APPEAR = re.compile(
    r"/home/|/root/|/Users/|/tmp/|/toolkit/\w+\.py|site-packages|0x[0-9a-f]{6,}|application/vnd\.jupyter\.widget-view|Traceback"
)
HEADING = re.compile(r"#{1,3} \S")


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_a_notebook_was_run_from_top_to_bottom_and_shows_what_came_out(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert set(book.metadata) == {"kernelspec"}


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_a_notebook_publishes_no_place_address_or_secret_of_the_machine_it_ran_on(path):
    assert MUST_NOT_APPEAR.findall(path.read_text()) == []
    cells = nbformat.read(path, as_version=4).cells
    said = json.dumps([cell.outputs for cell in cells if cell.cell_type == "code"], ensure_ascii=False)
    assert redact_text(said) == said


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_each_cell_of_a_notebook_comes_after_a_heading_and_a_sentence_and_uses_public_names_only(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].source.startswith("# ")
    for before, cell in zip(cells, cells[1:]):
        if cell.cell_type != "code":
            continue
        lines = [line for line in before.source.splitlines() if line]
        assert before.cell_type == "markdown", f"no words before {cell.source!r}"
        assert any(map(HEADING.match, lines)), f"no heading before {cell.source!r}"
        assert lines[-1].endswith((".", "?", ".)")) and not HEADING.match(lines[-1]), f"no sentence before {cell.source!r}"
        assert not re.search(r"\._\w", cell.source), f"a private name in {cell.source!r}"


def test_the_notebooks_are_numbered_and_the_readme_links_them_all():
    assert [path.name[:3] for path in BOOKS] == [f"{number:02d}_" for number in range(1, 12)]
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in BOOKS if f"(notebooks/{path.name})" not in readme] == []
