"""Optimizers in their authors' packages, with the settings that the authors advise."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW

from samt.bench.suite.method import Method, Options
from samt.bench.suite.stepper import AveragedStepper, LossStepper, Stepper, cosine, trained


class ProdigyOptions(Options):
    """The options of Prodigy."""

    weight_decay: float = 0.0
    safeguard_warmup: bool = False
    use_bias_correction: bool = False


def _prodigy(model: nn.Module, steps: int, options: ProdigyOptions) -> Stepper:
    from prodigyopt import Prodigy

    optimizer = Prodigy(trained(model), lr=1.0, **options.model_dump())
    return Stepper(optimizer, schedule=cosine(steps))


class ScheduleFreeOptions(Options):
    """The options of Schedule-Free AdamW."""

    lr: float = 0.0025
    weight_decay: float = 0.0
    warmup: float = 0.05


def _schedule_free(model: nn.Module, steps: int, options: ScheduleFreeOptions) -> Stepper:
    from schedulefree import AdamWScheduleFree

    optimizer = AdamWScheduleFree(
        trained(model),
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup_steps=round(options.warmup * steps),
    )
    optimizer.train()
    return Stepper(optimizer)


class ProdigyScheduleFreeOptions(Options):
    """The options of Prodigy with Schedule-Free."""

    weight_decay: float = 0.0


def _prodigy_schedule_free(
    model: nn.Module, steps: int, options: ProdigyScheduleFreeOptions
) -> Stepper:
    from prodigyplus.prodigy_plus_schedulefree import ProdigyPlusScheduleFree

    # With one group it splits nothing either way, but says so for each run.
    optimizer = ProdigyPlusScheduleFree(
        trained(model), lr=1.0, weight_decay=options.weight_decay, split_groups=False
    )
    optimizer.train()
    return Stepper(optimizer)


class MechanicOptions(Options):
    """The options of Mechanic around AdamW."""

    s_decay: float = 0.01
    warmup: float = 0.05


def _mechanic(model: nn.Module, steps: int, options: MechanicOptions) -> Stepper:
    from mechanic_pytorch import mechanize

    tuned = mechanize(AdamW, s_decay=options.s_decay)
    optimizer = tuned(trained(model), lr=1.0, weight_decay=0.0)
    return Stepper(optimizer, schedule=cosine(steps, options.warmup))


class DoGOptions(Options):
    """The options of DoG and LDoG."""

    reps_rel: float | None = None
    gamma: float = 8.0


def _dog(model: nn.Module, options: DoGOptions, by_layer: bool) -> Stepper:
    from dog import DoG, LDoG, PolynomialDecayAverager

    normed = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in model.modules())
    first = options.reps_rel or (1e-4 if normed else 1e-6)
    optimizer = (LDoG if by_layer else DoG)(trained(model), reps_rel=first)
    averager = PolynomialDecayAverager(model, gamma=options.gamma)
    return AveragedStepper(optimizer, model, averager.step, averager.averaged_model)


class MoMoAdamOptions(Options):
    """The options of MoMo-Adam."""

    lr: float = 1e-2
    weight_decay: float = 0.0


def _momo_adam(model: nn.Module, steps: int, options: MoMoAdamOptions) -> Stepper:
    from momo import MomoAdam

    optimizer = MomoAdam(trained(model), **options.model_dump())
    return LossStepper(optimizer, optimizer.step)


PEERS = (
    Method(
        "prodigy",
        ProdigyOptions,
        _prodigy,
        "its authors' rule of thumb: rate 1 with a cosine and no warm-up, for which they advise "
        "neither the safeguard nor bias correction (README of prodigyopt 1.1)",
        package="prodigyopt",
    ),
    Method(
        "schedule-free",
        ScheduleFreeOptions,
        _schedule_free,
        "AdamWScheduleFree at its default rate 0.0025 with the warm-up that its authors "
        "recommend, here 5 %",
        package="schedulefree",
        averages=True,
    ),
    Method(
        "prodigy-schedule-free",
        ProdigyScheduleFreeOptions,
        _prodigy_schedule_free,
        "the defaults of prodigy-plus-schedule-free, which it calls right for most: rate 1, no "
        "schedule",
        package="prodigyplus",
        averages=True,
    ),
    Method(
        "mechanic",
        MechanicOptions,
        _mechanic,
        "around AdamW at rate 1 with its default s_decay 0.01; its authors leave the schedule "
        "to the user, here a warm-up of 5 % and a cosine",
        package="mechanic_pytorch",
    ),
    Method(
        "dog",
        DoGOptions,
        lambda model, steps, options: _dog(model, options, by_layer=False),
        "its default reps_rel 1e-6, with batch norm 1e-4, and its polynomial average for "
        "evaluation, which its authors call crucial",
        package="dog",
    ),
    Method(
        "ldog",
        DoGOptions,
        lambda model, steps, options: _dog(model, options, by_layer=True),
        "DoG for each tensor, with the same settings",
        package="dog",
    ),
    Method(
        "momo-adam",
        MoMoAdamOptions,
        _momo_adam,
        "the constant rate 1e-2 and the lower bound 0 of the loss that its authors advise",
        package="momo",
    ),
)
