"""How long a cell trains, and when it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping

from samt.bench.errors import DataError
from samt.bench.training import Trainer

_FOREVER = 1 << 62


class Budget:
    """How many steps a run has, as far as that can be said before.

    Args:
        budget: a key (epochs, passes or seconds) with its value.
        evaluate: epochs between two evaluations.
        trainer: of the run; its schedule ends with the budget.

    Attributes:
        steps: all of them; more than anybody can take where only the training itself tells.
        every: steps between two evaluations.

    Raises:
        DataError: a budget of passes for a method that takes none.
    """

    def __init__(self, budget: Mapping[str, float], evaluate: float, trainer: Trainer) -> None:
        self._budget, self._trainer = budget, trainer
        self.steps_per_epoch = trainer.steps_per_epoch
        trainer.share = self.share
        self.every = max(1, round(evaluate * self.steps_per_epoch))
        epochs = budget.get("epochs")
        self.steps = _FOREVER if epochs is None else round(epochs * self.steps_per_epoch)
        if epochs is not None:
            trainer.method.plan(self.steps)
        if "passes" in budget and trainer.method.full_batch:
            raise DataError(
                "this method takes no passes through the network: give it a budget of epochs or "
                "seconds"
            )

    def is_spent(self) -> bool:
        """Whether passes or seconds are used up."""
        return "epochs" not in self._budget and self._used() >= 1

    def share(self, step: int) -> float:
        """How much of the budget is used up, from 0 to 1."""
        return min(1.0, step / max(self.steps, 1) if "epochs" in self._budget else self._used())

    def _used(self) -> float:
        if "passes" in self._budget:
            return sum(self._trainer.method.passes) / self._budget["passes"]
        return self._trainer.seconds_so_far() / self._budget["seconds"]
