"""A block is a param group of torch: options, schedulers, later additions, odd groups."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import samt
from samt import errors
from samt.closures import Closure

from .support.batches import batch, regression
from .support.closures import WithBackward
from .support.comparisons import assert_same
from .support.models import MODELS, TwoRoutes, with_layer
from .support.modes import MODES

LOSS = nn.functional.cross_entropy


def start(kind: str = "mlp") -> nn.Module:
    torch.manual_seed(5)
    return MODELS[kind]()


def train(model: nn.Module, optimizer: samt.SAMT, steps: int = 3) -> list[float]:
    losses = []
    for step in range(steps):
        loss = optimizer.step(samt.closure(model, LOSS, *batch("mlp", step % 5)))
        assert loss is not None
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize(
    "params",
    [
        lambda model: model.parameters(),
        lambda model: list(model.parameters()),
        lambda model: model.named_parameters(),
        lambda model: [{"params": model.parameters()}],
        lambda model: [{"params": model.named_parameters()}],
        lambda model: samt.blocks(model, 1),
    ],
)
def test_plain_parameters_are_one_block(params: Callable[[nn.Module], Any]) -> None:
    model, expected = start(), start()
    train(model, samt.SAMT(params(model), meta_lr=0.5))
    train(expected, samt.SAMT(samt.blocks(expected, 1), meta_lr=0.5))
    assert_same(dict(model.state_dict()), dict(expected.state_dict()))


def test_options_of_a_group_hold_for_that_group_alone() -> None:
    options: list[dict[str, Any]] = [
        {"lr": 0.01, "step_size": "row", "weight_decay": 0.1},
        {"parts": "fixed", "radius": 0.1, "inner_steps": 2},
        {"meta_batch": "next", "head": "dense", "step_size": "element", "eta_hidden": 8},
    ]
    model = start()
    groups = [{**g, **own} for g, own in zip(samt.blocks(model), options, strict=True)]
    optimizer = samt.SAMT(groups, lr=0.3)
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.3, 0.3]
    train(model, optimizer)
    assert optimizer.passes.forward == 3 * (2 + 2 + 1)
    # With the other blocks frozen, it is as if the block's options were the optimizer's.
    for index, own in enumerate(options):
        results = []
        for mixed in (True, False):
            model = start()
            groups = samt.blocks(model)
            for group in groups[:index] + groups[index + 1 :]:
                for parameter in group["params"]:
                    parameter.requires_grad_(False)
            if mixed:
                groups = [{**g, **o} for g, o in zip(groups, options, strict=True)]
                train(model, samt.SAMT(groups, lr=0.3))
            else:
                train(model, samt.SAMT(groups, **{"lr": 0.3, **own}))
            results.append(dict(model.state_dict()))
        assert_same(results[0], results[1])


@pytest.mark.parametrize("order", ["forward", "cyclic", "random"])
@pytest.mark.parametrize("meta_batch", ["subset", "next"])
def test_a_block_added_later_is_trained_from_then_on(order: str, meta_batch: str) -> None:
    model = start()
    groups = samt.blocks(model)
    late = model.get_parameter("4.weight")
    before = late.detach().clone()
    optimizer = samt.SAMT(groups[:2], order=order, meta_batch=meta_batch)
    train(model, optimizer, 2)
    kept = copy.deepcopy({i: optimizer.state[p] for i, p in enumerate(groups[0]["params"])})
    assert torch.equal(late, before)
    optimizer.add_param_group(groups[2])
    assert optimizer.param_groups[2]["name"] == "4"
    state = optimizer.state_dict()["state"]
    assert len(state) == 6
    assert all("eta_model" in entry for entry in state.values())
    assert_same({i: optimizer.state[p] for i, p in enumerate(groups[0]["params"])}, kept)
    passes = optimizer.passes.forward
    train(model, optimizer, 3)
    assert not torch.equal(late, before)
    each = {"subset": 2, "next": 1}[meta_batch]
    assert optimizer.passes.forward - passes == 3 * each * (1 if order == "cyclic" else 3)


def test_cyclic_order_takes_the_blocks_in_turn_also_when_one_is_added() -> None:
    model = start()
    groups = samt.blocks(model)
    optimizer = samt.SAMT(groups[:2], order="cyclic", meta_batch="next")
    history = samt.History(optimizer)
    train(model, optimizer, 3)
    optimizer.add_param_group(groups[2])
    train(model, optimizer, 4)
    rows = [(row["step"], row["block"]) for row in history.rows][::2]
    assert rows == [(0, "0"), (1, "2"), (2, "0"), (3, "0"), (4, "2"), (5, "4"), (6, "0")]


WRONG_GROUPS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a negative lr": ({"lr": -1.0}, errors.OptionError),
    "an unknown word": ({"head": "flat"}, errors.OptionError),
    "a misspelled option": ({"weight_decy": 0.1}, errors.UnknownOptionError),
    "an order of its own": ({"order": "reverse"}, errors.OptionError),
    "a step size that does not fit": (
        {"step_size": lambda tensor: (7, *tensor.shape)},
        errors.OptionError,
    ),
    "a complex number": (
        {"params": [nn.Parameter(torch.ones(2, dtype=torch.complex64))]},
        errors.UnsupportedGradientError,
    ),
}


@pytest.mark.parametrize("what", WRONG_GROUPS)
def test_a_block_that_is_refused_is_not_added(what: str) -> None:
    wrong, error = WRONG_GROUPS[what]
    model, twin = start(), start()
    optimizer = samt.SAMT(samt.blocks(model))
    twin_optimizer = samt.SAMT(samt.blocks(twin))
    group = {"params": [nn.Parameter(torch.ones(2))], "param_names": ["extra"], **wrong}
    with pytest.raises(error) as caught:
        optimizer.add_param_group(group)
    assert "\n" not in str(caught.value)
    assert [g["name"] for g in optimizer.param_groups] == ["0", "2", "4"]
    train(model, optimizer)
    train(twin, twin_optimizer)
    assert_same(optimizer.state_dict(), twin_optimizer.state_dict())


def test_a_block_without_names_beside_blocks_with_names_gets_names() -> None:
    optimizer = samt.SAMT(samt.blocks(start()))
    layer = nn.Linear(2, 2).double()
    optimizer.add_param_group({"params": list(layer.parameters()), "name": "extra"})
    assert optimizer.param_groups[-1]["param_names"] == ["extra[0]", "extra[1]"]
    assert all(optimizer.state[parameter] for parameter in layer.parameters())


@pytest.mark.parametrize("order", ["forward", "cyclic"])
@pytest.mark.parametrize("options", [{}, {"meta_batch": "next", "step_size": "row"}, {"radius": 1}])
def test_an_empty_group_does_no_harm(order: str, options: dict[str, Any]) -> None:
    model, expected = start(), start()
    empty = {"params": [], "param_names": [], "name": "empty"}
    optimizer = samt.SAMT([*samt.blocks(model), empty], order=order, **options)
    train(model, optimizer, 4)
    if order == "cyclic":  # its turn passes without an update
        assert len({group["calls"] for group in optimizer.param_groups}) == 1
        return
    train(expected, samt.SAMT(samt.blocks(expected), order=order, **options), 4)
    assert_same(dict(model.state_dict()), dict(expected.state_dict()))


@pytest.mark.parametrize("partition", [None, 1, ["shared.bias", "*"]])
@pytest.mark.parametrize(
    "options", [{"step_size": "row"}, {"meta_batch": "next"}, {"radius": 0.1}, {"parts": "fixed"}]
)
def test_a_parameter_that_never_gets_a_gradient_is_inert(
    partition: Any, options: dict[str, Any]
) -> None:
    model = start("shared")
    unused = model.get_parameter("unused")
    optimizer = samt.SAMT(samt.blocks(model, partition), weight_decay=0.2, **options)
    state = copy.deepcopy(optimizer.state[unused])
    train(model, optimizer, 4)
    assert torch.equal(unused, torch.ones(2, 2, dtype=torch.float64))
    if partition is None:  # beside others, `ball_scale` and `previous_lr` are the block's
        state.pop("previous_lr", None)
        now = {key: value for key, value in optimizer.state[unused].items() if key in state}
        assert_same(now, state)
    assert not torch.equal(
        model.get_parameter("last.bias"), start("shared").get_parameter("last.bias")
    )


@pytest.mark.parametrize(
    "groups",
    [
        lambda a, b: [a, b, a],
        lambda a, b: [{"params": [a, b]}, {"params": [a]}],
        lambda a, b: [{"params": [a, b]}, {"params": a}],
        lambda a, b: [{"params": [("a", a)]}, {"params": [("b", b), ("c", a)]}],
    ],
)
def test_a_parameter_in_two_blocks_is_refused_with_its_name(
    groups: Callable[[Tensor, Tensor], Any],
) -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    with pytest.raises(errors.DuplicateParameterError, match="one block") as caught:
        samt.SAMT(groups(a, b))
    assert "\n" not in str(caught.value)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (epoch + 1)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, total_iters=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 8),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.4, 2, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.4, 6, cycle_momentum=False),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1e9),
    "SWALR": lambda o: SWALR(o, 0.05, anneal_epochs=3),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(o, 0.8), lr_scheduler.StepLR(o, 2)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5), lr_scheduler.ExponentialLR(o, 0.8)], [2]
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch_drives_lr(name: str, as_tensor: bool) -> None:
    model, twin = start(), start()
    lr: Any = torch.tensor(0.2, dtype=torch.float64) if as_tensor else 0.2
    optimizer = samt.SAMT(samt.blocks(model), lr=lr, meta_lr=0.5)
    scheduler = SCHEDULERS[name](optimizer)
    by_hand = samt.SAMT(samt.blocks(twin), lr=0.2, meta_lr=0.5)
    seen = set()
    for step in range(5):
        now = float(optimizer.param_groups[0]["lr"])
        seen.add(round(now, 12))
        for group in by_hand.param_groups:
            group["lr"] = now
        data = batch("mlp", step)
        optimizer.step(samt.closure(model, LOSS, *data))
        by_hand.step(samt.closure(twin, LOSS, *data))
        if step == 0:  # later the schedulers of older torch may have replaced it
            assert isinstance(optimizer.param_groups[0]["lr"], Tensor) == as_tensor
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert len(seen) > 1
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_every_scheduler_class_of_torch_is_in_the_table() -> None:
    classes = {
        name
        for name, value in vars(lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, lr_scheduler.LRScheduler)
    }
    assert classes - {"LRScheduler", "_LRScheduler"} == set(SCHEDULERS) - {"SWALR"}


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize(
    "options",
    [
        {"step_size": "row"},
        {"meta_batch": "next", "head": "dense"},
        {"parts": "fixed"},
        {"parts": "right", "relative": True},
        {"partition": 1, "parts": "fixed", "radius": 0.5},
    ],
    ids=str,
)
def test_lr_as_a_tensor_equals_lr_as_a_number(
    shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    partition = options.get("partition")
    options = {key: value for key, value in options.items() if key != "partition"}
    results = []
    for lr in (0.25, torch.full(shape, 0.25)):
        model = start()
        model.register_parameter("scale", nn.Parameter(torch.ones((), dtype=torch.float64)))
        scale = model.get_parameter("scale")
        optimizer = samt.SAMT(samt.blocks(model, partition), lr=lr, weight_decay=0.5, **options)
        for step in range(3):
            inputs, targets = batch("mlp", step)
            loss_fn: Callable[..., Tensor] = lambda o, t, s=scale: LOSS(o * s, t)  # noqa: E731
            optimizer.step(samt.closure(model, loss_fn, inputs, targets))
        results.append(dict(model.state_dict()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-14)


def test_a_change_of_an_option_by_hand_takes_effect() -> None:
    model, twin = start(), start()
    optimizer = samt.SAMT(samt.blocks(model), meta_lr=0.5)
    for group in optimizer.param_groups:
        group.update(meta_batch="next", projection="sigmoid", parts="left", radius=0.3)
    changed = {"meta_batch": "next", "projection": "sigmoid", "parts": "left", "radius": 0.3}
    other = samt.SAMT(samt.blocks(twin), meta_lr=0.5, **changed)  # type: ignore[arg-type]
    train(model, optimizer)
    train(twin, other)
    assert_same(dict(model.state_dict()), dict(twin.state_dict()))


@pytest.mark.parametrize("style", [Closure, WithBackward])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_frozen_parameters_stay_frozen_and_unchanged(
    style: type[Closure], mode: dict[str, Any]
) -> None:
    model = with_layer(nn.BatchNorm1d(6))
    frozen = [*model[0].parameters(), model[4].bias]  # type: ignore[index]
    for parameter in frozen:
        parameter.requires_grad_(False)
    kept = [p.detach().clone() for p in frozen]
    moving = model.get_parameter("4.weight")
    start = moving.detach().clone()
    optimizer = samt.SAMT(samt.blocks(model), lr=0.1, weight_decay=0.1, **mode)
    for step in range(4):
        closure = style(model, mse_loss, regression(step))
        meta = style(model, mse_loss, regression(9)) if mode.get("meta_batch") == "fresh" else None
        optimizer.step(closure, meta)
    assert_same([p.detach() for p in frozen], kept)
    assert not any(p.requires_grad or p.grad is not None for p in frozen)
    assert all(p.requires_grad for p in model.parameters() if all(p is not f for f in frozen))
    assert not torch.equal(moving, start)


@pytest.mark.parametrize("style", [Closure, WithBackward])
@pytest.mark.parametrize(
    "mode", [{}, {"meta_batch": "fresh"}, {"order": "cyclic", "meta_batch": "fresh"}], ids=str
)
def test_an_entirely_frozen_model_gives_its_loss_and_nothing_else(
    style: type[Closure], mode: dict[str, Any]
) -> None:
    model = TwoRoutes().double()
    optimizer = samt.SAMT(samt.blocks(model), weight_decay=0.1, **mode)
    model.requires_grad_(False)
    kept = copy.deepcopy(dict(model.named_parameters()))
    meta = style(model, mse_loss, regression(9)) if mode else None
    if style is WithBackward:
        # Nothing asks for a gradient: torch's own `backward` refuses outside SAMT too.
        with pytest.raises(RuntimeError, match=r"grad|differentiate"):
            optimizer.step(style(model, mse_loss, regression(0)), meta)
    else:
        loss = optimizer.step(style(model, mse_loss, regression(0)), meta)
        assert isinstance(loss, Tensor)
        assert loss.isfinite()
    assert_same(dict(model.named_parameters()), kept)


def test_a_parameter_that_was_frozen_stays_when_its_block_is_projected_onto_its_ball() -> None:
    model = start()
    optimizer = samt.SAMT(samt.blocks(model, 1), lr=0.3, radius=0.1)
    train(model, optimizer)
    frozen = model.get_parameter("2.weight").requires_grad_(False)
    kept, moving = frozen.detach().clone(), model.get_parameter("2.bias")
    before = moving.detach().clone()
    train(model, optimizer)
    assert torch.equal(frozen, kept)
    assert not torch.equal(moving, before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_block_that_is_added_to_a_copy_has_its_state_at_once(copied: Any) -> None:
    groups = samt.blocks(start())
    optimizer = copied(samt.SAMT(groups[:1]))
    optimizer.add_param_group(samt.blocks(start())[1])
    assert all("eta_model" in optimizer.state[p] for p in optimizer.param_groups[1]["params"])


def test_a_loss_that_is_not_finite_is_refused_where_everything_is_frozen() -> None:
    model = with_layer(nn.BatchNorm1d(6))
    model.requires_grad_(False)
    optimizer = samt.SAMT(samt.blocks(model))
    inputs, targets = regression(0)
    kept = copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(errors.NonFiniteLossError, match="step 0"):
        optimizer.step(samt.closure(model, mse_loss, inputs * torch.nan, targets))
    assert_same(dict(model.named_buffers()), kept)
