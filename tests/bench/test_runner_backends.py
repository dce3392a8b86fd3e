"""The same grid on this machine, on a Ray cluster of two nodes and on a Dask cluster."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import ENVIRONMENT
from .grids import assert_same, finish, numbers, wait_until, write_grid

_GRID = """
width: [[8], [16, 8]]
seeds: 2
budget: {epochs: 5}
methods:
  - samt:step_size=row
  - {method: sgd, tune: {lr: [0.03, 0.3]}}
  - bcd
"""


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    finish(write_grid(folder / "grid.yaml", _GRID), folder / "results", "--jobs", 1)
    return folder / "results"


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[tuple[str, psutil.Process]]:
    """Address of a cluster of two nodes, and the process that has started its processes."""
    code = (
        "import sys, logging\n"
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True,"
        " head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "cluster.add_node(num_cpus=1)\n"
        "print('address', cluster.address, flush=True)\n"
        "sys.stdin.read()\n"
        "cluster.shutdown()\n"
    )
    with psutil.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        lines = (line.split() for line in process.stdout)
        address = next(words[1] for words in lines if words[:1] == ["address"])
        yield address, psutil.Process(process.pid)
        process.communicate("")


def test_four_jobs_give_the_same_results(tmp_path: Path, one_after_the_other: Path) -> None:
    finish(write_grid(tmp_path / "grid.yaml", _GRID), tmp_path / "results", "--jobs", 4)
    assert_same(numbers(tmp_path / "results"), numbers(one_after_the_other))


def test_a_dask_cluster_gives_the_same_results(tmp_path: Path, one_after_the_other: Path) -> None:
    finish(write_grid(tmp_path / "grid.yaml", _GRID), tmp_path / "results", "--backend", "dask")
    assert_same(numbers(tmp_path / "results"), numbers(one_after_the_other))


def test_a_ray_cluster_gives_the_same_results_though_a_worker_is_killed(
    tmp_path: Path, one_after_the_other: Path, ray_cluster: tuple[str, psutil.Process]
) -> None:
    address, cluster = ray_cluster
    killed: list[int] = []

    def watching() -> list[psutil.Process]:
        """Ray's workers that watch a cell: each has the nursery, and that has the cell."""
        found = []
        for process in cluster.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "PoolActor" in " ".join(process.cmdline()) and any(
                    child.children() for child in process.children()
                ):
                    found.append(process)
        return found

    def kill() -> None:
        process = wait_until(watching)[0]
        process.kill()
        killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    file = write_grid(tmp_path / "grid.yaml", _GRID)
    finish(file, tmp_path / "results", "--backend", "ray", "--address", address)
    thread.join()
    assert len(killed) == 1
    assert_same(numbers(tmp_path / "results"), numbers(one_after_the_other))
    nodes = {one["machine"]["host"] for one in _summaries(tmp_path / "results")}
    assert nodes == {os.uname().nodename}


def _summaries(results: Path) -> list[dict[str, dict[str, str]]]:
    from samt.bench.experiments.store import Store

    return list(Store(str(results)).summaries().values())


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--address", "10.0.0.1:1"], "add --backend"),
        (["--backend", "dask", "--address", "nonsense://x"], "check --address"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    tmp_path: Path, words: list[str], cure: str
) -> None:
    from .conftest import COMMAND

    file = write_grid(tmp_path / "grid.yaml", _GRID)
    done = subprocess.run(
        [*COMMAND, "run", str(file), "--results", str(tmp_path / "results"), *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert cure in done.stderr
