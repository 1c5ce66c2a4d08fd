"""Norse: functional neurons whose state, and with it every delay history, is carried by the caller."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from delaykit.adapters.plain.adapter import CONVOLUTIONS, attach_connection_
from delaykit.attaching.adapter import FusedParts, Neuron, NeuronAdapter, Spot
from delaykit.attaching.carried import Histories, Passenger, board, carry, plain
from delaykit.attaching.connections import Attachment, step_connection
from delaykit.attaching.exact import make_exact_, refusal
from delaykit.attaching.loop import RecurrentLoop
from delaykit.attaching.retyping import has_mixin, retype_
from delaykit.attaching.root import Undo
from delaykit.functional.dynamics import LIFDynamics
from delaykit.synapse import Product, Synapse

WEIGHTS = {"input": "input_weights", "recurrent": "recurrent_weights"}
REFUSED = {
    "LIFMCRecurrentCell": "its compartments are coupled by weights of their own",
    "LIFMCRefracRecurrentCell": "its compartments are coupled by weights of their own",
    "CobaLIFCell": "its synapses are conductances: the current is not linear in the spikes",
    "LIFCorrelation": "it takes its weights as arguments of every call",
}


class CarriedCell:
    """Mixin for a cell or sequence module whose weights are used by ``torch.nn.functional.linear`` inside.

    While it runs, a wrapped weight is replaced by a :class:`DelayedWeight`, so Norse's own equations stay in charge.
    """

    keeps_signature = True
    _dk_sites: dict[str, Attachment]
    _dk_running: Histories | None

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:
        """Step the cell with the histories that ride in ``state``; return (output, state that carries them)."""
        if all(a.off for a in self._dk_sites.values()) and "loop" not in self._dk_sites:
            return super().forward(input_tensor, plain(state))  # type: ignore[misc]
        histories = board(self._dk_where(), state, list(self._dk_sites))
        self._dk_running = histories
        try:
            drive = input_tensor
            if "loop" in self._dk_sites:
                drive = self._modules["dk"]["loop"].add_to(drive, histories["loop"], self._dk_sites["loop"])  # type: ignore[attr-defined]
            output, after = super().forward(drive, plain(state))  # type: ignore[misc]
            if "loop" in histories:
                histories["loop"].last_output = output
        finally:
            self._dk_running = None
        return output, carry(after, Passenger(histories, after))

    def _dk_where(self) -> str:
        return next(iter(self._dk_sites.values())).where

    def _dk_weight(self, slot: str) -> Any:
        own = self._parameters.get(WEIGHTS[slot], self.__dict__.get(WEIGHTS[slot]))  # type: ignore[attr-defined]
        if own is None:  # LIFCell and others have no weights: hasattr must keep saying so
            raise AttributeError(WEIGHTS[slot])
        if self._dk_running is None or slot not in self._dk_sites or self._dk_sites[slot].off:
            return own
        synapse = self._modules["dk"][slot]  # type: ignore[attr-defined]
        return DelayedWeight(own, synapse, self._dk_sites[slot], self._dk_running[slot])

    @property
    def input_weights(self) -> Any:
        """Return the input weight; while the cell runs, its delayed stand-in."""
        return self._dk_weight("input")

    @input_weights.setter
    def input_weights(self, value: Any) -> None:
        self.__dict__["input_weights"] = value

    @property
    def recurrent_weights(self) -> Any:
        """Return the recurrent weight; while the cell runs, its delayed stand-in."""
        return self._dk_weight("recurrent")

    @recurrent_weights.setter
    def recurrent_weights(self, value: Any) -> None:
        self.__dict__["recurrent_weights"] = value


class DelayedWeight:
    """Stands in for a weight inside Norse's step functions: ``linear(spikes, self)`` is the delayed current."""

    def __init__(self, weight: Tensor, synapse: Synapse, attachment: Attachment, history: Any) -> None:
        def product(spikes: Tensor) -> Tensor:
            return nn.functional.linear(spikes, weight)

        self.product = Product(product, product, weight, None)
        self.synapse, self.attachment, self.history = synapse, attachment, history

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.linear or len(args) < 2 or not isinstance(args[1], cls):
            return NotImplemented
        spikes, self = args[:2]
        return step_connection(self.synapse, self.attachment, self.product, spikes, self.history)


class NorseAdapter(NeuronAdapter):
    """Knows Norse's cells, sequence modules and ``SequentialState``.

    It remembers every place of a module in a ``SequentialState``: a shared connection has a state, and a flag, in each.
    """

    name: ClassVar[str] = "norse"

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
            return _attach_slot_(spot.module, spot.slot, synapse, attachment)
        undo = attach_connection_(spot.module, synapse, attachment)
        if attachment.timing.policy == "carried":
            undo += [_make_stateful_(parent, index) for parent, index in self.places[id(spot.module)]]
        return undo

    def given_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        return [leaf for leaf in tree_leaves((args[1:], kwargs)) if isinstance(leaf, Tensor)]

    def add_recurrent_(
        self, neuron: Neuron, synapse: Synapse, attachment: Attachment, weight: Tensor, bias: bool
    ) -> list[Undo]:
        return _attach_slot_(neuron.module, "loop", RecurrentLoop(weight, bias, synapse), attachment)

    def dynamics(self, module: nn.Module) -> LIFDynamics | None:
        from delaykit.adapters.dynamics import dynamics_of_norse

        return dynamics_of_norse(module)

    def fused_parts(self, module: nn.Module) -> FusedParts | None:
        sites: dict[str, Attachment] = module.__dict__.get("_dk_sites", {})
        synapses: Any = {slot: module._modules["dk"][slot] for slot, a in sites.items() if not a.off}  # type: ignore[index]
        drive = None
        if isinstance(given := getattr(module, "input_weights", None), Tensor):
            if (drive := _sequence(given, synapses.get("input"))) is None:
                return None
        if "loop" in sites:
            loop: Any = module._modules["dk"]["loop"]  # type: ignore[index]
            synapse = loop.synapse if "loop" in synapses else None
            return FusedParts.of(loop.connection.weight, loop.connection.bias, synapse, drive)
        weight = getattr(module, "recurrent_weights", None)
        if not isinstance(weight, Tensor):
            return FusedParts(drive=drive)
        return FusedParts.of(weight, None, synapses.get("recurrent"), drive)

    def leak(self, module: nn.Module) -> Tensor | None:
        from delaykit.adapters.leaks import leak_of_norse

        return leak_of_norse(module)

    def exact_refusal(self, module: nn.Module, emits: bool) -> str:
        return refusal(self.dynamics(module), emits)

    def exact_(self, module: nn.Module) -> list[Undo]:
        from delaykit.adapters.norse.exact import ExactNorseLIF

        return make_exact_(module, ExactNorseLIF, type(self))

    def after_copy(self, module: nn.Module) -> None:
        weight = getattr(module, "recurrent_weights", None)
        if getattr(module, "autapses", True) or not isinstance(weight, Tensor) or not weight.requires_grad:
            return
        if not weight._backward_hooks:  # deepcopy drops tensor hooks
            weight.register_hook(_without_autapses)


def _sequence(weight: Tensor, synapse: Synapse | None) -> Callable[[Tensor], Tensor] | None:
    """Return what turns a sequence of input spikes into currents; None where it only runs step by step."""

    def product(spikes: Tensor) -> Tensor:
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


def _attach_slot_(module: nn.Module, slot: str, child: nn.Module, attachment: Attachment) -> list[Undo]:
    before = module.__class__
    if not has_mixin(module, CarriedCell):
        retype_(module, CarriedCell)
        module.__dict__["_dk_sites"], module.__dict__["_dk_running"] = {}, None
        module.add_module("dk", nn.ModuleDict())
    module.__dict__["_dk_sites"][slot] = attachment
    module._modules["dk"][slot] = child  # type: ignore[index, operator]
    return [Undo(_detach_slot_, (module, slot, before))]


def _detach_slot_(module: nn.Module, slot: str, before: type) -> None:
    del module.__dict__["_dk_sites"][slot], module._modules["dk"][slot]  # type: ignore[index]
    if not module.__dict__["_dk_sites"]:
        module.__class__ = before
        del module._modules["dk"], module.__dict__["_dk_sites"], module.__dict__["_dk_running"]
