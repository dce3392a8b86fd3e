"""The flags of the command line, with their help texts.

Every flag is None unless it is written: what is not written comes from the run that is being
resumed, or from the defaults of `Settings` and of the method.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from samt.bench.data import DATASETS
from samt.bench.method_specs import DEFAULT_METHOD, METHOD_OPTIONS
from samt.bench.models import MODELS
from samt.bench.settings import Settings

_DATA, _MODEL, _RUN = "Data", "Model", "Run"
_METHOD = "Method"
_SAMT = "Options of samt, with its defaults; other methods take those that they have"
# What `samt compare` compares unless it is told otherwise.
DEFAULT_METHODS = (DEFAULT_METHOD, "samt", "samt:step_size=row", "sgd", "adam")


def _flag(name: str, help_text: str, panel: str, default: object, **more: Any) -> Any:
    # Typer knows only the None, so that the help text has to name what it stands for.
    if default is not None:
        help_text += f" [dim]\\[default: {default}][/dim]"
    return typer.Option(name, help=help_text, rich_help_panel=panel, show_default=False, **more)


def _from_home(path: Path | None) -> Path | None:
    """What a shell makes of ~, but not behind the = of --data-dir=~/data."""
    return None if path is None else path.expanduser()


def _method_flag(name: str, help_text: str, panel: str = _SAMT, metavar: str = "TEXT") -> Any:
    default = METHOD_OPTIONS["samt"][name].default
    flag = "--" + name.replace("_", "-")
    return _flag(flag, help_text, panel, str(default).lower(), metavar=metavar)


def _default_step_sizes() -> str:
    methods: dict[object, list[str]] = {}
    for method, options in METHOD_OPTIONS.items():
        if "lr" in options:
            methods.setdefault(options["lr"].default, []).append(method)
    return "; ".join(f"{lr} for {', '.join(names)}" for lr, names in methods.items())


Data: TypeAlias = Annotated[
    str | None,
    _flag(
        "--data",
        f"Data set: {', '.join(DATASETS)}; or a path of your own (see samt data --help): a table "
        "(.csv), .npz, images (a folder or .zip), IDX files.",
        _DATA,
        Settings.data,
        metavar="NAME",
    ),
]
Results: TypeAlias = Annotated[
    str,
    typer.Option(
        "--results",
        help="Where results lie: a folder, or any URL that fsspec knows, such as s3://bucket/runs.",
        envvar="SAMT_RESULTS",
        metavar="LOCATION",
    ),
]
DataDir: TypeAlias = Annotated[
    Path | None,
    _flag(
        "--data-dir",
        "Folder of the data sets: 'mnist', 'uci' and so on; without it, the user's cache folder, "
        "where samt data prepare puts them.",
        _DATA,
        None,
        envvar="SAMT_DATA_DIR",
        callback=_from_home,
    ),
]
BatchSize: TypeAlias = Annotated[
    int | None,
    _flag("--batch-size", "Samples in a mini-batch.", _DATA, Settings.batch_size),
]
Model: TypeAlias = Annotated[
    str | None,
    _flag(
        "--model",
        f"Network: {', '.join(MODELS)}; channels may follow, as in cnn:32,64 or resnet18:16.",
        _MODEL,
        Settings.model,
        metavar="NAME",
    ),
]
Hidden: TypeAlias = Annotated[
    str | None,
    _flag(
        "--hidden",
        "Widths of the fully connected hidden layers of mlp and cnn, for example 300 or 512,512; "
        "none for none.",
        _MODEL,
        ",".join(map(str, Settings.hidden)),
        metavar="WIDTHS",
    ),
]
Dropout: TypeAlias = Annotated[
    float | None,
    _flag("--dropout", "Probability of dropping a hidden unit.", _MODEL, Settings.dropout),
]
Optimizer: TypeAlias = Annotated[
    str | None,
    _flag(
        "--optimizer",
        f"Method: {', '.join(METHOD_OPTIONS)}; auto-samt needs nothing chosen, samt is the "
        "published one. Options may follow, as in sgd:momentum=0.9; docs/experiments.md lists "
        "those of every method.",
        _METHOD,
        DEFAULT_METHOD,
        metavar="METHOD",
    ),
]
InitialStepSize: TypeAlias = Annotated[
    str | None,
    _flag(
        "--lr",
        "Step size; where the method learns it, the initial one.",
        _METHOD,
        _default_step_sizes(),
        metavar="FLOAT",
    ),
]
WeightDecay: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "weight_decay", "Weight decay, decoupled in SAMT.", panel=_METHOD, metavar="FLOAT"
    ),
]
StepSize: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "step_size",
        "scalar, row, column or element: one for each tensor, output unit, input unit or weight.",
        metavar="NAME",
    ),
]
Head: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "head",
        "offset or dense: how the eta model produces many step sizes.",
        metavar="NAME",
    ),
]
Projection: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "projection",
        "tanh or sigmoid: brings the eta model's outputs between 0 and 1.",
        metavar="NAME",
    ),
]
Parts: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "parts",
        "full, left, right or fixed: the parts of equation (10) that are used.",
        metavar="NAME",
    ),
]
MetaBatch: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "meta_batch",
        "same, subset, fresh or next: the meta loss is that of the batch, of half of it, "
        "of half of another one, or of the next one.",
        metavar="NAME",
    ),
]
MetaStepSize: TypeAlias = Annotated[
    str | None, _method_flag("meta_lr", "Step size of the eta model itself.", metavar="FLOAT")
]
EtaHidden: TypeAlias = Annotated[
    str | None, _method_flag("eta_hidden", "Width of the eta model.", metavar="INTEGER")
]
InnerSteps: TypeAlias = Annotated[
    str | None,
    _method_flag("inner_steps", "Steps on each block in a sweep.", metavar="INTEGER"),
]
Order: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "order",
        "forward, reverse, random or cyclic: order of the blocks; cyclic updates one in each step.",
        metavar="NAME",
    ),
]
Radius: TypeAlias = Annotated[
    str | None,
    _method_flag("radius", "Keep each block within this distance of its start.", metavar="FLOAT"),
]
Relative: TypeAlias = Annotated[
    str | None,
    _method_flag(
        "relative",
        "Learn the step size as a multiple of --lr: true, false, or the constant ρ.",
        metavar="FLOAT",
    ),
]
MaxGradNorm: TypeAlias = Annotated[
    str | None,
    _method_flag("max_grad_norm", "Clip the norm of each block's gradient.", metavar="FLOAT"),
]
Blocks: TypeAlias = Annotated[
    str | None,
    _flag(
        "--blocks",
        "Number of blocks; 1 updates the whole model at once.",
        _SAMT,
        "one for each layer",
        metavar="INTEGER",
    ),
]
Epochs: TypeAlias = Annotated[
    int | None, _flag("--epochs", "Number of epochs.", _RUN, Settings.epochs)
]
Seed: TypeAlias = Annotated[
    int | None,
    _flag("--seed", "Of initial weights, batch order and dropout.", _RUN, Settings.seed),
]
Seeds: TypeAlias = Annotated[
    int,
    typer.Option("--seeds", help="Number of seeds, from --seed upwards.", rich_help_panel=_RUN),
]
Device: TypeAlias = Annotated[
    str | None,
    _flag("--device", "cpu, cuda, cuda:1, …", _RUN, "cuda if there is one", metavar="NAME"),
]
Threads: TypeAlias = Annotated[
    int | None, _flag("--threads", "Threads of torch.", _RUN, "torch's own choice")
]
RunDir: TypeAlias = Annotated[
    Path | None,
    _flag(
        "--run-dir",
        "Folder for everything that is written.",
        _RUN,
        "a name in runs/",
        callback=_from_home,
    ),
]
Resume: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue what is in the run folder, bit for bit; start if there is nothing.",
        rich_help_panel=_RUN,
    ),
]
Overwrite: TypeAlias = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is in the run folder.", rich_help_panel=_RUN),
]
Methods: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        help="Methods to compare, each as name[:option=value,...]; "
        f"without any: {' '.join(DEFAULT_METHODS)}.",
        metavar="METHOD",
        show_default=False,
    ),
]
