"""Stochastic alternating minimization with trainable step sizes: a PyTorch optimizer.

optimizer = samt.SAMT(samt.blocks(model), lr=0.1, step_size="row")
for inputs, targets in loader:
    loss = optimizer.step(samt.closure(model, loss_fn, inputs, targets))
"""

from samt import errors
from samt.blocks import blocks
from samt.closures import closure
from samt.history import History
from samt.optimizer import SAMT, Passes

__all__ = ["SAMT", "History", "Passes", "blocks", "closure", "errors"]
__version__ = "0.1.0"
