"""Results of several locations in one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from samt.bench.errors import ResultsError
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.frames import entries
from samt.bench.experiments.places import ordered, place
from samt.bench.experiments.store import Store

if TYPE_CHECKING:
    import pandas as pd

_DONE = ("finished", "diverged")


@dataclass
class Merged:
    """What a merge did.

    Args:
        copied: cells that were not there.
        replaced: cells that had not come to their end here, but there.
        kept: cells that stay as they are here.
        experiments: records that are new or have other cells than before.
        other: names of experiments that are defined otherwise there; those here stay.
    """

    copied: int = 0
    replaced: int = 0
    kept: int = 0
    experiments: int = 0
    other: list[str] = field(default_factory=list)


def merge(source: Store, target: Store, *, redefined: bool = False) -> Merged:
    """Copy what one location has and another lacks. Doing it again changes nothing.

    Args:
        source: is only read; what cannot be read stands in its `damaged` afterwards.
        target: gets cells and experiments. A result stays unless it failed, timed out or was
            killed, and the source has one that finished or diverged.
        redefined: put cells into tables also where an experiment is defined otherwise, as after
            a method was added to it; its definition here stays.

    Returns:
        Counts.

    Raises:
        ResultsError: a location cannot be read or written.
    """
    done, ours = Merged(), target.summaries()
    for identity, summary in source.summaries().items():
        if identity in ours and not _is_better(summary, ours[identity]):
            done.kept += 1
            continue
        try:
            rows = _rows(source.curve(identity))
        except (ResultsError, ValueError, TypeError) as error:
            source.damaged[f"{source.location}/curves/{identity}.parquet"] = str(error)
            continue
        target.save(identity, summary, rows)
        done.replaced += identity in ours
        done.copied += identity not in ours
    _merge_experiments(source, target, done, redefined)
    return done


def _is_better(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    return theirs["status"] in _DONE and ours["status"] not in _DONE


def _rows(curve: pd.DataFrame) -> list[dict[str, Any]]:
    """A curve as it is saved.

    Raises:
        ValueError: a column holds something else than it should.
        TypeError: likewise.
    """
    whole = {field.name for field in curve_schema() if str(field.type) == "int64"}
    rows = []
    for record in curve.drop(columns="cell", errors="ignore").to_dict("records"):
        sizes = record.pop("step_sizes", None)
        row: dict[str, Any] = {"step_sizes": {} if sizes is None else dict(sizes)}
        for name, value in record.items():
            missing = name in whole and math.isnan(value)
            row[str(name)] = None if missing else (int(value) if name in whole else float(value))
        rows.append(row)
    return rows


def _merge_experiments(source: Store, target: Store, done: Merged, redefined: bool) -> None:
    """Union of the cells of each experiment; title, labels and their order here win."""
    ours, summaries = target.experiments(), target.summaries()

    def is_done(entry: Mapping[str, Any]) -> bool:
        summary = summaries.get(entry["identity"])
        return summary is not None and summary["status"] in _DONE

    for name, theirs in source.experiments().items():
        own = ours.get(name, {**theirs, "cells": []})
        if own.get("definition") != theirs.get("definition") and not redefined:
            done.other.append(name)
            continue
        cells = {place(entry): entry for entry in entries(own)}
        for entry in entries(theirs):
            here = cells.get(place(entry))
            if here is None or (is_done(entry) and not is_done(here)):
                cells[place(entry)] = entry
        order = own.get("order") or theirs.get("order")
        merged = {**own, "cells": ordered(cells.values(), order)}
        if merged != ours.get(name):
            target.save_experiment(name, merged)
            done.experiments += 1
