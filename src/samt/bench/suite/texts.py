"""Text that is on every machine that runs the bench, cut into samples to be continued."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samt.bench.data import Split
from samt.bench.errors import DataError
from samt.bench.suite.samples import Parts, shuffled

CHARACTERS, LENGTH = 128, 64
_MODULES = 120
_EVALUATED = 128


@lru_cache(maxsize=1)
def standard_library() -> tuple[str, ...]:
    """The source of the first modules of Python's standard library by name.

    Returns:
        The text of each; it differs a little from one version of Python to another.

    Raises:
        DataError: this Python comes without source files.
    """
    paths = sorted(Path(os.__file__).parent.glob("*.py"))[:_MODULES]
    if len(paths) < _MODULES:
        raise DataError(
            f"only {len(paths)} modules of the standard library lie beside {os.__file__}: use a "
            f"Python that comes with its source"
        )
    return tuple(path.read_text(encoding="utf-8") for path in paths)


@lru_cache(maxsize=1)
def topics() -> tuple[str, ...]:
    """What Python's `help` says about the language, in English, topic by topic."""
    from pydoc_data.topics import topics as by_name

    return tuple(by_name[name] for name in sorted(by_name))


@lru_cache(maxsize=2)
def continued(texts: tuple[str, ...]) -> Parts:
    """Samples of `LENGTH` characters, each with those that follow as its targets.

    Args:
        texts: what is joined; its first eight tenths are for training, the next for validation,
            the last for test.

    Returns:
        Numbers from 0 to 127; any character that has none of these counts as number 127. Training
        samples overlap by half, and none reaches into another part.
    """
    joined = "".join(texts).encode("utf-32-le")
    numbers = torch.from_numpy(np.frombuffer(joined, dtype=np.uint32).astype(np.int64))
    numbers = numbers.clamp_(max=CHARACTERS - 1)
    tenth = len(numbers) // 10
    train, validation, test = numbers[: 10 * tenth].split([8 * tenth, tenth, tenth])
    return Parts(
        _windows(train, LENGTH // 2),
        shuffled(_windows(validation, LENGTH), _EVALUATED),
        shuffled(_windows(test, LENGTH), _EVALUATED),
    )


def _windows(numbers: Tensor, step: int) -> Split:
    windows = numbers.unfold(0, LENGTH + 1, step)
    return Split(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())
