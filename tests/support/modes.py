"""Options of SAMT, one for each way in which a step evaluates the loss."""

from __future__ import annotations

from typing import Any

MODES: list[dict[str, Any]] = [
    {},
    {"meta_batch": "same"},
    {"meta_batch": "next"},
    {"meta_batch": "fresh"},
    {"parts": "fixed"},
    {"inner_steps": 2, "order": "reverse"},
    {"order": "cyclic", "meta_batch": "next"},
]
