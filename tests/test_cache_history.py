"""What caches did, in the journal: what is lost to whom, how full they are, from every process."""

import multiprocessing

import pytest

from journals import cache_state, call, written_by_itself
from toolkit import Client, monitor
from toolkit.cache import ResponseCache, model_cache
from toolkit.cache.base import MISS
from toolkit.cache.disk import DiskStore
from toolkit.monitor.journal import Journal, JournalReader, writer


@pytest.fixture
def asked(journal_url):
    """A client over a cache of two answers in memory, which was asked five questions, and the last one twice."""
    with Client(cache=ResponseCache(memory_entries=2), journal=journal_url) as client:
        for number in (1, 2, 3, 4, 5, 5):
            client.generate_text("scripted/echo", f"question {number}")
        yield client
    client.journal.close()


def sums(journal, *names):
    history = monitor.cache_history(journal=journal)
    return history[history["cache"] == "answers"].groupby("tier")[list(names)].sum().to_dict("index")


def test_evictions_and_size_are_in_the_journal(asked, journal_url):
    history = monitor.cache_history(journal=journal_url)
    answers = history[history["cache"] == "answers"]
    counts = answers[["hits", "misses", "evictions", "expirations"]].sum()
    assert counts.to_dict() == {"hits": 1, "misses": 5, "evictions": 3, "expirations": 0}
    assert answers.iloc[-1][["tier", "entries", "max_entries"]].tolist() == ["memory", 2, 2]
    assert monitor.cache_history.polars(journal=journal_url).shape == history.shape


def test_rows_add_up_to_what_the_cache_itself_says(asked, journal_url):
    asked.journal.flush()
    asked.generate_text("scripted/echo", "question 6")
    asked.cache.clear()
    asked.generate_text("scripted/echo", "question 7")
    stats = asked.cache.stats().tiers[0]
    assert sums(journal_url, "hits", "misses") == {"memory": {"hits": stats.hits, "misses": stats.misses}}


def test_what_did_not_change_is_not_written_again(asked, journal_url):
    asked.journal.flush()
    rows = JournalReader(journal_url).last_row("cache")
    asked.generate_text("scripted/echo", "question 8", cache=False)
    asked.journal.flush()
    assert JournalReader(journal_url).last_row("cache") == rows


@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_a_client_that_asks_nothing_makes_no_journal(journal_url):
    model_cache.set("model:a", 1)
    with Client(cache=ResponseCache(), journal=journal_url) as client:
        client.journal.flush()
    model_cache.clear()
    assert not JournalReader(journal_url).exists


@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_caches_of_the_program_are_told_too(asked, journal_url):
    model_cache.set("model:a", 1)
    assert model_cache.get("model:a") == 1
    asked.generate_text("scripted/echo", "question 9")
    history = monitor.cache_history(journal=journal_url)
    model_cache.clear()
    models = history[history["cache"] == "model"]
    assert (models["hits"].sum(), models["entries"].iloc[-1], models["max_entries"].iloc[-1]) == (1, 1, 100)


@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_the_last_changes_are_told_although_nothing_more_is_appended(journal_url, monkeypatch):
    monkeypatch.setattr(writer, "LOOK_EVERY_S", 0.3)
    states = iter(range(1, 100))

    class Changing:
        def rows(self):
            yield cache_state(state_id=f"s{next(states)}")

    journal, thing = Journal(journal_url), Changing()
    journal.watch(thing, thing)
    journal.append(call())
    reader = JournalReader(journal_url)
    written_by_itself(reader, 1)
    journal.append(call())
    written_by_itself(reader, 2)
    written_by_itself(reader, 2, "cache")
    journal.close()
    assert reader.last_row("cache") == 2


@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_a_forked_process_does_not_tell_its_parents_counts_again(asked, journal_url):
    def ask():
        asked.generate_text("scripted/echo", "question 5")
        asked.journal.flush()
        asked.generate_text("scripted/echo", "question 5")

    asked.journal.flush()
    child = multiprocessing.get_context("fork").Process(target=ask)
    child.start()
    child.join()
    assert child.exitcode == 0
    found = sums(journal_url, "hits", "evictions")["memory"]
    assert found["evictions"] == 3
    assert found["hits"] == 2  # one before the fork, one after the child's first look


def test_the_disk_tier_counts_what_it_removes(tmp_path):
    now = [1_000.0]
    store = DiskStore(tmp_path, clock=lambda: now[0])
    for number in range(4):
        store.set(f"key-{number}", b"x" * 100, 50.0 if number == 3 else None)
    store.prune(max_entries=3)
    now[0] += 60.0
    assert store.get("key-3") is MISS
    stats = ResponseCache(stores=[store]).stats().tiers[1]
    assert (stats.evictions, stats.expirations, stats.entries) == (1, 1, 2)
    store.close()
