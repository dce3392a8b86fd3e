"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from .support.processes import World


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tensors are tiny, and two threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1234)


@pytest.fixture(scope="session")
def worlds() -> Iterator[Callable[[int], World]]:
    """A function from a number of ranks to as many processes, which start when they are needed."""
    made: dict[int, World] = {}
    yield lambda size: made.setdefault(size, World(size))
    for world in made.values():
        world.stop()
