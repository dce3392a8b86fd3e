"""Where cells run: threads that watch processes here, or a cluster of Ray or Dask, by joblib."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from samt.bench.errors import ExperimentError

Backend = Literal["local", "ray", "dask"]
T = TypeVar("T")


@contextmanager
def workers(
    backend: Backend, jobs: int | None, threads: int, address: str | None = None
) -> Iterator[Callable[[Callable[[Any], T], Sequence[Any]], list[T]]]:
    """Open a backend.

    Args:
        backend: "local", "ray" or "dask".
        jobs: cells at a time; None takes what the machine or the cluster has.
        threads: of torch in each cell.
        address: of a running cluster; without it, one is started on this machine.

    Yields:
        A function that applies another one to each of some arguments, in any order.

    Raises:
        ExperimentError: the backend is not installed, or the cluster does not answer.
    """
    import joblib

    opened = {"local": _local, "ray": _ray, "dask": _dask}[backend]
    with opened(jobs, threads, address) as options:

        def apply(function: Callable[[Any], T], arguments: Sequence[Any]) -> list[T]:
            tasks = [joblib.delayed(function)(argument) for argument in arguments]
            with joblib.parallel_config(**options):
                # One cell for each task, whatever joblib learns about how long they take.
                return list(joblib.Parallel(batch_size=1, pre_dispatch="all")(tasks))

        yield apply


def default_jobs(threads: int) -> int:
    """How many cells fit on the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // threads)


@contextmanager
def _local(jobs: int | None, threads: int, address: str | None) -> Iterator[Mapping[str, Any]]:
    if address is not None:
        raise ExperimentError("--address is that of a cluster: add --backend ray or dask")
    # The threads only watch: each cell has a process, and joblib's own would be one too many.
    yield {"backend": "threading", "n_jobs": jobs or default_jobs(threads)}


@contextmanager
def _ray(jobs: int | None, threads: int, address: str | None) -> Iterator[Mapping[str, Any]]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise _absent("ray") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds
        raise _silent("Ray", address) from error
    register_ray()
    try:
        cores = int(ray.cluster_resources().get("CPU", 1))
        yield {
            "backend": "ray",
            "n_jobs": jobs or max(1, cores // threads),
            # A worker that dies comes back, and its cell with it; the others are left alone.
            "ray_remote_args": {"max_restarts": -1, "max_task_retries": -1, "num_cpus": threads},
        }
    finally:
        ray.shutdown()


@contextmanager
def _dask(jobs: int | None, threads: int, address: str | None) -> Iterator[Mapping[str, Any]]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise _absent("dask") from error
    cluster = None
    try:
        if address is None:
            workers = jobs or default_jobs(threads)
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
            )
        client = Client(address or cluster)
    except Exception as error:  # of many kinds
        raise _silent("Dask", address) from error
    try:
        cores = sum(client.nthreads().values())
        yield {"backend": "dask", "n_jobs": jobs or max(1, cores // threads)}
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _absent(name: str) -> ExperimentError:
    return ExperimentError(f"--backend {name} is not installed: pip install 'samt[cluster]'")


def _silent(name: str, address: str | None) -> ExperimentError:
    where = f"at {address} " if address else ""
    return ExperimentError(f"the {name} cluster {where}does not answer: check --address")
