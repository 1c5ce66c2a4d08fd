"""Mixins for neurons: one whose hidden membrane is followed, and one that is given its state and returns the next."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.loop import LOOP, RecurrentLoop
from delaykit.attaching.exact_gradients.neurons import ExactNeuron
from delaykit.attaching.exporters import refuse_exporters
from delaykit.attaching.history.beginnings import Beginnings, Ends
from delaykit.attaching.history.carried_run import CarriedRun
from delaykit.attaching.history.carried_states import carry, neuron_after_bare_step, take_histories, without_histories
from delaykit.attaching.history.connection_history import History
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.attaching.retyping import Undo, give_class_, has_mixin, retype_
from delaykit.attaching.watches import NeuronWatch
from delaykit.attaching.wiring import Wiring, unwire_, wire_, wiring_of
from delaykit.functional.eager import eager
from delaykit.synapse import Synapse


class FollowedNeuron:
    """Mixin for a neuron with a hidden membrane, which connections follow, or which got a recurrent loop."""

    keeps_signature = True
    _dk: Wiring

    @eager  # identities and versions of membranes are looked at
    def forward(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Step the neuron, and note which membrane it was given and which it left."""
        watch = self._dk.watch
        assert watch is not None
        adapter, module = watch.adapter, watch.neuron(self)
        given = adapter.given_membrane(module, (input_, *args), kwargs) if args or kwargs else None
        watch.enter(adapter.membrane(module), given, given is not None, ((input_, *args), kwargs))
        try:
            attachment = self._dk.sites.get(LOOP)
            if attachment is None:
                return super().forward(input_, *args, **kwargs)  # type: ignore[misc]
            return self._dk_looped(attachment, super().forward, input_, args, kwargs)  # type: ignore[misc]
        finally:
            watch.leave(adapter.membrane(module))

    def _dk_looped(self, attachment: Attachment, base: Callable[..., Any], input_: Any, args: Any, kwargs: Any) -> Any:
        if not attachment.scope.depth:
            refuse_exporters(attachment.where, input_)
        history, loop = attachment.history, self._modules["dk"]  # type: ignore[attr-defined]
        history.enter(attachment.clock.moment())
        output = base(loop.add_to(input_, history, attachment), *args, **kwargs)
        history.put_back(output if isinstance(output, Tensor) else output[0])
        return output


class HandedNeuron:
    """Mixin for a neuron whose state the caller carries: its steps are counted, its membranes compared."""

    keeps_signature = True
    _dk: Wiring

    @eager
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Step the neuron, and note which state it was given and which it returned."""
        watch = self._dk.watch
        assert watch is not None
        membrane, module = watch.adapter.membrane, watch.neuron(self)
        state = args[1] if len(args) > 1 else kwargs.get("state")
        given = None if state is None else membrane(module, state)
        watch.enter(None, given, True, (args, kwargs))
        after = None
        try:
            output = super().forward(*args, **kwargs)  # type: ignore[misc]
            after = output[1] if isinstance(output, tuple) and len(output) == 2 else None
            return output
        finally:
            watch.leave(None if after is None else membrane(module, after))


def follow_(module: nn.Module, adapter: ReadsNeurons, mixin: type = FollowedNeuron) -> tuple[NeuronWatch, list[Undo]]:
    """Retype a neuron, once, so that its steps and membranes are seen; return its watch and how to take it back.

    Args:
        module: a neuron that keeps its membrane.
        adapter: who knows where its membrane is.
        mixin: :class:`FollowedNeuron` or a subclass, whose resets call ``_dk.watch.forget()``.
    """
    wiring = wiring_of(module)
    if wiring is not None and wiring.watch is not None:
        return wiring.watch, []
    before, watch = module.__class__, NeuronWatch(module, adapter)
    retype_(module, mixin)
    wire_(module).watch = watch
    return watch, [Undo(_unfollow_, (module, before))]


def _unfollow_(module: nn.Module, before: type) -> None:
    give_class_(module, before)
    wire_(module).watch = None
    unwire_(module)


def add_loop_(module: nn.Module, loop: RecurrentLoop, attachment: Attachment) -> list[Undo]:
    """Give a followed neuron a recurrent connection; return how to take it back.

    Args:
        module: the neuron, which :func:`follow_` has retyped.
        loop: the connection; its weight is ``(post, post)``.
        attachment: its timing and history.
    """
    wire_(module).sites[LOOP] = attachment
    module.add_module("dk", loop)
    return [Undo(_remove_loop_, (module, attachment))]


def _remove_loop_(module: nn.Module, attachment: Attachment) -> None:
    module._modules.pop("dk", None)
    wire_(module).sites.pop(LOOP, None)
    unwire_(module)
    attachment.history.clear()


class BeginsAnew:
    """Mixin for a neuron around connections that begin anew with every call: it looks at the first state after each."""

    keeps_signature = True
    _dk: Wiring

    def forward(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Step the neuron, and see whether a sequence begins."""
        beginnings = self._dk.beginnings
        if beginnings is None or torch.compiler.is_compiling():
            return super().forward(input_, *args, **kwargs)  # type: ignore[misc]
        module: Any = self
        beginnings.check(module, (input_, *args), kwargs)
        output = super().forward(input_, *args, **kwargs)  # type: ignore[misc]
        beginnings.leave(module, output)
        return output


def begin_anew_(
    module: nn.Module, adapter: ReadsNeurons, keeps: bool, path: str, line: tuple[str, Ends, bool | None]
) -> list[Undo]:
    """Let a neuron look whether it begins where a connection does; return how to take it back.

    Args:
        module: the neuron.
        adapter: who knows its states.
        keeps: whether it keeps its state; else the caller carries it.
        path: its name.
        line: name of the connection, its calls, and whether they come after the neuron's (None: nobody knows).
    """
    if not keeps and len(inspect.signature(module.forward).parameters) < 2:
        return []  # snnTorch's sequence neurons take no state
    wiring, undo = wire_(module), []
    if wiring.beginnings is None:
        undo = [Undo(_forget_beginnings_, (module, module.__class__))]
        retype_(module, BeginsAnew)
        wiring.beginnings = Beginnings(adapter, keeps, path)
    wiring.beginnings.add(*line)
    return undo


def _forget_beginnings_(module: nn.Module, before: type) -> None:
    give_class_(module, before)
    wire_(module).beginnings = None
    unwire_(module)


class CarriedNeuron:
    """Mixin for a neuron called ``output, state = neuron(input, state)``: its histories ride in the state.

    The state is a NamedTuple, and None, or what :meth:`~delaykit.NeuronAdapter.begins` says, begins a sequence. A
    library whose cells hold weights subclasses this and lets each weight use the history ``_dk.carried.running[slot]``.
    """

    keeps_signature = True
    _dk: Wiring

    def forward(self, input_: Any, state: Any = None, **others: Any) -> Any:
        """Step the neuron with the histories that ride in ``state``; return (output, state that carries them)."""
        wiring, base = self._dk, super().forward  # type: ignore[misc]
        sites, carried = wiring.sites, wiring.carried
        assert carried is not None
        first, off = next(iter(sites.values())), all(a.off for a in sites.values())
        where = first.where
        if off and LOOP not in sites:
            output, after = base(input_, without_histories(state), **others)
            return output, neuron_after_bare_step(state, after, {slot: History(where) for slot in sites}, carried)
        if not first.scope.depth:
            refuse_exporters(where, input_)
        carried.running = histories = take_histories(where, state, list(sites), carried, off, self)
        try:
            drive = input_
            if LOOP in sites:
                drive = self._modules["dk"][LOOP].add_to(drive, histories[LOOP], sites[LOOP])  # type: ignore[attr-defined]
            output, after = base(drive, without_histories(state), **others)
            if LOOP in histories:
                histories[LOOP].put_back(output)
        finally:
            carried.running = None
        return output, neuron_after_bare_step(state, after, histories, carried) if off else carry(
            after, histories, carried
        )


def attach_slot_(
    module: nn.Module, slot: str, child: nn.Module, attachment: Attachment, adapter: ReadsNeurons, mixin: type
) -> list[Undo]:
    """Attach one connection to a neuron whose state is carried; return how to take it back.

    Args:
        module: the neuron.
        slot: name of the connection; its child lies under ``dk.<slot>``.
        child: a :class:`~delaykit.synapse.Synapse`, or a :class:`RecurrentLoop` in slot ``"loop"``.
        attachment: its timing; ``attachment.parameter`` names the weight in the module.
        adapter: who knows the states.
        mixin: :class:`CarriedNeuron` or a subclass.
    """
    before, wiring = module.__class__, wire_(module)
    if not has_mixin(module, CarriedNeuron):
        retype_(module, mixin)
        wiring.carried = CarriedRun(adapter)
        module.add_module("dk", nn.ModuleDict())
    wiring.sites[slot] = attachment
    module._modules["dk"][slot] = child  # type: ignore[index, operator]
    return [Undo(_detach_slot_, (module, slot, before))]


def _detach_slot_(module: nn.Module, slot: str, before: type) -> None:
    wiring, parts = wire_(module), module._modules.get("dk")
    if isinstance(parts, nn.ModuleDict) and slot in parts:
        del parts[slot]
    wiring.sites.pop(slot, None)
    if not wiring.sites:
        give_class_(module, before)
        module._modules.pop("dk", None)
        wiring.carried = None
        unwire_(module)


def make_exact_(module: nn.Module, mixin: type, adapter: ReadsNeurons) -> list[Undo]:
    """Put ``mixin`` into a neuron, once; return how to take it back.

    Args:
        module: the neuron.
        mixin: adds to each step what makes spikes and resets exact.
        adapter: who reads the neuron's dynamics.
    """
    wiring = wire_(module)
    if wiring.exact is not None:
        return []
    before = module.__class__
    retype_(module, mixin)
    wiring.exact = ExactNeuron(adapter)
    return [Undo(_make_exact_no_more_, (module, before))]


def _make_exact_no_more_(module: nn.Module, before: type) -> None:
    give_class_(module, before)
    wire_(module).exact = None
    unwire_(module)


def synapses_of(module: nn.Module) -> dict[str, Synapse]:
    """Return the synapses of a module's wrapped connections by slot, those that are switched off left out.

    Args:
        module: any module, wrapped or bare.
    """
    wiring = wiring_of(module) or Wiring()
    return {slot: part_at(module, slot)[0] for slot, attachment in wiring.sites.items() if not attachment.off}


def loop_of(module: nn.Module) -> RecurrentLoop | None:
    """Return the connection that :class:`delaykit.Recurrent` gave to a neuron, or None.

    Args:
        module: any module, wrapped or bare.
    """
    wiring = wiring_of(module)
    return part_at(module, LOOP)[1] if wiring is not None and LOOP in wiring.sites else None


def part_at(module: nn.Module, slot: str) -> tuple[Synapse, RecurrentLoop | None]:
    """Return the synapse of one wrapped connection of a module, and the loop it is part of, if it is."""
    child: Any = module._modules["dk"]
    if isinstance(child, nn.ModuleDict):  # a neuron with several connections
        child = child[slot]
    return (child.synapse, child) if isinstance(child, RecurrentLoop) else (child, None)
