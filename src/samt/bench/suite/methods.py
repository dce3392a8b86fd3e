"""The methods of the suite: torch's own optimizers, those of others, and ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from pydantic import ConfigDict
from torch import nn

import samt
from samt.auto.step import Recipe
from samt.bench.errors import SettingsError
from samt.bench.suite.copies import Copies, Leaner
from samt.bench.suite.method import Chosen, Method, Options, product
from samt.bench.suite.peers import PEERS
from samt.bench.suite.stepper import Schedule, Stepper, constant, cosine, trained
from samt.errors import SAMTError, suggestion

Shape = Literal["cosine", "constant"]


def _schedule(shape: Shape, steps: int, warmup: float) -> Schedule:
    return {"cosine": cosine, "constant": constant}[shape](steps, warmup)


class AdamWOptions(Options):
    """The options of AdamW."""

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    schedule: Shape = "cosine"


def _adamw(model: nn.Module, steps: int, options: AdamWOptions) -> Stepper:
    optimizer = torch.optim.AdamW(
        trained(model), lr=options.lr, weight_decay=options.weight_decay, fused=True
    )
    return Stepper(optimizer, schedule=_schedule(options.schedule, steps, options.warmup))


class SGDOptions(Options):
    """The options of SGD."""

    lr: float = 0.1
    momentum: float = 0.9
    schedule: Shape = "cosine"


def _sgd(model: nn.Module, steps: int, options: SGDOptions) -> Stepper:
    optimizer = torch.optim.SGD(
        trained(model), lr=options.lr, momentum=options.momentum, fused=True
    )
    return Stepper(optimizer, schedule=_schedule(options.schedule, steps, 0.0))


class UntunedOptions(Options):
    """The options of what people start with: which of three."""

    start: Literal["adamw-constant", "adamw-cosine", "sgd-cosine"] = "adamw-constant"


def _untuned(model: nn.Module, steps: int, options: UntunedOptions) -> Stepper:
    starts: dict[str, Callable[[], Stepper]] = {
        "adamw-constant": lambda: _adamw(
            model, steps, AdamWOptions(lr=1e-3, warmup=0.0, schedule="constant")
        ),
        "adamw-cosine": lambda: _adamw(model, steps, AdamWOptions(lr=3e-4, warmup=0.0)),
        "sgd-cosine": lambda: _sgd(model, steps, SGDOptions(lr=0.1)),
    }
    return starts[options.start]()


class MuonOptions(Options):
    """The options of Muon, and of AdamW for the rest."""

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices that layers multiply by, but for those of the last layer, which is the head.

    Tables, of which each sample takes a few rows, are none: embeddings and positions.
    """
    found: dict[str, list[nn.Parameter]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
            own = module.named_parameters(recurse=False)
            matrices = [p for n, p in own if p.requires_grad and p.ndim == 2 and n != "position"]
            if matrices:
                found[name] = matrices
    return [one for matrices in list(found.values())[:-1] for one in matrices]


def _muon(model: nn.Module, steps: int, options: MuonOptions) -> Stepper:
    every = trained(model)
    hidden = _hidden_matrices(model)
    inside = {id(one) for one in hidden}
    rest = [one for one in every if id(one) not in inside]
    lr, decay = options.lr, options.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        if not hasattr(torch.optim, "Muon"):
            raise SettingsError("method 'muon' needs torch 2.9: pip install --upgrade torch")
        optimizers.append(
            torch.optim.Muon(hidden, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        )
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=lr, weight_decay=decay, fused=True))
    return Stepper(*optimizers, schedule=cosine(steps, options.warmup))


class AutoSAMTOptions(Options):
    """The options of AutoSAMT: those of the class, the constants of `Recipe`, and two more.

    These are `copies`, and `shows`, which is "x" as it should be or "y" as if nobody had switched.
    """

    model_config = ConfigDict(frozen=True, extra="allow")


class _Forgetful(Stepper):
    """A stepper that evaluates the weights that are trained."""

    def _switch(self, mode: str) -> None:
        """Leave them as they are."""


def _auto_samt(model: nn.Module, steps: int, options: AutoSAMTOptions) -> Stepper:
    given: dict[str, Any] = options.model_dump()
    constants = {field.name for field in dataclasses.fields(Recipe)} & given.keys()
    own: dict[str, Any] = {}
    if constants:
        own["recipe"] = Recipe(**{name: given.pop(name) for name in constants})
    if "copies" in given:
        own["copies"] = given.pop("copies")
        if own["copies"] not in get_args(Copies):
            names = ", ".join(get_args(Copies))
            raise SettingsError(f"copies of method 'auto-samt' is one of {names}")
    shows = given.pop("shows", "x")
    if shows not in ("x", "y"):
        raise SettingsError("shows of method 'auto-samt' is x or y")
    base = Leaner if "copies" in own else samt.AutoSAMT
    kind = type("AutoSAMT", (base,), own) if own else samt.AutoSAMT
    try:
        if shows == "y":
            return _Forgetful(kind(trained(model), **given))
        return Stepper(kind(model, **given))
    except (SAMTError, TypeError) as error:
        raise SettingsError(f"method 'auto-samt': {error}") from error


# Each leaves one ingredient out. The starts of those that do not learn are AdamW's usual ones.
_ABLATIONS: dict[str, Chosen] = {
    "no learning": {"learning": False},
    "no learning, start 0.02": {"learning": False, "start": 0.02},
    "no average": {"averages": False},
    "no relative scale": {"is_relative": False, "start": 1e-3},
    "plain Adam": {
        **{"learning": False, "averages": False, "is_relative": False, "start": 1e-3},
        **{"fades": False, "limits": False},
    },
    "no shared cosine": {"shares": False},
    "no growth by trend": {"growth": 0.0},
    "no brake": {"brake": 0.0},
    "no fading": {"fades": False},
    "no limit": {"limits": False},
    "no early lesson": {"early_lesson": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "y evaluated": {"shows": "y"},
    # Two copies of the weights in place of three.
    "no lag": {"copies": "no lag"},
    "v in rows": {"copies": "v in rows"},
    "v in factors": {"copies": "v in factors"},
}


_OWN = (
    Method(
        "auto-samt",
        AutoSAMTOptions,
        _auto_samt,
        "the class as it is, without an option",
        ablations=_ABLATIONS,
        version=3,
    ),
    Method(
        "adamw",
        AdamWOptions,
        _adamw,
        "tuned: six rates, with and without decay 0.1 and a warm-up of 5 %, each with a cosine",
        grid=product(
            lr=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            weight_decay=(0.0, 0.1),
            warmup=(0.0, 0.05),
        ),
    ),
    Method(
        "sgd",
        SGDOptions,
        _sgd,
        "tuned: six rates with momentum 0.9, each with a cosine",
        grid=product(lr=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    ),
    Method(
        "adamw-fixed",
        AdamWOptions,
        _adamw,
        "the rate 1e-3 and the decay 0.01 of torch, a warm-up of 5 % and a cosine, everywhere",
    ),
    Method(
        "untuned",
        UntunedOptions,
        _untuned,
        "the best, on the validation part, of AdamW at a constant 1e-3, AdamW at 3e-4 with a "
        "cosine and SGD with momentum at 0.1 with a cosine",
        grid=product(start=("adamw-constant", "adamw-cosine", "sgd-cosine")),
    ),
    Method(
        "muon",
        MuonOptions,
        _muon,
        "torch's Muon for matrices but embeddings and head, scaled to AdamW's updates "
        "(match_rms_adamw), which is meant to take AdamW's rate and decay as they are: those of "
        "adamw-fixed; AdamW for the rest",
        version=2,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in (*_OWN, *PEERS)}


def method_named(name: str) -> Method:
    """The method of a name.

    Raises:
        SettingsError: there is none.
    """
    if name not in METHODS:
        raise SettingsError(f"unknown method '{name}': {suggestion(name, METHODS)}")
    return METHODS[name]
