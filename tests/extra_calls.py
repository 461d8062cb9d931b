"""Run by the Python of a fresh environment: makes the call that needs each extra, and prints as JSON what came of it.

python extra_calls.py redis fast     # {"redis": "ConfigError: …", "fast": "done"}
"""

import json
import os
import sys

import joblib

import toolkit as tk
from toolkit import cli, defaults

NOBODY = "127.0.0.1:9"  # nothing listens there


def dashboard():
    arguments = ["dashboard", "--address", "192.0.2.1"]  # no machine has this address: a dashboard that is installed does not begin
    cli.show_dashboard(cli.parser().parse_args(arguments))


def notebook():
    tk.playground(["scripted/echo", "scripted/delay"])


def fast():
    ask_server(transport="fast")


def redis():
    with_setting("TOOLKIT_CACHE", f"redis://{NOBODY}", ask)


def postgres():
    with_setting("TOOLKIT_JOURNAL", f"postgresql://{NOBODY}/calls", ask)


def otel():
    with_setting("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{NOBODY}", lambda: tk.monitor.export_to("otel"))


def sentry():
    with_setting("SENTRY_DSN", f"http://key@{NOBODY}/1", lambda: tk.monitor.export_to("sentry"))


def prometheus():
    with_setting("TOOLKIT_METRICS_PORT", "0", lambda: tk.monitor.export_to("prometheus"))


def vertex():
    with_setting("GOOGLE_CLOUD_PROJECT", "a-project", lambda: tk.generate_text("vertex/gemini-2.5-flash", "Hello"))


def schema():
    tk.generate_text("scripted/echo", "[1]", schema=list[int])


def dask():
    joblib.parallel_config(backend="dask")


def ray():
    from ray.util.joblib import register_ray

    register_ray()


def ask():
    tk.generate_text("scripted/echo", "Hello")


def ask_server(**options):
    with tk.Client(base_urls={"openai_compatible": f"http://{NOBODY}/v1"}, retry=tk.Retry(attempts=1), **options) as client:
        client.generate_text("openai_compatible/any", "Hello")


def with_setting(name, value, act):
    defaults.reset()
    os.environ[name] = value
    try:
        act()
    finally:
        del os.environ[name]
        tk.monitor.export_to()
        defaults.reset()


CALLS = {call.__name__: call for call in (dashboard, dask, fast, notebook, otel, postgres, prometheus, ray, redis, schema, sentry, vertex)}


def outcome(call):
    try:
        return f"done: {call()}"
    except Exception as error:  # noqa: BLE001 - it is the result
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    print(json.dumps({name: outcome(CALLS[name]) for name in sys.argv[1:] or CALLS}))
