"""Cost of one step, as a ratio to torch SGD on the same model and batch, measured in one run.

All methods are built first; then they take turns, a few steps each, so that a machine whose
speed drifts is unfair to nobody. Printed: the median over the turns, and its quartiles.

    make bench                                   # or:
    python benchmarks/step_cost.py --widths 784,800,10 --batch-size 64 --rounds 30
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

import samt

LOSS = nn.functional.cross_entropy
STEPS_PER_TURN = 5

METHODS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "Adam": lambda model: torch.optim.Adam(model.parameters()),
    "SAMT scalar, subset": lambda model: samt.SAMT(samt.blocks(model)),
    "SAMT scalar, same": lambda model: samt.SAMT(samt.blocks(model), meta_batch="same"),
    "SAMT scalar, next": lambda model: samt.SAMT(samt.blocks(model), meta_batch="next"),
    "SAMT scalar, next, whole model": lambda model: samt.SAMT(
        samt.blocks(model, 1), meta_batch="next"
    ),
    "SAMT element, subset": lambda model: samt.SAMT(samt.blocks(model), step_size="element"),
}


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])


def stepper(method: str, widths: list[int], inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """A function that takes one step with a freshly built model."""
    torch.manual_seed(0)
    model = mlp(widths)
    optimizer = METHODS[method](model)

    def step() -> None:
        if isinstance(optimizer, samt.SAMT):
            optimizer.step(samt.closure(model, LOSS, inputs, targets))
        else:
            optimizer.zero_grad()
            LOSS(model(inputs), targets).backward()
            optimizer.step()

    return step


def measure(steppers: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds per step of every method, once for each round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(rounds + 1):
        for name, step in steppers.items():
            started = time.perf_counter()
            for _ in range(STEPS_PER_TURN):
                step()
            seconds[name].append((time.perf_counter() - started) / STEPS_PER_TURN)
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", nargs="*", default=["784,100,10", "784,800,10"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    for text in arguments.widths:
        widths = [int(width) for width in text.split(",")]
        inputs = torch.rand(arguments.batch_size, widths[0])
        targets = torch.randint(widths[-1], (arguments.batch_size,))
        steppers = {name: stepper(name, widths, inputs, targets) for name in METHODS}
        seconds = measure(steppers, arguments.rounds)
        print(f"\n{text}, batch {arguments.batch_size}, {torch.get_num_threads()} threads")
        print(f"{'method':32} {'ms/step':>8} {'to SGD':>7}  quartiles")
        for name, values in seconds.items():
            ratios = [a / b for a, b in zip(values, seconds["SGD"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            milliseconds = statistics.median(values) * 1e3
            print(f"{name:32} {milliseconds:8.3f} {middle:7.2f}  {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
