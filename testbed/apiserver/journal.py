"""The log of changes on disk: an SQLite table that is both the objects and their recent history.

Every change is one row, numbered by its resourceVersion; the newest row of a key is the object. A row goes when the
change that replaced it has left the window of watches, so what a restart reads back is the whole state and the whole
history, without a second copy of either.

Write-ahead log, `synchronous=NORMAL`: a commit costs a write(2) and no fsync (about 20 µs), and survives the death of
the process at any instruction. A power cut may take the last commits, never the consistency of the file. The fsyncs
are in the checkpoints, which a thread of their own makes.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from testbed.errors import MachineLacks, ServiceUnavailable, TestbedError

log = logging.getLogger(__name__)

FORMAT = 1
"""`user_version` of the file."""
CHECKPOINT_BYTES = 8 << 20
"""Of objects written between two checkpoints; the write-ahead file is about three times as large."""
BUSY_TIMEOUT_S = 30.0

_SCHEMA = f"""
BEGIN;
CREATE TABLE log (
    version INTEGER PRIMARY KEY, type TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE floor (kind TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
COMMIT;
"""


class StoreUnwritable(ServiceUnavailable):
    """The disk refused a transaction; nothing of it was kept, and reading goes on."""


class Row(NamedTuple):
    """One change as it lies on disk."""

    version: int
    type: str
    kind: str
    namespace: str
    name: str
    body: bytes


class Journal:
    """The file at `path`, held exclusively by this process until `close` or its death.

    Raises MachineLacks where the file cannot be opened, and TestbedError where another process holds it or it is
    damaged, with the way out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _locked(path)
        self._unsaved = 0
        self._checkpoints = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        try:
            self._database = _connected(path)
            _ensure_schema(self._database, path)
        except sqlite3.DatabaseError as error:
            raise self.unreadable(error) from error

    def rows(self) -> Iterator[Row]:
        """Every row in the order of versions."""
        try:
            query = "SELECT version, type, kind, namespace, name, body FROM log ORDER BY version"
            yield from map(Row._make, self._database.execute(query))
        except sqlite3.DatabaseError as error:
            raise self.unreadable(error) from error

    def floors(self) -> dict[str, int]:
        """Per kind the newest version whose change is no longer held."""
        try:
            return dict(self._database.execute("SELECT kind, version FROM floor"))
        except sqlite3.DatabaseError as error:
            raise self.unreadable(error) from error

    def append(self, rows: Sequence[Row], obsolete: Sequence[int], floors: Mapping[str, int]) -> None:
        """Write `rows`, remove those of `obsolete` versions, raise the floors: all of it, or StoreUnwritable."""
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", rows)
            if obsolete:
                database.executemany("DELETE FROM log WHERE version = ?", [(version,) for version in obsolete])
                database.executemany("INSERT OR REPLACE INTO floor VALUES (?, ?)", floors.items())
            database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise StoreUnwritable(
                f"the store at {self.path} cannot be written: {error}; nothing of this request was kept"
            ) from error
        self._unsaved += sum(len(row.body) for row in rows)
        if self._unsaved >= CHECKPOINT_BYTES:
            self._unsaved = 0
            self._checkpoints.submit(_checkpoint, self.path)

    def unreadable(self, error: Exception) -> TestbedError:
        """What to say where the file does not hold what it should."""
        return TestbedError(
            f"the store at {self.path} cannot be read: {error}. If the file is damaged, bring the cluster down and up "
            "again: its objects are made anew from the topology and its manifests"
        )

    def close(self) -> None:
        """Fold the write-ahead file into the database and let go of both."""
        self._checkpoints.shutdown()
        self._database.close()
        os.close(self._lock)


def _checkpoint(path: Path) -> None:
    """Copy the write-ahead file into the database while writing goes on; then its rest, for which writers wait.

    Without the second step the file never starts over under steady load, and grows without end.
    """
    try:
        with contextlib.closing(_connected(path)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error as error:
        log.warning("checkpoint of %s: %s; the next one makes up for it", path, error)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
        database.execute(f"PRAGMA {setting}")
    return database


def _ensure_schema(database: sqlite3.Connection, path: Path) -> None:
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found == 0:
        database.executescript(_SCHEMA)
    elif found != FORMAT:
        raise TestbedError(
            f"the store at {path} has format {found}, this program reads {FORMAT}: "
            "bring the cluster down and up again, or use the version that made it"
        )


def _locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MachineLacks(f"the store at {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise TestbedError(f"the store at {path} is in use by another control plane: end that one first") from None
    return lock
