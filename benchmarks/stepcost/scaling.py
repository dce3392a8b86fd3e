"""Cost against depth and width: what is measured for the pictures, and the floors in theory.

A layer costs F forward, F for the gradient of its weights and F for that of its inputs, so a
step of SGD on L equal layers costs 3LF. See "Floors" on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """A method in the pictures.

    Args:
        method: a key of `METHODS`.
        label: in the legend.
        colour: of its line.
        marker: at its points.
    """

    method: str
    label: str
    colour: str
    marker: str


@dataclass(frozen=True)
class Floor:
    """Cost in theory, as a ratio to SGD.

    Args:
        label: beside the line.
        deep: for a number of equal layers.
        wide: for 784-h-10, where the first layer is nearly all the work.
        colour: of the measured line that belongs to it.
    """

    label: str
    deep: Callable[[int], float]
    wide: float
    colour: str


# Okabe and Ito's colours, which people with any colour vision can tell apart.
_BLACK, _ORANGE, _BLUE, _GREEN = "#444444", "#D55E00", "#0072B2", "#009E73"

CURVES = (
    Curve("reference-same-scalar", "reference, same", _BLACK, "x"),
    Curve("eager-subset-scalar", "exact, subset", _ORANGE, "o"),
    Curve("compiled-subset-scalar", "exact, subset, compiled", _ORANGE, "s"),
    Curve("eager-next-scalar", "next, per layer", _BLUE, "o"),
    Curve("compiled-next-scalar", "next, per layer, compiled", _BLUE, "s"),
    Curve("eager-whole-scalar", "next, whole model", _GREEN, "o"),
)

FLOORS = (
    Floor("naive: 2L", lambda layers: 2.0 * layers, 4.0, _BLACK),
    Floor("subset: (L + 1)/2", lambda layers: (layers + 1) / 2, 2.0, _ORANGE),
    Floor("next: (L + 1)/3", lambda layers: (layers + 1) / 3, 1.5, _BLUE),
    Floor("whole model: 1", lambda _: 1.0, 1.0, _GREEN),
)
WIDE_LABELS = ("naive: 4", "subset: 2", "next: 1.5", "whole model: 1")
