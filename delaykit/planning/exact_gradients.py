"""Exact gradients in a plan: who listens to a connection, whose spikes it carries, and whether the rule holds there."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from delaykit.attaching.adapter import Neuron, Spot
from delaykit.attaching.attachment import Attachment
from delaykit.attaching.exact_gradients.currents import CurrentWatch, unwatch_, watch_
from delaykit.attaching.exact_gradients.listening_neuron import ListeningNeuron
from delaykit.attaching.neuron.driven_neuron import such_as
from delaykit.attaching.neuron.reported_numbers import dynamics_of
from delaykit.attaching.retyping import Undo, original_class
from delaykit.attaching.wiring import wire_
from delaykit.engines.exact_gradients import INTERP, refuse_exact
from delaykit.errors import ConfigError, PluginError
from delaykit.planning.survey import primary
from delaykit.planning.trace import Trace
from delaykit.synapse import Synapse

FITS = "plain leaky neurons with a synaptic current"


def sources(spot: Spot, trace: Trace | None, spots: list[Spot]) -> tuple[str, ...]:
    """Return the paths of the neurons whose spikes a connection carried in the example; none where that was data."""
    if spot.recurrent and spot.owner is not None:
        return (spot.owner,)
    if trace is None:
        return ()
    calls = trace.sites.get(primary(spot, spots).name, []) if spot.owner is None else trace.neurons.get(spot.owner, [])
    return tuple(sorted({path for call in calls for kind, path, _ in call.tags if kind == "state"}))


def check_exact(
    synapse: Synapse, drives: tuple[str, ...], sources: tuple[str, ...], neurons: Mapping[str, Neuron]
) -> None:
    """Raise where exact gradients are asked for and do not apply, before anything is touched.

    Args:
        synapse: built for a look.
        drives: paths of the neurons that hear the connection.
        sources: paths of the neurons whose spikes it carries.
        neurons: neurons of the model by path.

    Raises:
        ConfigError: no neuron listens or several do, one at either end has no synaptic current or no known rule, or the
            synapse has parts that do not go with it.
    """
    refuse_exact(synapse.site, synapse.delay, synapse.heterogeneity)
    if not is_exact(synapse):
        return
    where, site = synapse.site.name, synapse.site
    if len(drives) != 1:
        found = f"estimator='exact' on a connection that drives {', '.join(map(repr, drives)) or 'no known neuron'}"
        fix = f"pass example= if there was none, or {INTERP}"
        raise ConfigError(where, found, "one neuron with a synaptic current behind it", fix)
    for path in dict.fromkeys((*drives, *sources)):
        neuron = neurons[path]
        reason = neuron.adapter.exact_refusal(neuron.module, path in sources)
        if reason:
            side = "into" if path in drives else "from"
            kind = original_class(neuron.module).__name__
            found = f"estimator='exact' on a connection {side} neuron {path!r} ({kind}): {reason}"
            expected = f"at both ends {FITS}{such_as(type(neuron.adapter), 'exact_')}"
            raise ConfigError(where, found, expected, INTERP)
    dynamics = dynamics_of(neurons[drives[0]].adapter, neurons[drives[0]].module)
    if dynamics is None or dynamics.synapse_decay is None:
        raise _half_exact(neurons[drives[0]], "dynamics", "no synapse_decay of it")
    sizes = {torch.as_tensor(value).numel() for value in (dynamics.decay, dynamics.synapse_decay)}
    if not sizes <= {1, site.post if site.has_matrix else 1}:
        found = f"estimator='exact' before {max(sizes)} neurons with time constants of their own"
        raise ConfigError(where, found, f"one pair, or {site.post} pairs behind a weight matrix", INTERP)


def _half_exact(neuron: Neuron, method: str, found: str) -> PluginError:
    where = f"adapter {neuron.adapter.name!r}, {type(neuron.adapter).__name__}.{method}()"
    expected = "dynamics() and exact_(), which calls make_exact_(), of each neuron that exact_refusal() lets through"
    return PluginError(where, f"{found}, for a {original_class(neuron.module).__name__}", expected, "mend the adapter")


def is_exact(synapse: Synapse) -> bool:
    """Tell whether a synapse's delay asks for exact gradients."""
    return synapse.delay is not None and synapse.delay.estimator == "exact"


def _forget_(attachments: list[Attachment], attachment: Attachment) -> None:
    attachments[:] = [one for one in attachments if one is not attachment]


def attach_exact_(
    synapse: Synapse,
    attachment: Attachment,
    drives: tuple[str, ...],
    sources: tuple[str, ...],
    neurons: Mapping[str, Neuron],
) -> list[Undo]:
    """Show a connection its neuron, and give the neurons at both ends exact spikes and resets.

    Arguments as in :func:`check_exact`, which must have passed. Returns how to take it back.
    """
    undo: list[Undo] = []
    if not is_exact(synapse):
        return undo
    for path in dict.fromkeys((*drives, *sources)):
        neuron = neurons[path]
        dynamics = neuron.adapter.dynamics(neuron.module)
        if dynamics is not None and dynamics.spiking and dynamics.reset != "none":
            undo += neuron.adapter.exact_(neuron.module)
            exact = wire_(neuron.module).exact
            if exact is None:
                raise _half_exact(neuron, "exact_", "a neuron without a record of it")
            exact.attachments.append(attachment)
            undo.append(Undo(_forget_, (exact.attachments, attachment)))
    listener = neurons[drives[0]]
    masked = synapse.delay is not None and synapse.delay.dropout > 0
    watch_(listener.module, CurrentWatch(drives[0], masked))
    undo.append(Undo(unwatch_, (listener.module, drives[0])))
    synapse.listener = ListeningNeuron(listener.module, type(listener.adapter)(), bool(sources))
    return undo
