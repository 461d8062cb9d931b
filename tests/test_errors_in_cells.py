"""Errors as a notebook shows them: a few lines and an id, under which the monitor has the whole story."""

import copy
import pickle
import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

import toolkit as tk
from toolkit import monitor
from toolkit.errors import ConfigError, ProviderError, RateLimitError, ServerError, ToolkitError
from toolkit.testing import Failure, script
from toolkit.wire.retry import NO_RETRY


@pytest.fixture
def shell(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance()
    shell.user_ns["tk"] = tk
    yield shell
    InteractiveShell.clear_instance()


def shown_by(shell, code, monkeypatch):
    """The lines that a cell shows when it fails."""
    shown = []
    monkeypatch.setattr(shell, "_showtraceback", lambda _type, _error, lines: shown.extend(lines))
    shell.run_cell(code)
    return shown


def test_a_failed_call_shows_the_message_the_line_the_next_step_and_the_id_that_the_journal_has(shell, monkeypatch):
    script("down", [Failure(status=503)])
    shell.user_ns["client"] = tk.Client(retry=NO_RETRY)
    lines = shown_by(shell, "model = 'scripted/down'\nclient.generate_text(model, 'Hello')", monkeypatch)
    facts = dict(re.match(r"\s*(\w+):\s*(.*)", line).groups() for line in lines)
    assert facts["at"] == "line 2: client.generate_text(model, 'Hello')"
    assert facts["next"].startswith("the service failed")
    assert len(lines) < 8
    assert facts["id"] in monitor.errors()["error_id"].tolist()
    assert monitor.error_tracker.get(facts["id"]).type == "ServerError"


def test_a_wrong_argument_is_tracked_when_a_cell_shows_it(shell, monkeypatch):
    tk.generate_text("scripted/echo", "opens the journal")
    lines = shown_by(shell, "tk.compare([], ['a'])", monkeypatch)
    assert lines[0].startswith("ConfigError: models= is empty")
    mark = lines[-2].split()[-1]
    assert monitor.error_tracker.get(mark).message.startswith("models= is empty")
    assert mark in monitor.errors()["error_id"].tolist()


def test_the_cause_is_the_error_at_the_bottom_and_the_stack_has_them_all():
    try:
        try:
            raise ValueError("not a number")
        except ValueError as first:
            try:
                raise KeyError("price") from first
            except KeyError as second:
                raise ConfigError("the table can't be read") from second
    except ConfigError as error:
        lines, stack = error._render_traceback_(), error.trace()
    assert "  cause: ValueError: not a number" in lines
    assert repr(stack) == stack
    assert [name in stack for name in ("ValueError", "KeyError", "ConfigError")] == [True] * 3


def test_an_error_that_names_itself_as_its_cause_is_shown_all_the_same():
    error = ConfigError("round and round")
    error.__cause__ = error
    assert error._render_traceback_()[0] == "ConfigError: round and round"


def test_what_a_service_said_cannot_steer_a_terminal():
    assert "\x1b" not in "".join(ServerError("busy \x1b[2J\x1b]0;owned\x07")._render_traceback_())


@pytest.mark.parametrize("error", [ConfigError("a"), RateLimitError("b", provider="p", retry_after=2.0)])
def test_an_error_keeps_its_id_on_its_way_to_another_process_and_a_copy_gets_its_own(error):
    mark = error.error_id
    assert error.error_id == mark
    assert pickle.loads(pickle.dumps(error)).error_id == mark
    twin = copy.copy(error)
    assert twin.error_id != mark
    assert (type(twin), str(twin)) == (type(error), str(error))
    assert getattr(twin, "retry_after", None) == getattr(error, "retry_after", None)


def test_an_error_tracked_twice_has_two_reports():
    tracker, error = monitor.ErrorTracker(), ConfigError("again")
    first, second = tracker.track_error(error), tracker.track_error(error)
    assert first.id == error.error_id != second.id
    assert second.count == 2


def kinds(base):
    return {base, *(kind for child in base.__subclasses__() for kind in kinds(child))}


def test_every_kind_of_error_has_a_next_step():
    ours = [kind for kind in kinds(ToolkitError) if kind.__module__ == "toolkit.errors" and kind not in (ToolkitError, ProviderError)]
    assert [kind.__name__ for kind in ours if not any(line.startswith("  next:") for line in kind("x")._render_traceback_())] == []
