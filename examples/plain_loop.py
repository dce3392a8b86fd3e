"""SAMT in a plain loop: train on digits, stop half-way, go on from the checkpoint."""

import io

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import samt

EPOCHS, BATCHES = 20, 22


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and labels to train on, then those to test on."""
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return inputs[train], labels[train], inputs[test], labels[test]


def build(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, samt.AutoSAMT(model)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Epochs `first` to `last - 1`; each has an order of its own, also after a restart."""
    inputs, labels, _, _ = data()
    for epoch in range(first, last):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()


def main() -> None:
    model, optimizer = build(seed=0)
    train(model, optimizer, 0, EPOCHS // 2)
    checkpoint = io.BytesIO()  # a file, in real life
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    train(model, optimizer, EPOCHS // 2, EPOCHS)

    resumed, optimizer = build(seed=1)
    checkpoint.seek(0)
    state = torch.load(checkpoint, weights_only=True)
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, optimizer, EPOCHS // 2, EPOCHS)

    _, _, inputs, labels = data()
    model.eval()  # from here on the model holds the average of its weights
    resumed.eval()
    resumed(inputs)
    print(f"test accuracy: {(model(inputs).argmax(1) == labels).float().mean():.3f}")
    pairs = zip(model.parameters(), resumed.parameters(), strict=True)
    print(f"same weights after resuming: {all(torch.equal(a, b) for a, b in pairs)}")


if __name__ == "__main__":
    main()
