"""What an adapter reports: connections (spots) and neurons."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from delaykit.functional.recurrence.decay import Recurrence

if TYPE_CHECKING:
    from delaykit.attaching.connections import Attachment
    from delaykit.attaching.histories import NeuronWatch
    from delaykit.attaching.root import Undo
    from delaykit.functional.dynamics import LIFDynamics
    from delaykit.interfaces import Delay
    from delaykit.synapse import Synapse


@dataclasses.dataclass(frozen=True)
class Spot:
    """One connection found in a model.

    Args:
        path: path of the module that is retyped.
        slot: ``""`` where the module itself is the connection, else the connection's name inside a cell.
        module: that module.
        pre: number of input channels; None if only the example run can tell (one-to-one recurrence).
        post: number of output channels; None as above.
        has_matrix: True where one (post, pre) matrix is the connection.
        recurrent: True where its input is the neuron's own last output.
        owner: path of the neuron it lives in, or None.
        carried: True where the history rides in a state that the caller carries.
        refusal: why it cannot take a component, or ``""``.
        adapter: who attaches a synapse here.
    """

    path: str
    slot: str
    module: nn.Module
    pre: int | None
    post: int | None
    has_matrix: bool = True
    recurrent: bool = False
    owner: str | None = None
    carried: bool = False
    refusal: str = ""
    adapter: NeuronAdapter | None = dataclasses.field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Site name that rules match."""
        return ".".join(part for part in (self.path, self.slot) if part)


@dataclasses.dataclass(frozen=True)
class Neuron:
    """One neuron found in a model.

    Args:
        path: its module path.
        module: the module.
        adapter: who found it.
        style: ``step`` (called once a time step) or ``sequence`` (called once with time first).
        follows: True where connections can follow its hidden membrane ``.mem``.
        dt_ms: length of a step in milliseconds, where known.
        recurrent_refusal: why ``dk.Recurrent`` cannot be given to it, or ``""``.
    """

    path: str
    module: nn.Module
    adapter: NeuronAdapter
    style: Literal["step", "sequence"] = "step"
    follows: bool = False
    dt_ms: float | None = None
    recurrent_refusal: str = ""


@dataclasses.dataclass(frozen=True)
class FusedParts:
    """What :func:`delaykit.rollout` needs of a neuron besides its dynamics.

    Args:
        recurrence: its recurrent connection; without a weight where it has none.
        delay: of that connection, whose dropout masks its current; or None.
        drive: turns the input ``(time, batch, pre)`` into currents ``(time, batch, post)``; None: it is currents.
    """

    recurrence: Recurrence = Recurrence()
    delay: Delay | None = None
    drive: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None,
        synapse: Synapse | None,
        drive: Callable[[Tensor], Tensor] | None = None,
    ) -> FusedParts | None:
        """Describe a recurrent weight behind ``synapse``, or bare; None where it only runs step by step."""
        if synapse is None:
            return cls(Recurrence(weight, bias), None, drive)
        recurrence = synapse.recurrence(weight, bias)
        return None if recurrence is None else cls(recurrence, synapse.delay, drive)


class NeuronAdapter(ABC):
    """Finds sites and drives one family of neurons; owns when and where state lives.

    Subclass it for a new library and register it with ``Component("adapter", name, "package.module:Class")``.
    """

    name: ClassVar[str]

    @abstractmethod
    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        """Report the connections in this module (not in its children) and whether it is a neuron."""

    @abstractmethod
    def attach_(self, spot: Spot, synapse: Synapse, attachment: Attachment) -> list[Undo]:
        """Retype the spot's module so that its spikes go through ``synapse``; return how to take it back."""

    def given_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Return the state tensors that a call of this neuron passes explicitly."""
        return []

    def watch_(self, module: nn.Module) -> tuple[NeuronWatch, list[Undo]]:
        """Retype a neuron with a hidden membrane so that connections can follow it."""
        raise TypeError(f"{type(self).__name__} has no neurons to follow")

    def add_recurrent_(
        self, neuron: Neuron, synapse: Synapse, attachment: Attachment, weight: Tensor, bias: bool
    ) -> list[Undo]:
        """Give a neuron without recurrence a delayed recurrent connection of its own."""
        raise TypeError(f"{type(self).__name__} cannot add a recurrent connection")

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        """Describe a neuron as a leaky integrator for the fused rollout, or None."""
        return None

    def fused_parts(self, module: nn.Module) -> FusedParts | None:
        """Describe the connections inside a neuron of which :meth:`dynamics` knows the rest; None: step by step."""
        return None

    def leak(self, module: nn.Module) -> Tensor | None:
        """Return how much a neuron keeps each step of the state that adds its input up, differentiable; or None.

        None where that state is not linear in the input, ``state[t] = leak state[t-1] + gain input[t] - reset``.
        """
        return None

    def exact_refusal(self, module: nn.Module, emits: bool) -> str:
        """Say why this neuron cannot take part in exact gradients, by its own spikes if ``emits``; "" where it can."""
        return "delaykit knows no rule for it"

    def exact_(self, module: nn.Module) -> list[Undo]:
        """Retype a neuron that :meth:`exact_refusal` lets through, so that spikes and resets have exact gradients."""
        raise TypeError(f"{type(self).__name__} has no neurons with exact gradients")

    def after_copy(self, module: nn.Module) -> None:  # noqa: B027 - optional hook
        """Mend what ``copy.deepcopy`` forgets about a module of this library."""
