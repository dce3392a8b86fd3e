"""Data parallel training: processes that hold the same weights and see different samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from samt.errors import OptionError
from samt.tensors.precision import state_dtype
from samt.tensors.shards import is_sharded

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Ranks:
    """The processes that train one model together.

    A copy belongs to the same processes. A pickle cannot take them along: what comes out of it
    refuses to average until it is told its process group.

    Args:
        group: the process group of these processes; None for one process alone.
        is_lost: whether the group stayed behind when the optimizer was pickled.

    Raises:
        OptionError: that is no process group of this process.
    """

    def __init__(self, group: ProcessGroup | None, is_lost: bool = False) -> None:
        known = group is None or (dist.is_available() and isinstance(group, dist.ProcessGroup))
        if not known:
            raise OptionError(
                "process_group must be None or a process group that this process is in, not a "
                f"{type(group).__name__}: give torch.distributed.group.WORLD, after "
                "init_process_group"
            )
        self.group = group
        self.is_lost = is_lost

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Ranks, (None, self.is_lost or self.group is not None)

    @property
    def are_several(self) -> bool:
        """Whether there are other processes to average with.

        Raises:
            OptionError: the process group is lost.
        """
        if self.is_lost:
            raise OptionError(
                "a process group cannot be pickled with its optimizer: set "
                "optimizer.process_group, or set it to None to train in one process"
            )
        return self.group is not None

    def start_alike(self, parameters: Sequence[Tensor]) -> None:
        """Give every rank the parameters of the first, as DistributedDataParallel does.

        Raises:
            OptionError: they are sharded.
        """
        if not self.are_several:
            return
        assert self.group is not None
        if any(map(is_sharded, parameters)):
            raise OptionError(
                "fully_shard averages the gradients of its model: leave process_group out"
            )
        first = dist.get_global_rank(self.group, 0)
        with torch.no_grad():
            for parameter in parameters:
                sent = parameter.detach().contiguous()
                dist.broadcast(sent, src=first, group=self.group)
                parameter.copy_(sent)

    def average(
        self, loss: Any, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> tuple[Any, list[Tensor | None]]:
        """Average over the ranks, with the same bits on each rank, in one exchange per device.

        Args:
            loss: the loss of this rank. Anything but a number or a tensor of one element is
                returned as it is.
            gradients: the gradients of this rank. A missing gradient counts as zero where another
                rank has it.
            parameters: the parameters that the gradients belong to.

        Returns:
            The loss, and the gradients, in the precision of the optimizer's state.
        """
        if not self.are_several:
            return loss, list(gradients)
        found = list(gradients)
        devices = list(dict.fromkeys(parameter.device for parameter in parameters))
        if not devices:
            devices = [loss.device if isinstance(loss, Tensor) else torch.device("cpu")]
        for device in devices:
            own = [i for i, parameter in enumerate(parameters) if parameter.device == device]
            loss, means = self._average_on(
                device, loss, [found[i] for i in own], [parameters[i] for i in own]
            )
            for i, mean in zip(own, means, strict=True):
                found[i] = mean
        return loss, found

    def _average_on(
        self,
        device: torch.device,
        loss: Any,
        gradients: list[Tensor | None],
        parameters: list[Tensor],
    ) -> tuple[Any, list[Tensor | None]]:
        dtypes = {state_dtype(parameter) for parameter in parameters}
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        like = torch.zeros(1, dtype=dtype, device=device)
        has_loss = (isinstance(loss, Tensor) and loss.numel() == 1) or isinstance(loss, float)
        number = torch.as_tensor(loss).detach().reshape(1).to(like) if has_loss else like
        parts = [
            like.new_zeros(p.numel()) if g is None else g.detach().reshape(-1).to(dtype)
            for g, p in zip(gradients, parameters, strict=True)
        ]
        there = [gradient is not None for gradient in gradients]
        # Nobody has to wait for the device, but for a rank that misses a gradient.
        notes = (
            like.new_ones(len(there)) if all(there) else like.new_tensor(list(map(float, there)))
        )
        flat = torch.cat([*parts, notes, number])
        dist.all_reduce(flat, group=self.group)
        flat /= dist.get_world_size(self.group)
        *means, notes, mean = flat.split([*(len(part) for part in parts), len(parts), 1])
        wanted = [True] * len(parts) if all(there) else (notes > 0).tolist()
        found = [
            mean.view(p.shape).to(state_dtype(p)) if is_wanted else None
            for mean, p, is_wanted in zip(means, parameters, wanted, strict=True)
        ]
        if isinstance(loss, Tensor) and has_loss:
            loss = mean.to(loss.device, loss.dtype).view(loss.shape)
        return (float(mean) if has_loss and isinstance(loss, float) else loss), found
