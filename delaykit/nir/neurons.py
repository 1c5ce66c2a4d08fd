r"""Neurons, there and back: the leaky integrator of :class:`~delaykit.functional.dynamics.LIFDynamics` as NIR nodes.

NIR's equations are read by Euler steps of dt, as its simulators do. ``tau dv/dt = v_leak - v + R I`` becomes

    v_t = (1 - dt/tau) v_{t-1} + (dt/tau) (v_leak + R I_t),     so  tau = dt / (1 - beta),  R = gain / (1 - beta)

and a synaptic current ``w_in = 1 / (1 - alpha)``. A spike is ``v > v_threshold``, and sets v to ``v_reset`` in its own
step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from delaykit.attaching.retyping import original_class
from delaykit.errors import ConfigError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.nir.values import nir_package, real

SUBTRACT = "subtract"
CONSTANTS = {
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "LI": ("tau", "r", "v_leak"),
    "IF": ("r", "v_threshold", "v_reset"),
    "I": ("r",),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
}
DELAYED = (
    "a neuron that is reset in the step after its spike",
    "a reset in the spike's own step, as NIR's neurons do it",
    "train with reset_delay=False (snnTorch's default is True), e.g. snn.Leaky(beta, reset_mechanism='zero', "
    "reset_delay=False)",
)


def refuse_neuron(where: str, module: nn.Module, dynamics: LIFDynamics | None, subtract: bool) -> None:
    """Raise for a neuron that no node of NIR describes.

    Args:
        where: its path.
        module: the neuron.
        dynamics: what its adapter says of it.
        subtract: whether the importer knows the reset by subtraction.
    """
    kind = original_class(module).__name__
    if dynamics is None:
        found = f"{kind}, which is no plain leaky integrator"
        known = "Leaky, RLeaky, Synaptic, RSynaptic of snnTorch, LIF, LIFBox, LI of Norse, or another adapter's LIF"
        raise ConfigError(where, found, known, "use one of them without graded spikes, quantisation or inhibition")
    if not dynamics.spiking or dynamics.reset == "none":
        return
    if dynamics.reset_when == "next":
        raise ConfigError(where, f"{kind}: {DELAYED[0]}", *DELAYED[1:])
    if dynamics.reset == SUBTRACT and not subtract:
        found = f"{kind}, from whose membrane a spike subtracts the threshold"
        fix = "train with reset_mechanism='zero', or pass reset='subtract' where the importer can be told so "
        fix += "(sc-neurocore: reset_mode='subtract'; dk.from_nir reads it from the metadata)"
        raise ConfigError(where, found, "a reset to a value: NIR's neurons know no other", fix)


def node_of(where: str, dynamics: LIFDynamics, shape: tuple[int, ...], dt: float) -> list[Any]:
    """Write a neuron as one node, or as two where it spikes and is never reset (``LI`` -> ``Threshold``).

    Args:
        where: its path.
        dynamics: what it computes.
        shape: of its features.
        dt: seconds a step.

    Raises:
        ConfigError: constants that no node can hold.
    """
    nir = nir_package()
    value = {name: _numbers(getattr(dynamics, name), shape) for name in _NAMES}
    leak = 1.0 - value["decay"]
    integrates = not leak.any()
    if not integrates and not (leak > 0).all():
        raise ConfigError(where, "neurons of which only some leak", "all or none", "give them decays below 1")
    rest = value["offset"] if integrates else value["offset"] / leak
    if np.abs(rest - value["rest"]).max() > 1e-6 * max(1.0, float(np.abs(rest).max())):
        fix = "subtract v_leak from what the graph begins with, or start it at rest"
        raise ConfigError(where, "a membrane that does not begin at rest", "v = v_leak at the beginning", fix)
    common: dict[str, Any] = {"metadata": {"module": where}}
    spikes = dynamics.spiking and dynamics.reset != "none"
    if spikes:
        common |= {"v_threshold": value["threshold"], "v_reset": value["reset_value"]}
        common["metadata"]["reset"] = "subtract" if dynamics.reset == SUBTRACT else "value"
    if integrates:
        if dynamics.synapse_decay is not None or not spikes or rest.any():
            raise ConfigError(where, "an integrator that never forgets", "a decay below 1", "lower beta")
        return [nir.IF(r=value["gain"] / dt, **common)]
    common |= {"v_leak": rest}
    tau, r = dt / leak, value["gain"] / leak
    if dynamics.synapse_decay is None:
        kind = nir.LIF if spikes else nir.LI
        nodes = [kind(tau=tau, r=r, **common)]
    else:
        fade = 1.0 - value["synapse_decay"]
        if not (fade > 0).all():
            raise ConfigError(where, "a synaptic current that never fades", "a decay below 1", "lower alpha")
        kind = nir.CubaLIF if spikes else nir.CubaLI
        nodes = [kind(tau_mem=tau, tau_syn=dt / fade, r=r, w_in=1.0 / fade, **common)]
    return nodes if spikes or not dynamics.spiking else [*nodes, nir.Threshold(value["threshold"])]


_NAMES = ("decay", "synapse_decay", "gain", "offset", "threshold", "reset_value", "rest")


def _numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    tensor = torch.as_tensor(0.0 if value is None else value, dtype=torch.float64).detach().cpu()
    if tensor.dim() == 1 and len(shape) > 1 and tensor.numel() > 1:
        tensor = tensor.reshape(-1, *[1] * (len(shape) - 1))  # one a channel
    return torch.broadcast_to(tensor.reshape(()) if tensor.numel() == 1 else tensor, shape).numpy().copy()


class Spike(torch.autograd.Function):
    """``x > 0`` forward, ``1 / (1 + |x|)^2`` backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: D102
        (x,) = ctx.saved_tensors
        return gradient / (1.0 + x.abs()) ** 2


class Neuron(nn.Module):
    """A neuron read from a graph, stepped as ``output, state = neuron(input, state)``; a state of None begins.

    Args:
        dynamics: its equations; each number ``(1,)`` or one a neuron, flat.
        shape: of its features.
    """

    def __init__(self, dynamics: LIFDynamics, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.dynamics, self.shape = dynamics, shape

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Step once: spikes, or the membrane of an integrator without threshold."""
        drive = input.reshape(input.shape[0], -1)
        spikes, after = self.dynamics.step(drive, self.dynamics.start(drive) if state is None else state)
        return (spikes if self.dynamics.spiking else after[1]).reshape(input.shape), after

    def extra_repr(self) -> str:
        kind = "spiking" if self.dynamics.spiking else "readout"
        return f"{'x'.join(map(str, self.shape))} {kind}, reset {self.dynamics.reset}"


def read_neuron(where: str, node: Any, dt: float, subtract: bool) -> Neuron:
    """Read a node of NIR as a neuron.

    Args:
        where: its name in the graph.
        node: ``LIF``, ``LI``, ``IF``, ``I``, ``CubaLIF`` or ``CubaLI``.
        dt: seconds a step.
        subtract: whether a spike subtracts the threshold instead of setting ``v_reset``.

    Raises:
        ConfigError: a constant that is missing, not finite or of another shape than the others; a time constant
            shorter than a step.
    """
    kind = type(node).__name__
    value, shape = _constants(where, node, CONSTANTS[kind])
    options: dict[str, Any] = {"reset": "none", "reset_when": "same", "synapse_state_decayed": True}
    if kind in ("I", "IF"):
        options |= {"decay": 1.0, "gain": value["r"] * dt}
    else:
        leak = _rate(where, dt, value["tau" if "tau" in value else "tau_mem"])
        options |= {"decay": 1.0 - leak, "gain": leak * value["r"], "offset": leak * value["v_leak"]}
        options["rest"] = value["v_leak"]
    if "tau_syn" in value:
        fade = _rate(where, dt, value["tau_syn"])
        options |= {"synapse_decay": 1.0 - fade, "gain": options["gain"] * fade * value["w_in"]}
    if "v_threshold" in value:
        options |= {"threshold": value["v_threshold"], "surrogate": Spike.apply}
        options |= {"reset": "subtract" if subtract else "zero", "reset_value": value["v_reset"]}
    if not all(bool(torch.as_tensor(options[key]).isfinite().all()) for key in ("gain", "offset") if key in options):
        found, fix = "constants whose product is too large for a number", "correct the node's constants"
        raise ConfigError(where, found, "r, w_in, v_leak within reason", fix)
    return Neuron(LIFDynamics(**options), shape)


def _constants(where: str, node: Any, names: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Return the constants of a node, flat, and the shape that all of them have."""
    value = {name: real(f"{where}.{name}", getattr(node, name, None)) for name in names}
    shape = tuple(value[names[0]].shape)
    for name, found in value.items():
        if tuple(found.shape) != shape and not (name == "w_in" and found.numel() == 1):
            expected = f"{shape}, as {names[0]} has it"
            raise ConfigError(f"{where}.{name}", f"shape {tuple(found.shape)}", expected, "give each neuron one value")
    return {name: found.reshape(-1) for name, found in value.items()}, shape


def _rate(where: str, dt: float, tau: Tensor) -> Tensor:
    """Return what a state forgets in a step."""
    rate = dt / tau
    if not bool(((rate > 0) & (rate <= 1 + 1e-12)).all()):
        raise ConfigError(where, f"a time constant of {float(tau.min() / dt):.3g} steps", "one step or more",
                          "pass another dt_ms")  # fmt: skip
    return rate
