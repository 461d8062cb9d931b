"""The journal on a PostgreSQL server: away and back, several writers' order, and a password that nobody sees."""

import contextlib
import logging
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading

import psycopg
import pytest

from journals import call, written_by_itself
from servers.postgres import PASSWORD, QUOTED_PASSWORD, PostgresServer, programs
from toolkit.cli import main
from toolkit.errors import JournalError
from toolkit.monitor.journal import Journal, JournalReader, read_address, shown_url
from toolkit.monitor.journal.database import changing, open_for_writing, reading
from toolkit.monitor.journal.pruning import prune


@pytest.fixture
def url(postgres_server):
    return postgres_server.url()


@pytest.fixture
def warnings_said(caplog):
    caplog.set_level(logging.WARNING, logger="toolkit.journal")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "toolkit.journal"]


@pytest.fixture
def own_server():
    """A server that only one test uses, and may stop."""
    with tempfile.TemporaryDirectory() as folder, PostgresServer(pathlib.Path(folder), programs()) as server:
        yield server


def test_rows_wait_while_the_server_is_away_and_are_written_when_it_is_back(own_server, warnings_said):
    url = own_server.url()
    journal, reader = Journal(url), JournalReader(url)
    journal.append(call(call_id="before"))
    assert journal.flush()
    own_server.stop()
    for number in range(3):
        journal.append(call(call_id=f"meanwhile-{number}"))
        assert not journal.flush()
    with pytest.raises(JournalError, match=r"can't be used: .*refused"):
        reader.calls()
    assert len(warnings_said()) == 1
    assert "rows wait in memory" in warnings_said()[0]
    own_server.start()
    written_by_itself(reader, 4)
    journal.close()
    assert reader.calls()["call_id"] == ["before", "meanwhile-0", "meanwhile-1", "meanwhile-2"]
    assert journal.lost == 0
    assert len(warnings_said()) == 1


def test_a_writer_that_was_cut_off_connects_again(postgres_server, url):
    journal = Journal(url)
    journal.append(call())
    assert journal.flush()
    with postgres_server.connect() as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'toolkit'")
    journal.append(call())
    written_by_itself(JournalReader(url), 2)
    journal.close()


class Cable:
    """Stands between a writer and the server, and breaks when the server has answered a COMMIT with rows, before the answer is through."""

    def __init__(self, port):
        self.port = port
        self.committed = threading.Event()
        self.mended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.own_port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.committed.is_set() and not self.mended.is_set():
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source, target, is_answer):
        copied = False
        with source, target, contextlib.suppress(OSError):
            while data := source.recv(65_536):
                copied |= b"COPY 3" in data
                if is_answer and copied and b"COMMIT\0" in data and not self.committed.is_set():
                    source.shutdown(socket.SHUT_RDWR)
                    target.shutdown(socket.SHUT_RDWR)
                    self.committed.set()
                    return
                target.sendall(data)


def test_rows_whose_commit_was_not_acknowledged_are_not_doubled_by_a_retry_after_they_were_archived(postgres_server, url):
    class Three:
        def rows(self):
            return [call(call_id=f"c{number}") for number in range(3)]

    cable = Cable(postgres_server.port)
    journal = Journal(url.replace(f":{postgres_server.port}/", f":{cable.own_port}/"))
    journal.append(Three())
    assert cable.committed.wait(60)
    assert not journal.flush()
    assert prune(read_address(url), now=1_800_000_000.0, archive_after_s=0).archived == {"call": 3}
    cable.mended.set()
    journal.append(call(call_id="next"))
    assert journal.flush()
    journal.close()
    cable.listener.close()
    assert JournalReader(url).calls()["call_id"] == ["c0", "c1", "c2", "next"]
    assert journal.lost == 0


def test_rows_of_a_transaction_that_was_cut_off_before_its_commit_are_written_again(postgres_server, url):
    with changing(read_address(url)) as other:
        journal = Journal(url)
        with other.transaction():
            journal.append(call(call_id="c"))
            flushing = threading.Thread(target=journal.flush)
            flushing.start()
            with postgres_server.connect() as admin:
                cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                while not admin.execute(cut).fetchall():
                    pass
            flushing.join()
        assert other.fetch("SELECT count(*) FROM call") == [(0,)]
        assert journal.flush()
        assert other.fetch("SELECT call_id FROM call") == [("c",)]
        assert not other.has_committed(10**15)  # of a server that was restored from a backup, say
        journal.close()


def test_a_reader_that_has_seen_a_row_has_seen_all_before_it(url):
    """A batch that takes its numbers first and commits last would be missed by who reads on from the highest number seen."""
    slow, journal, reader = open_for_writing(read_address(url)), Journal(url), JournalReader(url)
    began, go_on = threading.Event(), threading.Event()

    def write_slowly():
        with slow.transaction():
            slow.change("INSERT INTO call (call_id) VALUES ('slow')")
            began.set()
            go_on.wait(30)

    other = threading.Thread(target=write_slowly)
    other.start()
    assert began.wait(30)
    journal.append(call(call_id="quick"))
    quick = threading.Thread(target=journal.flush)
    quick.start()
    quick.join(0.3)
    assert reader.calls()["call_id"] == []  # "quick" has a higher number and must not be seen before "slow"
    go_on.set()
    other.join()
    quick.join()
    slow.close()
    journal.close()
    assert reader.calls()["call_id"] == ["slow", "quick"]


def test_a_writer_does_not_wait_for_ever_for_one_that_hangs(url):
    address = read_address(url)
    with changing(address) as hanging, changing(address) as waiting:
        waiting.change("SET lock_timeout TO '50ms'")
        with hanging.transaction(), pytest.raises(JournalError, match="lock timeout"), waiting.transaction():
            pass
        assert waiting.fetch("SELECT current_setting('lock_timeout')") == [("50ms",)]
        assert hanging.fetch("SELECT current_setting('lock_timeout')") == [("5s",)]


def test_journals_share_a_database_in_schemas_of_their_own(postgres_server):
    urls = [postgres_server.url("ours"), postgres_server.url("theirs")]
    for number, each in enumerate(urls):
        journal = Journal(each)
        journal.append(call(call_id=f"c{number}"))
        journal.close()
    assert [JournalReader(each).calls()["call_id"] for each in urls] == [["c0"], ["c1"]]
    assert read_address(urls[0]).archive != read_address(urls[1]).archive


def test_a_writer_without_the_right_to_make_tables_writes_where_they_are_made(postgres_server, url):
    Journal(url).close()
    journal = Journal(url)
    journal.append(call())
    journal.close()
    schema = read_address(url).schema
    with postgres_server.connect() as admin:
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            admin.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
        admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO clerk; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO clerk")
        admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO clerk")
    clerk = Journal(url.replace(f"tester:{QUOTED_PASSWORD}", "clerk:clerk"))
    clerk.append(call(call_id="clerk's"))
    assert clerk.flush()
    clerk.close()
    assert JournalReader(url).calls()["call_id"][-1] == "clerk's"


def test_a_reader_never_writes(url):
    journal = Journal(url)
    journal.append(call())
    journal.close()
    with pytest.raises(JournalError, match="read-only transaction"), reading(read_address(url)) as db:
        db.change("DELETE FROM call")


# The password


def test_the_password_is_seen_nowhere(postgres_server, url, warnings_said, capsys, monkeypatch, caplog):
    wrong = url.replace(QUOTED_PASSWORD, "wr0ng-canary")
    for each, password in ((url, PASSWORD), (wrong, "wr0ng-canary")):
        monkeypatch.setenv("TOOLKIT_JOURNAL", each)
        journal, reader = Journal(each), JournalReader(each)
        journal.append(call())
        journal.flush()
        seen = [repr(journal.address), str(journal.address), shown_url(each), repr(journal), repr(reader), *warnings_said()]
        try:
            reader.calls()
        except JournalError as error:
            seen += [str(error), repr(error), repr(error.__cause__), str(error.__cause__)]
        for command in ("check", "prune"):
            main(["journal", command])
        main(["doctor"])
        printed = capsys.readouterr()
        journal.close()
        for text in (*seen, printed.out, printed.err, caplog.text):
            assert password not in text
            assert QUOTED_PASSWORD not in text
    assert any("password authentication failed" in line for line in warnings_said())


def test_a_password_in_the_query_is_not_shown_either():
    url = "postgresql:///base?host=/run/pg&user=me&password=canary"
    assert "canary" not in repr(read_address(url)) + str(read_address(url))
    assert read_address(url).secrets == ("canary",)


# Addresses


@pytest.mark.parametrize("url", [
    "mysql://me:canary@db/x",
    "http://canary",
    "sqlite://canary/relative",
    "postgresql://me:can#ary@db/x",
    "postgresql://me:canary@db:port/x",
    "postgresql://me:canary@db/x?schema=Robert'); DROP TABLE",
    "postgresql://me:canary@[db/x",
    "postgresql://me:can ary@db/x",
])  # fmt: skip
@pytest.mark.parametrize("opening", [Journal, JournalReader])
def test_an_address_that_is_not_understood_says_what_is_and_repeats_no_secret(opening, url):
    with pytest.raises(JournalError, match=r"postgresql://|lower-case letters") as caught:
        opening(url)
    assert "canary" not in str(caught.value).replace("beginning with http://", "")
    assert caught.value.__cause__ is None


def test_what_only_postgresqls_library_can_refuse_is_an_error_without_the_password(postgres_server):
    with pytest.raises(JournalError, match="does not understand all of") as caught:
        JournalReader("postgresql://me:canary@db/x?no_such_option=1").calls()
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_file_may_be_named_by_an_sqlite_url(tmp_path):
    journal = Journal(f"sqlite://{tmp_path}/a%20b.sqlite")
    journal.append(call(call_id="c"))
    journal.close()
    assert JournalReader(tmp_path / "a b.sqlite").call("c") is not None


def test_the_archive_of_a_server_lies_in_the_toolkits_home_or_where_the_address_says(own_home, tmp_path):
    address = read_address("postgresql://me:canary@db.example:5433/base?schema=team")
    assert address.archive == own_home / "archive" / "db.example-5433-base-schema-team"
    assert read_address(f"postgresql://db/x?archive={tmp_path}/a").archive == tmp_path / "a"


def test_without_psycopg_the_extra_is_named():
    code = """
import sys
sys.modules["psycopg"] = None
from toolkit.errors import ConfigError
from toolkit.monitor.journal import Journal, JournalReader
for asking in (Journal, lambda url: JournalReader(url).calls()):
    try:
        asking("postgresql://db/x")
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count("pip install 'model-comparison-toolkit[postgres]'") == 2


def test_psycopg_is_not_imported_before_it_is_needed():
    code = "import sys; from toolkit.monitor.journal import *; JournalReader('postgresql://db/x'); sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
