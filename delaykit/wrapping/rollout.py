"""Run one recurrent neuron over a whole sequence: fused where its equations are known, step by step elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.adapters.norse.adapter import CarriedCell
from delaykit.attaching.adapter import Neuron
from delaykit.attaching.connections import Attachment
from delaykit.attaching.histories import RootScope
from delaykit.attaching.loop import RecurrentLoop
from delaykit.engines.decay import Decaying
from delaykit.engines.dropout import draw_mask
from delaykit.errors import ConfigError, ShapeError
from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.recurrence.connection import Connection
from delaykit.functional.recurrence.decay import Fading
from delaykit.functional.recurrence.operator import rollout as fused_rollout
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents
from delaykit.interfaces import Delay, PointDelay
from delaykit.planning.survey import adapters
from delaykit.synapse import Engine, Product, Synapse


def rollout(neuron: nn.Module, currents: Tensor, recurrent_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run a recurrent neuron, wrapped or bare, over a whole sequence that starts from rest.

    Equal to calling the neuron step by step from a fresh state, but with one hand-written adjoint for the LIF family
    (snnTorch ``Leaky``, ``RLeaky``, ``Synaptic``, ``RSynaptic``; Norse LIF, LIFBox and LI): one matrix product a step,
    memory for spikes and membrane only, cost independent of delays and spread. Other neurons run step by step.

    Args:
        neuron: a snnTorch neuron or Norse cell, with or without delays.
        currents: ``(time, batch, post)``, the neuron's input; for a Norse cell with input weights
            ``(time, batch, pre)``, its input spikes.
        recurrent_mask: ``(batch, post)``, factor on the recurrent current: recurrent dropout, one mask a sequence.
            None: drawn with the probability that the delay asks for, if any, in training.

    Returns:
        Spikes and membrane, both ``(time, batch, post)``. The neuron's own hidden state is left alone by the fused
        path.

    Raises:
        ConfigError: not a neuron that is called step by step.
        ShapeError: ``currents`` is not (time, batch, ...).

    Example:
        >>> import snntorch as snn
        >>> spikes, membrane = rollout(snn.RLeaky(beta=0.9, linear_features=4), torch.rand(10, 2, 4))
        >>> spikes.shape
        torch.Size([10, 2, 4])
    """
    found = _find(neuron)
    if currents.ndim < 3 or not currents.is_floating_point():
        raise ShapeError(
            "rollout", f"{currents.dtype} currents of shape {tuple(currents.shape)}", "floats (time, batch, post)"
        )
    parts = _parts(neuron)
    dynamics = found.adapter.dynamics(neuron)
    if dynamics is None or parts is None or currents.ndim != 3:
        if recurrent_mask is not None:
            raise ConfigError(
                "rollout", "recurrent_mask for a neuron that runs step by step", "a neuron of the LIF family"
            )
        return _step_by_step(found, currents)
    weight, bias, taps, drive, delay = parts
    if recurrent_mask is None and delay is not None and weight is not None:
        recurrent_mask = draw_mask(delay, torch.Size((currents.shape[1], weight.shape[0])), currents)
    if drive is not None:
        currents = _driven(currents, drive)
    own = None
    if isinstance(taps, Connection):
        if (done := taps.at_once(currents, bias, recurrent_mask, dynamics)) is not None:
            return done
        weight, taps, own = None, None, taps
    spikes, membrane, _ = fused_rollout(
        currents, weight, bias, taps, dynamics, recurrent_mask=recurrent_mask, connection=own
    )
    return spikes, membrane


def _find(neuron: nn.Module) -> Neuron:
    for adapter in adapters():
        _, found = adapter.find("", neuron)
        if found is not None and found.style == "step":
            return found
    kind = type(neuron).__name__
    raise ConfigError(
        "rollout", kind, "a snnTorch neuron or Norse cell that is called step by step", "pass the neuron, not the net"
    )


Drive = tuple[Tensor, Taps | None] | Engine
Reader = Taps | Tents | Fading | Connection | None
Parts = tuple[Tensor | None, Tensor | None, Reader, Drive | None, Delay | None]


def _parts(neuron: nn.Module) -> Parts | None:
    """Return recurrent weight, bias, taps, the input connection and the recurrent delay, if all are point delays."""
    try:
        if isinstance(child := neuron._modules.get("dk"), nn.ModuleDict) or hasattr(neuron, "input_weights"):
            return _norse_parts(neuron)
        if isinstance(child, RecurrentLoop):
            connection, off = child.connection, neuron.__dict__["_dk_loop"].off
            return connection.weight, connection.bias, *_recurrent(child.synapse, off, None, connection.weight)
        recurrent = getattr(neuron, "recurrent", None)
        if recurrent is None:
            return None, None, None, None, None
        if callable(own := getattr(recurrent, "rollout_connection", None)):
            return None, getattr(recurrent, "bias", None), own(), None, None
        if not isinstance(recurrent, nn.Linear):
            return None
        attachment: Attachment | None = recurrent.__dict__.get("_dk")
        if attachment is None and type(recurrent).forward is not nn.Linear.forward:
            return None  # nobody knows what a subclass does with its weight
        off = attachment is None or attachment.off
        return recurrent.weight, recurrent.bias, *_recurrent(None if off else recurrent.dk, off, None, recurrent.weight)
    except _NotFused:
        return None


def _norse_parts(neuron: Any) -> Parts:
    sites: dict[str, Attachment] = neuron.__dict__.get("_dk_sites", {}) if isinstance(neuron, CarriedCell) else {}

    drive = None
    if hasattr(neuron, "input_weights"):
        delayed = "input" in sites and not sites["input"].off
        drive = _drive(neuron.input_weights, neuron.dk["input"]) if delayed else (neuron.input_weights, None)
        if delayed and (delay := neuron.dk["input"].delay) is not None and delay.training and delay.dropout > 0:
            raise _NotFused
    if "loop" in sites:
        loop = neuron.dk["loop"]
        weight, bias = loop.connection.weight, loop.connection.bias
        return weight, bias, *_recurrent(loop.synapse, sites["loop"].off, drive, weight)
    off = "recurrent" not in sites or sites["recurrent"].off
    synapse = None if off else neuron.dk["recurrent"]
    weight = getattr(neuron, "recurrent_weights", None)
    return weight, None, *_recurrent(synapse, off, drive, weight)


def _drive(weight: Tensor, synapse: Synapse) -> Drive:
    if synapse.heterogeneity is None:
        return weight, _taps(synapse)
    product = lambda x: nn.functional.linear(x, weight)  # noqa: E731
    return synapse.engine(Product(product, product, weight, None))


def _driven(currents: Tensor, drive: Drive) -> Tensor:
    if isinstance(drive, Engine):
        return drive.sequence(currents)
    weight, taps = drive
    return nn.functional.linear(currents, weight) if taps is None else delayed_linear(currents, weight, taps, None)


def _fading(synapse: Synapse, weight: Tensor) -> Fading:
    """Return how currents linger on a recurrent connection without delays."""
    part = synapse.heterogeneity
    assert part is not None
    if synapse.delay is not None or part.engine(weight, None, None) is not None:
        raise _NotFused
    synapse.check()
    p = Decaying(part, synapse.delay, weight, None)
    return Fading(p.decay.expand_as(weight), weight * (p.decay if p.leak is None else p.decay - p.leak))


def _recurrent(
    synapse: Any, off: bool, drive: Drive | None, weight: Tensor | None = None
) -> tuple[Reader, Drive | None, Delay | None]:
    if off:
        return None, drive, None
    delay = synapse.delay
    if synapse.heterogeneity is not None and weight is not None:
        return _fading(synapse, weight), drive, delay
    own = None if delay is None or synapse.heterogeneity is not None else delay.rollout_connection()
    return own or _sparsest(synapse), drive, delay


class _NotFused(Exception):
    """The parts are more than a point delay: run step by step."""


def _taps(synapse: Synapse) -> Taps | None:
    delay = _point_delay(synapse)
    return None if delay is None else delay.taps()


def _sparsest(synapse: Synapse) -> Taps | Tents | None:
    """Return the form that a rollout of synapses runs fastest on."""
    delay = _point_delay(synapse)
    if delay is None or delay.estimator != "interp":
        return None if delay is None else delay.taps()
    kernel, delays = delay.kernel(), delay.delays()
    return kernel.tents(delays) or kernel.taps(delays)


def _point_delay(synapse: Synapse) -> PointDelay | None:
    delay = synapse.delay
    if synapse.heterogeneity is not None:
        raise _NotFused
    if delay is None:
        return None
    if not isinstance(delay, PointDelay) or delay.estimator == "exact":
        raise _NotFused
    synapse.check()
    return delay


def _step_by_step(found: Neuron, currents: Tensor) -> tuple[Tensor, Tensor]:
    neuron: Any = found.module
    scopes = _scopes(neuron)
    for scope in scopes:
        scope.enter()
    failed = True
    try:
        spikes, membranes = [], []
        if found.follows:
            neuron.reset_mem()
            for current in currents:
                output = neuron(current)
                spikes.append(output if isinstance(output, Tensor) else output[0])
                membranes.append(neuron.mem)
        else:
            state = None
            for current in currents:
                output, state = neuron(current, state)
                spikes.append(output)
                inner: Any = getattr(state, "lif", state)
                membranes.append(inner.v)
        failed = False
        return torch.stack(spikes), torch.stack(membranes)
    finally:
        for scope in scopes:
            scope.leave(failed)


def _scopes(neuron: nn.Module) -> list[RootScope]:
    """List the wrapped roots that the connections of a neuron belong to."""
    own = [m.__dict__[key] for m in neuron.modules() for key in ("_dk", "_dk_loop") if key in m.__dict__]
    return list({id(a.scope): a.scope for a in own}.values())
