"""Numbers that adapters tell of neurons, held to what such numbers can be, by the adapter's name: once, and in no step.

Where sizes do not fit, the neuron's own may be to blame as well as its adapter: :func:`has_as_many` decides.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from delaykit import checks
from delaykit.attaching.adapter import Neuron, NeuronAdapter
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.retyping import original_class
from delaykit.checks.answers import MEND, answer_of, blamed_on
from delaykit.errors import PluginError, ShapeError
from delaykit.functional.dynamics import NUMBERS, LIFDynamics
from delaykit.functional.recurrence.state import RolloutState
from delaykit.sizes import is_hidden

_HELD: weakref.WeakKeyDictionary[nn.Module, set[type]] = weakref.WeakKeyDictionary()  # whose dynamics were looked at


def dynamics_of(adapter: NeuronAdapter, module: nn.Module) -> LIFDynamics | None:
    """Ask an adapter for a neuron's dynamics; look once a neuron whether their numbers are those of a neuron.

    Raises:
        PluginError: a decay is not finite or above 1, as a leak may not be, or another number is not finite; only a
            threshold may be infinite, that of a readout.
    """
    dynamics = adapter.dynamics(module)
    if dynamics is None or type(adapter) in _HELD.get(module, ()):
        return dynamics
    given = {name: getattr(dynamics, name) for name in NUMBERS}
    values = {name: _tensor(value) for name, value in given.items() if value is not None}
    if any(map(is_hidden, values.values())):
        return dynamics
    for name, value in values.items():
        sound = ~value.isnan() if name == "threshold" else value.isfinite() & ((value <= 1) | ("decay" not in name))
        if not bool(sound.all()):
            shown = ", ".join(f"{one:g}" for one in value.flatten()[:4].tolist())
            found = f"{name}={shown} for a {original_class(module).__name__}"
            where, fix = answer_of(adapter, "dynamics"), f"{MEND}, or the neuron's own numbers"
            raise PluginError(where, found, "finite numbers, and decays of at most 1", fix)
    _HELD.setdefault(module, set()).add(type(adapter))
    return dynamics


@contextlib.contextmanager
def by_dynamics(adapter: NeuronAdapter, module: nn.Module) -> Iterator[None]:
    """Let errors about a neuron's surrogate, and numbers that are not as many as it has, be its adapter's in the block.

    Numbers that the neuron itself has as many of are not: its input is of another width.
    """
    with blamed_on(adapter, "dynamics", ["LIFDynamics.surrogate"]):
        try:
            yield
        except ShapeError as error:
            record, _, name = error.where.partition(".")
            value = getattr(adapter.dynamics(module), name, None) if record == "LIFDynamics" else None
            if not isinstance(value, Tensor) or has_as_many(module, value.numel()):
                raise
            with blamed_on(adapter, "dynamics", ["LIFDynamics"]):
                raise


def check_start(adapter: NeuronAdapter, start: RolloutState) -> None:
    """Raise for a state to start from whose parts are no tensors."""
    for name, part in zip(start._fields, start, strict=True):
        if part is not None and not (isinstance(part, Tensor) and not part.is_complex()):
            found = f"a RolloutState with {name}={checks.shown(part)}"
            expected = "tensors of real numbers, or None for rest"
            raise PluginError(answer_of(adapter, "state_of_call"), found, expected, MEND)


def check_spikes(neuron: Neuron, currents: Tensor, spikes: list[Tensor]) -> None:
    """Raise for spikes of steps that are of another dtype than the neuron, or NaN in a first one of finite numbers."""
    cast = torch.is_autocast_enabled(currents.device.type)
    other = {one.dtype for one in spikes if one.dtype != currents.dtype and not cast}
    missing = not is_hidden(spikes[0]) and bool(spikes[0].isnan().any())
    if not other and not missing:
        return
    own = [tensor for tensor in tensors_in(_own(neuron.module)) if tensor.is_floating_point()]
    other -= {leaf.dtype for leaf in own}  # its own numbers are finer than its input
    if other or (missing and all(bool(tensor.isfinite().all()) for tensor in (currents[0], *own))):
        found = f"spikes of {other.pop()} for {currents.dtype}" if other else "spikes that are NaN"
        expected = "spikes of the dtype of the neuron and its input, that are numbers"
        raise PluginError(answer_of(neuron.adapter, "step"), found, expected, MEND)


def _tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def has_as_many(module: nn.Module, count: int) -> bool:
    """Tell whether a neuron itself has so many numbers somewhere: then its sizes, not its adapter, are to blame."""
    own = _own(module)
    return any(_numel(each) == count for each in (*own, *tree_leaves(own)))


def _own(module: nn.Module) -> list[Any]:
    return [*module.parameters(), *module.buffers(), *vars(module).values()]


def _numel(value: Any) -> int:
    if isinstance(value, list | tuple):
        return len(value)
    size = value.numel() if isinstance(value, Tensor) else getattr(value, "size", 0)  # of an array
    return size if isinstance(size, int) else 0
