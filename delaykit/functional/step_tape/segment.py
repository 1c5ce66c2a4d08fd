"""One segment of a tape, and the autograd node of one step in it.

Safety rests on three things. What a backward pass writes down is kept by that pass (the engine's graph task), so passes
may be repeated, partial or nested, and it is dropped when the pass ends. The token makes the engine visit later steps
first. A segment never holds a node of its own graph, so dropping the outputs frees all.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from delaykit.errors import HistoryError
from delaykit.functional.engine_base import version_of
from delaykit.functional.step_tape.recording import Recording
from delaykit.functional.step_tape.segment_operators import Gradients, SegmentOperator

_graph_task = torch._C._current_graph_task_id


def inside_backward() -> bool:
    """Tell whether a backward pass is under way in this thread."""
    return _graph_task() != -1


def refuse_backward(where: str) -> None:
    """Raise where a step is taken inside a backward pass: it was taken before, and is no step of its own.

    Raises:
        HistoryError: it is.
    """
    if inside_backward():
        raise HistoryError(
            where, "a step inside a backward pass", "steps in the order of time, each once",
            "leave delayed connections out of activation checkpointing",
        )  # fmt: skip


class Segment:
    """Steps that share their parameters and one graph. Nodes hold the segment; it never holds a node."""

    def __init__(self, operator: SegmentOperator, recording: Recording, keep: int) -> None:
        self.operator, self.recording, self.keep = operator, recording, keep
        self.first: int | None = None
        self.passes: dict[int, Gradients] = {}
        self.trainable = any(p is not None and p.requires_grad for p in operator.parameters)
        self._versions: list[tuple[int | None, int] | None] = []
        self.row = -1
        self._passed = False  # whether a backward pass ended since the last step that was recorded

    def _end(self, task: int) -> None:
        self.passes.pop(task, None)
        self._passed = True

    def start(self) -> None:
        """Note that the next row is the first to record a gradient."""
        self.first, self._versions = self.recording.size, self.versions()

    def forward(self, x: Tensor) -> Tensor:
        """Write one input down and give the output of this step."""
        keep = self.keep if self.first is None else None
        self.row = self.recording.reserve(keep)
        self.recording.write(self.row, x, self.operator.store)
        return self.operator.forward(x, self.recording, self.row, keep)

    def note(self, ctx: Any, x: Tensor) -> Tensor:
        """Write into a step's node what its backward needs; return its token."""
        ctx.segment, ctx.row, ctx.dtype = self, self.row, x.dtype if ctx.needs_input_grad[1] else None
        ctx.goes_on, self._passed = self._passed, False
        token = torch.empty(0)
        ctx.save_for_backward(token)  # gone when the graph has been freed
        return token

    def versions(self) -> list[tuple[int | None, int] | None]:
        """Count in-place changes of every parameter, as autograd does for tensors it has saved, and say where it lies.

        The latter tells of another tensor that was put into it (``weight.data = ...``), which no count does.
        """
        return [None if p is None else (version_of(p), p.data_ptr()) for p in self.operator.parameters]

    def backward(
        self, row: int, grad: Tensor | None, dtype: torch.dtype | None, of: Literal["input", "time"] = "input"
    ) -> tuple[Tensor | None, ...]:
        """Write one output gradient down; give the input's (if a dtype is named) and, in the first row, all others.

        ``of``: a method of the pass's :class:`Gradients`; those of an exact tape also know ``"time"``, the gradient of
        the times of the input's spikes instead of that of their values.
        """
        task = _graph_task()
        record = self.passes.get(task)
        if record is None:
            record = self.passes[task] = self._begin(row, task)
        record.skip_to(row)
        record.push(row, grad)
        grad_x = None
        if dtype is not None:
            grad_x = getattr(record, of)(row).to(dtype)
        return (grad_x, *record.finish(row)) if row == self.first else (grad_x,)

    def _begin(self, last: int, task: int) -> Gradients:
        if self.versions() != self._versions:
            raise HistoryError(
                "tape backward",
                "a weight or delay that was changed in place, or through .data, after its segment began",
                "the parameters that made the outputs",
                "call backward before the optimizer's step, and rebind the tape after it",
            )
        # The engine calls this at the end of the pass, also when it never reached the first node.
        torch.autograd.Variable._execution_engine.queue_callback(lambda: self._end(task))
        return self.operator.gradients(self.recording, last)


class Step(torch.autograd.Function):
    """One time step. The token carries no number: it makes the backward of a step wait for that of the next."""

    @staticmethod
    def forward(ctx: Any, segment: Segment, x: Tensor, token: Tensor | None, *parameters: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        if token is None:
            segment.start()
        return segment.forward(x), segment.note(ctx, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> Any:
        if torch.is_grad_enabled():
            # once_differentiable would let a loss that is linear in the output pass, with second derivatives of zero.
            raise HistoryError(
                "tape backward",
                "create_graph=True",
                "first derivatives only",
                "call the layer with the whole sequence (for current in fc(spikes): ...) under dk.backend('reference')",
            )
        check_not_freed(ctx)
        grad_x, *parameters = ctx.segment.backward(ctx.row, grad, ctx.dtype)
        return None, grad_x, None, *parameters


class _Chained(torch.autograd.Function):
    """Pass an output on, and its gradient back."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, passes: Passes, before: Any) -> Tensor:
        ctx.passes, ctx.before = passes, before
        ctx.save_for_backward(torch.empty(0))  # gone when the graph has been freed
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        check_not_freed(ctx)
        ctx.passes.seen = True
        return grad, None, None


class Passes:
    """Whether a backward pass went through the steps of a stream since its last step, and the node of that step."""

    seen = False
    last: Any = None


def chained(output: Tensor, passes: Passes, linked: bool = True) -> Tensor:
    """Return a step's output; the first one behind a backward pass looks back whether that freed a graph it is part of.

    Args:
        output: of this step.
        passes: of the stream.
        linked: whether the step before shares its graph with this one, that of a state or of the parameters.
    """
    if not output.requires_grad:
        return output
    before, passes.seen = passes.last if passes.seen and linked else None, False
    output = _Chained.apply(output, passes, before)
    passes.last = output.grad_fn
    return output


def check_not_freed(ctx: Any) -> None:
    """Raise where a second backward pass reaches a step of an earlier sequence: its line was not cut.

    The first step behind a pass looks at the step before it: the engine comes here before it finds a neuron's own
    graph freed, of which torch says nothing that helps.

    Raises:
        HistoryError: the graph of this step, or of the one before it, has been freed.
    """
    try:
        _ = ctx.saved_tensors
        if getattr(ctx, "goes_on", False):
            _ = [node.saved_tensors for node, _ in ctx.next_functions if type(node) is type(ctx)]
        if getattr(ctx, "before", None) is not None:
            _ = ctx.before.saved_tensors
    except HistoryError:  # of a step that activation checkpointing takes again
        raise
    except RuntimeError as error:
        raise HistoryError(
            "tape backward",
            "a second backward pass through steps before the last one's: the delay line still holds their graph",
            "one backward pass a sequence, or a line that is cut where the other states are",
            "a new sequence: reset before it (snnTorch: utils.reset(net); Norse: state None; dk.reset(net)). The same "
            "one going on (truncated BPTT): detach every entry of the state, delaykit's too: "
            "tree_map(lambda v: v.detach(), state) of "
            "torch.utils._pytree does; or call dk.detach(net)",
        ) from error
