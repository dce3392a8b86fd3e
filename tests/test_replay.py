"""Replay saves the work that it promises, notices what it cannot replay, and leaves no trace."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import samt

from .support.comparisons import assert_same
from .support.replay import LOSS, assert_replay_changes_nothing, data
from .support.replayed_models import Net, lin, made, three
from .support.snapshots import everything

Counts = Counter[tuple[str, int]]
DEPTHS = [3, 5]


class CountedLinear(torch.autograd.Function):
    """x Wᵀ, with a note of each forward, each input gradient and each weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, note: Callable[[str], None]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.note = note
        note("forward")
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        below = above = None
        if ctx.needs_input_grad[0]:
            ctx.note("input")
            below = grads[0] @ weight
        if ctx.needs_input_grad[1]:
            ctx.note("weight")
            above = grads[0].t() @ x
        return below, above, None


class Layer(nn.Linear):
    """Counts what is computed, in a place that is no attribute: those a step puts back."""

    def __init__(self, inputs: int, outputs: int, index: int, counts: Counts) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.note = lambda kind: counts.update([(kind, index)])

    def forward(self, x: Tensor) -> Tensor:
        apply: Callable[..., Tensor] = CountedLinear.apply
        return apply(x, self.weight, self.note)


def counted_chain(depth: int, counts: Counts) -> nn.Module:
    sizes = [4, *[6] * (depth - 1), 3]
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [Layer(sizes[index], sizes[index + 1], index, counts), nn.Tanh()]
    return nn.Sequential(nn.Sequential(*layers[:2]), *layers[2:-1]).double()


def work(depth: int, steps: int = 2, **options: Any) -> tuple[list[int], list[int], list[int]]:
    """For each layer: forward passes, weight gradients, input gradients of the last step."""
    counts: Counts = Counter()
    model = counted_chain(depth, counts)
    optimizer = samt.SAMT(samt.blocks(model), **options)
    for step in range(steps):
        counts.clear()
        other = samt.closure(model, LOSS, *data(50)) if options["meta_batch"] == "fresh" else None
        optimizer.step(samt.closure(model, LOSS, *data(step)), other)
    kinds = ("forward", "weight", "input")
    forward, weight, below = ([counts[kind, index] for index in range(depth)] for kind in kinds)
    return forward, weight, below


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_next_runs_each_pass_from_the_block_that_changed_last(depth: int, order: str) -> None:
    forward, weight, below = work(depth, meta_batch="next", order=order)
    assert forward == [1 + min(j + 1, depth - 1) for j in range(depth)]
    assert weight == [1] * depth
    assert below == list(range(depth))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("meta_batch", ["subset", "fresh"])
def test_a_lookahead_pass_starts_at_its_own_block(depth: int, meta_batch: str) -> None:
    forward, weight, below = work(depth, meta_batch=meta_batch)
    ahead = [j + 1 for j in range(depth)]
    assert forward == [1 + min(j + 1, depth - 1) + ahead[j] for j in range(depth)]
    assert weight == [2] * depth
    assert below == [2 * j for j in range(depth)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_same_takes_one_pass_more_than_there_are_blocks(depth: int) -> None:
    forward, weight, below = work(depth, meta_batch="same")
    assert forward == [j + 2 for j in range(depth)]
    assert weight == [2] * depth
    assert below == [0, *(j + 1 for j in range(1, depth))]
    model = counted_chain(depth, Counter())
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    optimizer.step(samt.closure(model, LOSS, *data(0)))
    assert optimizer.passes == (depth + 1, depth + 1)


@pytest.mark.parametrize("depth", DEPTHS)
def test_inner_steps_run_from_their_block_on(depth: int) -> None:
    forward, weight, _ = work(depth, meta_batch="next", inner_steps=2)
    # after the first pass: for each block one pass from it on, and one from the one before
    assert forward == [1 + (j + 1) + min(j + 1, depth - 1) for j in range(depth)]
    assert weight == [2] * depth


@pytest.mark.parametrize("meta_batch", ["same", "subset", "fresh", "next"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_without_replay_every_pass_runs_every_layer(depth: int, meta_batch: str) -> None:
    forward, weight, _ = work(depth, meta_batch=meta_batch, replay=False)
    passes = {"same": depth + 1, "next": depth}.get(meta_batch, 2 * depth)
    assert forward == [passes] * depth
    assert sum(weight) == (depth if meta_batch == "next" else 2 * depth)


def test_a_frozen_layer_ahead_of_all_blocks_runs_once_for_each_batch() -> None:
    counts: Counts = Counter()
    model = counted_chain(4, counts)
    frozen = next(model.parameters()).requires_grad_(False)
    optimizer = samt.SAMT(samt.blocks(model)[1:], meta_batch="subset")
    optimizer.step(samt.closure(model, LOSS, *data(0)))
    assert counts["forward", 0] == 2
    assert counts["weight", 0] == counts["input", 0] == 0
    assert frozen.grad is None


class Alternating(nn.Module):
    """Calls two branches, whose sum does not care, in an order that changes now and then.

    The calls are counted in a place that a step cannot put back.
    """

    def __init__(self, period: int = 1) -> None:
        super().__init__()
        self.period = period
        self.one, self.two = nn.Sequential(lin(4), nn.Tanh()), nn.Sequential(lin(4), nn.Tanh())
        self.last = nn.Sequential(lin(), nn.Tanh(), lin(6, 3))
        self.calls = itertools.count(1)

    def forward(self, x: Tensor) -> Tensor:
        if next(self.calls) // self.period % 2:
            one, two = self.one(x), self.two(x)
        else:
            two, one = self.two(x), self.one(x)
        return self.last(one + two)


class Elastic(nn.Module):
    """Calls the identity more or less often, each length in its turn."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__()
        self.first, self.same, self.last = lin(4), nn.Identity(), lin(6, 3)
        self.middle = nn.Sequential(lin(), nn.Tanh(), lin(), nn.Tanh())
        self.lengths = itertools.cycle(lengths)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for _ in range(next(self.lengths)):
            x = self.same(x)
        return self.last(self.middle(x))


UNSTEADY: dict[str, Callable[[], nn.Module]] = {
    "Alternating": lambda: Alternating(1),
    "Alternating slowly": lambda: Alternating(2),
    "Elastic": lambda: Elastic([3, 1, 2]),
}


@pytest.mark.parametrize(
    ("name", "meta_batch"),
    [
        ("Alternating", "same"),
        ("Alternating slowly", "subset"),  # its two batches are evaluated in turn
        ("Alternating", "next"),
        ("Elastic", "same"),
        ("Elastic", "subset"),
        ("Elastic", "next"),
    ],
)
def test_another_order_of_calls_gives_one_warning_and_the_right_numbers(
    name: str, meta_batch: str
) -> None:
    options: dict[str, Any] = {"meta_batch": meta_batch, "steps": 4}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_replay_changes_nothing(UNSTEADY[name], **options)
    assert [w.category for w in caught] == [RuntimeWarning]
    assert name.split(maxsplit=1)[0] in str(caught[0].message)


@pytest.mark.parametrize("lengths", [[1, 2, 3, 4, 5, 6], [2, 2, 2, 0, 0, 0], [0, 5]])
def test_longer_and_shorter_sequences_give_the_right_numbers(lengths: list[int]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_replay_changes_nothing(lambda: Elastic(lengths), meta_batch="next", steps=4)
    assert len(caught) <= 1


def swallowing(net: Any, x: Tensor) -> Tensor:
    try:
        return net.inner(x)
    except Exception:  # a model that must not see what samt raises for itself
        return net.rescue(x)


@pytest.mark.filterwarnings("ignore:Net calls its modules in an order")
@pytest.mark.parametrize("meta_batch", ["same", "subset", "next"])
def test_a_model_that_swallows_exceptions_swallows_none_of_ours(meta_batch: str) -> None:
    def make() -> nn.Module:
        return Net(swallowing, inner=Alternating(), rescue=lin(4, 3))

    assert_replay_changes_nothing(make, meta_batch=meta_batch)


def written(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    x[:, :2] = 0.5
    y = net.b(net.act(x))
    y.view(-1)[::3].mul_(2.0)
    return net.c(net.act(y))


@pytest.mark.parametrize("meta_batch", ["same", "subset", "next"])
def test_a_write_into_a_replayed_output_gives_the_right_numbers_without_a_warning(
    meta_batch: str,
) -> None:
    assert_replay_changes_nothing(lambda: three(written), meta_batch=meta_batch)


class Opaque(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner

    def forward(self, x: Tensor) -> Tensor:
        return self._orig_mod(x)


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("meta_batch", ["subset", "next"])
@pytest.mark.parametrize(
    "wrap", [torch.jit.script, nn.DataParallel, Opaque, compiled_in_place], ids=lambda w: w.__name__
)
def test_a_module_that_hides_its_calls_switches_replay_off(wrap: Any, meta_batch: str) -> None:
    counts: Counts = Counter()
    model = nn.Sequential(
        Layer(4, 6, 0, counts), wrap(nn.Sequential(nn.Tanh(), lin())), lin(6, 3)
    ).double()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch=meta_batch)
    optimizer.step(samt.closure(model, LOSS, *data(0)))
    assert counts["forward", 0] == optimizer.passes.forward


def watched() -> tuple[Any, dict[str, Any]]:
    """A model with one forward on an instance, and each module's own attributes."""
    model: Any = nn.Sequential(lin(4), nn.Sequential(nn.Tanh(), lin()), nn.Dropout(0.2), lin(6, 3))
    model[0].forward = lambda x: functional.linear(x, model[0].weight) * 0.5
    return model.double(), {n: m.__dict__.get("forward") for n, m in model.named_modules()}


def assert_untouched(model: nn.Module, forwards: dict[str, Any]) -> None:
    for name, module in model.named_modules():
        assert module.__dict__.get("forward") is forwards[name]
        assert ("forward" in module.__dict__) == (forwards[name] is not None)


MODES: list[dict[str, Any]] = [
    {"meta_batch": "same"},
    {"meta_batch": "subset", "order": "reverse"},
    {"meta_batch": "next", "inner_steps": 2},
]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["inside", "behind"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_an_exception_at_any_evaluation_leaves_modules_and_numbers_as_they_were(
    mode: dict[str, Any], where: str, error: type[BaseException]
) -> None:
    model, forwards = watched()
    reference = copy.deepcopy(model)
    reference[0].forward = lambda x: functional.linear(x, reference[0].weight) * 0.5
    optimizer = samt.SAMT(samt.blocks(model), **mode)
    twin = samt.SAMT(samt.blocks(reference), replay=False, **mode)
    bad, calls = 0, 0

    def fail(module: nn.Module, args: Any, output: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == bad:
            raise error

    (model[3] if where == "inside" else model).register_forward_hook(fail)
    for bad in range(1, 20):
        calls, before = 0, everything(model, optimizer)
        try:
            optimizer.step(samt.closure(model, LOSS, *data(bad)))
        except error:
            assert_same(everything(model, optimizer), before)
            assert_untouched(model, forwards)
        else:
            break
    assert calls == bad - 1 == optimizer.passes.forward
    torch.set_rng_state(before["rng"])
    twin.step(samt.closure(reference, LOSS, *data(bad)))
    assert_same(dict(reference.state_dict()), dict(model.state_dict()))


def test_the_model_can_be_copied_and_saved_after_a_step() -> None:
    model = made(lambda: nn.Sequential(lin(4), nn.Sequential(nn.Tanh(), lin()), lin(6, 3)))
    optimizer = samt.SAMT(samt.blocks(model))
    optimizer.step(samt.closure(model, LOSS, *data(0)))
    assert not any("forward" in module.__dict__ for module in model.modules())
    inputs = data(3)[0]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(copied(inputs), model(inputs))
        assert_same(dict(copied.state_dict()), dict(model.state_dict()))
    copy.deepcopy(optimizer), pickle.dumps(optimizer)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_no_output_is_kept_alive_after_the_step(mode: dict[str, Any], fails: bool) -> None:
    model = made(lambda: nn.Sequential(lin(4), nn.Sequential(nn.Tanh(), lin()), lin(6, 3)))
    storages: list[weakref.ref[Any]] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> None:
        storages.append(weakref.ref(output.untyped_storage()))
        storages.append(weakref.ref(output))
        if fails and len(storages) > 16:
            raise ValueError("enough")

    for module in model.modules():
        module.register_forward_hook(note)
    optimizer = samt.SAMT(samt.blocks(model), **mode)
    live = sum(type(o) is Tensor for o in gc.get_objects())
    if fails:
        with pytest.raises(ValueError, match="enough"):
            optimizer.step(samt.closure(model, LOSS, *data(0)))
    else:
        optimizer.step(samt.closure(model, LOSS, *data(0)))
    gc.collect()
    assert storages
    assert not [ref for ref in storages if ref() is not None]
    assert sum(type(o) is Tensor for o in gc.get_objects()) <= live + 10  # η of the last update


def most_memory(**options: Any) -> int:
    """Bytes of activations that are alive at the end of a forward pass, at most."""
    torch.manual_seed(0)
    width = 512
    layers = [m for _ in range(6) for m in (lin(8, 8), nn.BatchNorm1d(8), nn.Tanh())]
    model = nn.Sequential(nn.Sequential(*layers), lin(8, 3))
    most = 0
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal most
        alive = dict(saved)
        for tensor in (o for o in gc.get_objects() if type(o) is Tensor):
            alive[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        most = max(most, sum(size for size in alive.values() if size >= width * 8 * 4 / 2))
        saved.clear()
        return LOSS(outputs, targets)

    optimizer = samt.SAMT(samt.blocks(model), **options)
    inputs = torch.randn(width, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        optimizer.step(samt.closure(model, loss_fn, inputs, inputs[:, 0].gt(0).long()))
    return most


@pytest.mark.parametrize("meta_batch", ["same", "subset", "next"])
def test_activation_memory_at_most_about_doubles(meta_batch: str) -> None:
    assert most_memory(meta_batch=meta_batch) < 2.2 * most_memory(
        meta_batch=meta_batch, replay=False
    )
