"""What samt's optimizers are: named blocks with options, and state that fits them at any time.

`BlockOptimizer` owns the life cycle. A subclass is a constructor and mathematics: it says which
options there are (`options`), which of them are one for all blocks (`of_all_blocks`), what state a
parameter has (`_complete_state`), and what works on that state (`_build`).

Whatever somebody does to groups, state or parameters between two steps is found at the next step:
`_sync` compares what is there with what the working objects were built on, and builds them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import is_not
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import ParamsT

from samt import checkpoint
from samt.errors import GradScalerUnsupportedError, OptionError
from samt.options import NOTES, Options, check, make_plain, refuse_unknown
from samt.partition import Places, blocks, follow_names, without_duplicates
from samt.tensors.process_groups import Ranks
from samt.tensors.refusals import refuse_uninitialized, refuse_unreal

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from samt.history import History

# A step that is called from compiled code runs as it is, as torch's own optimizers do.
never_compiled = _disable_dynamo
Group = dict[str, Any]
Member = tuple[str, Tensor]
_MISSING = object()


class Passes(NamedTuple):
    """Number of forward and backward passes, each of which may be on a part of a batch."""

    forward: int
    backward: int


class Updated(Protocol):
    """A block that has been updated."""

    group: Group
    names: list[str]


class BlockOptimizer(torch.optim.Optimizer):
    """The base of `SAMT`, `AutoSAMT` and `Dante`; see the module's docstring.

    The keys that every group has beside its options:

    - `params`, `param_names`: the parameters and their names.
    - `name`: the name of the block.
    - `calls`: the number of steps so far, the same in all groups.
    - `passes`: the number of forward and backward passes that the block's updates took, where a
      step takes more than one.

    Args:
        params: blocks, a module, or any iterable of parameters.
        defaults: the options and their values.
        process_group: the processes to average over, or None.
    """

    options: ClassVar[Options]
    of_all_blocks: ClassVar[tuple[str, ...]]
    structural: ClassVar[tuple[str, ...]] = ()  # after their change `_build` is called again
    mark: ClassVar[str]  # an option by which the groups of this optimizer are known
    notes: ClassVar[tuple[str, ...]] = ("calls",)  # what a group keeps beside its options
    numbers: ClassVar[frozenset[str]] = frozenset()  # keys of the state that lie together
    temporary: ClassVar[tuple[str, ...]] = ()  # keys of a state that come and go
    history: History | None

    def __init__(
        self, params: ParamsT | nn.Module, defaults: Group, process_group: ProcessGroup | None
    ) -> None:
        make_plain(defaults, self.options)
        check(defaults, self.options)
        self.history = None
        self._ranks = Ranks(process_group)
        self._is_constructed = False
        self._forget()
        super().__init__(blocks(params) if isinstance(params, nn.Module) else params, defaults)
        self._is_constructed = True
        self._sync()

    # What a subclass fills in.

    def _complete_state(
        self, state: dict[str, Tensor], group: Group, parameter: Tensor, index: int
    ) -> None:
        """Add to a parameter's state what it does not hold yet, or raise if it does not fit."""

    def _build(self) -> None:
        """Make what works on groups and state, which are complete."""

    def _note_beginning(self, group: Group) -> None:
        """Give a block the notes that it does not have: counts that begin at 0."""
        for note in self.notes:
            group.setdefault(note, 0)

    def _complete_group(self, group: Group) -> None:
        """Refuse a new block that this optimizer cannot train."""

    # The life cycle.

    def _forget(self) -> None:
        """Drop everything that works on groups and state; the next step builds it anew."""
        self._seen: list[Any] | None = None
        self._checked: list[Any] = []
        self._members: list[list[Member]] = []
        self._places: Places = {}  # of all parameters at the last step, with their names

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_ranks": self._ranks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # after unpickling, and in the middle of load_state_dict
        for name, value in (("history", None), ("_ranks", Ranks(None))):
            self.__dict__.setdefault(name, value)
        self._is_constructed = True
        self._forget()

    def add_param_group(self, param_group: Group) -> None:
        """Add a block; its state is made at once.

        Args:
            param_group: `params`, and optionally `name` and any option but those that are one
                for all blocks.

        Raises:
            SAMTError: an option is wrong, or a parameter is already in a block; the optimizer is
                then what it was before.
        """
        owner, notes = type(self).__name__, {*NOTES, *self.notes}
        of_all = ("process_group",)
        refuse_unknown(param_group, self.options, owner, of_all=of_all, notes=notes)
        count = len(self.param_groups)
        group = without_duplicates(param_group, self.param_groups)
        super().add_param_group(self._with_names(group, count))
        group, first = self.param_groups[-1], self.param_groups[0]
        try:
            group.setdefault("name", f"block {count}")
            make_plain(group, self.options)
            check(group, self.options)
            for option in self.of_all_blocks:
                if group[option] != first[option]:
                    raise OptionError(
                        f"{option} is one for all blocks: give it to {owner}, not to a group"
                    )
            group.setdefault("calls", first.get("calls", 0))
            self._note_beginning(group)
            self._complete_group(group)
            self._ranks.start_alike([p for p in group["params"] if not is_lazy(p)])
            if self._is_constructed:
                self._sync()
        except Exception:
            for parameter in self.param_groups.pop()["params"]:
                self.state.pop(parameter, None)
            self._seen = None
            raise

    def _with_names(self, group: Group, index: int) -> Group:
        """The group with names for its parameters, if the groups before it have names."""
        params = group.get("params")
        has_names = bool(self.param_groups) and "param_names" in self.param_groups[0]
        nameless = isinstance(params, list) and not any(isinstance(p, tuple) for p in params)
        if not has_names or not nameless or "param_names" in group:
            return group
        title = group.get("name", f"block {index}")
        return {**group, "params": [(f"{title}[{i}]", p) for i, p in enumerate(params or ())]}

    def _takes_part(self, parameter: Tensor) -> bool:
        """Whether a parameter is trained or has been trained; frozen parameters take no part."""
        if is_lazy(parameter):
            return False
        return (
            parameter.requires_grad or parameter.grad is not None or bool(self.state.get(parameter))
        )

    def _structure(self) -> list[Any]:
        """Everything that the working objects take for granted."""
        found: list[Any] = []
        for group in self.param_groups:
            found.append(id(group))
            found += [group.get(option) for option in self.structural]
            for p in group["params"]:
                found += (id(p), self._takes_part(p), p.dtype, p.get_device())
                if p in self.state:
                    state = self.state[p]
                    whole = [v for k, v in state.items() if k not in self.numbers]
                    found += (id(state), *map(id, state.values()), *map(_memory_of, whole))
                if not is_lazy(p):
                    found.append(p.shape)
        return found

    def _sync(self) -> None:
        """Bring state and working objects up to date with groups and parameters.

        Raises:
            SAMTError: an option that was edited is wrong, or state does not fit its parameter;
                nothing has moved.
        """
        self._check_edited_options()
        if self._seen is not None and self._seen == self._structure():
            return
        names = self._names()
        members: list[list[Member]] = []
        index = 0
        # State that is made in inference mode could not be stepped outside of it.
        with torch.inference_mode(False), torch.no_grad():
            for group in self.param_groups:
                members.append([])
                for parameter in group["params"]:
                    if not parameter.is_leaf:
                        raise OptionError(
                            f"block {group['name']!r} has a tensor that is no parameter of a "
                            "model: it was computed from others"
                        )
                    if self._takes_part(parameter):
                        refuse_unreal(parameter, group["name"])
                        state = self.state.get(parameter, {})
                        self._complete_state(state, group, parameter, index)
                        if state:
                            self.state[parameter] = state
                        members[-1].append((names[index], parameter))
                    index += 1
            self._members = members
            self._build()
        self._seen = self._structure()

    def _check_edited_options(self) -> None:
        """Check the options that are other objects than at the last step."""
        groups, names = self.param_groups, self.options
        for index, group in enumerate(groups):
            if "name" not in group or any(note not in group for note in self.notes):
                group.setdefault("name", f"block {index}")
                self._note_beginning(group)
            if not all(isinstance(group[note], int | float) for note in self.notes):
                raise OptionError(
                    f"block {group['name']!r} has something else than a number as "
                    f"{' or '.join(self.notes)}, where the optimizer counts: delete that key from "
                    "the group, and the count starts anew"
                )
        values = [group.get(name, _MISSING) for group in groups for name in names]
        if len(values) == len(self._checked) and not any(map(is_not, values, self._checked)):
            return
        for group in groups:
            make_plain(group, names)
            check(group, names)
        for option in self.of_all_blocks:
            if any(group[option] != groups[0][option] for group in groups):
                raise OptionError(
                    f"{option} is one for all blocks: set it in every group of the optimizer"
                )
        self._checked = [group[name] for group in groups for name in names]

    def _names(self) -> list[str]:
        """The name of every parameter, wherever somebody has put it since the last step."""
        self._places = follow_names(self.param_groups, self._places)
        found: list[str] = []
        for group in self.param_groups:
            names = group.get("param_names")
            found += map(str, range(len(group["params"]))) if names is None else names
        return found

    def state_dict(self) -> dict[str, Any]:
        """As in torch, complete before the first step; loads with `weights_only=True`."""
        self._sync()
        held = {p for group in self.param_groups for p in group["params"]}
        # torch has no word for the state of a parameter that somebody took out of its group.
        left = {p: self.state.pop(p) for p in list(self.state) if p not in held}
        try:
            return checkpoint.portable(super().state_dict())
        finally:
            self.state.update(left)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but exact, and matched by parameter name where both sides have names.

        Args:
            state_dict: what `state_dict` returned. Tensors are copied in their own precision.

        Raises:
            CheckpointMismatchError: it belongs to other parameters or to other options.
        """
        self._sync()
        checkpoint.load(self, super().load_state_dict, state_dict, self.mark, self.temporary)
        self._forget()
        self._sync()

    # What a step begins and ends with.

    @property
    def process_group(self) -> ProcessGroup | None:
        """The processes to average over; to be set again after unpickling."""
        return self._ranks.group

    @process_group.setter
    def process_group(self, group: ProcessGroup | None) -> None:
        self._ranks = Ranks(group)

    @property
    def passes(self) -> Passes:
        """Forward and backward passes so far, those of bare `step()` calls included."""
        total = sum(group["passes"] for group in self.param_groups)
        return Passes(total, total)

    def _start_step(self, cure: str) -> None:
        """Refuse what no step can work with, and bring everything up to date.

        Args:
            cure: what to do instead of calling `step` through a GradScaler.
        """
        if "found_inf" in self.__dict__:  # a GradScaler left that, and the scale
            del self.__dict__["grad_scale"], self.__dict__["found_inf"]
            raise GradScalerUnsupportedError(
                f"{type(self).__name__} does not work with GradScaler{cure}"
            )
        if not self.param_groups:
            raise OptionError("the optimizer has no blocks: add one with add_param_group")
        if any(is_lazy(p) for group in self.param_groups for p in group["params"]):
            refuse_uninitialized(self.param_groups)
        self._sync()

    @contextmanager
    def _notes_kept_if_it_fails(self) -> Iterator[None]:
        """Take back what groups and history note of a step that fails."""
        before = [{note: group[note] for note in self.notes} for group in self.param_groups]
        recorded = len(self.history.entries) if self.history is not None else 0
        try:
            yield
        except BaseException:
            for group, notes in zip(self.param_groups, before, strict=True):
                group.update(notes)
            if self.history is not None:
                del self.history.entries[recorded:]
            raise

    def _updated(
        self, block: Updated, loss: Tensor | float | None, step_sizes: Callable[[], Tensor]
    ) -> None:
        """Tell the history of an update of a block; see `History.record`."""
        if self.history is not None:
            group = block.group
            self.history.record(group["calls"], group["name"], block.names, loss, step_sizes)


def _memory_of(value: Any) -> int:
    """Where a tensor of a state lies; somebody may put another one behind the same name."""
    return value.data_ptr() if type(value) is Tensor else 0
