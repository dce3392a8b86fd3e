"""AutoSAMT on models that `fully_shard` has spread over several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

import samt
from samt.errors import OptionError, UnsupportedGradientError

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import mlp
from .support.processes import World
from .support.ranks import LOSS, part

pytestmark = [
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo"),
]
STEPS = 18
Run = tuple[nn.Module, samt.AutoSAMT]


@pytest.fixture
def world(worlds: Callable[[int], World]) -> World:
    return worlds(4)


def sharded(size: int, mesh_of: str = "one", seed: int = 0) -> nn.Module:
    """4-6-5-3: no layer divides evenly, and over four processes some have nothing of the last."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(seed)
    model = mlp()
    if size == 1:
        return model
    if mesh_of == "one":
        mesh = init_device_mesh("cpu", (size,))
    else:
        mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("data", "others"))
    if mesh_of == "tensor parallel":
        from torch.distributed.tensor.parallel import (
            ColwiseParallel,
            RowwiseParallel,
            parallelize_module,
        )

        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        parallelize_module(model, mesh["others"], plan)
        mesh = mesh["data"]
    for layer in (model.get_submodule("0"), model.get_submodule("2")):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def train(run: Run, steps: Iterable[int], rank: int, size: int) -> None:
    for step in steps:
        data = part(batch("mlp", step, 16), rank, size)
        run[1].zero_grad()
        LOSS(run[0](data[0]), data[1]).backward()
        run[1].step()


def whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def outcome(run: Run) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    state = run[1].state_dict()["state"]
    return (
        {name: whole(p.detach()).clone() for name, p in run[0].named_parameters()},
        {i: {key: whole(v) for key, v in entry.items()} for i, entry in state.items()},
    )


def trained(
    rank: int, size: int, mesh_of: str, partition: Any, options: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], list[int]]:
    model = sharded(size, mesh_of)
    frozen = model.get_parameter("2.bias")
    frozen.requires_grad_(False)
    optimizer = samt.AutoSAMT(samt.blocks(model, partition), **options)
    history = samt.History(optimizer)
    place = (rank // 2, size // 2) if mesh_of == "tensor parallel" and size > 1 else (rank, size)
    train((model, optimizer), range(STEPS), *place)
    assert len(history.rows) == STEPS * 5
    parts = [getattr(p, "to_local", lambda p=p: p)().numel() for p in model.parameters()]
    assert all(p.grad is not None for p in model.parameters() if p is not frozen)
    return *outcome((model, optimizer)), parts


# Copies of parts; and parts of parts, of which two processes see the same samples.
@pytest.mark.parametrize("mesh_of", ["one", "copied", "tensor parallel"])
@pytest.mark.parametrize(
    ("partition", "options"),
    [(None, {}), (1, {"weight_decay": 0.3, "betas": (0.8, 0.9)})],
    ids=str,
)
def test_it_is_as_one_process_on_the_joined_batch(
    world: World, mesh_of: str, partition: Any, options: dict[str, Any]
) -> None:
    *expected, sizes = trained(0, 1, mesh_of, partition, options)
    outcomes = world.run(trained, mesh_of, partition, options)
    for weights, state, parts in outcomes:
        assert_same(weights, outcomes[0][0])
        assert_same(state, outcomes[0][1])
        assert sum(parts) < sum(sizes)
    close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)
    close(outcomes[0][0], expected[0])
    close(outcomes[0][1], expected[1])
    if mesh_of == "one":
        assert 0 in outcomes[3][2], "some have nothing of a parameter"


def resumed(rank: int, size: int, folder: str, stop: int) -> None:
    run: Run = (model := sharded(size), samt.AutoSAMT(samt.blocks(model)))
    train(run, range(stop), rank, size)
    weights, state = get_state_dict(*run)
    save({"model": weights, "optimizer": state}, checkpoint_id=folder)
    train(run, range(stop, STEPS), rank, size)
    again: Run = (
        model := sharded(size, seed=1),
        samt.AutoSAMT(samt.blocks(model)),
    )
    weights, state = get_state_dict(*again)
    states: dict[str, Any] = {"model": weights, "optimizer": state}
    load(states, checkpoint_id=folder)
    set_state_dict(*again, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    train(again, range(stop, STEPS), rank, size)
    assert_same(outcome(again)[0], outcome(run)[0])
    assert_same(outcome(again)[1], outcome(run)[1])


@pytest.mark.parametrize("stop", [0, 11, 12])  # after 12 the parameters hold the average
def test_a_distributed_checkpoint_goes_on_bit_for_bit(
    world: World, stop: int, tmp_path: Path
) -> None:
    world.run(resumed, str(tmp_path), stop)


def scaled(rank: int, size: int) -> dict[str, Tensor]:
    model = sharded(size)
    optimizer = samt.AutoSAMT(samt.blocks(model))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=4)
    for step in range(STEPS):
        for overflows in (True, False) if step in (2, 9) and size > 1 else (False,):
            data = part(batch("mlp", step, 16), rank, size)
            optimizer.zero_grad()
            loss = LOSS(model(data[0]), data[1])
            scaler.scale(loss * torch.inf if overflows and rank == 1 else loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
    return outcome((model, optimizer))[0]


def test_scaled_and_clipped_gradients(world: World) -> None:
    """Where one process overflows, all of them skip."""
    outcomes = world.run(scaled)
    for weights in outcomes[1:]:
        assert_same(weights, outcomes[0])
    torch.testing.assert_close(outcomes[0], scaled(0, 1), rtol=1e-8, atol=1e-10)


def evaluated(rank: int, size: int, evaluates: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights that are trained and those that are evaluated."""
    model = sharded(size)
    optimizer = samt.AutoSAMT(model)
    run = model, optimizer
    train(run, range(9), rank, size)
    if evaluates:
        inputs = batch("mlp", 99, 16)[0]
        for _ in range(2):  # the layers that keep their gathered weights must let go of them
            model.eval()
            with torch.no_grad():
                outputs = model(inputs)
            shown = {name: whole(value) for name, value in model.state_dict().items()}
            plain = torch.func.functional_call(mlp(), shown, inputs)
            torch.testing.assert_close(outputs, plain, rtol=1e-9, atol=1e-12)
            model.train()
            model(inputs).sum().backward()
    train(run, range(9, STEPS), rank, size)
    trained = outcome(run)[0]
    return trained, {name: whole(value).clone() for name, value in model.state_dict().items()}


def test_a_sharded_model_is_evaluated_at_the_average(world: World) -> None:
    for weights, average in world.run(evaluated, True):
        for found, expected in zip((weights, average), evaluated(0, 1, False), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def refusals(rank: int, size: int) -> None:
    model = sharded(size)
    with pytest.raises(UnsupportedGradientError, match=r"use samt\.AutoSAMT") as caught:
        samt.SAMT(samt.blocks(model))
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="leave process_group out"):
        samt.AutoSAMT(samt.blocks(model), process_group=dist.group.WORLD)


def test_what_cannot_work_names_its_cure(world: World) -> None:
    world.run(refusals)
