"""snnTorch's ``Leaky`` advances its membrane in one kernel where its equation is known to the letter; else itself.

Everything is asked at every step, as a user may change it between two: a leak, a threshold, a method replaced. The
library makes its spikes of the membrane, by whatever surrogate.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from delaykit.adapters.snntorch.dynamics import fires_above_zero
from delaykit.attaching.retyping import library_name
from delaykit.functional.leaky_step.operator import Leak, Reset, kernel_for, leaky_step

FEWEST = 1 << 8  # neurons, all rows together, for which a kernel is compiled
_RESETS: dict[str, Reset] = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
_METHODS = ("forward", "mem_reset", "_base_state_function", *_RESETS)  # what the kernel takes the place of
_OWN = frozenset(_METHODS)


class StepsAtOnce:
    """Mixin under what follows a neuron: takes its step, and leaves what it cannot to the class behind it."""

    def forward(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Step the neuron."""
        cls: Any = type(self)
        theirs: Any = super().forward  # type: ignore[misc]
        known = _is_leaky(cls) and kwargs.keys() <= {"mem"} and len(args) + len(kwargs) < 2
        answer = _step(self, theirs, input_, *args, **kwargs) if known and type(input_) is Tensor else None
        return theirs(input_, *args, **kwargs) if answer is None else answer


def _step(neuron: Any, theirs: Any, drive: Tensor, mem: Any = None) -> Any:
    """Take one step as ``Leaky.forward`` does; None where it has to do so itself."""
    fields, buffers = neuron.__dict__, neuron._buffers
    membrane = buffers.get("mem") if mem is None else mem
    if drive.numel() < FEWEST or not isinstance(membrane, Tensor) or "mem" not in buffers:
        return None
    if fields.get("init_hidden", True) and mem is not None:
        return None  # the library refuses it in its own words
    if membrane.shape != drive.shape:
        membrane = torch.zeros_like(drive, device=membrane.device)
    kernel = kernel_for(drive, membrane)
    if kernel is None:
        return None
    leak = _leak(neuron, theirs, fields, buffers)
    if leak is None:
        return None
    after, fields["reset"] = leaky_step(drive, membrane, leak, kernel)
    buffers["mem"] = after
    spikes = neuron.fire(after)
    return spikes if fields["init_hidden"] and not fields["output"] else (spikes, neuron.mem)


def _leak(neuron: nn.Module, theirs: Any, fields: dict[str, Any], buffers: dict[str, Tensor | None]) -> Leak | None:
    """Read the neuron as it is now; None where a step is more, or other, than this."""
    if fields.get("state_quant", True) or fields.get("inhibition", True) or not fields.get("reset_delay"):
        return None
    advance, cls = fields.get("state_function"), type(neuron)
    if type(advance) is not types.MethodType or advance.__self__ is not neuron or not _OWN.isdisjoint(fields):
        return None
    name = advance.__func__.__name__
    reset = _RESETS.get(name)
    if reset is None or advance.__func__ is not getattr(cls, name) or not fires_above_zero(fields.get("spike_grad")):
        return None
    if not _are_the_librarys(theirs.__func__, *[getattr(cls, method, None) for method in _METHODS[1:]]):
        return None
    beta, threshold = _number(buffers.get("beta")), _number(buffers.get("threshold"))
    if beta is None or threshold is None or not np.isfinite(threshold):
        return None
    return Leak(np.float32(min(max(beta, 0.0), 1.0)), threshold, reset)


def _number(value: Tensor | None) -> Any:
    """Return a number of float32 that does not learn; None for anything else, such as one a neuron."""
    if type(value) is not Tensor or value.dtype is not torch.float32 or value.ndim or value.requires_grad:
        return None
    return np.float32(value.item())


@functools.lru_cache(maxsize=64)
def _is_leaky(cls: type) -> bool:
    """Tell whether a class is the library's ``Leaky``, or what delaykit made of it, and not one derived from it."""
    return library_name(cls, "snntorch") == "Leaky"


@functools.lru_cache(maxsize=64)
def _are_the_librarys(*methods: Any) -> bool:
    """Tell whether these are the methods that the library wrote."""
    named = {name: getattr(method, "__qualname__", "") for name, method in zip(_METHODS, methods, strict=True)}
    theirs = all(getattr(method, "__module__", "").startswith("snntorch._neurons") for method in methods)
    return theirs and all(q.split(".")[-1] == name for name, q in named.items())
