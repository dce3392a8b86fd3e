"""Models and losses that change something when they are called: it changes once per step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization as tq
from torch import Tensor, nn

import samt
from samt.reference import SAMTReference

from .support.unusual_closures import LOSS, Normed, data, network, seeded

_seeded = pytest.fixture(autouse=True)(seeded)


# Buffers that change their shape.


class Observed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.last(torch.relu(self.first(self.quant(x)))))


def observed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = Observed().train()
        model.qconfig = tq.get_default_qat_qconfig("fbgemm")
        return tq.prepare_qat(model)


class Bank(nn.Module):
    """A memory bank that grows, by `resize_` or by a new tensor."""

    bank: Tensor

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 3)
        self.register_buffer("bank", torch.zeros(0, 6))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        count = len(self.bank)
        if self.in_place:
            self.bank.resize_(count + len(x), 6)
            self.bank[count:] = x.detach()
        else:
            self.bank = torch.cat([self.bank, x.detach()])
        return self.last(self.first(x) + self.bank[:, :4].mean())


@pytest.mark.filterwarnings("ignore")  # quantisation is deprecated, says torch at every turn
@pytest.mark.parametrize("meta_batch", ["subset", "same"])
@pytest.mark.parametrize(
    "make", [observed, lambda: Bank(True), lambda: Bank(False)], ids=["qat", "bank", "new bank"]
)
def test_buffers_that_change_their_shape_move_once_per_step(
    make: Callable[[], nn.Module], meta_batch: str
) -> None:
    model = make()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch=meta_batch)
    inputs, targets = data()
    for _ in range(3):
        once = copy.deepcopy(model)
        once(inputs)
        optimizer.step(samt.closure(model, LOSS, inputs, targets))
        expected = dict(once.named_buffers())
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, expected[name], equal_nan=True)


# State of the loss, and other state.


class Centred(nn.Module):
    """A loss with a buffer, an attribute, and a network of its own."""

    updates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("updates", torch.zeros(()))
        self.calls = 0
        self.critic = nn.BatchNorm1d(3).requires_grad_(False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.updates += 1
        self.calls += 1
        return LOSS(self.critic(outputs), targets)


class Counting:
    """A loss that is an object with state."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return LOSS(outputs, targets) * (1 + 0.1 * self.calls)


@pytest.mark.parametrize("meta_batch", ["subset", "same", "fresh"])
def test_the_state_of_a_loss_moves_once_per_step(meta_batch: str) -> None:
    model, loss, counting = network(), Centred(), Counting()
    for chosen in (loss, counting):
        optimizer = samt.SAMT(samt.blocks(model), meta_batch=meta_batch)
        for _ in range(3):
            closure = samt.closure(model, chosen, *data())
            other = samt.closure(model, chosen, *data()) if meta_batch == "fresh" else None
            optimizer.step(closure, other)
    assert (int(loss.updates), loss.calls, counting.calls) == (3, 3, 3)
    assert int(loss.critic.num_batches_tracked or 0) == 3


CRITIC = nn.BatchNorm1d(3).requires_grad_(False)


def global_critic(outputs: Tensor, targets: Tensor) -> Tensor:
    return LOSS(CRITIC(outputs), targets)


def test_modules_that_a_loss_function_reaches_move_once_per_step() -> None:
    critic = nn.BatchNorm1d(3).requires_grad_(False)

    class Trainer:
        def __init__(self) -> None:
            self.critic = nn.BatchNorm1d(3).requires_grad_(False)

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return LOSS(self.critic(outputs), targets)

    trainer = Trainer()
    reached: list[tuple[nn.BatchNorm1d, Callable[..., Tensor]]] = [
        (critic, lambda outputs, targets: LOSS(critic(outputs), targets)),
        (CRITIC, global_critic),
        (trainer.critic, trainer.loss),
    ]
    for norm, loss_fn in reached:
        model = network()
        optimizer = samt.SAMT(samt.blocks(model))
        for _ in range(3):
            optimizer.step(samt.closure(model, loss_fn, *data()))
        assert int(norm.num_batches_tracked or 0) == 3


def test_the_model_of_a_plain_function_moves_once_per_step() -> None:
    model, (inputs, targets) = Normed(), data()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    for _ in range(3):
        optimizer.step(lambda: LOSS(model(inputs), targets))
    assert int(model.norm.num_batches_tracked or 0) == 3


class Remembering(nn.Module):
    """Truncated backpropagation through time: the hidden state is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.out = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)
        self.hidden: Any = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        found, hidden = self.recurrent(x, self.hidden)
        self.hidden = tuple(tensor.detach() for tensor in hidden)
        self.calls += 1
        return self.out(found[:, -1])


def test_attributes_that_a_model_sets_move_once_per_step() -> None:
    inputs, targets = torch.randn(8, 5, 6), torch.arange(8) % 3
    model = Remembering()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    for step in range(3):
        once = copy.deepcopy(model)
        expected = LOSS(once(inputs), targets)
        loss = optimizer.step(samt.closure(model, LOSS, inputs, targets))
        assert torch.equal(torch.as_tensor(loss), expected.detach())
        assert model.calls == step + 1
        for own, their in zip(model.hidden, once.hidden, strict=True):
            assert torch.equal(own, their)


@pytest.mark.parametrize("held", ["list", "dict", "tensor"])
def test_state_that_nobody_can_put_back_is_warned_about_once(held: str) -> None:
    class Collecting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(6, 4), nn.Linear(4, 3)
            self.seen: Any = {"list": [], "dict": {}, "tensor": torch.zeros(())}[held]

        def forward(self, x: Tensor) -> Tensor:
            if isinstance(self.seen, list):
                self.seen.append(len(x))
            elif isinstance(self.seen, dict):
                self.seen[len(self.seen)] = x.detach()
            else:
                self.seen += 1
            return self.out(self.layer(x))

    model = Collecting()
    optimizer = samt.SAMT(samt.blocks(model))
    with pytest.warns(RuntimeWarning, match="Collecting changes its attribute 'seen'") as caught:
        optimizer.step(samt.closure(model, LOSS, *data()))
    assert len(caught) == 1
    optimizer.step(samt.closure(model, LOSS, *data()))  # a second warning would be an error


def test_a_step_that_fails_puts_attributes_and_losses_back() -> None:
    model, loss, calls = Remembering(), Centred(), []

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(outputs, targets)

    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    closure = samt.closure(model, failing, torch.randn(8, 5, 6), torch.arange(8) % 3)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert (model.hidden, model.calls, int(loss.updates), loss.calls) == (None, 0, 0, 0)


def test_the_oracle_agrees_about_a_model_that_keeps_attributes() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 4).double(), nn.Linear(4, 3).double()
            self.last_mean: Any = None

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            self.last_mean = x.detach().mean()
            return self.last(x)

    model = Scaled()
    optimizer = samt.SAMT(samt.blocks(model), step_size="row")
    oracle = SAMTReference(model, LOSS, optimizer.param_groups)
    for _ in range(3):
        inputs, targets = data()[0].double(), data()[1]
        expected = oracle.step((inputs, targets))
        loss = optimizer.step(samt.closure(model, LOSS, inputs, targets))
        torch.testing.assert_close(loss, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), oracle.weights[name])
