"""`samt.SAMT`: one name for two optimizers, the one that needs no tuning and the published one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from samt.errors import GradScalerUnsupportedError, OptionError, suggestion
from samt.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from samt.history import History
    from samt.passes import Passes


class SAMT(torch.optim.Optimizer):
    """Stochastic alternating minimization with trainable step sizes.

    Two presets, each an optimizer of its own with its own options:

    - `auto`: needs no numbers, no closure and no extra pass; see `samt.auto.AutoSAMT`.
    - `paper`: the published method; see `samt.optimizer.PaperSAMT`.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = samt.SAMT(samt.blocks(model))
        >>> model(torch.ones(4, 3)).square().mean().backward()
        >>> _ = optimizer.step()
        >>> type(optimizer).__name__
        'AutoSAMT'
        >>> type(samt.SAMT(samt.blocks(model), step_size="row")).__name__
        'PaperSAMT'
    """

    _presets: ClassVar[dict[str, type[SAMT]]] = {}
    history: History | None
    _ranks: Ranks

    def __init_subclass__(cls, preset: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if preset is not None:
            SAMT._presets[preset] = cls

    def __new__(
        cls,
        params: ParamsT = (),
        lr: float | Tensor = 0.1,
        *,
        preset: str | None = None,
        **options: Any,
    ) -> SAMT:
        """Make the optimizer of the preset that is meant.

        Args:
            params: blocks, best made by `samt.blocks(model)`, or any iterable of parameters.
            lr: initial step size η⁰; a hint to `auto`, the step itself at first to `paper`.
            preset: `auto` or `paper`. If it is left out it is `paper` where an option is given that
                `paper` alone has, such as `step_size`, and `auto` otherwise.
            options: of the preset.

        Raises:
            SAMTError: an option is wrong; the message names the cure.
        """
        # Python then calls the constructor of the class that is made, with the same arguments.
        chosen = cls if cls is not SAMT else SAMT._presets[_preset(params, preset, options)]
        return super().__new__(chosen)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_ranks": self._ranks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_ranks": Ranks(None), **state})
        self.__dict__.setdefault("history", None)

    @property
    def process_group(self) -> ProcessGroup | None:
        """Over which gradients and losses are averaged; to be set again after unpickling."""
        return self._ranks.group

    @process_group.setter
    def process_group(self, group: ProcessGroup | None) -> None:
        self._ranks = Ranks(group)

    def _refuse_scaled_gradients(self, cure: str) -> None:
        """Raise GradScalerUnsupportedError if it is a GradScaler that calls `step`."""
        if "found_inf" in self.__dict__:  # it left that, and the scale
            del self.__dict__["grad_scale"], self.__dict__["found_inf"]
            raise GradScalerUnsupportedError(f"SAMT does not work with GradScaler{cure}")

    @property
    def passes(self) -> Passes:
        """Forward and backward passes so far."""
        raise NotImplementedError

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        meta_closure: Callable[[], Any] | None = None,
    ) -> Any:
        """One step of every block; what a closure is for depends on the preset.

        Args:
            closure: evaluates the loss, best made by `samt.closure`.
            meta_closure: the loss of the meta batch, with `preset="paper"`.

        Returns:
            The loss before the step; None without a closure.
        """
        raise NotImplementedError


def _preset(params: Any, given: str | None, options: dict[str, Any]) -> str:
    """The preset that is meant."""
    known = SAMT._presets
    if given is None:
        groups = params if isinstance(params, list | tuple) else []
        words = {*options, *(key for group in groups if isinstance(group, dict) for key in group)}
        return "paper" if words & (_options("paper") - _options("auto")) else "auto"
    if not isinstance(given, str) or given not in known:
        raise OptionError(f"unknown preset {given!r}: {suggestion(str(given), known)}")
    return given


def _options(preset: str) -> set[str]:
    return {*inspect.signature(SAMT._presets[preset].__init__).parameters}
