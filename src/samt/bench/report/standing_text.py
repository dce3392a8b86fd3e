"""The standing of a method as Markdown, for the terminal and for pages of documentation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from samt.bench.report import wording
from samt.bench.report.markdown import escaped, table
from samt.bench.standing import POINTS, SHARE, Standing, mean_ranks


def standing_text(standings: Sequence[Standing], against: Sequence[str]) -> str:
    """A table with a row for each problem, and what it says.

    Args:
        standings: of `samt.bench.standing.standings`, one or more.
        against: those whose best counts.
    """
    labels = list(dict.fromkeys(label for one in standings for label in one.groups))
    rows = [_row(one, labels) for one in standings]
    last = [
        _ranks(standings, labels),
        ["passes", "forward and backward", *(_passes(standings, label) for label in labels), ""],
    ]
    head = ["problem", "", *map(escaped, labels), "lead"]
    return "\n\n".join([table(head, [*rows, *last], left=2), *_conclusions(standings, against)])


def _row(one: Standing, labels: Iterable[str]) -> list[str]:
    metric = "accuracy in %" if one.metric == "accuracy" else "RMSE"
    cells = []
    for label in labels:
        group = one.groups.get(label)
        if group is None:
            cells.append("")
            continue
        text = ", ".join(wording.unfinished(group.statuses))
        text = text or wording.spread(one.metric, group.final.scaled(wording.scale(one.metric)))
        cells.append(f"**{text}**" if label == one.label and one.lead >= 0 else text)
    digits = 2 if one.metric == "accuracy" else 4
    lead = wording.signed(one.lead, digits) if math.isfinite(one.lead) else ""
    error = f" (± {wording.number(one.error, digits)})" if lead else ""
    return [escaped(one.problem), metric, *cells, f"{lead}{error}"]


def _ranks(standings: Sequence[Standing], labels: Iterable[str]) -> list[str]:
    ranks = {one.label: one for one in mean_ranks(standings)}
    n = next((one.n for one in ranks.values()), 0)
    where = "" if n == len(standings) else f", over the {n} that all have"
    means = [f"{ranks[label].mean:.2f}" if label in ranks else "" for label in labels]
    return ["mean rank", f"1 is best{where}", *means, ""]


def _passes(standings: Sequence[Standing], label: str) -> str:
    """Those of a method in multiples of the judged one's, averaged over the problems."""
    ratios = [
        one.groups[label].passes.mean / one.groups[one.label].passes.mean
        for one in standings
        if label in one.groups
    ]
    known = [ratio for ratio in ratios if math.isfinite(ratio)]
    return f"× {math.fsum(known) / len(known):.1f}" if known else ""


def _conclusions(standings: Sequence[Standing], against: Sequence[str]) -> list[str]:
    label = escaped(standings[0].label)
    others = wording.joined([escaped(one) for one in against])
    counts = dict.fromkeys(("at or above", "below", "far below"), 0)
    for one in standings:
        counts[one.verdict] += 1
    far = [escaped(one.problem) for one in standings if one.verdict == "far below"]
    return [
        f"Lead: {label} minus the better of {others}, in percentage points or RMSE, "
        "positive where it is better; in brackets the pooled standard error over seeds.",
        f"{label} is at or above the best of them, within that error, on {counts['at or above']} "
        f"of {wording.counted(len(standings), 'problem')}; below it by at most {POINTS:g} point "
        f"or {100 * SHARE:g} % of the RMSE on {counts['below']}; by more on {counts['far below']}"
        + (f" ({wording.joined(far)})." if far else "."),
    ]
