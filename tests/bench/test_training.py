"""The loop: batches, evaluation, methods."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import samt
from samt.baselines import DLADMM, SGDHD, AdamHD, Dante, SGDNesterovHD
from samt.bench import models
from samt.bench.data import Dataset, Split, load
from samt.bench.errors import SettingsError
from samt.bench.method_specs import SOLVERS, parse_spec
from samt.bench.methods import SamtMethod
from samt.bench.settings import Settings
from samt.bench.training import Trainer
from samt.errors import OptionError

BASE = Settings(hidden=(12,), batch_size=30, device="cpu", threads=1)


def tiny(samples: int = 100) -> Dataset:
    """A part of digits whose size is no multiple of the batch size."""
    digits = load("digits", None)
    train, test = digits.train, digits.test
    return replace(
        digits,
        train=Split(train.inputs[:samples], train.targets[:samples]),
        test=Split(test.inputs[:50], test.targets[:50]),
    )


def trainer(spec: str, **changes: Any) -> Trainer:
    return Trainer(replace(BASE, method=parse_spec(spec), **changes), tiny())


def ignore(steps: int, loss: float, step_sizes: dict[str, float]) -> None:
    """A report that nobody reads."""


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_an_epoch_holds_every_sample_once_in_another_order_each_time() -> None:
    one = trainer("sgd")
    first, second = one.batch_order(1), one.batch_order(2)
    assert [len(batch) for batch in first] == [30, 30, 30, 10]
    for order in (first, second):
        assert torch.equal(torch.cat(order).sort().values, torch.arange(100))
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_methods_share_batches_and_initial_weights_and_seeds_change_both() -> None:
    one, two, other = trainer("sgd"), trainer("samt:step_size=element"), trainer("sgd", seed=1)
    assert torch.equal(torch.cat(one.batch_order(3)), torch.cat(two.batch_order(3)))
    assert torch.equal(weights(one.model), weights(two.model))
    assert not torch.equal(torch.cat(one.batch_order(3)), torch.cat(other.batch_order(3)))
    assert not torch.equal(weights(one.model), weights(other.model))


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        ("sgd:lr=0.2,momentum=0.9", partial(torch.optim.SGD, lr=0.2, momentum=0.9)),
        ("adam:lr=0.01,beta1=0.8", partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.999))),
        ("sgd-hd:momentum=0.9", partial(SGDHD, momentum=0.9)),
        ("sgdn-hd:rule=multiplicative", partial(SGDNesterovHD, rule="multiplicative")),
        ("adam-hd:beta2=0.99", partial(AdamHD, betas=(0.9, 0.99))),
    ],
)
def test_optimizers_are_those_of_a_loop_of_ones_own_bit_for_bit(spec: str, make: Any) -> None:
    ours = trainer(spec)
    ours.train_epoch(1, ignore)

    torch.manual_seed(0)
    data = tiny()
    model = models.build("mlp", data, (12,), 0.0)
    optimizer = make(model.parameters())
    for chosen in ours.batch_order(1):
        inputs, targets = data.train.take(chosen)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    assert torch.equal(weights(ours.model), weights(model))


def test_metrics_are_means_over_samples_with_the_network_in_evaluation_mode() -> None:
    one = trainer("sgd", dropout=0.5)
    row = one.train_epoch(1, ignore)
    one.model.eval()
    with torch.no_grad():
        for part, loss in (("train", row.train_loss), ("test", row.test_loss)):
            split = getattr(one.data, part)
            expected = nn.functional.cross_entropy(one.model(split.inputs), split.targets)
            assert loss == pytest.approx(float(expected), rel=1e-5)
        right = one.model(one.data.test.inputs).argmax(1) == one.data.test.targets
    assert row.test_metric == int(right.sum()) / 50


def test_batch_loss_weighs_each_batch_by_its_samples() -> None:
    one = trainer("sgd:lr=0")
    assert one.train_epoch(1, ignore).batch_loss == pytest.approx(
        one.measure(0, 0.0).train_loss, rel=1e-5
    )


def test_rmse_is_in_original_units() -> None:
    data = load("diabetes", None)
    one = Trainer(replace(BASE, data="diabetes", method=parse_spec("sgd:lr=0.01")), data)
    row = one.train_epoch(1, ignore)
    with torch.no_grad():
        error = (one.model(data.test.inputs) - data.test.targets).double() * data.target_scale
    assert row.test_metric == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
    assert 40 < row.test_metric < 100


def test_evaluation_moves_no_randomness() -> None:
    one = trainer("sgd", dropout=0.5)
    before = torch.get_rng_state()
    one.measure(0, math.nan)
    assert torch.equal(torch.get_rng_state(), before)


def test_passes_are_counted() -> None:
    one, two = trainer("sgd"), trainer("samt")
    for each in (one, two):
        each.train_epoch(1, ignore)
    assert one.method.passes == (4, 4)
    assert isinstance(two.method, SamtMethod)
    counted = two.method.optimizer.passes
    assert two.method.passes == (counted.forward, counted.backward)
    assert counted.forward >= 4 * 2


@pytest.mark.parametrize("spec", ["sgd:lr=1e29", "adam:lr=1e29"])
def test_a_diverged_epoch_is_nan_and_stays_nan(spec: str) -> None:
    one = trainer(spec)
    one.train_epoch(1, ignore)
    row = one.train_epoch(2, ignore)
    assert math.isnan(row.test_metric)
    assert not math.isfinite(row.train_loss)


def test_divergence_of_samt_is_a_row_of_nan_and_no_exception() -> None:
    one = trainer("samt:lr=1e29,parts=left,projection=sigmoid")
    rows = [one.train_epoch(epoch, ignore) for epoch in (1, 2)]
    assert math.isnan(rows[-1].train_loss)
    assert math.isnan(rows[-1].test_metric)


OPTIONS = [
    "step_size=row",
    "step_size=column",
    "step_size=element",
    "step_size=row,head=dense",
    "projection=sigmoid",
    "parts=left",
    "parts=right",
    "parts=fixed",
    "meta_batch=same",
    "meta_batch=fresh",
    "meta_batch=next",
    "meta_lr=0.1,eta_hidden=8",
    "inner_steps=2",
    "order=reverse",
    "order=random",
    "order=cyclic",
    "radius=1",
    "relative=true",
    "relative=0.5",
    "weight_decay=0.01",
    "max_grad_norm=1",
    "blocks=1",
    "blocks=2",
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_option_trains_and_shows_the_step_size_of_every_block(
    options: str, model: str
) -> None:
    one = trainer(f"samt:{options}", model=model)
    before = one.measure(0, math.nan)
    one.train_epoch(1, ignore)
    row = one.train_epoch(2, ignore)
    assert row.train_loss < before.train_loss
    assert list(row.step_sizes) == list(before.step_sizes)
    assert all(0 < value < 2 for value in row.step_sizes.values())


def test_options_reach_the_optimizer() -> None:
    plain, other = trainer("samt"), trainer("samt:step_size=row,inner_steps=2,blocks=1")
    for each in (plain, other):
        each.train_epoch(1, ignore)
    assert list(plain.method.epoch_step_sizes()) == ["hidden1", "output"]
    assert list(other.method.epoch_step_sizes()) == ["model"]
    assert not torch.equal(weights(plain.model), weights(other.model))


def test_fresh_takes_its_meta_batch_from_another_mini_batch() -> None:
    fresh, subset = trainer("samt:meta_batch=fresh"), trainer("samt:meta_batch=subset")
    for each in (fresh, subset):
        each.train_epoch(1, ignore)
    assert not torch.equal(weights(fresh.model), weights(subset.model))


def test_the_published_kind_of_network() -> None:
    data = tiny()
    cnn = models.build("cnn", data, (20,), 0.1)
    kinds = [type(module).__name__ for module in cnn.children()]
    block = ["Conv2d", "LeakyReLU", "MaxPool2d"]
    assert kinds == [*block, *block, "Flatten", "Linear", "LeakyReLU", "Dropout", "Linear"]
    assert cnn(data.test.inputs).shape == (50, 10)
    assert models.build("mlp", data, (), 0.0)(data.test.inputs).shape == (50, 10)


def test_a_network_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(SettingsError, match="--model mlp"):
        models.build("cnn", load("diabetes", None), (20,), 0.0)
    with pytest.raises(SettingsError, match="did you mean 'cnn'"):
        models.build("cn", tiny(), (20,), 0.0)


@pytest.mark.parametrize("blocks", ["1", "none"])
def test_hypergradient_descent_learns_one_step_size_unless_told_otherwise(blocks: str) -> None:
    one = trainer(f"sgdn-hd:hypergrad_lr=0.01,blocks={blocks}")
    first = one.train_epoch(1, ignore).step_sizes
    second = one.train_epoch(2, ignore).step_sizes
    assert list(first) == (["model"] if blocks == "1" else ["hidden1", "output"])
    assert all(0.001 != first[name] != second[name] for name in first)
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize("fresh", [False, True])
def test_dante_is_that_of_a_loop_of_ones_own(fresh: bool) -> None:
    ours = trainer(f"dante:lr=0.05,inner_iterations=2,fresh_batches={str(fresh).lower()}")
    row = ours.train_epoch(1, ignore)
    torch.manual_seed(0)
    data = tiny()
    model = models.build("mlp", data, (12,), 0.0)
    optimizer = Dante(samt.blocks(model), 0.05, inner_iterations=2, fresh_batches=fresh)
    for chosen in ours.batch_order(1):
        inputs, targets = data.train.take(chosen)
        optimizer.step(samt.closure(model, nn.functional.cross_entropy, inputs, targets))
    assert torch.equal(weights(ours.model), weights(model))
    assert ours.method.passes == ((4, 4) if fresh else (16, 16))
    assert row.step_sizes == pytest.approx({"hidden1": 0.05, "output": 0.05})


def test_a_solver_takes_one_iteration_of_all_samples_in_an_epoch() -> None:
    ours = trainer("dladmm:rho=0.01,scheduled=false", hidden=(12, 9))
    data = tiny()
    options: dict[str, Any] = {"activation": "leaky_relu", "rho": 0.01, "scheduled": False}
    solver = DLADMM(data.train.inputs, data.train.targets, [12, 9], outputs=10, **options)
    assert ours.steps_per_epoch == 1
    with torch.no_grad():
        assert torch.equal(ours.model(data.test.inputs), solver.predict(data.test.inputs))
    for epoch in (1, 2, 3):
        row = ours.train_epoch(epoch, ignore)
        progress = solver.step()
        assert row.batch_loss == pytest.approx(progress.objective / 100)
        outputs = solver.predict(data.test.inputs)
        expected = nn.functional.cross_entropy(outputs, data.test.targets)
        assert row.test_loss == pytest.approx(float(expected), rel=1e-5)
        assert row.test_metric == int((outputs.argmax(1) == data.test.targets).sum()) / 50
    assert row.step_sizes == {}
    assert ours.method.passes == (0, 0)
    assert not torch.equal(weights(ours.model), weights(trainer("dladmm", hidden=(12, 9)).model))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_lower_the_training_loss(name: str) -> None:
    one = trainer(name)
    before = one.measure(0, math.nan)
    rows = [one.train_epoch(epoch, ignore) for epoch in range(1, 16)]
    assert rows[-1].train_loss < before.train_loss


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("changes", [{"model": "cnn"}, {"dropout": 0.5}], ids=str)
def test_solvers_refuse_what_is_no_plain_mlp(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"'{name}' .* --model mlp"):
        trainer(name, **changes)


def test_a_solver_of_a_regression_takes_the_squared_loss() -> None:
    data = load("diabetes", None)
    one = Trainer(replace(BASE, data="diabetes", method=parse_spec("dladmm:rho=0.01")), data)
    rows = [one.train_epoch(epoch, ignore) for epoch in range(1, 30)]
    assert rows[-1].train_loss < 0.9 * rows[0].train_loss
    settings = replace(BASE, data="diabetes", method=parse_spec("dladmm:loss=cross_entropy"))
    with pytest.raises(OptionError, match="loss='squared'"):
        Trainer(settings, data)
