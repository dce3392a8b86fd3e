"""Replay changes no number, whatever way a model calls its modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

import samt
from samt.reference import SAMTReference

from .support.comparisons import assert_equal
from .support.models import Convolutional, Shared
from .support.replay import LOSS, MODES, assert_replay_changes_nothing, data, partitioned
from .support.replayed_models import Net, chain, lin, made, segment, three, thrice, with_functions

Batch = tuple[Tensor, Tensor]


class Returning(nn.Module):
    """A linear layer whose output is packed in some way."""

    def __init__(self, pack: Callable[[Tensor], Any], inputs: int = 4, outputs: int = 6) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(torch.tanh(self.linear(x)))


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Output:
    logits: Tensor
    hidden: list[Tensor] | None = None


class Counting(nn.Module):
    """Keeps Python state that its output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = [*self.seen, tuple(x.shape)]
        return torch.tanh(x)


def nested() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        for layer in net.layers:
            x = x + layer(x)
        return net.head(x)

    layers = nn.ModuleList([nn.Sequential(nn.Sequential(lin(), nn.Tanh()), lin()) for _ in "ab"])
    return Net(run, stem=lin(4), layers=layers, head=nn.Sequential(nn.ReLU(), lin(6, 3)))


def packed(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.c(unpack(net.b(net.act(unpack(net.a(x))))))

    return Net(run, a=Returning(pack), act=nn.Tanh(), b=Returning(pack, 6), c=lin(6, 3))


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        assert x.isfinite().all()


def with_none(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    assert net.nothing(x) is None
    return net.c(net.act(net.b(net.act(x))))


def attention(net: Any, x: Tensor) -> Tensor:
    x = net.act(net.a(x)).view(-1, 2, 6)
    x = x + net.attention(x, x, x, need_weights=False)[0]
    return net.c(net.act(net.b(x))).reshape(-1, 3)


def transformer(net: Any, x: Tensor) -> Tensor:
    x = net.layers(net.a(x).view(-1, 2, 6))
    return net.c(net.act(net.b(x))).reshape(-1, 3)


def recurrent(net: Any, x: Tensor) -> Tensor:
    x, _ = net.cells(net.act(net.a(x)).view(-1, 2, 6))
    return net.c(net.act(net.b(x))).reshape(-1, 3)


def lstm(net: Any, x: Tensor) -> Tensor:
    _, (h, c) = net.cells(net.act(net.a(x)).unsqueeze(0))
    return net.c(net.act(net.b(h[-1] + c[0])))


def tied_embedding() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        tokens = (x.abs() * 3).long().clamp(max=4)
        h = net.act(net.b(net.act(net.embedding(tokens).mean(1))))
        return functional.linear(h, net.embedding.weight)[:, :3]

    return Net(run, embedding=nn.Embedding(5, 6), b=lin(), act=nn.Tanh())


def tied_modules() -> nn.Module:
    model = chain(lin(), nn.Tanh(), lin(), nn.Tanh())
    assert isinstance(model, nn.Sequential)
    model[4].weight = model[2].weight
    return model


def root_parameters(net: Any, x: Tensor) -> Tensor:
    x = net.act(net.a(x * net.before))
    return net.c(net.act(net.b(x) + net.between)) * net.after


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.rand(()) + 0.5)


def used_before_its_module(net: Any, x: Tensor) -> Tensor:
    x = net.act(functional.linear(net.act(net.a(x)), net.b.weight.t()))
    return net.c(net.act(net.b(net.act(net.mid(x)))))


def used_by_another_module() -> nn.Module:
    late = lin()

    def borrow(net: Any, x: Tensor) -> Tensor:
        return x + functional.linear(net.own(x), late_of[0].weight)

    late_of = [late]  # in a list, so that it is no submodule of its borrower
    model = Net(
        lambda net, x: net.c(net.late(net.act(net.borrower(net.act(net.a(x)))))),
        a=lin(4),
        act=nn.Tanh(),
        borrower=Net(borrow, own=lin()),
        late=late,
        c=lin(6, 3),
    )
    late_of[0] = late
    return model


def augmented(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    y += net.side(x)
    y = net.act(y)
    z = net.b(y)
    z *= 0.7
    return net.c(net.act(z))


def siamese(net: Any, x: Tensor) -> Tensor:
    one, two = net.tower(x), net.tower(x.flip(1))
    return net.c((one - two).abs() + net.act(net.b(one * two)))


def checkpointed(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    x = checkpoint(net.segment, x, use_reentrant=False)
    return net.c(net.act(net.b(x)))


def hooked() -> nn.Module:
    model: Any = chain(lin(), nn.Tanh(), nn.Dropout(0.2), lin(), nn.Tanh())
    model[0].register_forward_hook(lambda module, args, output: output * 0.9)
    model[1].register_forward_pre_hook(lambda module, args: (args[0] + 0.1,))
    model[2].register_forward_hook(lambda module, args, output: output.mul_(0.8))
    model[3].register_forward_hook(lambda module, args, output: functional.dropout(output, 0.2))
    model[5].register_forward_hook(lambda module, args, output: output * model[5].weight.mean())
    return model


def patched() -> nn.Module:
    model: Any = chain(lin(), nn.Tanh())
    forward = model[2].forward
    model[2].forward = lambda x: forward(x) * 0.5
    return model


def direct_forward(net: Any, x: Tensor) -> Tensor:
    return net.c.forward(net.act.forward(net.b.forward(net.act.forward(net.a.forward(x)))))


def routed(net: Any, x: Tensor) -> Tensor:
    x = net.act(net.a(x))
    x = net.b(x) if net.gate(x).mean() > 0 else net.other(net.b(net.act(x)))
    return net.c(net.act(x))


def identity_outputs(net: Any, x: Tensor) -> Tensor:
    x = net.same(net.a(x))
    y = net.same(net.b(net.act(x)))
    y.tanh_()
    return net.c(net.same(y) + x)


PACKINGS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda y: (y, (y * 2, None)), lambda out: out[0] + out[1][0]),
    "dict": (lambda y: {"y": y, "n": 3, "s": "x"}, lambda out: out["y"] * out["n"]),
    "named tuple": (lambda y: Pair(y, -y), lambda out: out.first - out.second),
    "dataclass": (lambda y: Output(y, [y, y * y]), lambda out: out.logits + out.hidden[1]),
    "ordered dict": (
        lambda y: OrderedDict(logits=y, hidden=(y, y.exp())),
        lambda out: out["logits"] + out["hidden"][1],
    ),
}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "nested": nested,
    "shared twice": Shared,
    "shared three times": lambda: three(thrice, mid=lin()),
    "functional": lambda: three(with_functions),
    **{name: (lambda p=p: packed(*p)) for name, p in PACKINGS.items()},  # type: ignore[misc]
    "None": lambda: three(with_none, nothing=Nothing()),
    "attention": lambda: three(attention, attention=nn.MultiheadAttention(6, 2, batch_first=True)),
    "transformer": lambda: three(
        transformer,
        layers=nn.Sequential(
            *(nn.TransformerEncoderLayer(6, 2, 8, 0.1, batch_first=True) for _ in range(2))
        ),
    ),
    "lstm": lambda: three(lstm, cells=nn.LSTM(6, 6, 2)),
    "gru": lambda: three(recurrent, cells=nn.GRU(6, 3, bidirectional=True, batch_first=True)),
    "tied embedding": tied_embedding,
    "tied modules": tied_modules,
    "root parameters": lambda: three(
        root_parameters, before=parameter(), between=parameter(), after=parameter()
    ),
    "used before its module": lambda: three(used_before_its_module, mid=lin()),
    "used by another module": used_by_another_module,
    "weight norm": lambda: chain(weight_norm(lin()), nn.Tanh(), weight_norm(lin()), nn.Tanh()),
    "spectral norm": lambda: chain(spectral_norm(lin()), nn.Tanh(), spectral_norm(lin())),
    "in-place": lambda: chain(
        lin(), nn.LeakyReLU(0.1, True), lin(), nn.Dropout(0.2, True), lin(), nn.ReLU(True), lin()
    ),
    "augmented assignment": lambda: three(augmented, side=lin(4)),
    "batch norm and dropout": lambda: chain(
        nn.BatchNorm1d(6), nn.Dropout(0.3), lin(), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3)
    ),
    "convolutional": lambda: nn.Sequential(lin(4, 16), Convolutional()),
    "siamese": lambda: three(siamese, tower=nn.Sequential(lin(4), nn.Dropout(0.2), lin())),
    "checkpointed": lambda: three(checkpointed, segment=segment()),
    "hooked": hooked,
    "patched": patched,
    "forward called by hand": lambda: three(direct_forward),
    "python state": lambda: chain(Counting(), lin(), Counting(), lin(), Counting()),
    "control flow behind the changed block": lambda: three(routed, gate=lin(6, 1), other=lin()),
    "identities": lambda: three(identity_outputs, same=nn.Identity()),
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_replay_changes_no_number(model: str, mode: dict[str, Any]) -> None:
    # torch takes other kernels where nothing ahead of the block needs a gradient.
    assert_replay_changes_nothing(MODELS[model], model not in ("gru", "transformer"), **mode)


@pytest.mark.parametrize("mode", MODES[::3], ids=str)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "checkpointed"])
def test_replay_equals_the_reference(name: str, mode: dict[str, Any]) -> None:
    model = made(MODELS[name])
    options = {key: value for key, value in mode.items() if key != "partition"}
    groups = partitioned(model, mode.get("partition"))
    optimizer = samt.SAMT(groups, lr=0.3, meta_lr=0.5, replay=True, **options)
    reference = SAMTReference(model, LOSS, optimizer.param_groups)
    for step in range(2):
        rng = torch.get_rng_state()
        fresh = mode["meta_batch"] == "fresh"
        reference.step(data(step), data(100 + step) if fresh else None)
        expected_rng = torch.get_rng_state()
        torch.set_rng_state(rng)
        meta = samt.closure(model, LOSS, *data(100 + step)) if fresh else None
        optimizer.step(samt.closure(model, LOSS, *data(step)), meta)
        assert torch.equal(torch.get_rng_state(), expected_rng)
        assert_equal(dict(model.named_parameters()), reference.weights)
        assert_equal(dict(model.named_buffers()), reference.buffers)
        for index, group in enumerate(optimizer.param_groups):
            for n, parameter in zip(group["param_names"], group["params"], strict=True):
                assert_equal(optimizer.state[parameter], reference.state(index)[n])
