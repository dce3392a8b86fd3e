"""Hooks by which a model holds y in training mode and x in evaluation mode and in state dicts.

Nobody has to remember a mode: the model that was given to the optimizer has one already. Before a
forward pass a hook compares two bools, and does more only where they have come to differ.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from samt.auto.held import Held
from samt.block_optimizer import never_compiled
from samt.partition import inner_model, outside


class _Hook:
    """A hook of a module. Copies and pickles of it are dead: they belong to another model.

    Args:
        held: what the parameters hold; None of a dead hook.
        model: the model whose mode counts.
    """

    def __init__(self, held: Held | None = None, model: nn.Module | None = None) -> None:
        self.held = held
        self._model = weakref.ref(model) if model is not None else None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class _BeforeForward(_Hook):
    """Before a forward pass the parameters come to hold what the model's mode wants."""

    is_of_root = False

    def __call__(self, module: nn.Module, *_: Any) -> None:
        held = self.held
        if torch.compiler.is_compiling():
            # The graph breaks here, but where the mode has changed alone.
            if self.is_of_root and held is not None and held.shows_average is module.training:
                _switch(held, module.training)
            return
        model = self._model() if self._model is not None else None
        if held is not None and model is not None and held.shows_average is model.training:
            _switch(held, model.training)


class _BeforeStateDict(_Hook):
    """A state dict of the model, or of a part of it, has x."""

    def __call__(self, *_: Any) -> None:
        if self.held is not None and not self.held.shows_average:
            _switch(self.held, False)


class _AfterLoading(_Hook):
    """Weights that were loaded into the model are where the training goes on."""

    def __call__(self, module: nn.Module, *_: Any) -> None:
        if self.held is not None:
            _loaded(self.held, module)


@never_compiled
def _switch(held: Held, trains: bool) -> None:
    if not trains:
        held.show_average()
    elif held.is_orphaned:  # and has come to its x
        for handle in held.handles:
            handle.remove()
    else:
        held.show_training_weights()


@never_compiled
def _loaded(held: Held, module: nn.Module) -> None:
    held.weights_were_loaded(module.parameters(recurse=False))


def _let_compiled_models_see_hooks() -> None:
    """Make `torch.compile` respect the hooks of this module.

    By default a graph does not ask which hooks a module has. A model would then run in a graph that
    was made before its hooks came, or for another model of the same shapes that has none.
    """
    from torch._dynamo import config, convert_frame, eval_frame  # torch's optimizers imported it

    if config.skip_nnmodule_hook_guards:
        config.skip_nnmodule_hook_guards = False
        if convert_frame.FRAME_COUNTER:  # there are graphs already
            torch.compiler.reset()
    # From outside of its graphs the compiler would see a hook as a graph by itself, in which the
    # hook does nothing, because it is being compiled. As a part of a larger graph it shall do so.
    eval_frame.skip_code(_BeforeForward.__call__.__code__)


def watch(model: nn.Module, parameters: Iterable[Tensor], held: Held) -> None:
    """Hang hooks on a model, and on every part of it that has some of the parameters.

    Args:
        model: the network, or what `torch.compile` or `DistributedDataParallel` made of it.
        parameters: the parameters of the optimizer.
        held: what these parameters hold.
    """
    inner, ours = inner_model(model), set(parameters)
    held.model = weakref.ref(inner)
    finish_others(inner, ours)
    owners = [m for m in inner.modules() if ours & set(m._parameters.values())]
    wrappers = [one for one in outside(model) if one is not inner]
    handles = held.handles
    _let_compiled_models_see_hooks()
    for module in dict.fromkeys((*wrappers, inner, *owners)):
        hook = _BeforeForward(held, inner)
        hook.is_of_root = module is inner
        handles.append(module.register_forward_pre_hook(hook, prepend=True))
    for module in dict.fromkeys((inner, *owners)):
        handles.append(module.register_state_dict_pre_hook(_BeforeStateDict(held, inner)))
        handles.append(module.register_load_state_dict_post_hook(_AfterLoading(held, inner)))


def finish_others(model: nn.Module, parameters: set[Tensor]) -> None:
    """Let earlier optimizers of the same parameters leave x in them, where this one begins."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            held = hook.held if isinstance(hook, _BeforeForward) else None
            if held is not None and parameters & set(held.trained_parameters()):
                held.show_average()
