"""Nodes of kind ``nir.Delay``: their whole steps, and a PyTorch module for importers of graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.errors import ConfigError, ShapeError
from delaykit.nir.values import nir_package, real

WHOLE = 1e-4  # steps; seconds divided by seconds are never quite whole
CELLS = 2**27  # of a line: a gigabyte in float64 for each row of a batch


def whole_steps(where: str, seconds: Any, dt: float) -> Tensor:
    """Return delays in seconds as whole numbers of steps.

    Raises:
        ConfigError: a delay is negative or no whole number of steps, or the line would fill the memory.
    """
    steps = real(f"{where}.delay", seconds) / dt
    if float(steps.max()) * steps.numel() > CELLS:
        found = f"a delay of {float(steps.max()):.6g} steps of {dt * 1000:g} ms for {steps.numel()} features"
        raise ConfigError(where, found, f"at most {CELLS} cells (steps times features)", "pass another dt_ms")
    whole = steps.round()
    if not bool((torch.isfinite(steps) & (steps >= 0) & ((steps - whole).abs() <= WHOLE)).all()):
        worst = steps.flatten()[int((steps - whole).abs().nan_to_num(torch.inf).argmax())]
        found = f"a delay of {float(worst):.6g} steps of {dt * 1000:g} ms"
        fix = "pass another dt_ms, or round the graph"
        raise ConfigError(where, found, "whole numbers of steps >= 0", fix)
    return whole.long()


class DelayLine(nn.Module):
    """Give every feature back ``steps`` steps later: ``output, state = line(input, state)``; None begins with silence.

    Args:
        steps: whole numbers >= 0, one a feature, of the features' shape.

    Example:
        >>> line, state = DelayLine(torch.tensor([0, 2])), None
        >>> for x in torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]]):
        ...     y, state = line(x, state)
        ...     print(y.tolist())
        [[1.0, 0.0]]
        [[0.0, 0.0]]
        [[0.0, 1.0]]
    """

    steps: Tensor

    def __init__(self, steps: Tensor) -> None:
        super().__init__()
        self.shape = tuple(steps.shape)
        self.depth = int(steps.max()) if steps.numel() else 0
        self.register_buffer("steps", steps.reshape(-1).long())

    def forward(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Step once: ``(batch, *features)`` -> the same, and what is still under way, the newest first."""
        if tuple(input.shape[1:]) != self.shape:
            fix = "give a channel for each delay"
            raise ShapeError("Delay", f"input of shape {tuple(input.shape)}", f"(batch, {self.shape})", fix)
        flat = input.reshape(input.shape[0], -1)
        past = flat.new_zeros(self.depth, *flat.shape) if state is None else state
        line = torch.cat([flat.unsqueeze(0), past])
        output = line.gather(0, self.steps.expand(1, flat.shape[0], -1)).squeeze(0)
        return output.reshape(input.shape), line[: self.depth]

    def extra_repr(self) -> str:
        return f"{'x'.join(map(str, self.shape))}, 0..{self.depth} steps"


def node_map(dt_ms: float) -> dict[Any, Callable[[Any], nn.Module]]:
    """Return what nirtorch's importers need to read ``nir.Delay``.

    Args:
        dt_ms: length of a step in milliseconds, > 0: NIR counts seconds.

    Returns:
        ``{nir.Delay: function that makes a DelayLine}``; give it to ``nirtorch.nir_to_torch(graph, node_map)`` together
        with the neurons of your library.

    Example:
        >>> import nir, numpy as np
        >>> node_map(dt_ms=1.0)[nir.Delay](nir.Delay(np.array([0.002, 0.005])))
        DelayLine(2, 0..5 steps)
    """
    return {nir_package().Delay: lambda node: DelayLine(whole_steps("Delay", node.delay, dt_ms / 1000))}
