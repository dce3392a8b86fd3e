"""Experiment files: what is run, on which data, with which budget. YAML, checked by pydantic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from samt.bench import models
from samt.bench.data.registry import find
from samt.bench.errors import ExperimentError, UserError
from samt.bench.experiments.yaml_lines import Lines, read_yaml
from samt.bench.method_specs import MethodSpec, parse_spec
from samt.errors import suggestion

Scalar: TypeAlias = bool | int | float | str | None
_FOLDER = "paper"


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _widths(value: Any) -> Any:
    return [_listed(width) for width in _listed(value)]


def _seeds(value: Any) -> Any:
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


Names: TypeAlias = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
Width: TypeAlias = Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=1000)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**40)]
Seeds: TypeAlias = Annotated[list[Seed], BeforeValidator(_seeds), Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Budget(_Strict):
    """How long a cell trains: exactly one of the three.

    Args:
        epochs: times the training part, whole or not.
        passes: forward and backward passes together; the step that reaches it is the last.
        seconds: of training, evaluation excluded; results then depend on the machine.
    """

    epochs: Annotated[float, Field(ge=0, strict=False)] | None = None
    passes: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0, strict=False)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of epochs, passes and seconds")
        return self


class Tuning(_Strict):
    """How options are chosen on the validation part.

    Args:
        seeds: of the runs that decide.
        budget: of each of them; the budget of the experiment if there is none.
    """

    seeds: Seeds = [0]
    budget: Budget | None = None


class Method(_Strict):
    """A method, or several that differ in their options.

    Args:
        method: as on the command line, for example `samt:step_size=row`.
        label: its name in tables and figures; the method itself by default.
        options: more options; a list of values makes a method of each.
        tune: values among which the validation part decides.
    """

    method: str
    label: str | None = None
    options: dict[str, Scalar | list[Scalar]] = {}
    tune: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> Method:
        both = self.options.keys() & self.tune.keys()
        if both:
            raise ValueError(f"{min(both)} stands in options and in tune: remove one")
        for values in (self.options, self.tune):
            for name, value in values.items():
                for one in _listed(value):
                    self.spec({name: one})
        return self

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


class Experiment(_Strict):
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
    title: str = ""
    data: Names
    model: Names = ["mlp"]
    width: Annotated[list[Width], BeforeValidator(_widths), Field(min_length=1)] = [[300]]
    methods: Annotated[list[Method], Field(min_length=1)]
    seeds: Seeds = [0]
    batch_size: Annotated[int, Field(ge=1)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    budget: Budget
    evaluate: Annotated[float, Field(gt=0, strict=False)] = 1.0
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split: Seed | Annotated[str, Field(pattern="^seed$")] = 0
    tuning: Tuning = Tuning()
    timeout: Annotated[float, Field(gt=0, strict=False)] | None = None
    exclude: list[dict[str, Scalar | list[int]]] = []

    @field_validator("data", "model")
    @classmethod
    def _known(cls, names: list[str], info: Any) -> list[str]:
        check: Callable[[str], object] = find if info.field_name == "data" else models.parse
        try:
            for name in names:
                check(name)
        except UserError as error:
            raise ValueError(str(error)) from error
        return names

    @field_validator("exclude")
    @classmethod
    def _keys(cls, exclude: list[dict[str, Any]]) -> list[dict[str, Any]]:
        allowed = ("data", "model", "width", "method", "seed")
        for key in (key for one in exclude for key in one):
            if key not in allowed:
                raise ValueError(f"unknown key '{key}': {suggestion(key, allowed)}")
        return exclude


def option_text(value: Scalar) -> str:
    """An option's value as it is written on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def load_experiment(path: Path, profile: str | None = None) -> Experiment:
    """Read an experiment file.

    Args:
        path: of it.
        profile: the key of its `profiles` whose values replace those of the file; by default
            `paper` if there is one.

    Returns:
        The experiment.

    Raises:
        ExperimentError: file, line and field of the first mistake.
    """
    content, lines = read_yaml(path)
    profiles = content.pop("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(v, dict) for v in profiles.values()):
        raise lines.error(("profiles",), "profiles map a name to the fields that it replaces")
    if profile is None and "paper" in profiles:
        profile = "paper"
    if profile is not None and profile not in profiles:
        known = suggestion(profile, profiles) if profiles else "the file has none"
        raise ExperimentError(f"{path} has no profile '{profile}': {known}")
    experiment = _checked(content, (), lines)
    for name, changes in profiles.items():  # all of them, so that none rots
        changed = _checked({**content, **changes}, ("profiles", name), lines, changes)
        experiment = changed if name == profile else experiment
    return experiment


def _checked(
    content: dict[str, Any], prefix: tuple[str, ...], lines: Lines, own: Mapping[str, Any] = {}
) -> Experiment:
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        first, *more = error.errors(include_url=False)
        where = tuple(first["loc"])
        path = (*prefix, *where) if where and where[0] in own else where
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            fields = Experiment.model_fields if len(where) == 1 else ()
            message = f"unknown field: {suggestion(str(where[-1]), fields)}" if fields else message
        text = f"{message} (and {len(more)} more)" if more else message
        raise lines.error(path, text) from error


def folders() -> tuple[Path, Path]:
    """Where experiment files are known by name: in the package, and here, which wins."""
    return Path(__file__).parents[1] / _FOLDER, Path(_FOLDER)


def locate(name: str) -> list[Path]:
    """The files of an experiment.

    Args:
        name: a path, the name of a file in the folder `paper`, or `paper` for all of them. The
            folder is looked for here and in the package.

    Returns:
        One path, or those of all experiments of the paper.

    Raises:
        ExperimentError: there is none.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise ExperimentError(f"there is no {path}: check the path of the experiment file")
        return [path]
    known: dict[str, Path] = {}
    for folder in experiment_folders():
        known |= {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if name == _FOLDER and known:
        return list(known.values())
    if name not in known:
        close = f"{suggestion(name, known)}; " if known else ""
        raise ExperimentError(
            f"there is no experiment '{name}': {close}or give the path of a .yaml file"
        )
    return [known[name]]


def experiment_folders() -> list[Path]:
    """Where experiments by name are looked for; a later folder wins."""
    here = Path(__file__)
    packaged, checkout = here.parents[1] / _FOLDER, here.parents[4] / _FOLDER
    return [packaged if packaged.is_dir() else checkout, Path(_FOLDER)]
