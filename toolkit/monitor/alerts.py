"""Rules that say when somebody should look: thresholds and burn rates from a TOML file, judged on counts of calls.

Burn rates are those of Google's "The Site Reliability Workbook" (2018), chapter 5: with an objective of 99 %, failing 1 % of the calls burns
the error budget at a rate of 1. A rule fires where a long window and a short one both burn faster than its factor: the long one says that
it matters, the short one that it still goes on.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import stats
from ..errors import ConfigError
from .journal import JournalReader

__all__ = ["METRICS", "Alert", "BurnRate", "Rule", "Span", "Tally", "Threshold", "firing", "journal_tally", "read_rules", "tally_of"]

METRICS = ("error_share", "hit_share", "p50_s", "p95_s", "p99_s", "calls_per_minute", "cost_per_hour_usd")
BURNS = ((14.4, 3600.0, 300.0), (6.0, 21_600.0, 1800.0), (1.0, 259_200.0, 21_600.0))
"""Factor, long window and short window in seconds: 2 % of a month's budget in an hour, 5 % in six hours, 10 % in three days."""

_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d)\s*")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_LEVELS = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Fires where a metric of the last ``over_s`` seconds lies above or below a limit, over ``min_calls`` calls or more."""

    name: str
    metric: str
    over_s: float
    above: float | None = None
    below: float | None = None
    provider: str | None = None
    model: str | None = None
    min_calls: int = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BurnRate:
    """Fires where failures use up an error budget too fast; ``objective`` is the share of calls that should succeed."""

    name: str
    objective: float
    provider: str | None = None
    model: str | None = None
    min_calls: int = 20


Rule = Threshold | BurnRate


class Span(NamedTuple):
    """Which calls a rule is about: ``lo_s <= at < hi_s``, of one provider or model where it names one."""

    lo_s: float
    hi_s: float
    provider: str | None = None
    model: str | None = None


class Tally(NamedTuple):
    """Calls in numbers. ``ended`` are those that succeeded or failed; ``percentile`` is of live calls' latency, NaN where there are too few."""

    ended: int
    failed: int
    live: int
    replayed: int
    cost_usd: float
    percentile: Callable[[float], float]


class Alert(NamedTuple):
    """A rule that fires, and a sentence on why."""

    name: str
    message: str


def read_rules(path: Path) -> list[Rule]:
    """Read the rules of a TOML file; a file that is not there has none.

    Parameters
    ----------
    path : pathlib.Path
        Tables ``[[threshold]]`` (``name metric over`` and ``above`` or ``below``) and ``[[burn_rate]]`` (``name objective``), both with
        ``provider``, ``model`` and ``min_calls`` if wanted.

    Returns
    -------
    list of Threshold and BurnRate

    Raises
    ------
    ConfigError
        If the file can't be read or a rule is not understood; the message names the file and the rule.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "alerts.toml")
    ...     _ = file.write_text('[[threshold]]\\nname = "slow"\\nmetric = "p95_s"\\nabove = 5\\nover = "15min"')
    ...     [rule] = read_rules(file)
    >>> rule.metric, rule.above, rule.over_s
    ('p95_s', 5.0, 900.0)
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return []
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the alert rules in {path}: {error}") from error
    kinds: dict[str, Callable[[str, Mapping[str, Any]], Rule]] = {"threshold": _read_threshold, "burn_rate": _read_burn_rate}
    if unknown := [name for name in found if name not in kinds]:
        raise ConfigError(f"{path}: {unknown[0]!r} is not understood; rules are tables [[threshold]] and [[burn_rate]]")
    rules: list[Rule] = []
    for kind, read in kinds.items():
        tables = found.get(kind, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ConfigError(f"{path}: write each rule as a table of its own, [[{kind}]] with two brackets")
        for number, table in enumerate(tables, 1):
            where = f"{path}: {kind} {table.get('name', number)!r}"
            rules.append(read(where, table))
    return rules


def _read_threshold(where: str, table: Mapping[str, Any]) -> Threshold:
    _known(where, table, {"name", "metric", "over", "above", "below", "provider", "model", "min_calls"})
    metric = _text(where, table, "metric")
    if metric not in METRICS:
        raise ConfigError(f"{where}: unknown metric {metric!r}; known: {', '.join(METRICS)}")
    if ("above" in table) == ("below" in table):
        raise ConfigError(f"{where}: give a limit, either above = … or below = …")
    above, below = (_number(where, table, side) if side in table else None for side in ("above", "below"))
    return Threshold(metric=metric, over_s=_seconds(where, _text(where, table, "over")), above=above, below=below, **_scope(where, table))


def _read_burn_rate(where: str, table: Mapping[str, Any]) -> BurnRate:
    _known(where, table, {"name", "objective", "provider", "model", "min_calls"})
    objective = _number(where, table, "objective")
    if not 0 < objective < 1:
        raise ConfigError(f"{where}: objective is the share of calls that should succeed, between 0 and 1 (0.99), got {objective:g}")
    return BurnRate(objective=objective, **_scope(where, table))


def _scope(where: str, table: Mapping[str, Any]) -> dict[str, Any]:  # the fields that both kinds of rule have
    scope: dict[str, Any] = {"name": _text(where, table, "name")}
    scope |= {field: _text(where, table, field) for field in ("provider", "model") if field in table}
    if "min_calls" in table:
        scope["min_calls"] = max(1, round(_number(where, table, "min_calls")))
    return scope


def _known(where: str, table: Mapping[str, Any], fields: set[str]) -> None:
    if unknown := sorted(table.keys() - fields):
        raise ConfigError(f"{where}: no field {unknown[0]!r}; there are {', '.join(sorted(fields))}")


def _text(where: str, table: Mapping[str, Any], field: str) -> str:
    value = table.get(field)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {field} is missing or not a text in quotes")
    return value


def _number(where: str, table: Mapping[str, Any], field: str) -> float:
    value = table.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: {field} is missing or not a number")
    return float(value)


def _seconds(where: str, text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None or not float(found[1]):
        raise ConfigError(f"{where}: over = {text!r} is not understood: write '15min', '6h' or '3d'")
    return float(found[1]) * _SECONDS[found[2]]


# Judging


def firing(rules: Sequence[Rule], ask: Callable[[Span], Tally], now_s: float) -> list[Alert]:
    """Return the rules that fire now; ``ask`` counts the calls of a span.

    Examples
    --------
    >>> def ask(span):
    ...     return Tally(ended=200, failed=50, live=150, replayed=0, cost_usd=1.0, percentile=lambda q: 0.5)
    >>> firing([BurnRate(name="errors", objective=0.99)], ask, 1_000_000.0)[0].message
    '25 % of 200 calls failed in the last 1 h, and 25 % of 200 in the last 5 min: 25 times what an objective of 99 % allows'
    """
    found = (_exceeded(rule, ask, now_s) if isinstance(rule, Threshold) else _burning(rule, ask, now_s) for rule in rules)
    return [alert for alert in found if alert is not None]


def _exceeded(rule: Threshold, ask: Callable[[Span], Tally], now_s: float) -> Alert | None:
    tally = ask(Span(now_s - rule.over_s, now_s, rule.provider, rule.model))
    n, value = _measured(rule.metric, tally, rule.over_s)
    # A rate may be low because there are few calls: that is no reason to keep quiet.
    enough = n >= rule.min_calls or (rule.metric == "calls_per_minute" and rule.below is not None)
    if not enough or math.isnan(value):
        return None
    above, below = rule.above is not None and value > rule.above, rule.below is not None and value < rule.below
    if not (above or below):
        return None
    side, limit = ("above", rule.above) if above else ("below", rule.below)
    of = f" of {rule.model or rule.provider}" if rule.model or rule.provider else ""
    return Alert(rule.name, f"{rule.metric}{of} is {value:.3g}, {side} {limit:.3g}, over the last {_said(rule.over_s)} (n = {n})")


def _measured(metric: str, tally: Tally, over_s: float) -> tuple[int, float]:
    """Return how many calls a metric rests on, and its value."""
    calls, answered = tally.ended, tally.live + tally.replayed
    if metric in _LEVELS:
        return tally.live, tally.percentile(_LEVELS[metric])
    if metric == "hit_share":
        return answered, tally.replayed / answered if answered else math.nan
    if metric == "error_share":
        return calls, tally.failed / calls if calls else math.nan
    return calls, (calls * 60 if metric == "calls_per_minute" else tally.cost_usd * 3600) / over_s


def _burning(rule: BurnRate, ask: Callable[[Span], Tally], now_s: float) -> Alert | None:
    budget = 1 - rule.objective
    for factor, long_s, short_s in BURNS:
        long, short = (ask(Span(now_s - width_s, now_s, rule.provider, rule.model)) for width_s in (long_s, short_s))
        if long.ended >= rule.min_calls and short.ended and all(part.failed / part.ended > factor * budget for part in (long, short)):
            times = long.failed / long.ended / budget
            of = f" of {rule.model or rule.provider}" if rule.model or rule.provider else ""
            return Alert(
                rule.name,
                f"{100 * long.failed / long.ended:.3g} % of {long.ended:,} calls{of} failed in the last {_said(long_s)}, and "
                f"{100 * short.failed / short.ended:.3g} % of {short.ended:,} in the last {_said(short_s)}: {times:.3g} times what an objective of "
                f"{100 * rule.objective:g} % allows",
            )
    return None


def _said(seconds: float) -> str:
    unit = next(unit for unit in ("d", "h", "min", "s") if seconds % _SECONDS[unit] == 0 or unit == "s")
    return f"{seconds / _SECONDS[unit]:g} {unit}"


# Counting


def tally_of(columns: Mapping[str, Sequence[Any]]) -> Tally:
    """Count calls given as columns ``status provenance latency_s cost_usd``."""
    rows = list(zip(columns["status"], columns["provenance"], columns["latency_s"], columns["cost_usd"]))
    answered = [provenance for status, provenance, _, _ in rows if status == "ok"]
    latencies = [latency for status, provenance, latency, _ in rows if (status, provenance) == ("ok", "live") and latency is not None]
    failed = sum(status == "error" for status, *_ in rows)

    def percentile(q: float) -> float:
        return stats.percentile(latencies, q) if len(latencies) >= stats.percentile_min_n(q) else math.nan

    return Tally(
        ended=failed + len(answered),
        failed=failed,
        live=answered.count("live"),
        replayed=answered.count("replayed"),
        cost_usd=math.fsum(cost for *_, cost in rows if cost is not None),
        percentile=percentile,
    )


_COUNTED = ("at", "provider", "model", "label", "status", "provenance", "latency_s", "cost_usd")


def journal_tally(reader: JournalReader, rules: Sequence[Rule], now_s: float) -> Callable[[Span], Tally]:
    """Read the calls that rules are about, and return a function that counts those of a span."""
    widest_s = max([rule.over_s if isinstance(rule, Threshold) else BURNS[-1][1] for rule in rules], default=0.0)
    columns = reader.calls(since=now_s - widest_s, until=now_s, columns=_COUNTED)
    rows = list(zip(*(columns[name] for name in _COUNTED)))

    def ask(span: Span) -> Tally:
        inside = [row for row in rows if span.lo_s <= row[0] < span.hi_s and _meant(span, *row[1:4])]
        return tally_of(dict(zip(_COUNTED, map(list, zip(*inside)))) if inside else dict.fromkeys(_COUNTED, ()))

    return ask


def _meant(span: Span, provider: str, model: str, label: str) -> bool:
    return span.provider in (None, provider) and (span.model is None or span.model in (model, label))
