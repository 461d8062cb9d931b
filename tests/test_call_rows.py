"""What the journal says of calls that ended in some other way than well or badly, and of what a server had to do first."""

import asyncio

import pandas as pd
import polars as pl
import pytest

from servers.http import Answer, Server, nd
from toolkit import AsyncClient, Client, monitor
from toolkit.providers.scripted import Answer as Said
from toolkit.providers.scripted import script


def leave_thread(model, **options):
    with Client(**options) as client:
        events = client.stream_text(model, "go")
        first = next(events)
        events.close()
    return first


def leave_loop(model, **options):
    async def main():
        async with AsyncClient(**options) as client:
            events = client.stream_text(model, "go")
            first = await anext(events)
            await events.aclose()
            return first

    return asyncio.run(main())


def ask(model, **options):
    with Client(**options) as client:
        return client.generate_text(model, "go")


@pytest.mark.parametrize("leave", [leave_thread, leave_loop], ids=["thread", "loop"])
def test_a_stream_that_its_reader_left_is_no_error(leave):
    script("long-story", [Said("once upon a time")])
    assert leave("scripted/long-story", cache=False).text == "once"
    (row,) = monitor.calls.polars().to_dicts()
    assert (row["status"], row["error_type"], row["error_message"], row["text"]) == ("left", None, None, "once")
    assert (row["provenance"], row["attempts"]) == ("live", 1)
    assert 0 < row["ttft_s"] <= row["latency_s"]
    assert row["total_s"] == pytest.approx(row["lookup_s"] + row["latency_s"] + row["consumer_s"])
    assert [row[name] for name in ("cost_usd", "output_tokens", "output_tokens_per_s", "finish_reason")] == [None] * 4
    assert monitor.errors().empty


def test_a_replay_that_its_reader_left_asked_nothing(tmp_path):
    script("short-story", [Said("the end")])
    ask("scripted/short-story")
    leave_thread("scripted/short-story")
    row = monitor.calls().query("status == 'left'").iloc[0]
    assert (row["provenance"], row["attempts"]) == ("replayed", 0)
    assert pd.isna(row["latency_s"])


def test_a_reader_who_leaves_at_the_end_has_read_everything():
    script("read-out", [Said("one two")])
    with Client(cache=False) as client:
        events = client.stream_text("scripted/read-out", "go")
        while next(events).kind != "end":
            pass
        events.close()
    assert monitor.calls()["status"].tolist() == ["ok"]


def test_percentiles_and_cache_figures_leave_out_who_left():
    script("read-or-left", [Said("one two")])
    ask("scripted/read-or-left", cache=False)
    leave_thread("scripted/read-or-left", cache=False)
    assert monitor.percentiles("status", q=0.5)[["status", "n"]].to_numpy().tolist() == [["ok", 1]]
    assert monitor.cache_stats()["misses"].tolist() == [1]


def ollama(load_ns):
    """A server that says how long it loaded the model."""
    duration = {} if load_ns is None else {"load_duration": load_ns}
    last = {"message": {"content": "Hi"}, "done": True, "done_reason": "stop", "eval_count": 2, **duration}
    return Server(lambda _request: Answer(200, {}, [nd(last)], framing="length"))


@pytest.mark.parametrize(("load_ns", "load_s", "cold"), [(1_203_000_000, 1.203, 1), (41_000_000, 0.041, 0), (None, None, None)])
def test_a_cold_load_is_told_from_a_warm_one(load_ns, load_s, cold):
    with ollama(load_ns) as server:
        ask("ollama/m", base_urls={"ollama": server.url})
        ask("ollama/m", base_urls={"ollama": server.url})
    first, replayed = monitor.calls()[["load_s", "cold"]].astype(object).where(lambda cell: cell.notna(), None).to_numpy().tolist()
    assert first == [pytest.approx(load_s) if load_s else None, cold]
    assert replayed == [None, None]  # nothing was loaded for it


FRAME = {"model": "m", "latency_s": [9.0, 8.0, 1.0, 2.0, 3.0], "cold": [1, 1, 0, 0, None], "provenance": "live", "status": "ok"}


@pytest.mark.parametrize("frame", [pd.DataFrame(FRAME).astype({"cold": "Int64"}), pl.DataFrame(FRAME)], ids=["pandas", "polars"])
@pytest.mark.parametrize(("cold", "n", "value"), [(None, 5, 3.0), (False, 3, 2.0), (True, 2, 8.5)])
def test_percentiles_can_leave_cold_calls_out(frame, cold, n, value):
    table = monitor.percentiles("model", q=0.5, frame=frame, cold=cold)
    assert table[["n", "value"]].to_numpy().tolist() == [[n, value]]


def test_percentiles_can_show_cold_and_warm_side_by_side():
    table = monitor.percentiles(["model", "cold"], q=0.5, frame=pd.DataFrame(FRAME).dropna())
    assert table[["cold", "value"]].to_numpy().tolist() == [[0, 1.5], [1, 8.5]]


def test_rates_reach_the_journal():
    script("steady", [Said("one two three four five", per_token_s=0.002)])
    with Client(cache=False) as client:
        timing = list(client.stream_text("scripted/steady", "go"))[-1].completion.timing
    row = monitor.calls().iloc[0]
    for name in ("e2e_tokens_per_s", "output_tokens_per_s", "answer_tokens_per_s", "tpot_s", "itl_p50_s", "itl_p95_s"):
        assert row[name] == getattr(timing, name) > 0
