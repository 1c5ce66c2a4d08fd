"""The interface of an adapter, and what it reports: connections (spots) and neurons."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment, ProductOf
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.connection.loop import LOOP, RecurrentLoop
from delaykit.attaching.connection.mixins import attach_connection_
from delaykit.attaching.fused_parts import FusedParts
from delaykit.attaching.neuron_mixins import (
    CarriedNeuron,
    FollowedNeuron,
    HandedNeuron,
    add_loop_,
    attach_slot_,
    follow_,
    loop_of,
    synapses_of,
)
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.attaching.retyping import Undo, original_class
from delaykit.attaching.watches import NeuronWatch
from delaykit.checks.answers import hold_answers_
from delaykit.errors import PluginError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.state import RolloutState
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
        adapter: who attaches a synapse here; the finder where it is not said.
        time_dim: dimension of its input that is time, where the library says so; None where the example tells.
        product: ``product(module, forward)`` describes the linear map of a module whose class has a forward of its own,
            which then needs no example to prove it; None for plain modules.
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
    time_dim: int | None = None
    product: ProductOf | None = None
    fields_are_checked: ClassVar[bool] = True  # where an adapter's find() answers with one

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
        follows: True where it keeps its membrane between its calls, so that connections can follow that; False where
            the caller carries its state, ``output, state = neuron(input, state)``.
        dt_ms: length of a step in milliseconds, where known.
        recurrent_refusal: why ``dk.Recurrent`` cannot be given to it, or ``""``; always for one whose state is carried
            by another call than the above.
        goes_on: True where the state that it keeps goes on from one call of the model to the next until the library's
            reset, so that a connection follows it also where one call of the model is a whole sequence.
        refusal: why no delayed connection may lead to it, or ``""``.
    """

    path: str
    module: nn.Module
    adapter: NeuronAdapter
    style: Literal["step", "sequence"] = "step"
    follows: bool = False
    dt_ms: float | None = None
    recurrent_refusal: str = ""
    goes_on: bool = False
    refusal: str = ""
    fields_are_checked: ClassVar[bool] = True


class NeuronAdapter(ReadsNeurons, ABC):
    """Finds the connections and neurons of one library, and knows where a neuron's state lives and when it began.

    Subclass it for a new library, and register it with ``Component("adapter", name, "package.module:Class")``. Only
    :meth:`find` is always needed. For neurons that keep their membrane: :meth:`membrane` and :meth:`reset_`, and
    :meth:`given_membrane` where a call may pass one. For neurons whose state the caller carries: :meth:`membrane` and
    maybe :meth:`begins`. For speed and for parts that ask about the neuron: :meth:`dynamics` and :meth:`leak`.

    Args:
        name: of the library.
        api: version of this interface that the class was written for, a number:
            :data:`delaykit.adapters.ADAPTER_API` of that day.

    Raises:
        PluginError: where a method answers with something else than its annotation here says, or raises an error of its
            own; it names the adapter, the method, what was found and what is expected. What a module raises that the
            method calls stays what it is.

    See :doc:`/howto/write_an_adapter` for a complete one.
    """

    name: ClassVar[str]
    api: ClassVar[int]
    learned: ClassVar[type | None] = None
    """Mixin for a neuron whose :meth:`decays` may be learned: its attributes read
    :func:`delaykit.adapters.learned`."""
    fits: ClassVar[Mapping[str, str]] = {}
    """Which neurons of the library a method has an answer for, as a message names them, by the method:
    ``{"leak": "Leaky and Synaptic of snnTorch"}``; of ``leak`` and ``exact_``."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hold_answers_(cls, NeuronAdapter)

    @abstractmethod
    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        """Report the connections in this module (not in its children) and whether it is a neuron.

        Linear and convolution layers are found anyway. Report what only the library knows: connections inside a
        neuron (``owner``), those that cannot be delayed (``refusal``), and layers that compute in their own way.
        """

    def attach_(self, spot: Spot, synapse: Synapse, attachment: Attachment) -> list[Undo]:
        """Retype the spot's module so that its spikes go through ``synapse``; return how to take it back."""
        return attach_connection_(spot.module, synapse, attachment)

    def add_recurrent_(
        self, neuron: Neuron, synapse: Synapse, attachment: Attachment, weight: Tensor, bias: bool
    ) -> list[Undo]:
        """Give a neuron without recurrence a delayed recurrent connection of its own."""
        loop = RecurrentLoop(weight, bias, synapse)
        if neuron.follows:
            return [*self.watch_(neuron.module)[1], *add_loop_(neuron.module, loop, attachment)]
        return attach_slot_(neuron.module, LOOP, loop, attachment, type(self)(), CarriedNeuron)

    def watch_(self, module: nn.Module) -> tuple[NeuronWatch, list[Undo]]:
        """Retype a neuron that keeps its membrane, so that connections can follow it; once, however often asked.

        A library whose resets can be seen as they are made gives a subclass of
        :class:`~delaykit.adapters.FollowedNeuron` that calls ``wiring_of(self).watch.forget()`` there.
        """
        return follow_(module, type(self)(), FollowedNeuron)

    def count_(self, neuron: Neuron) -> tuple[NeuronWatch, list[Undo]]:
        """Retype a neuron so that its steps are counted and its membranes compared; once, however often asked."""
        if neuron.follows:
            return self.watch_(neuron.module)
        return follow_(neuron.module, type(self)(), HandedNeuron)

    def membrane(self, module: nn.Module, state: Any = None) -> Tensor | None:
        """Return a neuron's membrane: the one that it keeps, or the one in ``state`` if the caller carries that.

        None where there is none yet, or at rest. A connection that follows the neuron begins a new sequence at None, at
        zeros, and at one number for all rows; another rest than these is to be told, by None or by the watch's
        ``forget()``.
        """
        return None

    def given_membrane(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        """Return the membrane that a call of a neuron which keeps one passes explicitly, or None."""
        return None

    def held_state(self, module: nn.Module) -> list[Tensor]:
        """Return all state tensors that a neuron keeps between its calls; asked where it ``follows``."""
        membrane = self.membrane(module)
        return [] if membrane is None else [membrane]

    def given_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Return the state tensors that a call of a neuron passes explicitly; all but its input, unless overridden."""
        return tensors_in((args[1:], dict(kwargs)))

    def begins(self, state: Any) -> bool:
        """Tell whether a state that the caller carries begins a sequence: nobody stepped it yet."""
        return state is None

    def resting(self, module: nn.Module, state: Any) -> Any:
        """Return a fresh state that fits ``state``, where fresh ones are not zero; None: they are.

        Rows of a carried state that are put to these values begin anew, as rows at zero do.
        """
        return None

    def reset_(self, module: nn.Module) -> None:
        """Bring a neuron that keeps its state to rest, as the library does."""
        raise self._lacks("reset_", "a neuron that keeps its state, by a Neuron with follows=True")

    def step(self, neuron: Neuron, input: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Step a neuron once, from rest where ``state`` is None; return spikes, membrane and the next ``state``.

        To be overridden where a carried state goes by another call than ``output, state = neuron(input, state)``.
        """
        module, after = neuron.module, ()
        if neuron.follows:
            if state is None:
                self.reset_(module)
            output = module(input)
            output = output if isinstance(output, Tensor) else output[0]
        else:
            output, after = module(input, state)
        membrane = self.membrane(module, after)
        if membrane is None:
            where = f"adapter {self.name!r}, {type(self).__name__}.membrane()"
            found = f"no membrane after a step of {original_class(module).__name__}"
            raise PluginError(where, found, "the tensor that membrane() finds", "override membrane(), or step()")
        return output, membrane, after

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        """Describe a neuron as a leaky integrator for the fused rollout, or None."""
        return None

    def fused_parts(self, module: nn.Module) -> FusedParts | None:
        """Return the connections of a neuron that :meth:`dynamics` describes, as it stands, wrapped or bare.

        That which :class:`delaykit.Recurrent` gave it, unless overridden for neurons with weights of their own; None
        where only a run step by step is right.
        """
        loop = loop_of(module)
        if loop is None:
            return FusedParts()
        return FusedParts.of(loop.connection.weight, loop.connection.bias, synapses_of(module).get(LOOP))

    def state_of_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RolloutState | None:
        """Return the state that a call of a neuron with :meth:`dynamics` starts from, the very tensors; None at rest.

        Given in the call, or kept by the neuron. None altogether where only a run step by step is right.
        """
        return None

    def answer(self, module: nn.Module, state: RolloutState) -> Any:
        """Return what a call that leaves ``state`` behind returns, and leave it where the neuron keeps it."""
        raise self._lacks("answer", "a neuron with a state_of_call()")

    def leak(self, module: nn.Module) -> Tensor | None:
        """Return how much a neuron keeps each step of the state that adds its input up, differentiable; or None.

        None where that state is not linear in the input, ``state[t] = leak state[t-1] + gain input[t] - reset``.
        """
        return None

    def leak_place(self, module: nn.Module) -> tuple[dict[str, Any], str] | None:
        """Return where the tensor lies that alone decides :meth:`leak`: in which dict of a module, by what name.

        It is looked at in every step, which costs less than to compute the leak. None: compute it.
        """
        return None

    def decays(self, module: nn.Module) -> dict[str, Tensor]:
        """Return a neuron's own decays a step by the name of the state, ``membrane`` and maybe ``synapse``.

        Only those that :class:`delaykit.TimeConstants` may replace, by :attr:`learned`; as the bare neuron has them.
        """
        return {}

    def exact_refusal(self, module: nn.Module, emits: bool) -> str:
        """Say why this neuron cannot take part in exact gradients, by its own spikes if ``emits``; "" where it can."""
        return "delaykit knows no rule for it"

    def exact_(self, module: nn.Module) -> list[Undo]:
        """Retype a neuron that :meth:`exact_refusal` lets through, so that spikes and resets have exact gradients."""
        raise self._lacks("exact_", "a neuron that exact_refusal() lets through")

    def after_copy(self, module: nn.Module) -> None:  # noqa: B027 - optional hook
        """Mend what the copy that ``dk.wrap`` makes has lost of a module of this library."""

    def _lacks(self, method: str, what: str) -> PluginError:
        where = f"adapter {self.name!r}, {type(self).__name__}.{method}()"
        return PluginError(where, f"{what}, but no {method}()", "a method of the adapter's own", f"override {method}()")
