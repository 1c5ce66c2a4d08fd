"""Read a :class:`~delaykit.functional.dynamics.LIFDynamics` off a snnTorch neuron or a Norse cell.

Both functions return None for whatever the fused rollout would not reproduce exactly; such a neuron runs step by step.
Nothing is imported from either library unless the neuron already comes from there.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from delaykit.functional.dynamics import LIFDynamics

_SNNTORCH = ("Leaky", "RLeaky", "Synaptic", "RSynaptic")
_NORSE_LIF = ("LIFCell", "LIF", "LIFRecurrentCell", "LIFRecurrent")
_NORSE_LI = ("LICell", "LI")
_NORSE_METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")
_OPAQUE_SURROGATES = ("SSO.", "LSO.", "custom_surrogate.")  # random, or a gradient that need not be linear


def dynamics_of_snntorch(neuron: nn.Module) -> LIFDynamics | None:
    """Describe a snnTorch neuron; its learned numbers stay connected.

    ``v_t = clamp(beta) v_{t-1} + i_t - reset``, the reset one step later and detached, or at once
    (``reset_delay=False``, through which snnTorch lets the gradient flow).

    Args:
        neuron: any module.

    Returns:
        The dynamics of an exact ``Leaky``, ``RLeaky``, ``Synaptic`` or ``RSynaptic`` (or of one that delaykit retyped);
        None with ``state_quant``, ``inhibition``, graded spikes, a stochastic or custom surrogate, for an ``RSynaptic``
        with ``reset_delay=False`` (which snnTorch computes but throws away), and for every other class.

    Example:
        >>> dynamics_of_snntorch(nn.ReLU()) is None
        True

    Reference:
        snnTorch 1.0.0, ``snntorch/_neurons``.
    """
    kind = library_class(neuron, "snntorch")
    if kind not in _SNNTORCH or not _plain_snntorch(neuron, kind):
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
    )


def dynamics_of_norse(cell: nn.Module) -> LIFDynamics | None:
    """Describe a Norse neuron; tensors in its parameters stay connected.

    With ``a = dt tau_mem_inv``: ``v_t = (1 - a) v_{t-1} + a i_t + a v_leak``, ``alpha = 1 - dt tau_syn_inv``.

    Args:
        cell: any module.

    Returns:
        The dynamics of ``LIFCell``, ``LIF``, ``LIFRecurrentCell``, ``LIFRecurrent``, ``LIFBoxCell``, ``LICell``, ``LI``
        or ``LIBoxCell``; None with the adjoint method or a reset of your own, and for every other class.

    Example:
        >>> dynamics_of_norse(nn.ReLU()) is None
        True

    Reference:
        Norse 1.1.0, ``norse/torch/functional/lif.py``, ``lif_box.py``, ``leaky_integrator.py``.
    """
    kind = library_class(cell, "norse")
    if kind in _NORSE_LIF:
        return _norse_lif(cell, detach=kind in ("LIFRecurrentCell", "LIFRecurrent"))
    if kind == "LIFBoxCell":
        return _norse_box(cell)
    if kind in _NORSE_LI or kind == "LIBoxCell":
        return LIFDynamics(**_norse_membrane(cell), **(_norse_synapse(cell) if kind in _NORSE_LI else {}), reset="none")
    return None


def library_class(module: nn.Module, library: str) -> str | None:
    """Name the library's class of a module; None for a subclass that is neither the library's nor delaykit's."""
    for base in type(module).__mro__:
        root = base.__module__.split(".")[0]
        if root == library:
            return base.__name__
        if root != "delaykit":
            return None
    return None


def _plain_snntorch(neuron: Any, kind: str) -> bool:
    factor = neuron.graded_spikes_factor
    ungraded = not factor.requires_grad and bool((factor == 1).all())
    opaque = getattr(neuron.spike_grad, "__qualname__", "").startswith(_OPAQUE_SURROGATES)
    lost = kind == "RSynaptic" and not neuron.reset_delay
    return ungraded and not (neuron.state_quant or neuron.inhibition or opaque or lost)


def _rate(cell: Any, tau_inv: Any) -> torch.Tensor:
    """Norse rounds ``dt tau_inv`` to the parameter's precision, and nothing after it in a float64 network."""
    return (cell.dt * torch.as_tensor(tau_inv)).double()


def _norse_membrane(cell: Any) -> dict[str, Any]:
    rate, leak = _rate(cell, cell.p.tau_mem_inv), torch.as_tensor(cell.p.v_leak)
    return {"decay": 1 - rate, "gain": rate, "offset": rate * leak, "rest": leak.detach()}


def _norse_synapse(cell: Any) -> dict[str, Any]:
    return {"synapse_decay": 1 - _rate(cell, cell.p.tau_syn_inv), "synapse_state_decayed": True}


def _norse_surrogate(cell: Any) -> Any:
    """Norse's threshold function with its method and slope; None for the adjoint and the unknown.

    All these methods fire above zero and nowhere else.
    """
    if cell.p.method not in _NORSE_METHODS:
        return None
    from norse.torch.functional.threshold import threshold

    return functools.partial(threshold, method=cell.p.method, alpha=cell.p.alpha)


def _norse_lif(cell: Any, detach: bool) -> LIFDynamics | None:
    surrogate = _norse_surrogate(cell)
    if surrogate is None:
        return None
    return LIFDynamics(
        **_norse_membrane(cell), **_norse_synapse(cell), surrogate=surrogate, threshold=torch.as_tensor(cell.p.v_th),
        reset="zero", reset_when="same", reset_value=torch.as_tensor(cell.p.v_reset), detach_reset=detach,
        heaviside=True,
    )  # fmt: skip


def _norse_box(cell: Any) -> LIFDynamics | None:
    from norse.torch.functional.reset import reset_subtract, reset_value

    surrogate, how = _norse_surrogate(cell), cell.p.reset_method
    if surrogate is None or how not in (reset_subtract, reset_value):
        return None
    return LIFDynamics(
        **_norse_membrane(cell), surrogate=surrogate, threshold=torch.as_tensor(cell.p.v_th),
        reset="subtract" if how is reset_subtract else "zero", reset_when="same",
        reset_value=torch.as_tensor(cell.p.v_reset), detach_reset=False, heaviside=True,
    )  # fmt: skip
