"""Where a journal is: a SQLite file or a PostgreSQL server, told from its URL. A password is never shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from ... import settings
from ...errors import JournalError

__all__ = ["Address", "FileAddress", "ServerAddress", "read_address", "shown_url"]

UNDERSTOOD = "a path, sqlite:///path, or postgresql://user@host:5432/database?schema=toolkit"
DEFAULT_SCHEMA = "toolkit"


@dataclass(frozen=True, slots=True)
class FileAddress:
    """A SQLite file; its archive is the folder beside it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def archive(self) -> Path:
        """The folder of old days."""
        return self.path.with_name(f"{self.path.name}.archive")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A schema in a PostgreSQL database. ``conninfo`` is for libpq alone: it may hold a password."""

    conninfo: str = field(repr=False)
    shown: str
    schema: str
    chosen_archive: Path | None = None

    def __str__(self) -> str:
        return self.shown

    @property
    def archive(self) -> Path:
        """The folder of old days: what ``archive=`` in the URL says, or one in ``TOOLKIT_HOME``."""
        return self.chosen_archive or settings.home() / "archive" / re.sub(r"[^\w.-]+", "-", _without_user(self.shown)).strip("-")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen in a message."""
        parts = urlsplit(self.conninfo)
        named = [value for name, value in parse_qsl(parts.query) if name in ("password", "sslpassword")]
        return tuple(filter(None, (parts.password, unquote(parts.password or ""), *named)))


Address = FileAddress | ServerAddress


def read_address(url: str | os.PathLike[str]) -> Address:
    """Return what a journal's URL means.

    Raises
    ------
    JournalError
        If it means nothing; the message lists what is understood, and never repeats the URL: it may hold a password.

    Examples
    --------
    >>> print(read_address("postgresql://me:secret@db.example/toolkit"))
    postgresql://me@db.example/toolkit?schema=toolkit
    """
    text = os.fspath(url)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return FileAddress(Path(text).expanduser().absolute())
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return FileAddress(Path(unquote(rest[1:] if os.name == "nt" else rest)))
    if scheme in ("postgresql", "postgres"):
        return _read_server(text)
    raise JournalError(f"a journal's address beginning with {_scheme_shown(scheme)}:// is not understood; TOOLKIT_JOURNAL is {UNDERSTOOD}")


def shown_url(url: str | os.PathLike[str]) -> str:
    """Return a journal's URL as it may be shown: without a password; what can't be read is named by its beginning alone."""
    try:
        return str(read_address(url))
    except JournalError:
        return f"{_scheme_shown(os.fspath(url).partition('://')[0])}://…"


def _scheme_shown(scheme: str) -> str:
    return scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,20}", scheme) else "…"


def _read_server(url: str) -> ServerAddress:
    parts = _split(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema, archive = options.pop("schema", DEFAULT_SCHEMA), options.pop("archive", None)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise JournalError(f"schema={schema!r} in a journal's address: lower-case letters, digits and _ are understood")
    conninfo = parts._replace(scheme="postgresql", query=urlencode(options)).geturl()
    open_options = {name: value for name, value in options.items() if name in ("host", "port", "dbname", "sslmode")}
    shown = parts._replace(
        scheme="postgresql", netloc=_without_password(parts), query=urlencode(open_options | {"schema": schema}, safe="/"), fragment=""
    )
    return ServerAddress(conninfo, shown.geturl(), schema, Path(archive).expanduser().absolute() if archive else None)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read on demand, and then checked
    except ValueError:
        parts = None
    if parts is None or parts.fragment or re.search(r"\s", url):
        raise JournalError(
            f"the journal's postgresql:// address can't be read (a password with # / ? @ needs %-codes); TOOLKIT_JOURNAL is {UNDERSTOOD}"
        ) from None  # the reason could quote a part of the password
    return parts


def _without_password(parts: SplitResult) -> str:
    userinfo, at, host = parts.netloc.rpartition("@")
    return f"{userinfo.partition(':')[0]}{at}{host}"


def _without_user(shown: str) -> str:
    _, _, rest = shown.partition("://")
    before, slash, after = rest.partition("/")
    return before.rpartition("@")[2] + slash + after
