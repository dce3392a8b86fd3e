"""How the final metric depends on an option, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from samt.bench.report import wording
from samt.bench.report.markdown import escaped, table
from samt.bench.report.sensitivity import Dependence


def dependence_text(dependences: Sequence[Dependence]) -> str:
    """A table for each option on each data set and network: a row for each method.

    The last column is the distance between its best and its worst mean.

    Args:
        dependences: of `samt.bench.report.sensitivity.dependences`, one or more.
    """
    places: dict[tuple[str, ...], list[Dependence]] = {}
    for one in dependences:
        places.setdefault((one.option, one.data, one.model, one.width), []).append(one)
    return "\n\n".join(
        f"{escaped(wording.place(*key[1:]))}: {_metric(found)}, by {_code(key[0])}\n\n"
        f"{_rows(key[0], found)}"
        for key, found in places.items()
    )


def _code(option: str) -> str:
    return f"`{option}`" if option.isidentifier() else escaped(option)


def _metric(found: Sequence[Dependence]) -> str:
    metric = next((entry.metric for one in found for entry in one.entries if entry.metric), "")
    return wording.metric_name(metric)


def _rows(option: str, found: Sequence[Dependence]) -> str:
    values = sorted({value for one in found for value in one.values})
    rows = []
    for one in found:
        entries = dict(zip(one.values, one.entries, strict=True))
        texts = []
        for value in values:
            entry = entries.get(value)
            text = "" if entry is None else ", ".join(wording.unfinished(entry.statuses))
            if entry is not None and not text:
                mean = entry.spread("final").mean  # nine columns have no room for more
                text = wording.number(mean, wording.decimals(entry.metric, mean))
            texts.append(text)
        rows.append([escaped(one.family), *texts, _range(one)])
    return table([escaped(option), *(f"{value:g}" for value in values), "range"], rows)


def _range(one: Dependence) -> str:
    means = [entry.spread("final").mean for entry in one.entries]
    return wording.number(max(means) - min(means), 2) if all(map(math.isfinite, means)) else ""
