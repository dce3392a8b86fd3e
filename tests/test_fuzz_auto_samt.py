"""A search for a wrong number of AutoSAMT: random models, options and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from torch import Tensor

import samt
from samt.reference import AutoReference

from .support.batches import Batch
from .support.comparisons import assert_close
from .support.optimizer_machine import CHOICES, SEARCH, OneEvaluationMachine, faulty, loss_fn

_BLOCK = {
    "lr": st.sampled_from([1e-3, 0.1, 1.0]),
    "betas": st.sampled_from([(0.9, 0.99), (0.0, 0.5), (0.5, 0.0)]),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "weight_decay": st.sampled_from([0.0, 0.5]),
    "meta_lr": st.sampled_from([0, 0.25, 2.0]),
    "seed": st.integers(0, 2**40),
}
_WHOLE = {**_BLOCK, "projection": st.sampled_from(["tanh", "sigmoid"])}


class AutoSAMTMachine(OneEvaluationMachine):
    """A training with AutoSAMT."""

    @initialize(
        **CHOICES,
        options=st.fixed_dictionaries(
            # So that gradients at the average come soon.
            {
                "total_steps": st.sampled_from([9, 16]),
                "meta_every": st.sampled_from([2, 3]),
                "eta_hidden": st.sampled_from([1, 5]),
            },
            optional=_WHOLE,
        ),
        of_groups=st.lists(st.fixed_dictionaries({}, optional=_BLOCK), max_size=3),
    )
    def start(self, **choices: Any) -> None:
        self.begin(**choices)

    def make(self, groups: list[dict[str, Any]]) -> samt.AutoSAMT:
        return samt.AutoSAMT(groups, **self.options)

    def make_oracle(self) -> AutoReference:
        return AutoReference(self.model, loss_fn, self.optimizer.param_groups)

    def fast_step(self, data: Batch, other: Batch, fault: Callable[[], Any]) -> Any:
        loss = faulty(fault)
        if self.style is not None:
            return self.optimizer.step(self.style(self.model, loss, data))
        return self.plain_step(loss, data)

    def sees_nothing(self) -> bool:
        """In the plain loop the optimizer has the gradients alone."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        return self.style is None and not (held and all(p.requires_grad for p in held))

    def held_by_oracle(self) -> dict[str, Tensor]:
        """The oracle holds the average where the next gradient is taken there."""
        held: dict[str, Tensor] = self.oracle.parameters
        return held

    def agree(self) -> None:
        super().agree()
        for group in self.optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                state = self.optimizer.state[parameter]
                for key, value in self.oracle.state(name).items():
                    assert_close(state[key], value, f"{key} of {name}")


TestAutoSAMT = AutoSAMTMachine.TestCase
TestAutoSAMT.settings = SEARCH
