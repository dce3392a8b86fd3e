"""The newest step sizes of an optimizer, without a history that grows."""

from __future__ import annotations

from typing import Any

from samt.errors import OptionError
from samt.history import History


class Newest:
    """Mean step size of each block's last update.

    Args:
        optimizer: an optimizer of samt, or a wrapper that has it as its attribute `optimizer`. A
            history that the optimizer has already is read and left alone.

    Raises:
        OptionError: the optimizer keeps no history.
    """

    def __init__(self, optimizer: Any) -> None:
        while not hasattr(optimizer, "history") and hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        if not hasattr(optimizer, "history"):
            raise OptionError(
                f"StepSizes cannot see into {type(optimizer).__name__}: "
                "train with samt.AutoSAMT(model), or leave the callback out"
            )
        self._is_own = optimizer.history is None
        self._history: History = History(optimizer) if self._is_own else optimizer.history

    def step_sizes(self) -> dict[str, float]:
        """`step_size/BLOCK` and its value, for a logger."""
        return {f"step_size/{block}": size for block, size in self._history.latest().items()}

    def forget(self) -> None:
        """Keep each block's last update alone, unless the history is somebody else's."""
        if self._is_own:
            last = {entry.block: entry for entry in self._history.entries}
            self._history.entries[:] = last.values()
