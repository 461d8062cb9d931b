"""The dashboard's pages, run without a browser on journals that the real monitor wrote."""

import functools
import json
import socket
import time
from pathlib import Path

import polars as pl
import pytest
from streamlit.components.v2.component_manager import BidiComponentManager
from streamlit.testing.v1 import AppTest

import dashboard
from dashboard import calllog, serve
from dashboard.calllog import CallLog
from dashboard.page import Choice, span_of
from dashboard.warmup import warm_up
from dashboard_calls import SCRIPT, a_day, cache_state, error_of, failed_call, live_call, log_entry, replayed_call, write
from servers.postgres import PASSWORD, QUOTED_PASSWORD
from toolkit import settings
from toolkit.errors import JournalError
from toolkit.monitor.events import RunRecord, VoteRecord
from toolkit.monitor.journal import JournalReader, read_address, shown_url
from toolkit.monitor.journal.pruning import prune
from toolkit.monitor.marks import MARK

APP = Path(dashboard.__file__).with_name("app.py")
SCREENS = {
    "overview": "Overview",
    "latency": "Latency",
    "cache": "Cache",
    "errors": "Errors",
    "cost": "Cost",
    "compare": "Compare",
    "logs": "Logs",
    "health": "Health",
    "call": "Call",
}
A, B = "ollama/a", "openrouter/b"


@pytest.fixture
def journal(tmp_path, monkeypatch):
    path = tmp_path / "journal.sqlite"
    monkeypatch.setenv("TOOLKIT_JOURNAL", str(path))
    return path


@pytest.fixture(scope="module")
def day_journal(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "journal.sqlite"
    write(path, a_day(time.time(), calls=1200))
    return path


@pytest.fixture
def day(day_journal, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", str(day_journal))
    return day_journal


@functools.cache
def components():
    """What Streamlit finds by reading the metadata of every installed package: once is enough, it takes longer than a page."""
    found = BidiComponentManager()
    found.discover_and_register_components(start_file_watching=False)
    return found


def opened(screen="overview", chosen=None, **query):
    """The app at ``/screen?query``, with rows chosen in tables where a test says so."""
    at = AppTest.from_file(str(APP), default_timeout=60)
    at._bidi_component_manager = components()
    for name, value in query.items():
        at.query_params[name] = value
    for table, identity in (chosen or {}).items():
        at.session_state[f"{table}-choice"] = Choice(0, None, identity)
    return at.switch_page(f"screens/{screen}.py").run()


def texts(at):
    """Every word on the page that is not in a chart or a table."""
    kinds = (at.title, at.subheader, at.caption, at.text, at.info, at.success, at.warning, at.error, at.code, at.markdown)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def metric(at, label):
    return next(tile for tile in at.metric if tile.label == label)


def calls_in_window(at):
    return int(at.caption[0].value.split(" call")[0].replace(",", ""))


# Four states of each page


@pytest.mark.parametrize(("screen", "title"), SCREENS.items())
def test_every_page_shows_a_days_calls_without_complaint(day, screen, title):
    at = opened(screen)
    assert at.title[0].value == title
    assert not at.exception
    assert not at.error
    assert "calls in the window · newest call" in at.caption[0].value
    assert at.caption[0].value.endswith("old · exact · compared with the window before")


@pytest.mark.parametrize("screen", SCREENS)
def test_without_a_journal_every_page_says_what_would_be_here_and_how_to_make_it(journal, screen):
    at = opened(screen)
    assert not at.exception
    assert at.title[0].value == "No calls yet"
    assert "toolkit demo" in [code.value for code in at.code]
    assert str(journal) in [code.value for code in at.code]
    assert not journal.exists(), "looking must not make the file"


def test_a_journals_password_is_not_shown(postgres_server, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", postgres_server.url("nobody_wrote"))
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    assert at.title[0].value == "No calls yet"
    assert f"postgresql://tester@127.0.0.1:{postgres_server.port}/postgres?schema=nobody_wrote" in [code.value for code in at.code]
    assert QUOTED_PASSWORD not in texts(at)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_damaged_journal_is_said_in_a_sentence(journal, screen):
    journal.write_bytes(b"this is not a database, though it is long enough to be taken for one" * 50)
    at = opened(screen)
    assert not at.exception
    assert at.title[0].value == "The journal can't be read"
    assert len(at.error) == 1
    assert "Traceback" not in texts(at)


def test_a_journal_damaged_while_a_page_is_open_is_said_too(journal):
    write(journal, [live_call(time.time() - 60, A)])
    at = opened("latency")
    assert at.title[0].value == "Latency"
    for file in journal.parent.glob("journal.sqlite*"):
        file.unlink()
    journal.write_bytes(b"no longer a database" * 500)
    at.run()
    assert not at.exception
    assert at.title[0].value == "The journal can't be read"


@pytest.mark.parametrize("screen", SCREENS)
def test_nonsense_in_the_address_is_as_if_it_were_not_there(day, screen):
    at = opened(
        screen, window="banana", model="nobody/nothing", status="maybe", provenance="", run="x", live="perhaps", q="p101", call="no-such"
    )
    assert not at.exception
    assert not at.error
    assert at.title[0].value == SCREENS[screen]
    assert calls_in_window(at) > 100


def test_the_address_of_a_server_is_refused_without_showing_its_password(monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", "postgresql://me:hunter2@127.0.0.1/calls")
    at = opened()
    assert not at.exception
    assert at.title[0].value == "The journal can't be read"
    assert "hunter2" not in texts(at)


# Filters


@pytest.mark.parametrize(
    ("query", "n"),
    [({}, 6), ({"model": A}, 4), ({"provider": "openrouter"}, 2), ({"provenance": "replayed"}, 1), ({"status": "error"}, 1), ({"run": "r1"}, 2),
     ({"window": "7d"}, 7), ({"window": "all", "model": A}, 5), ({"window": "15m"}, 5)],
)  # fmt: skip
def test_a_filter_in_the_address_narrows_the_calls(journal, query, n):
    now = time.time()
    write(
        journal,
        [
            live_call(now - 60, A, number=1, run_id="r1"), live_call(now - 50, A, number=2, run_id="r1"), replayed_call(now - 40, A), failed_call(now - 30, A),
            live_call(now - 20, B), live_call(now - 7200, B), live_call(now - 100_000, A),
        ],
    )  # fmt: skip
    assert calls_in_window(opened(**query)) == n


def test_two_models_in_the_address_are_both_shown(day):
    at = opened("latency", model=["cohere/command-r", "embedded/ngram-3"])
    assert sorted(at.dataframe[0].value["model"]) == ["cohere/command-r", "embedded/ngram-3"]


def test_no_call_in_the_window_says_how_old_the_newest_is(journal):
    write(journal, [live_call(time.time() - 3 * 86_400)])
    at = opened("overview")
    assert "3 d old" in at.info[0].value
    assert not at.metric


# Overview


def test_the_tiles_say_how_it_goes_and_how_it_went(journal):
    now = time.time()
    calls = [live_call(now - 60 - k, A, number=k, latency_s=k + 1.0, cost_usd=0.01) for k in range(100)]
    hits = [replayed_call(now - 60 - k, B, number=1000 + k) for k in range(25)]
    failed = [failed_call(now - 60 - k, B, number=2000 + k) for k in range(25)]
    before = [live_call(now - 90_000 - k, A, number=3000 + k, cost_usd=0.02) for k in range(100)]
    write(journal, [*calls, *hits, *failed, *before])
    at = opened("overview")
    assert (metric(at, "Calls a minute").value, metric(at, "Calls a minute").delta) == ("0.104", "+50.0 %")
    assert (metric(at, "Errors").value, metric(at, "Errors").delta) == ("16.7 %", "+16.7 points")
    assert metric(at, "p95 latency").value == "1 min 35 s"
    assert metric(at, "Cost an hour").value == "\\$0\\.0417"
    assert metric(at, "Cache hits").value == "20 %"
    assert "(n = 150)" in at.caption[1].value.replace("\\", "")
    assert "p95 latency of ollama/a rose from 1 s to 1 min 35 s" in at.text[0].value


def test_with_few_calls_the_median_stands_in_for_the_p95(journal):
    write(journal, [live_call(time.time() - 60 - k, A, number=k, latency_s=2.0) for k in range(8)])
    at = opened("overview")
    assert metric(at, "p50 latency").value == "2 s"
    assert "p95 needs 20 live calls, has 8" in at.caption[1].value.replace("\\", "")


def test_charts_say_in_words_what_they_show(day):
    for screen in ("overview", "latency", "cache", "errors"):
        charts = opened(screen).get("plotly_chart")
        assert charts
        assert all(len(chart.proto.alt) > 20 for chart in charts)


# From a number to a call


def test_a_chosen_model_leads_to_its_slowest_calls(journal):
    now = time.time()
    write(journal, [live_call(now - 60 - k, A, number=k, latency_s=k + 1.0) for k in range(9)])
    at = opened("latency", chosen={"models": A})
    assert "Slowest calls of the model" in [heading.value for heading in at.subheader]
    assert at.dataframe[1].value["latency (ms)"].tolist()[:2] == [9000.0, 8000.0]


def headings(at):
    return [heading.value for heading in at.subheader]


def test_long_prompts_stand_apart_from_short_ones_where_there_are_both(journal):
    now, name = time.time(), f"evil/{SCRIPT}"
    short = [live_call(now - 60 - k, name, number=k, latency_s=1.0) for k in range(20)]
    write(journal, [*short, *(live_call(now - 90 - k, name, number=100 + k, latency_s=4.0, input_tokens=2_000) for k in range(5))])
    at = opened("latency", q="p95")
    assert not at.error
    assert "By prompt length" in headings(at)
    sizes = at.dataframe[1].value
    assert sizes[["prompt tokens", "n", "p50 (ms)"]].to_numpy().tolist() == [["up to 100", 20, 1000.0], ["1k to 10k", 5, 4000.0]]
    assert "p95 needs 20 live calls, has 5" in sizes["too few calls"].tolist()[1]
    assert not any("<script>" in chart.proto.spec for chart in at.get("plotly_chart"))
    at = opened("latency", q="p99")
    assert "No model has the 100 live calls of one length that a p99 needs." in [info.value for info in at.info]
    write(journal, [live_call(now - 60 - k, B, number=k) for k in range(5)])
    assert "By prompt length" not in headings(opened("latency", model=B))


def test_a_window_too_large_to_tell_prompts_apart_says_so(journal, monkeypatch):
    monkeypatch.setattr(calllog, "EXACT_ROWS", 10)
    now = time.time()
    write(journal, [live_call(now - 60 - k, A, number=k, input_tokens=10 + 40 * k) for k in range(20)])
    at = opened("latency")
    assert not at.error
    assert "By prompt length" in headings(at)
    assert "Windows of up to 200,000 calls tell long prompts from short ones" in texts(at)


def test_a_chosen_call_shows_its_time_its_prompt_and_its_answer(journal):
    call = live_call(time.time() - 60, A, latency_s=2.0, lookup_s=0.5, total_s=2.5, prompt="Why?", text="Because.", cost_usd=0.25)
    write(journal, [call])
    at = opened("latency", chosen={"models": A, "slowest": call.call_id})
    assert [code.value for code in at.code][:2] == ["Why?", "Because."]
    assert (metric(at, "Latency").value, metric(at, "First token").value, metric(at, "Cost").value) == ("2 s", "500 ms", "\\$0.25")
    assert "2.5 s in all: cache lookup 500 ms, to the first token 500 ms, rest of the answer 1.5 s." in [c.value for c in at.caption]


def test_a_call_has_an_address_of_its_own(journal):
    call = failed_call(time.time() - 60, A, error_message="no such host")
    write(journal, [call])
    at = opened("call", call=call.call_id)
    assert f"{A} · " in at.text[0].value
    assert "ServerError: no such host" in [code.value for code in at.code]


def test_an_unknown_call_is_said_to_be_unknown(day):
    at = opened("call", call="no-such-call")
    assert "no such call" in at.warning[0].value


def test_content_that_was_not_kept_is_said_to_be_missing(journal):
    call = live_call(time.time() - 60, A, prompt=None, text=None)
    write(journal, [call])
    at = opened("latency", chosen={"models": A, "slowest": call.call_id})
    assert texts(at).count("Not kept:") == 2


def test_a_chosen_error_shows_what_to_do_its_messages_its_stack_and_its_calls(journal):
    now = time.time()
    failed = [failed_call(now - 60 - k, A, number=k, error_type="RateLimitError", error_message=f"slow down {k % 2}") for k in range(3)]
    write(journal, [*failed, *(error_of(call) for call in failed), live_call(now - 200, A)])
    at = opened("errors", chosen={"groups": failed[0].error_fingerprint})
    assert not at.error
    assert "concurrency" in texts(at)
    assert "Traceback (most recent call last)" in at.code[0].value
    groups, messages, calls = (table.value for table in at.dataframe)
    assert groups["state"].tolist() == ["new"]
    assert messages["message"].tolist() == ["slow down 0", "slow down 1"]
    assert len(calls) == 3


def test_one_failing_panel_leaves_the_others_standing(journal):
    failed = failed_call(time.time() - 60, A)
    write(journal, [failed, error_of(failed)._replace(context="{not json")])
    at = opened("errors", chosen={"groups": failed.error_fingerprint})
    assert not at.exception
    assert len(at.error) == 1
    assert "JSONDecodeError" in at.error[0].value
    assert {"What to do", "Messages", "Affected calls"} <= {heading.value for heading in at.subheader}


def test_what_models_wrote_is_never_markdown_or_html(journal):
    now = time.time()
    name = f"evil/{SCRIPT}"
    rows = [live_call(now - 60 - k, name, number=k, prompt=SCRIPT, text=SCRIPT, latency_s=9.0) for k in range(100)]
    rows += [live_call(now - 90_000 - k, name, number=200 + k) for k in range(100)]
    failed = failed_call(now - 60, name, error_type="<b>Odd</b>", error_message=SCRIPT)
    write(journal, [*rows, failed])
    pages = [opened("overview"), opened("latency", chosen={"models": name, "slowest": rows[0].call_id})]
    pages += [opened("cache"), opened("errors", chosen={"groups": failed.error_fingerprint})]
    for at in pages:
        assert not at.exception
        rendered = [element.value for kind in (at.markdown, at.caption, at.info, at.error, at.title) for element in kind]
        assert not any("<script>" in value or "![i]" in value or "<b>" in value for value in rendered)
    assert name in pages[0].text[0].value


# Alerts, comparison, cost, logs


def test_a_rule_that_fires_is_a_banner_and_a_bad_file_is_said_in_a_sentence(journal, monkeypatch, tmp_path):
    rules = tmp_path / "alerts.toml"
    monkeypatch.setenv("TOOLKIT_ALERTS", str(rules))
    write(journal, [failed_call(time.time() - 60 - k, A, number=k) for k in range(30)])
    rules.write_text('[[threshold]]\nname = "err*ors*"\nmetric = "error_share"\nabove = 0.2\nover = "1h"\n')
    [banner] = opened("overview").error
    assert banner.value.startswith("**err\\*ors\\***: error\\_share is 1\\, above 0\\.2")
    rules.write_text("[[threshold]")
    [problem] = opened("latency").error
    assert "alerts" in problem.value


def charts_of(at):
    return [json.loads(chart.proto.spec)["layout"] for chart in at.get("plotly_chart")]


def test_an_annotation_is_a_line_in_the_charts_over_time_whatever_run_is_chosen(journal):
    now = time.time()
    mark = log_entry(now - 90, "deployed <b>", context=MARK)
    write(journal, [*(live_call(now - 60 - k, A, number=k, run_id="r1") for k in range(30)), mark, log_entry(now - 80, "no mark")])
    for at in (opened("overview"), opened("overview", run="r1")):
        for layout in charts_of(at):
            assert [label["hovertext"].split("<br>")[0] for label in layout["annotations"]] == ["deployed &lt;b&gt;"]
            assert len(layout["shapes"]) == 1
        assert all(chart.proto.alt.endswith("UTC: deployed <b>") for chart in at.get("plotly_chart")), "words for who can't see the line"


def test_a_limit_of_an_alert_rule_is_a_line_in_the_chart_of_its_percentile(journal, monkeypatch, tmp_path):
    rules = tmp_path / "alerts.toml"
    monkeypatch.setenv("TOOLKIT_ALERTS", str(rules))
    write(journal, [live_call(time.time() - 3600 - k / 10, A, number=k) for k in range(60)])
    rule = '[[threshold]]\nname = "{}"\nmetric = "p95_s"\nabove = {}\nover = "1h"\n{}\n'
    rules.write_text(rule.format("promise", 7.5, "") + rule.format("of another", 3, 'model = "x/y"'))
    lines = [shape["name"] for shape in charts_of(opened("latency", q="p95"))[0]["shapes"]]
    assert lines == ["promise, 7,500 ms"]
    assert "shapes" not in charts_of(opened("latency", q="p50"))[0]


def test_the_health_page_says_who_answers_and_what_is_read_without_asking_anybody(journal):
    now = time.time()
    write(journal, [live_call(now - 120, A), failed_call(now - 30, B)])
    at = opened("health")
    providers, source = (table.value for table in at.dataframe)
    assert providers[["provider", "state", "newest answer"]].fillna("").values.tolist() == [
        ["openrouter", "fails", ""], ["ollama", "answers", "2 min ago"],
    ]  # fmt: skip
    facts = dict(source.values.tolist())
    assert facts["journal"] == str(journal)
    assert facts["rows"] == "2, of which 0 in the archive"
    assert facts["alert rules"].startswith("none in ")
    assert "toolkit doctor" in texts(at)
    assert f"polars {pl.__version__}" in texts(at)


def test_runs_stand_side_by_side_with_verdicts_answers_and_votes(journal):
    now = time.time()
    rows = [RunRecord(run, now - 900, "test:1", run.upper(), "{}") for run in ("r1", "r2")]
    for number, (run, slower) in enumerate([("r1", 1.0), ("r2", 1.5)]):
        for model, times in ((A, 1.0), (B, 3.0)):
            text = f"{model} says <b>{SCRIPT}</b>"
            rows += [
                live_call(
                    now - 600 + 60 * number - k, model, number=k, run_id=run, latency_s=times * slower + k / 100, text=text, cost_usd=0.01
                )
                for k in range(8)
            ]
    rows += [VoteRecord(now, f"v{k}", "r2", "R2", "p0", 0, A, B, choice, "me", "", 1.0) for k, choice in enumerate(["a", "a", "b"])]
    write(journal, rows)
    at = opened("compare", runs=["R1 (r1)", "R2 (r2)"])
    assert not at.exception
    assert not at.error
    side_by_side, verdicts, votes = (table.value for table in at.dataframe)
    assert side_by_side["run"].tolist() == ["R1", "R2", "R1", "R2"]
    assert side_by_side["Δ mean latency (ms)"][1].startswith("+500 (")
    assert verdicts["verdict"].tolist() == [f"{A} is faster than {B}"]
    assert votes["wins"].tolist() == [2.0, 1.0]
    (answers,) = (part for part in at.get("html") if "<table" in part.proto.body)
    assert "&lt;script&gt;" in answers.proto.body
    assert "<script" not in answers.proto.body
    assert "<ins" in answers.proto.body


def test_the_code_for_a_notebook_gives_the_calls_that_the_page_shows(journal):
    now = time.time()
    rows = [RunRecord(run, now - 900, "test:1", "nightly", "{}") for run in ("r1", "r2", "r'3\n")]
    for number, run in enumerate(("r1", "r2", "r'3\n")):
        for model in (A, B):
            rows += [live_call(now - 600 - k, model, number=10 * number + k, run_id=run, latency_s=number + k + 1.0) for k in range(8)]
    write(journal, [*rows, live_call(now - 60, A, number=99), failed_call(now - 50, A, run_id="r2")])
    at = opened("compare", runs=["nightly (r1)", "nightly (r2)"], model=A)
    told = {}
    exec(at.code[0].value, told)
    assert told["calls"][["run_id", "label", "status"]].value_counts().to_dict() == {
        ("r1", A, "ok"): 8, ("r2", A, "ok"): 8, ("r2", A, "error"): 1,
    }  # fmt: skip
    medians = told["percentiles"].query("q == 0.5")
    assert (medians["value"] * 1e3).tolist() == at.dataframe[0].value["p50 (ms)"].tolist() == [4500.0, 5500.0]
    assert told["answers"].shape == (8, 2)
    at = opened("compare", runs="nightly (r'3\n)")
    exec(at.code[0].value, told)
    assert set(told["calls"]["run_id"]) == {"r'3\n"}, "whatever a run is called"


def test_the_code_for_a_notebook_does_not_tell_a_servers_address(postgres_server, monkeypatch):
    url, now = postgres_server.url("notebooks"), time.time()
    monkeypatch.setenv("TOOLKIT_JOURNAL", url)
    write(
        url, [RunRecord("r1", now - 900, "test:1", "nightly", "{}"), *(live_call(now - 60 - k, A, number=k, run_id="r1") for k in range(3))]
    )
    code = opened("compare", runs="nightly (r1)").code[0].value
    assert not any(word in code for word in (PASSWORD, QUOTED_PASSWORD, "postgresql:"))
    told = {}
    exec(code, told)
    assert len(told["calls"]) == 3


def test_the_budget_lives_in_the_address(journal):
    now = time.time()
    write(journal, [live_call(now - 86_400.0 * day, A, number=day, cost_usd=1.0) for day in range(6)])
    at = opened("cost", window="all", budget="10")
    assert not at.error
    assert "above the budget of \\$10\\.00" in texts(at)
    assert len(at.get("plotly_chart")) == 1


def test_a_chosen_log_line_opens_its_call(journal):
    now = time.time()
    failed = failed_call(now - 60, A, error_message="no such host")
    write(journal, [failed, live_call(now - 50, B)])
    at = opened("logs", chosen={"lines": failed.call_id}, level="error", search="HOST")
    assert at.dataframe[0].value["line"].tolist() == ["ServerError: no such host, 3 attempts"]
    assert "ServerError: no such host" in [code.value for code in at.code]


def test_the_loggers_entries_of_other_processes_are_lines_and_open_with_fields_and_stack(journal):
    now = time.time()
    call = live_call(now - 50, B)
    entry = log_entry(
        now - 60, f"disk full {SCRIPT}", "ERROR", context='{"free_mb": 3}', error_id="e-77", error_type="OSError", error_message="no space",
        stack="Traceback: here", call_id=call.call_id,
    )  # fmt: skip
    write(journal, [entry, call, log_entry(now - 40, "all good")])
    at = opened("logs", chosen={"lines": entry.log_id}, search="FREE_MB")
    assert at.dataframe[0].value["process or model"].tolist() == ["host:7"]
    assert at.dataframe[0].value["line"].tolist() == [f'disk full {SCRIPT} · OSError: no space {{"free_mb": 3}}']
    assert [code.value for code in at.code] == [f"disk full {SCRIPT}", "Traceback: here"]
    assert [json.loads(field.value) for field in at.json] == [{"free_mb": 3}]
    assert "Error e-77" in texts(at)
    assert opened("logs", of="logger").dataframe[0].value["line"].tolist()[0] == "all good"
    assert len(opened("logs", level="info").dataframe[0].value) == 2
    only_calls = opened("logs", model=B)
    assert only_calls.dataframe[0].value["process or model"].tolist() == [B]
    assert "these filters leave only calls" in texts(only_calls)


def test_who_only_logs_sees_the_lines_and_is_told_how_to_make_calls(journal):
    write(journal, [log_entry(time.time() - 5, "before any call", "WARN")])
    at = opened("logs", window="all")
    assert at.dataframe[0].value["line"].tolist() == ["before any call"]
    assert "no call yet" in at.caption[0].value
    assert "toolkit demo" in [code.value for code in opened("overview").code]


def test_the_cache_page_says_how_full_tiers_are_and_what_they_let_go(journal):
    now = time.time()
    states = [
        cache_state(now - 7200, entries=990, max_entries=1000, evictions=4),
        cache_state(now - 3600, entries=1000, max_entries=1000, evictions=6, process="host:8"),
        cache_state(now - 3500, "disk", entries=70, size_bytes=5_000_000, max_bytes=20_000_000, expirations=2),
    ]
    write(journal, [live_call(now - 60, A), *states])
    at = opened("cache")
    assert not at.error
    tiers = next(table.value for table in at.dataframe if "evicted" in table.value)
    assert tiers[["tier", "entries", "evicted", "expired", "processes"]].to_numpy().tolist() == [
        ["disk", 70, 0, 2, 1],
        ["memory", 1000, 10, 0, 2],
    ]
    assert tiers["full"].tolist() == [0.25, 1.0]
    assert "Evictions and expirations" in [heading.value for heading in at.subheader]


def test_without_states_of_caches_the_page_says_how_to_look_now(journal):
    write(journal, [live_call(time.time() - 60, A)])
    at = opened("cache")
    assert "toolkit cache stats" in [code.value for code in at.code]


def test_filters_are_chips_and_go_by_a_click(day):
    at = opened("overview", model=["ollama/llama3.2:1b", "cohere/command-r"], status="ok")
    chips = {button.label.replace("\\", ""): button for button in at.button if button.key.startswith("chip-")}
    assert list(chips) == ["model: ollama/llama3.2:1b", "model: cohere/command-r", "status: ok"]
    before = calls_in_window(at)
    chips["model: cohere/command-r"].click().run()
    assert at.multiselect(key="model").value == ["ollama/llama3.2:1b"]
    assert calls_in_window(at) < before


def test_a_window_between_two_moments_is_a_chip_and_its_moments_go_with_it(journal):
    write(journal, [live_call(1_700_000_000.0, A), live_call(time.time() - 60, B)])
    at = opened(**{"window": "custom", "from": "2023-11-14T22:00", "to": "2023-11-14T23:00"})
    (chip,) = (button for button in at.button if button.key.startswith("chip-"))
    assert chip.label.replace("\\", "") == "2023-11-14 22:00 to 2023-11-14 23:00 UTC"
    chip.click().run()
    assert calls_in_window(at) == 1
    assert (at.session_state["window"], at.session_state["from"], at.session_state["to"]) == ("24h", None, None)


@pytest.mark.parametrize(("ends", "span"), [
    (["2026-11-25 10:23:45.1234", "2026-11-25 12:00"], ("2026-11-25T10:23:00", "2026-11-25T12:01:00")),
    (["2026-11-26", "2026-11-25 23:59:59"], ("2026-11-25T23:59:00", "2026-11-26T00:01:00")),
])  # fmt: skip
def test_a_box_over_an_axis_of_time_is_whole_minutes_from_early_to_late(ends, span):
    assert tuple(end.isoformat() for end in span_of(ends)) == span


def test_an_absolute_window_in_the_address_holds_its_calls_only(journal):
    write(journal, [live_call(1_700_000_000.0 + 3600 * hour, A, number=hour) for hour in range(6)])  # from 2023-11-14 22:13:20
    assert calls_in_window(opened(**{"window": "custom", "from": "2023-11-14T23:00", "to": "2023-11-15T01:30"})) == 3
    assert calls_in_window(opened(window="custom")) == 6


def test_tiles_can_be_compared_with_a_run(journal):
    now = time.time()
    rows = [
        RunRecord("r1", now - 9e5, "test:1", "baseline", "{}"),
        *(live_call(now - 8e5 - k, A, number=k, run_id="r1") for k in range(50)),
    ]
    write(journal, [*rows, *(live_call(now - 60 - k, A, number=100 + k, latency_s=2.0) for k in range(50))])
    at = opened("overview", vs="run baseline (r1)")
    assert at.caption[0].value.endswith("compared with run baseline")
    assert metric(at, "p95 latency").delta == "+100.0 %"
    assert metric(opened("overview", vs="off"), "p95 latency").delta == ""


# Reading the journal


@pytest.mark.parametrize("kept", [80, 200], ids=["most of them on disk", "all of them in memory"])
def test_many_calls_are_counted_in_cells_and_said_to_be_approximate(journal, monkeypatch, kept):
    now = time.time()
    monkeypatch.setattr(calllog, "EXACT_ROWS", 50)
    monkeypatch.setattr(calllog, "KEEP_ROWS", kept)
    write(journal, [*(live_call(now - 60 - k, A, number=k, latency_s=2.0) for k in range(100)), failed_call(now - 50, B)])
    at = opened("overview")
    assert at.caption[0].value.startswith("101 calls in the window · newest call")
    assert "percentiles ±2 %" in at.caption[0].value
    latency = opened("latency", chosen={"models": A}).dataframe
    assert latency[0].value["p50 (ms)"].tolist() == [pytest.approx(2000, rel=0.02)]
    assert latency[1].value["latency (ms)"].tolist()[0] == 2000.0, "single calls stay exact"
    assert opened("errors").dataframe[0].value["in the window"].tolist() == [1]


def test_calls_that_come_later_are_added_to_cells_and_rows_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(calllog, "EXACT_ROWS", 10)
    monkeypatch.setattr(calllog, "KEEP_ROWS", 20)
    path = tmp_path / "journal.sqlite"
    write(path, [live_call(1000.0 + k, A, number=k) for k in range(30)])
    log = CallLog(str(path))
    assert log.window(log.refresh(), 0.0, 5000.0).n == 30
    write(path, [live_call(1100.0 + k, B, number=k) for k in range(5)] + [failed_call(1200.0, B)])
    version = log.refresh()
    everything, newest = log.window(version, 0.0, 5000.0), log.window(version, 1100.0, 5000.0)
    assert (everything.n, everything.exact) == (36, False)
    assert (newest.n, newest.exact) == (6, True)
    assert log.failures(version)["n"].sum() == 1
    assert log.choices().models == (A, B)


def labels(log, version):
    return log.window(version, 0.0, 100.0).counts["label"].to_list()


def test_only_what_is_new_is_read_and_versions_stay_what_they_were(tmp_path):
    path = tmp_path / "journal.sqlite"
    log = CallLog(str(path))
    assert log.refresh().rows == 0
    write(path, [live_call(1.0, A), live_call(2.0, A)])
    first = log.refresh()
    write(path, [live_call(3.0, B)])
    second = log.refresh()
    assert log.refresh() == second
    assert (first.rows, second.rows) == (2, 3)
    assert labels(log, first) == [A, A]
    assert labels(log, second) == [A, A, B]


def test_a_journal_made_anew_is_read_anew(tmp_path):
    path = tmp_path / "journal.sqlite"
    log = CallLog(str(path))
    write(path, [live_call(float(at), A) for at in range(5)])
    old = log.refresh()
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    write(path, [live_call(9.0, B)])
    new = log.refresh()
    assert new.generation > old.generation
    assert labels(log, new) == [B]


def test_a_journal_larger_than_a_chunk_is_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "journal.sqlite"
    monkeypatch.setattr(calllog, "CHUNK_ROWS", 2)
    write(path, [live_call(float(at), A) for at in range(5)])
    log = CallLog(str(path))
    assert log.window(log.refresh(), 0.0, 9.0).counts["at"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_an_unreadable_journal_raises_on_refresh(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(JournalError, match="can't read"):
        CallLog(str(path)).refresh()


# Old days


HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
def old_days(tmp_path, monkeypatch):
    """A journal of four days, all but the last in the archive, that is counted in cells."""
    monkeypatch.setattr(calllog, "EXACT_ROWS", 10)
    monkeypatch.setattr(calllog, "KEEP_ROWS", 15)
    path = tmp_path / "journal.sqlite"
    rows = [live_call(day * DAY + hour * HOUR, A, number=day, latency_s=2.0) for day in range(10, 14) for hour in range(10)]
    write(path, [*rows, failed_call(11 * DAY + HOUR, B), live_call(13 * DAY, B)])
    prune(read_address(path), archive_after_s=0.0, now=13.5 * DAY)
    return path


def summed(log):
    calls = log.window(log.refresh(), 10 * DAY, 14 * DAY)
    latencies = calls.values("latency_s").group_by("label").agg(pl.col("n").sum()).sort(pl.col("label").cast(pl.String))
    return calls.n, int(calls.counts.filter(pl.col("status") == "error")["n"].sum()), latencies["n"].to_list()


def test_days_of_the_archive_and_of_the_database_are_counted_once_each(old_days):
    log = CallLog(str(old_days))
    assert summed(log) == (42, 1, [40, 1])
    assert log.failures(log.refresh())["n"].to_list() == [1]
    assert log.choices().models == (A, B)
    write(old_days, [live_call(13 * DAY + 11 * HOUR, B)])
    assert summed(log) == (43, 1, [40, 2])


def test_what_was_counted_of_old_days_is_not_read_from_them_again(old_days):
    assert summed(CallLog(str(old_days))) == (42, 1, [40, 1])
    for file in (old_days.parent / "journal.sqlite.archive").glob("call/*/*.parquet"):
        file.write_bytes(b"no one reads this")
    log = CallLog(str(old_days))
    assert summed(log) == (42, 1, [40, 1])
    assert log.failures(log.refresh())["n"].to_list() == [1]
    assert log.choices().models == (A, B)


def test_damaged_counts_of_old_days_are_made_anew(old_days):
    assert summed(CallLog(str(old_days))) == (42, 1, [40, 1])
    kept = list((settings.cache_folder() / "dashboard").glob("*/*.parquet"))
    assert kept
    for file in kept:
        file.write_bytes(b"cut off")
    assert summed(CallLog(str(old_days))) == (42, 1, [40, 1])
    assert all(pl.read_parquet(file).height for file in kept)


def test_days_that_were_removed_are_gone_from_an_open_page_and_from_what_was_kept_of_them(old_days):
    log = CallLog(str(old_days))
    before = log.refresh()
    assert summed(log) == (42, 1, [40, 1])
    prune(read_address(old_days), older_than_s=2 * DAY, now=14 * DAY)
    assert summed(log) == (21, 0, [20, 1])
    assert log.refresh().generation > before.generation
    assert log.failures(log.refresh()).is_empty()
    assert {file.name.partition("-")[2] for file in (settings.cache_folder() / "dashboard").glob("*/*")} == {
        "counts.parquet",
        "latency_s.parquet",
    }
    assert len(list((settings.cache_folder() / "dashboard").glob("*/*"))) == 2


def test_days_that_move_to_the_archive_while_a_page_is_open_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(calllog, "EXACT_ROWS", 10)
    monkeypatch.setattr(calllog, "KEEP_ROWS", 15)
    path = tmp_path / "journal.sqlite"
    write(path, [live_call(10 * DAY + hour * HOUR, A, number=hour) for hour in range(20)])
    log = CallLog(str(path))
    assert summed(log)[0] == 20
    prune(read_address(path), archive_after_s=0.0, now=12 * DAY)
    write(path, [live_call(12 * DAY, B)])
    assert summed(log) == summed(CallLog(str(path))) == (21, 0, [20, 1])


def test_an_archive_that_is_damaged_is_said_in_a_sentence(old_days, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", str(old_days))
    for file in (old_days.parent / "journal.sqlite.archive").glob("call/*/*.parquet"):
        file.write_bytes(b"cut off")
    at = opened()
    assert at.title[0].value == "The journal can't be read"
    assert "toolkit journal check" in at.error[0].value
    assert not at.exception


# A server's journal


def test_the_pages_show_a_journal_on_a_postgresql_server_without_its_password(postgres_server, monkeypatch):
    now, url = time.time(), postgres_server.url()
    monkeypatch.setenv("TOOLKIT_JOURNAL", url)
    at = opened("latency")
    assert at.title[0].value == "No calls yet"
    assert shown_url(url) in [code.value for code in at.code]
    assert not any(word in texts(at) for word in (PASSWORD, QUOTED_PASSWORD))
    failed = failed_call(now - 30, B)
    write(url, [*(live_call(now - 60 - k, A, number=k, latency_s=k + 1.0) for k in range(9)), failed, error_of(failed)])
    for screen, title in SCREENS.items():
        at = opened(screen)
        assert (at.title[0].value, [*at.error]) == (title, [])
        assert calls_in_window(at) == 10
    assert opened("latency", chosen={"models": A}).dataframe[1].value["latency (ms)"].tolist()[:2] == [9000.0, 8000.0]
    at = opened("errors", chosen={"groups": failed.error_fingerprint})
    assert "Traceback (most recent call last)" in at.code[0].value
    write(url, [live_call(now - 5, B)])
    assert calls_in_window(at.run()) == 11


# The server's port


def test_a_dashboard_that_warmed_up_reads_nothing_more_for_its_first_page(journal, monkeypatch):
    write(journal, a_day(time.time(), calls=300))
    warm_up()

    def scan(*_args, **_options):
        raise AssertionError("the journal is read again")

    monkeypatch.setattr(JournalReader, "scan", scan)
    at = opened()
    assert not at.exception
    assert not at.error
    assert calls_in_window(at) > 0


def test_warming_up_leaves_it_to_the_page_to_tell_of_a_journal_that_is_damaged_or_missing(journal):
    warm_up()
    journal.write_bytes(b"this is not a database, though it is long enough to be taken for one" * 50)
    warm_up()
    assert opened().title[0].value == "The journal can't be read"


def test_a_free_port_is_kept_and_a_taken_one_gives_way_to_the_next():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert serve.free_port(port) > port
    assert serve.free_port(port) == port


def test_an_address_that_is_not_ours_is_an_error():
    with pytest.raises(OSError, match="assign"):
        serve.free_port(8501, "203.0.113.7")
