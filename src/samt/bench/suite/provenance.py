"""The parts of the report that say what lies behind its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from samt.bench.report.wording import counted, joined
from samt.bench.suite.block import Block
from samt.bench.suite.compared import OURS, TUNED, Compared
from samt.bench.suite.methods import METHODS
from samt.bench.suite.plan import MOST_WIDER
from samt.bench.suite.summary import Summary


def failures(found: Compared, made: Summary) -> Block:
    """List what diverged, did not train, came too late or gave no outcome."""
    gathered: dict[str, list[str]] = {}

    def note(text: str, name: str) -> None:
        names = gathered.setdefault(text, [])
        if name not in names:
            names.append(name)

    for (name, label), cell in made.cells.iterrows():
        if cell["diverged"]:
            text = f"{cell['diverged']:.0f} of {cell['n']:.0f} seeds diverged"
            note(f"{name}: {text} with", label)
    for name, label in made.untrained:
        note(f"{name}: ends no better than it began with", label)
    for (name, label), one in made.targets.items():
        if not one.reached:
            text = f"does not come to where {TUNED} ends within the horizon"
            note(f"{label}: {text} on", name)
    for run, error in found.failures:
        note(f"{run.problem}: no outcome ({error.strip().splitlines()[-1]}) with", run.method)
    lines = [f"{text} {joined(names)}" for text, names in gathered.items()]
    return Block("Failures", notes=lines or ["There is none."])


def tuned(found: Compared, made: Summary) -> Block:
    """List the options that tuning chose, and what it cost."""
    labels = [label for label in found.labels if METHODS[label].grid]
    known = {(one.problem, one.label): one for one in found.tuning.itertuples()}
    rows = []
    for name in found.problems:
        texts = []
        for label in labels:
            one = known[name, label]
            text = ", ".join(f"{key} {value}" for key, value in one.options.items())
            texts.append(f"{text}{' (edge)' if one.edge else ''}")
        rows.append([name, *texts])
    counts = [
        f"{label}: {counted(int(of['runs'].sum()), 'training')}, the rate at the edge of those "
        f"tried on {counted(int(of['edge'].sum()), 'problem')}"
        for label, of in found.tuning[found.tuning["label"].isin(labels)].groupby("label")
    ]
    note = (
        "What the validation parts chose: all options with one seed, further rates as long as the "
        f"best is at the edge, but no more than {MOST_WIDER}, then the best three options with two "
        f"more seeds. {'; '.join(counts)}."
    )
    return Block("Tuning", ["problem", *labels], rows, [note], left=1 + len(labels))


def methods(found: Compared, made: Summary) -> Block:
    """List where the settings of the methods come from, and which problems they were chosen on."""
    rows = [
        [label, METHODS[label].advice, METHODS[label].package or "torch"] for label in found.labels
    ]
    chosen, held = (
        [name for name, one in found.problems.items() if one.chosen_on == half]
        for half in (True, False)
    )
    note = (
        f"Settings of {OURS} were chosen on the validation parts of {_named(chosen)}. "
        f"Held out: {_named(held)}."
    )
    return Block("Settings", ["method", "settings", "package"], rows, [note, _made(found)], left=3)


def _made(found: Compared) -> str:
    """With which versions of the code and on which machines the runs were made."""
    absent = {"commit": "unknown", "torch": "of an unknown version", "cpu": "an unknown processor"}
    runs = found.runs.assign(**{key: text for key, text in absent.items() if key not in found.runs})
    commits = {
        label: len(set(of["commit"].str.slice(0, 10))) for label, of in runs.groupby("label")
    }
    mixed = [f"{label} ({count})" for label, count in commits.items() if count > 1]
    text = (
        f"Made with {joined(sorted(set(runs['torch'].map('torch {}'.format))))} on "
        f"{joined(sorted(set(runs['cpu'])))}."
    )
    if mixed:
        text += (
            " Runs of several versions of the code, between which no number of the method should "
            f"have changed: {joined(mixed)}."
        )
    return text


def _named(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'problem')}, {joined(list(names))}" if names else "no problem"
