"""The table of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from samt.bench.comparison import Summary
from samt.bench.report.progress import metric_text
from samt.bench.statistics import Spread


def comparison_table(summaries: Sequence[Summary], metric: str, title: str) -> Table:
    """Lay out a comparison for the terminal.

    Args:
        summaries: one for each method.
        metric: "accuracy" or "rmse".
        title: above the table.

    Returns:
        A table for `rich.console.Console.print`.
    """
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.caption, table.caption_justify = _caption(summaries), "left"
    table.add_column("method", overflow="fold", style="bold")
    for heading in (f"test\n{metric}", "best", "train\nloss", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("passes\nper step", justify="right")
    table.add_column("status")
    for row in summaries:
        table.add_row(
            Text(row.label.replace(":", ": ").replace(",", ", ")),  # places to break the line
            spread_text(row.final, lambda value: metric_text(metric, value)),
            spread_text(row.best, lambda value: metric_text(metric, value)),
            spread_text(row.train_loss, lambda value: f"{value:.3g}"),
            f"{row.seconds.mean:.1f}",
            _passes(row),
            Text(row.status, style="" if row.status == "finished" else "bold red"),
        )
    return table


def _passes(row: Summary) -> str:
    if math.isnan(row.forward_per_step):
        return "unknown"
    return f"{row.forward_per_step:.4g} + {row.backward_per_step:.4g}"


def spread_text(spread: Spread, text: Callable[[float], str]) -> str:
    """Mean, and below it the deviation if there is one.

    Args:
        spread: over seeds.
        text: of a single number.
    """
    if math.isnan(spread.deviation):
        return text(spread.mean)
    return f"{text(spread.mean)}\n± {text(spread.deviation)}"


def _caption(summaries: Sequence[Summary]) -> str:
    seeds = max(row.seeds for row in summaries)
    spread = f"mean ± standard deviation of {seeds} seeds; " if seeds > 1 else ""
    return f"{spread}seconds of training without evaluation; passes forward + backward"
