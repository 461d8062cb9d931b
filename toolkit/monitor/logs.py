"""The logger: five levels, context fields, the last entries in memory; through structlog to the standard library's logging."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import textwrap
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from .. import settings
from ..errors import ConfigError, JournalError, ToolkitError
from ..render import Shown, plain
from .events import LogRecord
from .forks import Locked
from .frames import FrameFunction, TidyTable
from .journal import Journal, open_journal
from .outcomes import process_name
from .redaction import SecretFilter, guard_httpx, message_of, redact, redact_text, stack_of, text_of

if TYPE_CHECKING:
    import structlog

__all__ = ["LEVELS", "LogEntry", "Logger", "logger"]

LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR, "FATAL": logging.CRITICAL}
"""The five levels and their numbers in the standard library, which calls the third WARNING and the last CRITICAL."""

COLORS = {"DEBUG": 36, "INFO": 32, "WARN": 33, "ERROR": 31, "FATAL": 35}  # cyan, green, yellow, red, magenta
KEEP = 1000

Output = Literal["auto", "text", "json", "none"]
_OUTPUTS = ("auto", "text", "json", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(Shown):
    """One line of a log, without secrets.

    Attributes
    ----------
    at : float
        Seconds since 1970 (UTC).
    level : str
        ``DEBUG INFO WARN ERROR FATAL``.
    message : str
        The message alone; the fields are in ``context``.
    error_type, error_message, stack : str or None
        The error that was passed, if any.
    context : dict
        The fields, as plain JSON data.
    """

    at: float
    level: str
    message: str
    error_type: str | None
    error_message: str | None
    stack: str | None
    context: dict[str, Any]  # plain JSON data


Sink = Callable[[LogEntry, BaseException | None], None]
"""Is told each entry, with the error itself, in the thread that logs it."""


class Logger(Locked, Shown):
    """A logger that any handler of the standard library's ``logging`` can listen to, under the name ``toolkit.log``.

    Where nobody listens (no handler of the user's is set up) it writes to the terminal itself, so that nothing is shown twice.
    Secrets are taken out, by the names of fields and by the shape of values, before anybody sees them. A handler that fails does
    not disturb the caller; the first failure is noted in ``entries()``. Fields bound with ``structlog.contextvars.bind_contextvars``
    are added. The standard library's record has the fields as ``record.context``.

    Parameters
    ----------
    name : str
        Name of the logger in the standard library.
    level : str
        The lowest level that counts; ``level`` can be set later too.
    output : str
        ``"auto"`` (lines of text on the terminal where no handler listens), ``"text"`` or ``"json"`` (always, one line an entry; JSON has the
        fields of ``LogEntry``), ``"none"``. ``output`` can be set later too.
    stream : file, optional
        Where to write instead of ``sys.stderr``. Colours are used on a terminal only, and not where ``NO_COLOR`` is set.
    keep : int
        How many entries stay in memory.
    clock : callable
        The time, in seconds since 1970.
    sink : callable, optional
        Is told each entry: ``sink(entry, error)``. That of ``toolkit.monitor.logger`` writes it to the journal.

    Raises
    ------
    ConfigError
        If a level or an output is unknown.

    Examples
    --------
    >>> log = Logger("toolkit.example", output="none")
    >>> log.info("answered", model="scripted/echo", api_key="sk-12345678")
    >>> log.entries()[0].context
    {'model': 'scripted/echo', 'api_key': '[redacted]'}
    """

    def __init__(
        self,
        name: str = "toolkit.log",
        *,
        level: str = "INFO",
        output: Output = "auto",
        stream: TextIO | None = None,
        keep: int = KEEP,
        clock: Callable[[], float] = time.time,
        sink: Sink | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.stream = stream
        self.output = output
        self._clock = clock
        self._sink = sink
        self._entries: deque[LogEntry] = deque(maxlen=keep)
        self._speaking = threading.local()
        self._failed = False
        self._bound: structlog.BoundLoggerBase | None = None
        self._stdlib = logging.getLogger(name)
        self._threshold = number_of(level)

    @property
    def level(self) -> str:
        """The lowest level that counts."""
        return next(name for name, number in LEVELS.items() if number == self._threshold)

    @level.setter
    def level(self, level: str) -> None:
        self._threshold = number_of(level)
        self._stdlib.setLevel(self._threshold)

    @property
    def output(self) -> Output:
        """What is written to the stream: ``auto text json none``."""
        return self._output

    @output.setter
    def output(self, output: Output) -> None:
        if output not in _OUTPUTS:
            raise ConfigError(f"output={output!r}: choose one of {', '.join(_OUTPUTS)}")
        self._output: Output = output

    def debug(self, message: str, /, error: BaseException | None = None, **context: Any) -> None:  # fields of any kind
        """Log what helps to follow the program. ``error`` and fields as for ``error``."""
        self._log("DEBUG", message, error, context)

    def info(self, message: str, /, error: BaseException | None = None, **context: Any) -> None:
        """Log what happened. ``error`` and fields as for ``error``."""
        self._log("INFO", message, error, context)

    def warn(self, message: str, /, error: BaseException | None = None, **context: Any) -> None:
        """Log what should be looked at. ``error`` and fields as for ``error``."""
        self._log("WARN", message, error, context)

    def error(self, message: str, /, error: BaseException | None = None, **context: Any) -> None:
        """Log that something failed.

        Parameters
        ----------
        message : str
            What happened, in words.
        error : exception, optional
            The error; its type, message and stack are kept.
        **context
            Fields of any name and kind. They are made plain JSON data without secrets.
        """
        self._log("ERROR", message, error, context)

    def fatal(self, message: str, /, error: BaseException | None = None, **context: Any) -> None:
        """Log that the program can't go on. ``error`` and fields as for ``error``."""
        self._log("FATAL", message, error, context)

    def entries(self, level: str | None = None, limit: int | None = None) -> list[LogEntry]:
        """Return the entries in memory, oldest first.

        Parameters
        ----------
        level : str, optional
            Only this level and those above.
        limit : int, optional
            Only the newest so many.

        Raises
        ------
        ConfigError
            If the level is unknown, or the limit negative.
        """
        lowest = 0 if level is None else number_of(level)
        if limit is not None and limit < 0:
            raise ConfigError(f"limit={limit}: how many of the newest entries, 0 or more")
        with self._lock:
            found = list(self._entries)
        found = [entry for entry in found if LEVELS[entry.level] >= lowest]
        return found if limit is None else found[max(len(found) - limit, 0) :]

    @property
    def frame(self) -> FrameFunction[[str | None, int | None]]:
        """``frame(level=None, limit=None)`` returns the entries as a pandas frame, ``frame.polars(...)`` as a polars frame.

        Columns: ``at`` (UTC), ``level``, ``message``, ``error_type``, ``error_message``, ``stack``, ``context`` (JSON).
        """
        return FrameFunction(self._table)

    def clear(self) -> None:
        """Forget the entries in memory."""
        with self._lock:
            self._entries.clear()

    def _table(self, level: str | None = None, limit: int | None = None) -> TidyTable:
        found = self.entries(level, limit)
        kinds: dict[str, type] = dict.fromkeys(LogEntry.__slots__, str)
        kinds["at"] = datetime
        columns = {name: [getattr(entry, name) for entry in found] for name in kinds}
        return TidyTable(columns | {"context": [json.dumps(entry.context) for entry in found]}, kinds)

    def _log(self, level: str, message: str, error: BaseException | None, context: dict[str, Any]) -> None:
        if LEVELS[level] < self._threshold:
            return
        bound = self._bound or self._bind()
        bound._proxy_to_logger("log", text_of(message), _level=level, _error=error, _context=context)

    def _bind(self) -> structlog.BoundLoggerBase:
        import structlog  # 30 ms, and only for who logs

        with self._lock:
            if self._bound is None:
                guard_httpx()
                self._stdlib.setLevel(self._threshold)
                self._stdlib.addHandler(_SILENT)
                self._stdlib.addFilter(_WITHOUT_SECRETS)
                self._bound = structlog.wrap_logger(
                    _Ears(self), processors=[structlog.contextvars.merge_contextvars, self._keep], wrapper_class=structlog.BoundLoggerBase
                ).bind()
            return self._bound

    def _keep(self, _ears: Any, _method: str, event: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:  # structlog's types
        """The last processor: the entry, and what is said to the standard library."""
        message, level, error = event.pop("event"), event.pop("_level"), event.pop("_error")
        fields = event.pop("_context")
        entry = LogEntry(
            at=self._clock(),
            level=level,
            message=redact_text(message),
            error_type=None if error is None else type(error).__name__,
            error_message=None if error is None else message_of(error),
            stack=None if error is None else stack_of(error),
            context=redact({**event, **fields}),
        )
        self._remember(entry)
        self._tell_sink(entry, error)
        return (entry, error), {}

    def _remember(self, entry: LogEntry) -> None:
        with self._lock:
            self._entries.append(entry)

    def _tell_sink(self, entry: LogEntry, error: BaseException | None) -> None:
        if self._sink is None:
            return
        try:
            self._sink(entry, error)
        except Exception as failure:  # noqa: BLE001 - a user's callback: whatever it raises must not reach the caller
            self._note_failure(failure)

    def _say(self, entry: LogEntry, error: BaseException | None) -> None:
        """Tell the standard library's handlers and the terminal. What a handler logs in turn is only remembered."""
        if getattr(self._speaking, "now", False) or not self._stdlib.isEnabledFor(LEVELS[entry.level]):
            return
        self._speaking.now = True
        try:
            self._tell_handlers(entry, error)
            self._write(entry)
        except Exception as failure:  # noqa: BLE001 - a user's handler or stream: whatever it raises must not reach the caller
            self._note_failure(failure)
        finally:
            self._speaking.now = False

    def _tell_handlers(self, entry: LogEntry, error: BaseException | None) -> None:
        # The fields are arguments, so that tools which group records by their unformatted message see one group.
        template = entry.message.replace("%", "%%") + "".join(f" {name.replace('%', '%%')}=%s" for name in entry.context)
        arguments = [_shown(value) for value in entry.context.values()]
        message = template if arguments else entry.message
        self._stdlib.log(
            LEVELS[entry.level], message, *arguments, exc_info=error, extra={"context": entry.context}, stacklevel=_FRAMES_TO_CALLER
        )

    def _note_failure(self, failure: Exception) -> None:
        if not self._failed:
            self._failed = True
            facts = {"error_type": type(failure).__name__, "error_message": message_of(failure), "stack": stack_of(failure)}
            self._remember(LogEntry(at=self._clock(), level="ERROR", message="a log handler failed", context={}, **facts))

    def _write(self, entry: LogEntry) -> None:
        if self.output == "none" or (self.output == "auto" and _somebody_listens(self._stdlib)):
            return
        stream = self.stream or sys.stderr
        if stream is None:  # a program without a console
            return
        line = json_line(entry) if self.output == "json" else text_line(entry, color=_wants_color(stream))
        encoding = getattr(stream, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # closed, or its reader has gone
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()

    def __reduce__(self) -> str:
        if self is not logger:
            raise TypeError("a logger of one's own stays in its process; make one in the other")
        return "logger"  # in another process: that process's

    def __repr__(self) -> str:
        return f"<Logger {self.name} {self.level} entries={len(self._entries)}>"

    def _facts(self) -> Mapping[str, object]:
        return {"name": self.name, "level": self.level, "entries": len(self._entries)}


class _Ears:
    """What structlog takes for the logger underneath."""

    def __init__(self, owner: Logger) -> None:
        self._owner = owner

    def log(self, entry: LogEntry, error: BaseException | None) -> None:
        self._owner._say(entry, error)


_FRAMES_TO_CALLER = 7
"""From ``logging``'s call up: _tell_handlers, _say, _Ears.log, structlog, _log, info, and there is the caller."""

_SILENT = logging.NullHandler()
"""Without a handler, logging would print warnings to the terminal a second time."""

_WITHOUT_SECRETS = SecretFilter()


def number_of(level: str) -> int:
    """Return the standard library's number of a level, in any case of letters; WARNING and CRITICAL mean WARN and FATAL."""
    name = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(str(level).upper(), str(level).upper())
    if name not in LEVELS:
        raise ConfigError(f"unknown level {level!r}; known: {', '.join(LEVELS)}")
    return LEVELS[name]


def json_line(entry: LogEntry) -> str:
    """Return an entry as one line of JSON, its time in ISO 8601."""
    return json.dumps(asdict(entry) | {"at": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="microseconds")})


def text_line(entry: LogEntry, *, color: bool = False) -> str:
    """Return an entry as text for a terminal; what follows the first line is indented, so that no message can pose as another entry."""
    clock = datetime.fromtimestamp(entry.at).astimezone().strftime("%H:%M:%S")
    level = f"{entry.level:<5}"
    fields = "".join(f" {name}={_shown(value)}" for name, value in entry.context.items())
    text = plain(f"{entry.message}{fields}" + (f"\n{entry.stack.rstrip()}" if entry.stack else ""))
    shown = f"\x1b[{COLORS[entry.level]}m{level}\x1b[0m" if color else level
    return f"{clock} {shown} " + textwrap.indent(text, "    ")[4:]


def _shown(value: Any) -> str:  # plain JSON data
    if isinstance(value, str) and value and not any(character.isspace() or character in "\"'=" for character in value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _somebody_listens(log: logging.Logger) -> bool:
    """Whether any handler but our silent one gets this logger's records."""
    current: logging.Logger | None = log
    while current is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False


def _wants_color(stream: TextIO) -> bool:
    try:
        return stream.isatty() and settings.variable("NO_COLOR") is None
    except (AttributeError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class _Kept:
    """An entry on its way to the journal, in whose thread it becomes a row."""

    entry: LogEntry
    error_id: str | None

    def rows(self) -> Iterator[LogRecord]:
        entry, context = self.entry, self.entry.context
        ids = {name: str(context[name]) if name in context else None for name in ("call_id", "run_id")}
        yield LogRecord(
            at=entry.at,
            log_id=uuid.uuid4().hex,
            process=process_name(),
            level=entry.level,
            message=entry.message,
            error_id=self.error_id,
            error_type=entry.error_type,
            error_message=entry.error_message,
            stack=entry.stack,
            context=json.dumps(context),
            **ids,
        )


def keep_in_journal(entry: LogEntry, error: BaseException | None) -> None:
    """Put an entry of a level that counts into the journal of the settings, which is made where there is none yet."""
    lowest = settings.journal_level()
    try:
        if lowest != "OFF" and LEVELS[entry.level] >= number_of(lowest):
            journal = _journal_of(settings.variable("TOOLKIT_JOURNAL"), settings.variable("TOOLKIT_HOME"))
            journal.append(_Kept(entry, error.error_id if isinstance(error, ToolkitError) else None))
    except (ConfigError, JournalError) as trouble:
        _warn(str(trouble))


@functools.lru_cache(maxsize=8)
def _warn(trouble: str) -> None:
    """Say once that entries are in memory alone, and why."""
    logging.getLogger("toolkit.journal").warning("entries of the logger are not written to the journal: %s", trouble)


@functools.lru_cache(maxsize=8)
def _journal_of(_journal: str | None, _home: str | None) -> Journal:
    """Return the journal of the settings; finding out where that is takes longer than all else about an entry."""
    return open_journal()


logger = Logger(sink=keep_in_journal)
"""The logger of this process; its entries also go to the journal. Nothing is set up before its first line."""
