"""Adapters of the invented library Pulse, each with one fault that an author may make."""

from __future__ import annotations

import dataclasses

import pulse
import torch

from delaykit.adapters import Attachment, FusedParts, History, Product, Spot, Undo, attach_connection_, keep_

page = pulse.load()
Adapter = page.PulseAdapter


class OtherVersion(Adapter):
    """Written for another interface."""

    api = 0


class MissesCarried(Adapter):
    """Forgets a kind of neuron."""

    def find(self, path, module):
        return ([], None) if isinstance(module, page.Carry) else super().find(path, module)


class AllKept(Adapter):
    """Takes a neuron with a carried state for one that keeps it."""

    def find(self, path, module):
        spots, neuron = super().find(path, module)
        return spots, neuron and dataclasses.replace(neuron, follows=True)


class AllSequences(Adapter):
    """Takes a neuron that is called step by step for one that is called with a sequence."""

    def find(self, path, module):
        spots, neuron = super().find(path, module)
        return spots, neuron and dataclasses.replace(neuron, style="sequence")


class BatchIsTime(Adapter):
    """Takes the batch of a connection that is called step by step for time."""

    def find(self, path, module):
        return _every_linear(self, path, module, time_dim=0) or super().find(path, module)


class AllowsGates(Adapter):
    """Does not refuse what cannot be delayed."""

    def find(self, path, module):
        return ([], None) if isinstance(module, page.Gate) else super().find(path, module)


class NoReason(Adapter):
    """Refuses without saying why."""

    def find(self, path, module):
        spots, neuron = super().find(path, module)
        return [dataclasses.replace(spot, refusal="impossible") for spot in spots], neuron


class EmptiesMembrane(Adapter):
    """Shows a membrane once and an empty one after that, which looks like a reset at every step."""

    _shown: dict = {}

    def membrane(self, module, state=None):
        found = super().membrane(module, state)
        again, self._shown[id(module)] = self._shown.get(id(module)) is found, found
        return torch.empty(0) if again and found is not None else found


class NeverReset(Adapter):
    """Looks at something that a reset does not replace: old spikes reach the next sequence."""

    _same: dict = {}

    def membrane(self, module, state=None):
        if state is not None:
            return super().membrane(module, state)
        held = super().membrane(module)
        if held is None:
            return NeverReset._same.get(id(module))
        return NeverReset._same.setdefault(id(module), held)


class NoMembrane(Adapter):
    """Finds no membrane."""

    def membrane(self, module, state=None):
        return None


class IdleReset(Adapter):
    """Resets nothing."""

    def reset_(self, module):
        pass


class OtherRest(Adapter):
    """Says that a fresh state is one that it is not."""

    def resting(self, module, state):
        return state._replace(u=torch.ones_like(state.u))


class AlwaysBegins(Adapter):
    """Takes every state for a new one: spikes under way are lost."""

    def begins(self, state):
        return True


class WrongDecay(Adapter):
    """Describes another neuron."""

    def dynamics(self, module):
        found = super().dynamics(module)
        return found and dataclasses.replace(found, decay=0.9 * module.beta)


class WrongReset(Adapter):
    """Lets the gradient flow through the reset, where the library does not."""

    def dynamics(self, module):
        found = super().dynamics(module)
        return found and dataclasses.replace(found, detach_reset=False)


class ForgetsLoop(Adapter):
    """Leaves the recurrent connection out of the fused run."""

    def fused_parts(self, module):
        return FusedParts()


class WrongLeak(Adapter):
    """States another leak."""

    def leak(self, module):
        return super().leak(module) * 0.9 if super().leak(module) is not None else None


def _forget(module):
    pass


class NoUndo(Adapter):
    """Cannot be undone."""

    def find(self, path, module):
        return _every_linear(self, path, module) or super().find(path, module)

    def attach_(self, spot, synapse, attachment):
        attach_connection_(spot.module, synapse, attachment)
        return [Undo(_forget, (spot.module,))]


class Pokes(Adapter):
    """Writes its own data into a module, and takes it back."""

    def find(self, path, module):
        return _every_linear(self, path, module) or super().find(path, module)

    def attach_(self, spot, synapse, attachment):
        spot.module.__dict__["pulse_mode"] = "step"
        return [Undo(_unpoke, (spot.module,)), *attach_connection_(spot.module, synapse, attachment)]


def _unpoke(module):
    del module.__dict__["pulse_mode"]


class KeepsOn(Adapter):
    """Keeps its own data where it belongs, and forgets to take it back."""

    def find(self, path, module):
        return _every_linear(self, path, module) or super().find(path, module)

    def attach_(self, spot, synapse, attachment):
        keep_(spot.module, "mode", "step")
        return attach_connection_(spot.module, synapse, attachment)


class DropsBias(Adapter):
    """Describes a product without its bias."""

    def find(self, path, module):
        return _every_linear(self, path, module, _without_bias) or super().find(path, module)


class SharesHistory(Adapter):
    """Keeps one history for all copies of a connection."""

    def find(self, path, module):
        return _every_linear(self, path, module) or super().find(path, module)

    def attach_(self, spot, synapse, attachment):
        attachment.history.__class__ = _Shared
        return attach_connection_(spot.module, synapse, attachment)


class _Shared(History):
    def __deepcopy__(self, memo):
        return self


class StaysOn(Adapter):
    """Delays though it is switched off."""

    def find(self, path, module):
        return _every_linear(self, path, module) or super().find(path, module)

    def attach_(self, spot, synapse, attachment):
        attachment.__class__ = _WithoutSwitch
        return attach_connection_(spot.module, synapse, attachment)


class _WithoutSwitch(Attachment):
    off = property(lambda self: False, lambda self, value: None)


class LosesWeights(Adapter):
    """Moves the weight out of the module, so that checkpoints of the bare model fit no more."""

    def find(self, path, module):
        return _every_linear(self, path, module) or super().find(path, module)

    def attach_(self, spot, synapse, attachment):
        undo = attach_connection_(spot.module, synapse, attachment)
        spot.module.register_buffer("kept", spot.module.weight.detach().clone())
        return [*undo, Undo(_drop, (spot.module,))]


def _drop(module):
    del module._buffers["kept"]


def _without_bias(module, forward):
    def product(x):
        return torch.nn.functional.linear(x, module.weight)

    return Product(product, product, module.weight, None)


def _every_linear(adapter, path, module, product=None, time_dim=None):
    if not isinstance(module, torch.nn.Linear) or path.endswith("inner"):
        return None
    return [Spot(path, "", module, module.in_features, module.out_features, product=product, time_dim=time_dim)], None


MUTANTS = (
    OtherVersion, MissesCarried, AllKept, AllSequences, BatchIsTime, AllowsGates, NoReason, EmptiesMembrane, NeverReset,
    NoMembrane, IdleReset, OtherRest, AlwaysBegins, WrongDecay, WrongReset, ForgetsLoop, WrongLeak, NoUndo, DropsBias,
    SharesHistory, StaysOn, LosesWeights, Pokes, KeepsOn,
)  # fmt: skip
