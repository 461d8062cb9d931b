"""The journal as a schema in a PostgreSQL database. Only this module imports psycopg, on first use."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, JournalError
from ..events import Row
from .address import ServerAddress
from .database import Database, migrate
from .schema import SCHEMA_VERSION, refuse_newer
from .tables import BY_NAME, Table, by_table

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresDatabase", "look_into_server", "open_server"]

PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "10000", "application_name": "toolkit"}
LOCK_TIMEOUT = "5s"
WRITERS = 0x746F6F6C
"""One half of the number of the lock that writers hold; the other is of the schema's name."""

_TYPES = {int: "BIGINT", float: "DOUBLE PRECISION", str: "TEXT"}


class PostgresDatabase(Database):
    """An open connection to a journal's schema."""

    def __init__(self, address: ServerAddress, connection: psycopg.Connection[Any]) -> None:
        self.address = address
        self.connection = connection

    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _translated(self.address):
            return self._execute(sql, values).fetchall()

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        with _translated(self.address):
            return self._execute(sql, values).rowcount

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        return self.connection.execute(sql.replace("?", "%s").encode(), values or None)

    def columns(self, table: str) -> set[str]:
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"
        return {name for (name,) in self.fetch(sql, [f'"{self.address.schema}"."{table}"'])}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self.transaction_number = None
        with _translated(self.address), self.connection.transaction():
            # Who takes a number commits before the next one takes theirs: a reader that has seen row n has seen all before it.
            sql = "SELECT txid_current(), pg_advisory_xact_lock(?, hashtext(?))"
            self.transaction_number = self._execute(sql, [WRITERS, self.address.schema]).fetchall()[0][0]
            yield

    def has_committed(self, transaction_number: int) -> bool:
        with self.transaction():  # its lock is free once the other transaction has ended, whose server process may not know of the loss yet
            # A server restored from a backup may not know the number yet, and takes that for an error.
            sql = "SELECT CASE WHEN ? < txid_current() THEN txid_status(?) = 'committed' END"
            return bool(self.fetch(sql, [transaction_number] * 2)[0][0])

    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        with _translated(self.address):
            self._copy(table, tuple(columns), rows)

    def _copy(self, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
        """Send rows by COPY, the cheapest way in. It can't leave out what is there already: then they pass through a temporary table."""
        import psycopg

        names = ", ".join(f'"{name}"' for name in columns)
        try:
            with self.connection.transaction():
                self._send(f'"{table.name}" ({names})', rows)
        except psycopg.errors.UniqueViolation:
            like = f'SELECT {names} FROM "{table.name}" WHERE false'  # noqa: S608 - known names
            self._execute(f"CREATE TEMPORARY TABLE staging ON COMMIT DROP AS {like}")
            self._send(f"staging ({names})", rows)
            self._execute(f'INSERT INTO "{table.name}" ({names}) SELECT {names} FROM staging ON CONFLICT DO NOTHING')  # noqa: S608 - a known name
            self._execute("DROP TABLE staging")

    def _send(self, target: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row([None if value != value else value for value in row])  # SQLite makes NULL of NaN; so it is one here

    def write(self, rows: Sequence[Row]) -> None:
        import psycopg

        try:
            self._transact(by_table(rows))
        except JournalError as error:
            if not isinstance(error.__cause__, psycopg.DataError | psycopg.ProgrammingError | UnicodeEncodeError):
                raise
            cleaned = {table: [_storable_row(table, row) for row in same] for table, same in by_table(rows).items()}
            self._transact(cleaned)

    def _transact(self, tables: dict[Table, list[tuple[Any, ...]]]) -> None:
        with self.transaction():
            for table, rows in tables.items():
                self.insert(table, table.columns, rows)

    def make_table(self, table: Table) -> None:
        present = self.columns(table.name)
        if not present:
            columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in table.kinds.items())
            number = '"row" BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY'
            self.change(f'CREATE TABLE "{table.name}" ({number}, {columns}, UNIQUE ("{table.unique}"))')
            for column in table.indexed:
                self.change(f'CREATE INDEX "{table.name}_{column}" ON "{table.name}" ("{column}")')
        elif missing := [column for column in table.columns if column not in present]:
            added = ", ".join(f'ADD COLUMN "{column}" {_TYPES[table.kinds[column]]}' for column in missing)
            self.change(f'ALTER TABLE "{table.name}" {added}')

    def version(self) -> int:
        if not self.columns("state"):
            return 0
        found = self.fetch("SELECT value FROM state WHERE name = 'version'")
        return int(found[0][0]) if found else 0

    def set_version(self, version: int) -> None:
        sql = "INSERT INTO state (name, value) VALUES ('version', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self.change(sql, [str(version)])

    def replaced(self) -> bool:
        """Whether the connection has ended; a dropped schema shows itself in the next batch's error, which closes it."""
        return bool(self.connection.closed)

    def close(self) -> None:
        self.connection.close()


def open_server(address: ServerAddress) -> PostgresDatabase:
    """Connect to write: schema and tables made, columns complete."""
    db = PostgresDatabase(address, _connect(address))
    try:
        db.change(f"SET search_path TO \"{address.schema}\"; SET lock_timeout TO '{LOCK_TIMEOUT}'")
        if not _is_complete(db):
            with db.transaction():
                if not db.columns("state"):
                    db.change(f'CREATE SCHEMA IF NOT EXISTS "{address.schema}"')
                refuse_newer(db.version(), address)
                migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _is_complete(db: PostgresDatabase) -> bool:
    """Whether there is nothing to make: the usual case, in which writers need not wait for each other, nor have the right to make it."""
    sql = (  # the view information_schema.columns takes ten times as long
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = to_regnamespace(?) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
    )
    present = set(db.fetch(sql, [db.address.schema]))
    needed = {(table.name, column) for table in BY_NAME.values() for column in table.columns}
    return needed <= present and db.version() == SCHEMA_VERSION


@contextlib.contextmanager
def look_into_server(address: ServerAddress) -> Iterator[PostgresDatabase | None]:
    """Connect for a look: all of the journal as it is at one moment."""
    import_psycopg()
    from psycopg import IsolationLevel

    db = PostgresDatabase(address, _connect(address))
    with contextlib.closing(db), _translated(address):
        db.connection.read_only = True
        db.connection.isolation_level = IsolationLevel.REPEATABLE_READ
        db.connection.autocommit = False
        if not db.columns("state"):
            yield None
            return
        db.change(f'SET LOCAL search_path TO "{address.schema}"')
        refuse_newer(db.version(), address)
        yield db


@functools.cache
def import_psycopg() -> Any:  # the module
    """Return psycopg, or raise an error that names the extra."""
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError(
            "a journal in PostgreSQL needs psycopg, which is not installed: pip install 'model-comparison-toolkit[postgres]'"
        ) from error
    return psycopg


def _connect(address: ServerAddress) -> psycopg.Connection[Any]:
    library = import_psycopg()
    from psycopg.conninfo import conninfo_to_dict

    try:
        chosen = conninfo_to_dict(address.conninfo)
    except library.Error:
        raise JournalError(f"PostgreSQL's library does not understand all of the journal's address {address}") from None
    with _translated(address):
        connection: psycopg.Connection[Any] = library.connect(autocommit=True, **(PATIENCE | chosen))
        return connection


@contextlib.contextmanager
def _translated(address: ServerAddress) -> Iterator[None]:
    psycopg = import_psycopg()
    try:
        yield
    except (psycopg.Error, UnicodeEncodeError) as error:
        message = str(error).strip()
        for secret in address.secrets:
            message = message.replace(secret, "[redacted]")
        raise JournalError(f"the journal {address} can't be used: {message}") from error


def _storable_row(table: Table, row: Sequence[Any]) -> tuple[Any, ...]:  # any values of a record
    return tuple(_storable(value, table.kinds[name]) for name, value in zip(table.columns, row))


def _storable(value: Any, kind: type) -> Any:  # any value of a record
    if value is None:
        return None
    if kind is str:
        return str(value).replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if kind is float or -(2**63) <= number < 2**63 else None
