"""SAMT on a model under torch.compile; needs a C++ compiler, as torch.compile does."""

from typing import cast

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import samt

EPOCHS = 15


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and labels to train on, then those to test on."""
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return inputs[train], labels[train], inputs[test], labels[test]


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = samt.AutoSAMT(model)
    compiled = cast(nn.Module, torch.compile(model))
    inputs, labels, test_inputs, test_labels = data()
    for _ in range(EPOCHS):
        for batch in torch.randperm(1400).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(compiled(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    accuracy = (model(test_inputs).argmax(1) == test_labels).float().mean()
    print(f"test accuracy: {accuracy:.3f}")


if __name__ == "__main__":
    main()
