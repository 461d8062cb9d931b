"""The schema's versions. A new kind of record or column needs none: databases follow the NamedTuples by themselves."""

from __future__ import annotations

from ...errors import JournalError

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "refuse_newer"]

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (),  # the tables of records, which are made and completed whenever a journal is opened for writing
    2: (  # which Parquet files hold rows that are no longer here; and a journal that can be told from its successor
        "CREATE TABLE IF NOT EXISTS part (file TEXT PRIMARY KEY, source TEXT NOT NULL, day TEXT NOT NULL, rows BIGINT NOT NULL, "
        "first_row BIGINT NOT NULL, last_row BIGINT NOT NULL, first_at DOUBLE PRECISION NOT NULL, last_at DOUBLE PRECISION NOT NULL)",
        "CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
}
"""What leads from the version before to each, in SQL that both databases understand; older programs would misread the result."""

SCHEMA_VERSION = max(MIGRATIONS)


def refuse_newer(version: int, where: object) -> None:
    """Raise where a program that knows only the last version would misread a journal."""
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"the journal {where} has schema {version}, this program knows {SCHEMA_VERSION}: upgrade model-comparison-toolkit, "
            "or name another journal in TOOLKIT_JOURNAL"
        )
