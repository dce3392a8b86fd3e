"""All methods of a seed start from the same weights and see the same batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from samt.bench import data as datasets
from samt.bench.method_specs import METHOD_OPTIONS, SOLVERS, parse_spec
from samt.bench.settings import Settings
from samt.bench.training import Trainer

_BASE = Settings(data="digits", hidden=(12,), epochs=2, device="cpu", threads=1, seed=3)
_MINI_BATCH = sorted(METHOD_OPTIONS.keys() - SOLVERS.keys())


def _trainer(spec: str) -> Trainer:
    return Trainer(replace(_BASE, method=parse_spec(spec)), datasets.load("digits", None))


def _ignore(*seen: object) -> None:
    pass


@pytest.mark.parametrize("name", _MINI_BATCH)
def test_weights_and_batches_do_not_depend_on_the_method(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, other = _trainer(name), _trainer("sgd:lr=0.5,momentum=0.5")
    weights = zip(trainer.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in weights)
    seen: list[Tensor] = []
    step = trainer.method.step

    def watched(batch: tuple[Tensor, Tensor], following: object) -> object:
        seen.append(batch[0].clone())
        return step(batch, following)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.method, "step", watched)
    trainer.train(0, trainer.steps_per_epoch, _ignore)
    expected = [other.data.train.inputs[index] for index in other.batch_order(1)]
    assert len(seen) == len(expected)
    assert all(torch.equal(one, two) for one, two in zip(seen, expected, strict=True))


def test_another_seed_has_other_weights_and_batches() -> None:
    one, two = _trainer("sgd"), Trainer(replace(_BASE, seed=4), datasets.load("digits", None))
    assert not torch.equal(next(one.model.parameters()), next(two.model.parameters()))
    assert not torch.equal(one.batch_order(1)[0], two.batch_order(1)[0])
    assert not torch.equal(one.batch_order(1)[0], one.batch_order(2)[0])


def test_the_cosine_schedule_is_that_of_torch() -> None:
    trainer, plain = _trainer("sgd:lr=0.3,schedule=cosine"), _trainer("sgd:lr=0.3")
    steps = _BASE.epochs * trainer.steps_per_epoch
    trainer.train(0, steps, _ignore)
    optimizer = torch.optim.SGD(plain.model.parameters(), lr=0.3)
    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    for epoch in range(1, _BASE.epochs + 1):
        for index in plain.batch_order(epoch):
            optimizer.zero_grad()
            inputs, targets = plain.data.train.take(index)
            plain.loss_fn(plain.model(inputs), targets).backward()
            optimizer.step()
            scheduler.step()
    for one, two in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_schedule_anneals_the_whole_relative_step_of_samt() -> None:
    trainer = _trainer("samt:relative=true,schedule=cosine,lr=0.2")
    steps = _BASE.epochs * trainer.steps_per_epoch
    trainer.train(0, steps // 2, _ignore)
    half = trainer.method.latest_step_sizes()
    trainer.train(steps // 2, steps, _ignore)
    end = trainer.method.latest_step_sizes()
    assert all(0 < end[name] < 0.02 < half[name] for name in half)
