"""The page about notebooks: its examples run, and it names the keys and methods there are."""

import pathlib
import re

import pytest

import toolkit as tk
from toolkit.widgets.ballot import BUTTONS

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "notebooks.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page_s_examples_run(code):
    exec(code, {})


def test_the_page_names_the_keys_of_a_vote():
    assert [button.key for button in BUTTONS if not re.search(rf"\b{button.key}\s\(", PAGE)] == []


def test_what_the_page_calls_is_there():
    methods = set(re.findall(r"`(?:\w+ = )?result\.(\w+)\(", PAGE)) | set(re.findall(r"^result\.(\w+)\(", PAGE, re.MULTILINE))
    assert len(methods) > 5
    assert [name for name in methods if not callable(getattr(tk.Comparison, name, None))] == []
    functions = set(re.findall(r"\btk\.(\w+)\(", PAGE))
    assert [name for name in functions if not callable(getattr(tk, name, None))] == []
