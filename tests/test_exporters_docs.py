"""The page about exporters: every name that is sent is defined, and the examples run."""

import pathlib
import re

import pytest

from toolkit import monitor, settings
from toolkit.monitor.exporters import EXPORTERS
from toolkit.monitor.exporters import opentelemetry as otel
from toolkit.monitor.exporters.prometheus import PrometheusExporter

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "exporters.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAMED = set(re.findall(r"`([\w.]+)`", PAGE))


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page_s_examples_run(code):
    try:
        exec(code, {})
    finally:
        monitor.export_to()


def test_every_attribute_and_metric_of_opentelemetry_is_defined():
    source = pathlib.Path(otel.__file__).read_text()
    sent = set(re.findall(r'"((?:gen_ai|server|error|toolkit)\.[\w.]+)"', source))
    sent |= {f"toolkit.{column}" for column in (*otel.TIMES, "call_id", "provenance", "cost_usd")}
    assert len(sent) > 30
    assert sent - NAMED == {"gen_ai.token.type"} - NAMED


def test_every_metric_and_label_of_prometheus_is_defined():
    exporter = PrometheusExporter(port=0)
    exporter.close()
    defined = {name: labels.split(", ") for name, labels in re.findall(r"^\| `(toolkit_\w+)` \| ([\w, ]+) \|", PAGE, re.MULTILINE)}
    made = exporter.registry._collector_to_names
    assert defined == {metric._name + ("_total" if metric._type == "counter" else ""): list(metric._labelnames) for metric in made}


def test_every_name_and_variable_is_on_the_page():
    assert set(EXPORTERS) <= NAMED
    assert {"TOOLKIT_EXPORTERS", "TOOLKIT_METRICS_PORT"} <= set(re.findall(r"TOOLKIT_\w+", PAGE))
    assert {"TOOLKIT_EXPORTERS", "TOOLKIT_METRICS_PORT"} <= set(re.findall(r"TOOLKIT_\w+", settings.__doc__))
