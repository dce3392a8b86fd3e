"""Tensors of which every process holds a part: those of `torch.distributed.fsdp.fully_shard`.

What is done element by element is done to the part alone. Sums, norms, maxima and minima are
reduced over the processes, so that all of them come to the same step sizes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor, which fully_shard makes of every parameter."""
    if type(tensor) in (Tensor, nn.Parameter):  # asked of every tensor in every step
        return False
    # To import this takes as long as torch does. Who has a DTensor has imported it.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory; the tensor itself if it is not sharded."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():  # otherwise it would be a view for autograd to follow
        return tensor.to_local()


def local_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process's part of a parameter's state, in the same memory."""
    if not is_sharded(state["exp_avg_sq"]):
        return state
    return {key: local(value) for key, value in state.items()}


def local_gradient(parameter: Tensor) -> Tensor | None:
    """The gradient of this process's part of a parameter."""
    gradient = parameter.grad
    if gradient is None or not (is_sharded(gradient) and is_sharded(parameter)):
        return gradient
    if gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return local(gradient)


class Shards:
    """The processes over which the elements of some tensors are spread.

    Args:
        tensor: one of the tensors. If it is not sharded, reductions leave things as they are.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._groups: tuple[dist.ProcessGroup, ...] = ()
        if is_sharded(tensor):
            mesh = tensor.device_mesh
            placements = enumerate(tensor.placements)
            spread = [i for i, placement in placements if not placement.is_replicate()]
            self._groups = tuple(map(mesh.get_group, spread))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shards) and self._groups == other._groups

    def __hash__(self) -> int:
        return hash(self._groups)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def sum(self, partial: Tensor) -> Tensor:
        """Sums over the processes, in place."""
        for group in self._groups:
            dist.all_reduce(partial, group=group)
        return partial

    def maximum(self, partial: Tensor) -> Tensor:
        """The largest of all processes, in place."""
        for group in self._groups:
            dist.all_reduce(partial, dist.ReduceOp.MAX, group=group)
        return partial

    def statistics(self, parts: Sequence[Tensor], counts: Tensor) -> Tensor:
        """What `gradient_statistics` finds of the whole tensors.

        Args:
            parts: the parts that this process holds; some may be empty.
            counts: the numbers of elements of the whole tensors.

        Returns:
            Features, shape (T, 5).
        """
        sums, extremes = [], []
        for part in parts:
            sums += [part.sum(), torch.linalg.vector_norm(part).square()]
            none = part.new_tensor(-math.inf)
            low, high = torch.aminmax(part) if part.numel() else (-none, none)
            extremes += [high, -low]
        mean, square = (self.sum(torch.stack(sums)).view(-1, 2).T / counts).unbind()
        high, low = self.maximum(torch.stack(extremes)).view(-1, 2).T.unbind()
        variance = (square - mean.square()).clamp_(min=0)
        return torch.stack((mean, variance, high, -low, (square * counts).sqrt()), dim=1)
