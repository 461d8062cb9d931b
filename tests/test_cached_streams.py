"""Streams and the cache: kept whole or not at all, and replayed as streams, from every tier."""

from itertools import accumulate

import pytest

from toolkit.cache import ResponseCache
from toolkit.client import Client
from toolkit.errors import CacheMiss, ConfigError, ProviderError
from toolkit.providers.scripted import Answer, Failure, script


@pytest.fixture
def naps():
    return []


@pytest.fixture
def client(tmp_path, naps):
    with Client(cache=ResponseCache(tmp_path), journal=False, sleep=naps.append) as client:
        yield client


def read(client, model, **options):
    *pieces, end = client.stream_text(model, "go", **options)
    return [event[:2] for event in pieces], end.completion


def test_an_instant_replay_gives_the_same_pieces_without_a_pause(client, naps):
    script("told", [Answer("roses are red", reasoning="hm well", per_token_s=0.005)], cycle=False)
    told, live = read(client, "scripted/told")
    again, replayed = read(client, "scripted/told", replay="instant")
    assert again == told
    assert (live.provenance, replayed.provenance, replayed.cache_tier) == ("live", "replayed", "memory")
    assert naps == []


def test_a_recorded_replay_waits_until_each_piece_is_due(client, naps):
    script("timed", [Answer("roses are red", per_token_s=0.005)], cycle=False)
    read(client, "scripted/timed")
    (found,) = (client.cache.peek(key) for key in client.cache._memory)
    due = sorted({at for at, _, _ in found.kept.pieces})
    again, replayed = read(client, "scripted/timed", replay="recorded")
    assert list(accumulate(naps)) == pytest.approx(due)
    assert "".join(text for _, text in again) == replayed.text == "roses are red"


def test_a_replay_from_disk_is_the_same_stream(client, tmp_path, naps):
    script("lasting", [Answer("roses are red", per_token_s=0.005)], cycle=False)
    told, _ = read(client, "scripted/lasting")
    with Client(cache=ResponseCache(tmp_path), journal=False, sleep=naps.append) as later:
        again, replayed = read(later, "scripted/lasting", replay="recorded")
    assert again == told
    assert replayed.cache_tier == "disk"
    assert len(naps) >= 2


def test_an_unknown_way_of_replaying_is_refused(client):
    with pytest.raises(ConfigError, match="'instant' or 'recorded'"):
        client.stream_text("scripted/echo", "go", replay="fast")


def test_the_modes_of_the_cache_hold_for_streams_too(client):
    script("modes", [Answer("one"), Answer("two"), Answer("three")], cycle=False)
    with pytest.raises(CacheMiss):
        read(client, "scripted/modes", cache="only")
    assert read(client, "scripted/modes", cache=False)[1].text == "one"
    with pytest.raises(CacheMiss):
        read(client, "scripted/modes", cache="only")
    assert read(client, "scripted/modes")[1].text == "two"
    assert read(client, "scripted/modes", cache="only")[1].text == "two"
    assert read(client, "scripted/modes", cache="refresh")[1].text == "three"
    assert read(client, "scripted/modes", cache="only")[1].text == "three"


def test_a_stream_that_breaks_off_is_not_kept(client):
    script("broken-off", [Failure(after_tokens=2, drop=True), Answer("whole")], cycle=False)
    with pytest.raises(ProviderError):
        read(client, "scripted/broken-off")
    assert read(client, "scripted/broken-off")[1].text == "whole"


def test_a_stream_whose_reader_stops_early_is_not_kept(client):
    script("left", [Answer("roses are red"), Answer("whole")], cycle=False)
    events = client.stream_text("scripted/left", "go")
    next(events)
    events.close()
    assert read(client, "scripted/left")[1].provenance == "live"


@pytest.mark.parametrize("bad", [Answer(""), Answer("half", finish_reason="content_filter")], ids=["empty", "filtered"])
def test_an_empty_or_filtered_answer_is_not_kept(client, bad):
    script("bad", [bad, Answer("good")], cycle=False)
    try:
        client.generate_text("scripted/bad", "go")
    except ProviderError:
        pass  # some dialects say so with an error
    assert client.generate_text("scripted/bad", "go").text == "good"
