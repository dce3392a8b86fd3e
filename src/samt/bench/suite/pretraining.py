"""Weights from which fine-tuning starts: trained once, the same for every method and seed."""

from __future__ import annotations

import contextlib
import hashlib
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from samt.bench.atomic import replaced
from samt.bench.data import Split, cache
from samt.bench.suite.problem import Task

Weights = dict[str, Tensor]
_LEARNING_RATE = 1e-3
_VERSION = 1  # to be raised when a change below would give other weights


@lru_cache(maxsize=8)
def pretrained(
    name: str, make: Callable[[Path | None], tuple[Task, Split]], data_dir: Path | None
) -> Weights:
    """The weights after a training with Adam: from this process, from the disk, or trained now.

    Args:
        name: what the file in the cache folder is called, ahead of a checksum.
        make: a function from a data folder to the task that is trained and its training part;
            both follow from the folder alone.
        data_dir: the folder of all data sets; None means the user's own.

    Returns:
        A state dict of the task's model. Nobody may change its tensors.
    """
    task, samples = make(data_dir)
    path = cache.folder() / "suite" / f"{name}-{_checksum(task, samples)}.pt"
    known = _read(path)
    if known is not None:
        return known
    with _one_thread():
        _train(task)
    weights = {key: value.detach().clone() for key, value in task.model.state_dict().items()}
    with contextlib.suppress(OSError):  # a cache that cannot be written is no error
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            torch.save(weights, file)
    return weights


def _checksum(task: Task, samples: Split) -> str:
    """SHA-256 over what decides the weights: the first weights, the samples, the length."""
    digest = hashlib.sha256(f"{_VERSION} {torch.__version__} {task.steps}".encode())
    for tensor in (*task.model.state_dict().values(), *samples.tensors()):
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> Weights | None:
    """What an earlier process left, or None if it is not there or damaged."""
    try:
        weights = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return None
    return weights if isinstance(weights, dict) else None


def _train(task: Task) -> None:
    optimizer = torch.optim.Adam(task.model.parameters(), lr=_LEARNING_RATE)
    task.model.train()
    for step in range(task.steps):
        share = step / task.steps
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * share)) / 2
        optimizer.zero_grad()
        task.loss(step).backward()
        optimizer.step()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads; so all machines use one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
