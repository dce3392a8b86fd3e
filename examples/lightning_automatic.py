"""SAMT under Lightning: automatic optimisation, accumulated gradients, checkpoint and resume."""

import tempfile
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import samt
from samt.integrations.lightning import StepSizes

EPOCHS = 20


class Classifier(lightning.LightningModule):
    """Nothing in it is about SAMT but `configure_optimizers`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        return nn.functional.cross_entropy(self.model(inputs), labels)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        self.log("accuracy", (self.model(inputs).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return samt.AutoSAMT(self)


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs, labels = inputs[order], torch.tensor(digits.target)[order]
    # In the same order in every epoch, so that a resumed run sees what the other one saw.
    train = DataLoader(TensorDataset(inputs[:1400], labels[:1400]), batch_size=32)
    return train, DataLoader(TensorDataset(inputs[1400:], labels[1400:]), batch_size=397)


def fit(folder: str, seed: int, checkpoint: str | None = None) -> lightning.Trainer:
    torch.manual_seed(seed)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accumulate_grad_batches=2,
        accelerator="cpu",
        callbacks=[
            StepSizes(),
            ModelCheckpoint(folder, "{epoch}", every_n_epochs=1, save_top_k=-1),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(Classifier(), loaders()[0], ckpt_path=checkpoint)
    return trainer


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        whole = fit(folder, seed=0)
        resumed = fit(other, seed=1, checkpoint=f"{folder}/epoch={EPOCHS // 2 - 1}.ckpt")
        (tested,) = resumed.test(resumed.lightning_module, loaders()[1], verbose=False)
    sizes = {k: f"{v:.4f}" for k, v in whole.callback_metrics.items() if "step_size" in k}
    print(f"step sizes: {sizes}")
    print(f"test accuracy: {tested['accuracy']:.3f}")
    pairs = zip(
        whole.lightning_module.parameters(), resumed.lightning_module.parameters(), strict=True
    )
    print(f"same weights after resuming: {all(torch.equal(a, b) for a, b in pairs)}")


if __name__ == "__main__":
    main()
