"""Norse: functional neurons whose state, and with it every delay history, is carried by the caller."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from delaykit.adapters.norse.cell import WEIGHTS, NorseCell, is_initial, resting
from delaykit.adapters.norse.dynamics import answer_of, dynamics_of, leak_of
from delaykit.adapters.norse.sequential import follow_states_
from delaykit.adapters.norse.time_constants import LearnedNorse, decays_of
from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.loop import LOOP, RecurrentLoop
from delaykit.attaching.connection.mixins import attach_connection_
from delaykit.attaching.connection.products import CONVOLUTIONS
from delaykit.attaching.exact_gradients.neurons import refusal
from delaykit.attaching.fused_parts import FusedParts
from delaykit.attaching.neuron_mixins import attach_slot_, loop_of, make_exact_, synapses_of
from delaykit.attaching.retyping import Undo
from delaykit.errors import ShapeError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.state import RolloutState
from delaykit.synapse import Product, Synapse

REFUSED = {
    "LIFMCRecurrentCell": "its compartments are coupled by weights of their own",
    "LIFMCRefracRecurrentCell": "its compartments are coupled by weights of their own",
    "CobaLIFCell": "its synapses are conductances: the current is not linear in the spikes",
    "LIFCorrelation": "it takes its weights as arguments of every call",
}


class NorseAdapter(NeuronAdapter):
    """Knows Norse's cells, sequence modules and ``SequentialState``.

    It remembers every place of a module in a ``SequentialState``: a shared connection has a state, and a flag, in each.
    """

    name: ClassVar[str] = "norse"
    api: ClassVar[int] = 1
    fits: ClassVar[dict[str, str]] = {"leak": "LIF, LI and IAF of Norse", "exact_": "LIF of Norse"}
    learned: ClassVar[type | None] = LearnedNorse

    def __init__(self) -> None:
        self.places: dict[int, set[tuple[nn.Module, int]]] = {}

    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        if "norse" not in sys.modules:
            return [], None
        from norse.torch.module.leaky_integrator import LILinearCell
        from norse.torch.module.sequential import SequentialState
        from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell

        if isinstance(module, SequentialState):
            for index, child in enumerate(module._modules.values()):
                self.places.setdefault(id(child), set()).add((module, index))
            return _sequential_spots(path, module), None
        refusal = next((REFUSED[c.__name__] for c in type(module).__mro__ if c.__name__ in REFUSED), "")
        if not refusal and not isinstance(module, (SNN, SNNCell, SNNRecurrent, SNNRecurrentCell, LILinearCell)):
            return [], None
        # A refused cell lists both connections, wherever its weights are: a rule that names one learns the reason.
        slots = [slot for slot, weight in WEIGHTS.items() if refusal or hasattr(module, weight)]
        activation = getattr(module, "activation", None)
        if "adjoint" in getattr(activation, "__name__", "") or getattr(module, "adjoint", False):
            refusal = "its adjoint method hides the weights from delaykit; use method='super'"
        style = "sequence" if isinstance(module, (SNN, SNNRecurrent)) else "step"
        spots = [_cell_spot(path, slot, module, refusal, self) for slot in slots]
        already = "it has recurrent weights already" if "recurrent" in slots else ""
        dt: Any = getattr(module, "dt", None)
        dt_ms = None if dt is None else float(dt) * 1000
        neuron = Neuron(path, module, self, style, False, dt_ms, refusal or already)  # type: ignore[arg-type]
        return spots, neuron

    def attach_(self, spot: Spot, synapse: Synapse, attachment: Attachment) -> list[Undo]:
        if spot.slot:
            attachment.parameter = WEIGHTS[spot.slot]
            return attach_slot_(spot.module, spot.slot, synapse, attachment, NorseAdapter(), NorseCell)
        undo = attach_connection_(spot.module, synapse, attachment)
        if attachment.timing.policy == "carried":
            for parent, index in self.places[id(spot.module)]:
                undo += [_make_stateful_(parent, index), *follow_states_(parent)]
        return undo

    def add_recurrent_(
        self, neuron: Neuron, synapse: Synapse, attachment: Attachment, weight: Tensor, bias: bool
    ) -> list[Undo]:
        loop = RecurrentLoop(weight, bias, synapse)
        return attach_slot_(neuron.module, LOOP, loop, attachment, NorseAdapter(), NorseCell)

    def membrane(self, module: nn.Module, state: Any = None) -> Tensor | None:
        membrane = getattr(getattr(state, "lif", state), "v", None)  # refractory cells keep the state of a LIF inside
        return membrane if isinstance(membrane, Tensor) else None

    def begins(self, state: Any) -> bool:
        return state is None or is_initial(state)

    def resting(self, module: nn.Module, state: Any) -> Any:
        return resting(module, state)

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        return dynamics_of(module)

    def fused_parts(self, module: nn.Module) -> FusedParts | None:
        synapses = synapses_of(module)
        drive = None
        if isinstance(given := getattr(module, "input_weights", None), Tensor):
            if (drive := _sequence(given, synapses.get("input"))) is None:
                return None
        if (loop := loop_of(module)) is not None:
            return FusedParts.of(loop.connection.weight, loop.connection.bias, synapses.get(LOOP), drive)
        weight = getattr(module, "recurrent_weights", None)
        if not isinstance(weight, Tensor):
            return FusedParts(drive=drive)
        return FusedParts.of(weight, None, synapses.get("recurrent"), drive)

    def state_of_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RolloutState | None:
        state = args[1] if len(args) > 1 else kwargs.get("state")
        if state is None:
            return RolloutState()
        if getattr(state, "_dk", None) is not None:
            return None  # its histories go on
        return RolloutState(getattr(state, "z", None), getattr(state, "i", None), getattr(state, "v", None))

    def answer(self, module: nn.Module, state: RolloutState) -> Any:
        return answer_of(module, state)

    def decays(self, module: nn.Module) -> dict[str, Tensor]:
        return decays_of(module)

    def leak(self, module: nn.Module) -> Tensor | None:
        return leak_of(module)

    def exact_refusal(self, module: nn.Module, emits: bool) -> str:
        return refusal(self.dynamics(module), emits)

    def exact_(self, module: nn.Module) -> list[Undo]:
        from delaykit.adapters.norse.exact_gradients import ExactNorseLIF

        return make_exact_(module, ExactNorseLIF, NorseAdapter())

    def after_copy(self, module: nn.Module) -> None:
        weight = getattr(module, "recurrent_weights", None)
        if getattr(module, "autapses", True) or not isinstance(weight, Tensor) or not weight.requires_grad:
            return
        if not weight._backward_hooks:  # deepcopy drops tensor hooks
            weight.register_hook(_without_autapses)


def _sequence(weight: Tensor, synapse: Synapse | None) -> Callable[[Tensor], Tensor] | None:
    """Return what turns a sequence of input spikes into currents; None where it only runs step by step."""

    def product(spikes: Tensor) -> Tensor:
        if spikes.shape[-1] != weight.shape[1]:
            fix = "pass the cell's input spikes (time, batch, pre)"
            raise ShapeError("rollout", f"currents of width {spikes.shape[-1]}", f"{weight.shape[1]}, its inputs", fix)
        return nn.functional.linear(spikes, weight)

    if synapse is None or (synapse.delay is None and synapse.heterogeneity is None):
        return product
    delay = synapse.delay
    if delay is not None and (delay.estimator == "exact" or (delay.training and delay.dropout > 0)):
        return None
    return synapse.engine(Product(product, product, weight, None)).sequence


def _without_autapses(gradient: Tensor) -> Tensor:
    return gradient.clone().fill_diagonal_(0.0)


def _cell_spot(path: str, slot: str, module: nn.Module, refusal: str, adapter: NeuronAdapter) -> Spot:
    post, pre = getattr(module, WEIGHTS[slot]).shape if hasattr(module, WEIGHTS[slot]) else (None, None)
    return Spot(path, slot, module, pre, post, True, slot == "recurrent", path, True, refusal, adapter)


def _sequential_spots(path: str, module: nn.Module) -> list[Spot]:
    spots = []
    for name, child in module.named_children():
        where = ".".join(p for p in (path, name) if p)
        if isinstance(child, nn.Linear):
            spots.append(Spot(where, "", child, child.in_features, child.out_features, carried=True))
        elif isinstance(child, CONVOLUTIONS):
            spots.append(Spot(where, "", child, child.in_channels, child.out_channels, has_matrix=False, carried=True))
    return spots


def _make_stateful_(parent: Any, index: int) -> Undo:
    before = parent.stateful_layers[index]
    parent.stateful_layers[index] = True
    return Undo(_set_stateful_, (parent, index, before))


def _set_stateful_(parent: Any, index: int, value: bool) -> None:
    parent.stateful_layers[index] = value
