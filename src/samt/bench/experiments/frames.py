"""Results as pandas frames: a row for each cell, a row for each evaluation.

The columns are version 1 of the schema in docs/results.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from samt.bench.errors import ResultsError
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.store import STATUSES, Store
from samt.bench.settings import width_text
from samt.bench.terminal import writable
from samt.errors import suggestion

if TYPE_CHECKING:
    import pandas as pd

_IDENTITY = re.compile(r"[0-9a-f]{16}")
# Of a cell of which there is no result.
PENDING = ("running", "missing")
_TEXT, _WHOLE, _NUMBER = "string", "Int64", "float64"
# What an experiment's record tells of a cell without a result.
_PLACE = ("data", "model", "width", "seed")
# Every column with its type and where it stands in the summary; what has no place is worked out.
_FIELDS: dict[str, tuple[str, str]] = {
    "identity": (_TEXT, ""),
    "experiment": (_TEXT, "experiment"),
    "label": (_TEXT, "label"),
    "role": (_TEXT, "role"),
    "status": (_TEXT, "status"),
    "error": (_TEXT, "error"),
    "data": (_TEXT, "cell.data"),
    "model": (_TEXT, "cell.model"),
    "width": (_TEXT, ""),
    "method": (_TEXT, "cell.method"),
    "options": (_TEXT, ""),
    "tuned": (_TEXT, ""),
    "seed": (_WHOLE, "cell.seed"),
    "task": (_TEXT, "task"),
    "metric": (_TEXT, "metric"),
    "test_metric": (_NUMBER, "test_metric"),
    "best_test_metric": (_NUMBER, "best_test_metric"),
    "test_loss": (_NUMBER, "test_loss"),
    "validation_metric": (_NUMBER, "validation_metric"),
    "best_validation_metric": (_NUMBER, "best_validation_metric"),
    "validation_loss": (_NUMBER, "validation_loss"),
    "train_loss": (_NUMBER, "train_loss"),
    "steps": (_WHOLE, "steps"),
    "epochs": (_NUMBER, "epochs"),
    "updates": (_NUMBER, "updates"),
    "forward_passes": (_WHOLE, "forward_passes"),
    "backward_passes": (_WHOLE, "backward_passes"),
    "passes": (_WHOLE, ""),
    "seconds": (_NUMBER, "seconds"),
    "wall_seconds": (_NUMBER, "wall_seconds"),
    "budget": (_TEXT, ""),
    "budget_value": (_NUMBER, ""),
    "evaluate": (_NUMBER, "cell.evaluate"),
    "batch_size": (_WHOLE, "cell.batch_size"),
    "dropout": (_NUMBER, "cell.dropout"),
    "split_seed": (_WHOLE, "cell.split_seed"),
    "validation": (_NUMBER, "cell.validation"),
    "data_sha256": (_TEXT, "cell.data_sha256"),
    "device": (_TEXT, "cell.device"),
    "threads": (_WHOLE, "cell.threads"),
    "started": (_TEXT, "started"),
    "attempts": (_WHOLE, "attempts"),
    "host": (_TEXT, "machine.host"),
    "platform": (_TEXT, "machine.platform"),
    "cpu": (_TEXT, "machine.cpu"),
    "cores": (_WHOLE, "machine.cores"),
    "device_name": (_TEXT, "machine.device"),
    "jobs": (_WHOLE, "machine.jobs"),
    "code": (_TEXT, "cell.code"),
    "commit": (_TEXT, "commit"),
    "samt_version": (_TEXT, "versions.samt"),
    "torch_version": (_TEXT, "versions.torch"),
    "numpy_version": (_TEXT, "versions.numpy"),
    "python_version": (_TEXT, "versions.python"),
}
CELL_COLUMNS = tuple(_FIELDS)


def cells_frame(store: Store, experiment: str | None = None) -> pd.DataFrame:
    """A row for each cell, with the columns `CELL_COLUMNS`.

    Numbers stand there as they were stored, also those of cells that did not finish: look at
    `status` before averaging, or leave it to `samt.bench.statistics`.

    Args:
        store: where the results lie.
        experiment: name of an experiment. The rows then are its cells, in its order, with its
            labels; a cell without a result has the status "running" or "missing", its place in the
            experiment, and nothing else.

    Returns:
        Without an experiment, the cells that have a result, labelled by method and options.
        Files that cannot be read are left out and stand in `store.damaged`.

    Raises:
        ResultsError: there is no such experiment.
    """
    import pandas as pd

    if experiment is None:
        rows = [
            _row(identity, summary, summary["status"])
            for identity, summary in store.summaries().items()
        ]
    else:
        alive = store.running()
        rows = []
        for entry in experiment_record(store, experiment)["cells"]:
            identity = entry["identity"]
            summary = store.summary(identity)
            place: dict[str, Any] = {name: writable(entry[name]) for name in ("label", "role")}
            if summary is None:
                place |= {name: _typed(entry.get(name), _FIELDS[name][0]) for name in _PLACE}
            rows.append(_row(identity, summary, status_now(summary, identity in alive)) | place)
            rows[-1]["experiment"] = experiment
    frame = pd.DataFrame(rows, columns=list(_FIELDS), dtype=object)
    return frame.astype({name: kind for name, (kind, _) in _FIELDS.items()})


def curves_frame(store: Store, identities: Iterable[str]) -> pd.DataFrame:
    """The curves of several cells below each other, a row for each evaluation.

    Args:
        store: where the results lie.
        identities: of the cells; the column `cell` holds them.

    Returns:
        The columns of `curves.curve_schema()`; `step_sizes` maps blocks to numbers. Curves that
        are not there or cannot be read are left out and stand in `store.damaged`.
    """
    import pandas as pd

    frames = []
    for identity in identities:
        try:
            curve = store.curve(identity)
        except ResultsError as error:
            path = f"{store.location.rstrip('/')}/curves/{identity}.parquet"
            store.damaged[path] = str(error)
            continue
        if len(curve):
            frames.append(curve)
    if not frames:
        return curve_schema().empty_table().to_pandas()
    frame = pd.concat(frames, ignore_index=True)
    frame["step_sizes"] = [{} if sizes is None else dict(sizes) for sizes in frame["step_sizes"]]
    return frame


def counts_frame(store: Store) -> pd.DataFrame:
    """How far each experiment is.

    Args:
        store: where the results lie.

    Returns:
        A row for each experiment, by name; columns `title`, `cells`, then the number of cells of
        each status, "running" and "missing" included. Results of no experiment are the row "".
    """
    import pandas as pd

    summaries, alive = store.summaries(), store.running()
    rows: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()

    def count(name: str, title: str, identities: list[str]) -> None:
        states = [status_now(summaries.get(one), one in alive) for one in identities]
        counts = {state: states.count(state) for state in (*STATUSES, *PENDING)}
        rows[name] = {"title": title, "cells": len(states), **counts}
        seen.update(identities)

    for name, record in store.experiments().items():
        count(
            name,
            writable(str(record.get("title", ""))),
            [one["identity"] for one in entries(record)],
        )
    if others := [one for one in {**summaries, **alive} if one not in seen]:
        count("", "", others)
    columns = ["title", "cells", *STATUSES, *PENDING]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def experiment_record(store: Store, name: str) -> dict[str, Any]:
    """What an experiment consists of.

    Args:
        store: where the results lie.
        name: of the experiment.

    Returns:
        Its record, with the `entries` as its cells.

    Raises:
        ResultsError: there is no such experiment.
    """
    known = store.experiments()
    if name not in known:
        hint = suggestion(name, known) if known else "there is none yet: start one with samt run"
        raise ResultsError(f"no experiment '{name}' in {store.location}: {hint}")
    record = known[name]
    return {**record, "cells": entries(record)}


def entries(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of an experiment's record.

    Args:
        record: of `Store.experiments`.

    Returns:
        Those entries that have an identity, a label and a role; others make no sense.
    """
    cells = record["cells"] if isinstance(record["cells"], list) else []
    return [entry for entry in cells if _is_entry(entry)]


def status_now(summary: Mapping[str, Any] | None, alive: bool) -> str:
    """The status of a cell while others may be working on it.

    Args:
        summary: of the cell, if it has one.
        alive: somebody is working on it.

    Returns:
        One of `store.STATUSES`, "running" or "missing".
    """
    status = None if summary is None else str(summary["status"])
    if status in ("finished", "diverged") or (status and not alive):
        return status
    return "running" if alive else "missing"


def _is_entry(entry: Any) -> bool:
    names = ("identity", "label", "role")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in names):
        return False
    return bool(_IDENTITY.fullmatch(entry["identity"]))


def _row(identity: str, found: Mapping[str, Any] | None, status: str) -> dict[str, Any]:
    summary = found or {}
    row = {name: _value(summary, path, kind) for name, (kind, path) in _FIELDS.items()}
    cell = summary.get("cell")
    cell = cell if isinstance(cell, dict) else {}
    budget = cell.get("budget")
    unit, amount = (
        next(iter(budget.items()), (None, None)) if isinstance(budget, dict) else 2 * [None]
    )
    forward, backward = row["forward_passes"], row["backward_passes"]
    hidden = cell.get("hidden")
    return row | {
        "identity": identity,
        "status": status,
        # Empty where an error came before the data were read.
        "task": row["task"] or None,
        "metric": row["metric"] or None,
        "width": width_text(hidden) if isinstance(hidden, list) else None,
        "options": _as_text(cell.get("options")),
        "tuned": _as_text(summary.get("tuned"), sort_keys=False),
        "passes": None if forward is None or backward is None else forward + backward,
        "budget": _typed(unit, _TEXT),
        "budget_value": _typed(amount, _NUMBER),
    }


def _value(summary: Mapping[str, Any], path: str, kind: str) -> Any:
    found: Any = summary
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return _typed(found, kind)


def _typed(value: Any, kind: str) -> Any:
    """The value, or None where a file holds something else than it should."""
    if kind == _TEXT:
        return writable(value) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind == _NUMBER:
        return float(value) if isinstance(value, float) or abs(value) < 2**63 else None
    # Not of an endless or a missing number, nor of one that no float can hold.
    return int(value) if abs(value) < 2**62 and value == int(value) else None


def _as_text(value: Any, sort_keys: bool = True) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=sort_keys)
