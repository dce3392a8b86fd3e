"""What the project has promised, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .methods import METHODS
from .models import MODELS
from .results import Row

Table = dict[str, Row]  # rows of one model, by method
Measure = Callable[[Table, str], float | None]


@dataclass(frozen=True)
class Target:
    """A promise about one model.

    Args:
        model: a key of `MODELS`.
        what: for people.
        limit: the number that was promised.
        measure: finds the number in a model's rows; None where a row is missing.
        methods: that are allowed to keep the promise; the best of them counts.
        at_least: the number shall be as large as the limit, not as small.
    """

    model: str
    what: str
    limit: float
    measure: Measure
    methods: tuple[str, ...]
    at_least: bool = False

    def line(self, rows: Sequence[Row]) -> str | None:
        """A line of a Markdown table; None if nothing was measured."""
        table = {row.method: row for row in rows if row.model == self.model}
        values = [(self.measure(table, name), name) for name in self.methods]
        known = [(value, name) for value, name in values if value is not None]
        if not known:
            return None
        value, name = max(known) if self.at_least else min(known)
        met = value >= self.limit if self.at_least else value <= self.limit
        sign = "≥" if self.at_least else "≤"
        cells = (MODELS[self.model].title, self.what, f"{sign} {self.limit:g}", f"{value:.2f}")
        return f"| {' | '.join(cells)} | {'yes' if met else '**no**'} | {METHODS[name].title} |"


def _to_sgd(table: Table, method: str) -> float | None:
    return table[method].ratio if method in table else None


def _beside(other: Callable[[str], str], number: Callable[[Row], float | None]) -> Measure:
    """The number of another method over that of a method."""

    def measure(table: Table, method: str) -> float | None:
        if method not in table or other(method) not in table:
            return None
        mine, theirs = number(table[method]), number(table[other(method)])
        return theirs / mine if mine and theirs else None

    return measure


def _inverse(measure: Measure) -> Measure:
    def inverse(table: Table, method: str) -> float | None:
        value = measure(table, method)
        return 1 / value if value else None

    return inverse


def _ratio(row: Row) -> float | None:
    return row.ratio


def _step_mib(row: Row) -> float | None:
    return row.step_mib


def _reference(method: str) -> str:
    return "-".join(["reference", *method.split("-")[1:]])


_faster = _beside(_reference, _ratio)
_elementwise = _inverse(_beside(lambda method: method.replace("element", "scalar"), _ratio))
_memory = _inverse(_beside(lambda _: "sgd", _step_mib))


_to_fused_adam = _inverse(_beside(lambda _: "adam-fused", _ratio))


def _both(mode: str, granularity: str = "scalar") -> tuple[str, str]:
    return f"eager-{mode}-{granularity}", f"compiled-{mode}-{granularity}"


def _mlp_targets() -> list[Target]:
    limits = {
        "mlp-100": (2.5, None, 1.8, 1.6),
        "mlp-800": (2.4, 3.5, 1.8, 1.4),
        "mlp-4x512": (3.0, 3.8, 2.2, 1.4),
    }
    found = []
    for model, (compiled, eager, per_layer, whole) in limits.items():
        exact = "exact `subset`"
        methods = ("compiled-subset-scalar",)
        found.append(Target(model, f"{exact}, compiled", compiled, _to_sgd, methods))
        if eager is not None:
            methods = ("eager-subset-scalar",)
            found.append(Target(model, f"{exact}, eager", eager, _to_sgd, methods))
        found.append(Target(model, "`next`, per layer", per_layer, _to_sgd, _both("next")))
        found.append(Target(model, "`next`, whole model", whole, _to_sgd, _both("whole")))
    return found


TARGETS: tuple[Target, ...] = (
    *_mlp_targets(),
    Target("resnet18", "`subset`: times faster than reference", 6, _faster, _both("subset"), True),
    Target("resnet18", "`next`: times faster than reference", 10, _faster, _both("next"), True),
    Target("resnet18", "`next`, whole model", 1.15, _to_sgd, _both("whole")),
    Target(
        "resnet18",
        "memory of an exact step over that of SGD",
        2,
        _memory,
        ("eager-subset-scalar",),
    ),
    *(
        Target(model, "AutoSAMT", 1.25, _to_sgd, ("auto-samt",))
        for model in MODELS
        if model.startswith("mlp")
    ),
    Target("transformer", "AutoSAMT over fused Adam", 1.15, _to_fused_adam, ("auto-samt",)),
    *(
        Target(model, "element over scalar, `subset`", 1.5, _elementwise, (method,))
        for model in MODELS
        for method in _both("subset", "element")
    ),
)
