"""Rules that stop a comparison: see ``run.Rule``."""

from __future__ import annotations

from collections import Counter

from ..errors import ConfigError
from .run import Run

__all__ = ["ErrorRate"]


class ErrorRate:
    """Stops a run when more than a share of a model's calls has failed.

    Parameters
    ----------
    limit : float
        From 0 (one failure is too many) to 1.

    Raises
    ------
    ConfigError
        If it is no share.

    Notes
    -----
    A model is looked at from its tenth call on: the first of four may fail by chance. Retries are not failures; a call fails when its
    last attempt has.
    """

    MIN_CALLS = 10

    def __init__(self, limit: float) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit <= 1:
            raise ConfigError(f"max_error_rate={limit!r}: it is a share of the calls, from 0 to 1")
        self.limit = limit
        self._seen = 0
        self._calls: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def __call__(self, run: Run) -> str | None:
        fresh = run.rows[self._seen :]
        self._seen += len(fresh)
        for row in fresh:
            self._calls[row.label] += 1
            self._failed[row.label] += row.status != "ok"
        for label in dict.fromkeys(row.label for row in fresh):
            failed, calls = self._failed[label], self._calls[label]
            if calls >= self.MIN_CALLS and failed > self.limit * calls:
                return f"{failed} of {calls} calls of {label} failed, more than max_error_rate={self.limit:g} allows"
        return None
