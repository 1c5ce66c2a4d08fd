"""The equations of Norse's neurons: as a leaky integrator, and how fast their first state decays.

None for whatever the fused rollout would not reproduce exactly, and where the state is not linear in the input. Nothing
is imported from Norse unless the neuron already comes from there.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.retyping import as_written, library_class
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.state import RolloutState
from delaykit.functional.surrogates import FAST_SIGMOID, Slope, slope_of

METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")
_LIF = ("LIFCell", "LIF", "LIFRecurrentCell", "LIFRecurrent")
_LI = ("LICell", "LI")
_CURRENT = ("LIF", "LIFEx", "LIFAdEx", "LIFRefrac", "LIFAdExRefrac", "LSNN", "LI", "LILinear")
_MEMBRANE = ("LIFBox", "LIBox")


def dynamics_of(cell: nn.Module) -> LIFDynamics | None:
    """Describe a Norse neuron; tensors in its parameters stay connected.

    With ``a = dt tau_mem_inv``: ``v_t = (1 - a) v_{t-1} + a i_t + a v_leak``, ``alpha = 1 - dt tau_syn_inv``.

    Args:
        cell: any module.

    Returns:
        The dynamics of ``LIFCell``, ``LIF``, ``LIFRecurrentCell``, ``LIFRecurrent``, ``LIFBoxCell``, ``LICell``, ``LI``
        or ``LIBoxCell``; None with the adjoint method, a reset of your own, a method or ``activation`` that was
        replaced, and for every other class.

    Example:
        >>> dynamics_of(nn.ReLU()) is None
        True

    Reference:
        Norse 1.1.0, ``norse/torch/functional/lif.py``, ``lif_box.py``, ``leaky_integrator.py``.
    """
    kind = library_class(cell, "norse")
    steps = getattr(vars(cell).get("activation"), "__module__", "")  # the attribute may be ours, of exact gradients
    if not as_written(cell, "norse") or not steps.startswith("norse."):
        return None
    if kind in _LIF:
        return _lif(cell, detach=kind in ("LIFRecurrentCell", "LIFRecurrent"))
    if kind == "LIFBoxCell":
        return _box(cell)
    if kind in _LI or kind == "LIBoxCell":
        return LIFDynamics(**_membrane(cell), **(_synapse(cell) if kind in _LI else {}), reset="none")
    return None


def leak_of(cell: nn.Module) -> Tensor | None:
    """Return ``1 - dt tau_syn_inv``, or ``1 - dt tau_mem_inv`` where there is no synaptic current: Norse's Euler step.

    Example:
        >>> leak_of(nn.ReLU()) is None
        True
    """
    kind = library_class(cell, "norse")
    if kind is None or not hasattr(cell, "p"):
        return None
    family = kind.removesuffix("Cell").removesuffix("Recurrent")
    if family == "IAF":
        return torch.ones(())
    c: Any = cell
    p = getattr(c.p, "lif", getattr(c.p, "lif_adex", c.p))  # refractory cells keep those of their LIF inside
    if family in _MEMBRANE:
        return 1 - _rate(c, p.tau_mem_inv)
    if family in _CURRENT:
        return 1 - _rate(c, p.tau_syn_inv)
    return None


def answer_of(cell: nn.Module, after: RolloutState) -> tuple[Tensor, Any]:
    """Return what a step of a neuron that :func:`dynamics_of` describes returns: output and state."""
    from norse.torch.functional import leaky_integrator, leaky_integrator_box, lif, lif_box

    kind, (spikes, current, membrane) = library_class(cell, "norse"), after
    if kind in _LI:
        return membrane, leaky_integrator.LIState(v=membrane, i=current)  # type: ignore[return-value]
    if kind == "LIBoxCell":
        return membrane, leaky_integrator_box.LIBoxState(v=membrane)  # type: ignore[return-value]
    if kind == "LIFBoxCell":
        return spikes, lif_box.LIFBoxFeedForwardState(v=membrane)  # type: ignore[return-value]
    if kind == "LIFRecurrentCell":
        return spikes, lif.LIFState(z=spikes, v=membrane, i=current)  # type: ignore[return-value]
    return spikes, lif.LIFFeedForwardState(v=membrane, i=current)  # type: ignore[return-value]


def _rate(cell: Any, tau_inv: Any) -> torch.Tensor:
    """Norse rounds ``dt tau_inv`` to the parameter's precision, and nothing after it in a float64 network."""
    return (cell.dt * torch.as_tensor(tau_inv)).double()


def _membrane(cell: Any) -> dict[str, Any]:
    rate, leak = _rate(cell, cell.p.tau_mem_inv), torch.as_tensor(cell.p.v_leak)
    return {"decay": 1 - rate, "gain": rate, "offset": rate * leak, "rest": leak.detach()}


def _synapse(cell: Any) -> dict[str, Any]:
    return {"synapse_decay": 1 - _rate(cell, cell.p.tau_syn_inv), "synapse_state_decayed": True}


def _surrogate(cell: Any) -> Any:
    """Norse's threshold function with its method and slope; None for the adjoint and the unknown.

    All these methods fire above zero and nowhere else.
    """
    if cell.p.method not in METHODS:
        return None
    from norse.torch.functional.threshold import threshold

    return functools.partial(threshold, method=cell.p.method, alpha=cell.p.alpha)


@functools.lru_cache(maxsize=64)
def _super(alpha: float) -> Slope | None:
    """Return the derivative of Norse's default method."""
    from norse.torch.functional.threshold import threshold

    return slope_of(functools.partial(threshold, method="super", alpha=alpha), FAST_SIGMOID, 1.0, alpha)


def _slope(cell: Any) -> Slope | None:
    alpha = torch.as_tensor(cell.p.alpha)
    return _super(float(alpha)) if cell.p.method == "super" and alpha.numel() == 1 else None


def _lif(cell: Any, detach: bool) -> LIFDynamics | None:
    surrogate = _surrogate(cell)
    if surrogate is None:
        return None
    return LIFDynamics(
        **_membrane(cell), **_synapse(cell), surrogate=surrogate, threshold=torch.as_tensor(cell.p.v_th),
        reset="zero", reset_when="same", reset_value=torch.as_tensor(cell.p.v_reset), detach_reset=detach,
        heaviside=True, slope=_slope(cell),
    )  # fmt: skip


def _box(cell: Any) -> LIFDynamics | None:
    from norse.torch.functional.reset import reset_subtract, reset_value

    surrogate, how = _surrogate(cell), cell.p.reset_method
    if surrogate is None or how not in (reset_subtract, reset_value):
        return None
    return LIFDynamics(
        **_membrane(cell), surrogate=surrogate, threshold=torch.as_tensor(cell.p.v_th),
        reset="subtract" if how is reset_subtract else "zero", reset_when="same",
        reset_value=torch.as_tensor(cell.p.v_reset), detach_reset=False, heaviside=True,
        slope=_slope(cell),
    )  # fmt: skip
