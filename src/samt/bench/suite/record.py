"""A run of the suite: what was asked for, and what came out."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from samt.bench.suite.method import Value
from samt.bench.suite.problem import Part


class Settings(BaseModel):
    """What a run is: the same settings give the same numbers.

    Args:
        problem: the name of the problem.
        method: the name of the method.
        version: the method's version number.
        options: every option of the method, by name, those with their defaults as well.
        seed: the seed of the problem and of torch.
        horizon: the number of steps, as a share of the problem's own.
        part: the part that the run is judged on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: str
    method: str
    version: int = 1
    options: dict[str, Value] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    horizon: float = Field(default=1.0, gt=0)
    part: Part = "test"

    @property
    def identity(self) -> str:
        """A checksum of the settings, by which the store knows the run."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def name(self) -> str:
        """The settings in a line, for people."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        method = f"{self.method}:{options}" if options else self.method
        return f"{self.problem} {method} seed={self.seed} horizon={self.horizon:g} {self.part}"


def _finite(value: object) -> object:
    """Leave out what is no number, and the digits that nobody needs."""
    if not isinstance(value, float | int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


Measured = Annotated[float | None, BeforeValidator(_finite)]


class Outcome(BaseModel):
    """What came out of a run.

    Args:
        final: the metric at the end, lower is better; none if the run diverged.
        diverged: whether a loss, the metric or a weight stopped being a finite number.
        steps: the number of steps that were taken.
        seconds: the processor time of these steps, without evaluations and without preparation.
        curve: the metric after some numbers of steps; 0 is before training.
        state_bytes: what the optimizer kept beside weights and gradients, in bytes for each
            trained parameter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    final: Measured
    diverged: bool
    steps: int
    seconds: Measured
    curve: tuple[tuple[int, Measured], ...] = ()
    state_bytes: Measured = None
