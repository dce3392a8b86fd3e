"""A search for a wrong number of SAMT: random models, options and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from torch import Tensor

import samt
from samt.closures import Closure
from samt.reference import SAMTReference

from .support.batches import Batch
from .support.comparisons import assert_close
from .support.optimizer_machine import CHOICES, SEARCH, OptimizerMachine, faulty, loss_fn

# The oracle makes layers without outputs for step sizes of which there are none.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")


def last_dimension(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[-1:])


_BLOCK = {
    "step_size": st.sampled_from(["scalar", "row", "column", "element", last_dimension]),
    "head": st.sampled_from(["offset", "dense"]),
    "projection": st.sampled_from(["tanh", "sigmoid"]),
    "parts": st.sampled_from(["full", "full", "left", "right", "fixed"]),
    "meta_batch": st.sampled_from(["same", "subset", "fresh", "next"]),
    "meta_lr": st.sampled_from([0.0, 0.01, 0.5]),
    "inner_steps": st.sampled_from([1, 1, 2]),
    "radius": st.sampled_from([None, 0.1, 10.0]),
    "relative": st.sampled_from([False, True, 2.5]),
    "weight_decay": st.sampled_from([0.0, 0.05]),
    "max_grad_norm": st.sampled_from([None, 0.3]),
    "eta_hidden": st.sampled_from([1, 5]),
    "lr": st.sampled_from([0.0, 0.01, 0.3]),
}
_WHOLE = {
    **_BLOCK,
    "order": st.sampled_from(["forward", "reverse", "random", "cyclic"]),
    "replay": st.booleans(),
    "seed": st.integers(0, 2**40),
}


class SAMTMachine(OptimizerMachine):
    """A training with the published method."""

    @initialize(
        **CHOICES,
        options=st.fixed_dictionaries({}, optional=_WHOLE),
        of_groups=st.lists(st.fixed_dictionaries({}, optional=_BLOCK), max_size=3),
    )
    def start(self, **choices: Any) -> None:
        self.begin(**choices)

    def make(self, groups: list[dict[str, Any]]) -> samt.SAMT:
        return samt.SAMT(groups, **self.options)

    def make_oracle(self) -> SAMTReference:
        return SAMTReference(self.model, loss_fn, self.optimizer.param_groups)

    def _uses_another_batch(self) -> bool:
        return any(
            group["meta_batch"] == "fresh" and group["parts"] != "fixed" and group["params"]
            for group in self.optimizer.param_groups
        )

    def _is_bare(self) -> bool:
        """Whether the plain loop will do, and is wanted."""
        groups = self.optimizer.param_groups
        alone = len(groups) == 1 or groups[0]["order"] == "cyclic"
        return (
            self.style is None
            and alone
            and all(
                (group["meta_batch"] == "next" or group["parts"] == "fixed")
                and group["inner_steps"] == 1
                for group in groups
            )
        )

    def oracle_step(self, data: Batch, other: Batch) -> Tensor:
        loss: Tensor = self.oracle.step(data, other if self._uses_another_batch() else None)
        return loss

    def fast_step(self, data: Batch, other: Batch, fault: Callable[[], Any]) -> Any:
        loss = faulty(fault)
        if self._is_bare() and fault() is None:
            return self.plain_step(loss_fn, data)  # a fault in it is not the optimizer's
        style = self.style or Closure
        meta = style(self.model, loss, other) if self._uses_another_batch() else None
        return self.optimizer.step(style(self.model, loss, data), meta)

    def agree(self) -> None:
        super().agree()
        for index, group in enumerate(self.optimizer.param_groups):
            expected = self.oracle.state(index)
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                state = self.optimizer.state.get(parameter)
                if not state:  # it has been frozen ever since it came, or has nothing to learn
                    assert not (parameter.requires_grad and expected[name])
                    continue
                assert state.keys() == expected[name].keys()
                for key, value in expected[name].items():
                    # At which rate a zero gradient was followed is of no matter.
                    if key != "previous_lr" or expected[name]["previous_gradient"].any():
                        assert_close(state[key], value, f"{key} of {name}")


TestSAMT = SAMTMachine.TestCase
TestSAMT.settings = SEARCH
