"""Assertions that two results are the same, to the bit or to rounding."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor


def assert_same(actual: Any, expected: Any, where: str = "") -> None:
    """Both have the same structure, types, dtypes and bits."""
    if isinstance(expected, Tensor):
        assert isinstance(actual, Tensor), where
        assert actual.dtype == expected.dtype, where
        assert torch.equal(actual, expected), where
    elif isinstance(expected, dict):
        assert isinstance(actual, dict), where
        assert actual.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same(actual[key], value, f"{where}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert actual == expected, where


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Both have the same names, and tensors that are equal but for rounding."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name].detach(), value, rtol=1e-9, atol=1e-11, msg=partial("{}: {}".format, name)
        )


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    """Both are equal but for what many steps make of rounding."""
    torch.testing.assert_close(
        actual.detach(), expected, rtol=1e-6, atol=1e-8, msg=lambda text: f"{what}: {text}"
    )
