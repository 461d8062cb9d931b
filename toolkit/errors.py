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
from typing import Any

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
    "StreamInterrupted",
    "ToolkitError",
    "UnreachableError",
    "from_status",
]


class ToolkitError(Exception):
    """Base of every error raised on purpose by the toolkit."""


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
