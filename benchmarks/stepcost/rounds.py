"""The turns: in every round each method takes a few steps, just after a few of torch SGD."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    """

    ready: Ready
    rounds: int
    steps: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the ratios: the first, the median, the third."""
        if len(self.ratios) == 1:
            return self.ratios[0], self.ratios[0], self.ratios[0]
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, middle, high


class _Baseline:
    """Torch SGD: its latest turn is what all others are compared with."""

    def __init__(self, worker: Worker, measurement: Measurement) -> None:
        self._worker, self._measurement = worker, measurement
        self._latest = 0.0
        self._until = 0.0

    def fresh(self, again: bool = False) -> float:
        """Seconds per step of SGD, measured now or just before."""
        if again or time.monotonic() > self._until:
            started = time.monotonic()
            seconds = self._worker.turn(self._measurement.steps)
            if isinstance(seconds, Failed):
                raise RuntimeError(f"torch SGD stopped: {seconds.why}")
            now = time.monotonic()
            self._latest = seconds
            self._measurement.seconds.append(seconds)
            self._until = now + max(_STALE, now - started)
        return self._latest


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
        for method in sorted(methods, key=lambda name: name != BASELINE):
            say(f"{model}: warming up {method}")
            workers[method] = Worker(model, method, settings)
            limit = budget.compile_limit if method.startswith("compiled") else budget.limit
            ready = workers[method].ready(limit)
            if isinstance(ready, Failed):
                workers.pop(method).stop()
                found[method] = ready
            else:
                found[method] = Measurement(ready, *budget.plan(ready))
        first = found[BASELINE]
        if isinstance(first, Failed):
            raise RuntimeError(f"torch SGD cannot run {model}: {first.why}")
        baseline = _Baseline(workers[BASELINE], first)
        _take_turns(model, workers, found, baseline, say)
        middle = statistics.median(first.seconds)
        first.ratios = [seconds / middle for seconds in first.seconds]
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def _take_turns(
    model: str,
    workers: Mapping[str, Worker],
    found: dict[str, Measurement | Failed],
    baseline: _Baseline,
    say: Say,
) -> None:
    last = max(m.rounds for m in found.values() if isinstance(m, Measurement))
    for turn in range(last):
        say(f"{model}: round {turn + 1} of {last}")
        baseline.fresh(again=True)
        for method, worker in workers.items():
            mine = found[method]
            if method == BASELINE or isinstance(mine, Failed) or turn >= mine.rounds:
                continue
            if mine.ready.seconds > _STALE:
                say(f"{model}: round {turn + 1} of {last}, {method}")
            sgd = baseline.fresh()
            seconds = worker.turn(mine.steps)
            if isinstance(seconds, Failed):
                found[method] = seconds
            else:
                mine.seconds.append(seconds)
                mine.ratios.append(seconds / sgd)
    for mine in found.values():
        if isinstance(mine, Measurement) and mine.rounds == 0:
            mine.seconds.append(mine.ready.first)
            mine.ratios.append(mine.ready.first / baseline.fresh())
