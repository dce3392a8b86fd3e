"""Tables of stored results for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from samt.bench.experiments.frames import PENDING
from samt.bench.experiments.store import STATUSES
from samt.bench.report.progress import metric_text
from samt.bench.report.tables import spread_text
from samt.bench.report.wording import difference
from samt.bench.statistics import Difference, GroupSummary, MeanRank

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 25


def counts_table(counts: pd.DataFrame, location: str) -> Table:
    """How far each experiment is.

    Args:
        counts: of `frames.counts_frame`.
        location: of the results.

    Returns:
        A table; statuses that no cell has are left out.
    """
    shown = [one for one in (*STATUSES, *PENDING) if one == "finished" or counts[one].any()]
    table = _table(f"experiments in {location}", "experiment", *["cells", *shown])
    for name, row in counts.iterrows():
        numbers = [str(row[one]) for one in ("cells", *shown)]
        table.add_row(Text(str(name) or "(of no experiment)"), *numbers)
    return table


def group_table(summaries: Sequence[GroupSummary]) -> Table:
    """All methods on one data set and network.

    Args:
        summaries: of that data set and network.
    """
    first = summaries[0]
    metric = first.metric or "metric"
    heads = (f"test\n{metric}", "best", "train\nloss", "seconds", "passes", "n")
    table = _table(network_text(first.data, first.model, first.width), "method", *heads)
    table.add_column("status")
    for one in summaries:
        table.add_row(
            _broken(one.label),
            *(
                spread_text(spread, lambda value: metric_text(metric, value))
                for spread in (one.final, one.best)
            ),
            spread_text(one.train_loss, lambda value: f"{value:.3g}"),
            spread_text(one.seconds, lambda value: f"{value:.1f}"),
            f"{one.passes.mean:.4g}",
            str(one.final.n),
            Text(one.status, style="" if one.status == "finished" else "bold red"),
        )
    return table


def tuned_table(cells: pd.DataFrame) -> Table | None:
    """What the validation part chose; None if it had nothing to choose.

    Args:
        cells: of `frames.cells_frame`.
    """
    tuned = cells[(cells["role"] == "final") & cells["tuned"].notna()]
    if not len(tuned):
        return None
    table = _table("chosen on the validation part", "data, network")
    for head in ("method", "options"):
        table.add_column(head, overflow="fold")
    chosen = tuned.drop_duplicates(["data", "model", "width", "label", "tuned"])
    for row in chosen.to_dict("records"):
        network = network_text(row["data"], row["model"], row["width"])
        table.add_row(Text(network), _broken(row["label"]), Text(row["tuned"].strip("{}")))
    return table


def ranks_table(ranks: Sequence[MeanRank], what: str) -> Table:
    """Mean ranks.

    Args:
        ranks: the best one first.
        what: is ranked, for the title.
    """
    table = _table(f"mean rank by {what}, 1 is best", "method", "rank", "of")
    for one in ranks:
        table.add_row(_broken(one.label), f"{one.mean:.2f}", str(one.n))
    table.caption = "of: number of data sets and networks that all methods have"
    table.caption_justify = "left"
    return table


def differences_table(differences: Sequence[Difference], what: str) -> Table:
    """Paired differences with their intervals.

    Args:
        differences: of `statistics.paired_differences`.
        what: differs, for the title.
    """
    title = f"{what} minus that of another method, same seeds"
    table = _table(title, "data, network")
    for head in ("method", "minus"):
        table.add_column(head, overflow="fold")
    for head in ("difference", "95 % interval", "n"):
        table.add_column(head, justify="right")
    for one in differences:
        beside = [row for row in differences if _place(row) == _place(one)]
        lost = f"{one.unfinished} did not finish" if one.unfinished else "–"
        known = math.isfinite(one.low)
        ends = [difference(end, beside) for end in (one.low, one.high)]
        interval = " to ".join(ends) if known else lost
        table.add_row(
            Text(_place(one)),
            *(_broken(one.label), _broken(one.against)),
            difference(one.mean, beside),
            Text(interval, style="bold" if one.excludes_zero else ""),
            str(one.n),
        )
    table.caption = "accuracy in percentage points; bold: the interval excludes zero"
    table.caption_justify = "left"
    return table


def curve_table(curve: pd.DataFrame, metric: str) -> Table:
    """A curve, thinned out evenly if it is long.

    Args:
        curve: of `Store.curve`.
        metric: "accuracy", "rmse" or "".
    """
    judged = "validation" if curve["test_metric"].isna().all() else "test"
    last = len(curve) - 1
    picked = sorted({round(i * last / (_MOST_ROWS - 1)) for i in range(_MOST_ROWS)})
    shown = curve if len(curve) <= _MOST_ROWS else curve.iloc[picked]
    heads = ("train\nloss", f"{judged}\nloss", f"{judged}\n{metric}", "seconds", "passes")
    table = _table("curve", "epoch", *heads)
    for row in shown.to_dict("records"):
        table.add_row(
            f"{row['epoch']:.4g}",
            f"{row['train_loss']:.4g}",
            f"{row[f'{judged}_loss']:.4g}",
            metric_text(metric, row[f"{judged}_metric"]),
            f"{row['seconds']:.2f}",
            f"{row['forward_passes'] + row['backward_passes']:g}",
        )
    if len(shown) < len(curve):
        table.caption = f"{len(shown)} of {len(curve)} evaluations; all: samt results export"
        table.caption_justify = "left"
    return table


def network_text(data: str, model: str, width: str) -> str:
    """Data set and network in one line, such as "digits · mlp 300-100"."""
    return f"{data} · {model} {width}".strip()


def facts(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A record as lines of a name and a value.

    Args:
        record: of JSON.
        prefix: of the names.

    Returns:
        Names of nested mappings are joined by dots; what is None is left out.
    """
    found: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            found += facts(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((f"{prefix}{name}", str(value)))
    return found


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column(first, overflow="fold")
    for head in numbers:
        table.add_column(Text(head), justify="right")
    return table


def _broken(label: str) -> Text:
    """A method's name with places to break the line."""
    return Text(label.replace(":", ": ").replace(",", ", "))


def _place(one: Difference) -> str:
    return network_text(one.data, one.model, one.width)
