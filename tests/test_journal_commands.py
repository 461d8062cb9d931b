"""``toolkit journal``: what is exported, what is found wrong, and what is saved."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import polars as pl
import pytest

from journals import cache_state, call, entry, error
from toolkit import monitor
from toolkit.cli import main
from toolkit.monitor.events import RunRecord
from toolkit.monitor.journal import SCHEMA_VERSION, Journal, JournalReader, read_address
from toolkit.monitor.journal.database import changing

DAY_S = 86_400
ROWS = 200


@pytest.fixture
def filled(journal_url, monkeypatch):
    """Two hundred calls: half of them four days old and of a run, half of today."""
    monkeypatch.setenv("TOOLKIT_JOURNAL", journal_url)
    journal = Journal(journal_url)
    journal.append(RunRecord("r-1", time.time(), "p", "evening", "{}"))
    for number in range(ROWS):
        old = number % 2 == 0
        at = time.time() - (4 * DAY_S if old else 5)
        journal.append(call(call_id=f"c{number}", at=at, run_id="r-1" if old else None, text='say "hi",\n' * 40, latency_s=number / 8))
    journal.append(error(at=time.time()))
    for number in range(2):
        journal.append(entry(log_id=f"l{number}", at=time.time(), run_id="r-1" if number else None))
    journal.append(cache_state(at=time.time()))
    journal.close()
    return journal_url


@pytest.fixture
def file(filled):
    """The same, but only as a file."""
    if filled.startswith("postgresql"):
        pytest.fail("a test of files asks for journal_url in SQLite alone")
    return read_address(filled).path


FILES_ONLY = pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)


def said(capsys, *arguments, code=0):
    assert main(["journal", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# Export


@pytest.mark.parametrize(("name", "read"), [
    ("calls.parquet", pl.read_parquet),
    ("calls.csv", lambda path: pl.read_csv(path, try_parse_dates=True)),
    ("calls.jsonl", pl.read_ndjson),
])  # fmt: skip
def test_calls_are_exported_from_the_database_and_the_archive_by_the_files_ending(filled, tmp_path, capsys, name, read):
    assert said(capsys, "prune")["archived"] == {"call": ROWS // 2}
    target = tmp_path / name
    assert said(capsys, "export", str(target)) == {"rows": ROWS, "file": str(target)}
    found, frame = read(target), monitor.calls.polars(journal=filled)
    for column in ("call_id", "text", "latency_s"):
        assert found[column].to_list() == frame[column].to_list()
    if name != "calls.jsonl":
        assert found["at"].to_list() == frame["at"].to_list()
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(target.suffix)] == [name]


@pytest.mark.parametrize(("asked", "rows"), [
    (["--run", "evening"], ROWS // 2),
    (["--since", "1d"], ROWS // 2),
    (["--run", "r-1", "--since", "1d"], 0),
    (["--table", "error"], 1),
    (["--table", "vote"], 0),
])  # fmt: skip
@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@FILES_ONLY
def test_a_part_is_exported_and_an_empty_one_too(filled, tmp_path, capsys, asked, rows, ending):
    assert said(capsys, "export", str(tmp_path / f"part.{ending}"), *asked)["rows"] == rows


@FILES_ONLY
@pytest.mark.parametrize(("arguments", "code", "told"), [
    (["export", "calls.xlsx"], 2, ".parquet, .csv, .jsonl"),
    (["export", "calls.csv", "--table", "calls"], 2, "there are call, error"),
    (["export", "nowhere/calls.csv"], 1, "can't export to"),
    (["check", "--journal", "none.sqlite"], 1, "no journal at"),
    (["prune", "--journal", "none.sqlite"], 1, "no journal at"),
    (["check", "--journal", "mysql://me:canary@db/x"], 1, "postgresql://"),
])  # fmt: skip
def test_what_is_wrong_is_told_with_what_to_do(filled, tmp_path, monkeypatch, capsys, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    assert main(["journal", *arguments]) == code
    printed = capsys.readouterr().err
    assert told in printed
    assert "canary" not in printed


# Prune


def test_prune_says_how_many_rows_went_where(filled, capsys):
    assert main(["journal", "prune", "--dry-run"]) == 0
    assert f"{ROWS // 2:,} call rows would be moved" in capsys.readouterr().out
    assert main(["journal", "prune"]) == 0
    assert f"{ROWS // 2:,} call rows moved to" in capsys.readouterr().out
    assert main(["journal", "prune", "--older-than", "3d"]) == 0
    assert f"{ROWS // 2:,} call rows removed" in capsys.readouterr().out
    assert len(JournalReader(filled).calls()["row"]) == ROWS // 2


def test_prune_may_remove_without_moving(filled, capsys):
    done = said(capsys, "prune", "--no-archive", "--older-than", "3d")
    assert (done["removed"], done["archived"], done["files_written"]) == ({"call": ROWS // 2}, {}, 0)


# Check


def test_a_whole_journal_is_said_to_be_whole(filled, capsys):
    said(capsys, "prune")
    found = said(capsys, "check")
    assert (found["ok"], found["schema_version"], found["problems"]) == (True, SCHEMA_VERSION, [])
    assert found["rows"] == {"call": ROWS // 2, "error": 1, "run": 1, "vote": 0, "log": 2, "cache": 1}
    assert found["archived"] == {"call": ROWS // 2, "error": 0, "log": 0, "cache": 0}
    assert main(["journal", "check"]) == 0
    assert "Everything is as it should be" in capsys.readouterr().out


def archived_file(url):
    return next(read_address(url).archive.rglob("*.parquet"))


def damage(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


@pytest.mark.parametrize(("harm", "what"), [
    (lambda path: path.unlink(), "is missing"),
    (lambda path: path.write_bytes(b"PAR1 no more"), "can't be read"),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), "can't be read"),
    (lambda path: pl.read_parquet(path).head(7).write_parquet(path), "has 7 rows"),
    (lambda path: pl.read_parquet(path).with_columns(pl.col("at") + DAY_S).write_parquet(path), "another day"),
    (lambda path: (path.parent / "part-9.parquet").write_bytes(path.read_bytes()), "does not list it"),
    (lambda path: (path.parent / ".part-9.unfinished").write_bytes(b""), "never finished"),
])  # fmt: skip
@FILES_ONLY
def test_what_is_wrong_with_the_archive_is_named(filled, capsys, harm, what):
    said(capsys, "prune")
    harm(archived_file(filled))
    problems = said(capsys, "check", code=1)["problems"]
    assert what in problems[0]["what"]
    assert problems[0]["next_step"]


def test_rows_that_are_in_the_database_and_in_the_archive_are_named(filled, capsys):
    said(capsys, "prune")
    journal = Journal(filled)
    journal.append(call(call_id="c0"))
    journal.close()
    problems = said(capsys, "check", code=1)["problems"]
    assert "1 rows of table call are there twice (call_id c0)" in problems[0]["what"]


def test_a_newer_schema_is_named(filled, capsys):
    with changing(read_address(filled)) as db:
        db.set_version(SCHEMA_VERSION + 1)
    assert "upgrade" in said(capsys, "check", code=1)["problems"][0]["next_step"]


@pytest.mark.parametrize("kind", ["not a database", "a page of zeros", "cut in half", "an index of its own"])
@FILES_ONLY
def test_a_damaged_file_is_said_to_be_damaged(file, capsys, kind):
    if kind == "an index of its own":
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute("DELETE FROM sqlite_master WHERE name = 'call_at'")
        db.close()
    elif kind == "cut in half":
        os.truncate(file, file.stat().st_size // 2)
    else:
        with file.open("r+b") as content:
            content.seek(0 if kind == "not a database" else file.stat().st_size // 8192 * 4096)
            content.write(b"damage! " * 512)
    found = said(capsys, "check", code=1)
    assert not found["ok"]
    assert "--repair" in found["problems"][0]["next_step"]


# Repair


@FILES_ONLY
@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_repair_saves_what_can_be_read_and_keeps_the_damaged_file(file, capsys, place):
    said(capsys, "prune", "--archive-after", "3d")  # half of the rows are in the archive, and stay readable
    size = file.stat().st_size
    with file.open("r+b") as content:
        content.seek(int(size * place) // 4096 * 4096)
        content.write(b"damage! " * 512)
    damaged = file.read_bytes()
    before = said(capsys, "check", code=1)
    found = said(capsys, "check", "--repair")
    assert before["problems"]
    assert found["ok"]
    assert ROWS // 2 * 0.6 < found["rows"]["call"] <= ROWS // 2
    assert found["archived"]["call"] == ROWS // 2
    kept = next(file.parent.glob("*.damaged-*"))
    assert kept.read_bytes() == damaged
    rows = JournalReader(file).calls()
    assert len(rows["row"]) == len(set(rows["call_id"])) == found["rows"]["call"] + ROWS // 2
    assert {name: f"c{row - 1}" for name, row in zip(rows["call_id"], rows["row"])} == {name: name for name in rows["call_id"]}


@FILES_ONLY
def test_what_a_writer_has_open_goes_on_in_the_repaired_file(file, capsys):
    journal = Journal(file)
    journal.append(call(call_id="before"))
    assert journal.flush()
    said(capsys, "check", "--repair")
    journal.append(call(call_id="after"))
    assert journal.flush()
    journal.close()
    assert JournalReader(file).calls()["call_id"][-2:] == ["before", "after"]


@FILES_ONLY
def test_where_nothing_can_be_read_the_archive_is_still_saved(file, capsys):
    said(capsys, "prune")
    file.write_bytes(b"this was a journal " * 1000)
    found = said(capsys, "check", "--repair")
    assert (found["rows"]["call"], found["archived"]["call"]) == (0, ROWS // 2)
    assert len(JournalReader(file).calls()["row"]) == ROWS // 2


@FILES_ONLY
@pytest.mark.parametrize("readable", [True, False])
def test_repair_lists_only_files_of_its_own_journal(file, capsys, readable):
    said(capsys, "prune")
    own = archived_file(file)
    stranger = pl.read_parquet(own, hive_partitioning=False).with_columns(pl.col("call_id") + "-strange")
    stranger.write_parquet(own.with_name("part-7.parquet"), metadata={"toolkit.journal": "another", "toolkit.table": "call"})
    if not readable:
        own.unlink()
        file.write_bytes(b"this was a journal " * 1000)
        own.with_name("part-8.parquet").write_bytes(b"PAR1")
        stranger.write_parquet(own.with_name("part-9.parquet"), metadata={"toolkit.journal": "a third", "toolkit.table": "call"})
    found = said(capsys, "check", "--repair", code=1)
    assert found["archived"]["call"] == (ROWS // 2 if readable else 0)
    assert any("does not list it" in problem["what"] for problem in found["problems"])


def test_a_server_is_not_repaired_here(filled, capsys):
    if filled.startswith("postgresql"):
        assert main(["journal", "check", "--repair"]) == 2
        assert "PostgreSQL's own tools" in capsys.readouterr().err
    else:
        assert said(capsys, "check", "--repair")["rows"]["call"] == ROWS


@FILES_ONLY
def test_without_polars_the_extra_is_named(filled):
    code = "import sys; sys.modules['polars'] = None\nfrom toolkit.cli import main\nsys.exit(main(['journal', 'prune']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'model-comparison-toolkit[notebook]'" in done.stderr
