"""What the parameters hold: y while they are trained, x while the model is evaluated or saved.

`Held` puts one in the place of the other. It knows parameters and their state, and neither the
optimizer nor its groups, so that a model can still come to its x when the optimizer is gone.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from samt.auto.state import TRAINING_WEIGHTS
from samt.tensors.shards import local

Members: TypeAlias = Sequence[tuple[Tensor, dict[str, Tensor]]]
# Weights that have come from a file, or that were converted, agree with x to rounding only: to so
# many units in the last place.
_UNITS = 4


class _Written(NamedTuple):
    """What a parameter was when the optimizer last wrote into it."""

    memory: int
    version: int
    dtype: torch.dtype
    device: torch.device
    number: Tensor
    is_product: bool


class _Recent:
    """The same of a list of parameters, in one list of each kind, which is faster to make."""

    def __init__(self, parameters: list[Tensor], memory: list[int], leads: list[Tensor]) -> None:
        self.parameters, self.memory = parameters, memory
        self.flat, self.leads = list(map(_flat, parameters)), leads
        self.versions: list[int] = []
        self.numbers: list[Tensor] = []


class Held:
    """The parameters of one optimizer, and which of the two weights they hold.

    Attributes:
        shows_average: whether the parameters hold x.
        is_orphaned: whether the optimizer is gone, so that nothing will be trained any more.
    """

    def __init__(self) -> None:
        self.members: Members = []
        self.shows_average = False
        self.is_orphaned = False
        self.model: weakref.ref[nn.Module] | None = None
        self._written: dict[Tensor, _Written] = {}
        self._recent: dict[int, _Recent] = {}
        self._shown: dict[Tensor, tuple[torch.dtype, torch.device]] = {}
        self.handles: list[Any] = []  # of the hooks in the model

    def remember(self, parameters: list[Tensor]) -> None:
        """Note what parameters are now, to know later whether somebody else has written to them.

        A write through `.data` leaves no trace but the weights themselves; hence the number.

        Args:
            parameters: the parameters; of a list that comes again, the notes replace each other.
        """
        recent = self._recent.get(id(parameters))
        memory = [local(parameter).data_ptr() for parameter in parameters]
        if recent is None or recent.parameters is not parameters or recent.memory != memory:
            self._settle()
            states = dict(self.members)
            leads = [_flat(states[parameter]["lead"]) for parameter in parameters]
            recent = self._recent[id(parameters)] = _Recent(parameters, memory, leads)
        recent.versions = [parameter._version for parameter in parameters]
        recent.numbers = _numbers(recent.flat, recent.leads)

    def _settle(self) -> None:
        """Sort what was noted last by parameter."""
        for recent in self._recent.values():
            for i, parameter in enumerate(recent.parameters):
                own, version, number = recent.flat[i], recent.versions[i], recent.numbers[i]
                is_product = _is_product(own, recent.leads[i])
                self._written[parameter] = _Written(
                    recent.memory[i], version, own.dtype, own.device, number, is_product
                )
        self._recent.clear()

    def was_edited(self, parameter: Tensor, lead: Tensor) -> bool:
        """Whether somebody has written into a parameter since the optimizer did.

        Args:
            parameter: the parameter.
            lead: its q.
        """
        self._settle()
        then = self._written.get(parameter)
        if then is None:
            return False
        now, q = _flat(parameter), _flat(lead)
        is_converted = (now.dtype, now.device) != (then.dtype, then.device)
        place = now.data_ptr(), parameter._version
        if not is_converted and place != (then.memory, then.version):
            return True
        # A sum of the same numbers may be rounded in another way, and converted ones are.
        rough = _UNITS * max(torch.finfo(t).eps for t in (now.dtype, then.dtype))
        size = torch.linalg.vector_norm(now)
        number = _product(now, q) if then.is_product else size
        size = float(size) * (float(torch.linalg.vector_norm(q)) if then.is_product else 1.0)
        return not abs(float(number) - float(then.number)) <= rough * size  # also of NaN

    def trained_parameters(self) -> list[Tensor]:
        """All parameters that have state."""
        return [parameter for parameter, _ in self.members]

    def show_average(self) -> None:
        """Put x into the parameters, but for those into which somebody has written: these stay."""
        if self.shows_average:
            return
        self.shows_average = True
        with _plainly():
            for parameter, state in self.members:
                if not bool(state["lead"].numel()) or self.was_edited(parameter, state["lead"]):
                    continue
                own = local(parameter)
                if TRAINING_WEIGHTS not in state:
                    state[TRAINING_WEIGHTS] = parameter.detach().clone()
                own.copy_(_average(state))
                self._shown[parameter] = own.dtype, own.device
            self._reshard()
            if self.is_orphaned:
                self.members = []

    def show_training_weights(self) -> None:
        """Put y back into the parameters, but for those into which somebody has written.

        What was written is y from then on, and its average begins anew.
        """
        if not self.shows_average:
            return
        self.shows_average = False
        written: list[Tensor] = []  # those that are left out stay what somebody wrote
        with _plainly():
            for parameter, state in self.members:
                if TRAINING_WEIGHTS not in state:
                    continue
                written.append(parameter)
                own, y = local(parameter), local(state[TRAINING_WEIGHTS])
                # What was read from a file, or converted since, agrees to rounding only.
                is_exact = self._shown.get(parameter) == (own.dtype, own.device)
                if _agree(own, _average(state), state, is_exact):
                    own.copy_(y)
                elif not _agree(own, y, state, is_exact):
                    _begin_anew(state)
                    y.copy_(own)
                if own.dtype == y.dtype:
                    del state[TRAINING_WEIGHTS]
            self.remember(written)
            self._shown.clear()
            self._reshard()

    def loaded(self, shows_average: bool) -> None:
        """A state dict was loaded: what the parameters hold shows when they are trained again."""
        self.shows_average = shows_average
        self._written.clear()
        self._recent.clear()
        self._shown.clear()

    def weights_were_loaded(self, parameters: Iterable[Tensor]) -> None:
        """`load_state_dict` of a module has set parameters: their averages begin there."""
        if self.shows_average:
            return  # what came is compared with x when y is due
        states = dict(self.members)
        self._settle()
        with _plainly():
            for parameter in parameters:
                state = states.get(parameter)
                if state is not None and (
                    parameter not in self._written or self.was_edited(parameter, state["lead"])
                ):
                    _begin_anew(state)
                    if TRAINING_WEIGHTS in state:
                        local(state[TRAINING_WEIGHTS]).copy_(local(parameter))

    def orphan(self) -> None:
        """The optimizer is gone: keep what x is computed from, until it is shown for good."""
        self.is_orphaned = True
        needed = ("lead", "ahead", TRAINING_WEIGHTS)
        self.members = (
            []
            if self.shows_average
            else [(p, {k: s[k] for k in needed if k in s}) for p, s in self.members]
        )

    def _reshard(self) -> None:
        """Drop the gathered copies of weights that `fully_shard` keeps between two passes."""
        module = sys.modules.get("torch.distributed.fsdp")
        model = self.model() if self.model is not None else None
        if module is None or model is None or not hasattr(module, "FSDPModule"):
            return
        for part in model.modules():
            if isinstance(part, module.FSDPModule):
                part.reshard()


def _average(state: dict[str, Tensor]) -> Tensor:
    """x = y − ahead · q, of this process's part."""
    y, q, ahead = local(state[TRAINING_WEIGHTS]), local(state["lead"]), state["ahead"]
    return y - ahead.to(y.device, y.dtype) * q.to(y.device, y.dtype)


def _agree(own: Tensor, wanted: Tensor, state: dict[str, Tensor], is_exact: bool) -> bool:
    """Whether a parameter holds what it should, to the bit or to rounding."""
    wanted = wanted.to(own.device, own.dtype)
    if is_exact or own.numel() == 0:
        return torch.equal(own, wanted)
    y, ahead = local(state[TRAINING_WEIGHTS]), state["ahead"]
    size = y.abs() + (ahead.to(y.device, y.dtype) * local(state["lead"]).to(y)).abs()
    rough = _UNITS * torch.finfo(own.dtype).eps * size.to(own.device, own.dtype)
    return bool(((own - wanted).abs() <= rough).all())


def _begin_anew(state: dict[str, Tensor]) -> None:
    local(state["lead"]).zero_()
    local(state["lag"]).zero_()


def _flat(parameter: Tensor) -> Tensor:
    """This process's part in one dimension, where the layout in memory allows it."""
    own = local(parameter.detach())
    return own.view(-1) if own.is_contiguous() else own


def _numbers(tensors: list[Tensor], leads: list[Tensor]) -> list[Tensor]:
    """A number of each tensor that changes when the tensor does.

    In host memory it is the product with q, so that signs and places count; where q is zero, x and
    y are the same. Elsewhere, where few kernels matter more, it is the norm.
    """
    if tensors and all(own.device.type != "cpu" for own in tensors):
        return list(torch._foreach_norm(tensors))
    return [
        _product(own, lead) if _is_product(own, lead) else torch.linalg.vector_norm(own)
        for own, lead in zip(tensors, leads, strict=True)
    ]


def _is_product(own: Tensor, lead: Tensor) -> bool:
    return own.device.type == "cpu" and own.dim() == lead.dim() == 1


def _product(own: Tensor, lead: Tensor) -> Tensor:
    """⟨y, q⟩ in the precision of q, which a model that is converted leaves as it is."""
    return torch.dot(own.to(lead.device, lead.dtype), lead)


def _plainly() -> ExitStack:
    """Write into parameters plainly, wherever a forward pass happens to be."""
    contexts = ExitStack()
    # One after the other: the last of them takes effect when it is made.
    contexts.enter_context(torch.inference_mode(False))
    contexts.enter_context(torch.no_grad())
    contexts.enter_context(torch._C._DisableFuncTorch())
    return contexts
