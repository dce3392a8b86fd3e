"""Training with and without replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

import samt
from samt.partition import Partition

from .batches import Batch
from .comparisons import assert_same
from .replayed_models import made
from .snapshots import everything

LOSS = functional.cross_entropy
MODES: list[dict[str, Any]] = [
    {"meta_batch": "same"},
    {"meta_batch": "subset"},
    {"meta_batch": "fresh", "order": "random"},
    {"meta_batch": "next"},
    {"meta_batch": "same", "inner_steps": 2, "order": "reverse", "partition": 2},
    {"meta_batch": "subset", "inner_steps": 2, "partition": 2},
    {"meta_batch": "subset", "order": "reverse", "partition": ["*weight*", "*"]},
    {"meta_batch": "next", "inner_steps": 2, "order": "random"},
    {"meta_batch": "same", "order": "cyclic", "partition": "interleaved"},
    {"meta_batch": "next", "order": "reverse", "partition": "interleaved"},
    {"meta_batch": "fresh", "inner_steps": 2, "partition": "interleaved"},
]


def data(seed: int, size: int = 8) -> Batch:
    """Random inputs with labels that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return inputs, inputs[:, :3].argmax(1)


def partitioned(model: nn.Module, partition: Any) -> list[dict[str, Any]]:
    """Groups; "interleaved": layers 0, 2, 4 … are one block and 1, 3, 5 … another."""
    if partition != "interleaved":
        return samt.blocks(model, partition)
    layers = [group["param_names"] for group in samt.blocks(model)]
    split: Partition = [[n for names in layers[i::2] for n in names] for i in range(2)]
    return samt.blocks(model, split)


def run(
    make: Callable[[], nn.Module],
    steps: int = 2,
    before_step: Callable[[Any, int], object] = lambda model, step: None,
    loss_of: Callable[[Any], Callable[..., Tensor]] = lambda model: LOSS,
    **options: Any,
) -> list[dict[str, Any]]:
    """Everything that a step may change, after each of several steps."""
    model = made(make)
    groups = partitioned(model, options.pop("partition", None))
    optimizer = samt.SAMT(groups, lr=0.3, meta_lr=0.5, **options)
    after = []
    for step in range(steps):
        before_step(model, step)
        loss_fn, fresh = loss_of(model), options["meta_batch"] == "fresh"
        meta = samt.closure(model, loss_fn, *data(100 + step)) if fresh else None
        loss = optimizer.step(samt.closure(model, loss_fn, *data(step)), meta)
        after.append({"loss": loss, **everything(model, optimizer)})
        for group in after[-1]["optimizer"]["param_groups"]:
            del group["replay"]
    return after


def assert_replay_changes_nothing(
    make: Callable[[], nn.Module], bits: bool = True, **options: Any
) -> None:
    """Train with and without replay, and compare everything after each step.

    Args:
        make: makes the model.
        bits: whether all numbers have to agree to the bit; or else to rounding.
        options: of `run`.
    """
    expected = run(make, replay=False, **options)
    actual = run(make, replay=True, **options)
    if bits:
        assert_same(actual, expected)
    else:
        for one, other in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
            if isinstance(other, Tensor):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
            else:
                assert one == other
    first, last = expected[0]["parameters"], expected[-1]["parameters"]
    assert any(not torch.equal(first[name], last[name]) for name in first)
