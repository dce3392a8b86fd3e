"""torch's averages of weights beside SAMT: SWA with its schedule, and an exponential average."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import samt

EPOCHS = 20


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
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = samt.AutoSAMT(model)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    swa = AveragedModel(model)
    # `lr` is a factor, 1 unless it was given: half of it is half of the step.
    scheduler = SWALR(optimizer, swa_lr=0.5, anneal_epochs=2)
    inputs, labels, test_inputs, test_labels = data()
    for epoch in range(EPOCHS):
        for batch in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            ema.update_parameters(model)
        if epoch >= EPOCHS // 2:
            swa.update_parameters(model)
            scheduler.step()
    update_bn(inputs.split(64), swa)  # SWA averages no statistics
    for name, one in (("weights", model), ("swa", swa), ("ema", ema)):
        one.eval()
        accuracy = (one(test_inputs).argmax(1) == test_labels).float().mean()
        print(f"{name} test accuracy: {accuracy:.3f}")


if __name__ == "__main__":
    main()
