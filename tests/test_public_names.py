"""What `import samt` offers."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import torch

import samt
from samt import baselines


def test_public_names_are_these() -> None:
    assert sorted(samt.__all__) == [
        "AutoSAMT", "History", "Passes", "SAMT", "baselines", "blocks", "closure", "errors",
    ]  # fmt: skip
    assert all(hasattr(samt, name) for name in samt.__all__)
    assert issubclass(samt.SAMT, torch.optim.Optimizer)
    assert issubclass(samt.AutoSAMT, torch.optim.Optimizer)
    assert sorted(baselines.__all__) == [
        "AdamHD", "BCD", "DLADMM", "Dante", "MDLAM", "SGDHD", "SGDNesterovHD", "ScaledADMM",
    ]  # fmt: skip


def test_signatures_are_these() -> None:
    assert list(inspect.signature(samt.SAMT).parameters) == [
        "params", "lr", "step_size", "head", "projection", "parts", "meta_batch", "meta_lr",
        "eta_hidden", "inner_steps", "order", "radius", "relative", "weight_decay",
        "max_grad_norm", "replay", "compile", "process_group", "seed",
    ]  # fmt: skip
    assert list(inspect.signature(samt.AutoSAMT).parameters) == [
        "params", "lr", "betas", "weight_decay", "learning", "process_group",
    ]  # fmt: skip
    step = inspect.signature(samt.SAMT.step)
    assert list(step.parameters) == ["self", "closure", "meta_closure"]
    assert list(inspect.signature(samt.AutoSAMT.step).parameters) == ["self", "closure"]
    for one in (samt.SAMT, samt.AutoSAMT):
        for name in ("state_dict", "load_state_dict", "add_param_group", "zero_grad"):
            ours = inspect.signature(getattr(one, name))
            theirs = inspect.signature(getattr(torch.optim.Optimizer, name))
            assert list(ours.parameters) == list(theirs.parameters)


def test_types_are_shipped() -> None:
    spec = importlib.util.find_spec("samt")
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()
