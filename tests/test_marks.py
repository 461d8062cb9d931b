"""Annotations: from a program or a shell into the journal, and onto the charts over time."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from toolkit import monitor
from toolkit.cli import main
from toolkit.errors import ConfigError, JournalError
from toolkit.monitor.journal import JournalReader
from toolkit.monitor.marks import MARK


def test_an_annotation_is_an_entry_of_the_log_on_disk_at_once_whatever_level_counts(own_home, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL_LEVEL", "OFF")
    before = datetime.now(UTC)
    monitor.annotate("  the new\nsystem prompt   is live ")
    rows = JournalReader(own_home / "journal.sqlite").logs()
    assert (rows["message"], rows["level"], rows["context"]) == (["the new system prompt is live"], ["INFO"], [MARK])
    assert before.timestamp() <= rows["at"][0] <= datetime.now(UTC).timestamp()


def test_an_annotation_may_come_later_and_in_a_journal_of_its_own(tmp_path):
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    monitor.annotate("deployed", at=noon, journal=tmp_path / "team.sqlite")
    monitor.annotate("rolled back", at="2h", journal=tmp_path / "team.sqlite")
    at = JournalReader(tmp_path / "team.sqlite").logs()["at"]
    assert at[0] == noon.timestamp()
    assert abs(datetime.now(UTC) - timedelta(hours=2) - datetime.fromtimestamp(at[1], UTC)) < timedelta(minutes=1)


def test_an_annotation_holds_no_secret(own_home):
    monitor.annotate("now with api_key=Canary7731")
    assert "Canary7731" not in str(JournalReader(own_home / "journal.sqlite").logs())


@pytest.mark.parametrize(("text", "at", "why"), [
    (" ", None, "1 to 200 characters, this one 0"),
    ("x" * 201, None, "this one 201"),
    ("x", datetime(2026, 11, 1), "add one, such as at.replace"),
    ("x", "yesterday", "at='yesterday' is not understood"),
])  # fmt: skip
def test_what_cannot_be_marked_is_said(text, at, why):
    with pytest.raises(ConfigError, match=why):
        monitor.annotate(text, at=at)


def test_an_annotation_that_cannot_be_written_is_an_error(tmp_path):
    damaged = tmp_path / "journal.sqlite"
    damaged.write_bytes(b"this is not a database, though it is long enough to be taken for one" * 50)
    with pytest.raises(JournalError, match="toolkit journal check"):
        monitor.annotate("deployed", journal=damaged)


def test_a_shell_can_annotate_too(capsys, own_home):
    assert main(["annotate", "v2 is out", "--ago", "90s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "v2 is out"
    assert main(["annotate", ""]) == 2
    assert "1 to 200 characters" in capsys.readouterr().err
    assert JournalReader(own_home / "journal.sqlite").logs()["message"] == ["v2 is out"]
