"""Memory that a step frees stays with the process, for the next step."""

from __future__ import annotations

import torch

_LARGEST = 31 * 2**20  # bytes; from 32 MiB on glibc hands every piece back, whatever was freed


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees, instead of handing it back to the system.

    A step frees a few tensors of the size of its largest parameter at once, and the next step
    wants them back. glibc returns them in between, so that every page is mapped and zeroed
    again: on a 784-800-10 network that costs as much as two forward passes. It learns from the
    largest piece that was ever freed how much to keep; this one is freed without having been
    touched, so that it takes neither time nor memory. Elsewhere it does nothing.
    """
    torch.empty(_LARGEST, dtype=torch.uint8)
