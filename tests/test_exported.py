"""What exporters send, read back on the other side: an OTLP receiver, Sentry's intake, a scraped page of Prometheus."""

import json
import logging
import re
import socket
import subprocess
import sys
import urllib.request

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

import toolkit as tk
from servers.chat_completions import ChatService
from servers.http import Answer, Server, json_answer
from servers.otlp import OtlpAgent
from servers.sentry import PUBLIC_KEY, SentryService
from test_secrets import BAD, HEAD, KEY
from toolkit import monitor
from toolkit.errors import ConfigError, ToolkitError
from toolkit.monitor.exporters.opentelemetry import DURATION_BOUNDS_S, TOKEN_BOUNDS, OpenTelemetryExporter
from toolkit.monitor.exporters.prometheus import PrometheusExporter
from toolkit.monitor.exporters.sentry import SentryExporter
from toolkit.monitor.journal import JournalReader
from toolkit.wire.retry import Retry

MODEL = "openai_compatible/demo-small"
PROMPT = "canary-prompt-how-hard-is-fluorite"
ANSWER = "canary-answer-mohs-four"


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with OtlpAgent(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture
def collector(agent, monkeypatch):
    """The agent, empty, with the standard variables pointing at it."""
    agent.clear()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", agent.url)
    return agent


@pytest.fixture
def service():
    with Server(ChatService()) as server:
        yield server


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("toolkit.exporters")]


def client(server, **options):
    options = {"base_urls": {"openai_compatible": f"{server.url}/v1"}, "retry": Retry(attempts=1), **options}
    return tk.Client(**options)


# --- OpenTelemetry -----------------------------------------------------------------------------------------------------------


def test_a_call_arrives_as_a_span_of_the_genai_conventions_with_its_true_times(collector, service):
    monitor.export_to("otel")
    with client(service) as asker:
        answer = list(asker.stream_text(MODEL, "Hello", system="Be terse.", temperature=0.3, max_tokens=300, seed=7, stop=["\n"]))[
            -1
        ].completion
        asker.journal.flush()
    assert monitor.flush_exports()
    (span,) = collector.spans()
    row = JournalReader().call(answer.call_id)
    assert (span["name"], span["kind"]) == ("chat demo-small", "SPAN_KIND_CLIENT")
    assert int(span["start_time_unix_nano"]) == int(row["at"] * 1e9)
    took_s = (int(span["end_time_unix_nano"]) - int(span["start_time_unix_nano"])) / 1e9
    assert took_s == pytest.approx(answer.timing.total_s, abs=1e-5)
    assert "parent_span_id" not in span and span.get("status", {}) == {}
    found = span["attributes"]
    assert {name: value for name, value in found.items() if name.startswith(("gen_ai", "server"))} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai_compatible",
        "gen_ai.request.model": "demo-small",
        "server.address": "127.0.0.1",
        "server.port": int(service.url.rpartition(":")[2]),
        "gen_ai.request.temperature": 0.3,
        "gen_ai.request.max_tokens": 300,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ["\n"],
        "gen_ai.request.stream": True,
        "gen_ai.response.id": answer.request_id,
        "gen_ai.response.model": answer.served_model,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": answer.timing.ttft_s,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 1,
    }
    assert (found["toolkit.call_id"], found["toolkit.provenance"]) == (answer.call_id, "live")
    assert found["toolkit.latency_s"] == answer.timing.latency_s
    assert span["resource"]["service.name"] == "model-comparison-toolkit"
    assert (span["scope"]["name"], span["schema_url"]) == ("model-comparison-toolkit", "https://opentelemetry.io/schemas/1.37.0")


def test_the_metrics_of_the_conventions_arrive_with_their_bounds(collector, service):
    monitor.export_to("otel")
    with client(service) as asker:
        answers = [list(asker.stream_text(MODEL, text))[-1].completion for text in ("one", "two")]
        asker.generate_text(MODEL, "one")
    assert monitor.flush_exports()
    found = collector.metrics()
    (duration,) = found["gen_ai.client.operation.duration"]
    assert (duration["unit"], int(duration["count"]), duration["explicit_bounds"]) == ("s", 2, list(DURATION_BOUNDS_S))
    assert duration["sum"] == pytest.approx(sum(answer.timing.total_s for answer in answers))
    tokens = {point["attributes"]["gen_ai.token.type"]: point for point in found["gen_ai.client.token.usage"]}
    assert {kind: (point["sum"], point["unit"]) for kind, point in tokens.items()} == {"input": (22, "{token}"), "output": (6, "{token}")}
    assert tokens["input"]["explicit_bounds"] == list(TOKEN_BOUNDS)
    (first,) = found["gen_ai.client.operation.time_to_first_chunk"]
    assert first["sum"] == pytest.approx(sum(answer.timing.ttft_s for answer in answers))
    gaps = [gap for answer in answers for gap in answer.timing.inter_token_s]
    chunks = found.get("gen_ai.client.operation.time_per_output_chunk", [{"count": 0}])
    assert int(chunks[0]["count"]) == len(gaps)
    (replayed,) = found["toolkit.cache.answers"]
    assert (int(replayed["as_int"]), replayed["attributes"]["toolkit.provenance"]) == (1, "replayed")
    assert set(duration["attributes"]) == {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "server.address", "server.port"
    }  # fmt: skip


def test_an_answer_from_the_cache_is_a_span_that_no_bill_and_no_latency_counts(collector, service):
    monitor.export_to("otel")
    with client(service) as asker:
        for _ in range(2):
            asker.generate_text(MODEL, "Hello")
    assert monitor.flush_exports()
    replayed = next(span for span in collector.spans() if span["attributes"]["toolkit.provenance"] == "replayed")
    assert replayed["kind"] == "SPAN_KIND_INTERNAL"
    assert replayed["attributes"]["toolkit.cache.tier"] == "memory"
    assert [name for name in replayed["attributes"] if name.startswith("gen_ai.usage")] == []


def test_a_failure_has_a_status_and_the_http_status_as_its_type(collector):
    refused = json_answer({"error": {"message": "slow down", "type": "rate_limit"}}, 429)
    monitor.export_to("otel")
    with Server(lambda _request: refused) as server, client(server) as asker, pytest.raises(tk.errors.RateLimitError):
        asker.generate_text(MODEL, "Hello")
    assert monitor.flush_exports()
    (span,) = collector.spans()
    assert span["status"] == {"code": "STATUS_CODE_ERROR", "message": "RateLimitError"}
    assert span["attributes"]["error.type"] == "429"
    assert span["attributes"]["toolkit.error.fingerprint"]
    (duration,) = collector.metrics()["gen_ai.client.operation.duration"]
    assert duration["attributes"]["error.type"] == "429"
    assert "gen_ai.client.token.usage" not in collector.metrics()


def test_a_model_of_this_process_is_an_internal_span_without_an_address(collector):
    monitor.export_to("otel")
    tk.generate_text("scripted/echo", "Hello")
    assert monitor.flush_exports()
    (span,) = collector.spans()
    assert span["kind"] == "SPAN_KIND_INTERNAL"
    assert "server.address" not in span["attributes"]


def test_names_and_attributes_of_the_resource_come_from_the_standard_variables(collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "minerals")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "openinference.project.name=rocks,team=geo")
    monitor.export_to("otel")
    tk.generate_text("scripted/echo", "Hello")
    assert monitor.flush_exports()
    (span,) = collector.spans()
    assert {"service.name": "minerals", "openinference.project.name": "rocks", "team": "geo"}.items() <= span["resource"].items()


@pytest.mark.parametrize(
    ("variable", "value", "spans", "metrics"),
    [("OTEL_SDK_DISABLED", "true", 0, False), ("OTEL_METRICS_EXPORTER", "none", 1, False), ("OTEL_TRACES_EXPORTER", "none", 0, True)],
)
def test_what_the_standard_variables_switch_off_is_not_sent(collector, monkeypatch, variable, value, spans, metrics):
    monkeypatch.setenv(variable, value)
    monitor.export_to("otel")
    tk.generate_text("scripted/echo", "Hello")
    assert monitor.flush_exports()
    assert (len(collector.spans()), bool(collector.metrics())) == (spans, metrics)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318", "/v1/traces: add that"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9090/api/v1/otlp", "/v1/metrics: add that"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf, not grpc"),
    ],
)
def test_a_setting_that_would_lose_everything_is_refused(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=re.escape(words)):
        monitor.export_to("otel")


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [("otel", "OTEL_EXPORTER_OTLP_ENDPOINT", "https://otlp.example.org"), ("sentry", "SENTRY_DSN", "https://key@sentry.example.org/1")],
)
def test_offline_an_address_beyond_this_machine_is_refused(monkeypatch, name, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"example\.org, and TOOLKIT_OFFLINE=1"):
        monitor.export_to(name)


def test_providers_of_the_program_are_used_and_its_span_is_the_parent():
    spans, reader, own = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    own.add_span_processor(SimpleSpanProcessor(spans))
    monitor.export_to(OpenTelemetryExporter(tracer_provider=own, meter_provider=MeterProvider([reader])))
    with own.get_tracer("theirs").start_as_current_span("a notebook's cell") as parent:
        tk.generate_text("scripted/echo", "Hello")
    tk.generate_text("scripted/echo", "outside")
    monitor.export_to()
    inside, outside = (span for span in spans.get_finished_spans() if span.name == "chat echo")
    assert inside.parent.span_id == parent.get_span_context().span_id
    assert inside.context.trace_id == parent.get_span_context().trace_id
    assert outside.parent is None
    assert reader.get_metrics_data() is not None, "a provider that is not ours must not be shut down"


GLOBAL = """
from opentelemetry import trace, metrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import toolkit as tk
spans = InMemorySpanExporter()
if {own}:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
tk.monitor.export_to("otel")
tk.generate_text("scripted/echo", "x")
tk.monitor.flush_exports()
print(len(spans.get_finished_spans()), type(trace.get_tracer_provider()).__name__, type(metrics.get_meter_provider()).__name__)
"""


@pytest.mark.parametrize(
    ("own", "said"), [(True, "1 TracerProvider _ProxyMeterProvider"), (False, "0 ProxyTracerProvider _ProxyMeterProvider")]
)
def test_a_global_provider_is_found_and_none_is_set_by_us(collector, own, said):
    done = subprocess.run([sys.executable, "-c", GLOBAL.format(own=own)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == said, done.stderr
    assert len(collector.spans()) == (0 if own else 1)


def test_what_a_collector_threw_away_is_said_although_it_answered_200(monkeypatch, said):
    partial = json_answer(
        {"partialSuccess": {"rejectedSpans": "4", "rejectedDataPoints": "4", "errorMessage": "cumulative is not accepted"}}
    )
    with Server(lambda _request: partial) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monitor.export_to("otel")
        for _ in range(2):
            tk.generate_text("scripted/echo", "Hello")
            monitor.flush_exports()
        monitor.export_to()
    assert sorted(line for line in said() if "cumulative is not accepted" in line) == [
        f"the OpenTelemetry collector took a batch of {signal} but not all of it: cumulative is not accepted"
        for signal in ("metrics", "traces")
    ]


def test_words_are_on_spans_where_the_standard_variable_says_so(collector, service, monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    monitor.export_to("otel")
    picture = tk.ImagePart(data=b"\x89PNG")
    with client(service) as asker:
        asker.generate_text(MODEL, [tk.Message(role="user", content=(tk.types.TextPart(text=PROMPT), picture))], system="Be terse.")
    assert monitor.flush_exports()
    found = collector.spans()[0]["attributes"]
    assert json.loads(found["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be terse."}]
    assert json.loads(found["gen_ai.input.messages"]) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": PROMPT},
                {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "(4 bytes, left out)"},
            ],
        }
    ]
    (message,) = json.loads(found["gen_ai.output.messages"])
    assert [part["type"] for part in message["parts"]] == ["reasoning", "text"]
    assert message["finish_reason"] == "stop"


def test_words_that_the_journal_may_not_keep_are_not_exported_either(collector, monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    monkeypatch.setenv("TOOLKIT_RECORD_CONTENT", "0")
    monitor.export_to("otel")
    tk.generate_text("scripted/echo", PROMPT)
    assert monitor.flush_exports()
    assert PROMPT not in repr(collector.spans())


# --- Sentry ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sentry(monkeypatch):
    service = SentryService()
    with Server(service) as server:
        monkeypatch.setenv("SENTRY_DSN", service.dsn(server))
        yield service


def test_a_failed_call_arrives_as_an_event_under_our_fingerprint(sentry, monkeypatch, own_home):
    monkeypatch.setenv("SENTRY_ENVIRONMENT", "notebook")
    monkeypatch.setenv("SENTRY_RELEASE", "minerals@7")
    refused = json_answer({"error": {"message": "slow down"}}, 429, {"x-request-id": "req_9"})
    monitor.export_to("sentry")
    with Server(lambda _request: refused) as server, client(server) as asker:
        with pytest.raises(tk.errors.RateLimitError):
            asker.generate_text(MODEL, "Hello")
        asker.journal.flush()
    assert monitor.flush_exports()
    (event,) = sentry.events
    rows = JournalReader().errors()
    assert event["event_id"] == rows["error_id"][0]
    assert event["fingerprint"] == ["toolkit", rows["fingerprint"][0]]
    assert (event["environment"], event["release"], event["level"]) == ("notebook", "minerals@7", "error")
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("RateLimitError", "openai_compatible: RateLimitError (HTTP 429)")
    assert "call.py" in [frame["filename"] for frame in exception["stacktrace"]["frames"]]
    assert all(set(frame) == {"filename", "function", "lineno", "in_app"} for frame in exception["stacktrace"]["frames"])
    assert event["tags"]["llm.model"] == "demo-small" and event["tags"]["llm.status"] == "429"
    assert event["contexts"]["llm"]["call_id"] == rows["call_id"][0]
    assert set(event) <= {
        "event_id", "timestamp", "level", "platform", "exception", "fingerprint", "tags", "contexts", "release", "environment", "sdk", "logger"
    }  # fmt: skip


def test_a_tracked_error_arrives_with_its_message_and_places_but_without_its_fields(sentry):
    monitor.export_to("sentry")

    def parse(prompt):
        raise ValueError("row 7 has no prompt")

    with pytest.raises(ValueError):
        monitor.with_error_tracking(parse, prompt=PROMPT)(PROMPT)
    assert monitor.flush_exports()
    (event,) = sentry.events
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "row 7 has no prompt")
    assert exception["stacktrace"]["frames"][-1]["function"].endswith("parse")
    assert PROMPT.encode() not in b"".join(sentry.bodies)


def test_calls_that_went_well_or_that_somebody_stopped_are_no_events(sentry):
    monitor.export_to("sentry")
    tk.generate_text("scripted/echo", "Hello")
    with pytest.raises(tk.errors.CacheMiss):
        tk.generate_text("scripted/echo", "never asked", cache="only")
    stream = tk.stream_text("scripted/echo", "a b c d", cache=False)
    next(stream)
    stream.close()
    assert monitor.flush_exports()
    assert sentry.bodies == []


@pytest.mark.parametrize("dsn", [None, "not a dsn", "https://sentry.example.org/1"])
def test_a_missing_or_wrong_dsn_is_refused(monkeypatch, dsn):
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    with pytest.raises(ConfigError, match="SENTRY_DSN"):
        monitor.export_to(SentryExporter(dsn) if dsn else "sentry")


OWN_SENTRY = """
import sys, httpx, sentry_sdk, toolkit as tk
sentry_sdk.init({theirs!r}, auto_enabling_integrations=False, send_client_reports=False)
before, send = sentry_sdk.get_client(), httpx.Client.send
sentry_sdk.set_user({{"id": "their-user"}})
tk.monitor.export_to("sentry")
tk.monitor.error_tracker.track_error(ValueError("ours"))
tk.monitor.logger.error("a line of the logger", row=7)
tk.monitor.flush_exports()
sentry_sdk.flush()
print(sentry_sdk.get_client() is before, httpx.Client.send is send)
"""


def test_a_program_s_own_sentry_stays_as_it_is_and_hears_the_logger(sentry):
    theirs = SentryService()
    with Server(theirs) as server:
        done = subprocess.run(
            [sys.executable, "-c", OWN_SENTRY.format(theirs=theirs.dsn(server))], capture_output=True, text=True, timeout=60
        )
    assert done.stdout.strip() == "True True", done.stderr
    assert [event["exception"]["values"][0]["value"] for event in sentry.events] == ["ours"]
    assert b"their-user" not in b"".join(sentry.bodies)
    assert [event["logentry"]["formatted"] for event in theirs.events] == ["a line of the logger row=7"]


# --- Prometheus --------------------------------------------------------------------------------------------------------------


def scraped(exporter):
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=20) as response:
        return response.read().decode()


def values(page, name, **labels):
    """The values of the samples of a name whose labels hold these."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]


@pytest.fixture
def page():
    exporter = PrometheusExporter(port=0)
    monitor.export_to(exporter)

    def read():
        assert monitor.flush_exports()
        return scraped(exporter)

    return read


def test_the_page_counts_calls_hits_tokens_and_errors(page, service):
    with client(service) as asker:
        answer = list(asker.stream_text(MODEL, "Hello"))[-1].completion
        asker.generate_text(MODEL, "Hello")
        with pytest.raises(tk.errors.NotFoundError):
            asker.generate_text("openai_compatible/nowhere", "Hello")
    monitor.error_tracker.track_error(ValueError("mine"))
    found = page()
    assert values(found, "toolkit_calls_total", model=MODEL, provenance="live", status="ok") == [1]
    assert values(found, "toolkit_calls_total", provenance="replayed", operation="text", provider="openai_compatible") == [1]
    assert values(found, "toolkit_cache_hits_total", tier="memory") == [1]
    assert values(found, "toolkit_call_errors_total", error_type="NotFoundError", model="openai_compatible/nowhere") == [1]
    assert values(found, "toolkit_tokens_total", type="input") == [11]
    assert values(found, "toolkit_tokens_total", type="output") == [3]
    assert values(found, "toolkit_tracked_errors_total", error_type="ValueError") == [1]
    assert values(found, "toolkit_attempts_total", model=MODEL) == [1]
    assert values(found, "toolkit_call_latency_seconds_sum", model=MODEL) == [pytest.approx(answer.timing.latency_s)]
    assert values(found, "toolkit_time_to_first_token_seconds_sum", model=MODEL) == [pytest.approx(answer.timing.ttft_s)]
    assert values(found, "toolkit_call_duration_seconds_bucket", model=MODEL, le="+Inf") == [1]


def test_promtool_finds_no_fault_with_the_page(page, service):
    with client(service) as asker:
        list(asker.stream_text(MODEL, "Hello"))
        asker.generate_text(MODEL, "Hello")
    monitor.error_tracker.track_error(ValueError("mine"))
    done = subprocess.run(["promtool", "check", "metrics", "--extended"], input=page(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "toolkit_calls_total" in done.stdout


def test_series_are_bounded_and_no_call_is_lost():
    exporter = PrometheusExporter(port=0, models=3)
    monitor.export_to(exporter)
    for number in range(10):
        with pytest.raises(ToolkitError):
            tk.generate_text(f"scripted/model-{number}", "Hello")
    assert monitor.flush_exports()
    found = scraped(exporter)
    assert sum(values(found, "toolkit_calls_total")) == 10
    assert values(found, "toolkit_calls_total", model="other", provider="other") == [7]


def test_a_port_that_is_taken_is_warned_about_and_breaks_nothing(said):
    first = PrometheusExporter(port=0)
    second, taken = PrometheusExporter(port=first.port), first.port
    assert second.port is None
    monitor.export_to(first, second)
    tk.generate_text("scripted/echo", "Hello")
    assert monitor.flush_exports()
    assert values(scraped(first), "toolkit_calls_total") == [1]
    assert any("TOOLKIT_METRICS_PORT" in line for line in said())
    monitor.export_to(second)
    tk.generate_text("scripted/echo", "Hello again", cache=False)
    assert monitor.flush_exports()
    assert second.port == taken, "what is closed lets go of its port, and who waits for it takes it"
    assert values(scraped(second), "toolkit_calls_total") == [2]


def test_the_environment_switches_on_several(monkeypatch, sentry, collector):
    monkeypatch.setenv("TOOLKIT_EXPORTERS", "otel, Sentry,prometheus")
    monkeypatch.setenv("TOOLKIT_METRICS_PORT", "0")
    with pytest.raises(tk.errors.NotFoundError):
        tk.generate_text("scripted/nobody", "Hello")
    assert monitor.flush_exports()
    assert [span["name"] for span in collector.spans()] == ["chat nobody"]
    assert [event["tags"]["llm.model"] for event in sentry.events] == ["nobody"]


def test_a_cell_that_switches_on_twice_keeps_its_page_and_its_counts(monkeypatch, said):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    monkeypatch.setenv("TOOLKIT_METRICS_PORT", str(port))
    for _ in range(2):
        monitor.export_to("prometheus")
        tk.generate_text("scripted/echo", "Hello", cache=False)
    assert monitor.flush_exports()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as response:
        assert values(response.read().decode(), "toolkit_calls_total") == [2]
    assert said() == []


@pytest.mark.parametrize("port", ["http", "70000", "-1"])
def test_what_is_no_port_is_refused(monkeypatch, port):
    monkeypatch.setenv("TOOLKIT_METRICS_PORT", port)
    with pytest.raises(ConfigError, match="TOOLKIT_METRICS_PORT"):
        monitor.export_to("prometheus")


# --- canaries ----------------------------------------------------------------------------------------------------------------


def echoing(service):
    """Answers that repeat key, prompt and more wherever they can."""
    body = {"error": {"message": f"bad prompt: {PROMPT} with {KEY}", "code": KEY, "type": PROMPT}}
    return {**BAD, "repeats the prompt": json_answer(body, 400), "hides it in a stream": Answer(200, {}, [f"data: {PROMPT}\n\n".encode()])}


def test_no_canary_is_in_anything_that_arrived(collector, sentry, said):
    prometheus = PrometheusExporter(port=0)
    monitor.export_to("otel", "sentry", prometheus)
    answers = []
    with Server(lambda _request: answers[-1]) as server:
        options = {
            "api_keys": {"openai_compatible": KEY},
            "base_urls": {"openai_compatible": f"http://user:{KEY}@{server.url[7:]}/v1?key={KEY}"},
        }
        with tk.Client(retry=Retry(attempts=1), cache=False, **options) as asker:
            for answer in echoing(server).values():
                answers.append(answer)
                for ask in (asker.generate_text, lambda *words, ask=asker.stream_text, **more: list(ask(*words, **more))):
                    with pytest.raises(ToolkitError):
                        monitor.with_error_tracking(ask, note=PROMPT)(MODEL, PROMPT, system=PROMPT)
        assert server.requests and any(KEY in value for value in server.requests[0].headers.values()), "the key was never in danger"
    with Server(ChatService(words=(ANSWER, KEY), thoughts=(ANSWER,))) as good, client(good, api_keys={"openai_compatible": KEY}) as asker:
        list(asker.stream_text(MODEL, PROMPT))
        asker.generate_text(MODEL, PROMPT)
    assert monitor.flush_exports()
    arrived = [*collector.bodies(), *sentry.bodies, scraped(prometheus).encode()]
    assert len(collector.spans()) > 40 and len(sentry.events) > 40
    for canary in (KEY, HEAD, PROMPT, ANSWER, "canary-"):
        assert [body for body in arrived if canary.encode() in body] == []
    assert PUBLIC_KEY.encode() not in b"".join(collector.bodies())
