"""`compile=True`: a whole sweep as one graph.

The sweep that runs eagerly is traced once, with everything that it does to weights, eta models
and buffers, down to single tensor operations; replay has by then removed what would be computed
twice. `torch.compile` fuses the graph; on a GPU it is captured as a CUDA graph. If a loss, gradient
or step was not finite, everything is taken back afterwards.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from samt.alternating.evaluation import Loss, take_back
from samt.alternating.oagd import SubProblem
from samt.alternating.sweep import Sweep, Updated
from samt.closures import Closure
from samt.errors import CompileError, OptionError
from samt.step_size import Number
from samt.tensors.finite import FiniteNumbers, Named

logger = logging.getLogger("samt")

MOST_GRAPHS = 8


class CompiledSweeps:
    """Holds the graphs of one optimizer, by everything that shapes them."""

    def __init__(self) -> None:
        self._graphs: dict[Any, _Graph] = {}
        self._gave_up = False

    def run(self, sweep: Sweep, numbers: FiniteNumbers, updated: Updated | None) -> Loss:
        """Run a sweep, with a graph where there can be one.

        Args:
            sweep: the sweep of this step.
            numbers: the object that looks at every number that has to be finite.
            updated: the function that is called after each update.

        Returns:
            The loss of the first pass.

        Raises:
            OptionError: a closure does not show its model and batch.
            CompileError: the compiler failed; weights and state are those of before.
        """
        if not all(isinstance(closure, Closure) and closure.batch for closure in sweep.closures):
            raise OptionError(
                "compile=True needs to know the model and the batch: use samt.closure(model, "
                "loss_fn, inputs, targets), or compile=False"
            )
        key = None if self._gave_up or not sweep.blocks else _key(sweep)
        if key in self._graphs:
            return self._graphs[key].run(sweep, numbers, updated)
        loss = sweep.run(numbers, updated)  # shows what the model does
        if sweep.evaluation.draws:
            self._give_up("the model draws random numbers (dropout)")
        elif sweep.evaluation.keeps:
            self._give_up("the model keeps something as an attribute")
        elif key is not None and len(self._graphs) >= MOST_GRAPHS:
            self._give_up(
                f"the steps have more than {MOST_GRAPHS} forms (a loss_fn made anew in each "
                "step, changing batch sizes, order='random')"
            )
        elif key is not None:
            self._graphs[key] = _Graph(sweep)
        return loss

    def forget(self) -> None:
        """Drop the graphs: they work on tensors that are no longer the optimizer's."""
        self._graphs.clear()

    def _give_up(self, why: str) -> None:
        """Run eagerly from now on, with one warning."""
        if not self._gave_up:
            self._gave_up = True
            self._graphs.clear()
            warnings.warn(
                f"compile=True: {why}; samt runs without compiling from now on",
                RuntimeWarning,
                stacklevel=2,
            )


def _key(sweep: Sweep) -> tuple[Any, ...]:
    """Everything that the graph takes for granted; it is not checked again when it runs."""
    parts: list[Any] = []
    for block in sweep.blocks:
        parts += [block.index, *map(block.group.__getitem__, _BAKED_IN)]
        parts += map(_form, block.parameters)
    for closure in sweep.closures:
        leaves, structure = pytree.tree_flatten(closure.batch)
        parts += [id(closure.model), id(closure.loss_fn), structure, *map(_form, leaves)]
    for holder in sweep.evaluation.holders:
        attributes = vars(holder)
        parts += [id(holder), *attributes, *map(_constant, attributes.values())]
        for tensor in _tensors_of(holder):
            parts += [id(tensor), _form(tensor)]
    device = sweep.blocks[0].parameters[0].device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return (*parts, autocast)


# The options that the graph holds as constants; `lr` goes in as a tensor.
_BAKED_IN = (
    *("step_size", "head", "projection", "parts", "meta_batch", "meta_lr", "inner_steps"),
    *("radius", "relative", "weight_decay", "max_grad_norm"),
)


def _constant(value: Any) -> Any:
    """What a graph takes for granted of an attribute."""
    if isinstance(value, int | float | str | tuple | None):
        return repr(value)
    return (id(value), value._version) if isinstance(value, Tensor) else id(value)


def _tensors_of(holder: Any) -> list[Tensor]:
    """The parameters and buffers that a module holds itself."""
    if not isinstance(holder, nn.Module):
        return []
    held = (*holder._parameters.values(), *holder._buffers.values())
    return [tensor for tensor in held if tensor is not None]


def _form(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad
    return repr(leaf)


class _Graph:
    """Runs steps of one form: the first run traces the step, the second compiles it."""

    def __init__(self, sweep: Sweep) -> None:
        self._blocks: list[Any] = list(sweep.blocks)
        # The key holds ids: what they belong to must live as long as the graph.
        self._kept_alive: list[Any] = [(c.model, c.loss_fn) for c in sweep.closures]
        self._device = self._blocks[0].parameters[0].device
        self._kept_alive += [(holder, None) for holder in sweep.evaluation.holders]
        of_holders = [x for holder in sweep.evaluation.holders for x in _tensors_of(holder)]
        self._state = [tensor for block in self._blocks for tensor in block.tensors]
        self._state += [x for x in of_holders if not isinstance(x, nn.Parameter)]
        self._state = list({id(tensor): tensor for tensor in self._state}.values())
        mine = {id(tensor) for tensor in self._state}
        self._others = list({id(x): x for x in of_holders if id(x) not in mine}.values())
        self._traced: torch.fx.GraphModule | None = None
        self._compiled: Callable[..., Any] | None = None
        self._checked: list[tuple[str, str | None]] = []  # what each number is, and its block
        self._updated: list[tuple[SubProblem, int]] = []  # the block of each update, and its loss
        self._passes: list[int] = []
        self._rates: list[Number] = []
        self._lrs = torch.empty(0, device=self._device)

    def run(self, sweep: Sweep, numbers: FiniteNumbers, updated: Updated | None) -> Loss:
        """Take a step, and report the same numbers and updates as an eager step."""
        undo = [(tensor, tensor.detach().clone()) for tensor in self._state]
        try:
            found, *summaries = self._run(sweep)
            for (what, name), number in zip(self._checked, found.unbind(), strict=True):
                numbers.check([(number, what)], name)
            if numbers.collected:
                numbers.look()
        except BaseException:
            numbers.collected.clear()
            take_back(undo)
            raise
        for (block, index), rows in zip(self._updated, summaries, strict=True):
            if updated is not None:
                updated(block, found[index], partial(torch.clone, rows))
        first: Tensor = found[0].clone()
        return first

    def _run(self, sweep: Sweep) -> list[Tensor]:
        lrs = self._lr_of_blocks()
        batches = (pytree.tree_leaves(closure.batch) for closure in sweep.closures)
        batch = [leaf for leaves in batches for leaf in leaves if isinstance(leaf, Tensor)]
        tensors = [*self._state, *self._others, lrs, *batch]
        if self._traced is None:
            return self._trace(tensors, lrs, sweep)
        vectors = [tensor if tensor.dim() else tensor.view(1) for tensor in tensors]
        if self._compiled is None:
            self._compile(vectors)
        assert self._compiled is not None
        results: list[Tensor] = self._compiled(*vectors)
        for block, passes in zip(self._blocks, self._passes, strict=True):
            block.group["passes"] += passes
        return results

    def _lr_of_blocks(self) -> Tensor:
        """One η⁰ for each block; made anew where it has changed."""
        rates = [block.group["lr"] for block in self._blocks]
        if any(isinstance(rate, Tensor) for rate in rates):
            as_tensor = partial(torch.as_tensor, dtype=torch.float64, device=self._device)
            return torch.stack([as_tensor(rate).view(()) for rate in rates])
        if rates != self._rates:
            self._rates = rates
            self._lrs = torch.tensor(rates, dtype=torch.float64, device=self._device)
        return self._lrs

    def _trace(self, tensors: list[Tensor], lrs: Tensor, sweep: Sweep) -> list[Tensor]:
        """Take the step and write down every operation of it."""
        before = [(block.group["lr"], block.group["passes"]) for block in self._blocks]
        results: list[Tensor] = []

        def step(*_: Tensor) -> list[Tensor]:
            results[:] = self._step(lrs, sweep)
            return results

        # Imported here, because it takes as long as the rest of samt and torch.
        from torch.fx.experimental.proxy_tensor import make_fx

        try:
            self._traced = make_fx(step)(*tensors)
        except RuntimeError as error:
            raise CompileError(f"{_UNCOMPILED} (tracing: {_first_line(error)})") from error
        finally:
            self._make_views()
            for block, (lr, _) in zip(self._blocks, before, strict=True):
                block.group["lr"] = lr
        for block, (_, passes) in zip(self._blocks, before, strict=True):
            self._passes.append(block.group["passes"] - passes)
        return results

    def _make_views(self) -> None:
        for block in self._blocks:
            if block.eta is not None:
                block.eta.make_views()

    def _step(self, lrs: Tensor, sweep: Sweep) -> list[Tensor]:
        """One step; returns its numbers, and the summary of the step sizes of each update."""
        summaries: list[Tensor] = []
        numbers = _Listener()

        def update(block: Any, loss: Loss | None, step_sizes: Callable[[], Tensor]) -> None:
            index = next(i for i, number in enumerate(numbers.heard) if number is loss)
            self._updated.append((block, index))
            summaries.append(step_sizes())

        for block, lr in zip(self._blocks, lrs.unbind(), strict=True):
            block.group["lr"] = lr
        self._make_views()  # so that the tracer sees what they are views of
        sweep.run(numbers, update)
        self._checked = numbers.labels
        return [torch.stack(numbers.heard), *summaries]

    def _compile(self, vectors: list[Tensor]) -> None:
        """Compile what was traced.

        It goes to Inductor, which is what `torch.compile` does with it in the end: the graph is
        there, so nothing needs to be read from Python code nor guarded in every step.
        """
        from torch._inductor import compile as compile_graph

        assert self._traced is not None
        started = time.perf_counter()
        _take_vectors_for_scalars(self._traced)
        # On a GPU the CUDA graph takes the Python between the kernels away, here C++ does.
        options = {"cpp_wrapper": self._device.type == "cpu"}
        try:
            compiled = compile_graph(self._traced, [*vectors], options=options)
        except Exception as error:  # torch's compilers raise classes of their own, not one
            raise CompileError(f"{_UNCOMPILED} ({_first_line(error)})") from error
        fixed = len(self._state) + len(self._others)
        self._compiled = _CudaGraph(compiled, fixed) if self._device.type == "cuda" else compiled
        logger.info("samt compiled a sweep in %.1f s", time.perf_counter() - started)


class _Listener(FiniteNumbers):
    """Collects the numbers of a step that is traced, in which nobody can look at them."""

    def __init__(self) -> None:
        super().__init__("")
        self.heard: list[Tensor] = []
        self.labels: list[tuple[str, str | None]] = []

    def check(self, numbers: Named, block: str | None = None) -> None:
        for number, what in numbers:
            self.heard.append(torch.as_tensor(number))
            self.labels.append((what, block))


def _take_vectors_for_scalars(traced: torch.fx.GraphModule) -> None:
    """Let a graph's inputs without dimensions come as vectors of one element.

    Inductor (torch 2.13) reads an input without dimensions after it was written to, as if it
    were still the old one; vectors it orders rightly.
    """
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    scalars = [node for node in inputs if node.meta["val"].dim() == 0]
    with traced.graph.inserting_after(inputs[-1]):
        for node in scalars:
            view = traced.graph.call_function(torch.ops.aten.view.default, (node, []))
            node.replace_all_uses_with(
                view, delete_user_cb=lambda user, view=view: user is not view
            )
    for node in traced.graph.nodes:
        node.meta.clear()  # the notes are about fake tensors that are gone
    traced.recompile()


_UNCOMPILED = "this sweep cannot be compiled: build SAMT with compile=False"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]


class _CudaGraph:
    """Calls a function on tensors that stay in their places, as one launch.

    Args:
        function: the compiled function.
        fixed: the number of the first tensors, which the function changes; the others, the batch
            and lr, are new in every step and are copied to where the graph reads them.
    """

    def __init__(self, function: Callable[..., list[Tensor]], fixed: int) -> None:
        self._function = function
        self._fixed = fixed
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: list[int] = []
        self._copies: list[Tensor] = []
        self._results: list[Tensor] = []

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        if not self._warm:  # the first run loads kernels, which cannot be captured
            self._warm = True
            return self._function(*tensors)
        stay, change = tensors[: self._fixed], tensors[self._fixed :]
        places = [tensor.data_ptr() for tensor in stay]
        if self._graph is None or places != self._places:  # somebody has set `.data`
            self._places = places
            self._copies = [_copy_in_its_layout(tensor) for tensor in change]
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):  # records; nothing runs
                self._results = self._function(*stay, *self._copies)
        for mine, given in zip(self._copies, change, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return [result.clone() for result in self._results]


def _copy_in_its_layout(tensor: Tensor) -> Tensor:
    """A copy with the strides that the function was compiled for, such as every second row."""
    shape, strides, dtype = tensor.shape, tensor.stride(), tensor.dtype
    copy = torch.empty_strided(shape, strides, dtype=dtype, device=tensor.device)
    return copy.copy_(tensor)
