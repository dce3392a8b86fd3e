"""Models whose modules are called in some special way, and their parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """Named submodules and parameters, and a function that runs them."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **members: Any) -> None:
        super().__init__()
        self.run = run
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class Advancing(nn.Module):
    """A buffer that every call changes and every call uses."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x / self.count.clone()


class Stashing(nn.Module):
    """Leaves a penalty on its output for its caller, as routers and variational layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.penalty = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        output = torch.tanh(self.linear(x))
        self.penalty = output.square().mean()
        return output


def lin(inputs: int = 6, outputs: int = 6) -> nn.Linear:
    """A linear layer."""
    return nn.Linear(inputs, outputs)


def chain(*inside: nn.Module) -> nn.Module:
    """Modules between two linear layers."""
    return nn.Sequential(lin(4), nn.Tanh(), *inside, lin(6, 3))


def three(run: Callable[[Any, Tensor], Tensor], **members: Any) -> nn.Module:
    """Layers a, b, c of 4-6-6-3, and more members."""
    return Net(run, a=lin(4), b=lin(), act=nn.Tanh(), **members, c=lin(6, 3))


def thrice(net: Any, x: Tensor) -> Tensor:
    """A forward pass that runs layer b three times."""
    x = net.act(net.b(net.act(net.a(x))))
    x = net.act(net.b(net.act(net.mid(net.act(net.b(x))))))
    return net.c(x)


def with_functions(net: Any, x: Tensor) -> Tensor:
    """A forward pass with functions between its layers."""
    h = functional.relu(net.a(x))
    h = torch.cat((h[:, ::2], net.b(h.reshape(-1, 6)).flip(1)[:, 1:4]), 1)
    return net.c(functional.softmax(h, 1) * h.clone().detach().sin())


def segment() -> nn.Module:
    """Layers that are run under one checkpoint."""
    return nn.Sequential(lin(), nn.Tanh(), nn.Dropout(0.3), lin(), nn.Tanh())


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """A model with the same weights in each call, in float64."""
    torch.manual_seed(7)
    return make().double()
