"""snnTorch: neurons that keep their membrane in ``.mem``, some with a recurrent connection of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from delaykit.adapters.snntorch.dynamics import dynamics_of, leak_of, leak_place_of
from delaykit.adapters.snntorch.instances import list_
from delaykit.adapters.snntorch.reset_watch import FollowedSnn
from delaykit.adapters.snntorch.time_constants import LearnedSnn, decays_of
from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.connection.products import CONVOLUTIONS
from delaykit.attaching.exact_gradients.neurons import refusal
from delaykit.attaching.fused_parts import FusedParts
from delaykit.attaching.neuron_mixins import follow_, loop_of, make_exact_
from delaykit.attaching.retyping import Undo
from delaykit.attaching.watches import NeuronWatch
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.state import RolloutState

STEP = ("Leaky", "Lapicque", "Synaptic", "Alpha", "RLeaky", "RSynaptic", "SLSTM", "SConv2dLSTM", "DeltaLeaky")
SEQUENCE = ("LeakyParallel", "StateLeaky", "LinearLeaky", "AssociativeLeaky")
RECURRENT = ("RLeaky", "RSynaptic")
STATES = ("spk", "syn", "syn_exc", "syn_inh", "mem")  # where neurons keep their state
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


class SnnTorchAdapter(NeuronAdapter):
    """Knows every neuron class of snnTorch 1.0."""

    name: ClassVar[str] = "snntorch"
    api: ClassVar[int] = 1
    fits: ClassVar[dict[str, str]] = {
        "leak": "Leaky, RLeaky, Lapicque, Synaptic and RSynaptic of snnTorch",
        "exact_": "Synaptic and RSynaptic of snnTorch",
    }
    learned: ClassVar[type | None] = LearnedSnn

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

    def watch_(self, module: nn.Module) -> tuple[NeuronWatch, list[Undo]]:
        return follow_(module, SnnTorchAdapter(), FollowedSnn)

    def membrane(self, module: nn.Module, state: Any = None) -> Tensor | None:
        membrane = module._buffers.get("mem")  # its own place, asked twice a step
        if membrane is None:
            membrane = getattr(module, "mem", None)
        return membrane if isinstance(membrane, Tensor) else None

    def given_membrane(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        # snnTorch passes it last, DeltaLeaky as the first of a pair.
        given = kwargs.get("mem", args[-1] if len(args) > 1 else None)
        if isinstance(given, tuple):
            given = given[0]
        return given if isinstance(given, Tensor) else None

    def held_state(self, module: nn.Module) -> list[Tensor]:
        held = [getattr(module, name, None) for name in STATES]
        return [value for value in held if isinstance(value, Tensor)]

    def reset_(self, module: nn.Module) -> None:
        module.reset_mem()  # type: ignore[operator]

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        return dynamics_of(module)

    def fused_parts(self, module: nn.Module) -> FusedParts | None:
        recurrent: Any = getattr(module, "recurrent", None)
        if recurrent is None or loop_of(module) is not None:
            return super().fused_parts(module)
        return FusedParts.of_layer(recurrent)

    def state_of_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RolloutState | None:
        names = [name for name in ("spk", "syn", "mem") if name in module._buffers]
        given = dict(zip(names, args[1:], strict=False)) | {n: v for n, v in kwargs.items() if n in names}
        if module.init_hidden and any(value is not None for value in given.values()):
            return None  # the library refuses it in its own words
        shape, kept = args[0].shape, {}
        for name in names:
            value = module._buffers[name] if given.get(name) is None else given[name]
            kept[name] = value if isinstance(value, Tensor) and value.shape == shape else None
        return RolloutState(kept.get("spk"), kept.get("syn"), kept.get("mem"))

    def answer(self, module: nn.Module, state: RolloutState) -> Any:
        buffers = module._buffers
        own = [(n, v) for n, v in zip(("spk", "syn", "mem"), state, strict=True) if n in buffers]
        buffers.update(own)
        if module.init_hidden and not module.output:
            return state.spikes
        return state.spikes, *[value for name, value in own if name != "spk"]

    def decays(self, module: nn.Module) -> dict[str, Tensor]:
        return decays_of(module)

    def leak(self, module: nn.Module) -> Tensor | None:
        return leak_of(module)

    def leak_place(self, module: nn.Module) -> tuple[dict[str, Any], str] | None:
        return leak_place_of(module)

    def exact_refusal(self, module: nn.Module, emits: bool) -> str:
        return refusal(self.dynamics(module), emits)

    def exact_(self, module: nn.Module) -> list[Undo]:
        from delaykit.adapters.snntorch.exact_gradients import ExactSynaptic

        return make_exact_(module, ExactSynaptic, SnnTorchAdapter())

    def after_copy(self, module: nn.Module) -> None:
        list_(module)


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
