"""What a method of the suite is: options, what is tried of them, a way to make its steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from samt.bench.errors import SettingsError
from samt.bench.suite.stepper import Stepper

Value: TypeAlias = bool | int | float | str | None
Chosen: TypeAlias = Mapping[str, Value]


class Options(BaseModel):
    """The options of a method: a field for each, with its type and its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Method:
    """A method of the suite.

    Args:
        name: its name on the command line and in tables.
        options: the class of its options.
        make: a function from a model, the number of steps of the training and the options to
            what takes the steps.
        advice: where its settings come from, in one sentence.
        grid: the options that are tried on the validation part; empty for a method that runs
            with its defaults.
        ablations: sets of options of which each leaves something out, by name.
        version: a number that is raised whenever the method's numbers change.
        package: the module that it needs beside torch.
        averages: whether it is judged at weights that no forward pass of training has seen, so
            that the running statistics of batch norm are made anew before each evaluation.
    """

    name: str
    options: type[Options]
    make: Callable[[nn.Module, int, Any], Stepper]
    advice: str
    grid: Sequence[Chosen] = ()
    ablations: Mapping[str, Chosen] = field(default_factory=dict)
    version: int = 1
    package: str | None = None
    averages: bool = False

    def complete(self, given: Chosen) -> dict[str, Value]:
        """Check options and add the defaults of those that are not given.

        Args:
            given: options by name.

        Returns:
            Every option of the method, by name.

        Raises:
            SettingsError: an option is unknown or its value is impossible.
        """
        try:
            return self.options.model_validate(dict(given)).model_dump()
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "options"
            raise SettingsError(
                f"{name} of method '{self.name}': {first['msg']}; it has the options "
                f"{', '.join(self.options.model_fields) or 'none'}"
            ) from error

    def stepper(self, model: nn.Module, steps: int, given: Chosen) -> Stepper:
        """Make what takes the steps of one training.

        Args:
            model: the model with its initial weights.
            steps: the number of steps of the training.
            given: options by name; defaults stand for those that are absent.

        Raises:
            SettingsError: an option is wrong, or the package of the method is not installed.
        """
        self.check_installed()
        return self.make(model, steps, self.options.model_validate(self.complete(given)))

    def check_installed(self) -> None:
        """Look whether the package that the method needs is there.

        Raises:
            SettingsError: it is not.
        """
        if self.package is not None and find_spec(self.package) is None:
            raise SettingsError(
                f"method '{self.name}' needs the package {self.package}: "
                f'pip install "samt[peers]"'
            )


def product(**values: Sequence[Value]) -> list[dict[str, Value]]:
    """All combinations of some values of options.

    >>> product(lr=(0.1, 0.2), warmup=(0,))
    [{'lr': 0.1, 'warmup': 0}, {'lr': 0.2, 'warmup': 0}]
    """
    return [
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    ]
