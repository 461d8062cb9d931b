"""What the dashboard's pages show, computed: every expected number below can be checked by hand."""

import json
import math

import polars as pl
import pytest

from dashboard import figures, views, words
from dashboard.cells import SCHEMA, build, combine, merge, of_rows, quantile
from dashboard.marks import MARK_ROW_PX, MARK_ROWS, with_marks
from dashboard.selection import STEPS_S, Against, Selection, Wanted, against, step_for, window
from dashboard_calls import MODELS, a_day, failed_call, live_call, replayed_call
from toolkit import stats
from toolkit.monitor.events import CallRecord

HOUR = Selection(lo_s=3600.0, hi_s=7200.0, against=Against("the window before", 0.0, 3600.0))
A, B = "ollama/a", "openrouter/b"


def frame(*rows):
    return pl.DataFrame({name: [getattr(row, name) for row in rows] for name in SCHEMA}, schema=SCHEMA)


def part(*rows, selection=HOUR):
    return views.cut(frame(*rows), selection)


def single(*rows, selection=HOUR):
    """The same calls, for questions about single ones."""
    inside = pl.col("at").is_between(selection.lo_s, selection.hi_s, closed="left")
    kept = frame(*rows).lazy().filter(inside, *views.filters(selection))
    return views.Rows(lambda since_s: kept.filter(pl.col("at") >= since_s), selection)


def failures(*rows, selection=HOUR):
    failed = frame(*rows).filter(pl.col("status") == "error")
    return views.Failures(of_rows(failed).counts.filter(*views.filters(selection)), selection)


def sample(values):
    return pl.DataFrame({"value": [float(value) for value in values], "n": [1] * len(values)}, schema={"value": pl.Float64, "n": pl.UInt32})


def live(model=A, n=1, start=3600.0, every=1.0, latency_s=None, **columns):
    """``n`` live calls; the k-th takes k seconds unless a latency is given."""
    return [live_call(start + k * every, model, number=k, latency_s=latency_s or k + 1.0, **columns) for k in range(n)]


# Selection


def test_a_window_holds_its_first_moment_and_not_its_last():
    inside = part(*live(start=3599.9, n=1), *live(start=3600.0, n=1), *live(start=7200.0, n=1))
    assert inside.calls.counts["at"].to_list() == [3600.0]
    assert inside.before.counts["at"].to_list() == [3599.9]


def test_filters_narrow_the_window_and_everything_else_alike():
    rows = [*live(A, 2, run_id="r1"), *live(B, 3, run_id="r2"), failed_call(3700.0, A), *live(A, 1, start=100.0)]
    by_model = part(*rows, selection=HOUR._replace(models=(A,)))
    assert (by_model.calls.n, by_model.before.n) == (3, 1)
    assert part(*rows, selection=HOUR._replace(providers=("openrouter",))).calls.n == 3
    assert part(*rows, selection=HOUR._replace(runs=("r1", "gone"))).calls.n == 2
    assert part(*rows, selection=HOUR._replace(statuses=("error",))).calls.n == 1
    assert part(*rows, selection=HOUR._replace(provenances=("replayed",))).calls.n == 0


def test_a_window_ends_just_after_now_and_stays_put_for_a_360th_of_its_width():
    first = window("1h", now_s=100_003.0, first_s=0.0, last_s=0.0)
    assert (first.lo_s, first.hi_s) == (96_410.0, 100_010.0)
    assert window("1h", now_s=100_009.9, first_s=0.0, last_s=0.0) == first
    assert window("1h", now_s=100_010.0, first_s=0.0, last_s=0.0).hi_s == 100_020.0


def test_the_window_of_everything_spans_the_calls_and_has_nothing_before_it():
    every = window("all", now_s=1e9, first_s=10.5, last_s=20.0)
    assert (every.lo_s, every.hi_s, every.whole) == (10.0, 21.0, True)
    assert against("previous", every) is None
    assert part(*live(n=3), selection=every).before.n == 0


def test_the_window_before_is_as_wide_and_ends_where_this_one_starts():
    assert against("previous", HOUR) == HOUR.against
    assert HOUR.other() == Selection(0.0, 3600.0)
    assert against("off", HOUR) is None
    assert against("day", HOUR)[:3] == ("a day earlier", 3600.0 - 86_400, 7200.0 - 86_400)


@pytest.mark.parametrize(
    ("span_s", "points", "step_s"), [(86_400, 96, 900), (3600, 60, 60), (3601, 60, 120), (0, 50, 0.1), (1e12, 10, STEPS_S[-1])]
)
def test_steps_are_round_and_give_no_more_points_than_wanted(span_s, points, step_s):
    assert step_for(span_s, points) == step_s


# Estimates


def test_a_percentile_interpolates_between_calls_and_brackets_itself():
    p95 = views.percentile(sample(range(1, 101)), 0.95)  # 1 + 0.95 * 99
    assert p95.value == pytest.approx(95.05)
    assert p95.low is not None and p95.high is not None
    assert p95.low < 95.05 < p95.high
    assert (p95.n, p95.note) == (100, "")


def test_a_percentile_that_n_cannot_support_is_missing_and_says_why():
    assert views.percentile(sample(range(19)), 0.95) == (None, None, None, 19, "p95 needs 20 live calls, has 19")
    assert views.percentile(sample([]), 0.5)[:4] == (None, None, None, 0)


def test_a_percentile_without_an_upper_bound_keeps_its_value_and_says_so():
    p95 = views.percentile(sample(range(1, 22)), 0.95)
    assert p95.value == pytest.approx(20.0)
    assert p95.high is None
    assert "upper bound" in p95.note


def test_a_share_comes_with_wilsons_interval():
    three_of_twenty = views.share(3, 20)
    assert three_of_twenty.value == 0.15
    assert (three_of_twenty.low, three_of_twenty.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3604, abs=1e-4))
    assert views.share(0, 0).value is None


# Overview


def test_latency_is_that_of_live_calls_that_succeeded():
    rows = [
        *live(n=3),
        replayed_call(3700.0, latency_s=1000.0),
        failed_call(3701.0, latency_s=1000.0),
        live_call(3702.0, provenance="coalesced", latency_s=1000.0),
    ]
    now, _ = views.summary(part(*rows))
    assert (now.p50_s.value, now.p50_s.n) == (2.0, 3)
    assert now.calls == 6


def test_a_window_in_numbers_counts_errors_hits_and_costs():
    rows = [
        *live(n=5, cost_usd=0.25),
        *live(n=1, start=4000.0, cost_usd=None),
        *(replayed_call(4100.0 + k) for k in range(3)),
        failed_call(4200.0),
        live_call(4300.0, provenance="coalesced"),
        *live(n=4, start=100.0, cost_usd=1.0),
    ]
    now, was = views.summary(part(*rows))
    assert now.calls == 11
    assert now.per_minute == pytest.approx(11 / 60)
    assert now.errors.value == pytest.approx(1 / 11)
    assert now.hits.value == pytest.approx(3 / 9)  # the coalesced call is in neither
    assert (now.cost_usd, now.unpriced) == (1.25, 1)
    assert (was.calls, was.cost_usd) == (4, 4.0)


def test_an_unknown_cost_is_not_zero():
    now, _ = views.summary(part(*live(n=2)))
    assert (now.cost_usd, now.unpriced) == (None, 2)


def test_what_changed_most_names_the_model_the_numbers_and_the_direction():
    before = [*live(A, 100, start=100.0, latency_s=1.0), *live(B, 100, start=300.0, latency_s=1.0)]
    now = [*live(A, 100, latency_s=1.5), *live(B, 100, start=4000.0, latency_s=4.0)]
    sentence = views.biggest_change(part(*before, *now))
    assert sentence == f"The p95 latency of {B} rose from 1 s to 4 s (n = 100 and 100)."


def test_a_first_error_among_few_calls_is_no_change():
    quiet = "No model's p95 latency, error share or cache hit share moved beyond chance against the window before."
    assert views.biggest_change(part(*live(n=10, start=100.0), *live(n=10), failed_call(3700.0, A))) == quiet


def test_errors_beyond_chance_are_the_change():
    rows = [*live(n=100, start=100.0, latency_s=1.0), *live(n=60, latency_s=1.0), *(failed_call(4000.0 + k, A) for k in range(40))]
    assert views.biggest_change(part(*rows)) == f"The error share of {A} rose from 0 % to 40 % (n = 100 and 100)."


def test_nothing_before_means_nothing_to_compare_with():
    assert "no calls in the window before" in views.biggest_change(part(*live(n=3)))
    assert "everything there is" in views.biggest_change(part(*live(n=3), selection=HOUR._replace(whole=True, against=None)))
    assert "nothing was chosen" in views.biggest_change(part(*live(n=3), selection=HOUR._replace(against=None)))


def test_traffic_counts_outcomes_a_minute_and_shows_quiet_times_as_zero():
    rows = [*live(n=2, start=3600.0, every=10), replayed_call(3615.0), failed_call(3616.0), *live(n=1, start=3600.0 + 47 * 60)]
    table = views.traffic(part(*rows))
    assert table.height == 48
    assert table["start_s"].diff().drop_nulls().unique().to_list() == [60.0]
    assert table.select("live", "replayed", "failed", "n").row(0) == (2.0, 1.0, 1.0, 4)
    assert table["errors"].to_list()[:2] == [0.25, None]
    assert table.select("live", "n").row(1) == (0.0, 0)


def test_fractions_of_a_second_fall_into_the_buckets_they_belong_to():
    # 3600.3 / 0.1 is not exact in binary; every call must still be in the table once.
    table = views.traffic(part(*live(n=40, every=0.1)))
    assert table["n"].sum() == 40


# Latency


EDGY = Selection(lo_s=3630.0, hi_s=3630.0 + 3600)  # an hour that starts and ends within a bucket of two minutes


def test_lines_leave_out_the_buckets_that_the_windows_edge_cuts():
    rows = [*live(n=30, start=3630.0), *live(n=60, start=5400.0), *live(n=30, start=7200.0)]
    line = views.latency_over_time(part(*rows, selection=EDGY), 0.5)
    assert set(line["start_s"]) == {5400.0}
    everything = views.latency_over_time(part(*rows, selection=EDGY._replace(whole=True)), 0.5)
    assert everything["n"].sum() == 120


def test_bars_keep_the_buckets_that_the_windows_edge_cuts_and_say_so():
    rows = [*live(n=30, start=3630.0), *live(n=60, start=5400.0), failed_call(7201.0)]
    table = views.traffic(part(*rows, selection=EDGY))
    assert table["n"].sum() == 91
    assert table.filter(pl.col("partial"))["start_s"].to_list() == [3600.0, 7200.0]
    assert table.filter(pl.col("partial")).select("errors", "p50_s").rows() == [(None, None)] * 2
    assert list(figures.traffic(table).data[0].marker.opacity)[:2] == [0.35, 1.0]


def test_lines_leave_out_buckets_with_too_few_calls_for_the_percentile():
    rows = [*live(n=19, every=0.01, start=3600.0), *live(n=20, every=0.01, start=5400.0), *live(n=1, start=7100.0)]
    line = views.latency_over_time(part(*rows), 0.95)
    assert line.select("start_s", "n").rows() == [(5400.0, 20)]
    assert line["value_s"][0] == pytest.approx(19.05)  # 1 + 0.95 * 19
    assert line["end_s"][0] > 5400.0


PROMPTS, TIMES = 12, 30
SECONDS = [prompt + time / 100 for time in range(TIMES) for prompt in range(1, PROMPTS + 1)]
BY_PROMPT = stats.percentile_interval(SECONDS, 0.5, clusters=[int(value) for value in SECONDS])
BY_CALL = stats.percentile_interval(SECONDS, 0.5)


def again_and_again(at=3600.0, run_id="one", longer=1.0):
    """Live calls of a run that asks 12 prompts 30 times each; prompt k takes about k seconds."""
    return [live_call(at, A, latency_s=value * longer, run_id=run_id, prompt_id=f"p{int(value)}") for value in SECONDS]


def without_prompts(calls):
    return [call._replace(prompt_id=None) for call in calls]


def test_intervals_count_prompts_where_a_run_asked_them_again_and_again():
    table = views.latency_by_model(part(*again_and_again()))
    assert table.select("p50_low_s", "p50_high_s").row(0) == (BY_PROMPT.low, BY_PROMPT.high)
    assert table["note"][0] == "; ".join(f"p{q}: upper bound not estimable at n=360 of 12 prompts" for q in (95, 99))
    (by_run,) = views.run_summary(single(*again_and_again())).iter_rows(named=True)
    assert (by_run["p95_high_s"], by_run["note"]) == (None, "p95: upper bound not estimable at n=360 of 12 prompts")


@pytest.mark.parametrize(
    "calls",
    [[call._replace(run_id=f"run-{k}") for k, call in enumerate(again_and_again())], without_prompts(again_and_again())],
    ids=["each in a run of its own", "of no comparison"],
)
def test_calls_that_asked_nothing_twice_are_counted_by_themselves(calls):
    table = views.latency_by_model(part(*calls))
    assert table.select("p50_low_s", "p50_high_s").row(0) == (BY_CALL.low, BY_CALL.high)
    assert BY_CALL.high - BY_CALL.low < (BY_PROMPT.high - BY_PROMPT.low) / 3


def test_bands_over_time_count_prompts_too():
    def band(calls):
        return views.latency_over_time(part(*calls), 0.5).select("n", "low_s", "high_s").row(0)

    def next_to(value):
        """The values up to one rank away, for the band knows its ranks by the normal approximation."""
        place = sorted(SECONDS).index(value)
        return sorted(SECONDS)[place - 1 : place + 2]

    for calls, interval in ((again_and_again(), BY_PROMPT), (without_prompts(again_and_again()), BY_CALL)):
        n, low, high = band(calls)
        assert n == 360
        assert low in next_to(interval.low) and high in next_to(interval.high)
    assert band(call._replace(prompt_id="p1") for call in again_and_again()) == (360, None, None)


def test_what_few_prompts_show_again_and_again_is_no_change():
    calls = [*again_and_again(at=100.0), *again_and_again(at=4000.0, run_id="two", longer=1.3)]
    assert "moved beyond chance" in views.biggest_change(part(*calls))
    assert f"The p95 latency of {A} rose" in views.biggest_change(part(*without_prompts(calls)))


def test_the_table_by_model_is_slowest_first_with_intervals_or_reasons():
    table = views.latency_by_model(part(*live(A, 100), *live(B, 5, start=5000.0)))
    assert table["label"].to_list() == [A, B]
    fast = table.row(1, named=True)
    assert (fast["n"], fast["p50_s"], fast["p95_s"]) == (5, 3.0, None)
    assert "p95 needs 20 live calls, has 5" in fast["note"]
    slow = table.row(0, named=True)
    assert slow["p95_s"] == pytest.approx(95.05)
    assert slow["p95_low_s"] < 95.05 < slow["p95_high_s"]
    assert slow["ttft_p50_s"] == pytest.approx(50.5 / 4)
    assert slow["tokens_per_s"] == 40.0


def test_latency_is_told_by_model_and_class_of_prompt_length():
    rows = [
        *(row for tokens in (1, 100) for row in live(A, 10, input_tokens=tokens)),
        *live(A, 20, latency_s=8.0, input_tokens=101, ttft_s=0.5),
        *live(A, 3, input_tokens=None),
        *live(B, 5, input_tokens=100_001),
        replayed_call(3700.0, A, input_tokens=5_000),
        failed_call(3701.0, A, input_tokens=5_000),
    ]
    table = views.latency_by_size(part(*rows), 0.9)
    assert table.select("label", "size", "n", "p50_s").rows() == [
        (A, "up to 100", 20, 5.5), (A, "100 to 1k", 20, 8.0), (A, "unknown", 3, 2.0), (B, "over 100k", 5, 3.0),
    ]  # fmt: skip
    first, second, unknown, more = table.iter_rows(named=True)
    assert (second["p95_s"], second["p95_low_s"], second["ttft_p50_s"], second["value_s"]) == (8.0, 8.0, 0.5, 8.0)
    assert first["value_s"] == pytest.approx(9.1)  # twice 1 to 10: 0.9 * 19 is the 17.1th
    assert (first["p50_low_s"], first["high_s"]) == (3.0, None)
    assert unknown["p95_s"] is unknown["value_s"] is more["p95_s"] is None
    assert "p95 needs 20 live calls, has 5" in more["note"]
    figure = figures.prompt_sizes(table, "p90", [A, B], views.SIZES)
    assert [(trace.name, list(trace.x)) for trace in figure.data] == [(A, ["up to 100", "100 to 1k"])]
    assert list(figure.layout.xaxis.categoryarray) == ["up to 100", "100 to 1k", "over 100k", "unknown"]


@pytest.mark.parametrize("edge", [100, 1_000, 10_000, 100_000])
def test_a_class_of_prompt_lengths_ends_at_its_round_number(edge):
    table = views.latency_by_size(part(*live(A, 1, input_tokens=edge), *live(A, 1, start=3700.0, input_tokens=edge + 1)), 0.5)
    place = [views.SIZES.index(size) for size in table["size"]]
    assert place[1] == place[0] + 1


def test_prompts_of_one_class_or_calls_in_cells_are_not_told_apart():
    assert views.latency_by_size(part(*live(A, 3), *live(A, 3, input_tokens=None)), 0.5).is_empty()
    assert views.latency_by_size(part(*live(A, 3, input_tokens=None)), 0.5).is_empty()
    assert views.latency_by_size(cells(*live(A, 3), *live(A, 3, input_tokens=500)), 0.5).is_empty()


def test_the_distribution_climbs_to_one_in_steps():
    steps = views.ecdf(part(*live(n=4), replayed_call(3700.0)))
    assert steps.select("latency_s", "share").rows() == [(1.0, 0.25), (2.0, 0.5), (3.0, 0.75), (4.0, 1.0)]


def test_the_distribution_keeps_to_so_many_points_and_to_its_ends():
    steps = views.ecdf(part(*live(A, 5000, every=0.1), *live(B, 5000, every=0.1)))
    assert steps.height <= views.POINTS
    of_a = steps.filter(pl.col("label") == A)
    assert (of_a["latency_s"].min(), of_a["latency_s"].max(), of_a["share"].max()) == (1.0, 5000.0, 1.0)


def test_slowest_calls_are_the_models_own_of_the_bucket_slowest_first():
    rows = [*live(A, 10), *live(B, 10, latency_s=99.0)]
    assert views.slowest_calls(single(*rows), A, limit=3)["latency_s"].to_list() == [10.0, 9.0, 8.0]
    assert views.slowest_calls(single(*rows), A, 3602.0, 3604.0)["latency_s"].to_list() == [4.0, 3.0]


def test_the_parts_of_a_call_add_up_to_its_total():
    call = live_call(
        0.0,
        latency_s=2.0,
        ttft_s=0.5,
        lookup_s=0.1,
        limiter_wait_s=0.2,
        failed_attempts_s=0.3,
        retry_sleep_s=0.4,
        consumer_s=0.0,
        total_s=3.0,
    )._asdict()
    parts = views.timing_parts(call)
    assert sum(seconds for _, seconds in parts) == pytest.approx(call["total_s"])
    assert dict(parts)["To the first token"] == 0.5
    assert dict(parts)["Rest of the answer"] == 1.5
    assert "Reader of the stream" not in dict(parts)


def test_an_answer_that_was_not_streamed_is_one_part():
    assert views.timing_parts(live_call(0.0, latency_s=2.0, ttft_s=None)._asdict()) == [("Answer", 2.0)]


# Cache


def test_savings_are_those_of_replayed_answers():
    rows = [
        *live(n=2, latency_s=3.0),
        *(replayed_call(3700.0 + k, saved_s=2.0, saved_usd=0.01, lookup_s=0.001) for k in range(6)),
        live_call(3800.0, provenance="coalesced", saved_s=50.0, saved_usd=50.0),
    ]
    totals = views.cache_totals(part(*rows))
    assert (totals.live, totals.replayed, totals.coalesced) == (2, 6, 1)
    assert (totals.saved_s, totals.saved_usd) == (12.0, pytest.approx(0.06))
    assert totals.hits.value == 0.75
    assert (totals.live_p50_s.value, totals.lookup_p50_s.value) == (3.0, 0.001)


def test_the_cache_by_model_counts_tiers_and_keeps_coalesced_apart():
    rows = [
        *live(A, 1),
        replayed_call(3700.0, A, cache_tier="memory"),
        replayed_call(3701.0, A, cache_tier="disk", saved_usd=0.5),
        replayed_call(3702.0, A, cache_tier="disk", saved_usd=0.25),
        live_call(3703.0, A, provenance="coalesced"),
        *live(B, 2),
    ]
    a, b = views.cache_by_model(part(*rows)).iter_rows(named=True)
    assert [a[column] for column in ("label", "live", "memory", "disk", "redis", "coalesced")] == [A, 1, 1, 2, 0, 1]
    assert (a["hit_share"], a["saved_usd"], a["saved_s"]) == (0.75, 0.75, 3.0)
    assert a["hit_low"] < 0.75 < a["hit_high"]
    assert (b["hit_share"], b["saved_usd"], b["lookup_p50_s"]) == (0.0, None, None)


def test_sources_of_answers_share_each_bucket_out():
    rows = [*live(n=1), replayed_call(3601.0, cache_tier="disk"), replayed_call(3602.0, cache_tier="memory"), replayed_call(3603.0)]
    table = views.cache_over_time(part(*rows, *live(n=1, start=7100.0)))
    first = dict(table.filter(pl.col("start_s") == 3600.0).select("source", "share").rows())
    assert first == {"live": 0.25, "disk": 0.5, "memory": 0.25}


def test_the_hit_share_over_time_is_a_models_own():
    table = views.hit_share_over_time(part(*live(A, 1), replayed_call(3601.0, A), *live(B, 2), *live(A, 1, start=7100.0)))
    shares = {(label, start): share for label, start, _, share in table.select("label", "start_s", "n", "share").rows()}
    assert shares[(A, 3600.0)] == 0.5
    assert shares[(B, 3600.0)] == 0.0


# Errors


def test_rate_limits_and_timeouts_are_counted_apart():
    kinds = ["RateLimitError", "RateLimitError", "ProviderTimeoutError", "ServerError", "ReplyError"]
    table = views.errors_over_time(part(*(failed_call(3700.0 + k, error_type=kind) for k, kind in enumerate(kinds))))
    counts = dict(table.group_by("kind").agg(pl.col("n").sum()).rows())
    assert counts == {"rate limit (429)": 2, "timeout": 1, "other": 2}


def test_groups_are_new_ongoing_or_quiet():
    rows = [
        failed_call(100.0, A, error_type="ServerError"),
        failed_call(3700.0, A, error_type="ServerError"),
        failed_call(3800.0, B, error_type="ServerError"),
        failed_call(200.0, A, error_type="AuthError"),
        failed_call(4000.0, A, error_type="RateLimitError", error_message="slow down"),
        *live(n=3),
    ]
    groups = views.error_groups(failures(*rows))
    found = {row["type"]: row for row in groups.iter_rows(named=True)}
    assert [row["type"] for row in groups.iter_rows(named=True)] == ["ServerError", "RateLimitError", "AuthError"]
    assert {kind: row["state"] for kind, row in found.items()} == {"ServerError": "ongoing", "RateLimitError": "new", "AuthError": "quiet"}
    server = found["ServerError"]
    assert (server["n"], server["total"], server["models"], server["first_s"], server["last_s"]) == (2, 3, 2, 100.0, 3800.0)
    assert sum(server["trend"]) == 2


def test_without_a_window_before_it_a_group_is_only_seen():
    groups = views.error_groups(failures(failed_call(3700.0), selection=HOUR._replace(whole=True)))
    assert groups["state"].to_list() == ["seen"]


def test_errors_without_a_fingerprint_make_a_group_of_their_own():
    groups = views.error_groups(failures(failed_call(3700.0, error_fingerprint=None), failed_call(3701.0)))
    assert views.UNKNOWN_ERROR in groups["fingerprint"].to_list()
    assert views.affected_calls(single(failed_call(3700.0, error_fingerprint=None)), views.UNKNOWN_ERROR).height == 1


def test_a_group_leads_to_its_wordings_and_its_calls_newest_first():
    rows = [failed_call(3700.0 + k, A, number=k, error_message=message) for k, message in enumerate(["x", "y", "y"])]
    mark = rows[0].error_fingerprint
    assert views.error_messages(single(*rows), mark).select("message", "n").rows() == [("y", 2), ("x", 1)]
    assert views.affected_calls(single(*rows), mark)["at"].to_list() == [3702.0, 3701.0, 3700.0]


# Empty tables and figures


def test_a_window_without_calls_gives_empty_tables_not_errors():
    nothing = part()
    for view in (views.traffic, views.latency_by_model, views.ecdf, views.cache_by_model, views.cache_over_time, views.hit_share_over_time,
                 views.errors_over_time, views.heatmap, views.hits_against_misses, views.cost_by_day, views.cost_by_model, views.model_points):  # fmt: skip
        assert view(nothing).is_empty(), view.__name__
    assert views.latency_over_time(nothing, 0.95).is_empty()
    assert views.latency_by_size(nothing, 0.95).is_empty()
    now, was = views.summary(nothing)
    assert (now.calls, now.cost_usd, was.errors.value) == (0, None, None)


@pytest.fixture(scope="module")
def day_calls():
    return [row for row in a_day(7200.0 + 80_000) if isinstance(row, CallRecord)]


DAY = Selection(lo_s=800.0, hi_s=87_200.0)


@pytest.fixture(scope="module")
def day(day_calls):
    return part(*day_calls, selection=DAY)


def drawn(part):
    models = sorted(MODELS)
    table = views.traffic(part)
    yield figures.traffic(table)
    yield figures.share(table, "errors")
    yield figures.series(table, {"p50_s": "p50", "p95_s": "p95"})
    yield figures.percentile_lines(views.latency_over_time(part, 0.5), "p50", models)
    yield figures.ecdf(views.ecdf(part), models)
    yield figures.hit_share(views.hit_share_over_time(part), models)
    yield figures.cache_sources(views.cache_over_time(part), ("live", *views.TIERS))
    yield figures.errors(views.errors_over_time(part), views.ERROR_KINDS)
    yield figures.timing([("Answer", 1.0)])


def test_figures_are_svg_and_hold_few_enough_points_to_be_quick(day):
    for figure in drawn(day):
        assert figure.data
        assert all(trace.type in {"scatter", "bar"} for trace in figure.data)
        assert sum(len(trace.x) for trace in figure.data) <= views.POINTS


def test_lines_of_models_differ_in_dash_too_so_that_colour_is_not_needed(day):
    traces = figures.percentile_lines(views.latency_over_time(day, 0.5), "p50", sorted(MODELS)).data
    lines = [trace for trace in traces if trace.mode != "none"]
    assert len({(line.line.dash, line.line.color) for line in lines}) == len(MODELS)
    assert len({line.line.dash for line in lines}) == len(MODELS)


def test_a_model_keeps_its_colour_when_others_are_filtered_out(day):
    models = sorted(MODELS)
    every = figures.ecdf(views.ecdf(day), models).data
    alone = figures.ecdf(views.ecdf(day).filter(pl.col("label") == models[-1]), models).data
    assert alone[0].line == every[-1].line


def test_html_in_a_models_name_is_text_in_a_figure():
    name = "<b>bold</b><script>x</script>"
    figure = figures.ecdf(views.ecdf(part(*live(name, 3))), [name])
    assert figure.data[0].name.startswith("&lt;b&gt;bold")


def test_a_point_carries_what_a_click_needs(day, day_calls):
    line = next(
        trace for trace in figures.percentile_lines(views.latency_over_time(day, 0.5), "p50", sorted(MODELS)).data if trace.mode != "none"
    )
    model, start_s, end_s, n, _interval = json.loads(json.dumps(list(line.customdata[0])))
    assert model == sorted(MODELS)[0]
    assert views.slowest_calls(single(*day_calls, selection=DAY), model, start_s, end_s).height == n


# Words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (math.nan, "–"), (0, "0 µs"), (0.0000123, "12.3 µs"), (0.0432, "43.2 ms"), (1.9, "1.9 s"), (89, "89 s"), (250, "4 min 10 s"), (3600, "1 h"), (11_100, "3 h 5 min"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations_are_said_in_the_unit_that_reads_best(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize(("usd", "said"), [(None, "–"), (0, "$0.00"), (0.000936, "$0.000936"), (12.345, "$12.35"), (1234.5, "$1,234.50")])
def test_money_is_said_with_the_digits_it_needs(usd, said):
    assert words.dollars(usd) == said


def test_an_age_is_never_negative():
    assert words.age(-3) == "0 s"
    assert words.age(59.9) == "59 s"
    assert words.age(61) == "1 min 1 s"


def test_changes_say_nothing_where_there_is_nothing_to_compare_with():
    assert words.change(3, 2) == "+50.0 %"
    assert words.change(0.99999, 1) == "+0.0 %"
    assert words.change(3, 0) is None
    assert words.change(None, 2) is None
    assert words.points(0.05, 0.02) == "+3.0 points"
    assert words.points(None, 0.02) is None


def test_markdown_in_a_name_is_disarmed():
    assert words.escape("![i](http://x) *b* $5") == "\\!\\[i\\]\\(http\\:\\/\\/x\\) \\*b\\* \\$5"


# Counts and histograms in place of rows


def cells(*rows, selection=HOUR, grain_s=60.0):
    """The same slice from cells, as of a journal with many calls."""
    everything = merge([build(frame(*rows).lazy(), grain_s)])
    inside = [
        part.filter(pl.col("at").is_between(lo, hi, closed="left"))
        for part, lo, hi in ((everything, 3600.0, 7200.0), (everything, 0.0, 3600.0))
    ]
    return views.Slice(inside[0], inside[1], selection)


@pytest.fixture(scope="module")
def many():
    rows = [row._replace(at=3600 + (row.at - 7200.0 + 92_000) % 3600) for row in a_day(7200.0, calls=6000) if isinstance(row, CallRecord)]
    return [*rows, *(live_call(100.0 + k, A, number=k) for k in range(50))]


def test_cells_count_and_sum_what_rows_count_and_sum(many):
    exact, rough = part(*many), cells(*many)
    for here, there in zip(views.summary(exact), views.summary(rough)):
        assert (here.calls, here.errors, here.hits, here.unpriced) == (there.calls, there.errors, there.hits, there.unpriced)
        assert here.cost_usd == pytest.approx(there.cost_usd, abs=1e-9) if here.cost_usd is not None else there.cost_usd is None
    assert views.cache_totals(rough).saved_s == pytest.approx(views.cache_totals(exact).saved_s)
    assert views.cache_by_model(rough)["replayed"].to_list() == views.cache_by_model(exact)["replayed"].to_list()
    assert views.traffic(rough)["n"].sum() == exact.calls.n


def test_percentiles_of_cells_are_at_most_two_percent_off_with_their_intervals(many):
    many = [call._replace(prompt_id=None) for call in many]  # cells know nothing of prompts
    here, there = views.latency_by_model(part(*many)).sort("label"), views.latency_by_model(cells(*many)).sort("label")
    assert here.select("label", "n").equals(there.select("label", "n"))
    for column in ("p50_s", "p50_low_s", "p50_high_s", "p95_s", "p95_low_s", "p95_high_s", "p99_s", "ttft_p50_s", "tokens_per_s"):
        for exact, rough in zip(here[column], there[column]):
            assert rough == pytest.approx(exact, rel=0.02), column


def test_cells_put_together_hold_what_was_in_each(many):
    half = len(many) // 2
    parts = [build(frame(*rows).lazy(), 60.0) for rows in (many[:half], many[half:])]
    whole, combined = build(frame(*many).lazy(), 60.0), combine(parts)
    assert combined.counts["n"].sum() == len(many)
    assert combined.counts.height == whole.counts.height
    assert combined.values["latency_s"].height == whole.values["latency_s"].height
    assert combined.counts["first_s"].min() == whole.counts["first_s"].min()


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 1.0])
def test_a_weighted_percentile_is_that_of_the_values_written_out(q):
    weighted = pl.DataFrame({"value": [1.0, 2.0, 5.0], "n": [3, 1, 2]}, schema={"value": pl.Float64, "n": pl.UInt32})
    assert weighted.select(quantile(q)).item() == pytest.approx(stats.percentile([1, 1, 1, 2, 5, 5], q))


# Streams that their reader left


def test_a_stream_that_its_reader_left_is_neither_an_answer_nor_a_failure():
    rows = [*live(n=6), failed_call(3700.0), *(live_call(3800.0 + k, status="left", provenance="live") for k in range(3))]
    now, _ = views.summary(part(*rows))
    assert (now.calls, now.left, now.errors.value, now.errors.n) == (10, 3, pytest.approx(1 / 7), 7)
    assert now.p50_s.n == 6
    assert views.error_groups(failures(*rows))["n"].sum() == 1


# Windows


def test_a_custom_window_may_be_open_at_both_ends():
    wanted = Wanted("custom", Selection(0, 0))
    assert wanted.at(100.5, 10.2, 50.0)[:2] == (10.0, 101.0)
    assert wanted._replace(from_s=20.0, to_s=30.0).at(100.5, 10.2, 50.0)[:2] == (20.0, 30.0)


def test_a_window_is_compared_with_a_run_whenever_that_was():
    chosen = Wanted("1h", Selection(0, 0, models=(A,)), run_against=("r1", "baseline")).at(7200.0, 5.0, 7100.0)
    other = chosen.other()
    assert other is not None
    assert (other.lo_s, other.hi_s, other.runs, other.models) == (5.0, 7101.0, ("r1",), (A,))
    assert chosen.against is not None and chosen.against.name == "run baseline"


# Cost


def test_prices_per_thousand_calls_and_per_million_tokens_are_over_priced_live_calls():
    rows = [*live(A, 2, cost_usd=0.01), *live(A, 1, start=4000.0), replayed_call(4100.0, A, saved_usd=0.5)]
    [row] = views.cost_by_model(part(*rows)).iter_rows(named=True)
    assert (row["n"], row["unpriced"], row["saved_usd"]) == (3, 1, 0.5)
    assert row["usd_per_1k_calls"] == pytest.approx(10.0)
    assert row["usd_per_1m_tokens"] == pytest.approx(0.02 / (2 * 80) * 1e6)


def test_the_forecast_is_thirty_average_days_with_students_interval_of_a_sum():
    days = Selection(0.0, 5 * 86_400.0)
    rows = [live_call(day * 86_400.0 + 60, A, number=day, cost_usd=usd) for day, usd in enumerate([1.0, 2.0, 3.0, 2.0, 2.0])]
    found = views.cost_forecast(part(*rows, selection=days))
    half = 2.7764451 * math.sqrt(0.5) * math.sqrt(30 + 900 / 5)  # t of 4 degrees of freedom; the variance of 1 2 3 2 2 is 0.5
    assert (found.usd, found.days) == (pytest.approx(60.0), 5)
    assert (found.low_usd, found.high_usd) == (pytest.approx(60 - half), pytest.approx(60 + half))


def test_a_forecast_of_two_days_has_no_interval_and_says_why():
    rows = [live_call(60.0 + day * 86_400, A, number=day, cost_usd=1.0) for day in range(2)]
    found = views.cost_forecast(part(*rows, selection=Selection(0.0, 2 * 86_400.0)))
    assert (found.usd, found.low_usd) == (30.0, None)
    assert "3 whole days" in found.note


# Runs


def run_of(run, model, times, **columns):
    return [live_call(3600.0 + k, model, number=k, latency_s=time_s, run_id=run, **columns) for k, time_s in enumerate(times)]


def test_runs_are_compared_with_the_baseline_on_the_prompts_of_both():
    rows = single(*run_of("r1", A, [1.0, 2.0, 3.0, 4.0]), *run_of("r2", A, [2.0, 3.1, 3.9, 5.0]))
    [row] = views.run_deltas(rows, "r1").iter_rows(named=True)
    test = stats.paired_test([2.0, 3.1, 3.9, 5.0], [1.0, 2.0, 3.0, 4.0], kind="mean")
    assert (row["run_id"], row["label"], row["n"]) == ("r2", A, 4)
    assert (row["effect"], row["low"], row["high"]) == (pytest.approx(test.effect), pytest.approx(test.low), pytest.approx(test.high))
    assert views.run_summary(rows)["p50_s"].to_list() == [2.5, pytest.approx(3.5)]


def test_a_verdict_needs_prompts_that_both_models_answered():
    [apart] = views.verdicts(single(*run_of("r1", A, [1.0]), *run_of("r1", B, [2.0]))).iter_rows(named=True)
    assert (apart["effect"], apart["n"]) == (None, 1)
    [row] = views.verdicts(single(*run_of("r1", A, [1.0, 1.1, 0.9, 1.0]), *run_of("r1", B, [3.0, 3.2, 2.8, 3.1]))).iter_rows(named=True)
    assert row["effect"] == pytest.approx(-2.025)
    assert row["p_adjusted"] < 0.05


def test_the_frontier_holds_what_no_other_beats_in_both():
    assert views.frontier([(1, 5), (2, 3), (3, 4), (4, 1), (4, 1)]) == [True, True, False, True, True]


def test_differences_of_texts_are_word_by_word_and_lose_nothing():
    found = list(views.differences("the red fox, runs", "the blue fox runs"))
    assert found == [("same", "the "), ("gone", "red"), ("new", "blue"), ("same", " fox"), ("gone", ","), ("same", " runs")]


def test_votes_rank_models_and_a_tie_is_half_a_win():
    choices = ["a"] * 6 + ["b"] * 2 + ["tie", "skip"]
    ranked, _ = views.ranking({"model_a": [A] * 10, "model_b": [B] * 10, "choice": choices})
    assert [(row.model, row.wins, row.games) for row in ranked] == [(A, 6.5, 9), (B, 2.5, 9)]
    assert ranked[0].ability - ranked[1].ability == pytest.approx(math.log(6.5 / 2.5))


def test_votes_without_a_single_loss_have_no_abilities_but_are_counted():
    ranked, note = views.ranking({"model_a": [A], "model_b": [B], "choice": ["a"]})
    assert [(row.model, row.ability) for row in ranked] == [(A, None), (B, None)]
    assert "No finite abilities" in note


# Log lines


def test_lines_of_calls_have_levels_and_can_be_searched_newest_first():
    rows = [
        live_call(3700.0, A), live_call(3701.0, A, attempts=2), failed_call(3702.0, B, error_message="No such HOST (a.b)"),
        live_call(3703.0, A, status="left"), replayed_call(3704.0, A),
    ]  # fmt: skip
    lines = views.call_lines(single(*rows), (), "")
    assert lines["level"].to_list() == ["info", "warn", "error", "warn", "info"]
    assert lines["line"][2] == "ServerError: No such HOST (a.b), 3 attempts"
    assert views.call_lines(single(*rows), (), "host (A.B)")["at"].to_list() == [3702.0]
    assert views.call_lines(single(*rows), ("warn",), "")["at"].to_list() == [3703.0, 3701.0]
    assert views.call_lines(single(*rows), (), "", limit=2)["at"].to_list() == [3704.0, 3703.0]


def test_a_heat_map_shares_each_whole_bucket_out_over_classes_of_latency():
    table = views.heatmap(part(*live(A, 600, every=2.0)))
    assert table.group_by("start_s").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1.0] * table["start_s"].n_unique())
    assert table["n"].sum() <= 600
    assert figures.heatmap(table).data[0].type == "heatmap"


# Health and marks


def test_a_provider_fails_where_its_newest_call_did_and_those_that_fail_come_first():
    table = views.provider_health(
        part(
            failed_call(3700, A), live_call(3800, A), replayed_call(3900, A),
            live_call(3700, B), failed_call(3801, B), failed_call(3802, B),
            replayed_call(3700, "cohere/c"),
        )
    )  # fmt: skip
    assert table.rows() == [
        ("openrouter", "fails", 1, 3, 2, 2 / 3, 3700.0, 3802.0),
        ("cohere", "not asked", 1, 0, 0, None, None, None),
        ("ollama", "answers", 1, 2, 1, 0.5, 3800.0, 3700.0),
    ]


def marked(*marks):
    """A chart of an hour with marks: the figure, and the words of its labels from left to right."""
    figure = figures.series(views.traffic(part(live_call(3600, A), live_call(7199, A))), {"p50_s": "p50"})
    with_marks(figure, marks)
    return figure, [label.text for label in figure.layout.annotations]


def test_a_mark_is_a_line_over_the_whole_chart_with_its_text_above_it_escaped_and_cut():
    figure, [text] = marked((4000.0, "<b>" + "x" * 40))
    [line], [label] = figure.layout.shapes, figure.layout.annotations
    assert line.x0 == line.x1 == label.x
    assert (line.yref, line.y0, line.y1, str(line.x0)) == ("paper", 0, 1, "1970-01-01 01:06:40")
    assert text == "&lt;b&gt;" + "x" * 16 + "…"
    assert (label.y, label.yref, label.yanchor, label.xanchor) == (1, "paper", "bottom", "left")
    assert label.hovertext == "&lt;b&gt;" + "x" * 40 + "<br>1970-01-01 01:06:40 UTC"


def test_a_charts_area_is_as_large_with_marks_as_without():
    plain, _ = marked()
    figure, _ = marked((4000.0, "one"))
    assert figure.layout.height - figure.layout.margin.t == plain.layout.height - plain.layout.margin.t
    assert figure.layout.margin.t > plain.layout.margin.t
    assert figure.layout.legend.y > plain.layout.legend.y
    assert not plain.layout.annotations


def test_labels_of_near_marks_are_in_rows_and_where_rows_are_full_the_nearest_share_one():
    figure, texts = marked((4000.0, "a deployment"), (4060.0, "a new prompt"))
    assert texts == ["a deployment", "a new prompt"]
    assert [label.yshift for label in figure.layout.annotations] == [0, MARK_ROW_PX]
    near = [(4060.0, "a new prompt"), (4000.0, "a deployment"), (4070.0, "rolled back"), (4200.0, "once more")]
    figure, texts = marked(*near, (6000.0, "another day"))
    assert texts == ["a deployment", "2 marks", "once more", "another day"]
    assert figure.layout.annotations[1].hovertext.split("<br>") == [
        "a new prompt", "1970-01-01 01:07:40 UTC", "rolled back", "1970-01-01 01:07:50 UTC",
    ]  # fmt: skip
    assert len(figure.layout.shapes) == 5, "each mark keeps its line"


def test_a_label_at_the_end_of_the_axis_stands_before_its_mark():
    figure, _ = marked((7190.0, "a deployment"))
    assert figure.layout.annotations[0].xanchor == "right"


@pytest.mark.parametrize("number", [1, 5, 12])
def test_marks_at_one_moment_fill_the_rows_and_no_more_however_many(number):
    _, texts = marked(*[(4000.0, "again and again")] * number)
    assert len(texts) == min(number, MARK_ROWS)


def test_a_bar_over_time_lies_over_its_own_bucket_so_that_a_mark_falls_into_the_right_one():
    table = views.traffic(part(live_call(3700, A), live_call(6000, A)))
    figure = figures.traffic(table)
    first, second = table["start_s"][:2]
    assert {(bar.xperiod, bar.xperiodalignment) for bar in figure.data} == {((second - first) * 1000, "middle")}
    assert str(figure.data[0].xperiod0) == "1970-01-01T01:01:00.000", "the first bucket with a call"
