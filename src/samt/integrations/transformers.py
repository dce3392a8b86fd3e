"""Step sizes for whatever the Trainer of Hugging Face reports to."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback

from samt.integrations.newest import Newest


class StepSizes(TrainerCallback):
    """Log the mean step size of each block, as `step_size/BLOCK`, where the loss is logged.

    Args:
        trainer: the trainer whose `log` is called, since a callback is not told its trainer.

    Raises:
        OptionError: at the start of the training; the optimizer is none of samt's.

    Examples:
        >>> import tempfile, torch
        >>> from transformers import Trainer, TrainingArguments
        >>> from samt.integrations.transformers import StepSizes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(torch.nn.Linear(1, 1), TrainingArguments(folder, use_cpu=True))
        ...     trainer.add_callback(StepSizes(trainer))
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._watched: Newest | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to watch the optimizer."""
        self._watched = Newest(kwargs["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log, where the trainer is about to."""
        assert self._watched is not None
        if control.should_log:
            self._trainer.log(self._watched.step_sizes())
            control.should_log = True  # `log` takes its own line for the one that was due
        self._watched.forget()
