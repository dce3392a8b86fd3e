"""State that a loss reaches in a roundabout way moves once per step, and graphs do not miss it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.errors import MetaBatchUnavailableError, UnsupportedGradientError

LOSS = nn.functional.cross_entropy
Loss = Callable[[Tensor, Tensor], Tensor]


def data(size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 6, generator=generator), torch.arange(size) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def of(critic: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    return LOSS(critic(outputs), targets)


class Object:
    """Something of somebody's own that holds things."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return of(self.held[0], outputs, targets)

    def method(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return of(self.held, outputs, targets)

    def deeper(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return of(self.held.held, outputs, targets)


def nested(critic: nn.Module) -> Loss:
    def first(outputs: Tensor, targets: Tensor) -> Tensor:
        def second() -> Tensor:
            return of(critic, outputs, targets)

        return second()

    return first


def decorated(critic: nn.Module) -> Loss:
    def own(*args: Any) -> Tensor:
        return of(critic, *args)

    loss: Loss = functools.wraps(LOSS)(own)
    return loss


def without_a_module(critic: nn.Module) -> Loss:
    """As `exec` makes functions: their `__module__` is None."""
    names: dict[str, Any] = {"critic": critic, "of": of}
    exec("def loss(outputs, targets): return of(critic, outputs, targets)", names)
    loss: Loss = names["loss"]
    return loss


def in_a_dict(critic: nn.Module) -> Loss:
    held = {"critic": critic}
    return lambda outputs, targets: of(held["critic"], outputs, targets)


def in_a_default(critic: nn.Module) -> Loss:
    def loss(outputs: Tensor, targets: Tensor, critics: Any = (critic,)) -> Tensor:
        return of(critics[0], outputs, targets)

    return loss


def of_several(outputs: Tensor, targets: Tensor, critics: list[nn.Module]) -> Tensor:
    return of(critics[0], outputs, targets)


REACHED: dict[str, Callable[[Any], Loss]] = {
    "dict in a closure": in_a_dict,
    "default": in_a_default,
    "partial": lambda critic: partial(of, critic),
    "partial with a list": lambda critic: partial(of_several, critics=[critic]),
    "object with a list": lambda critic: Object([critic]),
    "method": lambda critic: Object(critic).method,
    "method, object in an object": lambda critic: Object(Object(critic)).deeper,
    "nested functions": nested,
    "decorated": decorated,
    "without a module": without_a_module,
}


@pytest.mark.parametrize("name", REACHED)
def test_a_network_of_the_loss_moves_once_per_step(name: str) -> None:
    critic = nn.BatchNorm1d(3).requires_grad_(False)
    model, loss_fn = network(), REACHED[name](critic)
    optimizer = samt.SAMT(samt.blocks(model))
    for _ in range(3):
        optimizer.step(samt.closure(model, loss_fn, *data()))
    assert int(critic.num_batches_tracked or 0) == 3


def loss_of_a_dict(model: nn.Module) -> Callable[[], Tensor]:
    held = {"net": model}
    return lambda: LOSS(held["net"](data()[0]), data()[1])


def loss_of_an_object(model: nn.Module) -> Callable[[], Tensor]:
    held = Object(Object(model))
    return lambda: LOSS(held.held.held(data()[0]), data()[1])


HOLDERS = {"dict": loss_of_a_dict, "object": loss_of_an_object}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_model_that_a_plain_closure_finds_somewhere_moves_once_per_step(name: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    for _ in range(3):
        optimizer.step(HOLDERS[name](model))
    assert int(model[1].num_batches_tracked) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("replay", [True, False])
def test_a_generator_of_the_models_own_draws_the_same_in_every_evaluation(replay: bool) -> None:
    class Noisy(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
            self.generator = torch.Generator().manual_seed(3) if own else None

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x + torch.randn(x.shape, generator=self.generator))

    results = []
    for own in (True, False):
        torch.manual_seed(0)
        model = Noisy(own)
        optimizer = samt.SAMT(samt.blocks(model), meta_batch="same", replay=replay)
        torch.manual_seed(3)
        for _ in range(3):
            optimizer.step(samt.closure(model, LOSS, *data()))
        results.append(list(model.parameters()))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


# Graphs.


class Tempered(nn.Module):
    """A network with numbers that somebody may set between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.temperature = 1.0
        self.shift = torch.zeros(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)) + self.shift) / self.temperature


class Weighted(nn.Module):
    """A loss with a number, a mode, and a buffer."""

    mean: Tensor

    def __init__(self, assigns: bool) -> None:
        super().__init__()
        self.weight = 1.0
        self.norm = nn.BatchNorm1d(3).requires_grad_(False)
        self.assigns = assigns
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        outputs = self.norm(outputs)
        mean = 0.9 * self.mean + 0.1 * outputs.detach().mean(0)
        if self.assigns:
            self.mean = mean
        else:
            self.mean.copy_(mean)
        return self.weight * LOSS(outputs - self.mean, targets)


def edit(step: int, model: Any, loss: Any) -> None:
    if step == 4:
        model.temperature = 5.0
    if step == 5:
        loss.weight = 5.0
    if step == 6:
        loss.eval()
    if step == 7:
        model.shift = torch.ones(5)
    if step == 8:
        model.shift.mul_(2)


@pytest.mark.filterwarnings("ignore")  # torch warns of something else while it compiles
@pytest.mark.parametrize("assigns", [False, True])
def test_a_graph_sees_what_is_set_between_two_steps(assigns: bool) -> None:
    results = []
    for compiled in (True, False):
        torch.manual_seed(0)
        model, loss = Tempered(), Weighted(assigns)
        optimizer = samt.SAMT(samt.blocks(model), compile=compiled)
        losses = []
        for step in range(11):
            edit(step, model, loss)
            losses.append(float(optimizer.step(samt.closure(model, loss, *data())) or 0))
        results.append((losses, [*model.parameters(), *loss.buffers()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


# What half of a batch cannot do.


def test_an_error_that_only_half_of_the_batch_has_names_the_cure() -> None:
    class Attending(nn.Module):
        """A mask between the samples, which lies along dimension 0 by chance."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.last(mask @ self.first(x))

    model = Attending()
    inputs, targets = data(8)
    closure = samt.closure(model, LOSS, inputs, torch.eye(8), targets)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MetaBatchUnavailableError, match="its loss raised RuntimeError") as caught:
        samt.SAMT(samt.blocks(model)).step(closure)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    samt.SAMT(samt.blocks(model), meta_batch="same").step(closure)


def test_reentrant_checkpoints_are_refused_by_name_where_they_compute_nothing() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
            self.reentrant = reentrant

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return torch.utils.checkpoint.checkpoint(self.last, x, use_reentrant=self.reentrant)

    model = Checkpointed(True)
    with pytest.raises(UnsupportedGradientError, match="with use_reentrant=False"):
        samt.SAMT(samt.blocks(model)).step(samt.closure(model, LOSS, *data()))
    model = Checkpointed(False)
    samt.SAMT(samt.blocks(model)).step(samt.closure(model, LOSS, *data()))


# A step that cannot begin.


@pytest.mark.parametrize("kind", ["sparse buffer", "lazy norm"])
def test_odd_buffers_do_no_harm(kind: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
            if kind == "sparse buffer":
                self.register_buffer("links", torch.eye(3).to_sparse())
            else:
                self.norm = nn.LazyBatchNorm1d(affine=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.first(x))
            return x if kind == "sparse buffer" else self.norm(x)

    model = Odd()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    before = model.first.weight.detach().clone()
    for _ in range(2):
        optimizer.step(samt.closure(model, LOSS, *data()))
    assert not torch.equal(model.first.weight, before)
    assert not any("forward" in vars(module) for module in model.modules())
