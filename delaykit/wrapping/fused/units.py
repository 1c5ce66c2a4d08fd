"""The units of a model that can answer from a whole sequence: connections, neurons, and layers without memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm

from delaykit.attaching.adapter import Neuron
from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.calls import sequence_connection
from delaykit.attaching.connection.mixins import CarriedConnection, DelayedConnection
from delaykit.attaching.connection.products import CONVOLUTIONS, channel_space, product_of
from delaykit.attaching.history.beginnings import Ends
from delaykit.attaching.retyping import has_mixin, original_class
from delaykit.attaching.wiring import wiring_of
from delaykit.functional.delayed_linear.product import linear
from delaykit.planning.survey import adapters
from delaykit.synapse import Synapse
from delaykit.wrapping.fused.graph import NotAhead

WITHOUT_MEMORY = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.ELU,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d,
    nn.BatchNorm2d, nn.BatchNorm3d, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ZeroPad2d, nn.Upsample,
)  # fmt: skip
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One module that may answer from a sequence.

    Args:
        path: where it is in the model.
        module: the module.
        kind: what the report calls it.
    """

    path: str
    module: nn.Module
    kind: str

    @property
    def obstacle(self) -> str:
        """Why it only runs step by step as it stands now, or ``""``."""
        return self.bar

    @property
    def bar(self) -> str:
        """The part of :attr:`obstacle` that is asked at every run."""
        module = self.module
        if module._backward_hooks or module._backward_pre_hooks:
            return "it has backward hooks"
        if module.training and any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()):
            return "spectral_norm changes its weight at every step"
        return ""


class Layer(Unit):
    """A layer without memory: pooling, flattening, normalisation in evaluation."""

    @property
    def bar(self) -> str:
        module: Any = self.module
        if isinstance(module, BATCH_NORMS) and (module.training or module.running_mean is None):
            return "it normalises every step by that step's own statistics"
        if isinstance(module, DROPOUTS) and module.training and module.p > 0:
            return "it draws a new mask at every step"
        return super().bar

    def sequence(self, inputs: Tensor) -> Tensor:
        """Run all steps ``(time, ...)`` at once."""
        base = type(self.module).forward
        return torch.vmap(lambda step: base(self.module, step))(inputs)


class ConnectionUnit(Unit):
    """A Linear or a convolution, wrapped or bare."""

    @property
    def attachment(self) -> Attachment | None:
        """Return what hangs beside it if it is wrapped and switched on."""
        wiring = wiring_of(self.module)
        attachment = None if wiring is None else wiring.sites.get("")
        return None if attachment is None or attachment.off else attachment

    @property
    def carried(self) -> bool:
        """Tell whether it is called with a state and returns one."""
        return has_mixin(self.module, CarriedConnection)

    @property
    def obstacle(self) -> str:
        attachment, synapse = self.attachment, self.module._modules.get("dk")
        if attachment is not None and isinstance(synapse, Synapse):
            if attachment.timing.time_dim is not None:
                return "it is fed whole sequences already"
            if synapse.delay is not None and synapse.delay.estimator == "exact":
                return "its gradients follow single events"
        return super().obstacle

    def sequence(self, inputs: Tensor) -> Tensor:
        """Run all steps ``(time, batch, pre, *space)`` at once, from silence."""
        module, attachment = self.module, self.attachment
        if attachment is not None:
            base = super(DelayedConnection, module).forward  # type: ignore[misc]
            product = (attachment.product or product_of)(module, base)
            history, ends = attachment.history, Ends()
            output = sequence_connection(module.dk, attachment.where, product, inputs, 0, ends)  # type: ignore[arg-type]
            history.ahead = ends.last[0]
            return output
        base, space = original_class(module).forward, channel_space(module)
        if isinstance(module, nn.Linear) and base is nn.Linear.forward:
            return linear(inputs, module.weight, module.bias)
        if not space or inputs.ndim == space + 2:
            return base(module, inputs)
        output = base(module, inputs.flatten(0, 1))
        return output.unflatten(0, inputs.shape[:2])


class NeuronUnit(Unit):
    """A neuron that is called step by step."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__(neuron.path, neuron.module, original_class(neuron.module).__name__)
        object.__setattr__(self, "neuron", neuron)

    neuron: Neuron

    @property
    def obstacle(self) -> str:
        wiring = wiring_of(self.module)
        if wiring is not None and wiring.exact is not None:
            return "its gradients follow single events"
        adapter = self.neuron.adapter
        if adapter.dynamics(self.module) is None:
            return f"delaykit runs {self.kind} as it is here step by step only"
        if adapter.fused_parts(self.module) is None:
            return "its recurrent connection runs step by step only"
        return super().obstacle


def units_of(net: nn.Module) -> dict[str, Unit]:
    """Find the units of a model by path; a module with several names is found under its first one."""
    found: dict[str, Unit] = {}
    inside: list[str] = []
    known = adapters()
    for path, module in net.named_modules():
        if not path or any(path.startswith(outer) for outer in inside) or "forward" in vars(module):
            continue
        unit = _unit(path, module, known)
        if unit is not None:
            found[path] = unit
            inside.append(path + ".")
    return found


def _unit(path: str, module: nn.Module, known: list[Any]) -> Unit | None:
    for adapter in known:
        neuron = adapter.find(path, module)[1]
        if neuron is not None:
            return NeuronUnit(neuron) if neuron.style == "step" else None
    cls = original_class(module)
    if cls is nn.Linear or cls in CONVOLUTIONS:
        return ConnectionUnit(path, module, cls.__name__)
    return Layer(path, module, cls.__name__) if cls in WITHOUT_MEMORY else None


def refuse_autocast(tensor: Tensor) -> None:
    """Raise under autocast, where single steps round elsewhere than whole sequences."""
    if torch.is_autocast_enabled(tensor.device.type):
        raise NotAhead("autocast rounds single steps elsewhere than whole sequences")
