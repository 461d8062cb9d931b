"""Frames from a journal that the real writer wrote."""

import math
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from toolkit import monitor, stats
from toolkit.errors import ConfigError, JournalError
from toolkit.monitor.events import CALL_COLUMNS, CallRecord, ErrorRecord, RunRecord
from toolkit.monitor.journal import open_journal

MOMENT = datetime(2026, 11, 1, 12, 30, 15, 123456, tzinfo=UTC)
FRAMES = pytest.mark.parametrize("kind", ["pandas", "polars"])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal.sqlite")


@pytest.fixture
def record(path):
    """Append calls to the process's journal, unflushed: frames must see them all the same."""
    journal = open_journal(path)
    numbers = iter(range(10_000))

    def append(count=1, **fields):
        for _ in range(count):
            plain = dict.fromkeys(CALL_COLUMNS) | {"at": MOMENT.timestamp(), "call_id": f"c{next(numbers)}", "process": "p", "repeat": 0}
            named = {"provider": "scripted", "model": "scripted/a", "status": "ok", "provenance": "live", "attempts": 1}
            journal.append(CallRecord(**(plain | named | fields)))

    append.journal = journal
    yield append
    journal.close()


def asked(function, kind, *args, **kwargs):
    return (function if kind == "pandas" else function.polars)(*args, **kwargs)


# calls and errors


def test_calls_have_the_columns_of_a_record_with_types_that_fit(record, path):
    record(latency_s=0.5, input_tokens=3)
    frame = monitor.calls(journal=path)
    assert tuple(frame.columns) == CALL_COLUMNS
    assert str(frame["at"].dtype) == "datetime64[us, UTC]"
    assert frame["at"][0] == pd.Timestamp(MOMENT)
    assert [str(frame[name].dtype) for name in ("model", "latency_s", "input_tokens", "cost_usd")] == ["str", "float64", "Int64", "float64"]
    assert frame["input_tokens"][0] == 3
    assert frame["output_tokens"][0] is pd.NA


def test_the_polars_twin_holds_the_same(record, path):
    record(latency_s=0.5, input_tokens=3)
    frame = monitor.calls.polars(journal=path)
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame["at"][0] == MOMENT
    assert [frame.schema[name] for name in ("model", "latency_s", "input_tokens")] == [pl.String, pl.Float64, pl.Int64]
    assert frame["output_tokens"].to_list() == [None]


@FRAMES
@pytest.mark.parametrize("name", ["calls", "errors", "cache_stats", "percentiles"])
def test_an_empty_frame_has_the_types_of_a_full_one(record, path, tmp_path, kind, name):
    empty = asked(getattr(monitor, name), kind, journal=str(tmp_path / "none.sqlite"))
    record(latency_s=0.5)
    record.journal.append(ErrorRecord(1.0, "e", None, None, "p", "ServerError", "f", "m", "", "{}"))
    full = asked(getattr(monitor, name), kind, journal=path)
    assert len(empty) == 0
    assert len(full) > 0
    assert list(empty.dtypes) == list(full.dtypes)
    assert list(empty.columns) == list(full.columns)


def test_errors_come_with_their_fingerprint_and_time(record, path):
    record.journal.append(ErrorRecord(MOMENT.timestamp(), "e-1", "c", "r-1", "p", "ServerError", "f-1", "it broke", "stack", "{}"))
    frame = monitor.errors(run="r-1", journal=path)
    assert frame[["at", "fingerprint", "message"]].to_dict("records") == [
        {"at": pd.Timestamp(MOMENT), "fingerprint": "f-1", "message": "it broke"}
    ]


def test_a_run_is_found_by_id_and_by_name(record, path):
    record.journal.append(RunRecord("r-1", 1.0, "p", "evening", "{}"))
    record(run_id="r-1", call_id="mine")
    record(run_id="r-2")
    assert monitor.calls(run="r-1", journal=path)["call_id"].tolist() == ["mine"]
    assert monitor.calls(run="evening", journal=path)["call_id"].tolist() == ["mine"]


@pytest.mark.parametrize("since", [
    "90s", "1.5min", " 1 h", "1d", 90, 90.0, timedelta(minutes=1), pd.Timedelta("1h"), datetime.now(UTC) - timedelta(minutes=2),
])  # fmt: skip
def test_since_takes_a_time_or_how_long_ago(record, path, since):
    record(call_id="recent", at=time.time() - 30)
    record(call_id="old", at=time.time() - 10 * 86400)
    assert monitor.calls(since, journal=path)["call_id"].tolist() == ["recent"]


@pytest.mark.parametrize(("since", "said"), [
    (datetime(2026, 1, 1), "add one"),
    ("yesterday", "'15min'"),
    ("5m", "'15min'"),
    (-5, "in the future"),
    (timedelta(seconds=-1), "in the future"),
    (math.nan, "in the future"),
])  # fmt: skip
def test_a_since_that_could_mean_anything_is_refused(path, since, said):
    with pytest.raises(ConfigError, match=said):
        monitor.calls(since, journal=path)


@FRAMES
def test_until_ends_a_window(record, path, kind):
    record(call_id="recent", at=time.time() - 30)
    record(call_id="old", at=time.time() - 7200)
    assert list(asked(monitor.calls, kind, "3h", until="1h", journal=path)["call_id"]) == ["old"]
    record.journal.append(ErrorRecord(1.0, "e", None, None, "p", "ServerError", "f", "m", "", "{}"))
    assert len(asked(monitor.errors, kind, until=datetime(2020, 1, 1, tzinfo=UTC), journal=path)) == 1
    with pytest.raises(ConfigError, match=r"until=2026.*until.replace"):
        asked(monitor.calls, kind, until=datetime(2026, 1, 1), journal=path)


@FRAMES
def test_an_empty_window_has_the_columns_and_types_of_a_full_one(record, path, kind):
    record(latency_s=0.5, input_tokens=3)
    full, empty = (asked(monitor.calls, kind, journal=path, until=until) for until in (None, datetime(1990, 1, 1, tzinfo=UTC)))
    assert (len(full), len(empty)) == (1, 0)
    assert list(empty.columns) == list(full.columns)
    assert list(empty.dtypes) == list(full.dtypes)


@FRAMES
def test_an_unknown_metric_lists_the_known_ones(path, kind):
    with pytest.raises(ConfigError, match=r"unknown metric 'speed'; known: .*latency_s, .*cost_usd"):
        asked(monitor.percentiles, kind, metric="speed", journal=path)


def test_the_journal_of_the_settings_is_the_default(record, path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", path)
    record(call_id="here")
    assert monitor.calls()["call_id"].tolist() == ["here"]


def test_a_damaged_journal_is_an_error_and_not_an_empty_frame(tmp_path):
    path = tmp_path / "broken.sqlite"
    path.write_bytes(b"not a database " * 200)
    with pytest.raises(JournalError, match="can't read"):
        monitor.calls(journal=path)


# cache_stats


def test_cache_stats_count_each_tier_by_the_look_ups_that_reached_it(record, path):
    record(6, provenance="replayed", cache_tier="memory", saved_s=1.0, saved_usd=0.5, answer_bytes=100)
    record(1, provenance="replayed", cache_tier="disk", saved_s=2.0, answer_bytes=1000)
    record(2, provenance="coalesced", saved_s=0.25, saved_usd=0.25, answer_bytes=10)
    record(3)
    record(5, status="error", provenance=None)
    table = monitor.cache_stats(journal=path)
    assert table[["model", "tier", "hits", "misses", "coalesced"]].to_numpy().tolist() == [
        ["scripted/a", "all", 7, 3, 2],
        ["scripted/a", "memory", 6, 4, 0],
        ["scripted/a", "disk", 1, 3, 0],
    ]
    assert table["hit_rate"].tolist() == [0.7, 0.6, 0.25]
    assert table["bytes"].tolist() == [1620, 600, 1000]
    assert table["saved_s"].tolist() == [8.5, 6.0, 2.0]
    assert table["saved_usd"].tolist() == [3.5, 3.0, 0.0]


def test_cache_stats_keep_models_apart(record, path):
    record(model="scripted/b")
    record(model="scripted/a", provenance="replayed", cache_tier="memory")
    table = monitor.cache_stats.polars(journal=path)
    assert table.filter(pl.col("tier") == "all")["hit_rate"].to_list() == [1.0, 0.0]


# percentiles


@FRAMES
def test_percentiles_are_over_live_answers_and_say_n(record, path, kind):
    for number in range(1, 101):
        record(latency_s=float(number))
    record(50, latency_s=1e6, status="error")
    record(50, provenance="replayed")
    table = asked(monitor.percentiles, kind, q=(0.5, 0.9), journal=path)
    assert list(table.columns) == ["provider", "model", "q", "value", "low", "high", "n", "note"]
    assert list(table["value"]) == pytest.approx([50.5, 90.1])
    assert list(table["n"]) == [100, 100]
    assert (table["low"][0], table["high"][0]) == (40.0, 60.0)


def test_a_percentile_that_n_cannot_support_is_nan_and_says_why(record, path):
    for number in range(30):
        record(latency_s=float(number))
    table = monitor.percentiles(journal=path)
    assert table["note"].tolist() == ["", "upper bound not estimable at n=30", "p99 needs 100 values, n=30"]
    assert table["value"].isna().tolist() == [False, False, True]
    assert table["high"].isna().tolist() == [False, True, True]
    assert table["low"].isna().tolist() == [False, False, True]


def test_a_model_without_a_single_value_is_in_the_table_with_n_0(record, path):
    record(latency_s=None)
    table = monitor.percentiles(q=0.5, journal=path)
    assert table[["n", "note"]].to_numpy().tolist() == [[0, "p50 needs 2 values, n=0"]]


def test_percentiles_by_any_columns_of_any_metric(record, path):
    for number in range(4):
        record(operation="text", attempts=number)
        record(operation="image", attempts=10 * number, provenance="replayed")
    table = monitor.percentiles("operation", "attempts", 0.5, provenance=None, journal=path)
    assert table[["operation", "value"]].to_numpy().tolist() == [["image", 15.0], ["text", 1.5]]


@pytest.mark.parametrize("library", [pd, pl])
@FRAMES
def test_percentiles_of_a_frame_at_hand(library, kind):
    frame = library.DataFrame({
        "model": ["a"] * 4 + ["b"] * 4, "hard": [True, False] * 4, "score": [1.0, 2.0, 3.0, None, 10.0, 20.0, 30.0, 40.0],
    })  # fmt: skip
    table = asked(monitor.percentiles, kind, ["model", "hard"], "score", 0.5, frame=frame, provenance=None, status=None)
    assert list(table["model"]) == ["a", "a", "b", "b"]
    assert list(table["hard"]) == ["False", "True", "False", "True"]
    assert list(table["n"]) == [1, 2, 2, 2]
    assert np.isnan(table["value"][0])
    assert list(table["value"])[1:] == [2.0, 30.0, 20.0]


@FRAMES
def test_percentiles_count_prompts_where_asked_to_and_calls_of_none_by_themselves(kind):
    seconds = [prompt + time / 100 for time in range(20) for prompt in range(8)]
    prompts = [f"p{int(value)}" for value in seconds]
    rows = {"label": "a", "latency_s": [*seconds, None], "run_id": "r", "prompt_id": [*prompts, "p1"], "status": "ok", "provenance": "live"}

    def interval(frame, clusters=("run_id", "prompt_id")):
        table = asked(monitor.percentiles, kind, "label", q=0.5, clusters=clusters, frame=frame)
        return table["low"][0], table["high"][0]

    frame = pd.DataFrame(rows)
    counted, plain = stats.percentile_interval(seconds, 0.5, clusters=prompts), stats.percentile_interval(seconds, 0.5)
    assert interval(frame) == interval(frame, "prompt_id") == (counted.low, counted.high)
    assert counted.low < plain.low and counted.high > plain.high
    assert interval(frame, ()) == interval(frame.assign(run_id=None)) == (plain.low, plain.high)


@pytest.mark.parametrize(("arguments", "said"), [
    ({"clusters": "colour"}, "no column 'colour'; they have at, call_id"),
    ({"metric": "speed"}, "unknown metric 'speed'; known: attempts, lookup_s"),
    ({"metric": "model"}, "unknown metric 'model'"),
    ({"by": "colour"}, "no column 'colour'; they have at, call_id"),
    ({"frame": pd.DataFrame({"model": ["a"]}), "by": "model"}, "no column 'latency_s'; it has model"),
    ({"frame": pd.DataFrame({"model": ["a"], "latency_s": [1.0]}), "by": "model"}, "pass provenance=None"),
])  # fmt: skip
def test_an_unknown_column_lists_the_known_ones(path, arguments, said):
    with pytest.raises(ConfigError, match=said):
        monitor.percentiles(journal=path, **arguments)


def test_percentiles_refuse_a_q_of_95(path):
    with pytest.raises(ConfigError, match=r"0\.95 for the 95th"):
        monitor.percentiles(q=95, journal=path)


# The functions themselves


def test_the_functions_show_their_signature_and_words_to_a_notebook():
    import inspect

    assert str(inspect.signature(monitor.calls)).startswith(
        "(since: 'Since' = None, run: 'str | None' = None, *, until: 'Since' = None, journal"
    )
    assert "one row a call" in monitor.calls.__doc__
    assert repr(monitor.calls) == "<frame function calls>"
    assert "percentiles" in dir(monitor)


def test_importing_the_monitor_imports_no_pandas():
    code = "import sys, toolkit.monitor, toolkit.monitor.journal, toolkit.monitor.frames, toolkit.stats, toolkit.charts; "
    code += "sys.exit(bool({'numpy', 'pandas', 'polars', 'scipy', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
