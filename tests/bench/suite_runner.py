"""Runs a part of the suite as a process of its own: results folder, data folder, jobs, methods."""

from __future__ import annotations

import sys
from pathlib import Path

from samt.bench.suite.command import Wish, run
from tests.bench.suite_problems import EXPLODING, LINES

if __name__ == "__main__":
    results, folder, jobs, *methods = sys.argv[1:]
    problems = {one.name: one for one in (LINES, EXPLODING)}
    wish = Wish(methods=methods, horizons=(1.0,))
    sys.exit(run(wish, results, int(jobs), Path(folder), False, problems))
