"""The equations of snnTorch's neurons: as a leaky integrator, and how fast their first state decays.

None for whatever the fused rollout would not reproduce exactly, and where the state is not linear in the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.retyping import as_written, library_class
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.surrogates import ARCTAN, FAST_SIGMOID, Slope, scales, slope_of

_FUSED = ("Leaky", "RLeaky", "Synaptic", "RSynaptic")
_OPAQUE_SURROGATES = ("SSO.", "LSO.", "custom_surrogate.")  # random, or a gradient that need not be linear
_SLOPES: dict[str, Callable[[Any, float], Slope | None]] = {
    "atan.<locals>.inner": lambda f, alpha: slope_of(f, ARCTAN, alpha / 2, math.pi / 2 * alpha),
    "fast_sigmoid.<locals>.inner": lambda f, width: slope_of(f, FAST_SIGMOID, 1.0, width),
}
_STEPS = frozenset(  # surrogates whose spike is [x > 0], no more and no less
    f"{name}.<locals>.inner"
    for name in (
        "straight_through_estimator", "triangular", "fast_sigmoid", "atan", "heaviside", "sigmoid", "spike_rate_escape",
        "SFS", "custom_surrogate",
    )
)  # fmt: skip
_MEMBRANE = ("Leaky", "RLeaky")
_CURRENT = ("Synaptic", "RSynaptic")


def dynamics_of(neuron: nn.Module) -> LIFDynamics | None:
    """Describe a snnTorch neuron; its learned numbers stay connected.

    ``v_t = clamp(beta) v_{t-1} + i_t - reset``, the reset one step later and detached, or at once
    (``reset_delay=False``, through which snnTorch lets the gradient flow).

    Args:
        neuron: any module.

    Returns:
        The dynamics of an exact ``Leaky``, ``RLeaky``, ``Synaptic`` or ``RSynaptic`` (or of one that delaykit retyped);
        None with ``state_quant``, ``inhibition``, graded spikes, a stochastic surrogate, ``custom_surrogate`` or one
        whose backward is not its derivative times what comes in (a clip), a method replaced by the user, a
        ``reset_mechanism`` that was set or loaded after construction (snnTorch goes on with the former), for an
        ``RSynaptic`` with ``reset_delay=False`` (which snnTorch computes but throws away), and for every other class.

    Example:
        >>> dynamics_of(nn.ReLU()) is None
        True

    Reference:
        snnTorch 1.0.0, ``snntorch/_neurons``.
    """
    kind = library_class(neuron, "snntorch")
    if kind not in _FUSED or not as_written(neuron, "snntorch") or not _is_plain(neuron, kind):
        return None
    n: Any = neuron
    at_once = not n.reset_delay
    return LIFDynamics(
        decay=n.beta.clamp(0, 1),
        threshold=n.threshold,
        surrogate=n.spike_grad,
        synapse_decay=n.alpha.clamp(0, 1) if hasattr(n, "alpha") else None,
        reset=("subtract", "zero", "none")[int(n.reset_mechanism_val)],
        reset_when="both" if at_once else "next",
        reset_spares_input=kind == "Leaky",
        detach_reset=not at_once,
        heaviside=getattr(n.spike_grad, "__module__", None) == "snntorch.surrogate",  # all but the opaque ones
        slope=_slope(n.spike_grad),
    )


def leak_of(neuron: nn.Module) -> Tensor | None:
    """Return ``beta`` of a one-state neuron, ``alpha`` of one with a synaptic current, both as snnTorch clamps them.

    Example:
        >>> leak_of(nn.ReLU()) is None
        True
    """
    kind = library_class(neuron, "snntorch")
    n: Any = neuron
    if kind is None or getattr(n, "state_quant", False):
        return None
    if kind in _MEMBRANE:
        return n.beta.clamp(0, 1)
    if kind in _CURRENT:
        return n.alpha.clamp(0, 1)
    if kind == "Lapicque":
        return torch.as_tensor(1 - n.time_step / (n.R * n.C))
    return None


def leak_place_of(neuron: nn.Module) -> tuple[dict[str, Any], str] | None:
    """Return where ``beta`` or ``alpha`` lies, if nobody computes it.

    Example:
        >>> leak_place_of(nn.ReLU()) is None
        True
    """
    kind = library_class(neuron, "snntorch")
    name = "beta" if kind in _MEMBRANE else "alpha" if kind in _CURRENT else ""
    if not name or hasattr(type(neuron), name):  # a property: parametrized, or learned
        return None
    stores = (neuron._parameters, neuron._buffers)
    return next(((store, name) for store in stores if store.get(name) is not None), None)


def fires_above_zero(surrogate: Any) -> bool:
    """Tell whether a surrogate is one of snnTorch's whose spike is 1 above 0 and 0 elsewhere, whatever its derivative.

    Example:
        >>> fires_above_zero(torch.heaviside)
        False
    """
    theirs = type(surrogate) is FunctionType and surrogate.__module__ == "snntorch.surrogate"
    return theirs and surrogate.__qualname__ in _STEPS


def _slope(surrogate: Any) -> Slope | None:
    """Return the derivative of snnTorch's ``atan`` and ``fast_sigmoid``, whose width is in the closure."""
    name = getattr(surrogate, "__qualname__", "")
    if getattr(surrogate, "__module__", None) != "snntorch.surrogate" or name not in _SLOPES:
        return None
    kept: list[Any] = list(surrogate.__closure__ or ())
    if len(kept) != 1 or not isinstance(kept[0].cell_contents, (int, float)):
        return None
    return _SLOPES[name](surrogate, float(kept[0].cell_contents))


def _is_plain(neuron: Any, kind: str) -> bool:
    factor = neuron.graded_spikes_factor
    ungraded = not factor.requires_grad and bool((factor == 1).all())
    own = getattr(neuron.spike_grad, "__module__", None) == "snntorch.surrogate"
    opaque = getattr(neuron.spike_grad, "__qualname__", "").startswith(_OPAQUE_SURROGATES)
    opaque = opaque or not (own or _scales(neuron.spike_grad))
    lost = kind == "RSynaptic" and not neuron.reset_delay
    odd = neuron.state_quant or neuron.inhibition or opaque or lost or _learns(neuron.spike_grad)
    return ungraded and _keeps_reset(neuron) and not odd


def _learns(surrogate: Any) -> bool:
    """Tell whether a surrogate has parameters of its own, whose gradients steps alone give."""
    return isinstance(surrogate, nn.Module) and any(p.requires_grad for p in surrogate.parameters())


def _scales(surrogate: Any) -> bool:
    try:
        return scales(surrogate)
    except TypeError:  # it has no hash to be remembered by
        return scales.__wrapped__(surrogate)


def _keeps_reset(neuron: Any) -> bool:
    """Tell whether the reset that is named is the one that runs: snnTorch chooses its function at construction."""
    runs = neuron.state_function
    name = getattr(runs, "__name__", "")
    theirs = getattr(type(neuron), name, None)
    own = getattr(runs, "__self__", None) is neuron and getattr(runs, "__func__", neuron) is theirs
    return own and name == ("_base_sub", "_base_zero", "_base_int")[int(neuron.reset_mechanism_val)]
