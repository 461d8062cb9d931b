"""The pages of the documentation: built as a reader gets them, complete, and asking for nothing beyond themselves."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from toolkit.cli import parser
from toolkit.providers.registry import known_providers, provider_class

ROOT = pathlib.Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
MODULES = ("cache", "charts", "errors", "monitor", "stats", "testing")
FROM_ELSEWHERE = re.compile(
    r"""<(?:link|script|img|iframe|source|video|audio|object|embed)\b[^>]*?(?:href|src|srcset|data)=["']?(?:https?:)?//"""
)
IN_STYLES = re.compile(r"""@import|url\(["']?(?:https?:)?//""")


def public_names():
    import toolkit

    found = {f"toolkit.{name}" for name in toolkit.__all__ if name not in MODULES}
    return found | {f"toolkit.{module}.{name}" for module in MODULES for name in importlib.import_module(f"toolkit.{module}").__all__}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, by their addresses. The build is strict: a broken link, a lost anchor or a page that nothing lists ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {str(path.relative_to(site)): path.read_text("utf-8") for path in site.rglob("*.html")}


def test_no_page_loads_anything_from_elsewhere(site, pages):
    assert [name for name, text in pages.items() if FROM_ELSEWHERE.search(text)] == []
    assert [path.name for path in site.rglob("*.css") if IN_STYLES.search(path.read_text("utf-8"))] == []


def test_what_would_load_from_elsewhere_is_recognized():
    assert FROM_ELSEWHERE.search('<link rel="stylesheet" href="https://fonts.example/css">')
    assert FROM_ELSEWHERE.search("<script async src=//cdn.example/x.js>")
    assert not FROM_ELSEWHERE.search('<script src="assets/x.js"></script><a href="https://example.org">there</a>')


def test_every_public_name_is_in_the_reference_once():
    listed = [name for path in REFERENCE.glob("*.md") for name in re.findall(r"^::: (toolkit\.\S+)$", path.read_text(), re.MULTILINE)]
    assert sorted(set(listed) - {"toolkit.errors"}) == sorted(public_names())
    assert len(listed) == len(set(listed))


def test_every_public_name_is_described_on_its_page(pages):
    parts = [part for name, text in pages.items() if name.startswith("reference") for part in re.split(r"(?=<h2 )", text)]
    described = {
        found[1] for part in parts if (found := re.match(r'<h2 id="([\w.]+)"', part)) and "<p>" in part.partition("doc-contents")[2]
    }
    assert sorted(public_names() - described) == []


def test_functions_that_are_made_at_import_are_shown_with_their_arguments(pages):
    asking, monitor = pages["reference/asking.html"], pages["reference/monitor.html"]
    assert "on_default_client" not in asking
    part = asking.partition('id="toolkit.generate_text"')[2].partition("<h2")[0]
    assert "max_tokens" in part and "self" not in re.findall(r"\w+", part.partition("doc-contents")[0])
    assert "TidyTable" not in monitor


def test_each_parameter_has_its_own_type(pages):
    part = pages["reference/asking.html"].partition('id="toolkit.generate_text"')[2].partition("<h2")[0]
    row = next(row for row in re.findall(r"<tr.*?</tr>", part, re.DOTALL) if "<code>seed</code>" in row)
    assert "int" in row and "float" not in row


def test_every_notebook_is_a_lesson_and_can_be_taken_along(site, pages):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f'href="{path.stem}.html"' in pages["tutorial/index.html"]
        assert f'href="../notebooks/{path.name}"' in pages[f"tutorial/{path.stem}.html"]
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()


def test_every_command_is_on_its_page_as_it_prints_its_help(pages):
    commands = next(action for action in parser()._actions if hasattr(action, "choices") and action.choices)
    assert [name for name in commands.choices if f"usage: toolkit {name}" not in pages["reference/command.html"]] == []


def test_the_first_page_tells_what_every_extra_is_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    install = (ROOT / "docs" / "index.md").read_text().partition("## Install")[2]
    assert [name for name in extras if f"`{name}`" not in install] == []


# --- settings --------------------------------------------------------------------------------------------------------------

SETTINGS = (REFERENCE / "settings.md").read_text()


def test_every_variable_that_is_read_is_on_the_settings_page():
    sources = "".join(path.read_text() for path in (ROOT / "toolkit").rglob("*.py"))
    read = set(re.findall(r'\bvariable\("(\w+)"\)', sources))
    kinds = [provider_class(name) for name in known_providers()]
    read |= {name for kind in kinds for name in (kind.key_var, *kind.key_vars, *kind.url_vars) if name}
    assert sorted(name for name in read if f"`{name}`" not in SETTINGS and not name.startswith("OTEL_")) == []


def test_every_setting_on_the_page_is_one():
    own = set(re.findall(r"`(TOOLKIT_\w+)`", SETTINGS))
    described = importlib.import_module("toolkit.settings").__doc__
    assert own == set(re.findall(r"^(TOOLKIT_\w+) ", described, re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "toolkit" / "providers").glob("*.py"))
    of_providers = SETTINGS.partition("## Of providers")[2].partition("## Of others")[0]
    assert [name for name in re.findall(r"`([A-Z]+_[A-Z_]+)`", of_providers) if f'"{name}"' not in sources] == []
