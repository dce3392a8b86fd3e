"""What `import samt` offers, and what it needs."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import torch

import samt
from samt import baselines


def test_public_names_are_these() -> None:
    assert sorted(samt.__all__) == [
        "AutoSAMT", "History", "SAMT", "Passes", "SAMT", "blocks", "closure", "errors",
    ]  # fmt: skip
    assert issubclass(samt.AutoSAMT, torch.optim.Optimizer)
    assert sorted(baselines.__all__) == [
        "AdamHD", "BCD", "DLADMM", "Dante", "MDLAM", "SGDHD", "SGDNesterovHD", "ScaledADMM",
    ]  # fmt: skip


def test_signatures_are_these() -> None:
    assert list(inspect.signature(samt.AutoSAMT).parameters) == [
        "params",
        "lr",
        "preset",
        "options",
    ]
    assert list(inspect.signature(samt.AutoSAMT).parameters) == [
        "params", "lr", "preset", "total_steps", "betas", "eps", "weight_decay", "meta_every",
        "meta_lr", "eta_hidden", "projection", "process_group", "seed",
    ]  # fmt: skip
    assert list(inspect.signature(samt.SAMT).parameters) == [
        "params", "lr", "preset", "step_size", "head", "projection", "parts", "meta_batch",
        "meta_lr", "eta_hidden", "inner_steps", "order", "radius", "relative", "weight_decay",
        "max_grad_norm", "replay", "compile", "process_group", "seed",
    ]  # fmt: skip
    for one in (samt.AutoSAMT, samt.AutoSAMT, samt.SAMT):
        assert list(inspect.signature(one.step).parameters) == ["self", "closure", "meta_closure"]
    for name in ("state_dict", "load_state_dict", "add_param_group", "zero_grad"):
        ours = inspect.signature(getattr(samt.AutoSAMT, name))
        assert list(ours.parameters) == list(
            inspect.signature(getattr(torch.optim.Optimizer, name)).parameters
        )


def test_importing_samt_needs_torch_alone() -> None:
    """With every other distribution of this environment made unimportable."""
    program = """
import sys, torch
torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # torch imports more on first use
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("samt", "torch"):
            raise ImportError(f"samt imported {name}")
sys.meta_path.insert(0, Refuse())
import samt, samt.baselines
assert not any(name.startswith("samt.bench") for name in sys.modules)
model = torch.nn.Linear(3, 2)
optimizer = samt.SAMT(samt.blocks(model))
loss = torch.nn.functional.mse_loss
optimizer.step(samt.closure(model, loss, torch.ones(4, 3), torch.zeros(4, 2)))
print("stepped", optimizer.passes)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stdout == "stepped Passes(forward=2, backward=2)\n", result.stderr


def test_types_are_shipped() -> None:
    spec = importlib.util.find_spec("samt")
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()
