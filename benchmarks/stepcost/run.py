"""Model after model; what is measured is kept after each, and not measured again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import results
from .methods import BASELINE, METHODS
from .models import ALL_MODELS, MODELS
from .quiet import BUSY
from .results import MIB, Conditions, Row
from .rounds import Budget, Measurement, measure
from .scaling import CURVES
from .worker import Failed, Settings, start_early


@dataclass(frozen=True)
class Run:
    """What to measure.

    Args:
        models: keys of `ALL_MODELS`.
        methods: keys of `METHODS`.
        settings: of all methods.
        budget: of time.
        table: the CSV file.
        fresh: measure again what the file has.
    """

    models: Sequence[str]
    methods: Sequence[str]
    settings: Settings
    budget: Budget
    table: Path
    fresh: bool


def methods_of(model: str, methods: Sequence[str]) -> list[str]:
    """The methods that are measured on a model, torch SGD first."""
    curves = {curve.method for curve in CURVES}
    chosen = [name for name in methods if model in MODELS or name in curves]
    if ALL_MODELS[model].heavy:
        # It makes as many passes as the scalar one, for minutes.
        chosen = [name for name in chosen if not _takes_long(name)]
    return list(dict.fromkeys([BASELINE, *chosen]))


def _takes_long(method: str) -> bool:
    known = METHODS[method]
    return known.engine == "reference" and known.granularity == "element"


def measure_all(run: Run, say: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Measure, and write the table after each model.

    Args:
        run: what to measure.
        say: is told what happens now.
        tell: is told what was found.
    """
    start_early()
    finished: set[tuple[str, str]] = set()
    for model in run.models:
        size = run.settings.batch_size or ALL_MODELS[model].batch_size
        conditions = Conditions.here(run.settings, size)
        old = results.load(run.table)
        if not run.fresh:
            finished = {(r.model, r.method) for r in old if r.conditions == conditions}
        wanted = methods_of(model, run.methods)
        left = [name for name in wanted if (model, name) not in finished]
        if not left:
            tell(f"{model}: measured before")
            continue
        rows = []
        for method in left:
            if METHODS[method].missing:
                row = Row(model, method, conditions, results.today(), note=METHODS[method].missing)
                rows.append(row)
        able = [name for name in left if not METHODS[name].missing]
        if able:
            # SGD takes part again even where its own row is there: it is the measure.
            found = measure(
                model, list(dict.fromkeys([BASELINE, *able])), run.settings, run.budget, say
            )
            rows += [_row(model, method, conditions, found[method]) for method in found]
        results.save(run.table, results.merged(old, rows))
        for row in rows:
            tell(_summary(row))
        busy = max((row.busy or 0.0 for row in rows), default=0.0)
        if busy > BUSY:
            tell(f"{model}: other programs used {busy:.0%} of the processors; measure again")


def _row(model: str, method: str, conditions: Conditions, found: Measurement | Failed) -> Row:
    if isinstance(found, Failed):
        return Row(model, method, conditions, results.today(), note=found.why)
    low, middle, high = found.quartiles
    ready = found.ready
    return Row(
        model,
        method,
        conditions,
        results.today(),
        rounds=found.rounds,
        steps=found.steps,
        milliseconds=1e3 * statistics.median(found.seconds),
        ratio=middle,
        low=low,
        high=high,
        forward=ready.passes[0],
        backward=ready.passes[1],
        kept_mib=ready.memory.kept / MIB,
        step_mib=ready.memory.step / MIB,
        settling_s=ready.settling,
        busy=found.busy,
        note="; ".join(ready.notes),
    )


def _summary(row: Row) -> str:
    name = f"{row.model:12} {row.method:26}"
    if row.ratio is None:
        return f"{name} left out: {row.note}"
    return f"{name} {row.ratio:7.2f}  ({row.low:.2f} to {row.high:.2f})"
