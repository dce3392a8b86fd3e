"""Precisions, memory layouts, odd shapes, and what is refused; memory stays flat."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt import errors
from samt.closures import Closure
from samt.partition import Partition

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import MODELS, Convolutional
from .support.saving import Run, load, saved, through_a_file
from .support.snapshots import everything

LOSS = nn.functional.cross_entropy
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"step_size": "row", "meta_batch": "next"},
    {"step_size": "element", "head": "dense", "radius": 3.0},
    {"parts": "fixed", "weight_decay": 0.01},
    {"step_size": "column", "meta_batch": "same", "max_grad_norm": 1.0, "relative": True},
]


def start(kind: str = "mlp", dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(5)
    return MODELS[kind]().to(dtype)


def data(kind: str, step: int, dtype: torch.dtype, size: int = 8) -> tuple[Tensor, Tensor]:
    inputs, targets = batch(kind, step, size)
    return inputs.to(dtype), targets


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_every_precision_is_kept_and_learns(
    kind: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    model = start(kind, dtype)
    optimizer = samt.SAMT(samt.blocks(model), lr=0.3, **options)
    closure = samt.closure(model.eval(), LOSS, *data(kind, 0, dtype, 32))
    losses = [float(optimizer.step(closure)) for _ in range(25)]  # type: ignore[arg-type]
    assert losses[-1] < 0.9 * losses[0]
    assert {p.dtype for p in model.parameters()} == {dtype}
    tensors = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert tensors or options.get("parts") == "fixed"
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {tensor.dtype for tensor in tensors} <= {wanted}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_lower_precision_stays_close_to_float64(options: dict[str, Any]) -> None:
    weights = {}
    for dtype in DTYPES:
        model = start("mlp", dtype)
        model.load_state_dict(start("mlp", torch.bfloat16).state_dict())
        optimizer = samt.SAMT(samt.blocks(model), lr=0.1, **options)
        before = nn.utils.parameters_to_vector(model.parameters()).double()
        for step in range(3):
            inputs, targets = data("mlp", step, torch.bfloat16)
            optimizer.step(samt.closure(model, LOSS, inputs.to(dtype), targets))
        weights[dtype] = nn.utils.parameters_to_vector(model.parameters()).double() - before
    exact = weights[torch.float64]
    assert (weights[torch.float32] - exact).norm() < 1e-4 * exact.norm()
    assert (weights[torch.bfloat16] - exact).norm() < 0.15 * exact.norm()


@pytest.mark.parametrize("partition", [None, 1])
def test_float32_state_under_a_bfloat16_model_survives_exactly(
    partition: Partition, tmp_path: Path
) -> None:
    def half(seed: int) -> Run:
        torch.manual_seed(seed)
        model = MODELS["mlp"]().bfloat16()
        blocks = samt.blocks(model, partition)
        options: dict[str, Any] = {"step_size": "row", "meta_batch": "next", "radius": 1.0}
        return model, samt.SAMT(blocks, 0.2, meta_lr=0.5, seed=seed, **options)

    def train_half(run: Run, steps: Iterable[int]) -> None:
        for step in steps:
            inputs, targets = batch("mlp", step)
            run[1].step(samt.closure(run[0], LOSS, inputs.bfloat16(), targets))

    run, twin = half(1), half(2)
    train_half(run, range(3))
    checkpoint = through_a_file(saved(*run), tmp_path)
    load(twin, checkpoint)
    assert_same(saved(*twin), checkpoint)
    tensors = [t for s in twin[1].state.values() for t in s.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert any(not torch.equal(t, t.bfloat16().float()) for t in tensors), "the test can fail"
    train_half(run, range(3, 5))
    train_half(twin, range(3, 5))
    assert_same(saved(*twin), saved(*run))


def test_a_block_of_mixed_precisions_keeps_each_and_resumes() -> None:
    model = nn.ModuleList([nn.Linear(4, 4).double(), nn.Linear(4, 3)])

    def forward(x: Tensor) -> Tensor:
        return model[1](model[0](x).float())

    inputs, targets = batch("mlp", 0)
    optimizer = samt.SAMT(model.parameters(), lr=0.2, step_size="row", meta_batch="next")
    losses = []
    for _ in range(10):
        losses.append(float(optimizer.step(lambda: LOSS(forward(inputs), targets))))  # type: ignore[arg-type]
        optimizer.load_state_dict(optimizer.state_dict())
    assert losses[-1] < losses[0]
    assert [p.dtype for p in model.parameters()] == [torch.float64] * 2 + [torch.float32] * 2


class Autocast(Closure):
    def __call__(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return super().__call__()

    def every_second(self) -> Closure:
        half = super().every_second()
        return Autocast(half.model, half.loss_fn, half.batch)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_bfloat16_autocast_around_the_step_equals_autocast_in_the_closure(
    kind: str, options: dict[str, Any]
) -> None:
    """The optimizer's own arithmetic stays in float32, and no stale cast of a weight is used."""
    results: list[Any] = []
    for around in (True, False):
        model = start(kind, torch.float32)
        optimizer = samt.SAMT(samt.blocks(model), lr=0.2, meta_lr=0.5, **options)
        seen: list[torch.dtype] = []

        def loss_fn(outputs: Tensor, targets: Tensor, seen: list[torch.dtype] = seen) -> Tensor:
            seen.append(outputs.dtype)
            return LOSS(outputs.float(), targets)

        for step in range(3):
            torch.manual_seed(step)
            inner = samt.closure(model, loss_fn, *data(kind, step, torch.float32))
            if around:
                with torch.autocast("cpu", torch.bfloat16):
                    inner()  # fills the cache with casts of the weights of before the step
                    torch.manual_seed(step)
                    optimizer.step(inner, None)
            else:
                inner()
                torch.manual_seed(step)
                optimizer.step(Autocast(model, loss_fn, inner.batch), None)
        assert torch.bfloat16 in seen
        results.append((dict(model.named_parameters()), optimizer.state_dict()["state"]))
    assert_same(results[0], results[1])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_channels_last_weights_equal_contiguous_ones(options: dict[str, Any]) -> None:
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(5)
        convolution = nn.Conv2d(3, 4, 3, padding=1)
        model = nn.Sequential(convolution, nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Flatten(1)).double()
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        optimizer = samt.SAMT(samt.blocks(model), lr=0.1, meta_lr=0.5, **options)
        for step in range(3):
            torch.manual_seed(step)
            inputs = torch.randn(8, 3, 3, 3, dtype=torch.float64).to(memory_format=layout)
            closure = samt.closure(model, LOSS, inputs, inputs[:, :, 1, 1].argmax(1))
            optimizer.step(closure)
        assert convolution.weight.is_contiguous(memory_format=layout)
        states = optimizer.state_dict()["state"].values()
        results.append([*model.parameters(), *(t for state in states for t in state.values())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_transposed_and_strided_weights_equal_contiguous_ones(options: dict[str, Any]) -> None:
    results = []
    for strided in (False, True):
        model = start()
        if strided:
            for index in (0, 2, 4):
                layer: Any = model.get_submodule(str(index))
                layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
                layer.bias = nn.Parameter(layer.bias.detach().repeat_interleave(2)[::2])
                assert not layer.weight.is_contiguous()
                assert not layer.bias.is_contiguous()
        optimizer = samt.SAMT(samt.blocks(model), lr=0.1, meta_lr=0.5, **options)
        for step in range(3):
            optimizer.step(samt.closure(model, LOSS, *batch("mlp", step)))
        results.append([p.detach() for p in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


class Odd(nn.Module):
    """Parameters of no dimension, of one element, of no element, and of five dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.single = nn.Parameter(torch.tensor([[[0.3]]]))
        self.nothing = nn.Parameter(torch.zeros(0, 3))
        self.many = nn.Parameter(torch.full((1, 2, 1, 2, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        empty = self.nothing.sum()
        return self.scalar * x + self.single.sum() * x.square() + self.many.sum() + empty


@pytest.mark.parametrize("partition", [None, ["scalar", "single", "nothing", "many"]])
@pytest.mark.parametrize("step_size", ["scalar", "row", "column", "element", lambda _: ()])
@pytest.mark.parametrize(
    "options",
    [{}, {"head": "dense", "meta_batch": "next", "radius": 5.0}, {"parts": "fixed"}],
    ids=str,
)
def test_parameters_of_odd_shapes_learn(
    partition: Any, step_size: Any, options: dict[str, Any]
) -> None:
    model = Odd()
    optimizer = samt.SAMT(samt.blocks(model, partition), lr=0.03, step_size=step_size, **options)
    inputs = torch.linspace(-1, 1, 16)
    targets = 2 * inputs - inputs.square() + 1
    closure = samt.closure(model, nn.functional.mse_loss, inputs, targets)
    losses = [float(optimizer.step(closure)) for _ in range(40)]  # type: ignore[arg-type]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"meta_batch": "same"}, {"meta_batch": "fresh"}])
def test_a_batch_of_one_works(options: dict[str, Any]) -> None:
    model = start()
    optimizer = samt.SAMT(samt.blocks(model), **options)
    one = samt.closure(model, LOSS, *batch("mlp", 0, 1))
    fresh = options.get("meta_batch") == "fresh"
    other = samt.closure(model, LOSS, *batch("mlp", 1, 1)) if fresh else None
    losses = [float(optimizer.step(one, other)) for _ in range(5)]  # type: ignore[arg-type]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("own_backward", [False, True])
@pytest.mark.parametrize("options", [{}, {"parts": "fixed"}, {"meta_batch": "next"}], ids=str)
def test_a_sparse_gradient_is_refused_and_nothing_changes(
    own_backward: bool, options: dict[str, Any]
) -> None:
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(1), nn.Linear(8, 3))
    optimizer = samt.SAMT(samt.blocks(model), order="reverse", **options)
    inner = samt.closure(model, LOSS, torch.tensor([[0, 1], [3, 4]]), torch.tensor([0, 2]))

    def with_backward() -> Tensor:
        loss = inner()
        loss.backward()
        return loss

    before = everything(model, optimizer)
    closure: Callable[[], Tensor] = with_backward if own_backward else inner
    with pytest.raises(errors.UnsupportedGradientError, match="sparse=False") as caught:
        optimizer.step(closure, inner if not options and own_backward else None)
    assert "\n" not in str(caught.value)
    assert_same(everything(model, optimizer), before)


def test_a_sparse_gradient_is_refused_in_a_bare_step() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = samt.SAMT(model.parameters(), meta_batch="next")
    LOSS(model(torch.tensor([0, 3])), torch.tensor([0, 2])).backward()
    before = model.weight.detach().clone()
    with pytest.raises(errors.UnsupportedGradientError, match="sparse=False"):
        optimizer.step()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_complex_parameter_that_requires_gradients_is_refused(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=dtype))
    with pytest.raises(errors.UnsupportedGradientError, match=str(dtype)) as caught:
        samt.SAMT([{"params": [parameter], "name": "odd one"}])
    assert "odd one" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
def test_frozen_parameters_of_any_dtype_are_left_alone(dtype: torch.dtype) -> None:
    frozen = torch.ones(3, dtype=dtype)
    model = start("mlp", torch.float64)
    groups = samt.blocks(model)
    groups[0]["params"].append(frozen)
    groups[0]["param_names"].append("frozen")
    optimizer = samt.SAMT(groups, weight_decay=0.5)
    before = model.get_parameter("0.weight").detach().clone()
    for step in range(2):
        optimizer.step(samt.closure(model, LOSS, *data("mlp", step, torch.float64)))
    assert torch.equal(frozen, torch.ones(3, dtype=dtype))
    assert frozen not in optimizer.state
    assert not torch.equal(model.get_parameter("0.weight"), before)


@pytest.mark.parametrize("unscaled_first", [False, True])
@pytest.mark.parametrize("overflow", [False, True])
def test_a_gradient_scaler_is_refused_and_leaves_no_trace(
    unscaled_first: bool, overflow: bool
) -> None:
    model = start("mlp", torch.float32)
    optimizer = samt.SAMT(model.parameters(), meta_batch="next")
    scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=8.0)
    inputs, targets = data("mlp", 0, torch.float32)
    loss = LOSS(model(inputs), targets) * (torch.inf if overflow else 1)
    scaler.scale(loss).backward()
    if unscaled_first:
        scaler.unscale_(optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(errors.GradScalerUnsupportedError, match="bfloat16") as caught:
        scaler.step(optimizer)
    assert "\n" not in str(caught.value)
    assert_same([p.detach() for p in model.parameters()], before)
    optimizer.zero_grad()
    optimizer.step(samt.closure(model, LOSS, inputs, targets))  # goes on without the scaler
    assert not torch.equal(next(model.parameters()), before[0])


def test_a_gradient_scaler_with_a_closure_is_refused() -> None:
    model = start("mlp", torch.float32)
    optimizer = samt.SAMT(samt.blocks(model))
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    scaler.scale(torch.ones(()))  # as any use of it does
    with pytest.raises(errors.GradScalerUnsupportedError, match="without a scaler"):
        scaler.step(optimizer, samt.closure(model, LOSS, *data("mlp", 0, torch.float32)))


def test_a_disabled_gradient_scaler_is_welcome() -> None:
    model, twin = start("mlp", torch.float32), start("mlp", torch.float32)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizers = [samt.SAMT(m.parameters(), meta_batch="next") for m in (model, twin)]
    for _ in range(2):
        for trained, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            inputs, targets = data("mlp", 0, torch.float32)
            scaler.scale(LOSS(trained(inputs), targets)).backward()
            scaler.step(optimizer) if trained is model else optimizer.step()
    assert_same(dict(model.state_dict()), dict(twin.state_dict()))


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": "row"},
        {"meta_batch": "next", "radius": 0.1, "inner_steps": 2},
        {"head": "dense", "step_size": "element", "meta_batch": "same", "max_grad_norm": 0.1},
        {"parts": "fixed"},
    ],
    ids=str,
)
def test_memory_is_flat_over_600_steps(options: dict[str, Any]) -> None:
    model = Convolutional().double()
    optimizer = samt.SAMT(samt.blocks(model), lr=1e-3, **options)
    batches = [batch("convolutional", seed, 4) for seed in range(3)]

    def train(steps: int) -> tuple[int, int, int]:
        for step in range(steps):
            optimizer.step(samt.closure(model, LOSS, *batches[step % 3]))
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
        size = sum(t.untyped_storage().nbytes() for t in tensors)
        return len(tensors), size, tracemalloc.get_traced_memory()[0]

    def least(readings: list[tuple[int, int, int]]) -> int:
        return min(after[2] - before[2] for before, after in pairwise(readings))

    tracemalloc.start()
    try:
        train(20)
        readings = [train(steps) for steps in (10, *[100] * 6)]
        # Caches of the interpreter grow ever less, for longer in a process that has run all the
        # other tests; a leak grows in every window, however many there are.
        while least(readings) >= 100 * 50 and len(readings) < 20:
            readings.append(train(100))
    finally:
        tracemalloc.stop()
    tensors = [reading[:2] for reading in readings]
    assert tensors == tensors[:1] * len(readings)
    assert least(readings) < 100 * 50, "less than 50 bytes of Python objects a step"
