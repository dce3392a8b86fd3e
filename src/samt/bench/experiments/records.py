"""Records as JSON, and heartbeats: notes of who is working on a cell."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any


def as_json(record: Mapping[str, Any]) -> bytes:
    """A record as it stands in a file; what is not finite becomes null, as JSON has no NaN."""
    return (json.dumps(_plain(record), indent=1, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def is_note(record: Mapping[str, Any]) -> bool:
    """Whether this is a heartbeat."""
    time_of_it = record.get("time")
    # Not one that no float can hold.
    return isinstance(time_of_it, int | float) and not abs(time_of_it) >= 1 << 63


def is_alive(note: Mapping[str, Any], within: float) -> bool:
    """Whether somebody is working on a cell.

    Args:
        note: the last heartbeat.
        within: its age in seconds up to which it counts. One of a process of this machine that is
            no longer there does not count.
    """
    if not abs(time.time() - note["time"]) <= within:  # false for NaN, too
        return False
    process = note.get("pid")
    if note.get("host") != socket.gethostname() or not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
