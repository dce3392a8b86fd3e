"""AutoSAMT trains y, and x is what is evaluated and saved: nobody has to remember it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import shutil
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

import samt
from samt.reference import AutoReference

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import mlp

LOSS = nn.functional.cross_entropy
INPUTS = batch("mlp", 99)[0]


def train(model: nn.Module, optimizer: Any, steps: Any, inside: nn.Module | None = None) -> None:
    for step in steps:
        inputs, targets = batch("mlp", step)
        dtype = next(model.parameters()).dtype
        optimizer.zero_grad()
        LOSS((inside or model)(inputs.to(dtype)).double(), targets).backward()
        optimizer.step()


def start(steps: int = 12, **options: Any) -> tuple[nn.Module, samt.AutoSAMT, dict[str, Tensor]]:
    """A model after some steps, its optimizer, and the x that it should evaluate."""
    torch.manual_seed(5)
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer = samt.AutoSAMT(model, **options)
    oracle = AutoReference(twin, LOSS, samt.AutoSAMT(samt.blocks(twin), **options).param_groups)
    for step in range(steps):
        oracle.step(batch("mlp", step))
    train(model, optimizer, range(steps))
    return model, optimizer, oracle.x


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_holds(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-9, atol=1e-12)


def flat(model: nn.Module) -> Tensor:
    """All weights in one vector of float64."""
    return torch.cat([weight.double().flatten() for weight in weights(model).values()])


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.allclose(one[name], other[name], rtol=1e-6) for name in one)


def test_evaluation_sees_x_and_training_goes_on_from_the_same_y() -> None:
    model, optimizer, x = start()
    y = weights(model)
    assert differs(x, y)
    model.eval()
    with torch.inference_mode():
        outputs = model(INPUTS)
    assert_holds(weights(model), x)
    torch.testing.assert_close(outputs, torch.func.functional_call(mlp(), x, INPUTS))
    model.train()
    model(INPUTS)
    assert_same(weights(model), y)
    twin, other, _ = start()
    train(model, optimizer, range(12, 20))
    train(twin, other, range(12, 20))
    assert_same(weights(model), weights(twin))


def test_the_state_dict_of_the_model_has_x() -> None:
    model, optimizer, x = start()
    y = weights(model)
    assert_holds(dict(model.state_dict()), x)
    part: nn.Module = model[0]  # type: ignore[index]
    model(INPUTS)
    assert_same(weights(model), y)
    assert_holds(dict(part.state_dict()), {"weight": x["0.weight"]})
    train(model, optimizer, range(12, 13))
    twin, *_ = start(13)
    assert_same(weights(model), weights(twin))


def test_a_part_that_is_called_alone_is_evaluated_as_the_whole_model_is() -> None:
    model, _, x = start()
    model.eval()
    model[0](INPUTS)  # type: ignore[index]
    assert_holds(weights(model), x)


def test_a_frozen_norm_in_a_training_model_does_not_count() -> None:
    model, _, _ = start()
    y = weights(model)
    model[0].eval()  # type: ignore[index]
    model(INPUTS)
    assert_same(weights(model), y)


def test_eval_and_train_of_the_optimizer_can_be_called_at_any_time() -> None:
    torch.manual_seed(5)
    model = mlp()
    optimizer = samt.AutoSAMT(model.parameters())
    train(model, optimizer, range(12))
    _, _, x = start()
    y = weights(model)
    model.eval()(INPUTS)
    assert_same(weights(model), y)  # there is no model that it knows
    for _ in range(2):
        optimizer.eval()
        assert_holds(weights(model), x)
    for _ in range(2):
        optimizer.train()
        assert_same(weights(model), y)


def test_a_step_from_gradients_at_x_moves_y() -> None:
    """Somebody trains in evaluation mode, as for a frozen batch norm."""
    model, optimizer, _ = start()
    y = weights(model)
    model.eval()
    train(model, optimizer, [12])
    assert_holds(dict(model.state_dict()), weights(model))
    optimizer.train()
    moved = weights(model)
    assert differs(moved, y)
    assert all((moved[n] - y[n]).abs().max() < 0.2 for n in y)


def test_a_closure_that_evaluates_the_model_does_no_harm() -> None:
    model, optimizer, _ = start()
    twin, other, _ = start()

    def closure() -> Tensor:
        inputs, targets = batch("mlp", 12)
        optimizer.zero_grad()
        loss: Tensor = LOSS(model(inputs), targets)
        loss.backward()
        model.eval()(inputs)
        model.train()
        return loss

    optimizer.step(closure)
    train(twin, other, [12])
    optimizer.train()
    assert_same(weights(model), weights(twin))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_low_precision_come_back_exactly(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    model = mlp().to(dtype)
    optimizer = samt.AutoSAMT(model)
    train(model, optimizer, range(30))
    twin = copy.deepcopy((model, optimizer))
    y = weights(model)
    model.eval()(INPUTS.to(dtype))
    assert differs(weights(model), y)
    train(model.train(), optimizer, range(30, 40))
    train(*twin, range(30, 40))
    assert_same(weights(model), weights(twin[0]))


# Checkpoints.


@pytest.mark.parametrize("order", ["model first", "optimizer first"])
@pytest.mark.parametrize("saved_in", ["train", "eval", "optimizer first"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_checkpoint_goes_on_from_y_though_it_shows_x(
    order: str, saved_in: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(5)
    model = mlp().to(dtype)
    optimizer = samt.AutoSAMT(model)
    train(model, optimizer, range(12))
    if saved_in == "eval":
        model.eval()(INPUTS.to(dtype))
    kept: dict[str, Any] = {}
    for name in ("o", "m") if saved_in == "optimizer first" else ("m", "o"):
        kept[name] = (optimizer if name == "o" else model).state_dict()
    file = io.BytesIO()
    torch.save(kept, file)
    model.train()
    train(model, optimizer, range(12, 20))
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    torch.manual_seed(6)
    again = mlp().to(dtype)
    resumed = samt.AutoSAMT(again)
    train(again, resumed, range(3))
    steps: list[Callable[[], Any]] = [
        lambda: again.load_state_dict(loaded["m"]),
        lambda: resumed.load_state_dict(loaded["o"]),
    ]
    for step in steps if order == "model first" else steps[::-1]:
        step()
    assert_same(dict(again.state_dict()), dict(loaded["m"]))
    train(again, resumed, range(12, 20))
    assert_same(weights(again), weights(model))


def test_weights_that_are_not_those_of_the_checkpoint_win() -> None:
    model, optimizer, _ = start()
    state = copy.deepcopy(optimizer.state_dict())
    own = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    optimizer.load_state_dict(state)
    model.load_state_dict(own)
    model(INPUTS)
    assert_same(weights(model), own)
    assert all(not state["lead"].any() for state in optimizer.state.values())
    assert all(float(state["step"]) == 12 for state in optimizer.state.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_that_differ_little_from_those_of_the_checkpoint_win(dtype: torch.dtype) -> None:
    """Pruned, or those of some steps before: in low precision they are nearly the same."""
    torch.manual_seed(5)
    model = mlp().to(dtype)
    optimizer = samt.AutoSAMT(model)
    train(model, optimizer, range(12))
    model_state, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    pruned = {
        name: one.where(one.abs() > one.abs().median(), 0) for name, one in model_state.items()
    }
    model.load_state_dict(pruned)
    optimizer.load_state_dict(state)
    model(INPUTS.to(dtype))
    assert_same(weights(model), pruned)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_that_is_converted_is_evaluated_at_x(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    model = mlp().float()
    optimizer = samt.AutoSAMT(model)
    train(model, optimizer, range(12))
    y = flat(model)
    optimizer.eval()
    x = flat(model)
    optimizer.train()
    model.to(dtype)
    model.eval()(INPUTS.to(dtype))
    assert (flat(model) - x).norm() < 0.6 * (flat(model) - y).norm()


def test_a_state_without_the_largest_lr_goes_on() -> None:
    model, optimizer, _ = start()
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        del group["largest_lr"]
    optimizer.load_state_dict(state)
    train(model, optimizer, range(12, 14))
    assert all(group["largest_lr"] == 1.0 for group in optimizer.param_groups)


def test_a_checkpoint_without_a_model_has_y() -> None:
    torch.manual_seed(5)
    model = mlp()
    optimizer = samt.AutoSAMT(model.parameters())
    train(model, optimizer, range(12))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(12, 20))
    again = mlp()
    resumed = samt.AutoSAMT(again.parameters())
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    train(again, resumed, range(12, 20))
    assert_same(weights(again), weights(model))


def test_weights_that_are_loaded_in_the_middle_are_trained_and_evaluated() -> None:
    """The best weights so far are put back."""
    model, optimizer, _ = start()
    best = copy.deepcopy(model.state_dict())
    train(model, optimizer, range(12, 16))
    model.load_state_dict(best)
    model(INPUTS)
    assert_same(weights(model), dict(best))
    assert_same(dict(model.state_dict()), dict(best))
    train(model, optimizer, range(16, 18))
    assert differs(weights(model), dict(best))


# Copies, several optimizers, and optimizers that are gone.


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_a_copy_of_both_has_modes_of_its_own(copied: Callable[[Any], Any]) -> None:
    model, optimizer, x = start()
    y = weights(model)
    twin, other = copied((model, optimizer))
    twin.eval()(INPUTS)
    assert_holds(weights(twin), x)
    assert_same(weights(model), y)
    shown, third = copied((twin, other))
    assert_holds(weights(shown), x)
    for each, own in ((model, optimizer), (twin.train(), other), (shown.train(), third)):
        train(each, own, range(12, 16))
    assert_same(weights(twin), weights(model))
    assert_same(weights(shown), weights(model))


def test_a_copy_of_the_model_alone_is_nobodys() -> None:
    model, optimizer, x = start()
    y = weights(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.eval()(INPUTS)
        assert_same(weights(twin), y)
        twin.load_state_dict(x)
        assert_same(weights(model), y)
    average = torch.optim.swa_utils.AveragedModel(model)
    train(model, optimizer, range(12, 14))
    average.update_parameters(model)
    average.eval()(INPUTS)


def test_several_optimizers_on_one_model() -> None:
    """Each holds its own parameters; the mode that counts is that of the module it was given."""
    torch.manual_seed(5)
    model, twin = mlp(), mlp()
    twin.load_state_dict(model.state_dict())
    parts = [nn.ModuleList([model[0]]), nn.ModuleList([model[2], model[4]])]  # type: ignore[index]
    optimizers = [samt.AutoSAMT(part) for part in parts]
    others = [samt.AutoSAMT(samt.blocks(twin)[:1]), samt.AutoSAMT(samt.blocks(twin)[1:])]
    for step in range(12):
        for network, own in ((model, optimizers), (twin, others)):
            network.zero_grad()
            LOSS(network(batch("mlp", step)[0]), batch("mlp", step)[1]).backward()
            for optimizer in own:
                optimizer.step()
    assert_same(weights(model), weights(twin))
    others[0].eval()
    parts[0].eval()
    model(INPUTS)
    assert_same(weights(model), weights(twin))
    others[1].eval()
    parts[1].eval()
    model(INPUTS)
    assert_same(weights(model), weights(twin))


def test_a_model_comes_to_its_x_though_the_optimizer_is_gone() -> None:
    """As where a function trains a model and returns it."""
    model, optimizer, x = start()
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    model.eval()(INPUTS)
    assert_holds(weights(model), x)
    model.train()(INPUTS)
    assert_holds(weights(model), x)
    model, _, x = start()
    gc.collect()
    assert_holds(dict(model.state_dict()), x)


def test_what_is_left_of_an_optimizer_that_is_gone_does_not_touch_the_next_one() -> None:
    model, optimizer, x = start()
    del optimizer
    gc.collect()
    after = torch.optim.SGD(model.parameters(), 0.1)
    train(model, after, range(3))
    trained = weights(model)
    model.eval()(INPUTS)
    assert_same(weights(model), trained)
    model, optimizer, x = start()
    optimizer = samt.AutoSAMT(model)  # the first one goes when this is there
    assert_holds(weights(model), x)
    train(model, optimizer, range(3))
    trained = weights(model)
    model.eval()(INPUTS)
    model.train()(INPUTS)
    assert_same(weights(model), trained)


def test_a_model_does_not_keep_its_optimizer_alive() -> None:
    model, optimizer, _ = start()
    held = weakref.ref(next(iter(optimizer.state.values()))["exp_avg_sq"])
    del optimizer
    gc.collect()
    assert held() is None
    assert model is not None


# Compiled, transformed and wrapped models.


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # within torch.func
def test_the_mode_may_change_within_a_transform() -> None:
    model, optimizer, x = start()
    y = weights(model)
    inputs = INPUTS[0]
    expected = torch.func.functional_call(mlp(), x, inputs)

    def total(z: Tensor) -> Any:
        return model(z).sum()

    transforms: list[Callable[[], Any]] = [
        lambda: torch.func.grad(total)(inputs),
        lambda: torch.vmap(model)(INPUTS),
        lambda: torch.func.hessian(total)(inputs),
        lambda: torch.func.jvp(model, (inputs,), (inputs,)),
    ]
    for _ in range(2):
        for transform in transforms:
            model.eval()
            transform()
            assert_holds(weights(model), x)
            torch.testing.assert_close(model(inputs), expected)
            model.train()
            transform()
            assert_same(weights(model), y)
    assert optimizer.passes == (12, 12)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", ["the model", "the compiled model"])
def test_a_compiled_model_is_evaluated_at_x(given: str) -> None:
    torch.manual_seed(5)
    model = mlp()
    compiled: Any = torch.compile(model)
    optimizer = samt.AutoSAMT(model if given == "the model" else compiled)
    train(model, optimizer, range(12), compiled)
    _, _, x = start()
    y = weights(model)
    for _ in range(2):
        model.eval()
        with torch.no_grad():
            outputs = compiled(INPUTS)
        assert_holds(weights(model), x)
        torch.testing.assert_close(outputs, torch.func.functional_call(mlp(), x, INPUTS))
        model.train()
        compiled(INPUTS)
        assert_same(weights(model), y)


@pytest.fixture
def default_guards() -> Iterator[None]:
    """Compile as in a new process, in which no AutoSAMT has been made."""
    torch.compiler.reset()
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True):
        yield


@pytest.mark.usefixtures("default_guards")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("when", ["before the optimizer", "in training"])
@pytest.mark.parametrize("which", ["the model", "a model of the same shapes"])
def test_a_graph_without_hooks_is_not_taken_for_a_model_with_hooks(when: str, which: str) -> None:
    torch.manual_seed(5)
    model = mlp()
    plain = model if which == "the model" else copy.deepcopy(model)
    compiled: Any = torch.compile(model, backend="eager")
    other: Any = compiled if which == "the model" else torch.compile(plain, backend="eager")
    if when == "before the optimizer":
        other(INPUTS)
    optimizer = samt.AutoSAMT(model)
    train(model, optimizer, range(12), compiled)
    if when == "in training":
        other(INPUTS)
    _, _, x = start()
    y = weights(model)
    model.eval()
    compiled(INPUTS)
    assert_holds(weights(model), x)
    model.train()
    compiled(INPUTS)
    assert_same(weights(model), y)


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_traced_in_one_graph() -> None:
    model, _, _ = start()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(INPUTS), model(INPUTS))

    def twice(x: Tensor) -> Any:
        return model(x) * 2

    whole: Any = torch.compile(twice, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(INPUTS), twice(INPUTS))
