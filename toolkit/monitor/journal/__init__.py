"""The journal: what happened, written by a thread in batches to a SQLite file or a PostgreSQL server, read by other processes meanwhile.

``writer`` has the buffer and its thread, ``reader`` what may be asked; ``sqlite`` and ``postgres`` are the two databases, ``tables`` says
what is in them. Old days live in Parquet files (``archive``); ``pruning``, ``checking``, ``repairing`` and ``exporting`` are behind
``toolkit journal``. What reads or writes Parquet imports polars, and is imported on first use.
"""

from .address import Address, FileAddress, ServerAddress, read_address, shown_url
from .reader import JournalReader, JournalVersion, Part, with_polars
from .schema import SCHEMA_VERSION
from .writer import Journal, Rows, flush_shared, open_journal, opened_journal

__all__ = [
    "SCHEMA_VERSION",
    "Address",
    "FileAddress",
    "Journal",
    "JournalReader",
    "JournalVersion",
    "Part",
    "Rows",
    "ServerAddress",
    "flush_shared",
    "open_journal",
    "opened_journal",
    "read_address",
    "shown_url",
    "with_polars",
]
