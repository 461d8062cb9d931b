"""A provider that another package brings: what docs/adding-a-provider.md tells, done."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from servers.chat_completions import ChatService

ROOT = pathlib.Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "plugin"
DOC = (ROOT / "docs" / "adding-a-provider.md").read_text()

ASK = """
import json, sys, toolkit as tk
from toolkit.cli import main
client = tk.Client(cache=False, journal=False)
streamed = "".join(event.text for event in client.stream_text("parrot/demo-small", "hi") if event.kind == "text")
compared = tk.compare(["parrot/demo-small", "scripted/echo"], ["hi"], client=client)
print(json.dumps([client.generate_text("parrot/demo-small", "hi").text, streamed, compared.frame["status"].tolist(),
                  [model.id for model in client.list_models("parrot")], client.health_check("parrot").ok]))
"""


@pytest.fixture
def installed(tmp_path):
    """A folder with the package as an installer leaves it: its module and its entry points."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    (tmp_path / "toolkit_parrot.py").write_text((PLUGIN / "toolkit_parrot.py").read_text())
    info = tmp_path / f"toolkit_parrot-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["toolkit.providers"]
    (info / "entry_points.txt").write_text("[toolkit.providers]\n" + "".join(f"{name} = {place}\n" for name, place in points.items()))
    return tmp_path


def run(code, installed, home, **variables):
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}", "TOOLKIT_HOME": str(home), **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_an_installed_provider_works_like_a_built_in_one(installed, own_home):
    service = ChatService(key="parrot-key")
    with service.serve() as server:
        done = run(ASK, installed, own_home, PARROT_API_KEY="parrot-key", PARROT_BASE_URL=f"{server.url}/v1")
    assert done.returncode == 0, done.stderr
    text = "".join(service.words)
    assert json.loads(done.stdout) == [text, text, ["ok", "ok"], ["demo-small"], True]


def test_an_installed_provider_is_listed_and_names_its_variable(installed, own_home):
    done = run("import toolkit as tk; tk.generate_text('parrot/x', 'hi')", installed, own_home)
    assert "PARROT_API_KEY" in done.stderr
    done = run("import toolkit as tk; tk.generate_text('nowhere/x', 'hi')", installed, own_home)
    assert "parrot" in done.stderr


def test_the_document_shows_the_plugin_as_it_is():
    shown, *_ = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    written = (PLUGIN / "toolkit_parrot.py").read_text()
    assert shown.strip() in written
    assert re.search(r"```toml\n(.*?)```", DOC, re.DOTALL)[1].strip() in (PLUGIN / "pyproject.toml").read_text()
    assert len(written.splitlines()) <= 25
