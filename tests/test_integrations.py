"""Callbacks log, in other people's trainers, the step sizes that a plain loop would have seen."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import samt
from samt.errors import OptionError
from samt.integrations.newest import Newest

from .support.batches import batch
from .support.models import mlp

LOSS = nn.functional.cross_entropy
STEPS, EVERY = 12, 4
KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "auto-samt": (
        samt.AutoSAMT,
        {},
    ),
    "samt": (samt.SAMT, {"meta_batch": "next", "order": "cyclic", "meta_lr": 1.0}),
}
Logged = dict[int, dict[str, float]]


class Batches(Dataset[dict[str, Tensor]]):
    """The samples of twelve batches, one after the other."""

    def __len__(self) -> int:
        return 8 * STEPS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        inputs, labels = batch("mlp", index // 8)
        return {"inputs": inputs[index % 8], "labels": labels[index % 8]}


class Network(nn.Module):
    """A model as the Trainer of Hugging Face wants it: it returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": LOSS(self.layers(inputs), labels)}


def make(kind: str) -> tuple[Network, Any]:
    torch.manual_seed(1)
    model = Network()
    optimizer, options = KINDS[kind]
    return model, optimizer(samt.blocks(model), **options)


def of_a_plain_loop(kind: str) -> Logged:
    model, optimizer = make(kind)
    history, found = samt.History(optimizer), {}
    for step in range(1, STEPS + 1):
        inputs, labels = batch("mlp", step - 1)
        optimizer.zero_grad()
        model(inputs, labels)["loss"].backward()
        optimizer.step()
        if step % EVERY == 0:
            found[step] = {f"step_size/{name}": size for name, size in history.latest().items()}
    assert len({tuple(sizes.values()) for sizes in found.values()}) == STEPS // EVERY
    return found


def approximately(logged: Logged) -> dict[int, Any]:
    return {step: pytest.approx(sizes, rel=1e-6) for step, sizes in logged.items()}


def fit_with_lightning(model: Network, *optimizers: Any, folder: Path) -> Any:
    lightning = pytest.importorskip("lightning", reason="needs lightning")
    from samt.integrations.lightning import StepSizes

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = model
            self.automatic_optimization = len(optimizers) == 1

        def training_step(self, samples: dict[str, Tensor], batch_idx: int) -> Tensor:
            loss: Tensor = self.network(**samples)["loss"]
            if not self.automatic_optimization:
                self.zero_grad()
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
            return loss

        def configure_optimizers(self) -> Any:
            return list(optimizers)

    automatic = len(optimizers) == 1
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=2 if automatic else 1,
        log_every_n_steps=EVERY,
        logger=lightning.pytorch.loggers.CSVLogger(folder),
        callbacks=[StepSizes()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    size = 4 if automatic else 8
    trainer.fit(Module(), torch.utils.data.DataLoader(Batches(), batch_size=size))
    return trainer


# Lightning's own: about a file of torch, few workers, a folder that is there.
in_lightning = pytest.mark.filterwarnings("ignore")


@in_lightning
def test_lightning_logs_the_step_sizes(tmp_path: Path) -> None:
    """Two micro-batches a step give what a loop with the whole batch gives."""
    trainer = fit_with_lightning(*make("auto-samt"), folder=tmp_path)
    (table,) = tmp_path.rglob("metrics.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    logged = {
        int(row["step"]): {k: float(v) for k, v in row.items() if k.startswith("step_size/")}
        for row in rows
    }
    expected = of_a_plain_loop("auto-samt")
    assert logged == approximately(expected)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics == pytest.approx(expected[STEPS])


@in_lightning
def test_lightning_tells_two_optimizers_apart(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Network()
    blocks = samt.blocks(model)
    first, second = samt.AutoSAMT(blocks[:1]), samt.AutoSAMT(blocks[1:])
    trainer = fit_with_lightning(model, first, second, folder=tmp_path)
    assert set(trainer.callback_metrics) == {
        "step_size/layers.0",
        "optimizer1/step_size/layers.2",
        "optimizer1/step_size/layers.4",
    }


@in_lightning
def test_lightning_refuses_other_optimizers(tmp_path: Path) -> None:
    model = Network()
    with pytest.raises(OptionError, match="cannot see into Adam: train"):
        fit_with_lightning(model, torch.optim.Adam(model.parameters()), folder=tmp_path)


def train_with_transformers(model: Network, optimizer: Any, folder: Path) -> Logged:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    from samt.integrations.transformers import StepSizes

    class InOrder(transformers.Trainer):  # type: ignore[name-defined, misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(Batches())

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=EVERY,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = InOrder(model, arguments, train_dataset=Batches(), optimizers=(optimizer, None))
    trainer.add_callback(StepSizes(trainer))
    trainer.train()
    history = trainer.state.log_history
    assert [line["step"] for line in history if "loss" in line] == [4, 8, 12]
    return {
        line["step"]: {name: size for name, size in line.items() if name.startswith("step_size/")}
        for line in history
        if any(name.startswith("step_size/") for name in line)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_logs_the_step_sizes(kind: str, tmp_path: Path) -> None:
    """The loss is logged, too; `order="cyclic"` moves one block a step, and all are logged."""
    logged = train_with_transformers(*make(kind), tmp_path)
    assert logged == approximately(of_a_plain_loop(kind))


def test_transformers_refuses_other_optimizers(tmp_path: Path) -> None:
    model = Network()
    with pytest.raises(OptionError, match="cannot see into Adam: train"):
        train_with_transformers(model, torch.optim.Adam(model.parameters()), tmp_path)


def test_what_is_not_needed_any_more_is_forgotten() -> None:
    model, optimizer = make("auto-samt")
    newest = Newest(optimizer)
    for step in range(3):
        optimizer.step(samt.closure(model.layers, LOSS, *batch("mlp", step)))
        newest.forget()
    assert optimizer.history is not None
    assert [entry.step for entry in optimizer.history.entries] == [2, 2, 2]
    assert len(newest.step_sizes()) == 3


def test_a_history_of_the_user_stays_whole() -> None:
    model, optimizer = make("auto-samt")
    history = samt.History(optimizer)
    newest = Newest(optimizer)
    for step in range(3):
        optimizer.step(samt.closure(model.layers, LOSS, *batch("mlp", step)))
        newest.forget()
    assert optimizer.history is history
    assert len(history.entries) == 9
    assert list(newest.step_sizes().values()) == list(history.latest().values())


def test_nothing_in_samt_imports_them() -> None:
    program = """
import sys, samt, samt.baselines, samt.integrations
print([name for name in ("lightning", "transformers", "accelerate") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"
