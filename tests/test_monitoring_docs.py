"""The page about monitoring: complete, and its examples run."""

import pathlib
import re

import pytest

from toolkit import monitor
from toolkit.monitor.events import CALL_COLUMNS, CacheRecord, ErrorRecord, LogRecord

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "monitoring.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_defines_every_column_of_a_call_in_their_order():
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == CALL_COLUMNS


def test_the_page_names_every_column_of_an_error():
    assert f"`{' '.join(ErrorRecord._fields)}`" in PAGE


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page_s_examples_run(code):
    exec(code, {})


def test_the_page_names_what_the_monitor_offers():
    functions = [name for name in monitor.__all__ if not name[0].isupper()]
    assert [name for name in functions if name not in PAGE] == []


@pytest.mark.parametrize("record", [LogRecord, CacheRecord])
def test_the_page_names_every_column_of_what_else_the_journal_keeps(record):
    assert f"`{' '.join(record._fields)}`" in PAGE
