"""The plan: what will be done to which connection, decided before anything is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from delaykit.attaching.adapter import Neuron, Spot
from delaykit.attaching.clocks import Timing, emptied_by
from delaykit.attaching.connection.products import fan_in, refuse_hidden_product
from delaykit.attaching.neuron.driven_neuron import DrivenNeuron
from delaykit.errors import ConfigError, DelaykitError, PluginError, ShapeError, WrapError
from delaykit.interfaces import ComponentConfig, Site
from delaykit.planning import survey, timing
from delaykit.planning.exact_gradients import check_exact, sources
from delaykit.planning.late_delays import too_late
from delaykit.planning.modules_between import refuse_between
from delaykit.planning.reports import check_spot
from delaykit.planning.rules import Recurrent, select
from delaykit.planning.time_constants import ConstantsPlan, plan_constants
from delaykit.planning.trace import Trace, run_example
from delaykit.synapse import Synapse, introduce_
from delaykit.tables import text_table


@dataclasses.dataclass(frozen=True)
class SitePlan:
    """One site: where, what, and how it lives in time.

    Args:
        site: description of the connection.
        spot: where it is in the model.
        configs: components for it.
        timing: reset policy, time dimension and streams.
        follows: path of the neuron whose membrane it follows, or None.
        recurrent: the rule that makes a new recurrent connection, if this is one.
        drives: paths of all neurons that hear it; several where it is shared.
        sources: paths of the neurons whose spikes it carries; none where its input is data.
        beats: for neurons behind it, how often they step from one call of the connection to the next.
    """

    site: Site
    spot: Spot
    configs: tuple[ComponentConfig, ...]
    timing: Timing
    follows: str | None = None
    recurrent: Recurrent | None = None
    drives: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    beats: tuple[tuple[str, int], ...] = ()

    def row(self) -> tuple[str, ...]:
        """Return the cells of the printed plan."""
        mode = "whole sequences" if self.timing.time_dim is not None else f"reset: {self.timing.policy}"
        if self.timing.policy == "follow" and self.timing.time_dim is None:
            mode += f" {self.follows}"
        if self.timing.streams > 1:
            mode += f", {self.timing.streams} streams"
        parts = ", ".join(_short(c, self.site.dt_ms) for c in self.configs) or "plain"
        size = f"{self.site.pre} -> {self.site.post}"
        try:
            extra = f"{self.extra_parameters()}"
        except DelaykitError:
            extra = "-"  # it cannot be built, and the plan's issues say why
        heard = self.follows if self.follows is not None else next((path for path, each in self.beats if each), None)
        return self.site.name, size, self.site.neuron or "-", parts, extra, mode, emptied_by(self.timing, heard)

    def extra_parameters(self) -> int:
        """Count the parameters that the components add."""
        synapse = Synapse(self.site, self.configs, torch.Generator().manual_seed(0))
        return sum(p.numel() for p in synapse.parameters())


@dataclasses.dataclass(frozen=True)
class Plan:
    """What :func:`delaykit.wrap_` will do; printing it shows sites, components, reset policies and problems.

    Args:
        sites: one entry for each connection that gets components.
        issues: everything that stands in the way; ``wrap_`` raises them all at once.
        neurons: neurons of the model by path.
        constants: one entry for each state of a neuron that gets decays.
        warnings: what does not stand in the way and is worth a look, such as delays longer than the example.
    """

    sites: tuple[SitePlan, ...]
    issues: tuple[DelaykitError, ...] = ()
    neurons: Mapping[str, Neuron] = dataclasses.field(default_factory=dict, repr=False)
    constants: tuple[ConstantsPlan, ...] = ()
    warnings: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise :class:`~delaykit.errors.WrapError` with all issues, if there are any."""
        if self.issues:
            raise WrapError(list(self.issues))

    def __str__(self) -> str:
        head: tuple[str, ...] = ("site", "size", "neuron", "components", "new parameters", "in time", "emptied by")
        rows = [head, *(s.row() for s in self.sites), *(c.row() for c in self.constants)]
        told = [*(f"issue: {issue}" for issue in self.issues), *(f"warning: {one}" for one in self.warnings)]
        return "\n".join([text_table(rows), *told])


def plan(net: nn.Module, rules: Mapping[str, Any], example: Any = None) -> Plan:
    """Decide what wrapping ``net`` by ``rules`` would do; the model is left as it is, state and RNG included.

    Args:
        net: a model of snnTorch, Norse, another adapter's library or plain PyTorch modules.
        rules: ``{pattern: value}``; patterns are ``fnmatch`` patterns on connection names (``fc1``,
            ``rlif1.recurrent``, ``cell.input``), values a component, a tuple of components, :class:`At`, or
            :class:`Recurrent` or :class:`TimeConstants` (then the pattern is on neuron names).
        example: what one run of the model looks like: a batch, a tuple of arguments, or a callable without
            arguments that runs one sequence. Needed to find out where the time loop is.

    Returns:
        The plan. ``plan.issues`` lists every problem at once.

    Raises:
        PluginError: an adapter or a component answers wrongly.

    Example:
        >>> import torch, snntorch as snn, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True))
        >>> p = dk.plan(net, {"0": dk.FreeDelay("axonal")}, example=torch.zeros(1, 3))
        >>> p.sites[0].timing.policy
        'follow'
    """
    problems = survey.refuse_model(net)
    if problems:
        return Plan((), tuple(problems))
    spots, neurons = survey.survey(net)
    chosen, constants, problems = select(rules, [s.name for s in spots], list(neurons))
    problems += _quarrels(chosen, spots)
    trace, failure = _traced(net, example, spots, neurons)
    if failure is not None:
        problems.append(failure)
    sites: list[SitePlan] = []
    built: dict[tuple[int, str], Synapse] = {}
    by_name = {s.name: s for s in spots}
    for name, rule in chosen.items():
        try:
            if isinstance(rule, Recurrent):
                sites.append(_plan_recurrent(neurons[name], rule, trace, spots))
            else:
                sites.append(_plan_site(by_name[name], rule, trace, neurons, spots))
            built[id(sites[-1].spot.module), sites[-1].spot.slot] = _try_build(sites[-1], neurons, trace, spots)
        except timing.NeedsExample as error:
            if failure is None:  # else it was given, and why it failed has been said
                problems.append(error)
        except DelaykitError as error:
            problems.append(error)
    try:
        introduce_(net, list(built.values()))
    except DelaykitError as error:
        problems.append(error)
    entries, more = _all_constants(constants, neurons, trace, failure)
    problems += more
    for problem in problems:
        if isinstance(problem, PluginError):  # an adapter's or a component's, which no other rules would mend
            raise problem
    made = {entry.site.name: built.get((id(entry.spot.module), entry.spot.slot)) for entry in sites}
    return Plan(tuple(sites), tuple(problems), neurons, tuple(entries), tuple(too_late(sites, made, trace)))


def _all_constants(
    constants: Mapping[tuple[str, str], Any], neurons: Mapping[str, Neuron], trace: Trace | None, failure: Any
) -> tuple[list[ConstantsPlan], list[DelaykitError]]:
    entries: list[ConstantsPlan] = []
    problems: list[DelaykitError] = []
    for (path, _), config in constants.items():
        if failure is not None and config.per != "layer":
            continue  # why nobody knows the neurons has been said
        try:
            entries.append(plan_constants(neurons[path], config, trace))
        except DelaykitError as error:
            problems.append(error)
    return entries, problems


def _quarrels(chosen: Mapping[str, Any], spots: list[Spot]) -> list[DelaykitError]:
    """Find shared layers whose names were given different rules: none of them is the right one."""
    problems: list[DelaykitError] = []
    first: dict[tuple[int, str], str] = {}
    for spot in spots:
        if spot.name not in chosen:
            continue
        name = first.setdefault((id(spot.module), spot.slot), spot.name)
        if chosen[spot.name] != chosen[name]:
            fix = "name it once, or give all its names the same components and options"
            problems.append(ConfigError(spot.name, f"a rule that differs from that of {name!r}, the same layer under "
                                        "another name", "one rule for a shared layer", fix))  # fmt: skip
    return problems


def _traced(
    net: nn.Module, example: Any, spots: list[Spot], neurons: dict[str, Neuron]
) -> tuple[Trace | None, DelaykitError | None]:
    if example is None:
        return None, None
    try:
        return run_example(net, example, spots, list(neurons.values())), None
    except DelaykitError as error:
        return None, error
    except Exception as error:  # the user's model may raise anything
        found = f"{type(error).__name__}: {error}"
        fix = "pass a batch, a tuple of arguments, or a function that runs one sequence, as the bare model takes it"
        return None, ShapeError("example", found, "an example that the bare model runs", fix)


def _plan_site(spot: Spot, rule: Any, trace: Trace | None, neurons: dict[str, Neuron], spots: list[Spot]) -> SitePlan:
    survey.refuse_spot(spot)
    survey.refuse_own_forward(spot, trace)
    pre, post = survey.channels(spot, trace)
    calls = [] if trace is None else trace.sites.get(survey.primary(spot, spots).name, [])
    check_spot(spot, pre, post, calls)
    decision = timing.decide(spot, rule, trace, neurons, spots)
    drives, origins = timing.driven(spot, trace, spots), sources(spot, trace, spots)
    survey.refuse_ends(spot, [neurons[path] for path in drives])
    rows = timing.rows_of(spot, decision, drives, trace, neurons, spots)
    dt_ms = neurons[decision.neuron].dt_ms if decision.neuron is not None else None
    # A neuron that runs several layers is no population: what is named after it would be shared by accident.
    neuron = None if decision.reused else decision.neuron
    site = Site(spot.name, pre, post, spot.has_matrix, spot.recurrent, neuron, dt_ms, fan_in_of(spot))
    placed = dataclasses.replace(decision.timing, rows=rows)
    return SitePlan(site, spot, rule.components, placed, decision.follows, None, drives, origins, decision.beats)


def fan_in_of(spot: Spot) -> int | None:
    """Count the input channels that an output channel of a convolution hears; None for other connections."""
    return None if spot.slot else fan_in(spot.module)


def _plan_recurrent(neuron: Neuron, rule: Recurrent, trace: Trace | None, spots: list[Spot]) -> SitePlan:
    refuse_loop(neuron, spots)
    size = survey.neuron_size(neuron, rule, trace)
    spot = loop_spot(neuron, size, spots)
    decision = timing.decide(spot, rule, trace, {neuron.path: neuron}, spots)
    site = Site(spot.name, size, size, True, True, neuron.path, neuron.dt_ms)
    ends = (neuron.path,)
    return SitePlan(site, spot, rule.components, decision.timing, decision.follows, rule, ends, ends)


def refuse_loop(neuron: Neuron, spots: list[Spot]) -> None:
    """Raise for a neuron that cannot get a recurrent connection."""
    survey.refuse_taken(neuron.path, neuron.module)
    name, reason = ".".join(p for p in (neuron.path, "recurrent") if p), neuron.refusal or neuron.recurrent_refusal
    if not reason and any(s.name == name for s in spots):
        reason = f"it has a recurrent connection already: name it {name!r} in the rules"
    if not reason and neuron.style != "step":
        reason = "it runs whole sequences in one call"
    if reason:
        raise ConfigError(neuron.path, type(neuron.module).__name__, "a step neuron without recurrence", reason)


def loop_spot(neuron: Neuron, size: int, spots: list[Spot]) -> Spot:
    """Describe the recurrent connection that a neuron is about to get; refuse where it cannot have one."""
    refuse_loop(neuron, spots)
    options = {"recurrent": True, "owner": neuron.path, "carried": not neuron.follows}
    return Spot(neuron.path, "recurrent", neuron.module, size, size, **options)  # type: ignore[arg-type]


def _try_build(entry: SitePlan, neurons: Mapping[str, Neuron], trace: Trace | None, spots: list[Spot]) -> Synapse:
    """Build once, to be thrown away: what cannot be built is an issue, not a half-wrapped model."""
    synapse = Synapse(entry.site, entry.configs, torch.Generator().manual_seed(0))
    if synapse.prunings and not entry.spot.has_matrix and getattr(entry.spot.module, "weight", None) is None:
        found = "a pruning on a connection without a weight"
        raise ConfigError(entry.site.name, found, "a matrix or a convolution", "leave the pruning out of this rule")
    refuse_hidden_product(entry.site.name, entry.spot.module, synapse, entry.spot.product)
    part = synapse.heterogeneity
    if part is not None and part.needs_neuron and trace is None and not entry.drives:
        fix = "pass example=: a batch, a tuple of arguments, or a function that runs one sequence"
        raise timing.NeedsExample(
            entry.site.name, "no example, so nobody can tell which neuron it drives", "an example", fix
        )
    if trace is not None and entry.recurrent is None:
        refuse_between(synapse, survey.primary(entry.spot, spots).name, trace.between)
    bind_neurons_(synapse, entry, neurons)
    check_exact(synapse, entry.drives, entry.sources, neurons)
    return synapse


def bind_neurons_(synapse: Synapse, entry: SitePlan, neurons: Mapping[str, Neuron]) -> None:
    """Show the neurons that a connection drives to the part that asks how fast they leak."""
    part = synapse.heterogeneity
    if part is not None and part.needs_neuron:
        heard = [neurons[path] for path in entry.drives]
        part.bind_neuron_(DrivenNeuron(entry.site.name, heard, entry.site.post) if heard else None)


def _short(config: ComponentConfig, dt_ms: float | None) -> str:
    longest = getattr(config, "max_delay", None)
    words = [getattr(config, "granularity", "")]
    if dt_ms is not None and longest is not None:
        words.append(f"up to {longest:g} steps = {longest * dt_ms:g} ms")
    told = ", ".join(filter(None, words))
    return f"{type(config).__name__}({told})" if told else type(config).__name__
