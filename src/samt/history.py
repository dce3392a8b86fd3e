"""What each step did: losses and step sizes, kept as tensors until somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from samt.errors import MissingPackageError, OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from torch.utils.tensorboard import SummaryWriter


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
        optimizer: the optimizer to watch, `SAMT`, `AutoSAMT` or `Dante`; it has one history at a
            time.
        every: the number of calls of `step` from one record to the next (default 1).

    Raises:
        OptionError: `every` is no whole number of 1 or more.

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
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise OptionError(f"every must be a whole number, 1 or more, not {every!r}")
        self.every = every
        self.entries: list[Entry] = []
        optimizer.history = self

    def record(
        self,
        step: int,
        block: str,
        parameters: Sequence[str],
        loss: Tensor | float | None,
        step_sizes: Callable[[], Tensor],
    ) -> None:
        """Keep one update of one block; the optimizer calls this.

        Args:
            step: the number of the step, from 0.
            block: the name of the block.
            parameters: the names of its parameters.
            loss: the loss of the first pass of the update, or None.
            step_sizes: returns the `summary` of η; it is called if this step is recorded.
        """
        if step % self.every == 0:
            self.entries.append(Entry(step, block, tuple(parameters), loss, step_sizes()))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each update and parameter.

        Returns:
            Dicts with `step`, `block`, `parameter`, `loss` (of the first pass of the block's
            update), and the mean, min and max of the step size η: `eta`, `eta_min`, `eta_max`.
        """
        return [
            {
                "step": entry.step,
                "block": entry.block,
                "parameter": name,
                "loss": None if entry.loss is None else float(entry.loss),
                "eta": mean,
                "eta_min": low,
                "eta_max": high,
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

    def frame(self) -> DataFrame:
        """`rows` as a table of pandas.

        Raises:
            MissingPackageError: pandas is not installed.

        Examples:
            >>> import samt, torch
            >>> model = torch.nn.Linear(2, 1)
            >>> history = samt.History(samt.SAMT(samt.blocks(model)))
            >>> history.frame().columns.tolist()[:3]
            ['step', 'block', 'parameter']
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingPackageError("history.frame needs pandas: pip install pandas") from None
        columns = ["step", "block", "parameter", "loss"]
        sizes = ["eta", "eta_min", "eta_max"]
        return pd.DataFrame(self.rows, columns=columns + sizes)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean step size of each block over the steps, on a logarithmic axis.

        Args:
            ax: the axes to draw on (default: the axes of a new figure).

        Returns:
            The axes.

        Raises:
            MissingPackageError: matplotlib is not installed.

        Examples:
            >>> import samt, torch
            >>> model = torch.nn.Linear(2, 1)
            >>> history = samt.History(samt.SAMT(samt.blocks(model)))
            >>> history.plot().get_yscale()
            'log'
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise MissingPackageError(
                "history.plot needs matplotlib: pip install matplotlib"
            ) from None
        if ax is None:
            _, ax = plt.subplots()
        for block, points in self._means().items():
            ax.plot([step for step, _ in points], [size for _, size in points], label=block)
        ax.set(xlabel="step", ylabel="step size", yscale="log")
        if self.entries:
            ax.legend(title="block")
        return ax

    def to_tensorboard(self, writer: SummaryWriter) -> None:
        """Write the mean step size of each block, as `step_size/BLOCK`, and the loss.

        Args:
            writer: an open writer; it is flushed and stays open.

        Examples:
            >>> import samt, tempfile, torch
            >>> from torch.utils.tensorboard import SummaryWriter
            >>> history = samt.History(samt.SAMT(samt.blocks(torch.nn.Linear(2, 1))))
            >>> with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            ...     history.to_tensorboard(writer)
        """
        for block, points in self._means().items():
            for step, size in points:
                writer.add_scalar(f"step_size/{block}", size, step)
        losses: dict[int, Tensor | float] = {}
        for entry in self.entries:
            if entry.loss is not None:
                losses.setdefault(entry.step, entry.loss)  # of the step's first pass
        for step, loss in losses.items():
            writer.add_scalar("loss", float(loss), step)
        writer.flush()

    def _means(self) -> dict[str, list[tuple[int, float]]]:
        """Step and mean step size of each update of each block."""
        found: dict[str, list[tuple[int, float]]] = {}
        for entry in self.entries:
            mean = float(entry.step_sizes[:, 0].mean())
            found.setdefault(entry.block, []).append((entry.step, mean))
        return found

    def clear(self) -> None:
        """Forget what was recorded; recording goes on."""
        self.entries.clear()
