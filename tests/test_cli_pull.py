"""``toolkit pull``: progress for people on a terminal, in a file, and for machines; and how it ends."""

import json
import os
import pty
import subprocess
import sys

import pytest

from servers.ollama import OllamaService
from toolkit.cli import main


@pytest.fixture
def ollama(monkeypatch):
    with OllamaService().serve() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        yield server


def test_a_download_in_a_pipe_is_a_line_for_each_status(ollama, capsys):
    assert main(["pull", "ollama/new:1b"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pulling manifest",
        "pulling 1a2b 60% of 0 MB",
        "pulling 9f8e 67% of 0 MB",
        "pulling 1a2b 67% of 0 MB",
        "success 100% of 0 MB",
    ]


def test_machines_get_a_json_object_a_line(ollama, capsys):
    assert main(["pull", "ollama/new:1b", "--json"]) == 0
    steps = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert steps[0] == {"status": "pulling manifest", "completed_bytes": 0, "total_bytes": 0, "done": False}
    assert steps[-1] == {"status": "success", "completed_bytes": 1200, "total_bytes": 1200, "done": True}


def test_a_terminal_shows_one_line_that_changes(ollama, own_home):
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "60", "TOOLKIT_HOME": str(own_home)}
    done = subprocess.run([sys.executable, "-m", "toolkit.cli", "pull", "ollama/new:1b"], stdout=theirs, env=environment)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert shown.count("\n") == 1
    assert [part.strip() for part in shown.split("\r") if part.strip()][-1] == "success 100% of 0 MB"


@pytest.mark.parametrize(
    ("model", "code", "told"),
    [
        ("ollama/no/such", 1, "file does not exist"),
        ("scripted/echo", 2, "ollama and lmstudio do"),
        ("llama3.2:1b", 2, "provider/name"),
        ("nowhere/x", 2, "embedded"),
    ],
)
def test_what_went_wrong_is_told_in_the_exit_code_and_one_line(ollama, capsys, model, code, told):
    assert main(["pull", model]) == code
    error = capsys.readouterr().err.strip()
    assert told in error
    assert len(error.splitlines()) == 1


def test_a_failure_for_machines_is_json_too(ollama, capsys):
    assert main(["pull", "ollama/no/such", "--json"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "file does not exist" in last["message"]


def test_a_server_that_is_down_is_work_that_failed(monkeypatch, capsys):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    assert main(["pull", "ollama/new:1b"]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err
