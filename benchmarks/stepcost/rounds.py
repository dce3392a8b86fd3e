"""The turns: in every round each method takes a few steps, just after a few of torch SGD."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import quiet
from .methods import BASELINE
from .worker import Failed, Ready, Settings, Worker

_ROUNDS = 12
_FEWEST = 3
_STALE = 1.0  # seconds after which a turn of SGD says too little about the machine's speed now

Say = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How much time the methods get.

    Args:
        seconds: for each method on each model, in all its turns.
        slow: a method with a first step longer than this is slow.
        slow_rounds: turns of a slow method, of one step each; 0: its first step counts.
        limit: seconds until a method is warm; then it is given up.
        compile_limit: the same for methods that compile.
    """

    seconds: float
    slow: float
    slow_rounds: int
    limit: float
    compile_limit: float

    def plan(self, ready: Ready) -> tuple[int, int]:
        """Rounds, and steps in each turn."""
        if ready.seconds > self.slow:
            return self.slow_rounds, 1
        steps = max(1, round(self.seconds / _ROUNDS / max(ready.seconds, 1e-6)))
        rounds = int(self.seconds / (steps * max(ready.seconds, 1e-6)))
        return max(_FEWEST, min(_ROUNDS, rounds)), steps


@dataclass
class Measurement:
    """What is known of a method.

    Args:
        ready: how it came up.
        rounds: that it has taken part in.
        steps: in each turn.
        seconds: per step, one for each turn.
        ratios: to SGD, one for each turn.
        busy: share of the processors that others used meanwhile; None if unknown.
    """

    ready: Ready
    rounds: int
    steps: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    busy: float | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the ratios: the first, the median, the third."""
        if len(self.ratios) == 1:
            return self.ratios[0], self.ratios[0], self.ratios[0]
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, middle, high


class _Baseline:
    """Torch SGD: what all others are compared with, while the machine is as fast as it is now."""

    def __init__(self, worker: Worker, measurement: Measurement) -> None:
        self._worker, self._measurement = worker, measurement
        self._latest = 0.0
        self._until = 0.0

    def recent(self) -> float:
        """Seconds per step of SGD, measured now or just before."""
        return self.now() if time.monotonic() > self._until else self._latest

    def now(self) -> float:
        """Seconds per step of SGD, measured now."""
        started = time.monotonic()
        seconds = self._worker.turn(self._measurement.steps)
        if isinstance(seconds, Failed):
            raise RuntimeError(f"torch SGD stopped: {seconds.why}")
        ended = time.monotonic()
        self._latest = seconds
        self._measurement.seconds.append(seconds)
        self._until = ended + max(_STALE, ended - started)
        return seconds

    def around(self, before: float, taken: float) -> float:
        """Seconds per step of SGD beside a turn, after one that took long also after it."""
        return (before + self.now()) / 2 if taken > _STALE else before


def measure(
    model: str, methods: Sequence[str], settings: Settings, budget: Budget, say: Say
) -> dict[str, Measurement | Failed]:
    """Measure methods on a model, torch SGD first.

    Args:
        model: a key of `ALL_MODELS`.
        methods: keys of `METHODS`, `sgd` among them.
        settings: of all of them.
        budget: how long it may take.
        say: is told what happens.

    Returns:
        One entry for each method.

    Raises:
        RuntimeError: torch SGD itself cannot run.
    """
    workers: dict[str, Worker] = {}
    found: dict[str, Measurement | Failed] = {}
    try:
        say(f"{model}: warming up {BASELINE}")
        workers[BASELINE] = Worker(model, BASELINE, settings)
        ready = workers[BASELINE].ready(budget.limit)
        if isinstance(ready, Failed):
            raise RuntimeError(f"torch SGD cannot run {model}: {ready.why}")
        sgd = found[BASELINE] = Measurement(ready, *budget.plan(ready))
        baseline = _Baseline(workers[BASELINE], sgd)
        for method in methods:
            if method != BASELINE:
                say(f"{model}: warming up {method}")
                workers[method] = Worker(model, method, settings)
                found[method] = _warmed_up(workers[method], method, budget, baseline)
        busy = _take_turns(model, workers, found, baseline, say)
    finally:
        for worker in workers.values():
            worker.stop()
    middle = statistics.median(sgd.seconds)
    sgd.ratios = [seconds / middle for seconds in sgd.seconds]
    sgd.rounds = len(sgd.seconds)
    for mine in found.values():
        if isinstance(mine, Measurement):
            mine.busy = statistics.median(busy) if busy else None
    return found


def _warmed_up(
    worker: Worker, method: str, budget: Budget, baseline: _Baseline
) -> Measurement | Failed:
    before = baseline.recent()
    limit = budget.compile_limit if method.startswith("compiled") else budget.limit
    ready = worker.ready(limit)
    if isinstance(ready, Failed):
        worker.stop()
        return ready
    mine = Measurement(ready, *budget.plan(ready))
    if mine.rounds == 0:  # the machine may be another one by the time of the rounds
        mine.seconds.append(ready.first)
        mine.ratios.append(ready.first / baseline.around(before, ready.first))
    return mine


def _take_turns(
    model: str,
    workers: Mapping[str, Worker],
    found: dict[str, Measurement | Failed],
    baseline: _Baseline,
    say: Say,
) -> list[float]:
    """All rounds; how busy others kept the machine before each."""
    last = max(m.rounds for m in found.values() if isinstance(m, Measurement))
    busy: list[float] = []
    for turn in range(max(1, last)):
        say(f"{model}: round {turn + 1} of {last}")
        share = quiet.others()
        busy += [] if share is None else [share]
        baseline.now()
        for method, worker in workers.items():
            mine = found[method]
            if method == BASELINE or isinstance(mine, Failed) or turn >= mine.rounds:
                continue
            if mine.ready.seconds > _STALE:
                say(f"{model}: round {turn + 1} of {last}, {method}")
            before = baseline.recent()
            seconds = worker.turn(mine.steps)
            if isinstance(seconds, Failed):
                found[method] = seconds
            else:
                mine.seconds.append(seconds)
                mine.ratios.append(seconds / baseline.around(before, seconds * mine.steps))
    return busy
