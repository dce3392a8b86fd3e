"""The published method under Lightning: manual optimisation and a closure."""

from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import samt


class Classifier(lightning.LightningModule):
    """`step` evaluates the closure as often as it needs to, so it must be called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)  # there is one
        loss_fn = nn.functional.cross_entropy
        loss = optimizer.step(samt.closure(self.model, loss_fn, inputs, labels))
        self.log("loss", loss)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        inputs, labels = batch
        self.log("accuracy", (self.model(inputs).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return samt.SAMT(samt.blocks(self.model))


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs, labels = inputs[order], torch.tensor(digits.target)[order]
    train = DataLoader(TensorDataset(inputs[:1400], labels[:1400]), batch_size=64, shuffle=True)
    return train, DataLoader(TensorDataset(inputs[1400:], labels[1400:]), batch_size=397)


def main() -> None:
    torch.manual_seed(0)
    train, test = loaders()
    trainer = lightning.Trainer(
        max_epochs=20,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    classifier = Classifier()
    trainer.fit(classifier, train)
    (tested,) = trainer.test(classifier, test, verbose=False)
    print(f"test accuracy: {tested['accuracy']:.3f}")


if __name__ == "__main__":
    main()
