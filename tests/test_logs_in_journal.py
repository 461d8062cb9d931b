"""The logger's entries in the journal: there for every process, without secrets, and nothing of it before somebody logs."""

import logging

import pytest

from journals import call, finish, in_another_process
from toolkit import monitor
from toolkit.errors import JournalError, RateLimitError
from toolkit.monitor.journal import Journal, JournalReader, read_address
from toolkit.monitor.journal.database import changing, reading

CANARY = "sk-Canary7731Canary7731"


@pytest.fixture
def journal_here(journal_url, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", journal_url)
    return JournalReader(journal_url)


def test_what_another_process_logs_is_in_the_journal(journal_here):
    other = in_another_process("""
        from toolkit.monitor import logger
        logger.warn("the shelf is full", shelf=2, run_id="r-1")
    """)
    finish(other)
    monitor.logger.info("seen from here")
    frame = monitor.log_entries()
    assert frame["level"].tolist() == ["WARN", "INFO"]
    assert frame["message"].tolist() == ["the shelf is full", "seen from here"]
    assert frame["context"].tolist() == ['{"shelf": 2, "run_id": "r-1"}', "{}"]
    assert frame["process"].nunique() == 2
    assert monitor.log_entries(run="r-1")["message"].tolist() == ["the shelf is full"]
    assert monitor.log_entries.polars("1h").shape == (2, len(frame.columns))


def test_an_entry_in_the_journal_is_as_clean_as_in_memory_and_names_its_error(journal_here):
    monitor.logger.clear()
    failure = RateLimitError(f"slow down, {CANARY}")
    monitor.logger.error(f"gave up with {CANARY}", error=failure, api_key=CANARY, note=f"Bearer {CANARY}")
    (row,) = monitor.log_entries().to_dict("records")
    (entry,) = monitor.logger.entries()
    assert CANARY not in str(row)
    assert (row["message"], row["error_message"], row["stack"]) == (entry.message, entry.error_message, entry.stack)
    assert (row["error_id"], row["error_type"]) == (failure.error_id, "RateLimitError")


@pytest.mark.parametrize(("level", "kept"), [(None, ["INFO", "ERROR"]), ("error", ["ERROR"]), ("OFF", [])])
@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_which_levels_are_kept_is_a_setting(level, kept, journal_here, monkeypatch):
    if level:
        monkeypatch.setenv("TOOLKIT_JOURNAL_LEVEL", level)
    for tell in (monitor.logger.debug, monitor.logger.info, monitor.logger.error):
        tell("something")
    assert monitor.log_entries()["level"].tolist() == kept
    assert journal_here.exists is bool(kept)


def test_nothing_is_written_before_something_is_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / "new"))
    finish(
        in_another_process("""
        import toolkit
        from toolkit.monitor import logger
        logger.entries(), logger.frame()
        logger.debug("below the level that counts")
        logger.level = "ERROR"
    """)
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "value"), [("TOOLKIT_JOURNAL", "mysql://here/x"), ("TOOLKIT_JOURNAL_LEVEL", "loud")])
def test_a_setting_that_is_wrong_is_warned_of_once_and_disturbs_nobody(name, value, monkeypatch, caplog):
    monkeypatch.setenv(name, value)
    monitor.logger.clear()
    for number in range(3):
        monitor.logger.info("counted", number=number)
    assert len(monitor.logger.entries()) == 3
    warnings = [record.getMessage() for record in caplog.records if record.name == "toolkit.journal"]
    assert len(warnings) == 1
    assert warnings[0].startswith("entries of the logger are not written to the journal: ")


# Journals of programs that knew neither


@pytest.fixture
def old_journal(journal_url):
    """A journal as it was before it kept entries of the logger and states of caches."""
    journal = Journal(journal_url)
    journal.append(call(call_id="c-1"))
    journal.close()
    with changing(read_address(journal_url)) as db:
        db.change('DROP TABLE "log"')
        db.change('DROP TABLE "cache"')
    return journal_url


def test_an_old_journal_reads_as_one_without_entries(old_journal):
    reader = JournalReader(old_journal)
    assert reader.calls()["call_id"] == ["c-1"]
    assert (reader.logs()["row"], reader.cache_states()["row"], reader.last_row("log")) == ([], [], 0)
    assert reader.scan("log").collect().is_empty()
    with reading(read_address(old_journal)) as db:
        assert not db.columns("log")


def test_an_old_journal_gets_its_new_tables_when_it_is_written(old_journal, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", old_journal)
    monitor.logger.info("the first")
    assert monitor.log_entries()["message"].tolist() == ["the first"]
    assert JournalReader(old_journal).calls()["call_id"] == ["c-1"]


def test_a_logger_of_ones_own_tells_whom_it_is_given(caplog):
    told = []
    log = monitor.Logger("toolkit.test.sink", output="none", sink=lambda entry, error: told.append((entry.message, error)))
    failure = JournalError("full")
    log.warn("careful", error=failure)
    assert told == [("careful", failure)]
    logging.getLogger(log.name).handlers.clear()
