"""Long runs in which nothing may grow and nothing may get lost: python benchmarks/soak.py --help

    steps    many steps of both optimizers: memory, file handles, threads, time of a step
    trainer  the same through `samt train`, with a checkpoint after each epoch
    sweep    an experiment of many cells whose workers are killed at random, and an undisturbed one

Each prints what it saw and exits with 1 where something grew or differs. The first tenth is
compared with the last; times are those of the processor, and of them the lower quartile counts, so
that a busy machine does no harm.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

import samt

_OPTIMIZERS = ("AutoSAMT", "SAMT")
_MIB = 1 << 20
_MORE_MEMORY = 4 * _MIB  # what an allocator may keep by chance
_SLOWER = 1.15


@dataclass
class Watch:
    """What a process holds, window by window."""

    resident: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def look(self, seconds: float) -> None:
        """Add a window whose steps took so long."""
        process = psutil.Process()
        self.resident.append(process.memory_info().rss)
        self.handles.append(process.num_fds())
        self.threads.append(process.num_threads())
        self.seconds.append(seconds)

    def grew(self, name: str) -> list[str]:
        """Print first and last tenth; returns what grew."""
        tenth = max(1, len(self.seconds) // 10)
        first, last = slice(None, tenth), slice(-tenth, None)
        memory = [statistics.median(self.resident[part]) for part in (first, last)]
        handles, threads = (
            [max(values[part]) for part in (first, last)] for values in (self.handles, self.threads)
        )
        times = [_quartile(self.seconds[part]) for part in (first, last)]
        print(
            f"{name}: memory {memory[0] / _MIB:.1f} -> {memory[1] / _MIB:.1f} MiB, "
            f"handles {handles[0]} -> {handles[1]}, threads {threads[0]} -> {threads[1]}, "
            f"window {times[0] * 1e3:.2f} -> {times[1] * 1e3:.2f} ms",
            flush=True,
        )
        limits = {
            "memory": memory[1] - memory[0] > _MORE_MEMORY,
            "handles": handles[1] > handles[0],
            "threads": threads[1] > threads[0],
            "time": times[1] > times[0] * _SLOWER,
        }
        return [f"{name}: {what}" for what, grew in limits.items() if grew]


def _quartile(values: list[float]) -> float:
    return sorted(values)[len(values) // 4]


def steps(count: int, optimizers: Sequence[str] = _OPTIMIZERS) -> list[str]:
    """Take steps on a small network; returns what grew."""
    grown = []
    for optimizer in optimizers:
        step = _step(optimizer)
        watch, window = Watch(), max(1, count // 1000)
        for _ in range(min(count // 10, 1000)):
            step()
        for _ in range(count // window):
            started = time.process_time()
            for _ in range(window):
                step()
            watch.look(time.process_time() - started)
        grown += watch.grew(f"{count} steps, {optimizer}")
    return grown


def _step(name: str) -> Callable[[], object]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
    inputs = torch.randn(16, 20)
    targets = inputs[:, :5].argmax(1)
    if name == "SAMT":
        published = samt.SAMT(samt.blocks(model), lr=0.01, step_size="row")
        loss_fn = nn.functional.cross_entropy
        return lambda: published.step(samt.closure(model, loss_fn, inputs, targets))
    optimizer = samt.AutoSAMT(samt.blocks(model))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def trainer(count: int) -> list[str]:
    """Train on digits with checkpoints; returns what grew."""
    from samt.bench.data import load
    from samt.bench.method_specs import parse_spec
    from samt.bench.results import Record
    from samt.bench.runs import Run
    from samt.bench.settings import Settings

    class Epochs:
        """Looks once an epoch."""

        def __init__(self) -> None:
            self.watch, self.seconds = Watch(), time.process_time()

        def started(self, record: Record, epochs: int) -> None:
            """Nothing yet."""

        def step(self, *seen: object) -> None:
            """Nothing yet."""

        def epoch(self, record: Record) -> None:
            """One more, with its evaluation and its checkpoint."""
            self.watch.look(time.process_time() - self.seconds)
            self.seconds = time.process_time()

    data, grown = load("digits", None), []
    for method in ("auto-samt", "samt"):
        settings = Settings(
            method=parse_spec(method), hidden=(16,), batch_size=4, threads=1, device="cpu"
        )
        epochs = max(10, count * settings.batch_size // len(data.train))
        with tempfile.TemporaryDirectory() as folder:
            seen = Epochs()
            settings = Settings(**{**vars(settings), "epochs": epochs})
            Run(settings, data, Path(folder) / "run").execute(seen)
        grown += seen.watch.grew(f"{epochs} epochs of samt train, {method}")
    return grown


_EXPERIMENT = """
name: soak
data: digits
width: 8
seeds: {seeds}
budget: {{epochs: 1}}
methods: [auto-samt, samt, "sgd:momentum=0.9", adam]
"""
# What differs from run to run: clocks, and where and how often a cell ran.
_VOLATILE = (
    *("seconds", "wall_seconds", "started", "attempts", "machine", "jobs", "commit"),
    *("cpu", "host"),
)


def sweep(cells: int, share: float) -> list[str]:
    """Run an experiment twice, once with kills; returns what differs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "soak.yaml").write_text(_EXPERIMENT.format(seeds=-(-cells // 4)))
        found, wrong = [], []
        for results, kill in (("undisturbed", 0.0), ("disturbed", share)):
            started = time.monotonic()
            with _running(folder, results) as runner:
                killed = _kill_some(runner, kill)
            cells_frame, curves = _frames(folder / results)
            print(
                f"{results}: {len(cells_frame)} cells, {dict(cells_frame['status'].value_counts())}"
                f", {killed} workers killed, {time.monotonic() - started:.0f} s, "
                f"exit code {runner.returncode}",
                flush=True,
            )
            found.append((cells_frame, curves))
            unfinished = int((cells_frame["status"] != "finished").sum())
            files = {path.parent.name for path in (folder / results).rglob("*.tmp")}
            left = [*(folder / results / "checkpoints").glob("*"), *files]
            wrong += [f"{results}: {unfinished} unfinished"] if unfinished else []
            wrong += [f"{results}: {left} left over"] if left else []
        for (one, other), what in zip(zip(*found, strict=True), ("cells", "curves"), strict=True):
            print(f"{what}: {len(one)} and {len(other)} rows, equal: {one.equals(other)}")
            wrong += [] if one.equals(other) else [f"{what} differ"]
    return wrong


@contextlib.contextmanager
def _running(folder: Path, results: str) -> Iterator[psutil.Popen]:
    command = ["run", "soak.yaml", "--results", results, "--checkpoint", "0.05", "--jobs", "2"]
    process = psutil.Popen(
        [sys.executable, "-m", "samt.bench.cli", *command], cwd=folder, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.is_running():
            process.kill()
        process.wait()


def _kill_some(runner: psutil.Popen, share: float) -> int:
    """Watch until the end; of each hundred new workers some are killed, at a random moment."""
    chance, known, due, killed = random.Random(0), set[int](), dict[psutil.Process, float](), 0
    while runner.poll() is None:
        workers = _workers(runner) if share else []
        for worker in workers:
            if worker.pid not in known and chance.random() < share:
                due[worker] = time.monotonic() + chance.uniform(0, 0.1)
            known.add(worker.pid)
        for worker, moment in list(due.items()):
            if time.monotonic() > moment:
                del due[worker]
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
                    killed += 1
        time.sleep(0.02 if share else 0.5)
    return killed


def _workers(runner: psutil.Popen) -> list[psutil.Process]:
    """Grandchildren: those of the process that starts cells."""
    try:
        return [worker for child in runner.children() for worker in child.children()]
    except psutil.NoSuchProcess:
        return []


def _frames(results: Path) -> tuple[Any, Any]:
    from samt.bench.experiments import frames
    from samt.bench.experiments.store import Store

    store = Store(str(results))
    cells = frames.cells_frame(store).sort_values("identity").reset_index(drop=True)
    curves = frames.curves_frame(store, cells["identity"])
    assert not store.damaged, store.damaged
    kept = [
        frame.drop(columns=[name for name in _VOLATILE if name in frame])
        for frame in (cells, curves)
    ]
    kept[1]["step_sizes"] = kept[1]["step_sizes"].map(dict).map(str)
    return kept[0], kept[1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["steps", "trainer", "sweep"])
    parser.add_argument("--steps", type=int, default=200_000, help="of each optimizer")
    parser.add_argument("--optimizers", nargs="+", choices=_OPTIMIZERS, default=_OPTIMIZERS)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--kills", type=float, default=0.01, help="share of workers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wrong = {
        "steps": lambda: steps(given.steps, given.optimizers),
        "trainer": lambda: trainer(given.steps),
        "sweep": lambda: sweep(given.cells, given.kills),
    }[given.what]()
    for line in wrong:
        print(f"WRONG: {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
