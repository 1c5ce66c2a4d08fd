"""snnTorch: neurons that keep their membrane in ``.mem``, some with a recurrent connection of their own."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from delaykit.adapters.plain.adapter import CONVOLUTIONS, attach_connection_
from delaykit.attaching.adapter import FusedParts, Neuron, NeuronAdapter, Spot
from delaykit.attaching.connections import Attachment
from delaykit.attaching.exact import make_exact_, refusal
from delaykit.attaching.histories import NeuronWatch
from delaykit.attaching.loop import RecurrentLoop
from delaykit.attaching.retyping import has_mixin, retype_
from delaykit.attaching.root import Undo
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.decay import Recurrence
from delaykit.synapse import Synapse

STEP = ("Leaky", "Lapicque", "Synaptic", "Alpha", "RLeaky", "RSynaptic", "SLSTM", "SConv2dLSTM", "DeltaLeaky")
SEQUENCE = ("LeakyParallel", "StateLeaky", "LinearLeaky", "AssociativeLeaky")
RECURRENT = ("RLeaky", "RSynaptic")
INNER_REFUSALS = {
    "SLSTM": "its gates are not additive in the input; delay the connection before the neuron instead",
    "SConv2dLSTM": "its gates are not additive in the input; delay the connection before the neuron instead",
    "LeakyParallel": "its weights are fused inside nn.RNN; put a Linear before it and delay that",
    "LinearLeaky": "it flattens time and batch before its inner Linear; delay an nn.Linear before a StateLeaky",
    "AssociativeLeaky": "its projections feed a matrix state space model; delay the connection before it",
}
NO_RECURRENT = {
    "SLSTM": "its recurrence is inside the LSTM cell",
    "SConv2dLSTM": "its recurrence is inside the LSTM cell",
    "DeltaLeaky": "its output is a change of the membrane; add an external nn.Linear in your loop and delay that",
}


class WatchedNeuron:
    """Mixin for a neuron whose membrane is followed, or which got a recurrent loop from delaykit."""

    keeps_signature = True
    _dk_watch: NeuronWatch

    def forward(self, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Step the neuron, and note which membrane it was given and which it left."""
        watch, module = self._dk_watch, self
        watch.enter(_membrane(module), _given_membrane(args, kwargs), type(self).__name__)
        try:
            looped = self.__dict__.get("_dk_loop")
            if looped is None:
                return super().forward(input_, *args, **kwargs)  # type: ignore[misc]
            return self._dk_run_loop(looped, input_, args, kwargs)
        finally:
            watch.leave(_membrane(module))

    def _dk_run_loop(self, attachment: Attachment, input_: Tensor, args: Any, kwargs: Any) -> Any:
        history, loop = attachment.history, self._modules["dk"]  # type: ignore[attr-defined]
        history.enter(*attachment.moment())
        output = super().forward(loop.add_to(input_, history, attachment), *args, **kwargs)  # type: ignore[misc]
        history.last_output = output if isinstance(output, Tensor) else output[0]
        return output


class SnnTorchAdapter(NeuronAdapter):
    """Knows every neuron class of snnTorch 1.0."""

    name: ClassVar[str] = "snntorch"

    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        kind = _kind(module)
        if kind is None:
            return [], None
        spots = []
        if kind in RECURRENT:
            spots.append(_recurrent_spot(path, module.recurrent))  # type: ignore[arg-type]
        if kind in INNER_REFUSALS:
            inner = [
                (n, m)
                for n, m in module.named_modules()
                if isinstance(m, (nn.Linear, *CONVOLUTIONS, nn.RNNBase, nn.LSTMCell))
            ]
            spots += [
                Spot(f"{path}.{n}".strip("."), "", m, 0, 0, owner=path, refusal=INNER_REFUSALS[kind]) for n, m in inner
            ]
        style = "sequence" if kind in SEQUENCE else "step"
        neuron = Neuron(path, module, self, style, style == "step", None, NO_RECURRENT.get(kind, ""))  # type: ignore[arg-type]
        return spots, neuron

    def attach_(self, spot: Spot, synapse: Synapse, attachment: Attachment) -> list[Undo]:
        return attach_connection_(spot.module, synapse, attachment)

    def given_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        return [leaf for leaf in tree_leaves((args[1:], kwargs)) if isinstance(leaf, Tensor)]

    def watch_(self, module: nn.Module) -> tuple[NeuronWatch, list[Undo]]:
        if has_mixin(module, WatchedNeuron):
            return module.__dict__["_dk_watch"], []
        before, watch = module.__class__, NeuronWatch()
        retype_(module, WatchedNeuron)
        module.__dict__["_dk_watch"] = watch
        return watch, [Undo(_unwatch_, (module, before))]

    def add_recurrent_(
        self, neuron: Neuron, synapse: Synapse, attachment: Attachment, weight: Tensor, bias: bool
    ) -> list[Undo]:
        watch, undo = self.watch_(neuron.module)
        attachment.watch, attachment.owner = watch, neuron.module
        neuron.module.__dict__["_dk_loop"] = attachment
        neuron.module.add_module("dk", RecurrentLoop(weight, bias, synapse))
        return [*undo, Undo(_remove_loop_, (neuron.module, attachment))]

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        from delaykit.adapters.dynamics import dynamics_of_snntorch

        return dynamics_of_snntorch(module)

    def fused_parts(self, module: nn.Module) -> FusedParts | None:
        loop = module._modules.get("dk")
        if isinstance(loop, RecurrentLoop):
            off = module.__dict__["_dk_loop"].off
            return FusedParts.of(loop.connection.weight, loop.connection.bias, None if off else loop.synapse)
        recurrent: Any = getattr(module, "recurrent", None)
        if recurrent is None:
            return FusedParts()
        own = getattr(recurrent, "recurrence", getattr(recurrent, "rollout_connection", None))
        if callable(own) and not isinstance(own, nn.Module):
            return FusedParts(Recurrence(None, getattr(recurrent, "bias", None), own()))
        attachment: Attachment | None = recurrent.__dict__.get("_dk")
        if not isinstance(recurrent, nn.Linear) or (
            attachment is None and type(recurrent).forward is not nn.Linear.forward
        ):
            return None  # nobody knows what a subclass does with its weight
        synapse: Any = None if attachment is None or attachment.off else recurrent.dk
        return FusedParts.of(recurrent.weight, recurrent.bias, synapse)

    def leak(self, module: nn.Module) -> Tensor | None:
        from delaykit.adapters.leaks import leak_of_snntorch

        return leak_of_snntorch(module)

    def exact_refusal(self, module: nn.Module, emits: bool) -> str:
        return refusal(self.dynamics(module), emits)

    def exact_(self, module: nn.Module) -> list[Undo]:
        from delaykit.adapters.snntorch.exact import ExactSynaptic

        return make_exact_(module, ExactSynaptic, type(self))

    def after_copy(self, module: nn.Module) -> None:
        snn = sys.modules.get("snntorch")
        if snn is not None and isinstance(module, snn.SpikingNeuron):
            snn.SpikingNeuron.instances.append(module)  # deepcopy does not run __init__; utils.reset looks here


def _kind(module: nn.Module) -> str | None:
    snn = sys.modules.get("snntorch")
    if snn is None or type(module).__module__.startswith("torch."):
        return None
    for cls in type(module).__mro__:
        if cls.__name__ in STEP + SEQUENCE and cls.__module__.startswith("snntorch"):
            return cls.__name__
    return None


def _recurrent_spot(neuron_path: str, module: nn.Module) -> Spot:
    path = f"{neuron_path}.recurrent".strip(".")
    if isinstance(module, nn.Linear):
        return Spot(path, "", module, module.in_features, module.out_features, True, True, neuron_path)
    if isinstance(module, CONVOLUTIONS):
        return Spot(path, "", module, module.in_channels, module.out_channels, False, True, neuron_path)
    return Spot(path, "", module, None, None, False, True, neuron_path)  # one-to-one: only a run tells its size


def _membrane(module: Any) -> Tensor | None:
    membrane = getattr(module, "mem", None)
    return membrane if isinstance(membrane, Tensor) else None


def _given_membrane(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Find the membrane among explicit states: snnTorch passes it last, DeltaLeaky as the first of a pair."""
    given = kwargs.get("mem", args[-1] if args else None)
    if isinstance(given, tuple):
        given = given[0]
    return given if isinstance(given, Tensor) else None


def _unwatch_(module: nn.Module, before: type) -> None:
    module.__class__ = before
    module.__dict__.pop("_dk_watch", None)


def _remove_loop_(module: nn.Module, attachment: Attachment) -> None:
    del module._modules["dk"], module.__dict__["_dk_loop"]
    attachment.history.clear()
