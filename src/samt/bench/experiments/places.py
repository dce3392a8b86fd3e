"""Where a cell stands in its experiment, and in which order the cells of an experiment stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from samt.bench.data.registry import short_name
from samt.bench.experiments.spec import Experiment
from samt.bench.settings import width_text

Entry = dict[str, Any]

_PLACE = ("role", "label", "data", "model", "width", "seed")
_AXES = ("data", "model", "width", "label")  # from the slowest to the fastest


def place(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What two cells have in common that are one place of a table, whatever code and device are.

    >>> place({"identity": "6b", "role": "final", "label": "SGD", "seed": 1})
    ('final', 'SGD', '1')
    """
    # Without a seed of its own it is like no other one.
    own = () if "seed" in entry else (str(entry["identity"]),)
    return tuple(str(entry[name]) for name in _PLACE if name in entry) + own


def file_order(experiment: Experiment) -> dict[str, list[str]]:
    """The values of each axis of a table, in the order of the experiment's file."""
    return {
        "data": [short_name(data) for data in experiment.data],
        "model": list(experiment.model),
        "width": [width_text(hidden) for hidden in experiment.width],
        "label": [label for method in experiment.methods for label, _ in method.variants()],
    }


def ordered(entries: Iterable[Entry], order: object) -> list[Entry]:
    """The cells in the order of the file, in whichever order their parts were run.

    Args:
        entries: of an experiment's record.
        order: as of `file_order`; values that are not in it come last, as they come.

    Returns:
        First those that choose options, then the others.

    >>> mnist, digits = {"role": "final", "data": "mnist"}, {"role": "final", "data": "digits"}
    >>> [one["data"] for one in ordered([digits, mnist], {"data": ["mnist", "digits"]})]
    ['mnist', 'digits']
    """
    entries = list(entries)
    axes = {axis: _values(order, axis, entries) for axis in _AXES}

    def key(entry: Entry) -> tuple[int, ...]:
        found = [_index(str(entry.get(axis)), values) for axis, values in axes.items()]
        seed = entry.get("seed")
        return (_is_final(entry), *found, seed if _is_final(entry) and isinstance(seed, int) else 0)

    return sorted(entries, key=key)


def _is_final(entry: Entry) -> bool:
    return entry.get("role") != "tuning"


def _values(order: object, axis: str, entries: Iterable[Entry]) -> list[str]:
    found = order.get(axis) if isinstance(order, Mapping) else None
    values = [str(one) for one in found] if isinstance(found, list) else []
    values += [str(one.get(axis)) for one in entries if _is_final(one)]
    return list(dict.fromkeys(values))


def _index(value: str, values: list[str]) -> int:
    """Of the value; a cell that chooses options has them behind its method's label."""
    if value in values:
        return values.index(value)
    known = [one for one in values if value.startswith(f"{one}:")]
    return values.index(max(known, key=len)) if known else len(values)
