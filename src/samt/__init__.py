"""Two PyTorch optimizers that learn their step sizes while they train.

`AutoSAMT` needs nothing chosen; `SAMT` is the published method.

    optimizer = samt.AutoSAMT(model)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss_fn(model(inputs), targets).backward()
        optimizer.step()
"""

from samt import baselines, errors
from samt.alternating.samt import SAMT
from samt.auto.auto_samt import AutoSAMT
from samt.block_optimizer import Passes
from samt.closures import closure
from samt.history import History
from samt.partition import blocks

__all__ = [
    "SAMT",
    "AutoSAMT",
    "History",
    "Passes",
    "baselines",
    "blocks",
    "closure",
    "errors",
]
__version__ = "0.1.0"
