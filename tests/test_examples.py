"""The examples: what the README and the docstrings show runs as it stands."""

import doctest
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "toolkit").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readme_s_code_runs_as_it_stands(code, capsys):
    shown = {}
    exec(code, shown)
    capsys.readouterr()
    if "result" in shown:
        assert (shown["result"].frame["status"] == "ok").all()


def test_the_readme_tells_the_truth_about_the_second_run():
    shown = {}
    *lines, last = BLOCKS[0].strip().splitlines()
    exec("\n".join(lines), shown)
    assert list(eval(last.partition("    #")[0], shown)) == ["replayed"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name, capsys):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0, capsys.readouterr().out


def test_the_readme_names_every_provider_and_every_link_leads_somewhere():
    from toolkit.providers.registry import known_providers

    assert [name for name in known_providers() if f"`{name}`" not in README] == []
    assert [link for link in re.findall(r"\]\((?!http)([^)#]+)", README) if not (ROOT / link).exists()] == []
