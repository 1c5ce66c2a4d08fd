"""Read the equations of a SpikingJelly neuron as it stands: for ``dk.rollout``, and for parts that ask for its leak.

    LIF, decay_input:  u[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau
    LIF, otherwise:    u[t] = v[t-1] - (v[t-1] - v_reset) / tau + x[t]
    IF:                u[t] = v[t-1] + x[t]
    CUBALIF:           c[t] = c_decay c[t-1] + x[t],  u[t] = v_decay v[t-1] + c[t]
    all:               s[t] = surrogate(u[t] - v_threshold),  v[t] = u[t] reset by s[t]

``v_reset=None`` is a soft reset, and counts as 0 in the equations. A spike is fired at the threshold, not only above.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.adapters import LIFDynamics, library_class

_LIF = ("LIFNode", "SimpleLIFNode", "ParametricLIFNode")
_IF = ("IFNode", "SimpleIFNode", "HalfThresholdIFNode")
_LEAKY = (*_LIF, "ComplementaryLIFNode", "ILIFNode", "LIAFNode", "NonSpikingLIFNode", "TernaryLIFNode")
_PERFECT = (*_IF, "ActivationAwareIFNode", "NonSpikingIFNode", "TernaryIFNode")


def dynamics_of(neuron: nn.Module) -> LIFDynamics | None:
    """Describe a neuron for the fused rollout; a learned time constant stays connected.

    Args:
        neuron: any module.

    Returns:
        The dynamics of an exact ``IFNode``, ``HalfThresholdIFNode``, ``LIFNode``, ``ParametricLIFNode``,
        ``CUBALIFNode`` or one of the simple nodes; None with a random, learned or analog surrogate, with a precision
        of its own, and for every other class, which then runs step by step.

    Example:
        >>> from spikingjelly.activation_based.neuron import LIFNode
        >>> described = dynamics_of(LIFNode(tau=4.0))
        >>> described.decay, described.gain, described.reset
        (0.75, 0.25, 'zero')

    Reference:
        SpikingJelly 2.0.0, ``activation_based/functional/neuron.py``.
    """
    kind, n = library_class(neuron, "spikingjelly"), neuron
    if kind not in (*_LIF, *_IF, "CUBALIFNode") or getattr(n, "_neuron_precision", None) is not None:
        return None
    if not _is_a_plain_spike(n.surrogate_function):
        return None
    resting = getattr(n, "v_reset", None) or 0.0
    rest: Any = n._memories_rv["v"]  # type: ignore[index]
    membrane = _membrane(n, kind, resting)
    return LIFDynamics(
        **membrane,
        threshold=n.v_threshold,  # type: ignore[arg-type]
        surrogate=n.surrogate_function,  # type: ignore[arg-type]
        reset="subtract" if n.v_reset is None else "zero",
        reset_when="same",
        reset_value=resting,
        detach_reset=bool(n.detach_reset),
        rest=rest,
    )


def leak_of(neuron: nn.Module) -> Tensor | None:
    """Return how much a neuron keeps of the state that takes its input in; None where that is no constant.

    ``1 - 1/tau`` of the LIF family, 1 of IF, ``c_decay`` of CUBALIF. QIF, EIF and Izhikevich bend their membranes, and
    RAF turns its own: none of them has one.

    Args:
        neuron: any module.

    Example:
        >>> from spikingjelly.activation_based.neuron import LIFNode, QIFNode
        >>> leak_of(LIFNode(tau=4.0)), leak_of(QIFNode())
        (tensor(0.7500), None)
    """
    kind, n = library_class(neuron, "spikingjelly"), neuron
    if kind in _LEAKY:
        return 1 - torch.as_tensor(_rate(n))
    if kind in _PERFECT:
        return torch.ones(())
    return torch.as_tensor(n.c_decay) if kind == "CUBALIFNode" else None


def _rate(neuron: Any) -> Tensor | float:
    """Return ``1 / tau``."""
    return neuron.w.sigmoid() if hasattr(neuron, "w") else 1.0 / neuron.tau


def _membrane(neuron: Any, kind: str, resting: float) -> dict[str, Any]:
    if kind in _IF:
        return {"decay": 1.0}
    if kind == "CUBALIFNode":
        return {"decay": neuron.v_decay, "synapse_decay": neuron.c_decay}
    rate = _rate(neuron)
    return {"decay": 1.0 - rate, "gain": rate if neuron.decay_input else 1.0, "offset": rate * resting}


def _is_a_plain_spike(surrogate: Any) -> bool:
    """Tell whether the spike is a fixed function of the membrane with a surrogate gradient."""
    kind = type(surrogate)
    known = kind.__module__ == "spikingjelly.activation_based.surrogate"
    return known and surrogate.spiking and kind.__name__ != "PoissonPass" and not list(surrogate.parameters())
