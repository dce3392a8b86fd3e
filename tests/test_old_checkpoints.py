"""State dicts that version 0.1.0 wrote load, and training goes on as it did there.

The file holds, for each optimizer, the model and the state after five steps, and the losses and
weights of five steps more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.baselines import Dante

FILE = Path(__file__).parent / "support" / "checkpoints" / "version_0_1_0.pt"
MAKE: dict[str, Callable[[Any], Any]] = {
    "samt": lambda b: samt.SAMT(b, step_size="row", eta_hidden=4, weight_decay=0.01),
    "samt next": lambda b: samt.SAMT(
        b,
        step_size="element",
        head="dense",
        meta_batch="next",
        radius=1.0,
        eta_hidden=4,
        order="cyclic",
    ),
    "samt-preset": lambda b: samt.SAMT(b, relative=True, eta_hidden=4),
    "dante": lambda b: Dante(b, 0.05, inner_iterations=2),
}


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return inputs, inputs[:, :3].argmax(1)


@pytest.mark.parametrize("kind", MAKE)
def test_training_goes_on_as_it_did(kind: str) -> None:
    saved = torch.load(FILE, weights_only=True)[kind]
    model = nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(), nn.Linear(5, 3)).double()
    model.load_state_dict(saved["model"])
    optimizer = MAKE[kind](samt.blocks(model))
    optimizer.load_state_dict(saved["optimizer"])
    assert all("preset" not in group for group in optimizer.param_groups)
    loss_fn = nn.functional.cross_entropy
    losses = [float(optimizer.step(samt.closure(model, loss_fn, *batch(i)))) for i in range(5, 10)]
    assert losses == pytest.approx(saved["losses"], rel=1e-9)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, saved["after"][name], rtol=1e-9, atol=1e-12)
    state = optimizer.state_dict()
    other = MAKE[kind](samt.blocks(model))
    other.load_state_dict(state)
