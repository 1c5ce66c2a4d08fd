"""Run one recurrent neuron over a whole sequence: fused where its equations are known, step by step elsewhere."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from delaykit import checks
from delaykit.attaching.adapter import Neuron
from delaykit.attaching.exact_gradients.currents import CurrentWatch
from delaykit.attaching.fused_parts import FusedParts
from delaykit.attaching.neuron.reported_numbers import by_dynamics, check_spikes, dynamics_of
from delaykit.attaching.neuron_mixins import loop_of
from delaykit.attaching.retyping import original_class
from delaykit.attaching.scope import RootScope
from delaykit.attaching.trial_runs import lines_aside
from delaykit.attaching.wiring import Wiring, wiring_of
from delaykit.checks.answers import MEND, answer_of
from delaykit.engines.dropout import draw_mask
from delaykit.errors import ConfigError, PluginError, ShapeError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.eager import eager
from delaykit.functional.inputs import check_tensors
from delaykit.functional.recurrence.connection.base import RecurrentConnection
from delaykit.functional.recurrence.operator import rollout as run
from delaykit.functional.recurrence.state import RolloutState
from delaykit.planning.snapshot import Snapshot
from delaykit.planning.survey import adapters
from delaykit.sizes import is_hidden

CLOSE = {torch.float32: (1e-3, 1e-4), torch.float64: (1e-7, 1e-8)}  # of a few steps, relative and absolute
_COMPARED: weakref.WeakKeyDictionary[nn.Module, set[tuple[Any, ...]]] = weakref.WeakKeyDictionary()
EVERYWHERE: tuple[Any, ...] = (  # hooks of all modules there are
    torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks, torch_module._global_backward_pre_hooks,
)  # fmt: skip


@eager  # who knows the neuron is looked up
def rollout(neuron: nn.Module, currents: Tensor, recurrent_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run a recurrent neuron, wrapped or bare, over a whole sequence that starts from rest.

    Equal to calling the neuron step by step from a fresh state, but with one hand-written adjoint for the LIF family
    (snnTorch ``Leaky``, ``RLeaky``, ``Synaptic``, ``RSynaptic``; Norse LIF, LIFBox and LI): one matrix product a step,
    memory for spikes and membrane only, and a cost that grows with neither the longest delay nor the width of a
    triangle. Other neurons run step by step, so do those with forward hooks or parametrizations, which may compute a
    weight anew at every step.

    Args:
        neuron: a snnTorch neuron, a Norse cell or one of another adapter's, with or without delays.
        currents: ``(time, batch, post)``, the neuron's input; for a Norse cell with input weights
            ``(time, batch, pre)``, its input spikes.
        recurrent_mask: ``(batch, post)``, factor on the recurrent current: recurrent dropout, one mask a sequence.
            None: drawn with the probability that the delay asks for, if any, in training.

    Returns:
        Spikes and membrane, both ``(time, batch, post)``. The neuron's own hidden state is left alone by the fused
        path.

    Raises:
        ConfigError: not a neuron that is called step by step, or one with backward hooks of its own.
        ShapeError: ``currents`` is not (time, batch, ...).
        PluginError: what the neuron's adapter says of it cannot be, or gives others than the neuron's own steps.

    Example:
        >>> import snntorch as snn
        >>> spikes, membrane = rollout(snn.RLeaky(beta=0.9, linear_features=4), torch.rand(10, 2, 4))
        >>> spikes.shape
        torch.Size([10, 2, 4])
    """
    checks.is_model("rollout, first argument", neuron)
    found = _find(neuron)
    check_tensors("rollout", optional=("recurrent_mask",), currents=currents, recurrent_mask=recurrent_mask)
    if currents.ndim < 3:
        fix = "torch.stack the steps"
        raise ShapeError("rollout", f"currents of shape {tuple(currents.shape)}", "(time, batch, post)", fix)
    if neuron._backward_hooks or neuron._backward_pre_hooks:
        found_it, expected = "backward hooks on the neuron, which see what each call is given", "none"
        raise ConfigError("rollout", found_it, expected, "hang them on its connection, or run your own loop")
    dynamics, parts = dynamics_of(found.adapter, neuron), None
    if dynamics is not None and currents.ndim == 3 and not _does_more(neuron):
        parts = found.adapter.fused_parts(neuron)
    if dynamics is not None and parts is not None:
        with by_dynamics(found.adapter, neuron):
            _hold_to_steps(found, currents)
            return run_fused(dynamics, parts, currents, recurrent_mask)[:2]
    if recurrent_mask is not None:
        found_it, expected = "recurrent_mask for a neuron that runs step by step", "a neuron of the LIF family"
        raise ConfigError("rollout", found_it, expected, "leave recurrent_mask out")
    return _step_by_step(found, currents)


def run_fused(
    dynamics: LIFDynamics, parts: FusedParts, currents: Tensor, mask: Tensor | None, state: RolloutState | None = None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run a neuron whose equations are known; return spikes, membranes, and the state that the last step leaves."""
    if parts.drive is not None:
        currents = parts.drive(currents)
    if mask is None and parts.delay is not None:
        mask = draw_mask(parts.delay, currents.shape[1:], currents)
    weight, bias, through = parts.recurrence
    if not isinstance(through, RecurrentConnection):
        return run(currents, weight, bias, through, dynamics, state, mask)
    if state is None and len(currents):
        dynamics.check_surrogate(currents)
        done = through.at_once(currents, bias, mask, dynamics)
        if done is not None:
            return *done, RolloutState(done[0][-1], None, done[1][-1])
    return run(currents, None, bias, None, dynamics, state, mask, through)


def _hold_to_steps(found: Neuron, currents: Tensor) -> None:
    """Compare a few fused steps with the neuron's own, once a neuron and size; of the core's adapters tests do so.

    A value at a threshold may fall on either side of it by rounding, so that two runs have to differ.

    Raises:
        PluginError: they differ, by the numbers of the adapter.
    """
    adapter, neuron = found.adapter, found.module
    key = (type(adapter), currents.dtype, *currents.shape[2:])
    if type(adapter).__module__.startswith("delaykit.adapters.") or key in _COMPARED.get(neuron, ()):
        return
    hidden = is_hidden(currents) or torch.is_autocast_enabled(currents.device.type)
    if hidden or currents.dtype not in CLOSE or not currents.numel():
        return
    wrong = [found_it for seed in (1, 2) if (found_it := _apart(found, currents, seed))]
    if len(wrong) > 1:
        where, kind = answer_of(adapter, "dynamics"), original_class(neuron).__name__
        expected = "numbers, with fused_parts() and step(), that give what the neuron's own steps do"
        raise PluginError(where, f"{wrong[0]} for a {kind}", expected, "mend these methods of the adapter")
    _COMPARED.setdefault(neuron, set()).add(key)


def _apart(found: Neuron, currents: Tensor, seed: int) -> str:
    """Say how far a fused run is from the neuron's own steps, which leave no trace; "" where it is not."""
    given, random = currents[:2, :2].detach(), torch.Generator().manual_seed(seed)
    noise = torch.randn(4, *given.shape[1:], generator=random, dtype=torch.float64).to(given)
    probe = torch.cat([given + 1e-3 * noise[: len(given)], 2.0 * noise]) if bool(given.isfinite().all()) else noise
    neuron = found.module
    with lines_aside(neuron), torch.no_grad():
        before = Snapshot(neuron, weights=False)
        try:
            neuron.eval()
            dynamics, parts = found.adapter.dynamics(neuron), found.adapter.fused_parts(neuron)
            if dynamics is None or parts is None:
                return ""
            fused, steps = run_fused(dynamics, parts, probe, None)[:2], _step_by_step(found, probe)
        finally:
            before.restore()
    for one, two in zip(fused, steps, strict=True):
        if one.shape != two.shape:
            return f"a fused run of shape {tuple(one.shape)} beside steps of shape {tuple(two.shape)}"
        if not torch.allclose(one, two.to(one), *CLOSE[currents.dtype], equal_nan=True):
            return f"a fused run that is {float((one - two).abs().max()):.3g} off"
    return ""


def _does_more(neuron: nn.Module) -> bool:
    """Tell whether a call does more than the neuron's equations: a forward of its own, hooks, parametrizations."""
    modules = list(neuron.modules())
    forwards = [vars(m)["forward"] for m in modules if "forward" in vars(m)]  # a fused network lends one of ours
    if any(getattr(forward, "__module__", "").split(".")[0] != "delaykit" for forward in forwards):
        return True
    hooks = (h for m in modules for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values()))
    if any(m._backward_hooks or m._backward_pre_hooks for m in modules) or any(map(len, EVERYWHERE)):
        return True
    return any(not isinstance(h, CurrentWatch) for h in hooks) or any(map(parametrize.is_parametrized, modules))


def _find(neuron: nn.Module) -> Neuron:
    for adapter in adapters():
        _, found = adapter.find("", neuron)
        if found is not None and found.style == "step":
            return found
    kind = type(neuron).__name__
    raise ConfigError(
        "rollout",
        kind,
        "a neuron that is called step by step, of snnTorch, Norse or an adapter that is installed",
        "pass the neuron, not the net",
    )


def _step_by_step(found: Neuron, currents: Tensor) -> tuple[Tensor, Tensor]:
    scopes = _scopes(found.module)
    for scope in scopes:
        scope.enter()
    failed = True
    try:
        spikes, membranes, state = [], [], None
        with lines_aside(found.module):  # connections that follow the neuron are not called meanwhile
            for current in currents:
                spike, membrane, state = found.adapter.step(found, current, state)
                spikes.append(spike)
                membranes.append(membrane)
        _check_steps(found, currents, spikes, membranes)
        failed = False
        if not spikes:
            one = currents.new_zeros(currents.shape[1:])
            if not found.follows:  # an input of a cell is not as wide as its output, and a step leaves nothing in it
                one = found.adapter.step(found, one, None)[0]
            return one.new_empty(0, *one.shape), one.new_empty(0, *one.shape)
        check_spikes(found, currents, spikes)
        return torch.stack(spikes), torch.stack(membranes)
    finally:
        for scope in scopes:
            scope.leave(failed)


def _check_steps(neuron: Neuron, currents: Tensor, *answered: list[Tensor]) -> None:
    """Raise where steps answered with other shapes than their neuron has; asked once a sequence."""
    loop, given = loop_of(neuron.module), tuple(currents.shape[1:])
    whole = None if loop is None else (*given[:-1], len(loop.connection.weight))  # which leads from neuron to neuron
    for name, tensors in zip(("spikes", "membrane"), answered, strict=True):
        shapes = dict.fromkeys(tensor.shape for tensor in tensors)
        for shape in shapes:
            if len(shapes) > 1 or shape[:1] != given[:1] or whole not in (None, shape):
                found = f"{name} of shape {' and '.join(str(tuple(one)) for one in shapes)} for {given}"
                expected = f"{whole or '(batch, post)'} at every step"
                raise PluginError(answer_of(neuron.adapter, "step"), found, expected, MEND)


def _scopes(neuron: nn.Module) -> list[RootScope]:
    """List the wrapped roots that the connections of a neuron belong to."""
    own = [a for m in neuron.modules() for a in (wiring_of(m) or Wiring()).sites.values()]
    return list({id(a.scope): a.scope for a in own}.values())
