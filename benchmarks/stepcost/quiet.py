"""How busy others keep the machine, while all methods wait.

Two threads on two cores, one of which another process uses, can be five times slower than one
thread alone, and for minutes; medians and quartiles do not show that.
"""

from __future__ import annotations

import time
from pathlib import Path

BUSY = 0.1  # share of the processors above which a measurement is doubtful
_PROBE = 0.1  # seconds
_STAT = Path("/proc/stat")


def others() -> float | None:
    """Share of all processors that is in use now; None where the system does not tell.

    Call it while the workers wait.
    """
    if not _STAT.exists():
        return None
    before = _times()
    time.sleep(_PROBE)
    used, total = (now - then for now, then in zip(_times(), before, strict=True))
    return used / total if total else 0.0


def _times() -> tuple[int, int]:
    """Clock ticks of all processors since the start: at work, and altogether."""
    ticks = [int(word) for word in _STAT.read_text().partition("\n")[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # the latter: waiting for a disk
    return sum(ticks) - idle, sum(ticks)
