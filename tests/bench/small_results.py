"""Two identities and a small result for tests of the store, and what they look at."""

from __future__ import annotations

import math
from typing import Any

import pytest

from samt.bench.errors import ResultsError
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.store import Store

ONE, TWO = "0123456789abcdef", "f" * 16
SUMMARY = {"status": "finished", "cell": {"seed": 1}, "wall_seconds": 1.5, "text": "é\n\ud800"}
ROW: dict[str, Any] = {
    "step": 7,
    **{name: float(index) for index, name in enumerate(curve_schema().names[2:-3])},
    "forward_passes": 14,
    "backward_passes": 7,
    "step_sizes": {"hidden1": 0.5, "output": math.nan},
}


def names(store: Store) -> list[str]:
    """Every file of a store."""
    found: list[str] = store._fs.find(store._root)
    return sorted(path.removeprefix(f"{store._root}/") for path in found)


def one_line(caught: pytest.ExceptionInfo[ResultsError]) -> str:
    """The message of an error, which must be a single line."""
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
