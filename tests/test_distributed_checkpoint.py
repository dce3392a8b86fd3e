"""`torch.distributed.checkpoint` saves and loads the optimizers as it does those of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import samt
from samt.baselines import AdamHD

from .support.batches import batch
from .support.models import MODELS
from .support.processes import World
from .support.ranks import LOSS, part

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed"),
    # torch's own: its deprecated storage types, and that one process alone is meant.
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]
Run = tuple[nn.Module, Optimizer]
KINDS: dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
    "auto-samt": (samt.AutoSAMT, {}),
    "samt": (samt.SAMT, {"meta_batch": "next", "order": "cyclic", "step_size": "row"}),
    "samt, fixed": (samt.SAMT, {"parts": "fixed", "order": "cyclic"}),
    "adam-hd": (AdamHD, {}),
}


def start(kind: str, seed: int, rank: int, size: int) -> Run:
    torch.manual_seed(seed)
    model = MODELS["convolutional"]().float()
    if size > 1:
        model = DistributedDataParallel(model)
    make, options = KINDS[kind]
    return model, make(samt.blocks(model), **options)


def train(run: Run, steps: Iterable[int], rank: int, size: int) -> None:
    for step in steps:
        torch.manual_seed(step)
        inputs, targets = part(batch("convolutional", step, 16), rank, size)
        run[1].zero_grad()
        LOSS(run[0](inputs.float()), targets).backward()
        run[1].step()


def tensors(run: Run) -> list[Tensor]:
    state = run[1].state_dict()["state"].values()
    own = [value for entry in state for value in entry.values() if isinstance(value, Tensor)]
    # Buffers of batch norm are each rank's own, of which the checkpoint has those of one rank.
    parallel = isinstance(run[0], DistributedDataParallel)
    weights = run[0].parameters() if parallel else run[0].state_dict().values()
    return copy.deepcopy([*(tensor.detach() for tensor in weights), *own])


def resume(rank: int, size: int, kind: str, folder: str, stop: int) -> list[bool]:
    """Save after `stop` steps, load into another run, and compare what both do then."""
    run = start(kind, 1, rank, size)
    train(run, range(stop), rank, size)
    model, optimizer = get_state_dict(*run)
    no_dist = size == 1
    save({"model": model, "optimizer": optimizer}, checkpoint_id=folder, no_dist=no_dist)
    train(run, range(stop, 20), rank, size)

    again = start(kind, 2, rank, size)
    train(again, range(2), rank, size)  # what is there is overwritten
    again[1].zero_grad()
    model, optimizer = get_state_dict(*again)
    states: dict[str, Any] = {"model": model, "optimizer": optimizer}
    load(states, checkpoint_id=folder, no_dist=no_dist)
    set_state_dict(*again, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    train(again, range(stop, 20), rank, size)
    groups = [[{**g, "params": 0} for g in r[1].state_dict()["param_groups"]] for r in (run, again)]
    same = [torch.equal(a, b) for a, b in zip(tensors(run), tensors(again), strict=True)]
    return [*same, groups[0] == groups[1]]


@pytest.mark.parametrize("stop", [0, 10, 12])  # after 12 the parameters hold the average
@pytest.mark.parametrize("kind", KINDS)
def test_one_process_goes_on_bit_for_bit(kind: str, stop: int, tmp_path: Path) -> None:
    if kind == "adam-hd" and stop == 0:
        pytest.skip("it has no state before the first step")
    assert all(resume(0, 1, kind, str(tmp_path), stop))


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_go_on_bit_for_bit(
    kind: str, worlds: Callable[[int], World], tmp_path: Path
) -> None:
    for same in worlds(2).run(resume, kind, str(tmp_path), 12):
        assert all(same)
