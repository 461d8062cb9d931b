"""The page about judging: its examples run, and it names the columns there are."""

import pathlib
import re

import pytest

import toolkit as tk
from toolkit.comparison.votes import CHOICES
from toolkit.testing import script

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "judging.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page_s_examples_run(code):
    exec(code, {})


def test_the_page_names_the_choices_and_the_judge_s_numbers():
    script("judge", lambda prompt, body: '{"verdict": "A"}'), script("one", ["a"]), script("two", ["b"])
    report = tk.compare(["scripted/one", "scripted/two"], ["q"], judge="scripted/judge").judge_report()
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(CHOICES) <= named
    assert {"first_share", "first_p", "agreement", "kappa"} <= named & set(report.columns)
