"""Checksums of everything that must come out the same each time; also a script that prints them."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import samt
from samt.bench.data import load
from samt.bench.method_specs import SOLVERS, parse_spec
from samt.bench.settings import Settings
from samt.bench.training import Trainer

METHODS = (
    *("auto-samt", "samt:step_size=element,order=random", "sgd:momentum=0.9", "adam"),
    *("sgd-hd", "adam-hd", "prodigy", "schedule-free", "dante", *SOLVERS),
)


def data_digests() -> dict[str, str]:
    """Of data sets, splits, the order of batches, generated data and first weights."""
    found = {}
    for name, validation in (("digits", 0.1), ("diabetes", 0.2), ("least-squares", 0.0)):
        data = load(name, None, validation=validation, split_seed=3)
        found[f"data {name}"] = str(data.fingerprint)
        trainer = Trainer(_settings("sgd", name), data)
        order = [batch.tolist() for epoch in (1, 2) for batch in trainer.batch_order(epoch)]
        found[f"order {name}"] = _digest(order)
        found[f"weights {name}"] = _digest(trainer.model.state_dict())
    return found


def training_digests(methods: Sequence[str] = METHODS) -> dict[str, str]:
    """Of weights and metrics after an epoch of each method; of both optimizers in a plain loop."""
    data = load("digits", None)
    found = {one.__name__: _digest(_plain_loop(one)) for one in (samt.AutoSAMT, samt.SAMT)}
    for method in methods:
        trainer = Trainer(_settings(method, "digits"), data)
        row = trainer.train_epoch(1, lambda *seen: None)
        found[method] = _digest([trainer.model.state_dict(), row.train_loss, row.step_sizes])
    return found


def _settings(method: str, data: str) -> Settings:
    dropout = 0.0 if method in SOLVERS else 0.2
    return Settings(
        parse_spec(method), data, hidden=(24,), dropout=dropout, seed=7, device="cpu", epochs=1
    )


def _plain_loop(optimizer_class: type[samt.AutoSAMT] | type[samt.SAMT]) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 5))
    inputs = torch.randn(24, 20)
    targets = inputs[:, :5].argmax(1)
    loss_fn: Callable[..., torch.Tensor] = nn.functional.cross_entropy
    optimizer = optimizer_class(samt.blocks(model))
    for _ in range(15):
        optimizer.step(samt.closure(model, loss_fn, inputs, targets))
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def _digest(value: Any) -> str:
    """Of every bit of nested tensors and numbers, in their order."""
    digest = hashlib.sha256()

    def add(one: Any) -> None:
        if isinstance(one, torch.Tensor):
            digest.update(f"{one.dtype}{tuple(one.shape)}".encode())
            digest.update(one.detach().contiguous().numpy().tobytes())
        elif isinstance(one, dict):
            for key, inner in one.items():
                digest.update(repr(key).encode())
                add(inner)
        elif isinstance(one, list | tuple):
            for inner in one:
                add(inner)
        else:
            digest.update(repr(one).encode())

    add(value)
    return digest.hexdigest()


def all_digests(threads: int) -> dict[str, str]:
    """Both, after what nothing may depend on was moved; with two threads of fewer methods."""
    torch.set_num_threads(threads)
    random.seed(hash("differs from process to process"))
    np.random.seed(random.randrange(2**32))
    return data_digests() | training_digests(METHODS if threads == 1 else METHODS[:4])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(all_digests(int(sys.argv[1]))))
