"""The command line."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from . import page, pictures, results
from .methods import METHODS, select
from .models import ALL_MODELS
from .rounds import Budget
from .run import Run, measure_all
from .worker import Settings

_ABOUT = """\
Measure what one optimizer step costs, as a ratio to torch SGD on the same model and batch.

Every method has a process of its own; the methods take turns, so that a machine whose speed
drifts is unfair to nobody. The page goes to --output, all numbers to a CSV file beside it.
What the CSV file has, measured with the same code on the same machine, is not measured again:
after an interruption, give the same command again.
"""

_EXAMPLES = """\
examples:
  python benchmarks/run.py                                     everything: hours on two cores
  python benchmarks/run.py --models mlp-800 --seconds 2        one network: a few minutes
  python benchmarks/run.py --models 'mlp-*' --methods adam 'eager-*' --output /tmp/cost.md
  python benchmarks/run.py --models 'depth-*' 'width-*'        the two pictures
  python benchmarks/run.py --draw                              page and pictures from the CSV file
  python benchmarks/run.py --device cuda --batch-size 1024 --output docs/performance-gpu.md

models:  {models}
methods: {methods}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then write the page.

    Args:
        arguments: None for those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(given)
    try:
        models = select(options.models, ALL_MODELS)
        methods = select(options.methods, METHODS)
    except ValueError as error:
        parser.error(str(error))
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    console = Console(stderr=True, highlight=False)
    table = options.output.with_suffix(".csv")
    if not options.draw:
        settings = Settings(options.device, options.threads, options.batch_size)
        limits = (options.slow, options.rounds_slow, options.limit, options.compile_limit)
        budget = Budget(options.seconds, *limits)
        _measure(Run(models, methods, settings, budget, table, options.fresh), console)
    rows = results.load(table)
    if not rows:
        parser.error(f"{table} has no results: run without --draw")
    drawn = pictures.draw(rows, options.output.parent / "images", options.output.stem)
    page.write(options.output, rows, _command(given), drawn)
    for path in (options.output, table, *drawn):
        console.print(f"wrote {path}", soft_wrap=True)


def _measure(run: Run, console: Console) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="samt-bench-") as cache,
        console.status("starting") as status,
    ):
        # Compile times are those of a first run, which finds empty caches.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text, soft_wrap=True)

        measure_all(run, say, lambda text: console.print(text, markup=False, soft_wrap=True))


def _command(given: Sequence[str]) -> str:
    measuring = [word for word in given if word != "--draw"]
    return shlex.join(["python", "benchmarks/run.py", *measuring])


def _parser() -> argparse.ArgumentParser:
    names = {"models": "  ".join(ALL_MODELS), "methods": "  ".join(METHODS)}
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=_ABOUT,
        epilog=_EXAMPLES.format(**names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["*"], metavar="NAME", help="names or patterns; all")
    add("--methods", nargs="+", default=["*"], metavar="NAME", help="names or patterns; all")
    add(
        "--seconds",
        type=float,
        default=4.0,
        help="for the turns of each method on each model; 4. Three rounds at the least",
    )
    add(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="of torch on a CPU; as torch chooses",
    )
    add("--device", default="cpu", help="a torch device: cpu, cuda, cuda:1; cpu")
    add("--batch-size", type=int, metavar="N", help="the model's own: 64, 128 or 256")
    add("--output", type=Path, default=Path("docs/performance.md"), help="the page")
    add("--fresh", action="store_true", help="measure again what the CSV file has")
    add("--draw", action="store_true", help="measure nothing; page and pictures from the CSV file")
    slow = parser.add_argument_group("slow methods")
    slow.add_argument(
        "--slow",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="a method is slow if its step takes longer; 20",
    )
    slow.add_argument(
        "--rounds-slow",
        type=int,
        default=1,
        metavar="N",
        help="turns of a slow method, one step each; 0: its first step, not warmed up, counts; 1",
    )
    slow.add_argument(
        "--limit",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="until a method is warm; then it is left out, and the page says so; 3600",
    )
    slow.add_argument(
        "--compile-limit",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="the same for compiled methods; 300",
    )
    return parser
