"""The networks that are measured and that samt.bench does not have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


class Residual(nn.Module):
    """Two convolutions of 3 x 3 and a shortcut: the basic block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `nn.Conv2d`."""
        y = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18(classes: int = 10) -> nn.Sequential:
    """ResNet-18 for images of 32 x 32: a first convolution of 3 x 3 and no pooling after it."""
    stem = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    stages: list[nn.Module] = []
    for (inputs, outputs), stride in zip(
        pairwise([64, 64, 128, 256, 512]), (1, 2, 2, 2), strict=True
    ):
        stages += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    return nn.Sequential(*stem, *stages, *head)


def vgg11(classes: int = 10) -> nn.Sequential:
    """VGG-11 for images of 32 x 32, without batch norm, with one linear layer at the end."""
    layers: list[nn.Module] = []
    channels = 3
    for maps in VGG11:
        if isinstance(maps, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.ReLU()]
            channels = maps
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))


class Encoder(nn.Module):
    """A transformer encoder that classifies sequences of tokens by the mean of its outputs."""

    def __init__(self, depth: int = 6, width: int = 128, tokens: int = 1000) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        # Without dropout, so that every method computes the same thing.
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.output = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (batch, length) to logits (batch, 10)."""
        logits: Tensor = self.output(self.encoder(self.embedding(x)).mean(1))
        return logits


def equal_layers(depth: int, width: int) -> nn.Sequential:
    """Linear layers of one size, so that each costs the same."""
    return plain_mlp([width] * (depth + 1))


def plain_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])
