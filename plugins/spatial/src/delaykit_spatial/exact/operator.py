r"""Spike trains whose times have an exact gradient: arrivals with delays, a neuron over a sequence, first spikes.

A spike is two things here: a number 0 or 1 in ``spikes``, for readouts that count, and an entry of ``clock``, its time
in steps from the end of its own, in (-1, 0], whose gradient is the loss's derivative by that time. ``exact_rollout``
emits both; ``exact_arrivals`` and ``first_spike_times`` take both and send their gradient into the clock. A spike of
step t with delay d arrives at t + clock + d, within a step, which ends with what is left of it then.

Units: delays and times are in steps. Time constants are in any unit together with ``dt``, the length of a step; weights
are then currents per that unit, as papers give them.

Reference:
    Landsmeer et al. 2025, "Spatial Spiking Neural Networks" (SpSNN), with other signs in eq. 16 and 27 and a full
    adaptation term in eq. 18 and 31, see ``docs/explanation/exact_gradients.md``; Wunderlich and Pehle 2021
    (EventProp).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from delaykit.errors import ConfigError, DelayRangeError, ShapeError
from delaykit.functional.dispatch import implementation_of
from delaykit.functional.inputs import check_operands
from delaykit_spatial.exact import numba
from delaykit_spatial.exact import torch as plain
from delaykit_spatial.exact.neuron import Neuron

Estimator = Literal["exact", "none"]


class ExactRun(NamedTuple):
    """What a neuron did in a sequence, each ``(time, batch, post)``.

    Args:
        spikes: 0 or 1; its gradient is the surrogate's, and it has none without a surrogate.
        clock: time of each spike in steps, counted from the end of its step, in (-1, 0]; 0 where there is none.
        membrane: after the reset.
    """

    spikes: Tensor
    clock: Tensor
    membrane: Tensor


@dataclasses.dataclass(frozen=True)
class SuperSpike:
    """Surrogate for the readout of spikes: 1 where x >= 0, with derivative ``1 / (1 + slope |x|)^2``.

    Args:
        slope: steepness.

    Example:
        >>> x = torch.tensor([-1.0, 0.0], requires_grad=True)
        >>> SuperSpike()(x).sum().backward()
        >>> x.grad.tolist()
        [0.25, 1.0]
    """

    slope: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Spike where ``x >= 0``."""
        smooth = x / (1 + self.slope * x.abs())
        return (x >= 0).to(x.dtype) + (smooth - smooth.detach())


def exact_arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, tau_syn: float, dt: float = 1.0,
    estimator: Estimator = "exact",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""Deliver spikes through delayed synapses, with the exact gradient of every arrival time.

    An arrival at ``a = t + clock + delay`` steps belongs to step ``ceil(a)``. At its end, ``rest = dt (ceil(a) - a)``
    later, ``w e`` of the weight is in the current and ``tau_syn w (1 - e)`` in the membrane, e = exp(-rest / tau_syn):
    these are the two jumps. With g_i and g_v their gradients and ``G = dt w e (g_i / tau_syn - g_v)``, the weight gets
    ``e g_i + tau_syn (1 - e) g_v``, the delay ``G``, and the clock, at the spike, the sum of G over all post.

    Args:
        spikes: ``(time, batch, pre)``; sizes other than 1 scale the weight. No gradient.
        clock: ``(time, batch, pre)`` in (-1, 0], of the neuron that fired, from :func:`exact_rollout`; None for data
            that came at the ends of their steps.
        weight: ``(post, pre)``.
        delay: in steps, >= 0; ``(1, 1)``, ``(1, pre)``, ``(post, 1)`` or ``(post, pre)``.
        tau_syn: time constant of the receiving neurons' current, in the unit of ``dt``.
        dt: length of a step.
        estimator: ``"exact"``; or ``"none"``, where weights learn but delays and the times of spikes get no gradient.

    Returns:
        ``(i_jump, v_jump)``, both ``(time, batch, post)``, for :func:`exact_rollout`. Arrivals after the sequence are
        lost; :func:`arrivals_after_end` counts them.

    Raises:
        ShapeError: shapes that do not fit each other.
        DelayRangeError: a delay that is negative or not finite, or a clock outside (-1, 0].
        ConfigError: an unknown estimator.

    Example:
        >>> spikes = torch.zeros(5, 1, 1)
        >>> spikes[1] = 1.0
        >>> delay = torch.tensor([[2.2]], requires_grad=True)
        >>> i_jump, v_jump = exact_arrivals(spikes, None, torch.tensor([[0.5]]), delay, tau_syn=2.0)
        >>> [round(x, 3) for x in i_jump.flatten().tolist()]        # at 3.2: 0.8 steps before its step ends
        [0.0, 0.0, 0.0, 0.0, 0.335]
        >>> i_jump.sum().backward()         # later, the current has less time to decay: i_jump / tau_syn
        >>> round(delay.grad.item(), 3)
        0.168

    Reference:
        Landsmeer et al. 2025, eq. 14 and 23, which are G with a rest of 0.
    """
    _check_arrivals(spikes, clock, weight, delay)
    _check_estimator("exact_arrivals", estimator)
    slots = _slots("exact_arrivals(delay)", delay, weight)
    if estimator == "none":
        clock, delay = None, delay.detach()
    dtype = _working(weight)
    clock = None if clock is None else clock.to(dtype)
    return _run("exact_arrivals", spikes)(
        spikes.to(dtype), clock, weight.to(dtype), delay.to(dtype), slots, tau_syn, dt
    )


def exact_rollout(
    i_jump: Tensor, v_jump: Tensor | None, neuron: Neuron, recurrent_weight: Tensor | None = None,
    recurrent_delay: Tensor | None = None, surrogate: Callable[[Tensor], Tensor] | None = None, once: bool = False,
    rescale_every: int = 0, min_slope: float = 1e-3, self_connections: bool = True, estimator: Estimator = "exact",
) -> ExactRun:  # fmt: skip
    r"""Run a neuron with an optional delayed recurrent connection over a sequence, with exact gradients.

    Each step: flow (see :mod:`delaykit_spatial.exact.neuron`) and arrivals; where v >= threshold then, or before
    the arrivals if these came later, a spike at the time of the crossing and a reset at that time. A recurrent spike
    arrives ``1 + recurrent_delay`` steps after its own time. Backwards, a spike with slope v' takes the gradient
    ``-g / (v' dt)`` of its time to the membrane, and the reset ``v'_after / v'`` of the membrane's gradient past it.
    A neuron fires at most once in a step.

    Args:
        i_jump: jumps of the synaptic current, ``(time, batch, post)``, as they are at the ends of their steps.
        v_jump: jumps of the membrane by the same arrivals; None where these all come at the ends of their steps.
        neuron: :class:`.ExactLIF` or :class:`.ExactAdEx`.
        recurrent_weight: ``(post, post)`` or None.
        recurrent_delay: steps beyond the one a spike takes anyway, >= 0, shaped as for :func:`exact_arrivals`; None: 0.
        surrogate: elementwise function of ``v - threshold`` that returns spikes and whose autograd gives the gradient
            of ``spikes``, such as :class:`SuperSpike`; None: ``spikes`` has no gradient, only its times have.
        once: every neuron fires at most once; its membrane stays at 0 afterwards.
        rescale_every: every so many steps, each row of the batch's gradient g of each state becomes
            ``g / (1 + |g|)``, so that long sequences do not diverge; 0 for never.
        min_slope: least slope v' that a spike's gradient is divided by, in membrane per unit of ``dt``; a smaller one,
            which only a step of finite length can find, counts as grazing, its time as that of a crossing with this.
        self_connections: False leaves out the diagonal of the recurrent weight.
        estimator: as for :func:`exact_arrivals`, for the recurrent connection.

    Returns:
        Spikes, clock and membrane.

    Raises:
        ShapeError: shapes that do not fit each other.
        DelayRangeError: a delay that is negative or not finite.
        ConfigError: an unknown estimator, or a number out of its range.

    Example:
        >>> drive = torch.zeros(6, 1, 1)
        >>> drive[0] = 0.5
        >>> from delaykit_spatial.exact import ExactLIF
        >>> run = exact_rollout(drive, None, ExactLIF(tau_mem=10.0, tau_syn=5.0))
        >>> run.spikes.flatten().tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]

    Reference:
        Landsmeer et al. 2025, eq. 9-10 (where v_jump is added after the reset), 16 and 27 (with the opposite sign), 18
        and 31 (with the term in ``a v_threshold``); spikes and arrivals within a step are ours.
    """
    _check_rollout(i_jump, v_jump, recurrent_weight, rescale_every, min_slope)
    _check_estimator("exact_rollout", estimator)
    dtype = _working(i_jump)
    i_jump, v_jump = i_jump.to(dtype), None if v_jump is None else v_jump.to(dtype)
    weight, delay, slots = _recurrence(recurrent_weight, recurrent_delay, dtype, estimator, self_connections)
    how = (once, rescale_every, min_slope, estimator == "exact", surrogate is not None)
    spikes, clock, membrane, before = _run("exact_rollout", i_jump)(i_jump, v_jump, neuron, weight, delay, slots, *how)
    if surrogate is not None:
        smooth = surrogate(before - neuron.threshold).to(dtype)
        spikes = spikes + (smooth - smooth.detach())
    return ExactRun(spikes, clock, membrane)


def _recurrence(
    weight: Tensor | None, delay: Tensor | None, dtype: torch.dtype, estimator: Estimator, self_connections: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return weight, delay and slots as the operator takes them."""
    if weight is None:
        return None, delay, None
    delay = weight.new_zeros(1, 1) if delay is None else delay
    slots = _slots("exact_rollout(recurrent_delay)", delay, weight)
    delay = (delay.detach() if estimator == "none" else delay).to(dtype)
    weight = weight.to(dtype)
    if not self_connections:
        weight = weight.masked_fill(torch.eye(len(weight), dtype=torch.bool, device=weight.device), 0.0)
    return weight, delay, slots


def first_spike_times(spikes: Tensor, clock: Tensor | None, silent: float) -> Tensor:
    """Read the time of every neuron's first spike, with its exact gradient.

    Args:
        spikes: ``(time, batch, neuron)``.
        clock: of the same spikes, from :func:`exact_rollout`; None for whole steps without gradient.
        silent: time of a neuron that does not fire, in steps; it has no gradient.

    Returns:
        ``(batch, neuron)`` in steps.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> spikes = torch.zeros(4, 1, 2)
        >>> spikes[2, 0, 0] = 1.0
        >>> first_spike_times(spikes, None, silent=9.0).tolist()
        [[2.0, 9.0]]
    """
    _same("first_spike_times(clock)", clock, spikes)
    spikes = (spikes.detach() > 0).to(spikes.dtype)
    first = spikes.argmax(0, keepdim=True)  # the first of equals
    time = first.to(spikes.dtype) if clock is None else first + clock.gather(0, first)
    return torch.where(spikes.gather(0, first) > 0, time, silent).squeeze(0)


def arrivals_after_end(spikes: Tensor, delay: Tensor, post: int) -> tuple[int, int]:
    """Count the arrivals of spikes at the ends of their steps that a sequence is too short for.

    Args:
        spikes: ``(time, batch, pre)``.
        delay: in steps, ``(1, 1)``, ``(1, pre)``, ``(post, 1)`` or ``(post, pre)``; of a recurrent connection, plus 1.
        post: number of receiving neurons.

    Returns:
        ``(late, all)``: arrivals after the last step, and all of them, over batch and synapses.

    Raises:
        DelayRangeError: a delay that is negative or not finite.

    Example:
        >>> arrivals_after_end(torch.ones(4, 1, 1), torch.tensor([[1.0], [3.0]]), post=2)
        (4, 8)
    """
    steps, _, pre = spikes.shape
    slots = _slots("arrivals_after_end(delay)", delay, delay.new_empty(post, pre)).clamp(max=steps)
    until = torch.cat([spikes.new_zeros(1, pre), (spikes != 0).sum(1).cumsum(0)]).long()  # spikes before each step
    late = until[-1] - until.gather(0, steps - slots)
    return int(late.sum()), post * int(until[-1].sum())


late_arrivals = arrivals_after_end  # its former name; delaykit_spatial.late_arrivals counts those of a connection


def _run(operator: str, like: Tensor) -> Callable[..., Any]:
    """Find the operator; a compiler keeps it whole on the CPU and unrolls plain torch elsewhere."""
    if torch.compiler.is_compiling():
        module = numba if like.device.type == "cpu" else plain
        return getattr(module, operator.removeprefix("exact_"))
    return implementation_of(f"spatial_{operator}", like.device)


def _slots(where: str, delay: Tensor, weight: Tensor) -> Tensor:
    """Return the steps in which a spike of step 0 arrives, one a synapse."""
    if delay.dim() != 2 or delay.shape[0] not in (1, weight.shape[0]) or delay.shape[1] not in (1, weight.shape[1]):
        post, pre = weight.shape
        expected = f"(1, 1), (1, {pre}), ({post}, 1) or ({post}, {pre})"
        raise ShapeError(where, f"shape {tuple(delay.shape)}", expected, "give delays of such a shape")
    whole = delay.detach().ceil()
    if not torch.compiler.is_compiling() and not bool(((whole >= 0) & whole.isfinite()).all()):
        found = f"delays from {float(whole.min())} to {float(whole.max())}"
        raise DelayRangeError(where, found, "finite delays >= 0", "project the delays after each optimizer step")
    return whole.clamp(max=1 << 30).long().expand(weight.shape)


def _working(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _same(where: str, tensor: Tensor | None, like: Tensor) -> None:
    if tensor is not None and tensor.shape != like.shape:
        raise ShapeError(where, f"shape {tuple(tensor.shape)}", f"{tuple(like.shape)}", "give both the same shape")


def _check_estimator(where: str, estimator: str) -> None:
    if estimator not in ("exact", "none"):
        fix = "for 'interp' see delayed_linear and rollout" if estimator == "interp" else "spell one of these"
        raise ConfigError(f"{where}(estimator)", repr(estimator), "'exact' or 'none'", fix)


def _check_arrivals(spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor) -> None:
    check_operands("exact_arrivals", optional=("clock",), spikes=spikes, clock=clock, weight=weight, delay=delay)
    if spikes.dim() != 3 or weight.dim() != 2 or spikes.shape[2] != weight.shape[1]:
        found = f"spikes {tuple(spikes.shape)} and weight {tuple(weight.shape)}"
        raise ShapeError("exact_arrivals", found, "(time, batch, pre) and (post, pre)", "give both the same pre")
    _same("exact_arrivals(clock)", clock, spikes)
    if clock is None or torch.compiler.is_compiling():
        return
    if not bool(((clock.detach() > -1) & (clock.detach() <= 0)).all()):
        found = f"times from {float(clock.detach().min())} to {float(clock.detach().max())}"
        raise DelayRangeError("exact_arrivals(clock)", found, "steps in (-1, 0]", "pass the clock of exact_rollout")


def _check_rollout(
    i_jump: Tensor, v_jump: Tensor | None, weight: Tensor | None, rescale_every: int, min_slope: float
) -> None:
    optional = ("v_jump", "recurrent_weight")
    check_operands("exact_rollout", optional=optional, i_jump=i_jump, v_jump=v_jump, recurrent_weight=weight)
    if i_jump.dim() != 3 or not i_jump.is_floating_point() or 0 in i_jump.shape[:1]:
        found = f"{i_jump.dtype} of shape {tuple(i_jump.shape)}"
        fix = "give the whole sequence, time first"
        raise ShapeError("exact_rollout(i_jump)", found, "floating point (time >= 1, batch, post)", fix)
    _same("exact_rollout(v_jump)", v_jump, i_jump)
    post = i_jump.shape[2]
    if weight is not None and weight.shape != (post, post):
        fix = "give one weight for each pair of neurons"
        raise ShapeError("exact_rollout(recurrent_weight)", f"shape {tuple(weight.shape)}", f"{(post, post)}", fix)
    if not min_slope > 0 or rescale_every < 0:
        found = f"min_slope={min_slope}, rescale_every={rescale_every}"
        raise ConfigError("exact_rollout", found, "min_slope > 0 and rescale_every >= 0", "correct these numbers")
