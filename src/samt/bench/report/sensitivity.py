"""How the final metric depends on an option, where methods differ in one number only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samt.bench.report.grids import Entry, Grid
from samt.bench.statistics import GROUP

if TYPE_CHECKING:
    import pandas as pd

_LEAST = 3  # values; two are a comparison, no dependence


@dataclass(frozen=True)
class Dependence:
    """A family of methods that differ in one option, on one data set and network.

    Args:
        option: its name.
        data: name of the data set.
        model: name of the network.
        width: widths of its hidden layers.
        family: what the labels have in common.
        values: of the option, ascending.
        entries: of the table, one for each value.
    """

    option: str
    data: str
    model: str
    width: str
    family: str
    values: Sequence[float]
    entries: Sequence[Entry]

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values span so much that they belong on a logarithmic axis."""
        return self.values[0] > 0 and self.values[-1] >= 10 * self.values[0]


def dependences(cells: pd.DataFrame, grids: Sequence[Grid]) -> list[Dependence]:
    """Find families of at least three methods that differ in one number only.

    Args:
        cells: of `frames.cells_frame`. Options that were tuned are chosen, not varied.
        grids: the tables of the same experiment.

    Returns:
        In the order of the tables.
    """
    options = _options(cells)
    found = []
    for grid in grids:
        for width in grid.widths:
            place = (grid.data, grid.model, width)
            methods = {
                label: options[(*place, label)]
                for label in grid.labels
                if (*place, label) in options
            }
            for option, family, labels in _families(methods):
                entries = [grid.entry(label, width) for label in labels.values()]
                found.append(Dependence(option, *place, family, list(labels), entries))
    return found


def _options(cells: pd.DataFrame) -> dict[tuple[str, ...], tuple[str, dict[str, Any]]]:
    """Method and options by data, model, width and label."""
    varied = cells[(cells["role"] == "final") & cells["tuned"].isna() & cells["options"].notna()]
    rows = varied.drop_duplicates([*GROUP, "label"]).to_dict("records")
    return {
        (row["data"], row["model"], row["width"], row["label"]): (row["method"], options)
        for row in rows
        if isinstance(options := json.loads(row["options"]), dict)
    }


def _families(
    methods: Mapping[str, tuple[str, dict[str, Any]]],
) -> Iterator[tuple[str, str, dict[float, str]]]:
    """Option, name of the family, and its labels by the option's value, ascending."""
    groups: dict[tuple[str, str, str], dict[float, str]] = {}
    for label, (method, options) in methods.items():
        for option, value in options.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = {name: other for name, other in options.items() if name != option}
                key = (option, method, json.dumps(rest, sort_keys=True))
                groups.setdefault(key, {})[float(value)] = label
    for (option, method, _), labels in groups.items():
        if len(labels) >= _LEAST:
            yield option, _common(labels.values(), option, method), dict(sorted(labels.items()))


def _common(labels: Iterable[str], option: str, method: str) -> str:
    """Labels without the option in which they differ; the method if they differ in more."""
    assignment = re.compile(rf"(?<=[:,]){re.escape(option)}=[^,]*,?")
    texts = {assignment.sub("", label).rstrip(":,") for label in labels}
    return texts.pop() if len(texts) == 1 else method
