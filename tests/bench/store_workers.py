"""What processes of their own do with a store. Little is imported, since each of them does it."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from samt.bench.experiments.store import Store

ONE = "0123456789abcdef"


def claim_all(location: str, identities: list[str], barrier: Barrier, found: Connection) -> None:
    """Claim in an order of its own, and stay alive until all are done."""
    store = Store(location)
    order = random.Random(os.getpid()).sample(identities, len(identities))
    barrier.wait()
    found.send([one for one in order if store.claim(one, {"name": "a cell"})])
    barrier.wait()


def claim_one(location: str, found: Connection) -> None:
    """Claim a cell; the heartbeat then is that of a process that is not there any more."""
    found.send(Store(location).claim(ONE, {"name": "a cell"}))


def hold_the_lock(location: str, ready: Connection) -> None:
    """Until somebody kills the process."""
    with Store(location)._locked():
        ready.send(True)
        time.sleep(600)


def fork_with_the_lock(location: str, found: Connection) -> None:
    """Claim a cell while a process lives that was forked when the lock was held."""
    wait, go = os.pipe()
    store = Store(location)
    with store._locked():
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(wait, 1)
            os._exit(0)
    found.send(store.claim(ONE, {}))
    os.close(go)
    os.waitpid(child, 0)


def numbered(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A summary and a curve that can tell whether they are whole."""
    text = hashlib.sha256(str(number).encode()).hexdigest() * (number % 50)
    cell = {"number": number, "text": text}
    rows = [{"step": number, "seconds": float(number)}] * (1 + number % 20)
    return {"status": "finished", "cell": cell}, rows


def write_without_end(location: str, ready: Connection) -> None:
    """Replace every kind of file again and again, until somebody says that it is enough."""
    store = Store(location)
    for number in itertools.count():
        summary, rows = numbered(number)
        store.save(ONE, summary, rows)
        store.save_checkpoint(ONE, f"{number} ".encode() * 1000)
        store.beat(ONE, {"number": number, "text": "x" * (number % 3000)})
        store.save_experiment("t", {"cells": [number] * (number % 300)})
        if number == 0:
            ready.send(True)
        if ready.poll():
            return
