"""The soak, short: everything that it asserts of answers, rows and what is let go of; its gauges on figures made up for them."""

import dataclasses
import random
from collections import Counter
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import quiet
from benchmarks.measure import environment
from benchmarks.server import running
from benchmarks.soak.__main__ import soak, write
from benchmarks.soak.checks import checks
from benchmarks.soak.gauges import Reading, growth
from benchmarks.soak.server import FaultyService
from toolkit.monitor.journal import Journal, JournalReader

TIMED = ("the rate is kept", "the journal keeps up", "calls do not pile up")


@pytest.fixture(scope="module")
def soaked(tmp_path_factory):
    """Some seconds of it; the figures of its gauges are replaced, as a short run's are those of its warm-up."""
    folder = tmp_path_factory.mktemp("soak")
    with environment(quiet(str(folder))), running(FaultyService) as url:
        run = soak(url, folder, rate=400, seconds=3, shift_s=1, readings=10)
    return dataclasses.replace(run, readings=readings_with())


def readings_with(**gauges):
    """Sixty readings that waver and don't grow, but for the gauges that are given as functions of the calls."""
    noise = random.Random(1)
    names = [each.name for each in dataclasses.fields(Reading) if each.name not in ("at_s", "calls")]
    usual = {name: 1000 * (n + 1) for n, name in enumerate(names)} | {"waiting": 3, "under_way": 4}
    return [
        Reading(
            at_s=30.0 * n,
            calls=6000 * n,
            **{name: int(gauges[name](6000 * n) if name in gauges else usual[name] + noise.randrange(-2, 3)) for name in names},
        )
        for n in range(60)
    ]


def not_held(run):
    return [each.what for each in checks(run) if not each.holds and each.what not in TIMED]


def test_nothing_is_lost_doubled_wrong_or_held_on_to(soaked):
    assert not_held(soaked) == []
    assert soaked.ledger.ended == 1200
    assert {"live", "replayed", "left", "cancelled", "ReplyError", "StreamInterrupted"} <= soaked.ledger.ends.keys()


def copied(run, folder, keep=lambda row: True, **changes):
    """The run with another journal: rows left out or changed."""
    found = JournalReader(run.journal).calls()
    from toolkit.monitor.events import CallRecord

    rows = [dict(zip(found, values)) for values in zip(*found.values())]
    journal = Journal(folder / "other.sqlite")
    for row in filter(keep, rows):
        changed = row | {name: change(row) for name, change in changes.items()}
        del changed["row"]
        journal.append(CallRecord(**changed))
    journal.close()
    return dataclasses.replace(run, journal=folder / "other.sqlite")


def answered_row(run, after):
    """The number of a row that holds an answer: which calls fail is another matter in each run."""
    found = JournalReader(run.journal).calls(columns=["status"])
    return next(row for row, status in zip(found["row"], found["status"]) if row > after and status == "ok")


def test_a_lost_row_is_noticed(soaked, tmp_path):
    lost = answered_row(soaked, after=700)
    broken = not_held(copied(soaked, tmp_path, keep=lambda row: row["row"] != lost))
    assert set(broken) == {"no row is lost", "every id that a caller was given is there", "a second process saw each row once and in order"}


def test_a_row_too_many_is_noticed(soaked, tmp_path):
    ledger = tmp_path / "ledger.tsv"
    lines = soaked.ledger.path.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[1:]))
    changed = dataclasses.replace(soaked, ledger=with_path(soaked.ledger, ledger))
    assert "no row is doubled" in not_held(changed)


def with_path(ledger, path):
    twin = object.__new__(type(ledger))
    twin.__dict__.update(ledger.__dict__ | {"path": path})
    return twin


def test_an_answer_in_the_wrong_row_is_noticed(soaked, tmp_path):
    wrong = answered_row(soaked, after=5)
    swapped = copied(soaked, tmp_path, text=lambda row: "something else" if row["row"] == wrong else row["text"])
    assert not_held(swapped) == ["every row holds the answer to its own prompt"]


@pytest.mark.parametrize(
    ("gauge", "leak", "noticed"),
    [
        ("rss_bytes", lambda calls: 200e6 + 60 * calls, "memory: flat"),
        ("blocks", lambda calls: 500e3 + calls / 10, "pieces of memory that Python handed out: flat"),
        ("reader_bytes", lambda calls: 80e6 + 60 * calls, "memory of the reading process: flat"),
        ("threads", lambda calls: 30 + calls / 60_000, "threads: flat"),
        ("sockets", lambda calls: 30 + calls / 60_000, "open sockets: flat"),
        ("files", lambda calls: 30 + calls / 60_000, "open files: flat"),
        ("journal_bytes", lambda calls: 5_000 * calls, "the journal grows by what is written"),
    ],
)
def test_a_leak_is_noticed(soaked, gauge, leak, noticed):
    assert not_held(dataclasses.replace(soaked, readings=readings_with(**{gauge: leak}))) == [noticed]


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        ({"left_behind": "2 threads"}, "after closing nothing is held"),
        ({"stuck": 1}, "no place is taken by a call that has ended"),
        ({"faults": Counter(good=1200)}, "every fault happened"),
        ({"lost": 1}, "no row is lost"),
    ],
)
def test_what_is_held_on_to_or_did_not_happen_is_noticed(soaked, change, noticed):
    assert not_held(dataclasses.replace(soaked, **change)) == [noticed]


def test_growth_is_found_below_noise_and_an_outlier_is_not_growth():
    noise = random.Random(2)
    calls = list(range(0, 6000, 100))
    grown = growth(calls, [1e6 + 50 * each + noise.gauss(0, 20_000) for each in calls])
    assert grown.low < 50 * 5900 < grown.high
    assert grown.low > 0
    still = growth(calls, [1e6 + noise.gauss(0, 20_000) + (1e6 if each == 3000 else 0) for each in calls])
    assert abs(still.middle) < 100_000


def test_the_page_says_what_held_and_the_chart_is_a_picture(soaked, tmp_path):
    tmp_path.joinpath("images").mkdir()
    run = dataclasses.replace(soaked, stuck=1)
    write(tmp_path / "soak.md", run, checks(run), 1.0)
    page = tmp_path.joinpath("soak.md").read_text("utf-8")
    assert "no place is taken by a call that has ended | **no** | 1 places |" in page
    assert "**Not held: " in page
    assert "](images/soak.svg)" in page
    assert f"| good | {run.faults['good']:,} |" in page
    picture = ElementTree.parse(tmp_path / "images" / "soak.svg").getroot()
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in lines] == [60] * 8
