"""Several processes train as one does on all their samples together."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import samt
from samt.errors import GradScalerUnsupportedError, NonFiniteLossError, OptionError

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import mlp
from .support.optimizers import OPTIMIZERS
from .support.processes import World
from .support.ranks import LOSS, part

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo"
)
STEPS = 15


@pytest.fixture(params=[2, 4])
def world(request: pytest.FixtureRequest, worlds: Callable[[int], World]) -> World:
    return worlds(request.param)


@pytest.fixture
def two(worlds: Callable[[int], World]) -> World:
    return worlds(2)


class Case(NamedTuple):
    """How to train."""

    kind: str  # of optimizer
    options: dict[str, Any]
    partition: Any = None
    closure: bool = False  # step(samt.closure(...)) and not backward and step
    wrapped: bool = False  # in DistributedDataParallel
    group: bool = True  # given to the optimizer


class Outcome(NamedTuple):
    """What there is to compare."""

    weights: dict[str, Tensor]
    state: dict[str, Any]
    losses: list[Tensor]
    rows: list[dict[str, Any]]
    passes: samt.Passes


def train(rank: int, size: int, case: Case) -> Outcome:
    """With size 1, the batches are whole."""
    together = size > 1
    torch.manual_seed(rank)  # the first rank's weights are those that count
    model: nn.Module = mlp()
    module = model
    if together and case.wrapped:
        model = DistributedDataParallel(model)
    group = dist.group.WORLD if together and case.group else None
    blocks = samt.blocks(model, case.partition)
    optimizer = OPTIMIZERS[case.kind](blocks, process_group=group, **case.options)
    history = samt.History(optimizer)
    losses = []
    for step in range(STEPS):
        data, other = (part(batch("mlp", s, 16), rank, size) for s in (step, step + 100))
        if case.closure:
            fresh = case.options.get("meta_batch") == "fresh"
            meta = [samt.closure(model, LOSS, *other)] if fresh else []
            losses.append(optimizer.step(samt.closure(model, LOSS, *data), *meta))
        else:
            optimizer.zero_grad()
            LOSS(model(data[0]), data[1]).backward()
            optimizer.step()
    return Outcome(
        {name: p.detach().clone() for name, p in module.named_parameters()},
        optimizer.state_dict(),
        losses,
        history.rows,
        optimizer.passes,
    )


CASES = {
    "auto-samt": Case("auto-samt", {}),
    "auto-samt, closure": Case("auto-samt", {}, closure=True),
    "auto-samt, wrapped": Case("auto-samt", {}, wrapped=True, group=False),
    "auto-samt, wrapped, closure": Case("auto-samt", {}, wrapped=True, group=False, closure=True),
    "subset": Case("samt", {"meta_batch": "subset", "step_size": "row"}, closure=True),
    "subset, wrapped": Case("samt", {"meta_batch": "subset"}, closure=True, wrapped=True),
    "same": Case("samt", {"meta_batch": "same", "inner_steps": 2}, closure=True),
    "fresh": Case("samt", {"meta_batch": "fresh", "order": "random", "radius": 1.0}, closure=True),
    "next, one block": Case("samt", {"meta_batch": "next"}, partition=1),
    "next, cyclic": Case("samt", {"meta_batch": "next", "order": "cyclic"}),
    "next, one block, wrapped": Case("samt", {"meta_batch": "next"}, 1, wrapped=True, group=False),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_one_process_on_the_joined_batch(world: World, name: str) -> None:
    case = CASES[name]
    expected = train(0, 1, case)
    outcomes = world.run(train, case)
    first = outcomes[0]
    for other in outcomes[1:]:
        assert_same(other.weights, first.weights)
        assert_same(other.state, first.state)
        assert other.rows == first.rows or not case.group
        assert other.passes == first.passes
    close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)
    close(first.weights, expected.weights)
    close(first.state["state"], expected.state["state"])
    for ours, theirs in zip(
        first.state["param_groups"], expected.state["param_groups"], strict=True
    ):
        assert ours.pop("step_size", 0) == pytest.approx(theirs.pop("step_size", 0))
        assert ours == theirs
    assert first.passes == expected.passes
    if case.group:
        close(first.losses, expected.losses)
        sizes = [[row[key] for row in first.rows] for key in ("step", "block", "eta")]
        same = [[row[key] for row in expected.rows] for key in ("step", "block", "eta")]
        assert sizes[:2] == same[:2]
        assert sizes[2] == pytest.approx(same[2], rel=1e-6)


def accumulate(rank: int, size: int) -> dict[str, Tensor]:
    torch.manual_seed(rank)
    model = mlp()
    parallel = DistributedDataParallel(model) if size > 1 else None
    optimizer = samt.AutoSAMT(samt.blocks(parallel or model))
    for step in range(STEPS):
        optimizer.zero_grad()
        for micro in range(3):
            data = part(batch("mlp", 3 * step + micro, 16), rank, size)
            waits = micro < 2 and parallel is not None
            with parallel.no_sync() if waits and parallel else nullcontext():
                (LOSS((parallel or model)(data[0]), data[1]) / 3).backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_gradients_may_be_accumulated_without_an_exchange(two: World) -> None:
    one, other = two.run(accumulate)
    assert_same(one, other)
    torch.testing.assert_close(one, accumulate(0, 1), rtol=1e-8, atol=1e-10)


def with_a_bad_batch(rank: int, size: int, kind: str, options: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = mlp()
    blocks = samt.blocks(model)
    optimizer = OPTIMIZERS[kind](blocks, process_group=dist.group.WORLD, **options)
    for step in range(8):
        inputs, targets = part(batch("mlp", step, 16), rank, size)
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        if step in (3, 4) and rank == step - 3:
            inputs = inputs * torch.nan
        closure = samt.closure(model, LOSS, inputs, targets)
        if step in (3, 4):
            with pytest.raises(NonFiniteLossError):
                optimizer.step(closure)
            assert_same((model.state_dict(), optimizer.state_dict()["state"]), before)
        else:
            optimizer.step(closure)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("kind", "options"), [("auto-samt", {}), ("samt", {})])
def test_a_loss_that_is_not_finite_on_one_rank_is_refused_on_all(
    two: World, kind: str, options: dict[str, Any]
) -> None:
    one, other = two.run(with_a_bad_batch, kind, options)
    assert_same(one, other)
    assert all(weight.isfinite().all() for weight in one.values())


class Branches(nn.Module):
    """A rank takes one branch; nobody takes the third."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(4, 3) for _ in range(3)])

    def forward(self, x: Tensor, branch: int) -> Tensor:
        return self.branches[branch](x)


def take_a_branch(rank: int, size: int, kind: str, options: dict[str, Any]) -> Outcome:
    """One process takes both branches, each with half the weight."""
    torch.manual_seed(0)
    model = Branches().double()
    group = dist.group.WORLD if size > 1 else None
    optimizer = OPTIMIZERS[kind](
        samt.blocks(model, 1), process_group=group, weight_decay=0.1, **options
    )
    for step in range(6):
        optimizer.zero_grad()
        for branch in range(2) if size == 1 else (rank,):
            inputs, targets = part(batch("mlp", step, 16), branch, 2)
            (LOSS(model(inputs, branch), targets) / (2 if size == 1 else 1)).backward()
        optimizer.step()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return Outcome(weights, optimizer.state_dict()["state"], [], [], optimizer.passes)


@pytest.mark.parametrize(("kind", "options"), [("auto-samt", {}), ("samt", {"meta_batch": "next"})])
def test_a_gradient_that_one_rank_misses_counts_as_zero_there(
    two: World, kind: str, options: dict[str, Any]
) -> None:
    one, other = two.run(take_a_branch, kind, options)
    expected = take_a_branch(0, 1, kind, options)
    assert_same(one[:2], other[:2])
    torch.testing.assert_close(one[:2], expected[:2], rtol=1e-8, atol=1e-10)
    torch.manual_seed(0)
    unused = "branches.2.weight"
    assert torch.equal(one.weights[unused], Branches().double().get_parameter(unused))


def scaled(rank: int, size: int) -> dict[str, Tensor]:
    torch.manual_seed(rank)
    model = mlp().float()
    parallel = DistributedDataParallel(model) if size > 1 else model
    optimizer = samt.AutoSAMT(samt.blocks(parallel))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=4)
    for step in range(STEPS):
        for overflows in (True, False) if step in (2, 9) and size > 1 else (False,):
            inputs, targets = part(batch("mlp", step, 16), rank, size)
            optimizer.zero_grad()
            loss = LOSS(parallel(inputs.float()), targets)
            scaler.scale(loss * torch.inf if overflows and rank == 1 else loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_an_overflow_on_one_rank_is_skipped_by_all(two: World) -> None:
    one, other = two.run(scaled)
    assert_same(one, other)
    torch.testing.assert_close(one, scaled(0, 1), rtol=1e-4, atol=1e-6)


def copies(rank: int, size: int) -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = samt.AutoSAMT(samt.blocks(model), process_group=dist.group.WORLD)
    twin, other = copy.deepcopy((model, optimizer))
    assert other.process_group is optimizer.process_group is not None
    third, pickled = pickle.loads(pickle.dumps((model, optimizer)))
    assert "process_group" not in {**optimizer.defaults, **optimizer.param_groups[0]}
    closures = [samt.closure(m, LOSS, *part(batch("mlp", 0, 16), rank, size))
                for m in (model, twin, third)]  # fmt: skip
    optimizer.step(closures[0])
    other.step(closures[1])
    with pytest.raises(OptionError, match="cannot be pickled"):
        pickled.step(closures[2])
    again = pickle.loads(pickle.dumps(pickled))
    with pytest.raises(OptionError, match="cannot be pickled"):
        again.step()
    pickled.process_group = dist.group.WORLD
    pickled.step(closures[2])
    for copied in (twin, third):
        assert_same(dict(copied.state_dict()), dict(model.state_dict()))


def test_a_copy_keeps_its_process_group_and_a_pickle_asks_for_it(two: World) -> None:
    two.run(copies)


def plain_loss(model: nn.Module, data: Any, backward: bool) -> Tensor:
    loss: Tensor = LOSS(model(data[0]), data[1])
    if backward:
        loss.backward()
    return loss


def refusals(rank: int, size: int) -> None:
    model = mlp()
    group: Any = dist.group.WORLD
    data = part(batch("mlp", 0, 16), rank, size)
    parallel = DistributedDataParallel(model)
    optimizer = samt.SAMT(samt.blocks(parallel))
    with pytest.raises(OptionError, match="build it with process_group="):
        optimizer.step(samt.closure(parallel, LOSS, *data))
    for backward in (False, True):
        optimizer = samt.SAMT(samt.blocks(parallel), meta_batch="same")
        before = [parameter.detach().clone() for parameter in model.parameters()]
        with pytest.raises(OptionError, match="averages nothing here"):
            optimizer.step(partial(plain_loss, parallel, data, backward))
        assert all(map(torch.equal, model.parameters(), before))
    with pytest.raises(OptionError, match="leave out compile"):
        samt.SAMT(samt.blocks(model), compile=True, process_group=group)
    model = mlp().float()
    auto = samt.AutoSAMT(samt.blocks(model), process_group=group)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(LOSS(model(data[0].float()), data[1])).backward()
    with pytest.raises(GradScalerUnsupportedError, match="wrap the model in Distributed"):
        scaler.step(auto)
    auto.step()


def test_what_cannot_work_names_its_cure(two: World) -> None:
    two.run(refusals)


@pytest.mark.parametrize("make", [samt.AutoSAMT, samt.SAMT])
def test_a_process_group_is_one_and_is_one_for_all_blocks(make: Callable[..., Any]) -> None:
    blocks = samt.blocks(mlp())
    for wrong in ("world", 3, -100):  # the last is what new_group gives to those outside
        with pytest.raises(OptionError, match=r"give torch\.distributed\.group\.WORLD"):
            make(blocks, process_group=wrong)
    with pytest.raises(OptionError, match="one for all blocks"):
        make([{**group, "process_group": None} for group in blocks])
