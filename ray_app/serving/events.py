"""What happened since the dataset was prepared, on disk before it is acknowledged: SQLite in WAL mode, one writer."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ray_app.errors import UserError
from ray_app.serving.customers import SECOND_US, Event

NEWEST = 1000
"""Events of one user that are read back."""
KEPT = 100_000
"""Arrivals that are kept for those who have not heard of them; who comes later hears of the latest alone."""
TABLES = """
CREATE TABLE IF NOT EXISTS events (
    key TEXT PRIMARY KEY, user TEXT NOT NULL, item TEXT NOT NULL, time INTEGER NOT NULL, type TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_of_user ON events (user, time);
CREATE TABLE IF NOT EXISTS arrivals (
    number INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, item TEXT NOT NULL, time INTEGER NOT NULL, type TEXT
);
INSERT INTO arrivals (user, item, time, type) SELECT user, item, time, type FROM events
    WHERE NOT EXISTS (SELECT 1 FROM arrivals) ORDER BY time;
CREATE TRIGGER IF NOT EXISTS arrived AFTER INSERT ON events BEGIN
    INSERT INTO arrivals (user, item, time, type) VALUES (new.user, new.item, new.time, new.type);
END;
CREATE TABLE IF NOT EXISTS changes (
    revision INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    UNIQUE (item, kind)
);
"""


class NewRow(NamedTuple):
    """An event to be kept; ids as text."""

    user: str
    item: str
    time: int
    """Microseconds since 1970 UTC."""
    type: str | None = None
    id: str | None = None

    @property
    def key(self) -> str:
        """Two rows with the same key are one event."""
        parts = [self.id] if self.id is not None else [self.item, self.time // SECOND_US]
        return json.dumps([self.user, *parts])


class Change(NamedTuple):
    """What the shop says of an item: `item` (its description as JSON) or `available` (`true` or `false`)."""

    item: str
    kind: str
    value: str


class State(NamedTuple):
    """What was read at once."""

    events: list[list[Event]]
    """Of each user, oldest first."""
    changes: list[Change]
    """Those since the revision that the reader had seen."""
    revision: int
    """What the reader has seen now."""


class News(NamedTuple):
    """Events of all users in the order in which they came."""

    rows: list[NewRow]
    cursor: str
    """What tells the store later what the reader has heard; empty for nothing."""


class EventStore:
    """One file. Written by one process, which may be killed at any time, and read by others beside it."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")  # a commit waits for the disk
            self._database.executescript(TABLES)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path}: cannot be used for events (serve.state_path): {error}") from error

    def append(self, rows: Sequence[NewRow]) -> int:
        """Keep events, all or none; how many of them are new."""
        return self._write(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            [(row.key, row.user, row.item, row.time, row.type) for row in rows],
            "DELETE FROM arrivals WHERE number <= (SELECT MAX(number) FROM arrivals) - ?",
        )

    def change(self, changes: Sequence[Change]) -> None:
        """Keep what is said of items; of several sayings of one kind about an item the last counts."""
        self._write("INSERT OR REPLACE INTO changes (item, kind, value) VALUES (?, ?, ?)", changes)

    def read(self, users: Sequence[str], seen: int) -> State:
        """Later events of some users, and what was said of items since revision `seen`."""
        query = "SELECT item, time, type FROM events WHERE user = ? ORDER BY time DESC LIMIT ?"
        events = [[Event(*row) for row in self._database.execute(query, (user, NEWEST))][::-1] for user in users]
        later = "SELECT item, kind, value, revision FROM changes WHERE revision > ? ORDER BY revision"
        found = self._database.execute(later, (seen,)).fetchall()
        return State(events, [Change(*row[:3]) for row in found], found[-1][3] if found else seen)

    def news(self, cursor: str) -> News:
        """What came since `cursor`, of the latest `KEPT` events."""
        query = "SELECT number, user, item, time, type FROM arrivals WHERE number > ? ORDER BY number"
        found = self._database.execute(query, (int(cursor or 0),)).fetchall()
        return News([NewRow(*row[1:]) for row in found], str(found[-1][0]) if found else cursor)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]], trim: str | None = None) -> int:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            written = self._database.executemany(statement, rows).rowcount
            if trim:
                self._database.execute(trim, (KEPT,))
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        return max(written, 0)
