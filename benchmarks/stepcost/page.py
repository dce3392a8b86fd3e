"""The generated page: targets, pictures, one table for each model, how it was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from samt.bench.report.markdown import escaped

from .methods import METHODS
from .models import ALL_MODELS, MODELS
from .quiet import BUSY
from .results import Row
from .targets import TARGETS

_HEAD = """\
# What a step costs

<!-- Generated: do not edit. -->

Time of one optimizer step, forward and backward passes included, as a **ratio to
`torch.optim.SGD`** on the same model and batch, measured side by side.
"""

_HOW = """\
## How it is measured

- Every method has a process, a model and a batch of its own; all start from the same weights.
  Warm-up is not counted: at least two steps, five for compiled methods.
- Then the methods take turns, a few steps each. Every turn is divided by a turn of SGD that was
  over at most a few seconds before; one that takes more than a second, by the mean of SGD before
  and after it. *Ratio* is the median of these quotients, *quartiles* their first and third
  quartile; the quartiles of SGD itself (its turns over their median) show how steady the machine
  was. Where steps are very short, the first step of each turn is not counted.
- *Used by other programs* is measured before each round, while all methods wait. Threads that
  have to share a core with another program wait for each other; then no number here is right.
- *Rounds* says how many turns and how many steps in each: "12 × 40". **"1 × 1"** is a single
  step, and "first step" one that was not even warmed up: methods whose step takes so long that
  more would not tell more.
- *Passes* are forward and backward passes in one step, each of which may be on a part of the
  batch or of the network.
- *Memory* is the most that tensors take within a step: first all of it, then what the step
  itself allocates (activations, gradients) beyond weights, buffers, state and batch. On a CPU
  it comes from the profiler's record of every allocation, on a GPU from torch's allocator.
- *First steps* is how many seconds the first five steps of a compiled method take beyond later
  ones: tracing and compiling, with empty caches.
- Data are random numbers. SAMT runs with `lr=1e-3, relative=True` and defaults otherwise: small
  steps, so that every network stays finite; they cost what other steps cost.
- *SAMT reference* is `samt.reference`, the algorithm line by line: a whole forward pass for
  every gradient of every block. Autograd itself leaves out what the block does not need, the
  gradients of other weights and all that lies below the block; so the reference costs less than
  2L times SGD on deep networks.

## Floors

With L layers of equal cost, where forward, gradient of the weights and gradient of the inputs
cost the same, relative to SGD: an exact sweep with `next` (L + 1)/3; with a lookahead on half
the batch (L + 1)/2; done naively, with a whole pass for each gradient, 2L; the whole model as
one block with `next`, 1. For 784-h-10, where the first layer is nearly all the work: 1.5, 2, 4
and 1.

An exact sweep cannot be as many times faster than the reference as it has blocks: on average over
L equal blocks, half of the network lies above a block, through which its loss has to go forward
and its gradient back. Let a whole forward pass cost 1. With replay an evaluation costs 1/2 + 1/2;
for the reference 1 + 1/2; with a literal whole backward pass, all weight gradients included, 3. So
replay is at most 1.5 times as fast as the reference in the same mode and 3 times as fast as the
literal form; `next`, which leaves the lookahead out, at most 6 times as fast as the literal form
with a lookahead on the whole batch.
"""


def write(path: Path, rows: Sequence[Row], command: str, pictures: Sequence[Path]) -> None:
    """Write the page.

    Args:
        path: of the Markdown file.
        rows: all results.
        command: that made it.
        pictures: files that it shows.
    """
    parts = [_HEAD, _origin(rows, command, path), _targets(rows), _shown(pictures, path)]
    parts += [_model(name, [row for row in rows if row.model == name]) for name in MODELS]
    parts.append(_HOW)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _origin(rows: Sequence[Row], command: str, path: Path) -> str:
    conditions = [row.conditions for row in rows]
    lines = [
        f"```sh\n{command}\n```\n",
        "| | |",
        "| --- | --- |",
        f"| machine | {_together(c.machine for c in conditions)} |",
        f"| device, threads | {_together(f'{c.device}, {c.threads}' for c in conditions)} |",
        f"| torch | {_together(c.torch for c in conditions)} |",
        f"| source of samt | {_together(c.code for c in conditions)} |",
        f"| used by other programs | {_busy(rows)} |",
        f"| date | {_together(row.date for row in rows)} |",
        f"| all numbers | [{path.stem}.csv]({path.stem}.csv) |",
    ]
    return "\n".join(lines) + "\n"


def _together(values: Iterable[str]) -> str:
    return "; ".join(escaped(value) for value in dict.fromkeys(values))


def _busy(rows: Sequence[Row]) -> str:
    shares = [row.busy for row in rows if row.busy is not None]
    if not shares:
        return "not known"
    text = f"up to {max(shares):.0%} of the processors"
    return f"{text}: **measure again on a quiet machine**" if max(shares) > BUSY else text


def _targets(rows: Sequence[Row]) -> str:
    lines = [line for target in TARGETS if (line := target.line(rows)) is not None]
    if not lines:
        return ""
    head = ["## Targets\n", "| model | | target | measured | met | by |", "|" + " --- |" * 6]
    return "\n".join([*head, *lines]) + "\n"


def _shown(pictures: Sequence[Path], path: Path) -> str:
    if not pictures:
        return ""
    texts = {"depth": "Cost of a step against depth", "width": "Cost of a step against width"}
    lines = ["## Depth and width\n"]
    for picture in pictures:
        link = Path(os.path.relpath(picture, path.parent)).as_posix()
        lines.append(f"![{texts[picture.stem.rpartition('-')[2]]}]({link})\n")
    return "\n".join(lines)


def _model(name: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    order = list(METHODS)
    rows = sorted(rows, key=lambda row: order.index(row.method))
    batches = _together(str(row.conditions.batch_size) for row in rows)
    lines = [f"## {ALL_MODELS[name].title}, batch {batches}\n"]
    lines.append(
        "| method | ms / step | ratio | quartiles | passes | memory, MiB | of the step "
        "| first steps, s | rounds |"
    )
    lines.append("| --- |" + " ---: |" * 8)
    lines += [_line(row) for row in rows if row.ratio is not None]
    notes = [f"- {METHODS[row.method].title}: {escaped(row.note)}" for row in rows if row.note]
    return "\n".join([*lines, "", *notes, ""] if notes else [*lines, ""])


def _line(row: Row) -> str:
    first = row.rounds == 0
    kept, step = row.kept_mib or 0.0, row.step_mib or 0.0
    one = row.rounds <= 1
    cells = (
        METHODS[row.method].title,
        _three_digits(row.milliseconds or 0.0),
        f"**{row.ratio:.2f}**",
        "" if one else f"{row.low:.2f} – {row.high:.2f}",
        f"{row.forward:g} + {row.backward:g}",
        _three_digits(kept + step),
        _three_digits(step),
        "" if row.settling_s is None else f"{row.settling_s:.1f}",
        "first step" if first else f"{row.rounds} × {row.steps}",
    )
    return f"| {' | '.join(cells)} |"


def _three_digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
