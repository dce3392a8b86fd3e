"""The loop: one epoch, evaluation, state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samt.bench import methods, models
from samt.bench.data import Dataset, Split
from samt.bench.results import EpochMetrics
from samt.bench.settings import Settings
from samt.errors import NonFiniteLossError

_EVALUATION_CHUNK = 2048
# The step sizes are read this often for the display.
_REPORTS = 16
_LARGEST_KEPT = 31 * 2**20  # bytes; from 32 MiB on glibc hands every piece back

Report = Callable[[int, float, dict[str, float]], None]


class Trainer:
    """A model, its data and its method, from the first weights to the last.

    Args:
        settings: of the run; device and threads are already decided.
        data: the data set, on any device.

    Attributes:
        share: of the budget that is used up after some steps, from 0 to 1; for schedules. By
            default the budget are the epochs of the settings.
    """

    def __init__(self, settings: Settings, data: Dataset) -> None:
        # A step frees tensors that the next one wants back, and glibc returns such memory to the
        # system in between, which costs a step more than its arithmetic. It learns how much to
        # keep from the largest piece that was freed; nobody touches this one.
        torch.empty(_LARGEST_KEPT, dtype=torch.uint8)
        self.device = torch.device(settings.device)
        self.data = data.to(self.device)
        self.seed = settings.seed
        self.batch_size = settings.batch_size
        self.seconds = 0.0
        self._started: float | None = None
        torch.manual_seed(settings.seed)
        model = models.build(settings.model, data, settings.hidden, settings.dropout)
        self.model: nn.Module = model.to(self.device)
        self.loss_fn: methods.LossFunction = (
            nn.functional.cross_entropy if data.task == "classification" else nn.functional.mse_loss
        )
        inputs, targets = self.data.train.tensors()
        self.method = methods.build(
            settings.method, self.model, self.loss_fn, settings.seed, (inputs, targets)
        )
        if self.method.full_batch:
            self.batch_size = len(inputs)
        steps = settings.epochs * self.steps_per_epoch
        self.method.plan(steps)
        self.share: Callable[[int], float] = lambda step: min(1.0, step / max(1, steps))

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches in an epoch; none is dropped."""
        return math.ceil(len(self.data.train) / self.batch_size)

    def batch_order(self, epoch: int) -> tuple[Tensor, ...]:
        """Sample numbers of each mini-batch.

        Args:
            epoch: number of the epoch, from 1. The order depends on it and on the seed alone,
                so that every method sees the same batches and a resumed run the right ones.

        Returns:
            One index tensor for each mini-batch.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.data.train))
        return torch.from_numpy(order).to(self.device).split(self.batch_size)

    def train_epoch(self, epoch: int, report: Report) -> EpochMetrics:
        """Train for one epoch and measure the result.

        Args:
            epoch: its number, from 1.
            report: gets the number of finished steps, the mean loss so far and the step sizes.

        Returns:
            The epoch's metrics; losses and metric are NaN if a loss was not finite.
        """
        last = epoch * self.steps_per_epoch
        _, loss = self.train(last - self.steps_per_epoch, last, report)
        return self.measure(epoch, loss)

    def train(
        self, start: int, stop: int, report: Report, enough: Callable[[], bool] | None = None
    ) -> tuple[int, float]:
        """Take some steps.

        Args:
            start: number of steps that were taken before.
            stop: number of steps afterwards.
            report: gets the number of finished steps of these, the mean loss so far and the step
                sizes.
            enough: asked after each step; True ends the training early.

        Returns:
            Number of steps since the first, and mean loss of these; NaN if one was not finite.
        """
        every = max(1, (stop - start) // _REPORTS)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        order: tuple[Tensor, ...] = ()
        seen, step = 0, start
        self.model.train()
        self.method.start_epoch(stop - start)
        self._started = self._now()
        try:
            while step < stop:
                epoch, index = divmod(step, self.steps_per_epoch)
                if not order or index == 0:
                    order = self.batch_order(epoch + 1)
                self.method.anneal(self.share(step))
                following = partial(self.data.train.take, order[(index + 1) % len(order)])
                loss = self.method.step(self._batch(order[index]), following)
                # Stays on the device: reading it here would stop a GPU at every step.
                total += loss * len(order[index])
                seen += len(order[index])
                step += 1
                ends = step == stop or (enough is not None and enough())
                if (step - start) % every == 0 or ends:
                    self._pause()
                    report(step - start, float(total) / seen, self.method.latest_step_sizes())
                    self._started = self._now()
                if ends:
                    break
        except NonFiniteLossError:
            self._pause()
            total.fill_(math.nan)
        self._started = None
        self.method.end_epoch()
        return step, float(total) / max(seen, 1)

    def seconds_so_far(self) -> float:
        """Time of training up to this moment, without waiting for an accelerator."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self.seconds + running

    def _pause(self) -> None:
        if self._started is not None:
            self.seconds += self._now() - self._started
            self._started = None

    def _batch(self, chosen: Tensor) -> methods.Batch:
        if self.method.full_batch:
            inputs, targets = self.data.train.tensors()  # in their own order, without a copy
            return inputs, targets
        return self.data.train.take(chosen)

    def measure(self, epoch: int, batch_loss: float) -> EpochMetrics:
        """Evaluate the current weights on both parts.

        Args:
            epoch: number of epochs, the last of which need not be finished.
            batch_loss: mean loss of the epoch's mini-batches; NaN before the first epoch.

        Returns:
            The row of the metrics table.
        """
        broken = epoch > 0 and not math.isfinite(batch_loss)
        nothing = math.nan, math.nan
        train_loss, _ = nothing if broken else self._evaluate(self.data.train)
        test_loss, test_metric = nothing if broken else self._evaluate(self.data.test)
        forward, backward = self.method.passes
        return EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            batch_loss=batch_loss,
            test_loss=test_loss,
            test_metric=test_metric if math.isfinite(test_loss) else math.nan,
            seconds=self.seconds,
            forward_passes=forward,
            backward_passes=backward,
            step_sizes=self.method.epoch_step_sizes(),
        )

    @torch.no_grad()
    def _evaluate(self, split: Split) -> tuple[float, float]:
        """Mean loss, and accuracy or root mean squared error in original units."""
        self.model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        hits = torch.zeros((), dtype=torch.int64, device=self.device)
        chunks = (tensor.split(_EVALUATION_CHUNK) for tensor in split.tensors())
        for inputs, targets in zip(*chunks, strict=True):
            outputs = self.model(inputs)
            loss += self.loss_fn(outputs, targets) * len(inputs)
            if self.data.task == "classification":
                hits += (outputs.argmax(dim=1) == targets).sum()
        mean = float(loss) / len(split)
        if self.data.task == "classification":
            return mean, int(hits) / split.targets.numel()
        return mean, math.sqrt(mean) * self.data.target_scale

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Model, method and random states: what continuing bit for bit needs."""
        cuda = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "rng": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any], seconds: float) -> None:
        """Continue from `state_dict()`.

        Args:
            state_dict: what `state_dict` returned.
            seconds: time of training up to then.
        """
        self.model.load_state_dict(state_dict["model"])
        self.method.load_state_dict(state_dict["method"])
        torch.set_rng_state(state_dict["rng"]["cpu"])
        if state_dict["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state_dict["rng"]["cuda"], self.device)
        self.seconds = seconds
