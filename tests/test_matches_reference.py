"""The fast path equals the reference after every step: weights, buffers and all state."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import samt
from samt.partition import Partition
from samt.reference import SAMTReference

from .support.batches import batch
from .support.comparisons import assert_equal
from .support.models import MODELS

LOSS = nn.functional.cross_entropy


def compare(
    model_name: str,
    partition: Partition = None,
    steps: int = 4,
    lrs: Sequence[float] = (0.3, 0.2, 0.2, 0.1),
    **options: Any,
) -> None:
    torch.manual_seed(7)
    model = MODELS[model_name]()
    optimizer = samt.SAMT(samt.blocks(model, partition), **options)
    reference = SAMTReference(model, LOSS, optimizer.param_groups)
    for step in range(steps):
        for group, own in zip(optimizer.param_groups, reference.groups, strict=True):
            group["lr"] = own["lr"] = lrs[step]
        data, other = batch(model_name, step), batch(model_name, 100 + step)
        rng = torch.get_rng_state()
        fresh = options.get("meta_batch") == "fresh" and options.get("parts") != "fixed"
        expected = reference.step(data, other if fresh else None)
        rng_after = torch.get_rng_state()
        torch.set_rng_state(rng)
        meta = samt.closure(model, LOSS, *other) if fresh else None
        loss = optimizer.step(samt.closure(model, LOSS, *data), meta)
        assert torch.equal(torch.get_rng_state(), rng_after)
        assert isinstance(loss, Tensor)
        assert_equal({"loss": loss}, {"loss": expected})
        assert_equal(dict(model.named_parameters()), reference.weights)
        assert_equal(dict(model.named_buffers()), reference.buffers)
        for index, group in enumerate(optimizer.param_groups):
            expected_state = reference.state(index)
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                assert_equal(optimizer.state[parameter], expected_state[name])


SHAPES = ["scalar", "row", "column", "element", lambda tensor: tensor.shape[-1:]]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("meta_batch", ["same", "subset", "fresh", "next"])
@pytest.mark.parametrize(
    ("step_size", "head"), list(itertools.product(SHAPES, ["offset", "dense"]))
)
def test_every_shape_head_and_meta_batch(
    model: str, meta_batch: str, step_size: Any, head: str
) -> None:
    compare(model, step_size=step_size, head=head, meta_batch=meta_batch, meta_lr=0.5)


@pytest.mark.parametrize("meta_batch", ["subset", "next"])
@pytest.mark.parametrize(
    "options",
    [
        {"projection": "sigmoid"},
        {"parts": "left"},
        {"parts": "right"},
        {"parts": "fixed"},
        {"relative": True},
        {"relative": 3.0, "parts": "right"},
        {"inner_steps": 3},
        {"order": "reverse"},
        {"order": "random"},
        {"order": "cyclic"},
        {"radius": 0.05},
        {"radius": 1e3},
        {"weight_decay": 0.1},
        {"max_grad_norm": 0.05},
        {"eta_hidden": 8, "seed": 5},
        {"partition": 1},
        {"partition": 2},
        {"partition": ["*.bias", "*"]},
    ],
    ids=str,
)
def test_every_other_option(meta_batch: str, options: dict[str, Any]) -> None:
    compare("mlp", meta_batch=meta_batch, step_size="row", meta_lr=0.5, **options)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    model=st.sampled_from(sorted(MODELS)),
    partition=st.sampled_from([None, 1, 2]),
    step_size=st.sampled_from(SHAPES),
    head=st.sampled_from(["offset", "dense"]),
    projection=st.sampled_from(["tanh", "sigmoid"]),
    parts=st.sampled_from(["full", "left", "right", "fixed"]),
    meta_batch=st.sampled_from(["same", "subset", "fresh", "next"]),
    meta_lr=st.sampled_from([0.0, 0.01, 1.0]),
    inner_steps=st.sampled_from([1, 2]),
    order=st.sampled_from(["forward", "reverse", "random", "cyclic"]),
    radius=st.sampled_from([None, 0.1, 10.0]),
    relative=st.sampled_from([False, True, 2.5]),
    weight_decay=st.sampled_from([0.0, 0.05]),
    max_grad_norm=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 2**40),
)
def test_any_combination(**options: Any) -> None:
    compare(steps=3, model_name=options.pop("model"), **options)


def test_the_comparison_can_fail() -> None:
    model = MODELS["mlp"]()
    groups = samt.blocks(model)
    optimizer = samt.SAMT(groups, meta_lr=0.5)
    reference = SAMTReference(model, LOSS, optimizer.param_groups)
    reference.groups[0]["meta_lr"] = 0.501
    for step in range(2):
        reference.step(batch("mlp", step))
        optimizer.step(samt.closure(model, LOSS, *batch("mlp", step)))
    with pytest.raises(AssertionError):
        assert_equal(dict(model.named_parameters()), reference.weights)
