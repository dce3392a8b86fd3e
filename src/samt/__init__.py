"""Stochastic alternating minimization with trainable step sizes: a PyTorch optimizer.

optimizer = samt.SAMT(samt.blocks(model), total_steps=epochs * len(loader))
for inputs, targets in loader:
    optimizer.zero_grad()
    loss_fn(model(inputs), targets).backward()
    optimizer.step()
"""

from samt import errors
from samt.auto import AutoSAMT
from samt.blocks import blocks
from samt.closures import closure
from samt.history import History
from samt.optimizer import PaperSAMT
from samt.passes import Passes
from samt.presets import SAMT

__all__ = [
    "SAMT",
    "AutoSAMT",
    "History",
    "PaperSAMT",
    "Passes",
    "blocks",
    "closure",
    "errors",
]
__version__ = "0.1.0"
