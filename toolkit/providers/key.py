"""The key of a provider: a text, or a function that gives one for each request; checked, and kept out of what people read."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

from ..errors import AuthError, ConfigError, forget_locals
from ..monitor.redaction import redact_text

__all__ = ["ApiKey", "KeySource"]

ApiKey = str | Callable[[], str]

REMEMBERED = 8  # tokens last about an hour, so this is more than any call under way can be using
SHORTEST = 4  # what is shorter is no secret, and is found in many a word
HEAD = 8  # what a limit on the length of a message leaves of a key is taken out from this length on


class KeySource:
    """Gives the key to send, and takes every key it knows out of texts.

    Parameters
    ----------
    key : str, callable or None
        The key. A function is called for each request, in whatever thread or event loop makes it, so it should answer from memory
        nearly always, as those of ``azure.identity.get_bearer_token_provider`` do.
    provider : str
        Whose key it is, for messages.

    Raises
    ------
    ConfigError
        If it is nothing that a header can carry; the key itself is not shown.
    """

    __slots__ = ("__weakref__", "_fixed", "_function", "_known", "_provider")

    def __init__(self, key: ApiKey | None, provider: str) -> None:
        self._provider = provider
        self._function = key if callable(key) else None
        self._fixed = None if key is None or callable(key) else self._checked(key) or None
        self._known: tuple[str, ...] = ()
        if self._fixed:
            self.remember(self._fixed)

    def __repr__(self) -> str:
        return f"<KeySource of {self._provider}>"

    def get(self) -> str | None:
        """Return the key to send now.

        Raises
        ------
        AuthError
            If the function that gives it raises.
        ConfigError
            If it gives no usable key.
        """
        if self._function is None:
            return self._fixed
        try:
            key = self._function()
        except Exception as exc:
            self.wash(exc)
            raise AuthError(f"the function that gives the key of {self._provider} failed: {exc}", provider=self._provider) from exc
        key = self._checked(key)
        self.remember(key)
        return key

    def remember(self, key: str) -> None:
        """Take this key out of texts from now on, also where it is got in another way (as tokens of a cloud are)."""
        if key not in self._known:
            self._known = (*self._known[1 - REMEMBERED :], key)
            GUARD.watch(self)

    def _checked(self, key: object) -> str:
        if not isinstance(key, str):
            raise ConfigError(f"the key of {self._provider} is a string or a function that gives one, not {type(key).__name__}")
        key = key.strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the key of {self._provider} holds characters that a header can't carry; was something else copied with it?")
        return key

    def scrub(self, text: str) -> str:
        """Take all keys out of a text, also where a limit on its length cut one off."""
        for key in self._known:
            if len(key) >= SHORTEST:
                text = without(text, key)
        return text

    def wash(self, error: BaseException) -> None:
        """Take all keys, and whatever else looks like a secret, out of a foreign exception and those that it came of.

        Who can't read an answer quotes it, and the answer may repeat the key; who can't read a file of credentials holds on to its text.
        """
        forget_locals(error)
        waiting: list[BaseException | None] = [error]
        seen: set[int] = set()
        while waiting:
            each = waiting.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            if self.clean(repr(each)) != repr(each) or self.clean(str(each)) != str(each):
                each.args = (self.clean(str(each)),)
            for name, value in vars(each).items():
                if isinstance(value, str) and self.clean(value) != value:
                    setattr(each, name, self.clean(value))

    def clean(self, text: str) -> str:
        return redact_text(self.scrub(text))


def without(text: str, key: str) -> str:
    r"""Replace a key in a text, or the beginning of it that is left.

    Examples
    --------
    >>> without("no such key: sk-123456789. Send another than sk-1234567", "sk-123456789")
    'no such key: [key]. Send another than [key]'
    """
    head, tail = key[:HEAD], key[HEAD:]
    before, *pieces = text.split(head)
    return "[key]".join([before, *(piece[alike(piece, tail) :] for piece in pieces)])


def alike(text: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(text, other))
    return next((at for at, (one, two) in pairs if one != two), min(len(text), len(other)))


TRANSPORT_LOGGERS = ("httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")


class LogGuard(logging.Filter):
    """Takes keys out of what the transport logs at DEBUG: it shows the headers of answers, and a service may repeat a key in them."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._sources: weakref.WeakSet[KeySource] = weakref.WeakSet()

    def watch(self, source: KeySource) -> None:
        """Look out for the keys of a source for as long as it lives."""
        with self._lock:
            self._sources.add(source)
        for name in TRANSPORT_LOGGERS:
            logging.getLogger(name).addFilter(self)  # does nothing the second time

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            sources = list(self._sources)
        message = record.getMessage()
        for source in sources:
            message = source.scrub(message)
        record.msg, record.args = message, ()
        return True


GUARD = LogGuard()  # loggers belong to the process, and so does what watches them
