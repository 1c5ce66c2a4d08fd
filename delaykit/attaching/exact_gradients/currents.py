"""What stands between an exact connection and its neuron: only sums and constant factors keep its gradients right.

The gradient of an arrival's time is read off the gradients that a connection's current gets in two steps that follow
each other (:mod:`~delaykit.functional.event_gradients`). Whatever scales these two differently, such as dropout with a
mask a step or the statistics of a batch, makes it wrong, and no number shows it. So the neuron's first call with
gradients, in training and again in evaluation, is looked at: the graph of what it hears, back to the connections.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.errors import TrainingError
from delaykit.functional.event_gradients.rule import Continued, Emission
from delaykit.functional.event_gradients.tape import ExactStep

CONSTANT = frozenset(
    "Add Sub Neg Alias Clone View Reshape ReshapeAlias UnsafeView Squeeze Unsqueeze Permute Transpose T Select Slice"
    " Unbind Split SplitWithSizes Chunk Stack Cat Expand Repeat ToCopy Copy Sum Mean AvgPool1D AvgPool2D AvgPool3D"
    " AdaptiveAvgPool2D Mm Addmm Bmm Baddbmm Convolution ConstantPadNd Index IndexSelect Flip".split()
)
"""Operations that are linear, and the same in all steps."""


@dataclasses.dataclass
class CurrentWatch:
    """Forward pre-hook of a neuron that exact connections drive.

    Args:
        neuron: path, for the message.
        masked: whether a connection brings a mask of its own, one a sequence.
        seen: modes (training, evaluation) in which what it hears is known to be right.
    """

    neuron: str
    masked: bool
    seen: set[bool] = dataclasses.field(default_factory=set)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Raise a :class:`TrainingError` where gradients would be wrong."""
        if torch.compiler.is_compiling() or module.training in self.seen or not torch.is_grad_enabled():
            return
        drive = inputs[0] if inputs else None
        if isinstance(drive, Tensor) and drive.grad_fn is not None and self._heard(drive):
            self.seen.add(module.training)

    def _heard(self, drive: Tensor) -> bool:
        """Walk back to the exact connections; tell whether there was one."""
        found, visited = False, set()
        todo: list[tuple[Any, str]] = [(drive.grad_fn, "")]
        while todo:
            node, changed = todo.pop()
            if node is None or (node, changed) in visited or isinstance(node, ENDS):
                continue
            visited.add((node, changed))
            if issubclass(type(node), ExactStep._backward_cls):  # not isinstance: it would make the node an object
                found = True
                if changed:
                    raise self._error(node.segment.operator.where, changed)
                continue
            for n, (following, _) in enumerate(node.next_functions):
                todo.append((following, changed or ("" if self._constant(node, n, drive) else node.name())))
        return found

    def _constant(self, node: Any, n: int, drive: Tensor) -> bool:
        """Tell whether an operation is the same in all steps for its n-th input."""
        name = node.name().partition("Backward")[0]
        if name == "Mul" or (name == "Div" and n == 0):
            factor = node._saved_other if n == 0 else node._saved_self
            each = isinstance(factor, Tensor) and factor.numel() > 1 and factor.dim() >= drive.dim()
            return self.masked or not each
        if name == "NativeBatchNorm":
            return not node._saved_training
        return name in CONSTANT

    def _error(self, site: str, changed: str) -> TrainingError:
        return TrainingError(
            site,
            f"{changed} between this connection with estimator='exact' and its neuron {self.neuron!r}: what changes "
            "from step to step there (dropout, batch statistics, a nonlinearity) makes exact gradients wrong",
            "only sums and constant factors",
            "put it before the connection or behind the neuron, or use estimator='interp'",
        )


ENDS = (Emission._backward_cls, Continued._backward_cls)


def watch_(module: nn.Module, watch: CurrentWatch) -> None:
    """Look at what a neuron hears, once a mode."""
    module.register_forward_pre_hook(watch)


def unwatch_(module: nn.Module, neuron: str) -> None:
    """Take one watch away."""
    hooks = module._forward_pre_hooks
    for key in [k for k, hook in hooks.items() if isinstance(hook, CurrentWatch) and hook.neuron == neuron][:1]:
        del hooks[key]
