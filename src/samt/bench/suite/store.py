"""The store of the suite: one SQLite file, written by the runner alone."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from samt.bench.errors import ResultsError
from samt.bench.suite.record import Outcome, Settings

if TYPE_CHECKING:
    import pandas as pd

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    identity TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    outcome TEXT NOT NULL,
    made TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    identity TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    error TEXT NOT NULL
) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """A run of the store.

    Args:
        settings: what was asked for.
        outcome: what came out.
        made: the commit, the library versions and the processor of the run.
    """

    settings: Settings
    outcome: Outcome
    made: Mapping[str, str]


class Store:
    """Runs by their identity.

    Args:
        path: the SQLite file; it is made when the store is opened for writing.
        writing: whether runs are added. One process may do that at a time; any number may read
            meanwhile.

    Raises:
        ResultsError: the file is not there, is no store, or another process is writing.
    """

    def __init__(self, path: Path, *, writing: bool = False) -> None:
        self.path = path
        self._lock: sqlite3.Connection | None = None
        if not writing and not path.is_file():
            raise ResultsError(f"there is no store {path}: samt run suite makes one")
        try:
            if writing:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(path)
            self._connection = sqlite3.connect(path, isolation_level=None)
            if writing:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.executescript(_SCHEMA)
            self._connection.execute("SELECT count(*) FROM runs").fetchone()
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise ResultsError(f"{path} cannot be used as a store: {error}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def add(self, settings: Settings, outcome: Outcome, made: Mapping[str, str]) -> None:
        """Keep a run that ended; one that is there stays as it is.

        Args:
            settings: what was asked for.
            outcome: what came out.
            made: the commit, the library versions and the processor of the run.
        """
        with self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)",
                (
                    settings.identity,
                    settings.model_dump_json(),
                    outcome.model_dump_json(),
                    json.dumps(dict(made), sort_keys=True),
                ),
            )
            self._connection.execute(
                "DELETE FROM failures WHERE identity = ?", (settings.identity,)
            )

    def add_failure(self, settings: Settings, error: str) -> None:
        """Keep the reason why a run gave no outcome; it is run again next time.

        Args:
            settings: what was asked for.
            error: the reason.
        """
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)",
                (settings.identity, settings.model_dump_json(), error),
            )

    def forget(self, identities: Iterable[str]) -> None:
        """Take runs out.

        Args:
            identities: the identities of the runs.
        """
        with self._transaction():
            self._connection.executemany(
                "DELETE FROM runs WHERE identity = ?", [(one,) for one in identities]
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise ResultsError(f"{self.path} cannot be written: {error}") from error

    def rows(self) -> dict[str, Row]:
        """All runs by their identity, in the order of the identities."""
        found = self._connection.execute(
            "SELECT identity, settings, outcome, made FROM runs ORDER BY identity"
        )
        return {
            identity: Row(
                Settings.model_validate_json(settings),
                Outcome.model_validate_json(outcome),
                json.loads(made),
            )
            for identity, settings, outcome, made in found
        }

    def failures(self) -> list[tuple[Settings, str]]:
        """The runs that gave no outcome, with the reason."""
        found = self._connection.execute("SELECT settings, error FROM failures ORDER BY identity")
        return [(Settings.model_validate_json(settings), error) for settings, error in found]

    def frame(self) -> pd.DataFrame:
        """All runs as a table: a row for each run, a column for each field."""
        return frame(self.rows().values())


def is_suite(results: str) -> bool:
    """Whether some results are a store of the suite, or a file that was exported from one.

    Args:
        results: the path.
    """
    return results.endswith((".sqlite", ".jsonl", ".jsonl.gz"))


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Put runs into a table.

    Args:
        rows: the runs.

    Returns:
        A row for each run, a column for each field of `Settings` and `Outcome`, and the columns
        of what it was made with. Options stay a dictionary, and the curve a sequence of pairs.
    """
    import pandas as pd

    columns = [*Settings.model_fields, *Outcome.model_fields]
    records: list[dict[str, Any]] = [
        {**row.settings.model_dump(), **row.outcome.model_dump(), **row.made} for row in rows
    ]
    table = pd.DataFrame.from_records(records, columns=None if records else columns)
    return table.astype({"final": float, "seconds": float}) if records else table


def export(store: Store, path: Path) -> int:
    """Write all runs into one file, a line of JSON for each.

    Args:
        store: the store.
        path: the file; a name that ends with .gz is compressed.

    Returns:
        The number of runs.
    """
    rows = store.rows().values()
    lines = [
        json.dumps(
            {
                "settings": row.settings.model_dump(mode="json"),
                "outcome": row.outcome.model_dump(mode="json"),
                "made": row.made,
            },
            separators=(",", ":"),
            sort_keys=True,
        )
        for row in rows
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return len(lines)


def read(path: Path) -> list[Row]:
    """Read the runs of a store, or of a file that `export` wrote.

    Args:
        path: the file.

    Raises:
        ResultsError: the file cannot be read.
    """
    if not path.is_file():
        raise ResultsError(f"there is no store {path}: samt run suite makes one")
    try:
        with path.open("rb") as file:
            is_store = file.read(15) == b"SQLite format 3"
        if is_store:
            with Store(path) as other:
                return list(other.rows().values())
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        return [_row(line) for line in text.decode().splitlines()]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ResultsError(f"{path} cannot be read as runs of the suite: {error}") from error


def load(store: Store, path: Path) -> int:
    """Add the runs of a file that `export` wrote, or of another store; those there stay.

    Args:
        store: the store, open for writing.
        path: the file.

    Returns:
        The number of runs of the file.

    Raises:
        ResultsError: the file cannot be read.
    """
    rows = read(path)
    for row in rows:
        store.add(*row)
    return len(rows)


def _row(line: str) -> Row:
    found = json.loads(line)
    return Row(
        Settings.model_validate(found["settings"]),
        Outcome.model_validate(found["outcome"]),
        found["made"],
    )


def _locked(path: Path) -> sqlite3.Connection:
    """Take the place of the one writer; the system frees it whenever this process ends."""
    lock = sqlite3.connect(path.with_name(f"{path.name}-writer"), timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise ResultsError(
            f"another process is writing {path}: wait for it, or give another --results and "
            f"merge the two later"
        ) from error
    return lock
