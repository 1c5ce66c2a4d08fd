"""How a model is run over a sequence: by its own forward, which holds the loop, or by a loop around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from delaykit import checks
from delaykit.attaching.wiring import wiring_of
from delaykit.errors import ConfigError, ShapeError
from delaykit.planning.survey import adapters

Program = Callable[..., Any]
CARRIES = "forward(input, state), which returns (output, state), around neurons that are given their states"
FIX = "hand all states over as one argument, a tuple for one, and return them so; None begins"


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
    carries = _state_of(net)
    begin_anew(net)
    state = tree_map(lambda x: x, state)  # SequentialState changes the list that it is given
    outputs = []
    for step in range(inputs.shape[0]):
        if carries:
            returned = net(inputs[step], **{carries: state})
            if not (isinstance(returned, tuple) and len(returned) == 2):
                raise ConfigError("fused", f"a step that returns {checks.shown(returned)}", CARRIES, FIX)
            output, state = returned
        else:
            output = net(inputs[step])
        outputs.append(output)
    stacked = tree_map(lambda *steps: torch.stack(steps) if isinstance(steps[0], Tensor) else steps[-1], *outputs)
    begin_anew(net)
    return (stacked, state) if carries else stacked


def _state_of(net: nn.Module) -> str:
    """Return the name of the argument in which a model is given its state, ``""`` where it keeps it.

    Raises:
        ConfigError: neurons are given their states, and the model takes them in another way.
    """
    ways = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [name for name, p in inspect.signature(net.forward).parameters.items() if p.kind in ways][1:]
    if "state" in names or not names:
        return "state" if names else ""
    known = adapters()
    found = (adapter.find(path, m)[1] for path, m in net.named_modules() for adapter in known)
    if all(neuron is None or neuron.follows for neuron in found):
        return ""
    if len(names) > 1:
        what = f"a model that is called once a step and takes {', '.join(names)} besides its input"
        raise ConfigError("fused", what, CARRIES, FIX)
    return names[0]


def begin_anew(net: nn.Module) -> None:
    """Bring the neurons that keep their state to rest, and forget what is under way."""
    known = adapters()
    for path, module in net.named_modules():
        for attachment in wiring.sites.values() if (wiring := wiring_of(module)) else ():
            attachment.history.clear()
        for adapter in known:
            neuron = adapter.find(path, module)[1]
            if neuron is not None:
                if neuron.follows:
                    adapter.reset_(module)
                break
