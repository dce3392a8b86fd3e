"""What an experiment is: what is run, on which data, with which budget; checked by pydantic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from samt.bench import models
from samt.bench.data.registry import find, short_name
from samt.bench.errors import UserError
from samt.bench.experiments.mistakes import field, mistake
from samt.bench.method_specs import MethodSpec, parse_spec
from samt.bench.settings import MOST_SEEDS, MOST_UNITS, check_channels, width_text
from samt.errors import suggestion

Scalar: TypeAlias = bool | int | float | str | None
_MOST_VARIANTS = 10_000  # of a method
_MOST_CELLS = 100_000


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _widths(value: Any) -> Any:
    return [_listed(width) for width in _listed(value)]


def _seeds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if not 1 <= value <= MOST_SEEDS:
        raise ValueError(f"write how many seeds, from 1 to {MOST_SEEDS}, or a list of them")
    return list(range(value))


def _line(text: str) -> str:
    line = " ".join(text.split())
    if not line.isprintable():
        raise ValueError("this has characters that cannot be printed: remove them")
    return line


Line: TypeAlias = Annotated[str, AfterValidator(_line)]
Names: TypeAlias = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
Units: TypeAlias = Annotated[int, Field(ge=1, le=MOST_UNITS)]
Width: TypeAlias = Annotated[list[Units], Field(max_length=1000)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**40)]
Seeds: TypeAlias = Annotated[list[Seed], BeforeValidator(_seeds), Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Budget(Strict):
    """How long a cell trains: exactly one of the three.

    Args:
        epochs: times the training part, whole or not.
        passes: forward and backward passes together; the step that reaches it is the last.
        seconds: of training, evaluation excluded; results then depend on the machine.
    """

    epochs: Annotated[float, Field(ge=0, le=1 << 40)] | None = None
    passes: Annotated[int, Field(ge=1, le=1 << 60)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of epochs, passes and seconds")
        return self


class Tuning(Strict):
    """How options are chosen on the validation part.

    Args:
        seeds: of the runs that decide.
        budget: of each of them; the budget of the experiment if there is none.
    """

    seeds: Seeds = [0]
    budget: Budget | None = None


class Method(Strict):
    """A method, or several that differ in their options.

    Args:
        method: as on the command line, for example `samt:step_size=row`.
        label: its name in tables and figures; the method itself by default.
        options: more options; a list of values makes a method of each.
        tune: values among which the validation part decides.
        budget: of this method alone, where an equal one means nothing, as between iterations over
            all samples and mini-batches; results show it.
    """

    method: str
    label: Line | None = None
    options: dict[str, Scalar | list[Scalar]] = {}
    tune: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    budget: Budget | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> Method:
        with field("method"):
            given = self.spec({}).given
        for name in (*self.options, *self.tune):
            tuned = name in self.tune
            with field("tune" if tuned else "options", name):
                if name in given or (tuned and name in self.options):
                    above = "method" if name in given else "options"
                    raise ValueError(f"{name} stands in {above}, too: remove one")
                values = _listed(self.tune[name] if tuned else self.options[name])
                if not values:
                    raise ValueError("write at least one value")
                for value in values:
                    self.spec({name: value})
        for name, lists in (
            ("options", map(_listed, self.options.values())),
            ("tune", self.tune.values()),
        ):
            if math.prod(map(len, lists)) > _MOST_VARIANTS:
                with field(name):
                    raise ValueError(f"these make more than {_MOST_VARIANTS} methods: write fewer")
        return self

    def variants(self) -> Iterator[tuple[str, dict[str, Scalar]]]:
        """Label and options for each combination of those options that are lists."""
        grid = {name: value for name, value in self.options.items() if isinstance(value, list)}
        fixed = {name: v for name, v in self.options.items() if not isinstance(v, list)}
        label = self.label or self.spec(fixed).label
        for values in itertools.product(*grid.values()):
            varied = dict(zip(grid, values, strict=True))
            yield label + suffix(varied, ":" not in label), {**fixed, **varied}

    def spec(self, options: Mapping[str, Scalar]) -> MethodSpec:
        """The method with some options.

        Raises:
            ValueError: the method or an option does not exist.
        """
        try:
            return parse_spec(
                self.method, {name: option_text(value) for name, value in options.items()}
            )
        except UserError as error:
            raise ValueError(str(error)) from error


class Experiment(Strict):
    """A grid over data, models, widths, methods, their options and seeds.

    Args:
        name: of the results; letters, digits, dots, hyphens.
        title: one line for people.
        data: names of data sets, or paths.
        model: names of networks.
        width: widths of the fully connected hidden layers, a number or a list for each network.
        methods: what is compared.
        seeds: a list, or how many.
        batch_size: samples in a mini-batch.
        dropout: probability of dropping a hidden unit.
        budget: equal for all methods.
        evaluate: epochs between two evaluations; a fraction evaluates within epochs.
        validation: share of the training part by which options are chosen.
        split: seed of splits that are drawn, or number of a published one; `seed` takes a cell's.
        tuning: how options are chosen.
        timeout: seconds after which a cell is given up.
        exclude: combinations to leave out: each a mapping of data, model, width, method or seed
            to a value, all of which must agree.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,60}$")]
    title: Line = ""
    data: Names
    model: Names = ["mlp"]
    width: Annotated[list[Width], BeforeValidator(_widths), Field(min_length=1)] = [[300]]
    methods: Annotated[list[Method], Field(min_length=1)]
    seeds: Seeds = [0]
    batch_size: Annotated[int, Field(ge=1, le=1 << 40)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    budget: Budget
    evaluate: Annotated[float, Field(gt=0)] = 1.0
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split: Seed | Literal["seed"] = 0
    tuning: Tuning = Tuning()
    timeout: Annotated[float, Field(gt=0)] | None = None
    exclude: list[dict[str, Scalar | list[int]]] = []

    @field_validator("data", "model")
    @classmethod
    def _known(cls, names: list[str], info: Any) -> list[str]:
        check = _check_data if info.field_name == "data" else _check_model
        for index, name in enumerate(names):
            with field(index):
                check(name)
        return names

    @field_validator("exclude")
    @classmethod
    def _keys(cls, exclude: list[dict[str, Any]]) -> list[dict[str, Any]]:
        allowed = ("data", "model", "width", "method", "seed")
        for index, one in enumerate(exclude):
            if not one:
                raise mistake("this leaves out everything: write at least one key", index)
            for key in one:
                if key not in allowed:
                    known = suggestion(key, allowed)
                    raise mistake(f"unknown key '{key}': {known}", index, key)
        return exclude

    @model_validator(mode="after")
    def _nothing_twice(self) -> Experiment:
        labels = [
            (index, label)
            for index, method in enumerate(self.methods)
            for label, _ in method.variants()
        ]
        places = len(self.data) * len(self.model) * len(self.width)
        if places * len(labels) * len(self.seeds) > _MOST_CELLS:
            raise mistake(
                f"this makes more than {_MOST_CELLS} cells: write several files", "methods"
            )
        repeated = _repeated([label for _, label in labels])
        if repeated is not None:
            index, label = labels[repeated]
            raise mistake(f"'{label}' stands twice: remove one, or label it", "methods", index)
        lists: dict[tuple[str, ...], Sequence[Any]] = {
            ("data",): [short_name(name) for name in self.data],  # as tables and labels name it
            ("model",): self.model,
            ("width",): [tuple(width) for width in self.width],
            ("seeds",): self.seeds,
            ("tuning", "seeds"): self.tuning.seeds,
        }
        for path, values in lists.items():
            repeated = _repeated(values)
            if repeated is not None:
                value = values[repeated]
                text = width_text(value) if isinstance(value, tuple) else value
                raise mistake(f"{text} stands twice: remove one", *path, repeated)
        return self


def _check_data(name: str) -> None:
    """Refuse what is neither a registered name nor a path; whether it is here shows later."""
    try:
        find(name)
        short_name(name)
    except UserError as error:
        raise ValueError(str(error)) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"this is no path ({reason}): write another one") from error


def _check_model(name: str) -> None:
    try:
        check_channels(name)
        models.parse(name)
    except UserError as error:
        raise ValueError(str(error)) from error


def _repeated(values: Sequence[Hashable]) -> int | None:
    """Index of the first value that stands before, too."""
    seen: set[Hashable] = set()
    for index, value in enumerate(values):
        if value in seen:
            return index
        seen.add(value)
    return None


def suffix(options: Mapping[str, Scalar], first: bool = True) -> str:
    """Options as a label shows them, after those that it may have."""
    text = ",".join(f"{name}={option_text(value)}" for name, value in options.items())
    return f"{':' if first else ','}{text}" if text else ""


def option_text(value: Scalar) -> str:
    """An option's value as it is written on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)
