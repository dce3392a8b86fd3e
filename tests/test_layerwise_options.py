"""The options of the layer-wise solvers: what there is, and its defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from samt.errors import UnknownOptionError

from .support.layerwise import SOLVERS, data, solver


@pytest.mark.parametrize("name", SOLVERS)
def test_an_unknown_option_is_answered_with_those_that_there_are(name: str) -> None:
    known = list(DEFAULTS[name])
    with pytest.raises(UnknownOptionError, match="its options are " + ", ".join(known)):
        SOLVERS[name](*data(), [5], nonsense=1)
    if "weight_std" not in known:
        with pytest.raises(UnknownOptionError, match="no option 'weight_std'"):
            SOLVERS[name](*data(), [5], weight_std=0.1)


_FIRST = {"activation": "relu", "negative_slope": 0.01}
DEFAULTS: dict[str, dict[str, Any]] = {
    "dladmm": {
        **{**_FIRST, "loss": "cross_entropy", "outputs": None, "rho": 1e-6, "tau": 1.0},
        **{"theta": 1.0, "scheduled": True, "tolerance": 1e-3, "weight_std": 0.1, "seed": 0},
    },
    "mdlam": {
        **{**_FIRST, "loss": "cross_entropy", "outputs": None, "rho": 1e-3, "mu": 0.05},
        **{"epsilon": 100.0, "min_epsilon": 1e-3, "accelerated": True, "max_curvature": math.inf},
        **{"tolerance": 1e-4, "weight_std": 0.1, "seed": 0},
    },
    "bcd": {
        **{**_FIRST, "loss": "squared", "outputs": None, "gamma": 1.0, "rho": 1.0, "alpha": 5.0},
        **{"tolerance": 1e-4, "weight_std": 0.01, "seed": 0},
    },
    "scaled_admm": {
        **{**_FIRST, "loss": "hinge", "outputs": None, "beta": 1.0, "gamma": 10.0},
        **{"warm_start": 10, "tolerance": 1e-4, "seed": 0},
    },
}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_options_and_their_defaults_are_these(name: str) -> None:
    kind = type(solver(name))
    assert list(kind.options().items()) == list(DEFAULTS[name].items())
    options = {o: v for o, v in DEFAULTS[name].items() if o != "outputs"}
    spelled_out, bare = (SOLVERS[name](*data(), [5], **o) for o in (options, {}))
    for _ in range(2):
        assert spelled_out.step() == bare.step()
    for one, other in zip(spelled_out.weights, bare.weights, strict=True):
        assert torch.equal(one, other)
