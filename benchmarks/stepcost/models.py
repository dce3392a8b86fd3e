"""The models by name, each with the batch that it is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from samt.bench.models import cnn, resnet18, vgg11

from . import networks

DEPTHS = (2, 4, 8, 16, 32, 64)
WIDTHS = (50, 100, 200, 400, 800, 1600, 3200)
_LAYER = 256  # width of the layers of the pictures of depth


@dataclass(frozen=True)
class Model:
    """A network and the form of its batches.

    Args:
        title: for people.
        build: makes the network, with weights from torch's global generator.
        shape: of one sample.
        batch_size: samples in a batch, unless the command line says otherwise.
        classes: that the labels are drawn from.
        tokens: samples are tokens below this number; None: they are real numbers.
        heavy: a step takes seconds on a few cores.
    """

    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_size: int = 64
    classes: int = 10
    tokens: int | None = None
    heavy: bool = False

    def batch(self, size: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Random samples and labels, the same in every process.

        Args:
            size: number of samples; None for the model's own.
            device: where to put them.
        """
        count = size or self.batch_size
        generator = torch.Generator().manual_seed(0)
        if self.tokens is None:
            inputs = torch.randn(count, *self.shape, generator=generator)
        else:
            inputs = torch.randint(self.tokens, (count, *self.shape), generator=generator)
        targets = torch.randint(self.classes, (count,), generator=generator)
        return inputs.to(device), targets.to(device)


def _mlp(*widths: int) -> Model:
    title = "-".join(map(str, widths))
    return Model(title, partial(networks.plain_mlp, widths), (widths[0],), classes=widths[-1])


def _depth(layers: int) -> Model:
    build = partial(networks.equal_layers, layers, _LAYER)
    return Model(f"{layers} layers of {_LAYER}", build, (_LAYER,), 256, classes=_LAYER)


MODELS: dict[str, Model] = {
    "mlp-100": _mlp(784, 100, 10),
    "mlp-800": _mlp(784, 800, 10),
    "mlp-4x512": _mlp(784, 512, 512, 512, 512, 10),
    "cnn": Model("CNN, 2 convolutions", partial(cnn, (3, 32, 32), [128, 10]), (3, 32, 32)),
    "transformer": Model("transformer encoder, 6 layers", networks.Encoder, (32,), tokens=1000),
    "vgg11": Model("VGG-11", partial(vgg11, activation="relu"), (3, 32, 32), heavy=True),
    "resnet18": Model(
        "ResNet-18, 32 x 32", partial(resnet18, activation="relu"), (3, 32, 32), 128, heavy=True
    ),
}
# Families for the two pictures; not in the tables.
DEPTH_MODELS = {f"depth-{layers}": _depth(layers) for layers in DEPTHS}
WIDTH_MODELS = {f"width-{width}": _mlp(784, width, 10) for width in WIDTHS}
ALL_MODELS = {**MODELS, **DEPTH_MODELS, **WIDTH_MODELS}
