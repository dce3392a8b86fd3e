"""Results at a location: one small file of each kind for each cell.

    cells/ID.json        summary: settings, status, final numbers, machine; writing it is the commit
    curves/ID.parquet    a row for each evaluation
    running/ID.json      heartbeat of the process that is working on the cell
    checkpoints/ID.pt    where an unfinished cell goes on
    experiments/NAME.json  which cells an experiment consists of, under which labels

Every write replaces a whole file, so that readers and other writers see the old or the new one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samt.bench.atomic import TEMPORARY, write_atomically
from samt.bench.errors import ResultsError, RunFolderError
from samt.bench.experiments.curves import from_parquet, to_parquet
from samt.bench.experiments.records import as_json, is_alive, is_note

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
STATUSES = ("finished", "diverged", "failed", "timed-out", "killed")
_IDENTITY = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDINGS = {"running": "json", "curves": "parquet", "checkpoints": "pt"}
_FRESH = 60.0  # seconds


class Store:
    """Summaries, curves, heartbeats and checkpoints of cells.

    Args:
        location: a folder, or any URL that fsspec knows (`s3://…`, `gs://…`, `memory://…`).

    Attributes:
        location: the same, for any process of this machine.
        local: the folder, or None.
        damaged: files that could not be read, with the reason; filled while reading.

    Raises:
        ResultsError: the location cannot be understood, or its library is not installed.
    """

    def __init__(self, location: str) -> None:
        import fsspec

        if not location.strip():
            raise ResultsError("the location of results is empty: give a folder")
        self.location = location
        self.damaged: dict[str, str] = {}
        self._kept: set[str] = set()  # those of them that may be right: no leftovers
        try:
            if "://" in location:
                self._fs, self._root = fsspec.core.url_to_fs(location)
            else:  # as it is: to url_to_fs even a::b is a chain of two
                self._fs = fsspec.filesystem("file")
                self._root = str(Path(location).expanduser().absolute())
        except Exception as error:  # what the libraries of object stores raise has no common class
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ResultsError(
                f"cannot use {location} for results ({reason}): give a folder, or install what "
                f"fsspec needs for it"
            ) from error
        protocols = self._fs.protocol
        protocols = (protocols,) if isinstance(protocols, str) else protocols
        self.local: Path | None = Path(self._root) if "file" in protocols else None
        if self.local is not None:
            self.location = self._root  # absolute, for processes that run elsewhere

    def summaries(self) -> dict[str, dict[str, Any]]:
        """The summary of every cell that has a result, by identity."""
        return self._read_all("cells", _is_summary)

    def identities(self) -> set[str]:
        """Identities of the cells that have a result; read from the names of files alone."""
        return set(self._stems("cells", "json"))

    def summary(self, identity: str) -> dict[str, Any] | None:
        """The summary of one cell; None if it has no result, or a damaged one."""
        return self._read_json(self._path("cells", f"{_checked(identity)}.json"), _is_summary)

    def curve(self, identity: str) -> pd.DataFrame:
        """A row for each evaluation of a cell.

        Raises:
            ResultsError: it is not there, or damaged.
        """
        path = self._path("curves", f"{_checked(identity)}.parquet")
        content = self._read(path)
        if content is None:
            raise ResultsError(f"{path} is not there: run the cell again")
        try:
            return from_parquet(content, identity)
        except ValueError as error:
            raise ResultsError(f"{path} is damaged: run samt results prune, and again") from error

    def save(
        self, identity: str, summary: Mapping[str, Any], curve: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write a result: the curve first, then the summary, which makes it count.

        Args:
            identity: of the cell.
            summary: as in docs/results.md; the schema number is added here.
            curve: rows, with the columns of `curve_schema`.
        """
        self._write(
            self._path("curves", f"{_checked(identity)}.parquet"),
            to_parquet(identity, curve, SCHEMA),
        )
        record = {"schema": SCHEMA, "identity": identity, **summary}
        self._write(self._path("cells", f"{identity}.json"), as_json(record))

    def retract(self, identity: str) -> None:
        """Remove the summary of a cell that is tried again; a checkpoint stays."""
        self._remove(self._path("cells", f"{_checked(identity)}.json"))

    def remove(self, identity: str) -> None:
        """Forget everything about a cell; the summary goes first."""
        self.retract(identity)
        self._remove(self._path("curves", f"{identity}.parquet"))
        self.release(identity)

    def checkpoint(self, identity: str) -> bytes | None:
        """What `save_checkpoint` wrote last, or None."""
        return self._read(self._path("checkpoints", f"{_checked(identity)}.pt"))

    def save_checkpoint(self, identity: str, content: bytes) -> None:
        """Replace the checkpoint of a cell."""
        self._write(self._path("checkpoints", f"{_checked(identity)}.pt"), content)

    def beat(self, identity: str, note: Mapping[str, Any]) -> None:
        """Say that a cell is being worked on.

        Args:
            identity: of the cell.
            note: what the live view shows; host, process and time are added here.
        """
        note = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time(), **note}
        self._write(self._note(identity), as_json(note), durable=False)

    def claim(self, identity: str, note: Mapping[str, Any]) -> bool:
        """Take a cell, so that no other runner works on it.

        In a folder two runners never get the same cell. An object store has no lock: there both
        may compute it, and one of two equal results stays.

        Args:
            identity: of the cell.
            note: as in `beat`.

        Returns:
            False if somebody works on it already.
        """
        with self._locked():
            current = self._read_json(self._note(identity), is_note)
            if current is not None and is_alive(current, _FRESH):
                return False
            self.beat(identity, note)
            return True

    def running(self, within: float = _FRESH) -> dict[str, dict[str, Any]]:
        """Cells that somebody is working on.

        Args:
            within: age in seconds up to which a heartbeat counts. One of a process of this
                machine that is no longer there does not count.

        Returns:
            The last note of each, by identity.
        """
        notes = self._read_all("running", is_note)
        return {identity: note for identity, note in notes.items() if is_alive(note, within)}

    def rest(self, identity: str) -> None:
        """Take the heartbeat away: nobody works on the cell any more."""
        self._remove(self._note(identity))

    def release(self, identity: str) -> None:
        """Take heartbeat and checkpoint away: the cell is done."""
        self.rest(identity)
        self._remove(self._path("checkpoints", f"{_checked(identity)}.pt"))

    def experiments(self) -> dict[str, dict[str, Any]]:
        """What `save_experiment` wrote, by name."""
        return self._read_all("experiments", _is_experiment, _NAME)

    def experiment(self, name: str) -> dict[str, Any] | None:
        """What `save_experiment` wrote about one of them, or None."""
        return self._read_json(self._experiment(name), _is_experiment)

    def save_experiment(self, name: str, record: Mapping[str, Any]) -> None:
        """Write which cells an experiment consists of."""
        self._write(self._experiment(name), as_json({"schema": SCHEMA, **record}))

    def leftovers(self, older: float = 3600.0) -> list[str]:
        """Files that nothing needs: of writes that were killed, and of cells that are done.

        Args:
            older: seconds since a temporary file was last written.

        Returns:
            Their paths.
        """
        # In this order: a cell that ends meanwhile is alive, or its result is there already.
        paths = {folder: self._list(folder) for folder in (*_ENDINGS, "cells", "experiments")}
        alive = self.running().keys()
        done = self.summaries().keys() | {_name(path).split(".")[0] for path in self._kept}
        unneeded: dict[str, Callable[[str], bool]] = {
            "running": lambda stem: stem not in alive,
            "curves": lambda stem: stem not in done | alive,
            "checkpoints": lambda stem: stem in done and not self._continues(stem),
        }
        found = [
            path
            for path in itertools.chain(*paths.values())
            if TEMPORARY.fullmatch(_name(path)) and time.time() - self._modified(path) > older
        ]
        for folder, ending in _ENDINGS.items():
            stems = _stems(paths[folder], ending, _IDENTITY)
            found += [path for stem, path in stems.items() if unneeded[folder](stem)]
        return found + [path for path in self.damaged if path not in {*found, *self._kept}]

    def delete(self, path: str) -> None:
        """Delete one of `leftovers`."""
        self._remove(path)

    def _note(self, identity: str) -> str:
        return self._path("running", f"{_checked(identity)}.json")

    def _experiment(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ResultsError(f"experiment {name!r} has no name that a file can have: rename it")
        return self._path("experiments", f"{name}.json")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time, in a folder; the lock ends with the process that holds it."""
        if self.local is None:
            yield
            return
        import fcntl

        path = self.local / "running" / ".lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise ResultsError(
                f"cannot lock {path} ({error.strerror}): choose another --results"
            ) from error
        with file:
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile has it open, too

    def _continues(self, identity: str) -> bool:
        summary = self.summary(identity)
        return summary is not None and summary["status"] in ("timed-out", "killed")

    def _modified(self, path: str) -> float:
        try:
            return float(self._fs.modified(path).timestamp())
        except (FileNotFoundError, NotImplementedError):
            return time.time()

    def _path(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def _list(self, folder: str) -> list[str]:
        path = self._path(folder)
        try:
            self._fs.invalidate_cache(path)
            return sorted(map(str, self._fs.ls(path, detail=False)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultsError(
                f"cannot read {path} ({error.strerror or error}): choose another --results"
            ) from error

    def _stems(self, folder: str, ending: str, name: re.Pattern[str] = _IDENTITY) -> dict[str, str]:
        return _stems(self._list(folder), ending, name)

    def _read(self, path: str) -> bytes | None:
        try:
            if self.local is not None:
                return Path(path).read_bytes()
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ResultsError(f"cannot read {path} ({error.strerror or error})") from error

    def _read_json(self, path: str, is_right: Any) -> dict[str, Any] | None:
        return self._parsed(path, self._read(path), is_right)

    def _read_all(
        self, folder: str, is_right: Any, name: re.Pattern[str] = _IDENTITY
    ) -> dict[str, dict[str, Any]]:
        paths = self._stems(folder, "json", name)
        records = {stem: self._read_one(path, is_right) for stem, path in paths.items()}
        return {stem: record for stem, record in records.items() if record is not None}

    def _read_one(self, path: str, is_right: Any) -> dict[str, Any] | None:
        """One of many: if it cannot be read, the others are."""
        try:
            return self._read_json(path, is_right)
        except ResultsError as error:
            self.damaged[path] = str(error)
            self._kept.add(path)
            return None

    def _parsed(self, path: str, content: bytes | None, is_right: Any) -> dict[str, Any] | None:
        if content is None:
            return None
        try:
            record = json.loads(content)
        except ValueError:
            record = None
        right = isinstance(record, dict) and is_right(record)
        # A copy under another name is not that cell's result.
        stem = _name(path).removesuffix(".json")
        if not right or record.get("identity", stem) != stem:
            if isinstance(record, dict) and record.get("schema", SCHEMA) != SCHEMA:
                self._kept.add(path)
            self.damaged[path] = "damaged, or written by another version of samt"
            return None
        self.damaged.pop(path, None)
        self._kept.discard(path)
        return record

    def _write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        try:
            if self.local is None:
                self._fs.pipe_file(path, content)
                return
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), content, durable=durable)
        except (OSError, RunFolderError) as error:
            reason = error if isinstance(error, OSError) else error.__cause__
            raise ResultsError(
                f"cannot write {path} ({getattr(reason, 'strerror', None) or reason}): free some "
                f"space or choose another --results; what is finished is kept"
            ) from error

    def _remove(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ResultsError(f"cannot delete {path} ({error.strerror or error})") from error


def _is_experiment(record: Mapping[str, Any]) -> bool:
    return record.get("schema") == SCHEMA and isinstance(record.get("cells"), list)


def _is_summary(record: Mapping[str, Any]) -> bool:
    known = record.get("schema") == SCHEMA and record.get("status") in STATUSES
    numbers = (record.get(name) for name in ("wall_seconds", "validation_metric"))
    right = all(one is None or isinstance(one, int | float) for one in numbers)
    return known and right and isinstance(record.get("cell"), dict)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _stems(paths: Sequence[str], ending: str, name: re.Pattern[str]) -> dict[str, str]:
    """The paths of those files whose name is right, by it; others are not ours."""
    stems = {
        _name(path).removesuffix(f".{ending}"): path
        for path in paths
        if path.endswith(f".{ending}")
    }
    return {stem: path for stem, path in stems.items() if name.fullmatch(stem)}


def _checked(identity: str) -> str:
    if not _IDENTITY.fullmatch(identity):
        raise ResultsError(f"{identity!r} is no identity of a cell: it has 16 digits 0-9 a-f")
    return identity
