"""The one record, under ``_dk``, of what delaykit keeps beside a module."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.exact_gradients.neurons import ExactNeuron
from delaykit.attaching.history.beginnings import Beginnings
from delaykit.attaching.history.carried_run import CarriedRun
from delaykit.attaching.history.dropped_entries import DroppedEntries
from delaykit.attaching.retyping import Undo
from delaykit.attaching.scope import RootScope
from delaykit.attaching.watches import NeuronWatch


@dataclasses.dataclass
class Wrapping:
    """All that :func:`delaykit.unwrap_` needs, kept on the root.

    Args:
        scope: counts root calls.
        plans: the plans that were applied, in order.
        constants: the plans of neurons whose decays are learned.
        undo: callables that take a change back, applied last first.
        projections: what :func:`delaykit.attach` hung into optimizers; goes with the wrapping, and not into copies.
    """

    scope: RootScope
    plans: list[Any] = dataclasses.field(default_factory=list)
    constants: list[Any] = dataclasses.field(default_factory=list)
    undo: list[Undo] = dataclasses.field(default_factory=list)
    projections: Ephemeral = dataclasses.field(default_factory=lambda: Ephemeral())


class Ephemeral(list[Any]):
    """A list that copies and pickles begin without: an optimizer trains one model, and not its copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Ephemeral:
        return Ephemeral()

    def __reduce__(self) -> tuple[Any, ...]:
        return Ephemeral, ()


@dataclasses.dataclass
class Wiring:
    """What delaykit keeps beside one module.

    Args:
        sites: its wrapped connections by slot: ``""`` where the module is the connection, ``"loop"`` for one that
            :class:`delaykit.Recurrent` added, else the name of a weight inside a cell.
        watch: of a neuron whose hidden membrane is followed.
        carried: of a neuron whose histories ride in its state.
        exact: of a neuron with exact gradients.
        dropped: of a container whose list of states carries lines.
        beginnings: of a neuron around connections that hold whole sequences.
        root: of the wrapped model itself.
        own: an adapter's own data, by name; see :func:`keep_`.
    """

    sites: dict[str, Attachment] = dataclasses.field(default_factory=dict)
    watch: NeuronWatch | None = None
    carried: CarriedRun | None = None
    exact: ExactNeuron | None = None
    dropped: DroppedEntries | None = None
    beginnings: Beginnings | None = None
    root: Wrapping | None = None
    own: dict[str, Any] = dataclasses.field(default_factory=dict)


def wiring_of(module: nn.Module) -> Wiring | None:
    """Return the record of a module, or None.

    Args:
        module: any module, wrapped or bare.
    """
    return module.__dict__.get("_dk")


def wire_(module: nn.Module) -> Wiring:
    """Return the record of a module, an empty one if it had none.

    Args:
        module: any module.
    """
    return module.__dict__.setdefault("_dk", Wiring())


def unwire_(module: nn.Module) -> None:
    """Remove the record of a module if nothing is in it any more."""
    if module.__dict__.get("_dk") == Wiring():
        del module.__dict__["_dk"]


def keep_(module: nn.Module, name: str, value: Any) -> list[Undo]:
    """Keep an adapter's own data beside a module that it retyped, in the one record that unwrapping removes.

    It is copied and pickled with the module, as attributes are.

    Args:
        module: the module.
        name: of the data; what was kept under it before is replaced, and comes back with the undo.
        value: read by :func:`kept`.

    Returns:
        How to take it back.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> undo = keep_(layer, "mode", "m")
        >>> kept(layer, "mode")
        'm'
        >>> for each in undo:
        ...     each.run()
        >>> "_dk" in vars(layer)
        False
    """
    own = wire_(module).own
    undo = [Undo(_keep_no_more_, (module, name, *([own[name]] if name in own else [])))]
    own[name] = value
    return undo


def kept(module: nn.Module, name: str) -> Any:
    """Return what :func:`keep_` keeps beside a module.

    Args:
        module: what it is kept beside.
        name: of the data.

    Raises:
        KeyError: nothing of that name.
    """
    own: dict[str, Any] = module.__dict__["_dk"].own
    return own[name]


def _keep_no_more_(module: nn.Module, name: str, *before: Any) -> None:
    own = wire_(module).own
    own.pop(name, None)
    if before:
        own[name] = before[0]
    unwire_(module)
