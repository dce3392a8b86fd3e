"""Random models, blocks and events in a training, for the tests that search for a wrong number."""

from __future__ import annotations

import copy
import io
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from torch import Tensor, nn

import samt
from samt.closures import Closure
from samt.errors import NonFiniteLossError, SAMTError

from .batches import Batch
from .closures import WithBackward
from .comparisons import assert_close, assert_same
from .searched_models import MODELS

# More by hand: SAMT_TEST_FUZZ=2000 pytest tests/test_fuzz_*.py
_RUNS = int(os.environ.get("SAMT_TEST_FUZZ", "0"))
SEARCH = settings(
    max_examples=_RUNS or 20,
    stateful_step_count=12,
    deadline=None,
    derandomize=not _RUNS,
    suppress_health_check=list(HealthCheck),
)


# What a search chooses beside the options of the optimizer; arguments of `OptimizerMachine.begin`.
CHOICES: dict[str, Any] = {
    "kind": st.sampled_from(sorted(MODELS)),
    "wide": st.sampled_from([True, True, True, False]),
    "partition": st.sampled_from([None, None, 1, 2]),
    "empty": st.sampled_from([None, None, 0, 1, 9]),
    "later": st.booleans(),
    "style": st.sampled_from([Closure, WithBackward, None]),
}


def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def faulty(fault: Callable[[], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss; `fault` is called first, and what it returns is a factor."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        factor = fault()
        return loss_fn(outputs, targets) * (1 if factor is None else factor)

    return loss


class FaultError(Exception):
    """An error that a closure raises."""


class OptimizerMachine(RuleBasedStateMachine):
    """A training in which things happen; made to be filled in for one optimizer.

    In float64 an oracle goes along, and has to agree after every step.
    """

    kind = ""
    not_negative: tuple[str, ...] = ("lr", "weight_decay", "seed", "meta_lr")  # options of a block
    options: dict[str, Any]
    optimizer: Any
    oracle: Any

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0
        self.waiting: list[dict[str, Any]] = []
        self.scheduler: Any = None

    def make(self, groups: list[dict[str, Any]]) -> Any:
        """The optimizer."""
        raise NotImplementedError

    def make_oracle(self) -> Any:
        """The oracle of the optimizer, at the weights that are there."""
        raise NotImplementedError

    def oracle_step(self, data: Batch, other: Batch) -> Tensor:
        """A step of the oracle."""
        loss: Tensor = self.oracle.step(data)
        return loss

    def fast_step(self, data: Batch, other: Batch, fault: Callable[[], None]) -> Any:
        """A step of the optimizer; `fault` is called in each evaluation of the loss."""
        raise NotImplementedError

    def agree(self) -> None:
        """Compare weights and buffers with those of the oracle; state is each method's own."""
        expected = self.held_by_oracle()
        for name, parameter in self.model.named_parameters():
            assert_close(parameter, expected[name], name)
        for name, buffer in self.model.named_buffers():
            assert_close(buffer, self.oracle.buffers[name], name)

    def held_by_oracle(self) -> dict[str, Tensor]:
        """What the model's parameters should hold now."""
        weights: dict[str, Tensor] = self.oracle.weights
        return weights

    def begin(
        self,
        kind: str,
        wide: bool,
        partition: Any,
        options: dict[str, Any],
        of_groups: list[dict[str, Any]],
        empty: int | None,
        later: bool,
        style: type[Closure] | None,
    ) -> None:
        """Build model and optimizer.

        Args:
            kind: of model.
            wide: float64, with an oracle; or else float32.
            partition: of `samt.blocks`, as far as the model has so many.
            options: of the optimizer.
            of_groups: options of the single blocks.
            empty: where a block without parameters stands, if there is one.
            later: leave a block for `add_param_group`.
            style: of closures; None for the plain loop, where that will do.
        """
        self.style = style
        torch.manual_seed(3)
        self.kind, self.options, self.wide = kind, options, wide
        self.model = MODELS[kind]().to(torch.float64 if wide else torch.float32)
        groups = samt.blocks(self.model)
        if partition is not None:
            groups = samt.blocks(self.model, min(partition, len(groups)))
        groups = [
            {**group, **of_groups[i % len(of_groups)]} if of_groups else group
            for i, group in enumerate(groups)
        ]
        if empty is not None:
            nothing = {"params": [], "param_names": [], "name": "empty"}
            groups.insert(min(empty, len(groups)), nothing)
        if later and len(groups) > 1:
            self.waiting = [groups.pop()]
        self.fixed = groups
        self.optimizer = self.make([dict(group) for group in groups])  # torch writes into them
        self.oracle = self.make_oracle() if wide else None

    def plain_step(self, loss: Callable[[Tensor, Tensor], Tensor], data: Batch) -> Tensor:
        """Take a step as in everybody's loop."""
        self.model.zero_grad()
        value = loss(self.model(data[0]), data[1])
        if value.requires_grad:
            value.backward()
        self.optimizer.step()
        self.model.zero_grad()
        return value.detach()

    def batch(self, size: int) -> Batch:
        """The next random mini-batch."""
        self.seed += 1
        generator = torch.Generator().manual_seed(self.seed)
        width = 16 if self.kind == "convolutional" else 4
        inputs = torch.randn(size, width, generator=generator, dtype=torch.float64)
        targets = inputs[:, :3].argmax(1)
        return inputs.to(torch.float64 if self.wide else torch.float32), targets

    def snapshot(self) -> dict[str, Any]:
        """All that a failed step has to leave alone."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "requires_grad": [p.requires_grad for p in self.model.parameters()],
                "passes": tuple(getattr(self.optimizer, "passes", ())),
                "rng": torch.get_rng_state(),
            }
        )

    @rule(size=st.sampled_from([1, 2, 3, 8]))
    def step(self, size: int) -> None:
        data, other = self.batch(size), self.batch(max(1, size - 1))
        before, rng = self.snapshot(), torch.get_rng_state()
        if self.oracle is not None:
            expected = self.oracle_step(data, other)
            rng_after = torch.get_rng_state()
            torch.set_rng_state(rng)
        try:
            loss = self.fast_step(data, other, lambda: None)
        except NonFiniteLossError as error:
            assert_is_a_line(error)
            assert self.traceless(self.snapshot(), before)
            assert self.oracle is None or not self.oracle_is_finite(expected)
            self.oracle = None  # it went on
            return
        assert all(p.isfinite().all() for p in self.model.parameters())
        if self.oracle is not None:
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-8)
            assert torch.equal(torch.get_rng_state(), rng_after)
            self.agree()

    def teardown(self) -> None:
        """What happened shows in the next steps, of which a search makes few by itself."""
        if self.kind and sys.exc_info()[0] is None:
            for size in (8, 1, 3, 8):
                self.step(size)

    def oracle_is_finite(self, loss: Tensor) -> bool:
        """Whether the oracle too finds its numbers to be no numbers."""
        return bool(loss.isfinite()) and all(
            w.isfinite().all() for w in self.oracle.weights.values()
        )

    @rule(call=st.integers(0, 7), bad=st.sampled_from(["raise", "interrupt", "nan"]))
    def failing_step(self, call: int, bad: str) -> None:
        """A closure that fails in one of its calls leaves no trace."""
        data, other = self.batch(4), self.batch(3)
        before, twin = self.snapshot(), None
        calls = 0

        def fault() -> Any:
            nonlocal calls
            calls += 1
            if calls > call and bad == "nan":  # and from then on: an evaluation may be repeated
                return torch.nan
            if calls - 1 == call and bad != "nan":
                raise FaultError if bad == "raise" else KeyboardInterrupt
            return None

        twin = copy.deepcopy((self.model, self.optimizer))
        errors = {
            "raise": FaultError,
            "interrupt": KeyboardInterrupt,
            "nan": NonFiniteLossError,
        }
        try:
            self.fast_step(data, other, fault)
        except errors[bad] as error:
            assert_is_a_line(error)
            assert self.traceless(self.snapshot(), before)
            torch.set_rng_state(before["rng"])
        else:  # there were fewer calls than that
            assert calls <= call or self.sees_nothing()
            self.put_back(twin, before)

    def sees_nothing(self) -> bool:
        """Whether a loss that is not finite need not show in what the optimizer gets."""
        return False

    def traceless(self, after: dict[str, Any], before: dict[str, Any]) -> bool:
        """Whether nothing is left of a failed step."""
        assert_same(after, before)
        return True

    def put_back(self, twin: Any, before: dict[str, Any]) -> None:
        """Go on with a copy that was made before."""
        self.replace(*twin)
        torch.set_rng_state(before["rng"])

    def replace(self, model: nn.Module, optimizer: Any) -> None:
        """Go on with another model and optimizer, which have to be in the same state."""
        self.model, self.optimizer, self.scheduler = model, optimizer, None
        if self.oracle is not None:
            self.oracle.model = model

    @rule(how=st.sampled_from(["deepcopy", "pickle", "file", "itself"]))
    def save_and_load(self, how: str) -> None:
        before = self.snapshot()
        if how == "deepcopy":
            self.replace(*copy.deepcopy((self.model, self.optimizer)))
        elif how == "pickle":
            self.replace(*pickle.loads(pickle.dumps((self.model, self.optimizer))))
        elif how == "itself":
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        else:
            file = io.BytesIO()
            torch.save((self.model.state_dict(), self.optimizer.state_dict()), file)
            file.seek(0)
            weights, state = torch.load(file, weights_only=True)
            model = MODELS[self.kind]().to(torch.float64 if self.wide else torch.float32)
            model.train(self.model.training)
            for new, old in zip(model.parameters(), self.model.parameters(), strict=True):
                new.requires_grad_(old.requires_grad)
            model.load_state_dict(weights)
            named = dict(model.named_parameters())
            groups = [
                {**group, "params": [named[name] for name in group["param_names"]]}
                for group in self.fixed
            ]
            optimizer = self.make(groups)
            optimizer.load_state_dict(state)
            self.replace(model, optimizer)
            torch.set_rng_state(before["rng"])
        assert_same(self.snapshot(), before)

    @precondition(lambda self: self.waiting)
    @rule()
    def add_a_block(self) -> None:
        group = self.waiting.pop()
        named = dict(self.model.named_parameters())  # the model may be another by now
        group = {**group, "params": [named[name] for name in group["param_names"]]}
        self.model.zero_grad()  # a closure's own `backward` reaches parameters outside
        self.optimizer.add_param_group(dict(group))
        self.fixed = [*self.fixed, group]
        self.scheduler = None
        if self.oracle is not None:
            self.oracle.add(self.optimizer.param_groups[-1])

    @rule(number=st.integers(0, 3))
    def wrong_block(self, number: int) -> None:
        option = self.not_negative[number % len(self.not_negative)]
        before = self.snapshot()
        wrong = {"params": [nn.Parameter(torch.ones(2))], "param_names": ["extra"], option: -1}
        try:
            self.optimizer.add_param_group(wrong)
        except SAMTError as error:
            assert_is_a_line(error)
        else:
            raise AssertionError(option)
        assert_same(self.snapshot(), before)

    @rule(name=st.sampled_from(["ExponentialLR", "CosineAnnealingLR", "LambdaLR", "OneCycleLR"]))
    def schedule(self, name: str) -> None:
        if self.scheduler is None:
            kinds = torch.optim.lr_scheduler
            for group in self.optimizer.param_groups:
                group.pop("initial_lr", None)
            make = {
                "ExponentialLR": lambda o: kinds.ExponentialLR(o, 0.7),
                "CosineAnnealingLR": lambda o: kinds.CosineAnnealingLR(o, 9),
                "LambdaLR": lambda o: kinds.LambdaLR(o, lambda k: 1 / (k + 1)),
                "OneCycleLR": lambda o: kinds.OneCycleLR(o, 0.2, 50, cycle_momentum=False),
            }
            self.scheduler = make[name](self.optimizer)  # type: ignore[no-untyped-call]
            # torch counts on a step before, of this optimizer; to it a loaded one has made none.
            self.optimizer._opt_called = True
        self.scheduler.step()
        self.tell_lr()

    def tell_lr(self) -> None:
        """The oracle has the same lr."""
        if self.oracle is not None:
            for group, own in zip(self.optimizer.param_groups, self.oracle.groups, strict=True):
                own["lr"] = float(group["lr"])
                own["initial_lr"] = float(group.get("initial_lr", 0.0))

    @rule(number=st.integers(0, 9))
    def freeze_or_thaw(self, number: int) -> None:
        parameters = list(self.model.parameters())
        parameter = parameters[number % (len(parameters) - 1)]  # never all of them
        parameter.requires_grad_(not parameter.requires_grad)

    @rule()
    def evaluation_mode(self) -> None:
        self.model.train(not self.model.training)


class OneEvaluationMachine(OptimizerMachine):
    """A training whose steps evaluate the loss once, and take nothing of that back."""

    def traceless(self, after: dict[str, Any], before: dict[str, Any]) -> bool:
        """The one evaluation has drawn its numbers and moved its buffers, as in torch."""
        parameters = [name for name, _ in self.model.named_parameters()]
        for kept in ("optimizer", "requires_grad", "passes"):
            assert_same(after[kept], before[kept])
        for name in parameters:
            assert_same(after["model"][name], before["model"][name])
        self.model.load_state_dict(before["model"])
        return True


def assert_is_a_line(error: BaseException) -> None:
    """Every message is one line."""
    assert "\n" not in str(error)
