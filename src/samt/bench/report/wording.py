"""Numbers and names as people read them, the same on the page, in LaTeX and in figures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from samt.bench.statistics import Difference, Spread

MINUS = "\N{MINUS SIGN}"
# Of a cell that did not finish, for people.
STATUS_WORDS = {
    "diverged": "diverged",
    "failed": "failed",
    "timed-out": "timed out",
    "killed": "killed",
    "running": "still running",
    "missing": "not run",
}


def by_size(widths: Iterable[str]) -> list[str]:
    """Each width once, the narrow networks first, however cells and published numbers came.

    >>> by_size(["800", "100", "64-64", "100", "64-8"])
    ['64-8', '64-64', '100', '800']
    """
    return sorted(
        dict.fromkeys(widths), key=lambda width: [int(n) for n in width.split("-") if n.isdigit()]
    )


def metric_name(metric: str) -> str:
    """A metric with its unit: "test accuracy in %"."""
    if metric == "accuracy":
        return "test accuracy in %"
    return "test RMSE" if metric == "rmse" else "test metric"


def scale(metric: str) -> float:
    """What a stored number is multiplied by to be shown."""
    return 100.0 if metric == "accuracy" else 1.0


def decimals(metric: str, value: float) -> int:
    """Digits behind the point: two of a percentage, four significant ones of anything else."""
    if metric == "accuracy" or not math.isfinite(value) or value == 0:
        return 2
    return max(0, min(12, 3 - math.floor(math.log10(abs(value)))))


def number(value: float, digits: int) -> str:
    """A number with a true minus sign; a dash for NaN.

    >>> number(-0.127, 2), number(math.nan, 2)
    ('−0.13', '–')
    """
    if not math.isfinite(value):
        return "\N{EN DASH}" if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    if abs(value) >= 1e7:
        return f"{value:.3g}".replace("-", MINUS)
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int) -> str:
    """A number with its sign, for differences.

    >>> signed(0.5, 2), signed(-0.5, 1), signed(0.001, 2)
    ('+0.50', '−0.5', '±0.00')
    """
    text = number(value, digits)
    if not math.isfinite(value) or text.startswith(MINUS):
        return text
    return f"+{text}" if value > 0 and float(text) != 0 else f"±{text}"


def spread(metric: str, one: Spread) -> str:
    """ "98.31 ± 0.08", without the deviation where there is none."""
    digits = decimals(metric, one.mean)
    if math.isnan(one.deviation):
        return number(one.mean, digits)
    return f"{number(one.mean, digits)} ± {number(one.deviation, digits)}"


def difference(value: float, beside: Iterable[Difference]) -> str:
    """The mean of a paired difference or an end of its interval, to the same digit as those beside.

    Args:
        value: as stored.
        beside: differences of one table, which say the metric and how large its numbers are.

    >>> row = Difference("bike", "mlp", "8", "rmse", "SAMT", "SGD", 3, 0, -0.0042, -0.051, 0.03)
    >>> difference(row.mean, [row]), difference(row.low, [row])
    ('−0.0042', '−0.0510')
    """
    beside = list(beside)
    metric = beside[0].metric
    ends = [abs(end) for one in beside for end in (one.mean, one.low, one.high)]
    digits = decimals(metric, max(filter(math.isfinite, ends), default=math.nan))
    return signed(value * scale(metric), digits if metric == "accuracy" else max(0, digits - 1))


def unfinished(statuses: Mapping[str, int]) -> list[str]:
    """What became of the seeds that did not finish: "1 of 3 diverged".

    Args:
        statuses: number of seeds by status.
    """
    total = sum(statuses.values())
    return [
        f"{STATUS_WORDS[one]}" if total == count == 1 else f"{count} of {total} {STATUS_WORDS[one]}"
        for one, count in statuses.items()
        if one in STATUS_WORDS and count
    ]


def place(data: str, model: str, width: str = "") -> str:
    """A data set and network in one line."""
    return ", ".join(part for part in (data, model, f"width {width}" if width else "") if part)


def slug(*parts: str) -> str:
    """A file's name without its ending, whatever the parts hold."""
    return "-".join(
        filter(None, (re.sub(r"[^A-Za-z0-9.]+", "-", one).strip("-.") for one in parts))
    )


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(12), duration(600), duration(86400)
    ('12 s', '10 min', '24.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def thousands(value: int) -> str:
    """ "12 345", with a thin space."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def counted(count: int, noun: str) -> str:
    """ "1 cell", "2 cells"."""
    return f"{thousands(count)} {noun}{'' if count == 1 else 's'}"


def joined(words: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))
