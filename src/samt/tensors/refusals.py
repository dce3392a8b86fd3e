"""What can be trained: real floating-point parameters with dense gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from samt.errors import (
    LeftoverGradientsError,
    OptionError,
    UninitializedParameterError,
    UnsupportedGradientError,
)
from samt.tensors.shards import is_sharded


def refuse_unreal(parameter: Tensor, block: str) -> None:
    """Raise UnsupportedGradientError for a parameter of integers or complex numbers."""
    if not parameter.is_floating_point():
        raise UnsupportedGradientError(
            f"block {block!r} has a parameter of {parameter.dtype} that requires gradients: "
            "samt trains real floating-point parameters"
        )


def refuse_sparse(gradient: Tensor | None) -> None:
    """Raise UnsupportedGradientError for a sparse gradient."""
    if gradient is not None and gradient.layout != torch.strided:
        raise UnsupportedGradientError(
            "samt does not support sparse gradients: build the embedding with sparse=False"
        )


def refuse_sharded(group: dict[str, Any]) -> None:
    """Raise UnsupportedGradientError for a parameter of which every process holds a part."""
    if any(map(is_sharded, group["params"])):
        raise UnsupportedGradientError(
            f"block {group['name']!r} has a parameter that fully_shard has spread over processes, "
            "whose modules cannot be evaluated block by block: use samt.AutoSAMT, or "
            "DistributedDataParallel and process_group"
        )


def refuse_several_devices(parameters: Iterable[Tensor], block: str) -> None:
    """Raise OptionError for a block whose parameters lie on several devices."""
    if len({parameter.device for parameter in parameters}) > 1:
        raise OptionError(f"block {block!r} lies on several devices: make one block per device")


def refuse_gradients() -> None:
    """Raise LeftoverGradientsError: a gradient was there before the closure ran."""
    raise LeftoverGradientsError(
        "there are gradients from outside the closure: call optimizer.zero_grad() before "
        "step, and accumulate over micro-batches inside the closure"
    )


def refuse_uninitialized(groups: Iterable[dict[str, Any]]) -> None:
    """Raise UninitializedParameterError for a parameter of a lazy module that never ran."""
    for group in groups:
        if any(map(is_lazy, group["params"])):
            raise UninitializedParameterError(
                f"block {group['name']!r} has a parameter of a lazy module that has no shape yet: "
                "call the model once on a batch before the first step"
            )


def refuse_post_accumulate_hooks() -> None:
    """Raise UnsupportedGradientError: a hook would wait for `.grad` in vain."""
    raise UnsupportedGradientError(
        "a parameter has a hook of register_post_accumulate_grad_hook, which would never run: "
        "the gradients of a block are computed without .grad; remove the hook, or call "
        "loss.backward() in a closure of your own"
    )
