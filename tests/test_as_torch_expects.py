"""Every optimizer here in the loop that everybody writes, with everything that torch hangs on one.

What `test_checkpoint`, `test_param_groups`, `test_dtypes` and `test_hypergradient_conventions` ask
of some of them is not asked of these again.
"""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

import samt
from samt.baselines import SGDHD, AdamHD, Dante, SGDNesterovHD
from samt.errors import UnknownOptionError

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import mlp

LOSS = nn.functional.cross_entropy
Make = Callable[..., Optimizer]
TURNS: dict[str, Any] = {"meta_batch": "next", "order": "cyclic", "step_size": "row"}


def make(kind: str, params: Any, **options: Any) -> Optimizer:
    """The optimizer in a mode that takes `loss.backward(); optimizer.step()`."""
    of: dict[str, tuple[Make, dict[str, Any]]] = {
        "auto-samt": (samt.AutoSAMT, {}),
        "samt": (samt.SAMT, TURNS),
        "sgd-hd": (SGDHD, {"hypergrad_lr": 1e-3, "momentum": 0.8}),
        "nesterov-hd": (SGDNesterovHD, {"hypergrad_lr": 1e-3}),
        "adam-hd": (AdamHD, {"hypergrad_lr": 1e-3}),
        "dante": (Dante, {"fresh_batches": True, "inner_iterations": 2, "order": "forward"}),
    }
    build, own = of[kind]
    return build(params, **{"lr": 0.05, **own, **options})


KINDS = ["auto-samt", "samt", "sgd-hd", "nesterov-hd", "adam-hd", "dante"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def start(kind: str, **options: Any) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(5)
    model = mlp()
    return model, make(kind, samt.blocks(model), **options)


def train(
    model: nn.Module, optimizer: Optimizer, steps: Iterable[int], set_to_none: bool = True
) -> None:
    for step in steps:
        inputs, targets = batch("mlp", step)
        optimizer.zero_grad(set_to_none)
        LOSS(model(inputs), targets).backward()
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@every_kind
def test_hooks_run_around_step_saving_and_loading(kind: str) -> None:
    model, optimizer = start(kind)
    seen: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: seen.append(name)

    def changed(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "note": "kept"}

    def with_lr(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        seen.append(f"load: {state['note']}")
        return {**state, "param_groups": [{**g, "lr": 0.125} for g in state["param_groups"]]}

    handles = [
        optimizer.register_step_pre_hook(note("step")),
        optimizer.register_step_post_hook(note("stepped")),
        optimizer.register_state_dict_pre_hook(note("save")),
        optimizer.register_state_dict_post_hook(changed),
        optimizer.register_load_state_dict_pre_hook(with_lr),
        optimizer.register_load_state_dict_post_hook(note("loaded")),
    ]
    train(model, optimizer, range(1))
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    assert seen == ["step", "stepped", "save", "load: kept", "loaded"]
    assert {float(group["lr"]) for group in optimizer.param_groups} == {0.125}
    for handle in handles:
        handle.remove()
    train(model, optimizer, range(1))
    assert "note" not in optimizer.state_dict()
    assert len(seen) == 5


@every_kind
def test_a_closure_is_evaluated_once_and_its_loss_returned(kind: str) -> None:
    model, optimizer = start(kind)
    calls: list[Tensor] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = LOSS(model(batch("mlp", 0)[0]), batch("mlp", 0)[1])
        loss.backward()
        calls.append(loss.detach())
        return loss

    loss = optimizer.step(closure)  # type: ignore[arg-type]
    assert len(calls) == 1
    assert loss is not None
    assert torch.equal(torch.as_tensor(loss).detach(), calls[0])


@every_kind
def test_zero_grad_both_ways(kind: str) -> None:
    (model, optimizer), (twin, other) = start(kind), start(kind)
    train(model, optimizer, range(8), set_to_none=True)
    train(twin, other, range(8), set_to_none=False)
    assert_same(weights(model), weights(twin))
    assert all(p.grad is not None for p in twin.parameters())
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@every_kind
def test_lr_as_a_tensor_without_dimensions_equals_a_number(kind: str) -> None:
    (model, optimizer), (twin, other) = (
        start(kind),
        start(kind, lr=torch.tensor(0.05, dtype=torch.float64)),
    )
    for group in other.param_groups:
        assert isinstance(group["lr"], Tensor)
    for run in ((model, optimizer), (twin, other)):
        train(*run, range(8))
        for group in run[1].param_groups:
            lr = group["lr"] / 2
            group["lr"] = torch.as_tensor(lr) if run[1] is other else float(lr)
        train(*run, range(8, 14))
    torch.testing.assert_close(weights(twin), weights(model), rtol=1e-7, atol=1e-9)
    state = io.BytesIO()
    torch.save(other.state_dict(), state)
    state.seek(0)
    optimizer.load_state_dict(torch.load(state, weights_only=True))
    lrs = [float(g["lr"]) for o in (optimizer, other) for g in o.param_groups]
    assert lrs == 2 * lrs[:3]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
@pytest.mark.parametrize("kind", ["auto-samt", "samt", "dante"])
def test_a_copy_goes_on_alike_and_shares_nothing(
    kind: str, copied: Callable[[Any], tuple[nn.Module, Optimizer]]
) -> None:
    run = start(kind)
    train(*run, range(9))
    twin = copied(run)
    before = weights(twin[0])
    train(*run, range(9, 15))
    assert_same(weights(twin[0]), before)
    train(*twin, range(9, 15))
    assert_same(weights(twin[0]), weights(run[0]))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda tensor: tensor,
    "channels last": lambda t: (
        t.contiguous(memory_format=torch.channels_last) if t.dim() > 1 else t
    ),
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "every second element": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
}


def convolutional(layout: str) -> nn.Module:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3)).double()
    layers: list[Any] = [model[0], model[2]]
    for layer in layers:
        layer.weight = nn.Parameter(LAYOUTS[layout](layer.weight.detach()))
        layer.bias = nn.Parameter(LAYOUTS[layout](layer.bias.detach()))
    return model


@pytest.mark.parametrize("gradients", LAYOUTS)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
@every_kind
def test_the_layout_in_memory_changes_no_number(kind: str, layout: str, gradients: str) -> None:
    """The layout is that of the parameters, or of gradients that somebody has assigned."""
    results = []
    for chosen in ("contiguous", layout):
        model = convolutional(chosen)
        optimizer = make(kind, samt.blocks(model))
        assert chosen == "contiguous" or any(not p.is_contiguous() for p in model.parameters())
        for step in range(9):
            torch.manual_seed(step)
            inputs, targets = torch.randn(8, 3, 3, 3).double(), torch.randint(3, (8, 1, 1))
            found = torch.autograd.grad(LOSS(model(inputs), targets), list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), found, strict=True):
                own = LAYOUTS[gradients](gradient) if chosen != "contiguous" else gradient
                parameter.grad = own
            optimizer.step()
        results.append(weights(model))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-11)


@every_kind
def test_empty_groups_and_groups_without_gradients_change_nothing(kind: str) -> None:
    model, optimizer = start(kind)
    torch.manual_seed(5)
    twin = mlp()
    idle = nn.Parameter(torch.ones(3, dtype=torch.float64))
    odd: list[dict[str, Any]] = [
        {"params": [], "param_names": [], "name": "empty"},
        {"params": [idle], "param_names": ["idle"], "name": "idle"},
    ]
    # A turn of the cyclic order goes to every group, so that the odd ones come last.
    groups = [*samt.blocks(twin), *odd]
    other = make(kind, groups if kind in ("samt", "dante") else [odd[0], *groups[:3], odd[1]])
    turns = 3 if kind == "samt" else 6
    steps = turns if kind in ("samt", "dante") else 12
    train(model, optimizer, range(steps))
    train(twin, other, range(steps))
    torch.testing.assert_close(weights(twin), weights(model), rtol=1e-12, atol=1e-13)
    train(twin, other, range(steps, steps + 12))
    assert torch.equal(idle, torch.ones(3, dtype=torch.float64))
    other.load_state_dict(other.state_dict())


@every_kind
def test_without_any_gradient_a_step_moves_nothing(kind: str) -> None:
    model, optimizer = start(kind, weight_decay=0.1) if kind != "dante" else start(kind)
    before = weights(model)
    for _ in range(2):
        optimizer.step()
    assert_same(weights(model), before)


@every_kind
def test_a_group_added_later_is_trained_from_the_next_step_on(kind: str) -> None:
    torch.manual_seed(5)
    model = mlp()
    groups = samt.blocks(model)
    optimizer = make(kind, groups[:2])
    train(model, optimizer, range(4))  # after which the first of two blocks is due
    late = groups[2]["params"]
    before = [parameter.detach().clone() for parameter in late]
    optimizer.add_param_group(groups[2])
    start = float(optimizer.param_groups[2]["lr"])
    assert start == pytest.approx(0.05, rel=1e-6)
    train(model, optimizer, range(4, 5 if kind not in ("samt", "dante") else 12))
    for parameter, old in zip(late, before, strict=True):
        assert not torch.equal(parameter, old)
    train(model, optimizer, range(12, 20))
    # Dante has nothing to remember.
    assert len(optimizer.state_dict()["state"]) == (0 if kind == "dante" else 6)


@pytest.mark.parametrize("word", ["foreach", "fused", "capturable", "differentiable", "maximize"])
@every_kind
def test_what_torchs_optimizers_have_besides_is_refused_by_name(kind: str, word: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"'{word}'.*leave it out") as caught:
        start(kind, **{word: True})
    assert "\n" not in str(caught.value)
    model = mlp()
    with pytest.raises(UnknownOptionError, match=f"'{word}'.*leave it out"):
        make(kind, [{**group, word: True} for group in samt.blocks(model)])


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 20, cycle_momentum=False),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, threshold=1e9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(o, 16)],
        [4],
    ),
}


# SequentialLR itself calls a scheduler in a way that torch warns about.
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
@every_kind
def test_schedulers_run_without_a_warning(kind: str, name: str, as_tensor: bool) -> None:
    lr = torch.tensor(0.05, dtype=torch.float64) if as_tensor else 0.05
    (model, optimizer), (still, unscheduled) = start(kind, lr=lr), start(kind)
    scheduler = SCHEDULERS[name](optimizer)
    seen = set()
    for step in range(20):
        train(model, optimizer, [step])
        seen.add(round(float(optimizer.param_groups[0]["lr"]), 9))
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert len(seen) > 3
    train(still, unscheduled, range(20))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not torch.allclose(weights(model)[0], weights(still)[0], rtol=1e-4)


@pytest.mark.parametrize("kind", ["auto-samt", "sgd-hd", "adam-hd"])
def test_one_cycle_moves_the_momentum_too(kind: str) -> None:
    model, optimizer = start(kind)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
    momenta = set()
    for step in range(20):
        train(model, optimizer, [step])
        group = optimizer.param_groups[0]
        momenta.add(round(group["momentum"] if kind == "sgd-hd" else group["betas"][0], 9))
        scheduler.step()
    assert len(momenta) > 10
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # each torch warns of something else while it compiles
@pytest.mark.parametrize("kind", ["auto-samt", "samt"])
def test_a_compiled_model_trains_to_the_same_numbers(kind: str) -> None:
    (model, optimizer), (twin, _) = start(kind), start(kind)
    compiled: nn.Module = torch.compile(twin)  # type: ignore[assignment]
    other = make(kind, samt.blocks(compiled))
    train(model, optimizer, range(12))
    train(compiled, other, range(12))
    torch.testing.assert_close(weights(twin), weights(model), rtol=1e-6, atol=1e-9)
    assert [g["name"] for g in other.param_groups] == [g["name"] for g in optimizer.param_groups]
