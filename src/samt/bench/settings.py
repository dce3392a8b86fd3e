"""What determines a run, and what is written about it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import samt
from samt.bench.data import Dataset, absolute, short_name
from samt.bench.errors import SettingsError, brief
from samt.bench.method_specs import (
    DEFAULT_METHOD,
    MOST_WHOLE,
    MethodSpec,
    parse_spec,
    whole_number,
)

_LARGEST_SEED = 2**40  # the largest that SAMT takes
_MOST_THREADS = 1024
_MOST = 2**40  # epochs, and samples in a mini-batch: what a clock or a memory ends long before
MOST_UNITS = MOST_WHOLE  # of a layer
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Settings:
    """A run: equal settings give equal numbers, bit for bit, on one machine's CPU.

    Args:
        method: optimizer and its options.
        data: name of the data set.
        data_dir: where data sets that are files lie.
        model: name of the network.
        hidden: widths of the fully connected hidden layers.
        dropout: probability of dropping a hidden unit.
        epochs: number of epochs.
        batch_size: samples in a mini-batch; the last one of an epoch may be smaller.
        seed: of initial weights, batch order, dropout and the optimizer's own randomness.
        device: torch device, or "auto".
        threads: threads of torch, or None for torch's own choice.
    """

    method: MethodSpec = field(default_factory=lambda: parse_spec(DEFAULT_METHOD))
    data: str = "digits"
    data_dir: Path | None = None
    model: str = "mlp"
    hidden: tuple[int, ...] = (300,)
    dropout: float = 0.0
    epochs: int = 20
    batch_size: int = 64
    seed: int = 0
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_channels(self.model)
        checks = {
            "epochs": (0 <= self.epochs <= _MOST, "0 or more, and 2**40 at most"),
            "batch-size": (1 <= self.batch_size <= _MOST, "1 or more, and 2**40 at most"),
            "seed": (0 <= self.seed <= _LARGEST_SEED, "from 0 to 2**40"),
            "dropout": (0 <= self.dropout < 1, "at least 0 and below 1"),
            "threads": (
                self.threads is None or 1 <= self.threads <= _MOST_THREADS,
                f"1 or more, and {_MOST_THREADS} at most",
            ),
            "hidden": (
                all(1 <= width <= MOST_UNITS for width in self.hidden),
                f"widths of 1 or more, and {MOST_UNITS} at most",
            ),
        }
        for name, (holds, wanted) in checks.items():
            if not holds:
                value = brief(getattr(self, name.replace("-", "_")))
                raise SettingsError(f"--{name} {value} is not possible: it must be {wanted}")


def width_text(hidden: Sequence[int]) -> str:
    """The widths of a network's hidden layers, as labels and tables name them.

    Args:
        hidden: one number a layer; empty for a network that has no widths to choose.

    Returns:
        Such as `300` or `512-512`.

    Examples:
        >>> width_text([512, 256])
        '512-256'
    """
    return "-".join(map(str, hidden))


def check_channels(model: str) -> None:
    """Refuse a network that no memory holds, before anybody computes with its numbers.

    Args:
        model: its name, with channels or without.

    Raises:
        SettingsError: it has more than `MOST_UNITS` channels.
    """
    for number in model.partition(":")[2].split(","):
        if number.isdigit() and whole_number(number) is None:
            raise SettingsError(
                f"model '{brief(model)}' has more channels than any memory holds: write "
                f"{MOST_UNITS} at most"
            )


def torch_device(name: str) -> torch.device:
    """The torch device of a `--device` value.

    Args:
        name: "auto" (a CUDA device if there is one) or torch's own name of a device.

    Returns:
        A device that can hold tensors.

    Raises:
        SettingsError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises many kinds, depending on the back end
        raise SettingsError(f"device '{name}' is not available here: use --device cpu") from error
    return device


def as_record(settings: Settings, data: Dataset) -> dict[str, Any]:
    """What `settings.json` holds. All keys but those of `NOT_COMPARED` make the run what it is.

    Args:
        settings: of the run.
        data: the data set that was loaded.

    Returns:
        Plain dicts, lists, numbers and strings.
    """
    scheduled = settings.method.options.get("schedule", "constant") != "constant"
    return {
        "method": settings.method.name,
        "options": dict(settings.method.options),
        "data": absolute(settings.data),  # --resume may come from another folder
        "data_sha256": data.fingerprint,
        "split_seed": data.split_seed,
        "model": settings.model,
        "hidden": list(settings.hidden),
        "dropout": settings.dropout,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "device": settings.device,
        "threads": settings.threads,
        "epochs": settings.epochs,
        # A schedule ends with the budget: then the epochs make the run what it is.
        "horizon": settings.epochs if scheduled else None,
        "data_dir": None if settings.data_dir is None else str(settings.data_dir.absolute()),
        "given": dict(settings.method.given),
        "versions": {
            "samt": samt.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


# Epochs may grow on --resume: what a run does in an epoch does not depend on how many follow.
NOT_COMPARED = frozenset({"epochs", "data_dir", "given", "versions"})


def differences(stored: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Settings that differ between two records, as `name (theirs, not yours)`.

    Args:
        stored: record of the run folder.
        current: record of the run that was asked for.

    Returns:
        One entry for each difference; empty if the runs are the same.
    """

    def flat(record: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in record.items() if key not in NOT_COMPARED}
        # Where files lie is no difference: their checksum is compared, too.
        kept["data"] = short_name(str(kept.get("data")))
        return {**kept.pop("options", {}), **kept}

    theirs, ours = flat(stored), flat(current)
    return [
        f"{name} ({theirs.get(name)}, not {ours.get(name)})"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
