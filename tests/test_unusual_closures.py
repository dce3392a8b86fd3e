"""Closures of the published method that are not one tensor of samples and a plain network.

They give the right numbers, or a named error, and never samples that are mixed in silence.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import samt
from samt.errors import ClosureResultError, MetaBatchUnavailableError, UnsupportedGradientError

from .support.unusual_closures import LOSS, Normed, data, network, seeded

_seeded = pytest.fixture(autouse=True)(seeded)


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
