"""Whether services answer, and whether what the pages show is fresh and whole."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version

import polars as pl
import streamlit as st

from dashboard import data, views, words
from dashboard.page import ask, header, nothing_here, panel, shown, table
from toolkit import settings
from toolkit.monitor.journal import shown_url

PACKAGES = ("model-comparison-toolkit", "streamlit", "polars", "pandas", "plotly", "httpx")


def providers() -> None:
    found = ask(views.provider_health)
    now_s = time.time()

    def ages(column: str) -> list[str | None]:
        return [None if at is None else f"{words.age(now_s - at)} ago" for at in found[column]]

    drawn = found.select(
        "provider",
        "state",
        "models",
        pl.col("asked").alias("calls asked"),
        pl.col("failed"),
        (100 * pl.col("error_share")).round_sig_figs(3).alias("failed (%)"),
        pl.Series("newest answer", ages("answered_s"), dtype=pl.String),
        pl.Series("newest failure", ages("failed_s"), dtype=pl.String),
    )
    counts = {name: st.column_config.NumberColumn(format="localized") for name in ("models", "calls asked", "failed")}
    table(drawn, "providers", "Providers: whether the newest call was answered, how many were asked and failed", counts)
    st.caption(
        "What the calls of the window say; this page asks nobody. A provider fails where its newest call did. `toolkit doctor` asks each of them now, "
        "and says what to do."
    )


def source() -> None:
    began = time.perf_counter()
    known = data.refresh()
    took_s = time.perf_counter() - began
    newest = shown().newest_s
    facts = {
        "journal": shown_url(data.journal()),
        "rows": f"{words.count(known.rows)}, of which {words.count(data.archived_rows())} in the archive",
        "newest call": f"{words.age(time.time() - newest)} old" if newest else "none yet",
        "a look for new rows": f"took {words.duration(took_s)}",
        "alert rules": alert_rules(),
    }
    table(pl.DataFrame({"what": list(facts), "is": list(facts.values())}), "source", "The journal, the alert rules and the versions")
    st.caption("`toolkit journal check` says whether the journal is whole.")
    st.text(" · ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]))


def alert_rules() -> str:
    rules, firing = data.alert_rules(), data.alerts_firing()
    if not rules:
        return f"none in {settings.alerts_file()}"
    return f"{words.plural(len(rules), 'rule')}, {len(firing)} of them firing"


header("Health")
if not nothing_here():
    with panel("Providers"):
        providers()
with panel("What these pages read"):
    source()
