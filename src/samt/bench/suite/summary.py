"""One line for each method: where it stands over all problems of the suite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from samt.bench.suite import progress, scores
from samt.bench.suite.compared import TUNED, Compared
from samt.bench.suite.progress import Target

POINTS, SHARE = 0.5, 3.0  # a difference that matters: points, % of the error


@dataclass(frozen=True)
class Line:
    """What the suite says of a method.

    Args:
        label: the method.
        rank: its mean rank.
        holds: the number of problems on which it is at or above tuned AdamW.
        beside: the number of problems that both have.
        worst_points: the largest distance from tuned AdamW in points, and the problem.
        worst_share: the same in % of the error, for metrics other than an error in %.
        steps: the geometric mean of its steps to where tuned AdamW ends.
        seconds: the geometric mean of its seconds.
        missed: the number of problems on which it does not come there.
        copies: the median of its memory, in copies of the weights.
        tuning: the trainings that chose its options, for each problem.
    """

    label: str
    rank: float
    holds: int
    beside: int
    worst_points: tuple[float, str] | None
    worst_share: tuple[float, str] | None
    steps: float
    seconds: float
    missed: int
    copies: float
    tuning: float


@dataclass(frozen=True)
class Summary:
    """What all parts of the report are made from.

    Args:
        runs: the runs that count.
        cells: as `scores.cells` returns them.
        means: the means of the problems that all methods have.
        ranks: the mean rank of each method.
        targets: how soon each method comes to where tuned AdamW ends.
        lines: the lines of the table, one for each method, the best rank first.
        points: the names of the problems whose metric is an error in %.
    """

    runs: pd.DataFrame
    cells: pd.DataFrame
    means: pd.DataFrame
    ranks: pd.Series
    targets: Mapping[tuple[str, str], Target]
    lines: Sequence[Line]
    points: frozenset[str]

    @property
    def ranked(self) -> int:
        """The number of problems that ranks are over."""
        return len(self.means)

    @property
    def compared(self) -> list[str]:
        """The methods that have a rank, the best one first."""
        return [one.label for one in self.lines if one.label in self.means]

    @property
    def order(self) -> list[str]:
        """The methods, the best rank first."""
        return [one.label for one in self.lines]

    @property
    def untrained(self) -> list[tuple[str, str]]:
        """The problems and methods that end no better than they began, without divergence."""
        found = []
        for (name, label), cell in self.cells.iterrows():
            curve = self.curve(name, label)
            if not cell["diverged"] and curve and curve[0][0] == 0:
                found += [(name, label)] if cell["mean"] >= curve[0][1] else []
        return found

    def curve(self, problem: str, label: str, horizon: float = 1.0) -> progress.Curve:
        """The curve of a method averaged over seeds; empty if there is none."""
        runs = self.runs
        chosen = (runs["problem"] == problem) & (runs["label"] == label)
        rows = runs[chosen & (runs["horizon"] == horizon)]
        return progress.mean_curve(rows) if len(rows) else []

    def largest_rise(self, problem: str, label: str) -> float | None:
        """How far a curve was above its beginning at most; None if there is no curve."""
        curve = self.curve(problem, label)
        if len(curve) < 2 or curve[0][0] != 0:
            return None
        return max(value for _, value in curve[1:]) - curve[0][1]

    def fails(self, label: str, against: str, cells: pd.DataFrame) -> list[str]:
        """The problems on which a method diverged or is clearly worse than another one.

        Args:
            label: the name of a method in the report, such as `auto-samt/no brake`.
            against: the name of the method that stands beside it.
            cells: means over seeds of both methods, as `scores.cells` returns them.
        """
        found = []
        for name, lead in scores.leads(cells, label, against).items():
            far = lead.difference > POINTS if name in self.points else True
            worse = far and lead.share > SHARE and lead.difference > 2 * lead.error
            if worse or cells.loc[(name, label), "diverged"]:
                found.append(name)
        return found


def summary(found: Compared) -> Summary:
    """Work out what all parts of the report are made from.

    Args:
        found: what is compared.
    """
    cells = scores.cells(found.runs)
    means = scores.means(cells, _complete(found, cells))
    targets = progress.targets(found.runs, TUNED)
    points = frozenset(name for name, one in found.problems.items() if one.metric == "error in %")
    ranks = scores.mean_ranks(means).reindex(list(found.labels))
    lines = [_line(found, label, cells, targets, points, ranks) for label in found.labels]
    return Summary(
        runs=found.runs,
        cells=cells,
        means=means,
        ranks=ranks,
        targets=targets,
        lines=sorted(lines, key=lambda one: math.inf if math.isnan(one.rank) else one.rank),
        points=points,
    )


def _complete(found: Compared, cells: pd.DataFrame) -> list[str]:
    """The methods that have runs on all problems; if there are no two of them, all methods."""
    counts = cells.index.get_level_values("label").value_counts()
    complete = [label for label in found.labels if counts.get(label, 0) == len(found.problems)]
    return complete if len(complete) > 1 else list(found.labels)


def _line(
    found: Compared,
    label: str,
    cells: pd.DataFrame,
    targets: Mapping[tuple[str, str], Target],
    points: frozenset[str],
    ranks: pd.Series,
) -> Line:
    leads = scores.leads(cells, label, TUNED)
    in_points = [(one.difference, name) for name, one in leads.items() if name in points]
    in_share = [(one.share, name) for name, one in leads.items() if name not in points]
    own = [one for (_, name), one in targets.items() if name == label]
    bytes_of_weights = found.runs.loc[found.runs["label"] == label, "state_bytes"].median()
    tuning = found.tuning.loc[found.tuning["label"] == label, "runs"].mean()
    return Line(
        label,
        rank=float(ranks[label]),
        holds=sum(one.holds for one in leads.values()),
        beside=len(leads),
        worst_points=max(in_points, default=None),
        worst_share=max(in_share, default=None),
        steps=progress.geometric_mean(one.steps for one in own),
        seconds=progress.geometric_mean(one.seconds for one in own),
        missed=sum(not one.reached for one in own),
        copies=float(bytes_of_weights) / 4,
        tuning=0.0 if math.isnan(tuning) else float(tuning),
    )
