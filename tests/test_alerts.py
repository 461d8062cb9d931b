"""Alert rules: what they say about counts of calls, what a bad file gets, and the exit code for cron."""

import json
import math
import subprocess
import sys
import time

import pytest

from dashboard_calls import failed_call, live_call, replayed_call, write
from toolkit.errors import ConfigError
from toolkit.monitor.alerts import BurnRate, Span, Tally, Threshold, firing, journal_tally, read_rules, tally_of
from toolkit.monitor.journal import JournalReader

NOW = 1_000_000.0
A, B = "ollama/a", "openrouter/b"


def rules_in(tmp_path, text):
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    return read_rules(file)


def counting(ended, failed):
    """An ``ask`` that answers with a share of failures for each width of a span."""
    return lambda span: Tally(ended, failed(span.hi_s - span.lo_s), ended, 0, 0.0, lambda q: math.nan)


def test_a_file_that_is_not_there_has_no_rules(tmp_path):
    assert read_rules(tmp_path / "none.toml") == []


def test_rules_are_read_with_their_units_and_scope(tmp_path):
    slow, burn = rules_in(
        tmp_path,
        """
        [[threshold]]
        name = "slow"
        metric = "p95_s"
        above = 5
        over = "15min"
        model = "ollama/a"
        min_calls = 50
        [[burn_rate]]
        name = "errors"
        objective = 0.99
        provider = "ollama"
        """,
    )
    assert slow == Threshold(name="slow", metric="p95_s", over_s=900.0, above=5.0, model="ollama/a", min_calls=50)
    assert burn == BurnRate(name="errors", objective=0.99, provider="ollama")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[threshold", "can't read"),
        ("[treshold]\nname = 'x'", "'treshold' is not understood"),
        ("[threshold]\nname = 'x'", "two brackets"),
        ("[[threshold]]\nname = 'x'\nmetric = 'p42'\nabove = 1\nover = '1h'", "unknown metric 'p42'; known: error_share"),
        ("[[threshold]]\nname = 'x'\nmetric = 'p95_s'\nover = '1h'", "either above"),
        ("[[threshold]]\nname = 'x'\nmetric = 'p95_s'\nabove = 1\nover = 'soon'", "'15min'"),
        ("[[threshold]]\nname = 'x'\nmetric = 'p95_s'\nabove = true\nover = '1h'", "above is missing or not a number"),
        ("[[threshold]]\nname = 'x'\nmetric = 'p95_s'\nabove = 1\nover = '1h'\nmodle = 'a'", "no field 'modle'"),
        ("[[burn_rate]]\nobjective = 0.9", "name is missing"),
        ("[[burn_rate]]\nname = 'x'\nobjective = 99", "between 0 and 1"),
    ],
)
def test_a_rule_that_is_not_understood_names_the_file_and_the_reason(tmp_path, text, said):
    with pytest.raises(ConfigError, match=r"alerts\.toml") as caught:
        rules_in(tmp_path, text)
    assert said in str(caught.value)


def test_a_burn_rate_fires_only_where_the_long_and_the_short_window_both_burn():
    rule = BurnRate(name="errors", objective=0.99)
    assert firing([rule], counting(100, lambda width_s: 20), NOW)[0].name == "errors"
    assert firing([rule], counting(100, lambda width_s: 20 if width_s >= 3600 and width_s != 21_600 else 0), NOW) == []
    assert firing([rule], counting(100, lambda width_s: 20 if width_s <= 300 else 0), NOW) == []
    assert firing([rule], counting(19, lambda width_s: 19), NOW) == [], "too few calls to tell"


def test_a_slow_burn_fires_by_its_own_windows():
    rule = BurnRate(name="errors", objective=0.99)
    [alert] = firing([rule], counting(1000, lambda width_s: 20), NOW)
    assert "2 % of 1,000 calls failed in the last 3 d" in alert.message


def test_thresholds_look_at_both_sides_and_need_enough_calls():
    columns = {"status": ["ok"] * 100, "provenance": ["live"] * 100, "latency_s": [k / 10 for k in range(100)], "cost_usd": [0.01] * 100}

    def fires(**rule):
        return bool(firing([Threshold(name="x", over_s=3600.0, **rule)], lambda span: tally_of(columns), NOW))

    assert fires(metric="p95_s", above=9.4)
    assert not fires(metric="p95_s", above=9.5)
    assert fires(metric="cost_per_hour_usd", above=0.99)
    assert fires(metric="hit_share", below=0.1)
    assert not fires(metric="error_share", above=0.0)
    assert not fires(metric="p95_s", above=1.0, min_calls=101)
    assert fires(metric="calls_per_minute", below=2.0, min_calls=101), "silence is what such a rule is for"


def test_the_journals_calls_are_counted_by_span_and_model(tmp_path):
    path = tmp_path / "journal.sqlite"
    write(
        path,
        [
            live_call(NOW - 10, A),
            failed_call(NOW - 20, A),
            replayed_call(NOW - 30, B),
            live_call(NOW - 5000, A),
            live_call(NOW - 15, A, status="left"),
        ],
    )
    ask = journal_tally(JournalReader(path), [Threshold(name="x", metric="p95_s", over_s=9000.0, above=1.0)], NOW)
    every, recent, of_b = ask(Span(NOW - 9000, NOW)), ask(Span(NOW - 60, NOW)), ask(Span(NOW - 60, NOW, None, B))
    assert (every.ended, every.failed, every.live, every.replayed) == (4, 1, 2, 1)
    assert (recent.ended, recent.live) == (3, 1)
    assert (of_b.ended, of_b.replayed) == (1, 1)


@pytest.mark.parametrize(("failed", "code"), [(30, 1), (0, 0)])
def test_the_doctor_ends_with_1_when_a_rule_fires(tmp_path, monkeypatch, failed, code):
    journal, rules = tmp_path / "journal.sqlite", tmp_path / "alerts.toml"
    now = time.time()
    write(
        journal,
        [*(failed_call(now - 60 - k, A, number=k) for k in range(failed)), *(live_call(now - 60 - k, B, number=k) for k in range(30))],
    )
    rules.write_text('[[threshold]]\nname = "errors"\nmetric = "error_share"\nabove = 0.2\nover = "1h"\n')
    monkeypatch.setenv("TOOLKIT_JOURNAL", str(journal))
    done = subprocess.run([sys.executable, "-m", "toolkit.cli", "doctor", "--json", "--alerts", str(rules)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert [alert["name"] for alert in json.loads(done.stdout)] == ["errors"] * code


def test_the_doctor_refuses_a_file_without_rules_as_wrong_usage(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli", "doctor", "--alerts", str(tmp_path / "no.toml")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "docs/dashboard.md" in done.stderr
