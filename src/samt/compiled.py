"""`compile=True`: a whole sweep as one graph.

The sweep that runs eagerly is traced once, with everything that it does to weights, eta models
and buffers, down to single tensor operations; replay has by then removed what would be computed
twice. `torch.compile` fuses the graph; on a GPU it is captured as a CUDA graph. The last
operations of the graph take everything back if a loss, gradient or step was not finite.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from samt.closures import Closure
from samt.errors import CompileError, OptionError
from samt.evaluation import Loss
from samt.finite import Hear
from samt.history import summary
from samt.step_size import Number
from samt.subproblem import SubProblem

logger = logging.getLogger("samt")

MOST_GRAPHS = 8
# Called after each update with the loss of its first pass.
Updated = Callable[[SubProblem, Loss], None]
RunSweep = Callable[[Hear, Updated], Loss]
Report = Callable[[SubProblem, Loss, Callable[[], Tensor]], None]


class CompiledSweeps:
    """The graphs of one optimizer, by everything that shapes them."""

    def __init__(self) -> None:
        self._graphs: dict[Any, _Graph] = {}
        self._gave_up = False

    def run(
        self,
        blocks: Sequence[SubProblem],
        closures: tuple[Any, Any],
        run_sweep: RunSweep,
        check: Hear,
        report: Report,
    ) -> Loss | None:
        """Take a step with a graph.

        Args:
            blocks: that the step updates, in their order.
            closures: the closure and the meta closure (or None) of the step.
            run_sweep: takes the step eagerly; what is traced.
            check: called with every number that has to be finite, in order; raises if one is not.
            report: called after every update with the summary of its step sizes.

        Returns:
            The loss of the first pass; None if this step has to run eagerly.

        Raises:
            OptionError: a closure does not show its model and batch.
            CompileError: the compiler failed; weights and state are those of before.
        """
        known = [closure for closure in closures if closure is not None]
        if not all(isinstance(closure, Closure) and closure.batch for closure in known):
            raise OptionError(
                "compile=True needs to know the model and the batch: use samt.closure(model, "
                "loss_fn, inputs, targets), or compile=False"
            )
        if self._gave_up or not blocks:
            return None
        key = _key(blocks, known)
        if key not in self._graphs:
            if len(self._graphs) >= MOST_GRAPHS:
                self.give_up(
                    f"the steps have more than {MOST_GRAPHS} forms (a loss_fn made anew in each "
                    "step, changing batch sizes, order='random')"
                )
            else:
                self._graphs[key] = _Graph(blocks, known)
            return None  # the first step runs eagerly, which shows what the model does
        return self._graphs[key].run(known, run_sweep, check, report)

    def forget(self) -> None:
        """Drop the graphs: they work on tensors that are no longer the optimizer's."""
        self._graphs.clear()

    def give_up(self, why: str) -> None:
        """Run eagerly from now on, with one warning."""
        if not self._gave_up:
            self._gave_up = True
            self._graphs.clear()
            warnings.warn(
                f"compile=True: {why}; samt runs without compiling from now on",
                RuntimeWarning,
                stacklevel=2,
            )


def _key(blocks: Sequence[SubProblem], closures: Sequence[Closure]) -> tuple[Any, ...]:
    """Everything that the graph takes for granted; it is not checked again when it runs."""
    parts: list[Any] = []
    for block in blocks:
        parts += [block.index, *map(block.group.__getitem__, _BAKED_IN)]
        parts += map(_form, block.parameters)
    for closure in closures:
        leaves, structure = pytree.tree_flatten(closure.batch)
        parts += [id(closure.model), id(closure.loss_fn), structure, *map(_form, leaves)]
        for module in closure.model.modules():
            parts.append(module.training)
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                parts += [id(tensor), _form(tensor)]
    device = blocks[0].parameters[0].device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return (*parts, autocast)


# The options that the graph holds as constants; `lr` goes in as a tensor.
_BAKED_IN = (
    *("step_size", "head", "projection", "parts", "meta_batch", "meta_lr", "inner_steps"),
    *("radius", "relative", "weight_decay", "max_grad_norm"),
)


def _form(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad
    return repr(leaf)


class _Graph:
    """One form of step: traced by its first run, compiled by its second."""

    def __init__(self, blocks: Sequence[SubProblem], closures: Sequence[Closure]) -> None:
        self._blocks = list(blocks)
        # The key holds ids: what they belong to must live as long as the graph.
        self._kept_alive = [(closure.model, closure.loss_fn) for closure in closures]
        self._device = blocks[0].parameters[0].device
        models = dict.fromkeys(closure.model for closure in closures)
        self._state = [tensor for block in blocks for tensor in block.tensors]
        self._state += [buffer for model in models for buffer in model.buffers()]
        mine = {id(tensor) for tensor in self._state}
        self._others = [p for m in models for p in m.parameters() if id(p) not in mine]
        self._traced: torch.fx.GraphModule | None = None
        self._compiled: Callable[..., Any] | None = None
        self._heard: list[tuple[str, str | None]] = []  # what each number is, and its block
        self._updated: list[tuple[SubProblem, int]] = []  # the block of each update, and its loss
        self._passes: list[int] = []
        self._rates: list[Number] = []
        self._lrs = torch.empty(0)

    def run(
        self, closures: Sequence[Closure], run_sweep: RunSweep, check: Hear, report: Report
    ) -> Loss:
        """Take a step, and say of it what an eager step would have said."""
        lrs = self._lr_of_blocks()
        batch = [x for c in closures for x in pytree.tree_leaves(c.batch) if isinstance(x, Tensor)]
        tensors = [*self._state, *self._others, lrs, *batch]
        if self._traced is None:
            numbers, *summaries = self._trace(tensors, lrs, run_sweep)
        else:
            vectors = [tensor if tensor.dim() else tensor.view(1) for tensor in tensors]
            if self._compiled is None:
                self._compile(vectors)
            assert self._compiled is not None
            numbers, *summaries = self._compiled(*vectors)
            for block, passes in zip(self._blocks, self._passes, strict=True):
                block.group["passes"] += passes
        for label, number in zip(self._heard, numbers.unbind(), strict=True):
            check(number, *label)
        for (block, index), rows in zip(self._updated, summaries, strict=True):
            report(block, numbers[index], partial(torch.clone, rows))
        first: Tensor = numbers[0].clone()
        return first

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

    def _trace(self, tensors: list[Tensor], lrs: Tensor, run_sweep: RunSweep) -> list[Tensor]:
        """Take the step and write down every operation of it."""
        before = [(block.group["lr"], block.group["passes"]) for block in self._blocks]
        results: list[Tensor] = []

        def step(*_: Tensor) -> list[Tensor]:
            results[:] = self._guarded_step(lrs, run_sweep)
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

    def _guarded_step(self, lrs: Tensor, run_sweep: RunSweep) -> list[Tensor]:
        """One step that leaves everything as it was if a number is not finite."""
        old = [tensor.detach().clone() for tensor in self._state]
        numbers: list[Tensor] = []
        summaries: list[Tensor] = []

        def hear(number: Tensor | float, what: str, block: str | None) -> None:
            self._heard.append((what, block))
            numbers.append(torch.as_tensor(number))

        def update(block: SubProblem, loss: Loss) -> None:
            self._updated.append((block, next(i for i, x in enumerate(numbers) if x is loss)))
            summaries.append(summary(block.step_sizes))

        for block, lr in zip(self._blocks, lrs.unbind(), strict=True):
            block.group["lr"] = lr
        self._make_views()  # so that the tracer sees what they are views of
        run_sweep(hear, update)
        together = torch.stack(numbers)
        fine = torch.isfinite(together).all()
        for tensor, before in zip(self._state, old, strict=True):
            tensor.copy_(torch.where(fine, tensor.detach(), before))
        return [together, *summaries]

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
        self._compiled = _CudaGraph(compiled) if self._device.type == "cuda" else compiled
        logger.info("samt compiled a sweep in %.1f s", time.perf_counter() - started)


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
        node.meta.clear()  # each of them speaks of a fake tensor of another world
    traced.recompile()


_UNCOMPILED = "this sweep cannot be compiled: build SAMT with compile=False"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]


class _CudaGraph:
    """Calls of a function on the same tensors, or on copies into the same places, as one launch.

    Args:
        function: compiled.
    """

    def __init__(self, function: Callable[..., list[Tensor]]) -> None:
        self._function = function
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tensors: Sequence[Tensor] = []
        self._results: list[Tensor] = []

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        if not self._warm:  # the first run loads kernels, which cannot be captured
            self._warm = True
            return self._function(*tensors)
        if self._graph is None:
            self._capture(tensors)
        assert self._graph is not None
        for mine, given in zip(self._tensors, tensors, strict=True):
            if mine.data_ptr() != given.data_ptr():  # the batch and lr are new in every step
                mine.copy_(given)
        self._graph.replay()
        return [result.clone() for result in self._results]

    def _capture(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # records; nothing runs
            self._results = self._function(*tensors)
        self._graph = graph
