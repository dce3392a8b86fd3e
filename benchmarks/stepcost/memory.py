"""What a step allocates, counted by the allocator and not by the operating system.

Resident memory says little about a small network: it holds the code of torch, and what the
allocator keeps for later. So on a CPU the profiler records every allocation and release of two
steps; on a GPU torch's allocator knows its own peak.
"""

from __future__ import annotations

import ctypes
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Args:
        kept: of all tensors that live through the steps: weights, buffers, state, caches.
        step: the most that is allocated within steps and beside `kept`.
    """

    kept: int
    step: int


def measured(steps: Callable[[], None], device: torch.device) -> Memory:
    """Run a function that takes a step or two, and see what it allocates.

    Args:
        steps: called once.
        device: whose memory counts.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        kept = torch.cuda.memory_allocated(device)
        steps()
        return Memory(kept, torch.cuda.max_memory_allocated(device) - kept)
    before = _storages()
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        steps()
    results = profiler.profiler.kineto_results if profiler.profiler is not None else None
    events = results.events() if results is not None else []
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    allocated = most = 0
    for _, size in changes:
        allocated += size
        most = max(most, allocated)
    # What the steps have replaced, as GDTUO does with the weights, is counted in the steps.
    kept = sum(size for size, tensors in before if any(tensor() is not None for tensor in tensors))
    return Memory(kept, most)


def _storages() -> list[tuple[int, list[weakref.ref[Tensor]]]]:
    """Size and tensors of every storage of this process, which holds one method alone."""
    found: dict[int, tuple[int, list[weakref.ref[Tensor]]]] = {}
    for thing in gc.get_objects():
        # Not isinstance: it would wake lazy objects, and find the compiler's tensors without data.
        if type(thing) in (Tensor, nn.Parameter) and thing.layout == torch.strided:
            storage = thing.untyped_storage()
            found.setdefault(storage.data_ptr(), (storage.nbytes(), []))[1].append(
                weakref.ref(thing)
            )
    return list(found.values())


@contextmanager
def _silent() -> Iterator[None]:
    """Without the profiler's own messages, which C++ writes to stderr."""
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def give_back(device: torch.device) -> None:
    """Return free memory to the system, so that many methods fit beside each other."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
