"""What each step did: losses and step sizes, kept as tensors until somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Watched(Protocol):
    """An optimizer that calls `record` of its history, if it has one."""

    history: History | None


class Entry(NamedTuple):
    """One update of one block."""

    step: int
    block: str
    parameters: tuple[str, ...]
    loss: Tensor | float | None
    step_sizes: Tensor  # (parameters, 3): mean, min, max


def summary(step_sizes: Sequence[Tensor]) -> Tensor:
    """Mean, min and max of each step size, shape (parameters, 3)."""
    return torch.stack([torch.stack((eta.mean(), eta.min(), eta.max())) for eta in step_sizes])


class History:
    """Record what an optimizer does, from now on.

    Nothing is read back from the device while training: `rows` and `latest` do that.

    Args:
        optimizer: the SAMT to watch; it has one history at a time.
        every: record every so many calls of `step`.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = samt.SAMT(samt.blocks(model))
        >>> history = samt.History(optimizer)
        >>> batch = torch.ones(4, 2), torch.zeros(4, 1)
        >>> loss = optimizer.step(samt.closure(model, torch.nn.MSELoss(), *batch))
        >>> [(row["step"], row["parameter"]) for row in history.rows]
        [(0, 'weight'), (0, 'bias')]
    """

    def __init__(self, optimizer: Watched, every: int = 1) -> None:
        self.every = every
        self.entries: list[Entry] = []
        optimizer.history = self

    def record(
        self,
        step: int,
        group: dict[str, Any],
        loss: Tensor | float | None,
        step_sizes: Callable[[], Tensor],
    ) -> None:
        """Called by the optimizer after each update of a block; see `summary` for `step_sizes`."""
        if step % self.every:
            return
        rows = step_sizes()
        names = group.get("param_names") or [str(i) for i in range(len(rows))]
        self.entries.append(Entry(step, group["name"], tuple(names), loss, rows))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each update and parameter.

        Returns:
            Dicts with `step`, `block`, `parameter`, `loss` (of the first pass of the block's
            update), and the mean, min and max of η: `step_size`, `step_size_min`,
            `step_size_max`.
        """
        return [
            {
                "step": entry.step,
                "block": entry.block,
                "parameter": name,
                "loss": None if entry.loss is None else float(entry.loss),
                "step_size": mean,
                "step_size_min": low,
                "step_size_max": high,
            }
            for entry in self.entries
            for name, (mean, low, high) in zip(
                entry.parameters, entry.step_sizes.tolist(), strict=True
            )
        ]

    def latest(self) -> dict[str, float]:
        """Mean step size of each block's last recorded update."""
        last = {entry.block: entry for entry in self.entries}
        return {name: float(entry.step_sizes[:, 0].mean()) for name, entry in last.items()}

    def clear(self) -> None:
        """Forget what was recorded; recording goes on."""
        self.entries.clear()
