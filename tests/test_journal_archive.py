"""Old days in Parquet: every reader sees each row once, wherever a program was killed."""

import signal
import stat
import threading
from datetime import date, timedelta

import polars as pl
import pytest

from journals import cache_state, call, entry, error, finish, in_another_process
from toolkit import monitor
from toolkit.errors import ConfigError, JournalError
from toolkit.monitor.events import RunRecord, VoteRecord
from toolkit.monitor.journal import Journal, JournalReader, read_address
from toolkit.monitor.journal.archive import first_second, hand_over, next_piece, tidy, write_file
from toolkit.monitor.journal.database import changing
from toolkit.monitor.journal.pruning import prune
from toolkit.monitor.journal.tables import BY_NAME

DAY_S = 86_400
FIRST = date(2026, 11, 20)
NOW = first_second(date(2026, 11, 23)) + 3600.0
CALLS = BY_NAME["call"]


@pytest.fixture
def journal(journal_url):
    journal = Journal(journal_url)
    yield journal
    journal.close()


@pytest.fixture
def address(journal_url):
    return read_address(journal_url)


@pytest.fixture
def reader(journal_url):
    return JournalReader(journal_url)


@pytest.fixture
def three_days(journal):
    """Calls c0 … c29 on 20, 21 and 22 November 2026, each hour one, those of one day in a run, and one call of today; late ones too."""
    journal.append(RunRecord("r-1", 1.0, "p", "evening", "{}"))
    for number in range(30):
        day, hour = number % 3, number // 3
        at = first_second(FIRST) + day * DAY_S + (9 - hour) * 3600.0
        journal.append(
            call(call_id=f"c{number}", at=at, run_id="r-1" if day == 1 else None, latency_s=0.1 + number, text=f"Grüße {number}")
        )
    journal.append(call(call_id="today", at=NOW - 60))
    journal.append(error(at=first_second(FIRST) + 5, error_id="old"))
    journal.append(VoteRecord(1.0, "v-1", "r-1", "evening", "001", 0, "a", "b", "tie", "ann", "d1", None))
    assert journal.flush()


def everything(reader):
    """What each way of reading says, which has to be the same."""
    lists = reader.calls()
    assert reader.scan().sort("row").collect().to_dict(as_series=False) == lists
    return lists


def files(address):
    return sorted(path.relative_to(address.archive).as_posix() for path in address.archive.rglob("*") if path.is_file())


def archive_all(address):
    return prune(address, now=NOW, archive_after_s=0)


# Moving


def test_entries_of_the_logger_and_states_of_caches_move_and_go_as_calls_do(journal, reader, address):
    for day in range(3):
        at = first_second(FIRST) + day * DAY_S + 5
        journal.append(entry(at=at, log_id=f"l{day}", run_id="r-1" if day else None))
        journal.append(cache_state(at=at, state_id=f"s{day}"))
    assert journal.flush()
    before = reader.logs(), reader.cache_states()
    assert prune(address, now=NOW, archive_after_s=DAY_S).archived == {"log": 2, "cache": 2}
    assert (reader.logs(), reader.cache_states()) == before
    assert reader.scan("log").sort("row").collect().to_dict(as_series=False) == before[0]
    assert reader.logs(run="r-1")["log_id"] == ["l1", "l2"]
    assert prune(address, now=NOW, older_than_s=2 * DAY_S).removed == {"log": 1, "cache": 1}
    assert (reader.logs()["log_id"], reader.cache_states()["state_id"]) == (["l1", "l2"], ["s1", "s2"])
    with pytest.raises(ConfigError, match="belong to no run"):
        reader.scan("cache", run="r-1")


def test_closed_days_move_and_nothing_else_changes_for_a_reader(three_days, reader, address):
    before, version, errors = everything(reader), reader.version(), reader.errors()
    done = archive_all(address)
    assert (done.archived, done.files_written) == ({"call": 30, "error": 1}, 4)
    assert everything(reader) == before
    assert reader.errors() == errors
    assert reader.version() == version
    with changing(address) as db:
        assert db.fetch('SELECT "call_id" FROM call') == [("today",)]
    assert prune(address, now=NOW, archive_after_s=0).archived == {}


def test_the_layout_is_what_any_engine_reads(three_days, address):
    archive_all(address)
    assert [name.rsplit("/", 1)[0] for name in files(address)] == [
        "call/day=2026-11-20", "call/day=2026-11-21", "call/day=2026-11-22", "error/day=2026-11-20",
    ]  # fmt: skip
    found = pl.scan_parquet(address.archive / "call" / "**" / "*.parquet", hive_partitioning=True).collect()
    assert found.group_by("day").len().sort("day").rows() == [(FIRST + timedelta(days=n), 10) for n in range(3)]
    for (day,), rows in found.group_by("day"):
        assert rows["at"].is_sorted()
        assert (rows["at"] // DAY_S * DAY_S).unique().to_list() == [first_second(day)]


def test_the_archive_is_for_its_owner_alone(three_days, address):
    archive_all(address)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in address.archive.rglob("*") if path.is_dir()}
    assert modes | {stat.S_IMODE(address.archive.stat().st_mode)} == {0o700}
    assert {stat.S_IMODE((address.archive / name).stat().st_mode) for name in files(address)} == {0o600}


@pytest.mark.parametrize("asked", [
    {"after_row": 7},
    {"after_row": 7, "limit": 9},
    {"limit": 5},
    {"since": first_second(FIRST) + DAY_S, "until": first_second(FIRST) + DAY_S + 7200},
    {"since": NOW - 7200},
    {"until": first_second(FIRST)},
    {"run": "evening"},
    {"run": "r-1", "since": first_second(FIRST) + DAY_S + 3600 * 4},
    {"columns": ["latency_s", "text"], "limit": 3},
])  # fmt: skip
def test_what_is_asked_for_is_found_in_the_archive_too(three_days, reader, address, asked):
    before = reader.calls(**asked)
    archive_all(address)
    assert reader.calls(**asked) == before
    lazily = {name: value for name, value in asked.items() if name not in ("limit", "columns")}
    assert set(reader.scan(**lazily).collect()["call_id"]) == set(reader.calls(**lazily)["call_id"])


def test_a_piece_of_the_rows_needs_only_the_files_that_hold_it(journal, reader, address):
    for number in range(60):
        journal.append(call(call_id=f"c{number}", at=first_second(FIRST) + number // 20 * DAY_S))
    assert journal.flush()
    archive_all(address)
    first, second, third = (address.archive / name for name in files(address))
    third.write_bytes(b"not read")
    assert reader.calls(limit=20)["call_id"] == [f"c{number}" for number in range(20)]
    assert reader.calls(after_row=30, limit=5)["call_id"] == [f"c{number}" for number in range(30, 35)]
    third.write_bytes(second.read_bytes())
    first.write_bytes(b"not read")
    assert reader.calls(after_row=20, limit=5)["call_id"] == [f"c{number}" for number in range(20, 25)]
    assert reader.call("c39") is not None


def test_one_call_is_found_in_the_archive(three_days, reader, address):
    before = reader.call("c7")
    archive_all(address)
    assert reader.call("c7") == before
    assert reader.call("c99") is None


def test_frames_of_both_kinds_include_the_archive(three_days, journal_url, address):
    asked = {"since": None, "run": "evening", "journal": journal_url}
    pandas, polars, percentiles = (
        monitor.calls(**asked),
        monitor.calls.polars(**asked),
        monitor.percentiles(**(asked | {"provenance": None})),
    )
    archive_all(address)
    assert monitor.calls(**asked).equals(pandas)
    assert monitor.calls.polars(**asked).equals(polars)
    assert monitor.percentiles(**(asked | {"provenance": None})).equals(percentiles)
    assert len(pandas) == len(polars) == 10


def test_a_row_that_comes_late_for_an_archived_day_gets_a_file_of_its_own(three_days, journal, reader, address):
    archive_all(address)
    journal.append(call(call_id="late", at=first_second(FIRST) + 60))
    assert journal.flush()
    assert everything(reader)["call_id"].count("late") == 1
    assert archive_all(address).archived == {"call": 1}
    assert everything(reader)["call_id"][-1] == "late"
    assert len([name for name in files(address) if "call/day=2026-11-20" in name]) == 2


def test_only_days_that_ended_long_enough_ago_move(three_days, address):
    assert prune(address, now=NOW, archive_after_s=DAY_S).archived == {"call": 20, "error": 1}
    assert prune(address, now=NOW, archive_after_s=0).archived == {"call": 10}


def test_a_column_that_a_file_lacks_is_missing_and_one_too_many_does_no_harm(three_days, reader, address):
    archive_all(address)
    for name in files(address):
        path = address.archive / name
        older = pl.read_parquet(path, hive_partitioning=False)
        if "text" in older.columns:
            older.drop("text").with_columns(pl.lit(1).alias("from_the_future")).write_parquet(path)
    found = everything(reader)
    assert found["call_id"][:3] == ["c0", "c1", "c2"]
    assert set(found["text"][:30]) == {None}


def test_an_archive_that_is_not_there_is_an_error_and_not_fewer_rows(three_days, reader, address):
    archive_all(address)
    address.archive.rename(address.archive.with_name("elsewhere"))
    with pytest.raises(JournalError, match=r"can't read the archive .*journal check"):
        reader.calls()
    assert reader.calls(since=NOW - 3600)["call_id"] == ["today"]


# What happens in between


def test_rows_that_move_while_a_lazy_frame_waits_are_in_it_once(three_days, reader, address):
    lazy = reader.scan().select("call_id")
    archive_all(address)
    assert sorted(lazy.collect()["call_id"]) == sorted(reader.calls()["call_id"])
    half = reader.scan().select("call_id")
    assert half.collect().height == 31


def test_a_program_killed_before_the_file_is_listed_leaves_each_row_once(three_days, reader, address):
    before = everything(reader)
    piece = next_piece(address, CALLS, FIRST + timedelta(days=1))
    write_file(address, piece)
    (address.archive / "call" / "day=2026-11-20" / ".part-1.unfinished").write_bytes(b"half of it")
    assert everything(reader) == before
    archive_all(address)
    assert everything(reader) == before
    assert len(files(address)) == 4


def test_two_programs_that_archive_at_once_move_each_row_once(three_days, reader, address):
    before = everything(reader)
    pieces = [next_piece(address, CALLS, FIRST + timedelta(days=1)) for _ in range(2)]
    written = [write_file(address, piece) for piece in pieces]
    assert [hand_over(address, *each) for each in zip(pieces, written)] == [True, False]
    assert [path.exists() for path in written] == [True, False]
    assert everything(reader) == before


def test_a_file_that_was_tidied_away_before_it_was_listed_takes_no_row_along(three_days, reader, address):
    before = everything(reader)
    piece = next_piece(address, CALLS, FIRST + timedelta(days=1))
    file = write_file(address, piece)
    tidy(address)
    assert not file.exists()
    assert not hand_over(address, piece, file)
    assert everything(reader) == before


def test_a_row_written_between_reading_and_moving_stays(three_days, journal, reader, address):
    piece = next_piece(address, CALLS, FIRST + timedelta(days=1))
    file = write_file(address, piece)
    journal.append(call(call_id="in between", at=first_second(FIRST) + 5 * 3600.0))
    assert journal.flush()
    assert hand_over(address, piece, file)
    assert everything(reader)["call_id"].count("in between") == 1


def test_the_files_of_another_journal_are_left_alone(three_days, journal, journal_url, reader, address):
    archive_all(address)
    kept = files(address)
    with changing(address) as db, db.transaction():
        db.change("DELETE FROM part")
        db.change("UPDATE state SET value = 'another' WHERE name = 'id'")
    tidy(address)
    assert files(address) == kept


def test_killed_at_any_moment_an_archiving_program_loses_and_doubles_nothing(journal, reader, journal_url, address):
    for number in range(300):
        journal.append(call(call_id=f"c{number}", at=first_second(FIRST) + number % 12 * DAY_S / 6 + number))
    assert journal.flush()
    before = everything(reader)
    program = """
        from datetime import date
        from toolkit.monitor.journal import archive, read_address
        archive.FILE_ROWS = archive.CHUNK_ROWS = 25
        address = read_address(sys.argv[1])
        archive.tidy(address)
        print("go", flush=True)
        for _ in archive.archive_days(address, date(2026, 12, 31)):
            print("moved", flush=True)
    """
    waiting = threading.Event()
    for delay_s in (0.0, 0.007, 0.023):
        archiver = in_another_process(program, journal_url)
        assert archiver.stdout.readline() == "go\n"
        waiting.wait(delay_s)
        archiver.send_signal(signal.SIGKILL)
        archiver.communicate(timeout=60)
        assert everything(reader) == before
    finish(in_another_process(program, journal_url))
    assert everything(reader) == before
    with changing(address) as db:
        assert db.fetch("SELECT count(*) FROM call")[0][0] == 0
        assert db.fetch("SELECT sum(rows) FROM part")[0][0] == 300


def test_while_days_move_a_reader_sees_each_row_once(journal, reader, journal_url):
    for number in range(250):
        journal.append(call(call_id=f"c{number}", at=first_second(FIRST) + number * 1800.0))
    assert journal.flush()
    before = everything(reader)
    program = """
        from datetime import date
        from toolkit.monitor.journal import archive, read_address
        archive.FILE_ROWS = archive.CHUNK_ROWS = 16
        print(sum(rows for _, rows in archive.archive_days(read_address(sys.argv[1]), date(2026, 12, 31))))
    """
    archiver = in_another_process(program, journal_url)
    looks = 0
    while archiver.poll() is None:
        assert reader.calls(columns=["call_id"])["call_id"] == before["call_id"]
        assert reader.scan().select("row").collect()["row"].sort().to_list() == before["row"]
        looks += 1
    assert finish(archiver) == "250\n"
    assert looks > 3
    assert everything(reader) == before


# Removing


def test_old_days_go_from_both_places_and_the_version_says_so(three_days, reader, address):
    prune(address, now=NOW, archive_after_s=2 * DAY_S)  # the 20th is archived
    version = reader.version()
    foretold = prune(address, now=NOW, older_than_s=DAY_S, dry_run=True)
    assert reader.version() == version
    done = prune(address, now=NOW, older_than_s=DAY_S)
    assert done.removed == foretold.removed == {"call": 20, "error": 1}
    assert done.files_removed == foretold.files_removed == 2
    assert everything(reader)["call_id"] == [*(f"c{n}" for n in range(30) if n % 3 == 2), "today"]
    assert files(address) == []
    assert (reader.runs()["name"], reader.votes()["vote_id"]) == (["evening"], ["v-1"])
    assert reader.version().removals > version.removals
    assert reader.version().row == version.row


def test_while_days_are_removed_a_reader_gets_the_days_that_are_left(journal, reader, journal_url, address):
    for number in range(12):
        journal.append(call(call_id=f"c{number}", at=first_second(FIRST) + number * DAY_S))
    assert journal.flush()
    prune(address, now=first_second(FIRST) + 13 * DAY_S, archive_after_s=0)
    program = f"""
        from toolkit.monitor.journal import read_address
        from toolkit.monitor.journal.pruning import prune
        sys.stdin.readline()
        for day in range(1, 13):
            prune(read_address(sys.argv[1]), now={first_second(FIRST)} + day * {DAY_S}, older_than_s=0)
    """
    remover = in_another_process(program, journal_url)
    remover.stdin.write("go\n")
    remover.stdin.flush()
    looks = set()
    while remover.poll() is None:
        found = reader.calls(columns=["call_id"])["call_id"]
        assert found == [f"c{number}" for number in range(12 - len(found), 12)]
        looks.add(len(found))
    finish(remover)
    assert len(looks) > 2
    assert reader.calls()["row"] == []


def test_a_dry_run_changes_nothing(three_days, reader, address):
    before = everything(reader)
    foretold = prune(address, now=NOW, archive_after_s=0, older_than_s=2 * DAY_S, dry_run=True)
    assert (foretold.archived, foretold.removed) == ({"call": 20}, {"call": 10, "error": 1})
    assert everything(reader) == before
    assert files(address) == []
    done = prune(address, now=NOW, archive_after_s=0, older_than_s=2 * DAY_S)
    assert (done.archived, done.removed) == (foretold.archived, foretold.removed)


def test_files_of_removed_days_that_a_killed_program_left_are_removed_next_time(three_days, reader, address):
    archive_all(address)
    old = address.archive / next(name for name in files(address) if "call/day=2026-11-20" in name)
    kept = old.read_bytes()
    prune(address, now=NOW, older_than_s=2 * DAY_S)
    old.parent.mkdir()
    old.write_bytes(kept)
    tidy(address)
    assert not old.exists()


def test_numbers_of_removed_rows_are_not_given_again(three_days, journal, reader, address):
    last = reader.last_row()
    prune(address, now=NOW + 2 * DAY_S, older_than_s=0)
    assert everything(reader)["row"] == []
    journal.append(call(at=NOW))
    assert journal.flush()
    assert reader.calls(after_row=last)["row"] == [last + 1]


def test_a_file_shrinks_when_days_have_moved(journal, journal_url, address):
    for number in range(2000):
        journal.append(call(at=first_second(FIRST), text=f"{number}" * 1000))
    assert journal.flush()
    archive_all(address)
    with changing(address) as db:
        if not journal_url.startswith("postgresql"):
            assert db.fetch("PRAGMA freelist_count") == [(0,)]
        assert db.fetch("SELECT count(*) FROM call") == [(0,)]


def test_where_there_is_no_journal_there_is_nothing_to_prune(address):
    with pytest.raises(JournalError, match="no journal at"):
        archive_all(address)
