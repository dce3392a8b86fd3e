"""Closures of the published method that are not one tensor of samples and a plain network.

They give the right numbers, or a named error, and never samples that are mixed in silence.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import samt
from samt.errors import (
    ClosureResultError,
    MetaBatchUnavailableError,
    UnsupportedGradientError,
)
from samt.reference import SAMTReference

LOSS = nn.functional.cross_entropy
MEAN_SQUARE = nn.functional.mse_loss


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert torch.backends.mha.get_fastpath_enabled()


def data(size: int = 32, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, width, generator=generator)
    return inputs, torch.randint(0, 3, (size,), generator=generator)


# Batches whose samples do not lie along dimension 0.


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.out = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, sequences: Any) -> Tensor:
        return self.out(self.recurrent(sequences)[1][0][-1])


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        hidden = self.layer(nodes)
        return self.out(torch.zeros_like(hidden).index_add(0, target, hidden[source]))


class Ragged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, sequences: Any) -> Tensor:
        return self.out(torch.stack([self.layer(one).mean(0) for one in sequences]))


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.out = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        return self.out(self.recurrent(x, state)[1][0][-1])


class Holder:
    """Samples in an object of somebody's own."""

    def __init__(self, nodes: Tensor) -> None:
        self.nodes = nodes


class OfHolder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, holder: Holder) -> Tensor:
        return self.out(self.layer(holder.nodes))


def _odd_batches() -> dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]]:
    labels = torch.arange(4) % 3
    ragged = [torch.randn(n, 6) for n in (9, 7, 4, 2)]
    equal = [torch.randn(4, 6) for _ in range(4)]
    start = torch.zeros(1, 4, 8)
    edges = torch.randint(0, 4, (2, 9))
    nested = torch.nested.nested_tensor(ragged, layout=torch.jagged)
    return {
        "packed": (Packed, (pack_sequence(ragged), labels)),
        "packed, equal lengths": (Packed, (pack_sequence(equal), labels)),
        "graph": (Graph, (torch.randn(4, 6), edges, labels)),
        "list of sequences": (Ragged, (ragged, labels)),
        "list of sequences as long as it": (Ragged, (equal, labels)),
        "tuple of sequences": (Ragged, (tuple(ragged), labels)),
        "hidden state": (Stateful, (torch.randn(4, 5, 6), (start, start), labels)),
        "nested tensor": (lambda: nn.Sequential(nn.Linear(6, 3)), (nested, labels)),
        "object": (OfHolder, (Holder(torch.randn(4, 6)), labels)),
        "labels in a list": (lambda: nn.Linear(6, 3), (torch.randn(4, 6), [0, 1, 2, 0])),
        "only numbers": (lambda: nn.Linear(6, 3), (3, 4)),
    }


@pytest.mark.parametrize("name", _odd_batches())
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_batches_that_cannot_be_halved_are_refused_by_name(name: str) -> None:
    make, batch = _odd_batches()[name]
    model = make()
    closure = samt.closure(model, LOSS, *batch)
    optimizer = samt.SAMT(samt.blocks(model))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MetaBatchUnavailableError, match="'same' or 'next'") as caught:
        optimizer.step(closure)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("meta_batch", ["same", "next"])
@pytest.mark.parametrize("name", ["packed", "graph", "list of sequences", "hidden state", "object"])
def test_the_same_batches_train_with_the_cure(name: str, meta_batch: str) -> None:
    make, batch = _odd_batches()[name]
    model = make()
    closure = samt.closure(model, LOSS, *batch)
    optimizer = samt.SAMT(samt.blocks(model), meta_batch=meta_batch)
    losses = [float(optimizer.step(closure) or 0) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "batch",
    [
        (torch.arange(8.0), torch.arange(8.0)),
        ((torch.arange(8.0), torch.arange(16.0).view(8, 2)), torch.arange(8.0)),
        ([torch.arange(8.0), torch.arange(8.0)], torch.arange(8.0)),
        ({"a": torch.arange(8.0), "scale": torch.tensor(3.0), "flag": True}, torch.arange(8.0)),
        (torch.arange(8.0), 0.5, None, "mean", torch.float32, torch.arange(8.0)),
        (torch.arange(1.0), torch.arange(1.0)),
    ],
    ids=["tensors", "tuple", "list of inputs", "dict", "numbers", "one sample"],
)
def test_every_second_sample_of_ordinary_batches(batch: tuple[Any, ...]) -> None:
    half = samt.closure(nn.Linear(1, 1), LOSS, *batch).every_second().batch
    found = torch.utils._pytree.tree_leaves(half)
    given = torch.utils._pytree.tree_leaves(batch)
    for own, whole in zip(found, given, strict=True):
        if isinstance(whole, Tensor) and whole.dim():
            assert torch.equal(own, whole[::2])
        else:
            assert own is whole


# Halves that are too small.


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.dropout(torch.tanh(self.first(x)))))


@pytest.mark.parametrize("replay", [True, False])
def test_the_whole_batch_is_the_meta_batch_where_half_is_too_small(replay: bool) -> None:
    inputs, targets = data(2)
    model = Normed()
    twin = copy.deepcopy(model)
    optimizer = samt.SAMT(samt.blocks(model), replay=replay)
    other = samt.SAMT(samt.blocks(twin), meta_batch="fresh", replay=replay)
    for step in range(4):
        torch.manual_seed(step)
        optimizer.step(samt.closure(model, LOSS, inputs, targets))
        torch.manual_seed(step)

        def whole() -> Tensor:
            return LOSS(twin(inputs), targets)

        other.step(samt.closure(twin, LOSS, inputs, targets), whole)
    for own, their in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(own, their)
    assert int(model.norm.num_batches_tracked or 0) == 4
    assert optimizer.passes == other.passes


def test_a_batch_that_is_too_small_itself_has_the_error_of_torch() -> None:
    model = Normed()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        samt.SAMT(samt.blocks(model)).step(samt.closure(model, LOSS, *data(1)))


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


# Code that asks for requires_grad.


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.out(self.encoder(x, src_key_padding_mask=padding)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_the_fast_path_of_attention_changes_nothing() -> None:
    padding = torch.zeros(4, 6, dtype=torch.bool)
    padding[:, 4:] = True
    batch = torch.randn(4, 6, 8), padding, torch.arange(4) % 3
    model = Encoder()
    twin = copy.deepcopy(model)
    model.eval()
    twin.train()
    for net in (model, twin):
        optimizer = samt.SAMT(samt.blocks(net))
        for _ in range(3):
            optimizer.step(samt.closure(net, LOSS, *batch))
    for own, their in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, their)


class Curious(nn.Module):
    """Another network for weights that are not trained, as somebody might write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.tanh(x) if x.requires_grad else -x
        x = self.second(x) if self.second.weight.requires_grad else 2 * self.second(x)
        return self.last(x)


class Asked(nn.Module):
    """The same network, for weights that are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(torch.tanh(self.first(x))))


def plain_loss(model: nn.Module) -> Tensor:
    return LOSS(model(data()[0]), data()[1])


@pytest.mark.parametrize("options", [{}, {"replay": False}, {"order": "reverse"}])
@pytest.mark.parametrize("plain", [False, True])
def test_code_that_asks_for_requires_grad_sees_what_it_sees_elsewhere(
    options: dict[str, Any], plain: bool
) -> None:
    inputs, targets = data()
    models: list[nn.Module] = [Curious(), Asked()]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        optimizer = samt.SAMT(samt.blocks(model), **{**options, "meta_batch": "same"})
        for _ in range(3):
            if plain:
                optimizer.step(partial(plain_loss, model))
            else:
                optimizer.step(samt.closure(model, LOSS, inputs, targets))
    for own, their in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(own, their)


def test_reentrant_checkpoints_train_every_block() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x = torch.utils.checkpoint.checkpoint(self.second, x, use_reentrant=True)
            return self.last(x)

    model = Checkpointed()
    before = copy.deepcopy(model.state_dict())
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = LOSS(model(data()[0]), data()[1])
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        optimizer.step(closure)
    assert all(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


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


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


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


# Hooks, and what closures return.


def test_hooks_that_wait_for_grad_are_refused_by_name() -> None:
    model = network()
    seen: list[int] = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: seen.append(1))
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UnsupportedGradientError, match="post_accumulate_grad_hook"):
        optimizer.step(samt.closure(model, LOSS, *data()))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = LOSS(model(data()[0]), data()[1])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen


def test_hooks_of_tensors_run() -> None:
    model = network()
    twin = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient / 2)
    optimizer = samt.SAMT(samt.blocks(model), parts="fixed", lr=0.2)
    other = samt.SAMT(samt.blocks(twin), parts="fixed", lr=0.1)
    for _ in range(2):
        optimizer.step(samt.closure(model, LOSS, *data()))
        other.step(samt.closure(twin, LOSS, *data()))
    for own, their in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, their)


RESULTS: dict[str, Callable[[Tensor], Any]] = {
    "vector": lambda losses: losses,
    "tuple": lambda losses: (losses.mean(), {"accuracy": 1}),
    "list": lambda losses: [losses.mean()],
    "dict": lambda losses: {"loss": losses.mean()},
}


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("make", [samt.SAMT, samt.baselines.Dante])
def test_what_is_not_one_loss_is_refused_by_name(make: Any, name: str, backward: bool) -> None:
    model, (inputs, targets) = network(), data()
    options = {} if make is samt.baselines.Dante else {"meta_batch": "same"}
    optimizer = make(samt.blocks(model), **options)
    before = copy.deepcopy(model.state_dict())

    def closure() -> Any:
        losses = LOSS(model(inputs), targets, reduction="none")
        if backward:
            optimizer.zero_grad()
            losses.mean().backward()
        return RESULTS[name](losses)

    with pytest.raises(ClosureResultError, match="return"):
        optimizer.step(closure)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_one_number_may_have_dimensions() -> None:
    model = network()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    loss = optimizer.step(lambda: LOSS(model(data()[0]), data()[1]).view(1))
    assert isinstance(loss, Tensor)
    assert loss.shape == (1,)


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
