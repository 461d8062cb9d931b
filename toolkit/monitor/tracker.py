"""The error tracker: what went wrong, how often, since when; errors of one kind are one group."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from ..errors import ConfigError, ProviderError, ToolkitError
from ..render import Shown
from .events import ErrorRecord
from .exporters.switch import tell_error
from .fingerprints import fingerprint
from .forks import Locked
from .frames import FrameFunction, TidyTable
from .journal import opened_journal
from .outcomes import process_name
from .redaction import message_of, redact, stack_of
from .wrapping import watched

__all__ = ["ErrorReport", "ErrorTracker", "Sink", "error_record", "error_tracker", "keep_shown", "pass_on", "with_error_tracking"]

P = ParamSpec("P")
R = TypeVar("R")

KEEP = 1000
_log = logging.getLogger("toolkit.tracker")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport(Shown):
    """One error, without secrets, and what is known of its group.

    Attributes
    ----------
    id : str
        Of this report.
    fingerprint : str
        Of its group: same type, place in the code and message but for its values. Stable over processes and machines.
    type, message, stack : str
        The error's class, its words (at most 2,000 characters) and its traceback with causes (the last 8,000).
    context : dict
        The fields passed, as plain JSON data.
    at : float
        Seconds since 1970 (UTC).
    count : int
        How many errors of the group there were.
    first_seen, last_seen : float
        When the first and the last of the group came, in seconds since 1970.
    """

    id: str
    fingerprint: str
    type: str
    message: str
    stack: str
    context: dict[str, Any]  # plain JSON data
    at: float
    count: int
    first_seen: float
    last_seen: float


Sink = Callable[[ErrorReport, BaseException], None]
"""Is told each report, with the error itself, in the thread that tracks it."""


@dataclass(slots=True)
class _Group:
    count: int
    first_seen: float
    last_seen: float
    newest: ErrorReport | None = None


class ErrorTracker(Locked, Shown):
    """Keeps reports of errors and counts their groups.

    Parameters
    ----------
    sink : callable, optional
        Is told each report: ``sink(report, error)``. One that fails is warned about once and does not disturb the caller.
    keep : int
        How many reports, and how many groups, stay in memory; those not seen for longest go first.
    clock : callable
        The time, in seconds since 1970.

    Examples
    --------
    >>> tracker = ErrorTracker()
    >>> for row in (1, 2):
    ...     try:
    ...         raise ValueError(f"row {row} has no prompt")
    ...     except ValueError as error:
    ...         report = tracker.track_error(error, row=row)
    >>> report.message, report.count, len(tracker.groups())
    ('row 2 has no prompt', 2, 1)
    """

    def __init__(self, sink: Sink | None = None, *, keep: int = KEEP, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._sink = sink
        self._keep = keep
        self._clock = clock
        self._reports: OrderedDict[str, ErrorReport] = OrderedDict()
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self._sink_failed = False

    def track_error(self, error: BaseException, /, **context: Any) -> ErrorReport:  # fields of any kind
        """Keep a report of an error.

        Parameters
        ----------
        error : exception
            The error itself, best inside ``except``: its traceback tells the place.
        **context
            Fields of any name and kind. They are made plain JSON data without secrets.

        Raises
        ------
        ConfigError
            If it is no exception.
        """
        if not isinstance(error, BaseException):
            raise ConfigError(f"track_error takes the exception itself, got {type(error).__name__}")
        report = self._counted(
            ErrorReport(
                id=self._id_of(error),
                fingerprint=fingerprint(error),
                type=type(error).__name__,
                message=message_of(error),
                stack=stack_of(error),
                context=redact(context),
                at=(now := self._clock()),
                count=1,
                first_seen=now,
                last_seen=now,
            )
        )
        _remember_passing(self, error)
        self._tell_sink(report, error)
        return report

    def reports(self) -> list[ErrorReport]:
        """Return the reports in memory, oldest first, each with its group's figures as they are now."""
        with self._lock:
            return [self._current(report) for report in self._reports.values()]

    def groups(self) -> list[ErrorReport]:
        """Return the newest report of each group, the most frequent group first."""
        with self._lock:
            newest = [self._current(group.newest) for group in self._groups.values() if group.newest is not None]
        return sorted(newest, key=lambda report: (-report.count, -report.last_seen))

    def get(self, id: str) -> ErrorReport | None:
        """Return a report by its id; ``None`` where there is none, or no more."""
        with self._lock:
            report = self._reports.get(id)
            return None if report is None else self._current(report)

    @property
    def frame(self) -> FrameFunction[[]]:
        """``frame()`` returns the reports as a pandas frame, ``frame.polars()`` as a polars frame.

        Columns are the fields of ``ErrorReport``: ``at``, ``first_seen`` and ``last_seen`` in UTC, ``context`` as JSON.
        """
        return FrameFunction(self._table)

    def clear(self) -> None:
        """Forget all reports and groups."""
        with self._lock:
            self._reports.clear()
            self._groups.clear()

    def wrap(self, fn: Callable[P, R], **context: Any) -> Callable[P, R]:  # fields of any kind
        """Return the function with its errors tracked, as ``with_error_tracking`` does."""
        return watched(fn, lambda: _Passage(self, context))

    def _table(self) -> TidyTable:
        found = self.reports()
        kinds: dict[str, type] = dict.fromkeys(ErrorReport.__slots__, str)
        kinds |= {"at": datetime, "first_seen": datetime, "last_seen": datetime, "count": int}
        columns = {name: [getattr(report, name) for report in found] for name in kinds}
        return TidyTable(columns | {"context": [json.dumps(report.context) for report in found]}, kinds)

    def _id_of(self, error: BaseException) -> str:
        """An error of ours brings its id, under which the journal may have it too; tracked once more it gets another."""
        if isinstance(error, ToolkitError) and self.get(error.error_id) is None:
            return error.error_id
        return uuid.uuid4().hex

    def _counted(self, report: ErrorReport) -> ErrorReport:
        with self._lock:
            group = self._groups.setdefault(report.fingerprint, _Group(0, report.at, report.at))
            group.count += 1
            group.last_seen = max(group.last_seen, report.at)
            group.newest = report = self._current(report)
            self._groups.move_to_end(report.fingerprint)
            self._reports[report.id] = report
            for kept in (self._reports, self._groups):
                if len(kept) > self._keep:
                    kept.popitem(last=False)
        return report

    def _current(self, report: ErrorReport) -> ErrorReport:
        group = self._groups.get(report.fingerprint)
        if group is None:
            return report
        return replace(report, count=group.count, first_seen=group.first_seen, last_seen=group.last_seen)

    def _tell_sink(self, report: ErrorReport, error: BaseException) -> None:
        if self._sink is None:
            return
        try:
            self._sink(report, error)
        except Exception:  # noqa: BLE001 - a user's callback: whatever it raises must not disturb the work
            if not self._sink_failed:
                self._sink_failed = True
                _log.warning("the sink of an error tracker failed; this is said once", exc_info=True)

    def __reduce__(self) -> str:
        if self is not error_tracker:
            raise TypeError("an error tracker of one's own stays in its process; make one in the other")
        return "error_tracker"  # in another process: that process's

    def __repr__(self) -> str:
        return f"<ErrorTracker reports={len(self._reports)} groups={len(self._groups)}>"

    def _facts(self) -> Mapping[str, object]:
        return {"reports": len(self._reports), "groups": len(self._groups)}


def error_record(report: ErrorReport) -> ErrorRecord:
    """Return a report as a row of the journal; ``call_id`` and ``run_id`` come from the context, if they are there."""
    ids = {name: str(report.context[name]) if name in report.context else None for name in ("call_id", "run_id")}
    return ErrorRecord(
        at=report.at,
        error_id=report.id,
        process=process_name(),
        type=report.type,
        fingerprint=report.fingerprint,
        message=report.message,
        stack=report.stack,
        context=json.dumps(report.context),
        **ids,
    )


def pass_on(report: ErrorReport, error: BaseException) -> None:
    """Tell the exporters of a report, and the journal of the settings where this process has it open; a tracker never makes one.

    An error of a call is left out: the client has recorded it with its call.
    """
    if isinstance(error, ProviderError):
        return
    record = error_record(report)
    journal = opened_journal()
    if journal is not None:
        journal.append(record)
    tell_error(record)


def keep_shown(error: ToolkitError) -> None:
    """Track an error that a notebook shows, unless it is tracked already: its id has to lead somewhere."""
    if error_tracker.get(error.error_id) is None:
        error_tracker.track_error(error)


# Errors on their way up through tracked functions, with who has reported them: each is reported once.
_Passing = deque[tuple[ErrorTracker, BaseException]]
_passing: ContextVar[_Passing | None] = ContextVar("toolkit_errors_passing", default=None)


def _remember_passing(tracker: ErrorTracker, error: BaseException) -> None:
    passing = _passing.get()
    if passing is not None:
        passing.append((tracker, error))


class _Passage:
    """A watch on one call of a tracked function."""

    __slots__ = ("_context", "_token", "_tracker")

    def __init__(self, tracker: ErrorTracker, context: dict[str, Any]) -> None:
        self._tracker = tracker
        self._context = context
        self._token: Token[_Passing | None] | None = None

    def __enter__(self) -> None:
        # Only the outermost function holds the list, so that no error outlives its way. It is short: a task begun inside shares it.
        self._token = _passing.set(deque(maxlen=8)) if _passing.get() is None else None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        try:
            if isinstance(error, Exception) and not self._reported(error):
                self._tracker.track_error(error, **self._context)
        finally:
            if self._token is not None:
                _passing.reset(self._token)

    def end(self) -> None:
        """Nothing is left to do."""

    def _reported(self, error: Exception) -> bool:
        return any(tracker is self._tracker and passed is error for tracker, passed in _passing.get() or ())


error_tracker = ErrorTracker(pass_on)
"""The error tracker of this process; its reports also go to the journal, where one is open, and to the exporters."""


@overload
def with_error_tracking(fn: Callable[P, R], /, **context: Any) -> Callable[P, R]: ...
@overload
def with_error_tracking(fn: None = None, /, **context: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def with_error_tracking(fn: Callable[P, R] | None = None, /, **context: Any) -> Any:  # see the overloads
    """Track the errors of a function with ``toolkit.monitor.error_tracker``; they go on to the caller as they are.

    Functions, coroutine functions, generators and async generators stay what they are. An error on its way through several tracked
    functions is reported once, by the innermost. Cancellation and interrupts are no errors.

    Parameters
    ----------
    fn : callable, optional
        The function; without it a decorator is returned.
    **context
        Fields for the reports.

    Examples
    --------
    >>> @with_error_tracking(stage="read")
    ... def read(row):
    ...     return 1 / row
    >>> read(0)
    Traceback (most recent call last):
        ...
    ZeroDivisionError: division by zero
    >>> error_tracker.reports()[-1].context
    {'stage': 'read'}
    """
    if fn is None:
        return lambda found: error_tracker.wrap(found, **context)
    return error_tracker.wrap(fn, **context)
