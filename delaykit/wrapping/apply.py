"""Wrap and unwrap: carry out a plan, all of it or nothing."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from delaykit import checks
from delaykit.attaching.adapter import NeuronAdapter
from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.fast_paths import call_always_
from delaykit.attaching.leftovers import copy_lines_, leave_lines_, take_up_lines_
from delaykit.attaching.neuron.time_constants import attach_constants_
from delaykit.attaching.neuron_mixins import begin_anew_
from delaykit.attaching.retyping import Anatomy, Undo, retype_, untype_
from delaykit.attaching.root import WrappedRoot, wrapping_of
from delaykit.attaching.scope import RootScope
from delaykit.attaching.watches import NeuronWatch
from delaykit.attaching.wiring import Wrapping, unwire_, wire_
from delaykit.checks.answers import answer_of
from delaykit.errors import ConfigError, PluginError
from delaykit.planning import survey
from delaykit.planning.exact_gradients import attach_exact_, check_exact
from delaykit.planning.plan import Plan, SitePlan, bind_neurons_, plan
from delaykit.planning.time_constants import ConstantsPlan
from delaykit.synapse import Synapse, introduce_
from delaykit.time_constants import NeuronDecays
from delaykit.wrapping.controls import wrapped_sites

Net = TypeVar("Net", bound=nn.Module)


def wrap_(
    net: Net, rules: Mapping[str, Any] | Plan, example: Any = None, generator: torch.Generator | None = None
) -> Net:
    """Put delays, time constants or pruning into the connections of ``net``, in place; return ``net``.

    Every module keeps its identity, name and parameters; base checkpoints still load, :func:`unwrap_` takes all back.

    Args:
        net: a model of snnTorch, Norse, another adapter's library or plain PyTorch modules.
        rules: ``{pattern: component(s)}`` as in :func:`plan`, or a :class:`Plan`.
        example: a batch, a tuple of arguments, or a callable that runs one sequence (see :func:`plan`).
        generator: source of random initial values; default torch's global one.

    Raises:
        WrapError: the plan has issues, all of them listed; PluginError: an adapter or a component
            answers wrongly. The model is as it was.

    Warns:
        UserWarning: the plan, made here, has warnings. Who passes a :class:`Plan` has seen them.

    Example:
        >>> import torch, snntorch as snn, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True))
        >>> _ = dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=9)}, example=torch.zeros(1, 3))
        >>> sorted(k for k in net.state_dict() if ".dk." in k)
        ['0.dk.delay.delay', '0.dk.delay.spread']
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        fix = "pass generator=torch.Generator().manual_seed(0)"
        raise ConfigError("wrap_ generator", f"a {type(generator).__name__}", "a torch.Generator or None", fix)
    todo = _planned(net, rules, example)
    _check_fits(net, todo)
    wrapping = (known := wrapping_of(net)) or Wrapping(RootScope())
    scope = wrapping.scope
    done, known_before, before = len(wrapping.undo), (len(scope.histories), len(scope.watches)), Anatomy(net)
    merged = _one_each(todo.sites)
    synapses = [build_synapse(entry, generator, net) for entry in merged]
    decays = [_build_decays(entry, generator, net) for entry in todo.constants]
    introduce_(net, synapses)
    for entry, synapse in zip(merged, synapses, strict=True):
        bind_neurons_(synapse, entry, todo.neurons)
        check_exact(synapse, entry.drives, entry.sources, todo.neurons)
    try:
        for entry, synapse in zip(merged, synapses, strict=True):
            _attach(net, entry, synapse, wrapping, todo)
        for constants, part in zip(todo.constants, decays, strict=True):
            neuron = constants.neuron  # the plan saw that it has a mixin
            wrapping.undo += attach_constants_(neuron.module, part, neuron.adapter.learned)  # type: ignore[arg-type]
        if known is None:
            retype_(net, WrappedRoot)
            wire_(net).root = wrapping
    except BaseException:
        _take_back(wrapping.undo[done:])
        del wrapping.undo[done:], scope.histories[known_before[0] :], scope.watches[known_before[1] :]
        before.restore()  # what an adapter changed that broke off, and so gave no way back
        raise
    take_up_lines_(net)
    wrapping.plans.append(merged)
    wrapping.constants += todo.constants
    return net


def wrap(
    net: Net, rules: Mapping[str, Any] | Plan, example: Any = None, generator: torch.Generator | None = None
) -> Net:
    """Wrap a deep copy of ``net`` and return it; ``net`` stays bare. Arguments as in :func:`wrap_`.

    An ``example`` that is a callable must not refer to ``net`` itself: pass a batch or arguments here.

    Args:
        net: a bare model, or one that is wrapped in part.
        rules: as in :func:`wrap_`.
        example: as in :func:`wrap_`, and not a callable that refers to ``net``.
        generator: as in :func:`wrap_`.

    Example:
        >>> import torch, snntorch as snn, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True))
        >>> twin = dk.wrap(net, {"0": dk.FreeDelay("axonal", max_delay=9)}, example=torch.zeros(1, 3))
        >>> hasattr(twin[0], "dk"), hasattr(net[0], "dk")
        (True, False)
    """
    todo = _planned(net, rules, example)
    twin = copy_model(net)
    return wrap_(twin, _moved(todo, net, twin), generator=generator)


def _planned(net: nn.Module, rules: Mapping[str, Any] | Plan, example: Any) -> Plan:
    """Return a plan without issues; tell the warnings of one that is made here to who called ``wrap_`` or ``wrap``."""
    todo = rules if isinstance(rules, Plan) else plan(net, rules, example)
    todo.check()
    if todo is not rules and todo.warnings:
        warnings.warn("\n".join(todo.warnings), UserWarning, stacklevel=3)
    return todo


def copy_model(net: Net) -> Net:
    """Deep-copy a model, also one that holds tensors of a finished run, and register the copy with its library."""
    memo: dict[int, Any] = {}
    for module in net.modules():
        for value in tree_leaves(dict(module.__dict__)):  # buffers, and states that a library keeps in a dict
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    twin = copy.deepcopy(net, memo)
    copy_lines_(net, twin)
    for adapter in survey.adapters():
        for module in twin.modules():
            adapter.after_copy(module)
    return twin


def unwrap_(net: Net) -> Net:
    """Take everything back: the same modules and parameters, with their own classes; return ``net``.

    Spikes under way are gone with their lines. A sequence that goes on when the model is wrapped again is refused at
    its next step.

    Args:
        net: the model that was given to :func:`wrap_`.

    Raises:
        ConfigError: ``net`` is not a wrapped model, or its weights were given away.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
        >>> type(dk.unwrap_(net)[0])
        <class 'torch.nn.modules.linear.Linear'>
    """
    checks.is_model("unwrap_", net)
    wrapping = wrapping_of(net)
    if wrapping is None:
        raise ConfigError(
            "model", "a model that is not wrapped", "the model given to dk.wrap_", "unwrap the root, not a part of it"
        )
    gone = [
        m.site.name for m in net.modules() if isinstance(m, Synapse) and m.delay is not None and m.delay.holds_weight
    ]
    if gone:
        fix = "unwrap a copy that was made before"
        raise ConfigError(
            "unwrap_", f"compact connections ({', '.join(gone)})", "modules with weights of their own", fix
        )
    leave_lines_(net)
    for projection in wrapping.projections:
        weights = [site.weight for site in wrapped_sites(net) if site.weight is not None]
        projection.forget(list(net.modules()), weights)
    while wrapping.undo:  # each can be run twice: what was interrupted goes on from there
        wrapping.undo[-1].run()
        wrapping.undo.pop()
    untype_(net)
    wire_(net).root = None
    unwire_(net)
    return net


def _take_back(undo: list[Undo]) -> None:
    """Take back what a wrapping did that broke off; why it did is said already, and not again why this breaks off."""
    for one in reversed(undo):
        with contextlib.suppress(PluginError):
            one.run()


def build_synapse(entry: SitePlan, generator: torch.Generator | None, net: nn.Module) -> Synapse:
    """Make the synapse of one site, on the device and, for float64 models, in the dtype of its weights."""
    synapse = Synapse(entry.site, entry.configs, generator)
    given = entry.recurrent.weight if entry.recurrent is not None else None
    parameters = itertools.chain(entry.spot.module.parameters(), net.parameters())  # a neuron may have none
    reference = next(parameters, given if isinstance(given, Tensor) else None)
    if reference is None:
        return synapse
    return synapse.to(reference.device, torch.float64 if reference.dtype == torch.float64 else None)


def _build_decays(entry: ConstantsPlan, generator: torch.Generator | None, net: nn.Module) -> NeuronDecays:
    module = entry.neuron.module
    like = next(itertools.chain(module.parameters(), module.buffers(), net.parameters()), torch.zeros(0))
    return entry.build(generator).to(like.device, torch.float64 if like.dtype == torch.float64 else torch.float32)


def _attach(net: nn.Module, entry: SitePlan, synapse: Synapse, wrapping: Wrapping, todo: Plan) -> None:
    spot = entry.spot
    assert spot.adapter is not None or entry.recurrent is not None
    watches = {path: _watched(path, wrapping, todo) for path, _ in entry.beats}
    leader = todo.neurons.get(entry.follows) if entry.follows is not None else None  # "" is the root
    watch = next(iter(watches.values()), None)  # of a root connection: it hears the library's own resets
    if leader is not None and leader.follows:
        watch = _watched(leader.path, wrapping, todo)
    owned = spot.owner is not None
    wrapping.undo += call_always_(net, spot.path)
    attachment = Attachment(spot.name, entry.timing, wrapping.scope, watch, owned, spot.product)
    if entry.recurrent is None:
        adapter, method = cast(NeuronAdapter, spot.adapter), "attach_"
        undo = adapter.attach_(spot, synapse, attachment)
    else:
        neuron = todo.neurons[entry.spot.path]
        weight = recurrent_weight(entry, next(iter(net.parameters()), None))
        adapter, method = neuron.adapter, "add_recurrent_"
        undo = adapter.add_recurrent_(neuron, synapse, attachment, weight, entry.recurrent.bias)
    if not undo:
        where, fix = answer_of(adapter, method), "return what it has to take back"
        raise PluginError(where, "[]: nothing was attached, or nothing can be taken back", "a list of Undo", fix)
    for one in undo:
        one.by = answer_of(adapter, method)
    wrapping.undo += undo
    for path, each in entry.beats:
        attachment.lead_to(watches[path], path, each)
    if entry.timing.policy == "root":  # whose states may go on from call to call, while delays begin anew
        around = dict.fromkeys(path for path in (*entry.sources, entry.follows) if path is not None)
        wrapping.scope.watch([_watched(path, wrapping, todo) for path in around])
    wrapping.undo += _begin_anew_(entry, attachment, todo)
    wrapping.undo += attach_exact_(synapse, attachment, entry.drives, entry.sources, todo.neurons)


def _begin_anew_(entry: SitePlan, attachment: Attachment, todo: Plan) -> list[Undo]:
    """Let the neurons before and behind a connection of whole sequences look at their states; all, if none is known."""
    if attachment.history.ends is None:
        return []
    around: list[tuple[str, bool | None]] = [(path, False) for path in entry.drives]
    around += [(path, True) for path in entry.sources if path not in entry.drives]
    undo: list[Undo] = []
    for path, later in around or [(path, None) for path in todo.neurons]:
        neuron, line = todo.neurons[path], (entry.spot.name, attachment.history.ends, later)
        undo += begin_anew_(neuron.module, type(neuron.adapter)(), neuron.follows, path, line)
    return undo


def _watched(path: str, wrapping: Wrapping, todo: Plan) -> NeuronWatch:
    neuron = todo.neurons[path]
    watch, undo = neuron.adapter.count_(neuron)
    watch.scope, watch.path = wrapping.scope, path
    wrapping.undo += undo
    return watch


def recurrent_weight(entry: SitePlan, like: Tensor | None) -> Tensor:
    """Make the weight of a new recurrent connection."""
    assert entry.recurrent is not None
    rule, size = entry.recurrent, entry.site.pre
    if isinstance(rule.weight, Tensor):
        weight = rule.weight.detach().clone()
    else:
        weight = torch.zeros(size, size)
        if rule.weight == "orthogonal":
            nn.init.orthogonal_(weight)
    return weight if like is None else weight.to(like.device, like.dtype)


def _one_each(entries: tuple[SitePlan, ...]) -> list[SitePlan]:
    """Keep one entry for each connection: a shared module is wrapped once, and the plan saw that its rules agree."""
    return list({(id(e.spot.module), e.spot.slot): e for e in entries}.values())


def _check_fits(net: nn.Module, todo: Plan) -> None:
    present = {id(m) for m in net.modules()}
    planned = [*(entry.spot.module for entry in todo.sites), *(entry.neuron.module for entry in todo.constants)]
    if any(id(module) not in present for module in planned):
        raise ConfigError(
            "plan", "a plan made for another model", "a plan of this very model", "call dk.plan(net, ...) on it"
        )


def _moved(todo: Plan, old: nn.Module, new: nn.Module) -> Plan:
    """Point a plan at a copy of its model: the same names, found anew, so that adapters see the copy's containers."""
    spots, neurons = survey.survey(new)
    by_name = {spot.name: spot for spot in spots}
    twins = dict(new.named_modules(remove_duplicate=False))

    def twin(entry: SitePlan) -> SitePlan:
        if entry.recurrent is None:
            return dataclasses.replace(entry, spot=by_name[entry.spot.name])
        module = twins[_path(old, entry.spot.module)]
        return dataclasses.replace(entry, spot=dataclasses.replace(entry.spot, module=module))

    constants = tuple(dataclasses.replace(entry, neuron=neurons[entry.neuron.path]) for entry in todo.constants)
    return Plan(tuple(twin(entry) for entry in todo.sites), todo.issues, neurons, constants)


def _path(net: nn.Module, module: nn.Module) -> str:
    return next(path for path, m in net.named_modules(remove_duplicate=False) if m is module)
