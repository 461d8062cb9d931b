"""One thread that removes expired entries from every cache that somebody still holds."""

from __future__ import annotations

import threading

from ..errors import ConfigError
from .memory import live_caches

__all__ = ["start_cleanup", "stop_cleanup"]


class _Sweeper:
    """A daemon thread with a bell that stops it."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sweep, name="toolkit-cache-cleanup", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not threading.current_thread():  # an on_evict callback may stop the thread it runs in
            self._thread.join()

    def _sweep(self) -> None:
        while not self._stop.wait(self.every_s):
            for cache in live_caches():
                cache.cleanup()


_lock = threading.Lock()
_sweeper: _Sweeper | None = None


def start_cleanup(every_s: float = 60) -> None:
    """Remove expired entries from all caches every so many seconds, in the background.

    Calling it again changes the interval; there is never more than one thread. Caches don't need it to be right, for an expired
    entry is never handed out: it gives memory back early.

    Parameters
    ----------
    every_s : float
        Seconds between two rounds.

    Raises
    ------
    ConfigError
        If ``every_s`` is zero, negative or not a number.

    Examples
    --------
    >>> start_cleanup(every_s=30)
    >>> stop_cleanup()
    """
    global _sweeper
    if isinstance(every_s, bool) or not isinstance(every_s, int | float) or not every_s > 0:
        raise ConfigError(f"every_s must be a number of seconds above zero, not {every_s!r}")
    with _lock:
        if _sweeper is not None and _sweeper.running:
            if _sweeper.every_s == every_s:
                return
            _sweeper.stop()
        _sweeper = _Sweeper(every_s)


def stop_cleanup() -> None:
    """Stop the background cleanup and wait until its thread has ended; does nothing if there is none."""
    global _sweeper
    with _lock:
        sweeper, _sweeper = _sweeper, None
    if sweeper is not None:
        sweeper.stop()
