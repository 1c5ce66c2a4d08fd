"""How a model is run over a sequence: by its own forward, which holds the loop, or by a loop around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from delaykit.attaching.wiring import wiring_of
from delaykit.errors import ShapeError
from delaykit.planning.survey import adapters

Program = Callable[..., Any]


def own_loop(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a model whose forward holds the loop."""
    return net(*args, **kwargs)


def outer_loop(net: nn.Module, inputs: Any, state: Any = None) -> Any:
    """Step a model over a sequence from rest; return what it returns at each step, stacked along time.

    Args:
        net: a model that is called once a step.
        inputs: ``(time, ...)``.
        state: where a model that is given its state, and returns it, starts; None: at rest.

    Returns:
        Outputs with time in front; for a model that carries its state, those and the state after the last step.
    """
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not len(inputs):
        found = f"input of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        fix = "pass the sequence, time first"
        raise ShapeError("fused", found, "a sequence (time, ...) for a model that is called once a step", fix)
    carries = "state" in inspect.signature(net.forward).parameters
    begin_anew(net)
    state = tree_map(lambda x: x, state)  # SequentialState changes the list that it is given
    outputs = []
    for step in range(inputs.shape[0]):
        if carries:
            output, state = net(inputs[step], state)
        else:
            output = net(inputs[step])
        outputs.append(output)
    stacked = tree_map(lambda *steps: torch.stack(steps) if isinstance(steps[0], Tensor) else steps[-1], *outputs)
    begin_anew(net)
    return (stacked, state) if carries else stacked


def begin_anew(net: nn.Module) -> None:
    """Bring the neurons that keep their state to rest, and forget what is under way."""
    known = adapters()
    for path, module in net.named_modules():
        for attachment in (wiring.sites.values() if (wiring := wiring_of(module)) else ()):
            attachment.history.clear()
        for adapter in known:
            neuron = adapter.find(path, module)[1]
            if neuron is not None:
                if neuron.follows:
                    adapter.reset_(module)
                break


