"""The same problems in other units: weights, inputs and targets times a constant.

A method without numbers of its own should not notice. The measure is always in the old units.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import linear

from samt.bench.suite.problem import Problem
from samt.bench.suite.samples import Parts
from samt.bench.suite.usual import CLASSES, PIXELS, Change, Network, images, table

_HIDDEN = 50


class StoredInUnits(nn.Module):
    """A linear layer whose weights are stored as a multiple of what they act as.

    Args:
        inputs: the number of inputs.
        outputs: the number of outputs.
        unit: the multiple; the layer divides by it.
    """

    def __init__(self, inputs: int, outputs: int, unit: float) -> None:
        super().__init__()
        self.unit = unit
        start = nn.Linear(inputs, outputs)
        self.weight = nn.Parameter(start.weight.detach() * unit)
        self.bias = nn.Parameter(start.bias.detach() * unit)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `nn.Linear`."""
        return linear(x, self.weight / self.unit, self.bias / self.unit)


def _stored(unit: float) -> Network:
    """A small network for images whose weights are stored in a unit."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            StoredInUnits(PIXELS, _HIDDEN, unit),
            nn.LeakyReLU(),
            StoredInUnits(_HIDDEN, CLASSES, unit),
        )

    return build


def _inputs_times(factor: float) -> Change:
    def change(parts: Parts) -> Parts:
        return parts.with_inputs(lambda inputs: inputs * factor)

    return change


def _targets_times(factor: float) -> Change:
    def change(parts: Parts) -> Parts:
        return parts.with_targets(lambda targets: targets * factor, unit=factor)

    return change


def _in_per_cent(parts: Parts) -> Parts:
    """Pol's targets as they were measured, in per cent: the lowest is 0, the highest 100."""
    lowest, highest = parts.train.targets.min(), parts.train.targets.max()
    unit = 100.0 / (highest - lowest)
    return parts.with_targets(lambda targets: (targets - lowest) * unit, unit=float(unit))


_error = partial(Problem, family="units", metric="error in %", seeds=10)
_rmse = partial(Problem, family="units", metric="RMSE", seeds=10)
_fashion = partial(images, "fashion-mnist", steps=1_600)

PROBLEMS: tuple[Problem, ...] = (
    _error(name="weights-1e-4", chosen_on=False, make=_fashion(_stored(1e-4))),
    _error(name="weights-1e-2", chosen_on=True, make=_fashion(_stored(1e-2))),
    _error(name="weights-1e2", chosen_on=True, make=_fashion(_stored(1e2))),
    _error(name="weights-1e4", chosen_on=False, make=_fashion(_stored(1e4))),
    _error(name="inputs-1e-3", chosen_on=False, make=_fashion(change=_inputs_times(1e-3))),
    _error(name="inputs-1e3", chosen_on=True, make=_fashion(change=_inputs_times(1e3))),
    _rmse(
        name="targets-1e-2",
        chosen_on=True,
        make=table("bike", steps=2_000, change=_targets_times(1e-2)),
    ),
    _rmse(
        name="targets-1e3",
        chosen_on=False,
        make=table("keggdirected", steps=2_000, change=_targets_times(1e3)),
    ),
    _rmse(
        name="targets-raw",
        chosen_on=False,
        make=table("pol", steps=2_000, change=_in_per_cent),
    ),
)
