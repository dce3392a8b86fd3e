"""SAMT under Accelerate, with gradients accumulated over four micro-batches."""

import tempfile

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import samt

EPOCHS = 24


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and labels to train on, then those to test on."""
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return inputs[train], labels[train], inputs[test], labels[test]


def run(folder: str, epochs: range, save_after: int | None = None) -> nn.Module:
    """Train for these epochs; from the checkpoint in `folder` if they are not the first ones."""
    torch.manual_seed(epochs.start)
    accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
    inputs, labels, _, _ = data()
    # In the same order in every epoch, so that a resumed run sees what the other one saw.
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=32)
    model: nn.Module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    # One step for every four batches; and 44 batches an epoch.
    optimizer: torch.optim.Optimizer = samt.AutoSAMT(model)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if epochs.start:
        accelerator.load_state(folder)
    for epoch in epochs:
        for batch in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        if epoch + 1 == save_after:
            accelerator.save_state(folder)
    return accelerator.unwrap_model(model)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = run(folder, range(EPOCHS), save_after=EPOCHS // 2)
        resumed = run(folder, range(EPOCHS // 2, EPOCHS))
    _, _, inputs, labels = data()
    print(f"test accuracy: {(model(inputs).argmax(1) == labels).float().mean():.3f}")
    pairs = zip(model.parameters(), resumed.parameters(), strict=True)
    print(f"same weights after resuming: {all(torch.equal(a, b) for a, b in pairs)}")


if __name__ == "__main__":
    main()
