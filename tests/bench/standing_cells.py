"""Small tables of results for comparisons of methods."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def cells(metric: str, values: dict[str, list[float]], width: str = "8") -> pd.DataFrame:
    """A row for each seed; NaN stands for a run that diverged."""
    rows: list[dict[str, Any]] = [
        {
            "role": "final",
            "status": "diverged" if math.isnan(value) else "finished",
            "data": "digits",
            "model": "mlp",
            "width": width,
            "label": label,
            "seed": seed,
            "metric": metric,
            **dict.fromkeys(("test_metric", "best_test_metric"), value),
            **dict.fromkeys(("train_loss", "seconds", "passes"), 1.0),
        }
        for label, own in values.items()
        for seed, value in enumerate(own)
    ]
    return pd.DataFrame(rows)
