"""The two optimizers, by the names that tests give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import samt

OPTIMIZERS: dict[str, Callable[..., Any]] = {"samt": samt.SAMT, "auto-samt": samt.AutoSAMT}
