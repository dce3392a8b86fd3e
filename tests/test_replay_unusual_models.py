"""Replay changes no number for models that do something unusual within a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

import samt

from .support.comparisons import assert_same
from .support.replay import LOSS, MODES, assert_replay_changes_nothing, data
from .support.replayed_models import (
    Advancing,
    Net,
    Stashing,
    chain,
    lin,
    made,
    segment,
    three,
    thrice,
    with_functions,
)


def late_functional(net: Any, x: Tensor) -> Tensor:
    if net.phase:
        x = functional.linear(x, net.late.weight[:4, :4])
    x = net.act(net.a(x))
    return net.c(net.act(net.late(net.act(net.b(x)))))


def phased(model: Any, step: int) -> None:
    model.phase = step > 0


def branch(net: Any, x: Tensor) -> Tensor:
    x = net.act(net.a(x))
    used = net.one if net.choose(x) else net.two
    x = net.act(functional.linear(x, used.weight))
    return net.c(net.act(net.b(x)))


def unet(net: Any, x: Tensor) -> Tensor:
    skips = net.encoder(x)
    x = skips.pop()
    for up in net.ups:
        x = net.act(up(x + skips.pop()))
    return net.c(x)


def gathered(net: Any, x: Tensor) -> Tensor:
    features = net.encoder(x)
    for up in net.ups:
        features["last"] = net.act(up(features["last"]))
    return net.c(features["last"])


def preactivation(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    y = net.relu(x)  # changes x too
    x = net.act(net.b(y)) + x
    return net.c(net.act(net.mid(x)) + x)


def input_gradient(net: Any, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    h = net.act(net.b(net.act(net.a(x))))
    (slope,) = torch.autograd.grad(h.square().sum(), x, create_graph=True)
    return net.c(h) * slope.square().mean(1, keepdim=True)


def frozen_backbone(net: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        x = net.backbone(x)
    return net.c(net.act(net.b(net.act(net.a(x.clone())))))


def vectorized(net: Any, x: Tensor) -> Tensor:
    x = torch.vmap(net.a)(x)
    return net.c(net.act(net.b(net.act(x))))


def penalized(net: Any, x: Tensor) -> Tensor:
    x = net.stash(net.act(net.a(x)))
    x = net.act(net.b(x))
    return net.c(x) * (1 + net.stash.penalty)


def by_signature(net: Any, x: Tensor) -> Tensor:
    extra = {"scale": 0.5, "unknown": 1}
    names = inspect.signature(net.scaled.forward).parameters
    x = net.scaled(net.act(net.a(x)), **{k: v for k, v in extra.items() if k in names})
    return net.c(net.act(net.b(x)))


class Scaled(nn.Module):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x * scale


def advancing(net: Any, x: Tensor) -> Tensor:
    x = net.counter(net.act(net.a(x)))
    x = net.counter(net.act(net.b(x)))
    return net.c(net.counter(x))


class Renaming(nn.Module):
    """Keeps as many attributes as before, and the same values, under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = None

    def forward(self, x: Tensor) -> Tensor:
        old, new = ("one", "two") if hasattr(self, "one") else ("two", "one")
        setattr(self, new, self.__dict__.pop(old))
        return x.sin()


def renaming(net: Any, x: Tensor) -> Tensor:
    x = net.renaming(net.act(net.a(x)))
    x = net.b(x) * (2.0 if hasattr(net.renaming, "one") else 0.5)
    return net.c(net.renaming(net.act(x)))


def borrowing(use: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """A module uses the weight of one that is called later."""
    late = lin()
    return Net(
        lambda net, x: net.c(net.act(net.late(net.act(net.borrower(net.act(net.a(x))))))),
        a=lin(4),
        act=nn.Tanh(),
        borrower=Net(lambda net, x: use(net.own(x), late.weight), own=lin()),
        late=late,
        c=lin(6, 3),
    )


def writing(call: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    """A module changes its input, which is used again."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = net.a(x)
        y = net.act(net.b(call(net.writer, x))) + x
        return net.c(net.act(net.mid(y)) + y)

    def write(net: Any, x: Any) -> Tensor:
        inside: Tensor = x if isinstance(x, Tensor) else x[0]
        return inside.clamp_(-0.1).sin()

    return three(run, writer=Net(write), mid=lin())


def tried(net: Any, x: Tensor) -> Tensor:
    x = net.act(net.a(x))
    try:
        x = net.failing(x)
    except ValueError:
        x = functional.linear(x, net.b.weight)
    return net.c(net.act(net.b(net.act(x))))


def raising(net: Any, x: Tensor) -> Tensor:
    raise ValueError("refused")


def reentrant(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    x = checkpoint(net.segment, x, use_reentrant=True)
    return net.c(net.act(net.b(x)))


def ups() -> nn.ModuleList:
    return nn.ModuleList([lin(), lin()])


def encoder(keep: Callable[[list[Tensor]], Any]) -> nn.Module:
    def encode(net: Any, x: Tensor) -> Any:
        x = net.a(x)
        return keep([x, net.b(x), x.sin(), x.cos()])

    return Net(encode, a=lin(4), b=lin())


SUSPECTS: dict[str, Callable[[], nn.Module]] = {
    "list that its caller empties": lambda: Net(
        unet, encoder=encoder(list), act=nn.Tanh(), ups=ups(), c=lin(6, 3)
    ),
    "dict that its caller changes": lambda: Net(
        gathered, encoder=encoder(lambda x: {"last": x[1]}), act=nn.Tanh(), ups=ups(), c=lin(6, 3)
    ),
    "in-place module whose input is used again": lambda: three(
        preactivation, relu=nn.LeakyReLU(0.3, True), mid=lin()
    ),
    "gradient with respect to the inputs": lambda: three(input_gradient),
    "inference mode": lambda: three(frozen_backbone, backbone=nn.Sequential(nn.Tanh(), nn.ELU())),
    "vmap": lambda: three(vectorized),
    "penalty left in an attribute": lambda: three(penalized, stash=Stashing()),
    "signature of forward": lambda: three(by_signature, scaled=Scaled()),
    "buffer that every call advances": lambda: three(advancing, counter=Advancing()),
    "spectral norm used twice": lambda: Net(
        thrice, a=lin(4), b=spectral_norm(lin()), act=nn.Tanh(), mid=lin(), c=lin(6, 3)
    ),
    "attribute that gets another name": lambda: three(renaming, renaming=Renaming()),
    "parameter that is used in a list": lambda: borrowing(
        lambda x, weight: torch.cat([weight, x]).cumsum(0)[-len(x) :]
    ),
    "parameter that is used by name": lambda: borrowing(
        lambda x, weight: functional.linear(x, weight=weight)
    ),
    "write into an input by name": lambda: writing(lambda writer, x: writer(x=x)),
    "write into an input in a list": lambda: writing(lambda writer, x: writer([x])),
    "a module that raises": lambda: three(tried, failing=Net(raising, own=lin())),
    "branch that uses a parameter": lambda: three(
        branch, one=lin(), two=lin(), choose=lambda x: bool(x.mean() > 0)
    ),
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("model", SUSPECTS)
def test_replay_changes_no_number_of_an_unusual_model(model: str, mode: dict[str, Any]) -> None:
    assert_replay_changes_nothing(SUSPECTS[model], model != "vmap", steps=3, **mode)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_parameter_may_be_used_in_a_new_place_from_the_second_step_on(
    mode: dict[str, Any],
) -> None:
    assert_replay_changes_nothing(
        lambda: three(late_functional, late=lin(), phase=False), before_step=phased, steps=3, **mode
    )


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_model_may_begin_to_draw_random_numbers(mode: dict[str, Any]) -> None:
    assert_replay_changes_nothing(
        lambda: chain(nn.Dropout(0.3), lin(), nn.Dropout(0.3), nn.Tanh(), nn.Dropout(0.3)),
        before_step=lambda model, step: model.train(step > 0),
        steps=3,
        **mode,
    )


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_modules_may_be_replaced_between_steps(mode: dict[str, Any]) -> None:
    def replace(model: Any, step: int) -> None:
        if step == 1:
            old = model[2]
            model[2] = lin().double()
            model[2].weight, model[2].bias = old.weight, old.bias

    assert_replay_changes_nothing(
        lambda: chain(lin(), nn.Tanh()), before_step=replace, steps=3, **mode
    )


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_forward_may_be_patched_between_steps(mode: dict[str, Any]) -> None:
    def patch(model: Any, step: int) -> None:
        if step == 1:
            model[1].forward = torch.sin
        if step == 2:
            del model[1].forward

    assert_replay_changes_nothing(
        lambda: chain(lin(), nn.Tanh()), before_step=patch, steps=3, **mode
    )


def squares(model: Any) -> Callable[..., Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return LOSS(outputs, targets) + 0.01 * sum(p.square().sum() for p in model.parameters())

    return loss


def one_penalty(model: Any) -> Callable[..., Tensor]:
    return lambda outputs, targets: LOSS(outputs, targets) + model.b.weight.square().mean()


def second_head(model: Any) -> Callable[..., Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return LOSS(outputs, targets) + model.extra(model.act(outputs)).square().mean()

    return loss


def backward_inside(model: Any) -> Callable[..., Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = LOSS(outputs, targets)
        value.backward()
        return value

    return loss


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("loss_of", [squares, one_penalty, second_head, backward_inside])
def test_a_loss_may_use_parameters_and_modules(loss_of: Any, mode: dict[str, Any]) -> None:
    def make() -> nn.Module:
        return three(with_functions, extra=lin(3, 2))

    assert_replay_changes_nothing(make, loss_of=loss_of, **mode)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_reentrant_checkpoints_work_where_the_loss_calls_backward(mode: dict[str, Any]) -> None:
    assert_replay_changes_nothing(
        lambda: three(reentrant, segment=segment()), loss_of=backward_inside, **mode
    )


@pytest.mark.parametrize("mode", [m for m in MODES if "partition" not in m], ids=str)
def test_a_block_may_hold_a_tensor_that_is_no_parameter_of_the_model(mode: dict[str, Any]) -> None:
    def weights_after(replay: bool) -> list[Tensor]:
        scale = torch.full((), 0.7, dtype=torch.float64, requires_grad=True)

        def forward(net: Any, x: Tensor) -> Tensor:
            x = net.mid(net.act(net.a(x)) * scale)
            return net.c(net.act(net.b(net.act(x))))

        model = made(lambda: three(forward, mid=nn.Softsign()))
        tensors = [group["params"] for group in samt.blocks(model)]
        groups = [{"params": own} for own in (tensors[0], [scale], *tensors[1:])]
        optimizer = samt.SAMT(groups, lr=0.3, replay=replay, **mode)
        for step in range(3):
            fresh = mode["meta_batch"] == "fresh"
            meta = samt.closure(model, LOSS, *data(100 + step)) if fresh else None
            optimizer.step(samt.closure(model, LOSS, *data(step)), meta)
        return [scale.detach(), *(p.detach() for p in model.parameters())]

    assert_same(weights_after(replay=True), weights_after(replay=False))


@pytest.mark.parametrize("fails", [False, True])
def test_models_that_share_modules_may_be_evaluated_in_one_step(fails: bool) -> None:
    def step(replay: bool) -> list[Tensor]:
        model = made(lambda: chain(lin(), nn.Tanh(), nn.Dropout(0.2)))
        twin = nn.Sequential(*model.children(), nn.Softsign())
        twin[1].forward = torch.sin  # model[1] too
        forward = twin[1].forward
        optimizer = samt.SAMT(samt.blocks(model), lr=0.3, meta_batch="fresh", replay=replay)
        evaluations = 0

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            if fails and evaluations == 4:
                raise ValueError("fourth")
            return LOSS(outputs, targets)

        for number in range(2):
            batches = (model, data(number)), (twin, data(50 + number))
            try:
                optimizer.step(*(samt.closure(m, loss, *batch) for m, batch in batches))
            except ValueError:
                assert fails
            assert [m for m in twin.modules() if "forward" in m.__dict__] == [twin[1]]
            assert twin[1].forward is forward
        return [p.detach() for p in model.parameters()]

    assert_same(step(replay=True), step(replay=False))
