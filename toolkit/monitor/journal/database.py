"""What the rest of the package asks of a database, and the opening of one by its address."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import JournalError
from ..events import Row
from .address import Address, FileAddress
from .schema import MIGRATIONS, SCHEMA_VERSION
from .tables import BY_NAME, Table

__all__ = ["Database", "changing", "migrate", "open_for_writing", "reading"]


class Database(ABC):
    """An open connection. SQL has ``?`` for values, and names in double quotes."""

    transaction_number: int | None = None
    """The database's number for the last transaction, where there are some: by it another connection can tell how that ended."""

    @abstractmethod
    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    @abstractmethod
    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it concerned."""

    @abstractmethod
    def columns(self, table: str) -> set[str]:
        """Return the columns that a table has; none where there is no table."""

    @abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """One after another with the batches of all writers: row numbers become visible in their order."""

    def has_committed(self, transaction_number: int) -> bool:  # noqa: ARG002 - for databases that have numbers
        """Whether a transaction, whose connection was lost, had been written; a retry would double rows that were archived since."""
        return False

    @abstractmethod
    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows, but for those that are there already."""

    @abstractmethod
    def write(self, rows: Sequence[Row]) -> None:
        """Write a batch: all of it, or nothing and an error."""

    @abstractmethod
    def make_table(self, table: Table) -> None:
        """Make the table, or add the columns that it lacks."""

    @abstractmethod
    def version(self) -> int: ...

    @abstractmethod
    def set_version(self, version: int) -> None: ...

    @abstractmethod
    def replaced(self) -> bool:
        """Whether what was opened can't be found any more under its address."""

    @abstractmethod
    def close(self) -> None: ...


def migrate(db: Database) -> None:
    """Bring a journal to this program's version; within a transaction."""
    for table in BY_NAME.values():
        db.make_table(table)
    before = db.version()
    for version in range(before + 1, SCHEMA_VERSION + 1):
        for statement in MIGRATIONS[version]:
            db.change(statement)
    if before < SCHEMA_VERSION:
        db.set_version(SCHEMA_VERSION)
    db.change("INSERT INTO state (name, value) VALUES ('id', ?), ('removals', '0') ON CONFLICT DO NOTHING", [uuid.uuid4().hex])


def open_for_writing(address: Address) -> Database:
    """Open a journal, made where it is not there yet.

    Raises
    ------
    JournalError, OSError, sqlite3.Error
        If that can't be done now.
    """
    if isinstance(address, FileAddress):
        from .sqlite import open_file

        return open_file(address.path)
    from .postgres import open_server

    return open_server(address)


@contextlib.contextmanager
def reading(address: Address) -> Iterator[Database | None]:
    """Open a journal for a look: all of it as it is at one moment, ``None`` where there is none.

    Raises
    ------
    JournalError
        If it can't be read.
    """
    if isinstance(address, FileAddress):
        from .sqlite import look_into_file

        with look_into_file(address.path) as db:
            yield db
        return
    from .postgres import look_into_server

    with look_into_server(address) as db:
        yield db


@contextlib.contextmanager
def changing(address: Address) -> Iterator[Database]:
    """Open a journal to tidy it up.

    Raises
    ------
    JournalError
        If it can't be read or changed.
    """
    try:
        with contextlib.closing(open_for_writing(address)) as db:
            yield db
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"can't change the journal {address}: {error}") from error
