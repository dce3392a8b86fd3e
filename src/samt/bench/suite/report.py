"""What the suite says: tables with what must be known to read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from samt.bench.report.wording import counted
from samt.bench.suite import progress, scores
from samt.bench.suite.block import Best, Block, number
from samt.bench.suite.compared import OURS, TUNED, Compared
from samt.bench.suite.provenance import failures, methods, tuned
from samt.bench.suite.significance import LEVEL, pair, welch
from samt.bench.suite.summary import Summary, summary

FACTORS = (1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)


def blocks(found: Compared) -> dict[str, Block]:
    """The parts of the report, by the names of the marks between which they stand.

    Args:
        found: what is compared.
    """
    made = summary(found)
    makers: Mapping[str, Callable[[Compared, Summary], Block]] = {
        "suite summary": _summary,
        "suite tests": _tests,
        "suite pairs": _pairs,
        "suite profile": _profile,
        "suite horizons": _horizons,
        "suite ablations": _ablations,
        "suite fine-tuning": _fine_tuning,
        "suite problems": _problems,
        "suite failures": failures,
        "suite tuning": tuned,
        "suite methods": methods,
    }
    parts = {name: make(found, made) for name, make in makers.items()}
    for chosen_on, name in ((False, "held out"), (True, "chosen on")):
        half = found.half(chosen_on)
        if half.problems:
            made = summary(half)
            for part in ("summary", "tests", "profile", "horizons", "ablations"):
                one = makers[f"suite {part}"](half, made)
                # What must be known to read it stands below the table of all problems.
                parts[f"suite {part}, {name}"] = replace(
                    one,
                    title=f"{one.title}, problems {name}",
                    notes=one.notes[:-1] if one.head else one.notes,
                )
    return parts


def _summary(found: Compared, made: Summary) -> Block:
    head = [
        "method", "mean rank", f"at or above {TUNED}", "worst, points", "worst, %", "steps",
        "seconds", "copies", "tuning",
    ]  # fmt: skip
    rows = []
    for one in made.lines:
        holds = f"{one.holds} of {one.beside}" if one.beside else ""
        rows.append(
            [
                one.label,
                number(one.rank),
                holds,
                _worst(one.worst_points),
                _worst(one.worst_share),
                f"{number(one.steps)}{_missed(one.missed)}",
                number(one.seconds),
                number(one.copies, 1),
                number(one.tuning, 0),
            ]
        )
    lines = [
        f"Ranks are among {counted(len(made.compared), 'method')}, over the {made.ranked} of "
        f"{counted(len(found.problems), 'problem')} that all of these have run on."
    ]
    if found.outdated:
        lines.append(
            f"{counted(found.outdated, 'run')} of other versions of their methods are left out."
        )
    lines.append(
        f"At or above {TUNED}: on so many problems the mean error is at most {TUNED}'s mean error "
        f"plus one standard error of the difference. Worst: the largest distance from {TUNED}, in "
        f"points where the metric is an error in %, and in % of {TUNED}'s error elsewhere; a "
        f"negative number means that the method was better than {TUNED} on every such problem. "
        f"Steps: how many steps the method needs until its test metric is as good as the one that "
        f"{TUNED} ends with, divided by the steps that {TUNED} needs; the geometric mean over "
        "problems. In brackets: the number of problems on which the method did not get there "
        "within the horizon, which count as 2. Seconds: the same of processor time. Copies: the "
        "memory of the optimizer, beside weights and gradients, divided by that of the weights. "
        "Tuning: the trainings on the validation part for each problem."
    )
    return Block("Where the methods stand", head, rows, lines)


def _worst(worst: tuple[float, str] | None) -> str:
    if worst is None:
        return ""
    return f"{number(worst[0])} ({worst[1]})"


def _missed(count: int) -> str:
    return f" ({count})" if count else ""


def _problems(found: Compared, made: Summary) -> Block:
    head = ["problem", "metric", "half", *found.labels]
    rows = []
    for name, problem in found.problems.items():
        known = made.cells.loc[name] if name in made.cells.index else None
        values = {
            label: known.loc[label]
            for label in found.labels
            if known is not None and label in known.index
        }
        best = min((cell["mean"] for cell in values.values()), default=math.nan)
        rows.append(
            [
                name,
                problem.metric,
                "chosen on" if problem.chosen_on else "held out",
                *(_cell(values.get(label), best) for label in found.labels),
            ]
        )
    last = [f"{number(one)}" for one in made.ranks.reindex(list(found.labels))]
    rows.append(["mean rank", "1 is best", f"{made.ranked} problems", *last])
    notes = ["Mean and standard deviation over seeds on the test part, lower is better."]
    return Block("Every problem", head, rows, notes, left=3)


def _cell(cell: Mapping[str, float] | None, best: float) -> str:
    if cell is None:
        return ""
    if cell["diverged"]:
        return f"{cell['diverged']:.0f} of {cell['n']:.0f} diverged"
    mean = cell["mean"]
    digits = 2 if mean >= 1 or not mean else 2 - math.floor(math.log10(mean))
    text = f"{mean:.{digits}f}"
    if not math.isnan(cell["sd"]):
        text += f" ± {cell['sd']:.{digits}f}"
    return Best(text) if mean == best else text


def _profile(found: Compared, made: Summary) -> Block:
    if not made.ranked:
        return Block("How close to the best method", notes=["No problem has runs of all methods."])
    shares = scores.profile(made.means, FACTORS)
    head = ["method", *(f"× {factor:g}" for factor in FACTORS)]
    rows = [
        [label, *(f"{100 * shares.loc[factor, label]:.0f}" for factor in FACTORS)]
        for label in made.compared
    ]
    note = (
        f"The share in % of the {made.ranked} problems on which the mean error is at most so many "
        "times the best method's."
    )
    return Block("How close to the best method", head, rows, [note])


def _tests(found: Compared, made: Summary) -> Block:
    if OURS not in found.labels:
        return Block("Tests", notes=[f"There is no run of {OURS}."])
    head = [
        "against", "better on", "worse on", "sign test", "Wilcoxon", "significantly better on",
        "significantly worse on",
    ]  # fmt: skip
    rows = []
    for label in made.order:
        if label == OURS:
            continue
        one = pair(made.cells, OURS, label)
        better, worse = welch(found.runs, OURS, label)
        rows.append(
            [
                label, str(one.wins), str(one.losses), _p(one.sign), _p(one.wilcoxon),
                str(len(better)), str(len(worse)),
            ]
        )  # fmt: skip
    note = (
        f"{OURS} against each other method: the number of problems on which its mean error is "
        "smaller and larger, the p-values of the sign test and of Wilcoxon's signed-rank test of "
        "the ratios of errors over problems, and the number of problems on which Welch's test "
        f"over seeds, corrected by Holm's method, finds it better and worse at {100 * LEVEL:g} %."
    )
    return Block("Tests", head, rows, [note])


def _pairs(found: Compared, made: Summary) -> Block:
    rows = []
    for label in made.order:
        texts = []
        for other in made.order:
            one = pair(made.cells, label, other)
            text = f"{one.wins} : {one.losses}, {_p(one.sign)}"
            texts.append("" if other == label else Best(text) if one.sign < LEVEL else text)
        rows.append([label, *texts])
    note = (
        "Each field: the problems that the method of the row wins, then those that the method of "
        "the column wins, then the p-value of the sign test without correction; a field is bold "
        f"where that is below {100 * LEVEL:g} %."
    )
    return Block("All pairs", ["method", *made.order], rows, [note])


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("-", "−")


def _horizons(found: Compared, made: Summary) -> Block:
    every = sorted(float(one) for one in set(found.runs["horizon"]))
    tables = {horizon: scores.cells(found.runs, horizon) for horizon in every}
    labels = [
        label
        for label in made.order
        if sum(label in one.index.get_level_values("label") for one in tables.values()) > 1
    ]
    if len(every) < 2 or TUNED not in labels:
        return Block("Horizons", notes=["There are no runs at other horizons."])
    head = ["method", *(f"{horizon:g} of the horizon" for horizon in every)]
    ranks: dict[str, list[str]] = {label: [] for label in labels}
    for one in tables.values():
        wide = scores.means(one, labels)
        mean = scores.mean_ranks(wide)
        for label in labels:
            pairs = [
                (wide.loc[problem, label], made.cells.loc[(problem, TUNED), "mean"])
                for problem in wide.index
                if (problem, TUNED) in made.cells.index
            ]
            known = [own / full for own, full in pairs if 0 < own < math.inf > full > 0]
            left_out = _missed(len(pairs) - len(known))
            text = f"{number(progress.geometric_mean(known), 3)}{left_out}, {number(mean[label])}"
            ranks[label].append(text if known else "")
    note = (
        f"The geometric mean of the error as a multiple of {TUNED}'s at the full horizon, in "
        "brackets the number of problems left out of it for a divergence or an error of zero, and "
        f"the mean rank among these methods. {TUNED} has at every horizon the options that were "
        "chosen at the full one."
    )
    rows = [[label, *texts] for label, texts in ranks.items()]
    return Block("Horizons", head, rows, [note])


def _ablations(found: Compared, made: Summary) -> Block:
    ablations = [label for label in found.ablations if label.startswith((f"{OURS}/", f"{OURS}:"))]
    if OURS not in found.labels or not ablations:
        return Block("Ablations", notes=[f"There is no run of an ablation of {OURS}."])
    head = ["", "error", "steps", "better on", "worse on", "sign test", "fails on"]
    rows = []
    for label in ablations:
        cells = scores.cells(scores.on_common_seeds(found.runs, label, OURS))
        both = scores.beside(cells, label, OURS)
        ratios = [own["mean"] / full["mean"] for own, full in both.values() if full["mean"] > 0]
        known = [one for one in ratios if 0 < one < math.inf]
        shared = [name for name in both if {(name, label), (name, OURS)} <= set(made.targets)]
        steps = progress.geometric_mean(
            made.targets[name, label].steps / made.targets[name, OURS].steps for name in shared
        )
        test = pair(cells, label, OURS)
        failing = made.fails(label, OURS, cells)
        rows.append(
            [
                label, number(progress.geometric_mean(known), 3), number(steps),
                str(test.wins), str(test.losses), _p(test.sign),
                f"{len(failing)}: {', '.join(failing)}" if failing else "none",
            ]
        )  # fmt: skip
    note = (
        f"Beside {OURS} as it is: the geometric mean of the error, with the seeds that both have, "
        f"and that of the steps to the metric that {TUNED} ends with, with all seeds of each, as "
        "multiples of its own; the problems on which the ablation is better and worse. It fails "
        "where a seed diverged, or where it is more than 0.5 points and 3 % of the error worse "
        f"than {OURS} and by more than two standard errors."
    )
    return Block("Ablations", head, rows, [note])


def _fine_tuning(found: Compared, made: Summary) -> Block:
    names = [name for name, one in found.problems.items() if one.family == "finetuning"]
    if not names:
        return Block("Fine-tuning", notes=["There is no run of fine-tuning."])
    labels = [*found.labels, *(one for one in found.ablations if one.startswith(f"{OURS}/"))]
    rows = []
    for label in labels:
        rises = [made.largest_rise(name, label) for name in names]
        texts = ["" if one is None else number(one) for one in rises]
        rows.append([label, *texts])
    note = (
        "How much worse than at the start the network ever became: the largest difference, over "
        "all evaluations, of the metric averaged over seeds. A negative number means that the "
        "network was better at every evaluation."
    )
    return Block("Fine-tuning", ["method", *names], rows, [note])
