"""A search for a wrong number of AutoSAMT: random models, options and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize

import samt
from samt.reference import AutoReference

from .support.batches import Batch
from .support.comparisons import assert_close
from .support.optimizer_machine import CHOICES, SEARCH, OneEvaluationMachine, faulty, loss_fn

_BLOCK = {
    "lr": st.sampled_from([1e-3, 0.1, 1.0]),
    "betas": st.sampled_from([(0.9, 0.99), (0.0, 0.5), (0.5, 0.0)]),
    "weight_decay": st.sampled_from([0.0, 0.5]),
    "learning": st.booleans(),
}


class AutoSAMTMachine(OneEvaluationMachine):
    """A training with AutoSAMT."""

    not_negative = ("lr", "weight_decay")

    @initialize(
        **CHOICES,
        options=st.fixed_dictionaries({}, optional=_BLOCK),
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

    def agree(self) -> None:
        super().agree()
        for group in self.optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                # Of gradients that are rounding errors, such as that of a bias before a batch
                # norm, not even the sign agrees.
                if name not in self.oracle.scale or self.oracle.v[name].sum() < 1e-20:
                    continue
                state = self.optimizer.state[parameter]
                for key, value in self.oracle.state(name).items():
                    assert_close(state[key], value, f"{key} of {name}")


TestAutoSAMT = AutoSAMTMachine.TestCase
TestAutoSAMT.settings = SEARCH
