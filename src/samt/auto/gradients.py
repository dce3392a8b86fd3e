"""The gradients of a step: those of a closure, and those of several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from samt.errors import ClosureResultError
from samt.tensors.process_groups import Ranks


def of_closure(closure: Callable[[], Any], parameters: list[Tensor]) -> tuple[Any, Any]:
    """Call a closure, and `backward` of its loss unless the closure has done so.

    Args:
        closure: evaluates the loss; it may return more than that, with the loss first.
        parameters: all parameters of the optimizer.

    Returns:
        What the closure returned, and the loss, both detached.

    Raises:
        ClosureResultError: there is a loss for each sample, and no gradient.
    """
    before = [(p.grad, 0 if p.grad is None else p.grad._version) for p in parameters]
    with torch.enable_grad():
        result = closure()
        is_several = isinstance(result, tuple | list) and len(result) > 0
        loss = result[0] if is_several else result
        if isinstance(loss, Tensor) and loss.requires_grad:
            untouched = all(
                p.grad is gradient and (gradient is None or gradient._version == version)
                for p, (gradient, version) in zip(parameters, before, strict=True)
            )
            if untouched or all(p.grad is None for p in parameters):
                _backward(loss, parameters)
            loss = loss.detach()
    return (result if is_several else loss), loss


def _backward(loss: Tensor, parameters: list[Tensor]) -> None:
    """Unless the closure has done so, and has found none of these parameters in the loss."""
    if any(parameter.requires_grad for parameter in parameters):
        if loss.numel() != 1:
            raise ClosureResultError(
                f"the closure returned a loss of shape {tuple(loss.shape)} and no gradients: "
                "return one number, such as loss.mean(), or call backward in the closure"
            )
        try:
            loss.backward()
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise


def average(ranks: Ranks, loss: Any, parameters: list[Tensor]) -> Any:
    """Put the average over several processes into `.grad` of all parameters.

    Args:
        ranks: the processes.
        loss: the loss of this process, or None.
        parameters: all parameters of the optimizer.

    Returns:
        The average of the loss.
    """
    gradients = [parameter.grad for parameter in parameters]
    loss, means = ranks.average(loss, gradients, parameters)
    for parameter, gradient, mean in zip(parameters, gradients, means, strict=True):
        if gradient is not None and mean is not None:
            gradient.copy_(mean)
        elif mean is not None:
            parameter.grad = mean.to(parameter.dtype, copy=True)  # alike in memory on all ranks
    return loss
