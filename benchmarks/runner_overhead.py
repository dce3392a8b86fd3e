"""What `samt run` adds to a cell: python benchmarks/runner_overhead.py

Cells of ten seconds of training on digits, one and four for each job. The difference is free of the
start of the command, which is reported apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SECONDS = 10.0
_LONG = 4

_EXPERIMENT = """
name: overhead
data: digits
width: 300
seeds: {seeds}
budget: {{seconds: {seconds}}}
evaluate: 20
methods: [samt]
"""


def measure(jobs: int, cells_per_job: int) -> float:
    """Seconds from the start of the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.yaml"
        file.write_text(_EXPERIMENT.format(seeds=jobs * cells_per_job, seconds=_SECONDS))
        command = [sys.executable, "-m", "samt.bench.cli", "run", str(file), "--jobs", str(jobs)]
        started = time.perf_counter()
        subprocess.run(
            [*command, "--results", f"{folder}/results"], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - started


def main() -> None:
    """Print the overhead of a cell, and of the command."""
    jobs = os.cpu_count() or 1
    short, long = measure(jobs, 1), measure(jobs, _LONG)
    overhead = (long - short) / (_LONG - 1) - _SECONDS
    print(f"{jobs} jobs; {_LONG * jobs} cells of {_SECONDS:g} s of training each took {long:.2f} s")
    print(f"overhead of a cell: {overhead:.3f} s, {overhead / _SECONDS:.1%}")
    print(f"start of the command: {short - overhead - _SECONDS:.2f} s")


if __name__ == "__main__":
    main()
