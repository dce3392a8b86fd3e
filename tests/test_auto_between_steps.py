"""What users do to weights between two steps of AutoSAMT is kept, trained on, and evaluated."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.errors import NonFiniteLossError, StateMismatchError

from .support.between_steps import LOSS, data, network
from .support.comparisons import assert_same

Edit = Callable[[Tensor], Any]


def steps(model: nn.Module, optimizer: Any, count: int) -> None:
    for _ in range(count):
        inputs, targets = data(next(p for p in model.parameters() if p.is_floating_point()).dtype)
        optimizer.zero_grad()
        LOSS(model(inputs), targets).backward()
        optimizer.step()


def start(count: int = 12, **options: Any) -> tuple[Any, samt.AutoSAMT]:
    model = network()
    optimizer = samt.AutoSAMT(model, **options)
    steps(model, optimizer, count)
    return model, optimizer


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def evaluated(model: nn.Module) -> list[Tensor]:
    model.eval()(data()[0])
    found = weights(model)
    model.train()
    return found


def flipped(p: Tensor) -> None:
    p.neg_()


EDITS: dict[str, Edit] = {
    "no_grad": lambda p: p.clamp_(-0.1, 0.1),
    "data": lambda p: p.data.clamp_(-0.1, 0.1),
    "data, a mask": lambda p: p.data.mul_(torch.arange(p.numel()).view(p.shape) % 2),
    "data, set": lambda p: setattr(p, "data", p.data.clamp(-0.1, 0.1)),
    "data, permuted": lambda p: setattr(p, "data", p.data.flip(0)),
    "copy_": lambda p: p.copy_(torch.full_like(p, 0.25)),
    "signs": flipped,
    "data, signs": lambda p: p.data.neg_(),
    "data, rolled": lambda p: p.data.copy_(p.data.roll(1, 0)),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_written_between_steps_is_evaluated_and_trained(name: str) -> None:
    """Clipped weights, masks, weights of another network."""
    model, optimizer = start()
    untouched = copy.deepcopy((model, optimizer))
    with torch.no_grad():
        EDITS[name](model[0].weight)
    written = model[0].weight.detach().clone()
    assert torch.equal(evaluated(model)[0], written)
    # The others are evaluated at their averages.
    assert_same(evaluated(model)[1:], evaluated(untouched[0])[1:])
    assert torch.equal(dict(model.state_dict())["0.weight"], written)
    for _ in range(3):  # as often as somebody evaluates
        model(data()[0])
        assert torch.equal(model[0].weight, written)
        assert torch.equal(evaluated(model)[0], written)
    steps(model, optimizer, 1)
    assert 0 < (model[0].weight - written).abs().max() < 0.1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_what_is_written_into_a_copy_is_kept(copied: Callable[[Any], Any]) -> None:
    model, _ = copied(start())
    with torch.no_grad():
        model[0].weight.mul_(torch.arange(model[0].weight.numel()).view(16, 6) % 2)
    written = model[0].weight.detach().clone()
    assert torch.equal(evaluated(model)[0], written)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_written_while_the_average_is_shown_is_trained(name: str) -> None:
    model, optimizer = start()
    model.eval()(data()[0])
    with torch.no_grad():
        EDITS[name](model[0].weight)
    written = model[0].weight.detach().clone()
    assert torch.equal(evaluated(model)[0], written)
    model(data()[0])
    assert torch.equal(model[0].weight, written)
    assert not optimizer.state[model[0].weight]["lead"].any()
    steps(model, optimizer, 1)
    assert 0 < (model[0].weight - written).abs().max() < 0.1


def test_clipping_after_every_step_holds_in_evaluation() -> None:
    """As in a Wasserstein GAN, whose critic is clipped through `.data`."""
    model, optimizer = start(0)
    for _ in range(10):
        steps(model, optimizer, 1)
        for parameter in model.parameters():
            parameter.data.clamp_(-0.05, 0.05)
        assert all(p.abs().max() <= 0.05 for p in evaluated(model))
        assert all(value.abs().max() <= 0.05 for value in model.state_dict().values())


def test_a_mask_after_every_step_holds_in_evaluation() -> None:
    model, optimizer = start(0)
    mask = torch.arange(16 * 6).view(16, 6) % 3 == 0
    for _ in range(10):
        steps(model, optimizer, 1)
        with torch.no_grad():
            model[0].weight.mul_(mask)
        assert not evaluated(model)[0][~mask].any()


def test_a_target_network_gets_the_average_and_is_left_alone() -> None:
    model, optimizer = start()
    target = copy.deepcopy(model)
    steps(model, optimizer, 3)
    target.load_state_dict(model.state_dict())
    synced = weights(target)
    assert_same(synced, evaluated(model))
    steps(model, optimizer, 70)
    assert_same(weights(target), synced)
    assert_same(evaluated(target), synced)


def test_the_best_weights_that_are_put_back_are_evaluated_and_saved() -> None:
    model, optimizer = start()
    model.eval()(data()[0])
    best = copy.deepcopy(model.state_dict())
    model.train()
    steps(model, optimizer, 5)
    model.eval()(data()[0])
    model.load_state_dict(best)
    assert_same(evaluated(model), list(best.values()))
    model(data()[0])
    assert_same(weights(model), list(best.values()))
    steps(model, optimizer, 1)


def test_a_part_of_a_model_that_is_loaded_concerns_that_part() -> None:
    model, optimizer = start()
    lead = optimizer.state[model[2].weight]["lead"].clone()
    new = {"weight": torch.ones(16, 6), "bias": torch.zeros(16)}
    model[0].load_state_dict(new)
    assert_same(evaluated(model)[:2], list(new.values()))
    assert torch.equal(optimizer.state[model[2].weight]["lead"], lead)


# Parts that are frozen, absent, replaced and converted.


def test_frozen_and_absent_parameters_stand_still() -> None:
    model, optimizer = start()
    model[0].requires_grad_(False)
    before, shown = weights(model), evaluated(model)
    steps(model, optimizer, 70)
    assert_same(weights(model)[:2], before[:2])
    assert_same(evaluated(model)[:2], shown[:2])
    counts = [float(optimizer.state[p]["step"]) for p in model.parameters()]
    assert counts == [12, 12, 82, 82]
    model[0].requires_grad_(True)
    steps(model, optimizer, 1)
    assert not torch.equal(model[0].weight, before[0])


def test_a_head_is_trained_alike_with_or_without_its_frozen_body_in_the_optimizer() -> None:
    runs = []
    for whole in (True, False):
        model = network()
        model[0].requires_grad_(False)
        optimizer = samt.AutoSAMT(model if whole else model[2])
        steps(model, optimizer, 10)
        runs.append(weights(model))
        assert len(optimizer.state) == 2
    assert_same(runs[0], runs[1])


def test_late_parameters_begin_their_own_count() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = samt.AutoSAMT(model)
    steps(model, optimizer, 30)
    model[0].requires_grad_(True)
    before = weights(model)
    steps(model, optimizer, 1)
    scale = 3**0.5 * before[0].square().mean().sqrt() / 2**0.5
    moved = (model[0].weight.detach() - before[0]).abs().max()
    assert float(moved) == pytest.approx(float(0.003 / 20 * scale), rel=0.05)


@pytest.mark.parametrize("shows", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_converted_model_goes_on(dtype: torch.dtype, shows: bool) -> None:
    model, optimizer = start()
    lead = optimizer.state[model[0].weight]["lead"].clone()
    before = weights(model)
    if shows:
        model.eval()(data()[0])
    model.to(dtype).train()
    model(data(dtype)[0])
    for parameter, y in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach().float(), y, rtol=1e-2, atol=1e-3)
    assert optimizer.state[model[0].weight]["lead"].any() == lead.any()
    steps(model, optimizer, 3)
    assert all(p.dtype == dtype for p in model.parameters())
    wide = torch.promote_types(dtype, torch.float32)
    assert {t.dtype for s in optimizer.state.values() for t in s.values() if t.dim()} == {wide}
    assert all(p.isfinite().all() for p in evaluated(model.float()))


@pytest.mark.parametrize("shows", [False, True])
def test_a_replaced_parameter_is_trained_with_the_state_that_moved_along(shows: bool) -> None:
    model, optimizer = start()
    twin, other = start()
    if shows:
        model.eval()(data()[0])
        twin.eval()(data()[0])
    old = model[0].weight
    new = nn.Parameter(old.detach().clone())
    optimizer.param_groups[0]["params"][0] = new
    optimizer.state[new] = optimizer.state.pop(old)
    model[0].weight = new
    for each, own in ((model, optimizer), (twin, other)):
        own.train()
        steps(each.train(), own, 5)
    assert_same(weights(model), weights(twin))


def test_a_grown_parameter_is_refused_by_name_and_nothing_moves() -> None:
    model, optimizer = start()
    old = model[2].weight
    new = nn.Parameter(torch.cat([old.detach(), torch.zeros(2, 16)]))
    optimizer.param_groups[1]["params"][0] = new
    optimizer.state[new] = optimizer.state.pop(old)
    model[2].weight, model[2].bias = new, None
    before = weights(model)
    with pytest.raises(StateMismatchError, match="delete optimizer"):
        steps(model, optimizer, 1)
    assert_same(weights(model), before)
    del optimizer.state[new]
    steps(model, optimizer, 3)
    assert not torch.equal(new, before[2])


def test_a_cleared_state_begins_anew_at_the_same_weights() -> None:
    for shows in (False, True):
        model, optimizer = start()
        held = weights(model)
        if shows:
            model.eval()(data()[0])
        optimizer.state.clear()
        model.train()(data()[0])
        assert_same(weights(model), held)
        steps(model, optimizer, 2)
        assert all(float(state["step"]) == 2 for state in optimizer.state.values())


def test_a_model_on_another_device_default_and_in_inference_mode() -> None:
    model = network()
    with torch.inference_mode():
        optimizer = samt.AutoSAMT(model)
    steps(model, optimizer, 3)
    with torch.inference_mode():
        model.eval()(data()[0])
    steps(model.train(), optimizer, 3)
    torch.set_default_device("meta")
    try:
        optimizer = samt.AutoSAMT(network().to_empty(device="cpu"))
        model.zero_grad()
    finally:
        torch.set_default_device(None)
    assert all(t.device.type == "cpu" for s in optimizer.state.values() for t in s.values())


def test_lazy_layers_are_trained_once_they_have_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))
    optimizer = samt.AutoSAMT(model)
    steps(model, optimizer, 12)
    y = weights(model)
    assert not torch.equal(evaluated(model)[0], y[0])


# Weight decay.


@pytest.mark.parametrize("groups", [samt.blocks, lambda model: model, lambda m: m.parameters()])
def test_weight_decay_leaves_vectors_out(groups: Any) -> None:
    runs = []
    for decay in (0.0, 0.5):
        model = network()
        optimizer = samt.AutoSAMT(groups(model), weight_decay=decay)
        inputs, targets = data()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        runs.append(weights(model))
    for plain, decayed in zip(*runs, strict=True):
        assert torch.equal(plain, decayed) == (plain.ndim < 2)


# Where people look for the step size.


def test_the_step_size_of_a_block_is_in_its_group() -> None:
    model, optimizer = start(7, lr=0.5)
    history = samt.History(optimizer)
    steps(model, optimizer, 1)
    for group in optimizer.param_groups:
        rows = [row for row in history.rows if row["block"] == group["name"]]
        found = sum(row["eta"] for row in rows) / len(rows)
        assert float(group["step_size"]) == pytest.approx(found)
        for row, parameter in zip(rows, group["params"], strict=True):
            state = optimizer.state[parameter]
            assert row["eta"] == row["eta_min"] == row["eta_max"]
            assert row["eta"] == pytest.approx(float(state["step_size"]))
            most = 0.5 * 8 / 20 * 0.003 * state["scale"] / 2**0.5 * state["log_step"].exp()
            assert 0 < row["eta"] <= float(most)


def test_a_bad_gradient_names_its_block_and_moves_nothing() -> None:
    model, optimizer = start()
    before = copy.deepcopy((weights(model), optimizer.state_dict()))
    model(data()[0])
    model[2].weight.grad[0, 0] = torch.nan
    with pytest.raises(NonFiniteLossError, match="in block '2' at step 12; weights and state"):
        optimizer.step()
    assert_same(weights(model), before[0])
    assert_same(optimizer.state_dict()["state"], before[1]["state"])


def test_a_number_that_somebody_writes_into_the_state_counts() -> None:
    model, optimizer = start(7)
    twin_model, twin = copy.deepcopy((model, optimizer))
    for state in optimizer.state.values():
        state["log_step"].fill_(1.5)
    for parameter in twin.state:
        twin.state[parameter]["log_step"] = torch.full_like(twin.state[parameter]["log_step"], 1.5)
    steps(model, optimizer, 1)
    steps(twin_model, twin, 1)
    assert all(abs(float(state["log_step"]) - 1.5) < 0.5 for state in optimizer.state.values())
    assert_same(weights(model), weights(twin_model))
