"""How one method stands against the best of others, over several experiments.

An experiment here is one problem: all methods on one data set and network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from samt.bench.errors import ResultsError
from samt.bench.statistics import (
    GroupSummary,
    MeanRank,
    Spread,
    averaged,
    best,
    rank,
    summarise,
)
from samt.errors import suggestion

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["at or above", "below", "far below"]
# A difference that nobody would tune for: percentage points, or a share of the RMSE.
POINTS, SHARE = 1.0, 0.05


@dataclass(frozen=True)
class Standing:
    """One problem.

    Args:
        problem: name of the experiment.
        metric: "accuracy" or "rmse".
        groups: all methods on it, by label.
        label: the method that is judged.
        best: the best of those that it is judged against; None if none of them finished.
    """

    problem: str
    metric: str
    groups: Mapping[str, GroupSummary]
    label: str
    best: str | None

    @property
    def lead(self) -> float:
        """By how much the method is better than the best other one; percentage points, or RMSE.

        Minus infinity if a run of it did not finish; infinity if that is so of all others alone.
        """
        own = self.groups[self.label].final.mean
        if not math.isfinite(own):
            return -math.inf
        if self.best is None:
            return math.inf
        other = self.groups[self.best].final.mean
        return 100 * (own - other) if self.metric == "accuracy" else other - own

    @property
    def error(self) -> float:
        """Pooled standard error of the difference of the two means, in the units of `lead`."""
        if self.best is None:
            return 0.0
        spreads = (self.groups[label].final for label in (self.label, self.best))
        size = math.hypot(*(_standard_error(one) for one in spreads))
        return 100 * size if self.metric == "accuracy" else size

    @property
    def verdict(self) -> Verdict:
        """At or above the best other one within the standard error; or how far below."""
        if self.lead >= -self.error:
            return "at or above"
        if self.metric == "accuracy":
            return "far below" if self.lead < -POINTS else "below"
        best = self.groups[self.best].final.mean if self.best is not None else math.nan
        return "far below" if not self.lead >= -SHARE * best else "below"


def standings(
    problems: Mapping[str, pd.DataFrame], label: str, against: Sequence[str]
) -> list[Standing]:
    """How a method stands on each problem.

    Args:
        problems: of `frames.cells_frame`, by name of the experiment.
        label: the method.
        against: those whose best counts.

    Returns:
        In the order of the problems. A problem without a result of the method, or of all of the
        others, is left out.

    Raises:
        ResultsError: an experiment has several data sets or networks, or a method is nowhere.
    """
    found = []
    seen: dict[str, None] = {}
    for problem, cells in problems.items():
        groups = summarise(cells)
        if len({(one.data, one.model, one.width) for one in groups}) > 1:
            raise ResultsError(
                f"{problem} has several data sets or networks, and a problem is one: name others"
            )
        by_label = {one.label: one for one in groups}
        seen |= dict.fromkeys(by_label)
        others = [by_label[one] for one in against if one in by_label]
        if label in by_label and others:
            metric = next((one.metric for one in groups if one.metric), "")
            leader = best({one.label: one.final.mean for one in others}, metric)
            found.append(Standing(problem, metric, by_label, label, leader))
    for one in (label, *against):
        if one not in seen:
            hint = suggestion(one, seen) if seen else "there is no result yet"
            raise ResultsError(f"no method '{one}' in these experiments: {hint}")
    return found


def mean_ranks(standings: Sequence[Standing]) -> list[MeanRank]:
    """Rank of each method among all, averaged over the problems; the best first.

    A method of which a run did not finish comes last. A problem that one of them lacks is left out.
    """
    import pandas as pd

    means = ({label: group.final.mean for label, group in one.groups.items()} for one in standings)
    rows = [rank(own, one.metric) for own, one in zip(means, standings, strict=True)]
    return averaged(pd.DataFrame(rows))


def _standard_error(spread: Spread) -> float:
    return spread.deviation / math.sqrt(spread.n) if math.isfinite(spread.deviation) else 0.0
