"""What was tried on the validation part, and what it chose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samt.bench.experiments.frames import PENDING
from samt.bench.experiments.spec import suffix
from samt.bench.report.wording import by_size, scale
from samt.bench.statistics import Spread

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Choices:
    """All that was tried on one data set and network.

    Args:
        data: name of the data set.
        model: name of the network.
        metric: "accuracy" or "rmse".
        widths: of the columns.
        labels: method with the options that were tried.
        values: validation metric by label and width, accuracies in per cent; NaN if a run did not
            finish.
        chosen: labels and widths that won.
    """

    data: str
    model: str
    metric: str
    widths: Sequence[str]
    labels: Sequence[str]
    values: Mapping[tuple[str, str], Spread]
    chosen: frozenset[tuple[str, str]]


def choices(cells: pd.DataFrame) -> list[Choices]:
    """The tables of an experiment, in the order of its cells.

    Args:
        cells: of `frames.cells_frame`.
    """
    done = cells[~cells["status"].isin(PENDING)]
    found = []
    for (data, model), rows in done[done["role"] == "tuning"].groupby(
        ["data", "model"], sort=False
    ):
        final = done[(done["role"] == "final") & done["tuned"].notna()]
        final = final[(final["data"] == data) & (final["model"] == model)]
        metric = str(next(iter(rows["metric"].dropna()), ""))
        found.append(
            Choices(
                data=str(data),
                model=str(model),
                metric=metric,
                widths=by_size(rows["width"]),
                labels=list(dict.fromkeys(rows["label"])),
                values={
                    (str(label), str(width)): _spread(group, scale(metric))
                    for (label, width), group in rows.groupby(["label", "width"], sort=False)
                },
                chosen=frozenset(_winner(row) for row in final.to_dict("records")),
            )
        )
    return found


def _spread(rows: pd.DataFrame, factor: float) -> Spread:
    finished = rows["status"] == "finished"
    return Spread.of([float(value) * factor for value in rows["validation_metric"].where(finished)])


def _winner(row: Mapping[Any, Any]) -> tuple[str, str]:
    """Label and width of the choice behind a cell that counts."""
    return str(row["label"]) + suffix(json.loads(row["tuned"])), str(row["width"])
