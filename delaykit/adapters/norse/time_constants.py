"""Norse neurons whose ``tau_mem_inv`` and ``tau_syn_inv`` are learned decays of delaykit's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.neuron.time_constants import learned
from delaykit.attaching.retyping import library_class

NAMES = {"membrane": "tau_mem_inv", "synapse": "tau_syn_inv"}
INSIDE = ("lif", "lif_adex")  # refractory neurons keep the parameters of their LIF inside


class LearnedNorse:
    """Mixin whose parameters ``p`` hold the decays that it was given, and its own numbers for all else."""

    keeps_signature = True

    @property
    def p(self) -> Any:
        """Return the parameters that a step uses."""
        own = self.__dict__["p"]
        inner, where = _inner(own)
        new = {name: _rate(self, state, getattr(inner, name)) for state, name in NAMES.items() if hasattr(inner, name)}
        inner = inner._replace(**{name: value for name, value in new.items() if value is not None})
        return own._replace(**{where: inner}) if where else inner

    @p.setter
    def p(self, value: Any) -> None:
        self.__dict__["p"] = value


def decays_of(cell: nn.Module) -> dict[str, Tensor]:
    """Return a neuron's own decays a step, ``1 - dt tau_inv``; those that are learned already keep their gradient.

    Example:
        >>> decays_of(nn.ReLU())
        {}
    """
    own = getattr(cell, "p", None)
    if library_class(cell, "norse") is None or not hasattr(own, "_replace"):
        return {}
    inner, _ = _inner(own)
    return {
        state: 1 - _step(cell, getattr(inner, name)).double() for state, name in NAMES.items() if hasattr(inner, name)
    }


def _inner(parameters: Any) -> tuple[Any, str]:
    where = next((name for name in INSIDE if hasattr(parameters, name)), "")
    return (getattr(parameters, where), where) if where else (parameters, "")


def _rate(cell: Any, state: str, own: Any) -> Tensor | None:
    """Return ``(1 - decay) / dt``, by the difference from where it began: unchanged decays give Norse's own number."""
    decay = learned(cell, state)
    if decay is None:
        return None
    own, step = torch.as_tensor(own), _step(cell, own)
    if own.dtype != decay.dtype:
        own = step.to(decay.dtype) / cell.dt
    if own.dim():
        own = own.to(decay.device)
    rate: Tensor = own + ((1 - step.double()).to(decay) - decay) / cell.dt
    return rate


def _step(cell: Any, own: Any) -> Tensor:
    """Norse rounds ``dt tau_inv`` to the precision of its parameters, and a float64 model goes on with that."""
    step: Tensor = cell.dt * torch.as_tensor(own)
    return step
