"""The states of torch's random number generators: of the CPU and of the devices in use."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class RandomStates:
    """A snapshot. CUDA too keeps its states in host memory, so that nothing waits for the GPU.

    Args:
        devices: accelerators whose generators count too; the CPU's always does.
    """

    def __init__(self, devices: Iterable[torch.device] = ()) -> None:
        self._cpu = torch.get_rng_state()
        self._devices: list[tuple[torch.device, Tensor]] = [
            (device, torch.get_device_module(device).get_rng_state(device)) for device in devices
        ]

    def restore(self) -> None:
        """Set every generator back to the snapshot."""
        torch.set_rng_state(self._cpu)
        for device, state in self._devices:
            torch.get_device_module(device).set_rng_state(state, device)

    def equals(self, other: RandomStates) -> bool:
        """Whether nothing was drawn between two snapshots of the same devices."""
        states = zip(self._devices, other._devices, strict=True)
        return torch.equal(self._cpu, other._cpu) and all(
            torch.equal(mine, theirs) for (_, mine), (_, theirs) in states
        )
