"""Progress of a run: a bar in a terminal, one line for each epoch elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from samt.bench.results import Record
from samt.bench.runs import Observer


def metric_text(metric: str, value: float) -> str:
    """A metric as people read it.

    Args:
        metric: "accuracy" or "rmse".
        value: a share of 1, or a root mean squared error.

    Returns:
        For example "98.1 %" or "55.2".
    """
    if metric == "accuracy" and math.isfinite(value):
        return f"{100 * value:.2f} %"
    return f"{value:.3f}"


def _step_sizes_text(step_sizes: dict[str, float]) -> str:
    known = ((name, value) for name, value in step_sizes.items() if not math.isnan(value))
    return "  ".join(f"{name} {value:.4f}" for name, value in known)


class _Bar(Progress):
    """A bar with the step sizes in a line of their own, however many blocks there are."""

    step_sizes = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(f"  step size  {self.step_sizes}", style="dim", overflow="ellipsis")


class BarObserver:
    """Shows a run as a bar that counts steps.

    Args:
        console: where to draw.
        label: of the run.
    """

    def __init__(self, console: Console, label: str) -> None:
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[metric]}"),
            TimeRemainingColumn(),
        ]
        # Drawn on request: a thread that redraws would run inside the time that is measured.
        self.bar = _Bar(*columns, console=console, auto_refresh=False, expand=True)
        self._task = self.bar.add_task(label, total=None, epoch="0", loss="", metric="")
        self._epochs = 0
        self._steps = 1

    def started(self, record: Record, epochs: int) -> None:
        self._epochs, self._steps = epochs, record.steps_per_epoch
        self.bar.update(self._task, total=max(epochs, record.last.epoch) * self._steps)
        self.epoch(record)

    def step(self, epoch: int, steps: int, loss: float, step_sizes: dict[str, float]) -> None:
        done = (epoch - 1) * self._steps + steps
        self.bar.step_sizes = _step_sizes_text(step_sizes)
        self.bar.update(
            self._task, completed=done, epoch=f"{epoch}/{self._epochs}", loss=f"{loss:.4f}"
        )
        self.bar.refresh()

    def epoch(self, record: Record) -> None:
        last = record.last
        self.bar.step_sizes = _step_sizes_text(last.step_sizes)
        self.bar.update(
            self._task,
            completed=last.epoch * self._steps,
            epoch=f"{last.epoch}/{self._epochs}",
            loss=f"{last.train_loss:.4f}",
            metric=f"{record.metric} {metric_text(record.metric, last.test_metric)}",
        )
        self.bar.refresh()


class LineObserver:
    """Writes a line for each epoch, for log files and pipes.

    Args:
        console: where to write.
        label: of the run.
    """

    def __init__(self, console: Console, label: str) -> None:
        self.console = console
        self.label = label
        self._epochs = 0

    def started(self, record: Record, epochs: int) -> None:
        self._epochs = epochs
        self.epoch(record)

    def step(self, epoch: int, steps: int, loss: float, step_sizes: dict[str, float]) -> None:
        pass

    def epoch(self, record: Record) -> None:
        last = record.last
        sizes = f"  step size {_step_sizes_text(last.step_sizes) or 'none yet'}"
        self.console.print(
            f"{self.label}  epoch {last.epoch}/{self._epochs}  loss {last.train_loss:.4f}  "
            f"{record.metric} {metric_text(record.metric, last.test_metric)}"
            f"{sizes if last.step_sizes else ''}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def watch(console: Console, label: str) -> Iterator[Observer]:
    """Show a run while it goes on.

    Args:
        console: a bar is drawn if it is a terminal.
        label: of the run.

    Yields:
        The observer to hand to the run.
    """
    if not console.is_terminal:
        yield LineObserver(console, label)
        return
    observer = BarObserver(console, label)
    with observer.bar:
        yield observer
