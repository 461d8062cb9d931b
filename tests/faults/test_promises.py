"""``docs/reliability.md`` promises nothing that no test proves."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "reliability.md", ROOT / "docs" / "security.md"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
FAULTS = """
    server drops; slow drip; HTML page; 429; name look-up; proxy; clock; full disk; read-only; two kernels; Redis stopped; PostgreSQL stopped;
    kernel killed; kill -9; fork; event loop; Streamlit
"""


@lru_cache
def functions_of(path):
    """The functions of a file that pytest collects."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")}


PROMISED = sorted({found for page in PAGES for found in NAMED.findall(page.read_text("utf-8"))})


@pytest.mark.parametrize(("path", "name"), PROMISED, ids="::".join)
def test_a_test_that_a_page_names_is_there(path, name):
    assert Path(path).name.startswith("test_")
    assert name in functions_of(path)


def rows():
    lines = PAGES[0].read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith(("| Fault", "| ---", "|---"))]


@pytest.mark.parametrize("row", rows())
def test_every_promise_names_its_proof(row):
    assert NAMED.search(row)


@pytest.mark.parametrize("fault", [each.strip() for each in FAULTS.split(";")])
def test_every_fault_has_its_row(fault):
    assert any(fault.lower() in row.lower().split("|")[1] for row in rows())
