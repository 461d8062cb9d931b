"""Marks in the journal: moments that charts over time show as a line, such as a deployment or a new prompt."""

from __future__ import annotations

import os
import time
import uuid
from datetime import datetime

from .. import settings
from ..errors import ConfigError, JournalError
from .events import LogRecord
from .frames import moment
from .journal import open_journal, shown_url
from .outcomes import process_name
from .redaction import redact_text

__all__ = ["MARK", "MOST_CHARS", "annotate"]

MARK = '{"annotation": true}'
"""The context of an entry of the log that is a mark."""

MOST_CHARS = 200


def annotate(text: str, *, at: datetime | str | None = None, journal: str | os.PathLike[str] | None = None) -> None:
    """Mark a moment in the journal: the dashboard's charts over time draw a line there, with the text.

    The mark is an entry of the log, whatever ``TOOLKIT_JOURNAL_LEVEL`` says, and on disk when this returns. ``toolkit annotate TEXT`` does
    the same from a shell.

    Parameters
    ----------
    text : str
        What happened, 200 characters at most. Secrets are taken out.
    at : datetime with a zone, or str, optional
        When, or how long ago, such as ``"15min"``; now by default.
    journal : path or str, optional
        Which journal, by default that of the settings.

    Raises
    ------
    ConfigError
        If the text is empty or too long, or ``at`` has no zone or can't be understood.
    JournalError
        If the journal can't be written.

    Examples
    --------
    >>> from toolkit import monitor
    >>> monitor.annotate("the new system prompt is live")
    >>> monitor.log_entries("1min")["message"].iloc[-1]
    'the new system prompt is live'
    """
    said = " ".join(text.split())
    if not 0 < len(said) <= MOST_CHARS:
        raise ConfigError(f"an annotation has 1 to {MOST_CHARS} characters, this one {len(said)}")
    found = moment(at, "at")
    row = LogRecord(
        at=time.time() if found is None else found,
        log_id=uuid.uuid4().hex,
        call_id=None,
        run_id=None,
        process=process_name(),
        level="INFO",
        message=redact_text(said),
        error_id=None,
        error_type=None,
        error_message=None,
        stack=None,
        context=MARK,
    )
    kept = open_journal(journal)
    kept.append(row)
    if not kept.flush():
        raise JournalError(
            f"the annotation is not in the journal {shown_url(journal or settings.journal_url())}; `toolkit journal check` says what is wrong with it"
        )
