"""Everyday controls of a wrapped model: reset, detach, disabled, status."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from delaykit import checks
from delaykit.attaching.attachment import Attachment
from delaykit.attaching.clocks import emptied_by
from delaykit.attaching.neuron_mixins import part_at
from delaykit.attaching.trial_runs import in_trial_run
from delaykit.attaching.wiring import wiring_of
from delaykit.errors import ConfigError, HistoryError
from delaykit.interfaces import PointDelay
from delaykit.synapse import Synapse
from delaykit.tables import text_table
from delaykit.time_constants import NeuronDecays

NEARLY_ALL = 0.9  # share of delays at a bound that is worth a note
NEAR = 0.01  # of the largest delay: as good as at the bound


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """One wrapped connection as it stands in a model.

    Args:
        name: site name.
        synapse: its parts.
        attachment: its timing and history.
        weight: its weight as the parts see it, or None.
        holder: the module that holds the weight.
        parameter: the weight's name there.
    """

    name: str
    synapse: Synapse
    attachment: Attachment
    weight: Tensor | None
    holder: nn.Module
    parameter: str = "weight"

    @property
    def kept(self) -> int | None:
        """Count the synapses that are not zero; None where the connection has no weight of its own."""
        delay = self.synapse.delay
        if self.weight is None or (delay is not None and delay.holds_weight):
            return None
        return int(torch.count_nonzero(self.weight))


def wrapped_sites(net: nn.Module) -> list[Wrapped]:
    """List the wrapped connections of a model or of a part of it.

    Args:
        net: a wrapped model, or a part of one.

    Raises:
        ConfigError: there are none, and no neuron with :class:`TimeConstants` either, but for a plan's example run.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
        >>> [(site.name, type(site.synapse.delay).__name__, site.kept) for site in dk.wrapped_sites(net)]
        [('0', 'FreeDelayModule', 4)]
    """
    checks.is_model("model", net)
    found = [_wrapped(m, slot, a) for m in net.modules() if (w := wiring_of(m)) for slot, a in w.sites.items()]
    if not found and not neuron_decays(net) and not in_trial_run():  # an example may reset the model that it is for
        raise ConfigError(
            "model", "no wrapped connection", "a model given to dk.wrap_", "call dk.wrap_(net, rules, example=...)"
        )
    return found


def neuron_decays(net: nn.Module) -> list[NeuronDecays]:
    """List what :class:`delaykit.TimeConstants` gave to the neurons of a model or of a part of it."""
    return [module for module in net.modules() if isinstance(module, NeuronDecays)]


def _wrapped(module: nn.Module, slot: str, attachment: Attachment) -> Wrapped:
    synapse, loop = part_at(module, slot)
    module = module if loop is None else loop.connection
    weight = getattr(module, attachment.parameter, None)
    return Wrapped(attachment.where, synapse, attachment, weight, module, attachment.parameter)


def reset(net: nn.Module, rows: Tensor | Sequence[bool] | NDArray[np.bool_] | None = None) -> None:
    """Clear every delay history, or some rows of it: the next step begins a new sequence.

    Needed before each sequence for sites with ``reset='manual'``; harmless for all others. Membranes are the neurons'
    own business: reset them as you did before. Histories of Norse cells ride in the state: pass ``None`` there.

    Args:
        net: a wrapped model, a part of it, or one connection.
        rows: bools ``(batch,)``, a tensor, a numpy array or a list, true for the rows of the batch that begin anew,
            such as environments whose episode has ended; None for all. They are rows of the neurons' states, and of a
            single connection (``dk.reset(net.fc, rows=...)``) those of the first dimension of its input. Set the rows
            of a state that you carry to zero (or its rest) instead, and reset the connections beside it so.

    Raises:
        ConfigError: ``rows`` is no such mask.
        HistoryError: ``rows`` does not fit the batch, the rows of a connection's input are others than its neuron's,
            or a history rides in a state.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=1), reset="manual")})
        >>> first = net(torch.ones(1, 2))
        >>> dk.reset(net)
        >>> bool(torch.equal(net(torch.ones(1, 2)), first))  # nothing is left of the step before
        True
    """
    sites = wrapped_sites(net)
    if rows is None:
        for site in sites:
            site.attachment.history.clear()
            site.attachment.history.lost = False
            for neuron in (*site.attachment.history.neurons, site.attachment.watch):
                if neuron is not None:
                    neuron.asked.forget()
        for module in net.modules():
            if (wiring := wiring_of(module)) is None:
                continue
            for part in (wiring.carried, wiring.dropped):
                if part is not None:
                    part.forget()
        return
    rows = _mask(rows)
    carried = [site.name for site in sites if site.attachment.timing.policy == "carried"]
    if carried:
        fix = "torch.utils._pytree.tree_map(lambda v: v * ~rows.view(-1, *[1] * (v.dim() - 1)), state)"
        found = f"rows= for {', '.join(carried)}, whose histories ride in the state that you carry"
        others = [f"dk.reset(net.{site.name}, rows=...)" for site in sites if site.name not in carried]
        fix += f"; and {', '.join(others)} for the lines that do not" if others else ""
        raise HistoryError("reset", found, "rows of that state set to zero, or to its rest", fix)
    own = wiring_of(net)
    if own is not None and "" in own.sites:  # of one connection, by itself: its own rows
        own.sites[""].history.clear_own_rows(rows)
        return
    for site in sites:
        site.attachment.history.fit_mask(rows)
    for site in sites:
        site.attachment.history.clear_rows(rows)


def _mask(rows: Any) -> Tensor:
    given = np.asarray(rows) if isinstance(rows, (list, tuple)) else rows
    mask = torch.from_numpy(given) if isinstance(given, np.ndarray) and given.dtype == np.bool_ else given
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim == 1:
        return mask
    shaped = isinstance(given, (Tensor, np.ndarray))
    found = f"{given.dtype} of shape {tuple(given.shape)}" if shaped else checks.shown(rows)
    raise ConfigError("reset rows", found, "bools, (batch,)", "e.g. rows=done != 0")


def detach(net: nn.Module) -> None:
    """Cut the graph of every delay history and keep the remembered spikes (truncated BPTT).

    Needed between segments for sites with ``reset='manual'``; sites that follow a neuron do it when their neuron's
    membrane was detached.

    Args:
        net: a wrapped model.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=1), reset="manual")})
        >>> for segment in torch.ones(6, 1, 2).split(3):
        ...     dk.detach(net)
        ...     sum(net(step).sum() for step in segment).backward()
    """
    for site in wrapped_sites(net):
        site.attachment.history.detach()


@contextlib.contextmanager
def disabled(net: nn.Module) -> Iterator[None]:
    """Run the model bare, without delays, time constants or histories; enabled again afterwards.

    A recurrent connection that :class:`delaykit.Recurrent` added stays, at its natural latency of one step.

    Args:
        net: a wrapped model.

    Raises:
        ConfigError: a part of the synapse holds the weights: without it the connection has none.
        HistoryError: a sequence goes on behind the block that had spikes under way before it (raised by its next step).

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
        >>> with dk.disabled(net):
        ...     y = net(torch.ones(1, 2))
    """
    sites = wrapped_sites(net)
    gone = [s.name for s in sites if s.synapse.delay is not None and s.synapse.delay.holds_weight]
    if gone:
        found = f"compact connections ({', '.join(gone)})"
        raise ConfigError("disabled", found, "modules with weights of their own", "run a copy made before compact_")
    before = [site.attachment.off for site in sites]
    decays = [(part, part.off) for part in neuron_decays(net)]
    for part, _ in decays:
        part.off = True
    for site in sites:
        site.attachment.off = True
        site.attachment.history.forsake("behind a dk.disabled block")
    try:
        yield
    finally:
        for part, off in decays:
            part.off = off
        for site, off in zip(sites, before, strict=True):
            site.attachment.off = off
            site.attachment.history.forsake("behind a dk.disabled block")


@dataclasses.dataclass(frozen=True)
class SiteStatus:
    """One line of :func:`status`.

    Args:
        name: site name.
        components: what is attached.
        trainable: number of trainable parameters the components hold.
        density: fraction of non-zero weights, None where there is no weight.
        reset: reset policy.
        weights: number of weights, None where there is none.
        kept: number of non-zero weights.
        delays: a copy of the delays in steps, any shape; None without a point delay.
        emptied_by: the events that empty its line.
        note: what is odd about its delays, such as nearly all of them at a bound; empty if nothing is.
    """

    name: str
    components: str
    trainable: int
    density: float | None
    reset: str
    weights: int | None = None
    kept: int | None = None
    delays: Tensor | None = dataclasses.field(default=None, compare=False, repr=False)
    emptied_by: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """State of a wrapped model; printing it shows a table.

    Args:
        sites: one line for each wrapped connection, and each state of a neuron with learned time constants.
    """

    sites: tuple[SiteStatus, ...]

    @property
    def delays(self) -> dict[str, Tensor]:
        """Copies of the delays in steps, by site name."""
        return {site.name: site.delays for site in self.sites if site.delays is not None}

    def __str__(self) -> str:
        rows = [("site", "components", "trainable", "density", "kept", "reset", "emptied by")]
        for s in self.sites:
            density = "-" if s.density is None else f"{s.density:.2f}"
            kept = "-" if s.kept is None else f"{s.kept}/{s.weights}"
            rows.append((s.name, s.components, str(s.trainable), density, kept, s.reset, s.emptied_by))
        return "\n".join([text_table(rows), *(f"note: {s.name}: {s.note}" for s in self.sites if s.note)])


def status(net: nn.Module) -> Status:
    """Report every wrapped connection: components, delays now, trainable parameters, density, reset policy.

    Neurons with :class:`TimeConstants` have a line for each state.

    Args:
        net: a wrapped model.

    Returns:
        A table when printed; ``status(net).delays["fc1"]`` is a copy of that connection's delays in steps.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=1.5), reset="manual")})
        >>> print(dk.status(net))
        site  components                                       trainable  density  kept  reset   emptied by
        0     axonal delays 1.5..1.5 steps, mean 1.5, learned  2          1.00     4/4   manual  dk.reset
        >>> dk.status(net).delays["0"]
        tensor([[1.5000, 1.5000]])
    """
    rows = []
    for site in wrapped_sites(net):
        parts = [p.extra_repr() for p in (site.synapse.delay, site.synapse.heterogeneity) if p is not None]
        parts[:1] = [part + _in_ms(site) for part in parts[:1]]
        parts += [type(p).__name__ for p in site.synapse.prunings]
        kept, weights = site.kept, None if site.weight is None else site.weight.numel()
        density = kept / weights if weights and kept is not None else None
        trainable = sum(p.numel() for p in site.synapse.parameters() if p.requires_grad)
        timing = site.attachment.timing
        when = "whole sequences" if timing.time_dim is not None else timing.policy
        delay = site.synapse.delay
        delays = delay.delays().detach().clone() if isinstance(delay, PointDelay) else None
        watch = site.attachment.watch
        events = emptied_by(timing, None if watch is None else watch.path)
        rows.append(
            SiteStatus(
                site.name,
                "; ".join(parts) or "plain",
                trainable,
                density,
                when,
                weights,
                kept,
                delays,
                events,
                _collapsed(site),
            )  # fmt: skip
        )
    for part in neuron_decays(net):
        trainable = sum(p.numel() for p in part.parameters() if p.requires_grad)
        rows.append(SiteStatus(part.where, part.extra_repr(), trainable, None, "-", emptied_by="-"))
    return Status(tuple(rows))


def _in_ms(site: Wrapped) -> str:
    """Say a connection's delays in ms, too, where the library says how long a step is."""
    delay, dt = site.synapse.delay, site.synapse.site.dt_ms
    if dt is None or not isinstance(delay, PointDelay):
        return ""
    values = delay.delays().detach() * dt
    return f" = {float(values.min()):.1f}..{float(values.max()):.1f} ms"


def _collapsed(site: Wrapped) -> str:
    """Say if nearly all learned delays of a connection sit at 0, or at the largest allowed."""
    delay = site.synapse.delay
    if not isinstance(delay, PointDelay) or not any(p.requires_grad for p in delay.parameters()):
        return ""
    values = delay.delays().detach()
    largest = getattr(getattr(delay, "config", None), "max_delay", None)
    for bound, told in ((0.0, "0"), (largest, f"the maximum, {largest} steps")):
        if bound is None:
            continue
        near = ((values - bound).abs() <= NEAR * largest) if largest else values == bound
        share = float(near.double().mean())
        if share >= NEARLY_ALL:
            return f"{100 * share:.0f} % of its delays are at {told}: lower delay_lr, or let them start elsewhere"
    return ""
