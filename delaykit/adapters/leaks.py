"""How fast the state of a neuron decays that adds its input up: the membrane, or the synaptic current if it has one.

Asked of snnTorch and Norse as the neuron stands now: a learned number stays connected. None where the state is not
linear in the input (quantised states, gates), for two currents with one input (``Alpha``), and for unknown classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.adapters.dynamics import library_class

_MEMBRANE = ("Leaky", "RLeaky")
_CURRENT = ("Synaptic", "RSynaptic")
_NORSE_CURRENT = ("LIF", "LIFEx", "LIFAdEx", "LIFRefrac", "LIFAdExRefrac", "LSNN", "LI", "LILinear")
_NORSE_MEMBRANE = ("LIFBox", "LIBox")


def leak_of_snntorch(neuron: nn.Module) -> Tensor | None:
    """Return ``beta`` of a one-state neuron, ``alpha`` of one with a synaptic current, both as snnTorch clamps them.

    Example:
        >>> leak_of_snntorch(nn.ReLU()) is None
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


def leak_of_norse(cell: nn.Module) -> Tensor | None:
    """Return ``1 - dt tau_syn_inv``, or ``1 - dt tau_mem_inv`` where there is no synaptic current: Norse's Euler step.

    Example:
        >>> leak_of_norse(nn.ReLU()) is None
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
    if family in _NORSE_MEMBRANE:
        return 1 - _rate(c, p.tau_mem_inv)
    if family in _NORSE_CURRENT:
        return 1 - _rate(c, p.tau_syn_inv)
    return None


def _rate(cell: Any, tau_inv: Any) -> Tensor:
    return (cell.dt * torch.as_tensor(tau_inv)).double()  # rounded as Norse does it, see dynamics.py
