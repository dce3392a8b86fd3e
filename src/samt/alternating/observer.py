"""Watches which parameters enter torch functions, and who asks whether gradients are required."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from samt.alternating.replay import passed

_ASKS = Tensor.requires_grad  # type: ignore[attr-defined]


class Observer(TorchFunctionMode):
    """A mode for one evaluation of the loss.

    Args:
        parameters: the `id`s of the parameters that matter.
        note_use: called with the `id` of a parameter that enters a torch function.

    Attributes:
        asked: whether code asked a tensor if it requires gradients.
    """

    def __init__(self, parameters: Set[int], note_use: Callable[[int], None] | None) -> None:
        super().__init__()
        self._parameters = parameters
        self._note_use = note_use
        self.asked = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        is_getter = func.__name__ == "__get__"
        if is_getter and func.__self__ is _ASKS:
            self.asked = True
        # A look at the dtype, the device or the shape is no use.
        if self._note_use is not None and (not is_getter or isinstance(result, Tensor)):
            for parameter in self._parameters & set(map(id, passed(args, kwargs))):
                self._note_use(parameter)
        return result
