"""Step sizes for Lightning's loggers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import torch

from samt.integrations.newest import Newest


class StepSizes(lightning.Callback):
    """Log the mean step size of each block, as `step_size/BLOCK`.

    It goes to all loggers of the trainer every `log_every_n_steps` steps, and stands in
    `trainer.callback_metrics`. With several optimizers the names of all but the first begin
    with `optimizer1/` and so on.

    Raises:
        OptionError: at the start of the training; an optimizer is none of samt's.

    Examples:
        >>> import lightning
        >>> from samt.integrations.lightning import StepSizes
        >>> trainer = lightning.Trainer(
        ...     callbacks=[StepSizes()], logger=False, enable_checkpointing=False
        ... )
    """

    def __init__(self) -> None:
        self._watched: list[Newest] = []
        self._logged = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Begin to watch the trainer's optimizers."""
        self._watched = [Newest(optimizer) for optimizer in trainer.optimizers]
        self._logged = trainer.global_step

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Log after every so many steps; not after each of the micro-batches of a step."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step > self._logged and step % every == 0:
            self._log(trainer)
            self._logged = step
        for one in self._watched:
            one.forget()

    def _log(self, trainer: lightning.Trainer) -> None:
        sizes = {
            (f"optimizer{index}/" if index else "") + name: size
            for index, one in enumerate(self._watched)
            for name, size in one.step_sizes().items()
        }
        for logger in trainer.loggers:
            logger.log_metrics(sizes, step=trainer.global_step)
        trainer.callback_metrics.update({name: torch.tensor(size) for name, size in sizes.items()})
