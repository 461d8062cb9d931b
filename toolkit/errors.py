"""Everything the toolkit raises on purpose, as one tree.

ToolkitError
  ConfigError                the caller can fix it: a missing key, an unknown provider, a bad column
  ProviderError              .provider .model .status .request_id .retryable .retry_after .partial
    UnreachableError         no answer at all: refused, reset, no such host                   retryable
    ProviderTimeoutError     the time limit passed                                            retryable
    RateLimitError           429                                                              retryable
    ServerError              5xx, or an error inside a 200 stream                             retryable
    AuthError                401, 403                                                         not
    RequestError             400, 413, 422 and other 4xx                                      not
    NotFoundError            404: the model or the route                                      not
    ContentFilterError       the service refused the content                                  not
    ReplyError               an answer that can't be read, or an empty one                    not
    StreamInterrupted        the stream broke off; .partial holds what had arrived            until its first event
  CacheError                 raised only on request; a broken tier is skipped with a warning
    CacheMiss                cache="only" and no answer kept
  JournalError               raised only on request, or when a journal can't be read
  BudgetExceeded             the next call could cost more than is left
"""

from __future__ import annotations

import copyreg
import re
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from .hints import NEXT_STEPS
from .render import plain

__all__ = [
    "AuthError",
    "BudgetExceeded",
    "CacheError",
    "CacheMiss",
    "ConfigError",
    "ContentFilterError",
    "JournalError",
    "NotFoundError",
    "ProviderError",
    "ProviderTimeoutError",
    "RateLimitError",
    "ReplyError",
    "RequestError",
    "ServerError",
    "Stack",
    "StreamInterrupted",
    "ToolkitError",
    "UnreachableError",
    "from_status",
    "when_shown",
]


def forget_locals(error: BaseException) -> None:
    """Empty the finished frames that an error and its causes came through; where it happened stays readable.

    Debuggers, rich tracebacks and Sentry show local variables, and those of whoever builds a request, checks
    a key or reads an answer that repeats it are secrets.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            traceback.clear_frames(each.__traceback__)


class Stack(str):
    """A traceback as text. It shows itself line by line, so the last expression of a cell is enough to read it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ToolkitError(Exception):
    """Base of every error raised on purpose by the toolkit.

    In a notebook it shows as a few lines: what went wrong, the cause, the next step, and an id under which ``toolkit.monitor`` has it.
    """

    @property
    def error_id(self) -> str:
        """The id of this error in the journal and in the error tracker; the same however often it is asked for."""
        found: str = self.__dict__.setdefault("_error_id", uuid.uuid4().hex)  # one step: the journal's thread asks too
        return found

    def trace(self) -> Stack:
        """Return the whole stack, with causes.

        Examples
        --------
        >>> try:
        ...     raise ConfigError("no such column")
        ... except ConfigError as error:
        ...     print(error.trace())
        Traceback (most recent call last):
          ...
        toolkit.errors.ConfigError: no such column
        """
        return Stack("".join(traceback.format_exception(self)).rstrip())

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.__dict__.pop("_error_id", None)  # the copy is raised elsewhere, and recorded there
        return twin

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the stack."""
        for listener in _listeners:
            listener(self)
        return shown_in_cell(self)


class ConfigError(ToolkitError):
    """A setting or an argument is missing or makes no sense; the message says what to do."""


class ProviderError(ToolkitError):
    """A provider did not give a usable answer.

    Attributes
    ----------
    provider, model : str or None
        Who was asked, and for which model (the provider's own name of it).
    status : int or None
        HTTP status, where there was one.
    request_id : str or None
        The service's own id of the request, for its support.
    retryable : bool
        Whether asking again can help.
    retry_after : float or None
        Seconds the service asked us to wait.
    partial : str
        The text that had arrived before the error.
    attempts : int
        How many times the call was tried.
    emitted : bool
        Whether the reader of a stream had been given something before the error.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        partial: str = "",
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.partial = partial
        self.attempts = 0
        self.emitted = False
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> Any:
        # The default calls cls(*args) and would lose the keyword arguments; worse, it breaks process pools.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class UnreachableError(ProviderError):
    """No answer at all: the connection was refused or lost, or the host is unknown."""

    retryable = True


class ProviderTimeoutError(ProviderError):
    """The time limit of the call passed."""

    retryable = True


class RateLimitError(ProviderError):
    """The service asked us to slow down (429)."""

    retryable = True


class ServerError(ProviderError):
    """The service failed (5xx), or reported an error inside a stream it had begun with status 200."""

    retryable = True


class AuthError(ProviderError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""


class RequestError(ProviderError):
    """The service refused the request as it stands (400, 413, 422 and other 4xx)."""


class NotFoundError(ProviderError):
    """The model or the route is unknown to the service (404)."""


class ContentFilterError(ProviderError):
    """The service refused the prompt or the answer for its content."""


class ReplyError(ProviderError):
    """The answer could not be read, or was empty."""


class StreamInterrupted(ProviderError):  # noqa: N818 - the contract's name
    """The stream ended before the answer did; ``partial`` holds the text that had arrived."""

    retryable = True


class CacheError(ToolkitError):
    """A cache could not do what was asked."""


class CacheMiss(CacheError):  # noqa: N818 - the contract's name
    """``cache="only"`` was asked for and no answer is kept."""


class JournalError(ToolkitError):
    """A journal could not be opened, read or written."""


class BudgetExceeded(ToolkitError):  # noqa: N818 - the contract's name
    """The next call could cost more than is left of the budget."""


_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthError,
    403: AuthError,
    404: NotFoundError,
    408: ProviderTimeoutError,
    429: RateLimitError,
    504: ProviderTimeoutError,
}
_RETRYABLE_REQUEST_ERRORS = {409, 425}


def from_status(
    status: int,
    message: str,
    *,
    provider: str | None = None,
    model: str | None = None,
    request_id: str | None = None,
    retryable: bool | None = None,
    retry_after: float | None = None,
) -> ProviderError:
    """Return the error that an HTTP status stands for (not raised)."""
    kind = _BY_STATUS.get(status) or (ServerError if status >= 500 else RequestError)
    if retryable is None and status in _RETRYABLE_REQUEST_ERRORS:
        retryable = True
    return kind(message, provider=provider, model=model, status=status, request_id=request_id, retryable=retryable, retry_after=retry_after)


_listeners: list[Callable[[ToolkitError], object]] = []


def when_shown(listener: Callable[[ToolkitError], object]) -> None:
    """Have a function told of each error of ours that a notebook shows."""
    _listeners.append(listener)


def shown_in_cell(error: ToolkitError) -> list[str]:
    """What a person needs to go on, line by line: the message, the place, the cause, the next step, the id."""
    facts = {"at": place(error), "cause": cause(error), "next": hint(error), "id": error.error_id}
    lines = [f"  {name + ':':<7}{plain(fact)}" for name, fact in facts.items() if fact]
    return [f"{type(error).__name__}: {plain(str(error))}", *lines, "  stack: import sys; sys.last_value.trace()"]


def cause(error: BaseException) -> str | None:
    """The error at the bottom, where there is another one."""
    chain = [error]
    while (below := below_of(chain[-1])) is not None and below not in chain:
        chain.append(below)
    return f"{type(chain[-1]).__name__}: {chain[-1]}".rstrip(": ") if len(chain) > 1 else None


def below_of(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def hint(error: ToolkitError) -> str | None:
    return next((NEXT_STEPS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in NEXT_STEPS), None)


def place(error: BaseException) -> str | None:
    """The last line of the user's own on the way to the error."""
    others = ("site-packages", "dist-packages", str(Path(__file__).parent))
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.line and not any(part in frame.filename for part in others)
    ]
    if not own:
        return None
    file = "" if re.search(r"^<|ipykernel_\d+", own[-1].filename) else f" of {Path(own[-1].filename).name}"
    return f"line {own[-1].lineno}{file}: {own[-1].line}"
