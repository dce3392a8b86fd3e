"""What an iteration of the layer-wise solvers costs, and how well they do in the official set-ups.

    python benchmarks/layerwise.py cost --samples 60000 --width 100 300 --output docs/page.md
    python benchmarks/layerwise.py accuracy --method mdlam --samples 10000 --iterations 158

`cost` compares the time of an iteration with the sum of its matrix products, which are timed as
they happen, and with the time of the cross-entropy's proximal map, which has no products.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from samt.baselines import bcd, dladmm, mdlam, proximal, scaled_admm
from samt.baselines.layerwise import LayerwiseSolver
from samt.bench.data import Dataset, load

METHODS: dict[str, Callable[..., LayerwiseSolver]] = {
    "dladmm": dladmm.DLADMM,
    "mdlam": mdlam.MDLAM,
    # the form of the official code
    "mdlam-plain": functools.partial(mdlam.MDLAM, accelerated=False, max_curvature=1024.0),
    "bcd": bcd.BCD,
    "scaled_admm": scaled_admm.ScaledADMM,
}
_PAGE = """\
# What an iteration costs

<!-- Generated: do not edit. -->

Seconds of one iteration of the full-batch solvers, beside the time that its matrix products take,
measured as they happen, in the same iterations (medians; one thread unless the command says
otherwise). *Newton* is the proximal map of the cross-entropy, which is a small problem for each
sample and has no matrix products; the squared and the hinge loss have closed forms instead.

```sh
{command}
```

{table}

Factorisations of the small systems of BCD and scaled ADMM do not count as products.
"""
_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_, torch.ops.aten.mv)


class Products(TorchDispatchMode):
    """Time and count of the matrix products that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0
        self.operations = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        begun = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.seconds += time.perf_counter() - begun
        left, right = args[-2:]
        self.operations += 2.0 * left.numel() * (right.shape[1] if right.dim() == 2 else 1)
        return result


def timed_newton(seconds: list[float]) -> None:
    """Let every proximal map of the cross-entropy append its time."""
    original = proximal.cross_entropy_prox

    @functools.wraps(original)
    def timed(*args: Any, **kwargs: Any) -> torch.Tensor:
        begun = time.perf_counter()
        result = original(*args, **kwargs)
        seconds.append(time.perf_counter() - begun)
        return result

    proximal.cross_entropy_prox = timed


def cost(name: str, data: Dataset, samples: int, hidden: list[int], iterations: int) -> str:
    """One row of the table: medians over the iterations after the first two."""
    solver = METHODS[name](data.train.inputs[:samples], data.train.targets[:samples], hidden)
    newton: list[float] = []
    timed_newton(newton)
    rows = []
    for _ in range(iterations + 2):
        newton.clear()
        with Products() as products:
            begun = time.perf_counter()
            solver.step()
            total = time.perf_counter() - begun
        rows.append((total, products.seconds, sum(newton), products.operations / 1e9))
    total, product, prox, operations = map(statistics.median, zip(*rows[2:], strict=True))
    return (
        f"| {name} | {samples} | {hidden} | {total:.3f} | {product:.3f} | {prox:.3f} "
        f"| {operations:.1f} | {total / product:.2f} | {(total - prox) / product:.2f} |"
    )


def accuracy(
    name: str, data: Dataset, samples: int, hidden: list[int], iterations: int, seed: int
) -> None:
    """Print the test accuracy as the iterations go on."""
    inputs, targets = data.train.inputs[:samples], data.train.targets[:samples]
    solver = METHODS[name](inputs, targets, hidden, seed=seed)
    times = []
    for iteration in range(1, iterations + 1):
        begun = time.perf_counter()
        progress = solver.step()
        times.append(time.perf_counter() - begun)
        if iteration % 25 == 0 or iteration in (1, 5, 10, 22, iterations):
            hits = solver.predict(data.test.inputs).argmax(1) == data.test.targets
            print(
                f"| {name} | {samples} | {hidden} | {iteration} | {100 * hits.double().mean():.2f} "
                f"| {progress.objective:.5g} | {statistics.median(times):.3f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cost", "accuracy"))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--width", type=int, nargs="+", default=[100])
    parser.add_argument("--hidden", type=int, default=2, help="number of hidden layers")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="of cost: write a page, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = os.environ.get("SAMT_DATA_DIR", "../shared/data")
    data = load(options.data, Path(folder))
    if options.what == "cost":
        columns = ["method", "samples", "hidden", "s/iteration", "products s", "Newton s", "GFLOP"]
        columns += ["iteration / products", "without Newton"]
    else:
        columns = ["method", "samples", "hidden", "iteration", "test %", "objective", "s/iteration"]
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    print("\n".join(lines))
    for width, name in itertools.product(options.width, options.method):
        hidden = [width] * options.hidden
        if options.what == "cost":
            lines.append(cost(name, data, options.samples, hidden, options.iterations))
            print(lines[-1], flush=True)
        else:
            accuracy(name, data, options.samples, hidden, options.iterations, options.seed)
    if options.output is not None:
        command = shlex.join(["python", "benchmarks/layerwise.py", *sys.argv[1:]])
        options.output.write_text(_PAGE.format(command=command, table="\n".join(lines)))


if __name__ == "__main__":
    main()
