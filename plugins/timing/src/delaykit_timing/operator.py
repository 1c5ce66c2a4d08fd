"""The operator: (spike times, weights, delays) -> spike times, exactly, with exact gradients.

``I_j' = -I_j / tau_synapse + sum_k w_{j, i(k)} delta(t - t_k - d_{j, i(k)})``, ``V_j' = -V_j / tau_membrane + I_j``;
at ``V_j = threshold`` neuron j fires and ``V_j <- 0``.

Time O(arrivals x post + spikes), kept for backward O(arrivals + spikes). Delays of one a layer or a presynaptic neuron
cost one sort a sample; others one sort a sample and postsynaptic neuron.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from delaykit.errors import ConfigError, ShapeError
from delaykit.functional.derivatives import first_only
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import check_operands, check_tensors
from delaykit_timing import reference
from delaykit_timing.dynamics import TimingDynamics
from delaykit_timing.spikes import InputSpikes


class SpikeTimes(NamedTuple):
    """What a layer did.

    Args:
        when: time of each spike, ``(spike,)``, differentiable.
        sample: sample of each spike, ``(spike,)``.
        neuron: neuron of each spike, ``(spike,)``.
        potential: potential at the end of the window, ``(sample, post)``, differentiable.
    """

    when: Tensor
    sample: Tensor
    neuron: Tensor
    potential: Tensor


@torch.compiler.disable
def spike_times(
    times: Tensor, neurons: Tensor, weight: Tensor, dynamics: TimingDynamics, delays: Tensor | None = None
) -> SpikeTimes:
    """Find all spikes of a layer.

    Args:
        times: input spikes, ``(sample, slot)``, each row ascending; infinity in empty slots.
        neurons: presynaptic neuron of each, ``(sample, slot)``, int64, in 0 .. pre - 1.
        weight: ``(post, pre)``; one spike raises the current by so much.
        dynamics: time constants, threshold and window.
        delays: in the unit of time, >= 0, ``(1, 1)``, ``(1, pre)``, ``(post, 1)`` or ``(post, pre)``; None: none.

    Returns:
        Spikes in no particular order, and potentials, in the dtype of ``times`` and ``weight`` together; inside, all
        is computed in float64.

    Raises:
        ConfigError: something else where the dynamics belong.
        ShapeError: shapes that do not fit each other.

    Example:
        >>> times, neurons = torch.tensor([[0.1, 0.2]], dtype=torch.float64), torch.tensor([[0, 1]])
        >>> out = spike_times(times, neurons, torch.tensor([[4.0, 4.0]]).double(), TimingDynamics(0.8))
        >>> [f"{float(t):.4f}" for t in out.when]
        ['0.3280', '0.5744']

    Reference:
        Yamamoto, Sakemi, Aihara, eqs. 12-19; we keep (I, V) since the latest event in place of sums over exp(t / tau).
    """
    if not isinstance(dynamics, TimingDynamics):
        raise ConfigError("spike_times", f"dynamics={dynamics!r}", "a TimingDynamics", "give delays after it")
    _check(times, neurons, weight, delays)
    if delays is not None and delays.shape[0] == 1:  # one sort a sample
        shift = delays.expand(1, weight.shape[1])[0]
        times, order = (times + shift[neurons]).sort(dim=1, stable=True)
        neurons, delays = neurons.gather(1, order), None
    elif delays is not None:
        delays = delays.expand(weight.shape)
    counts = (times.detach() < dynamics.end).sum(1)
    arrivals = InputSpikes(times, neurons, counts, delays)
    dtype = torch.promote_types(times.dtype, weight.dtype)
    if wants_reference():
        when, sample, neuron, potential = reference.layer(arrivals, weight, dynamics)
    else:
        when, potential, sample, neuron = _Spikes.apply(times, weight, delays, arrivals, dynamics)
    return SpikeTimes(when.to(dtype), sample, neuron, potential.to(dtype))


class _Spikes(torch.autograd.Function):
    """The operator with its adjoint."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any, times: Tensor, weight: Tensor, delays: Tensor | None, arrivals: InputSpikes, dynamics: TimingDynamics
    ):
        record, potential = implementation_of("timing_spikes", weight.device)(arrivals, weight, dynamics)
        ctx.save_for_backward(times, weight, delays, arrivals.neurons, arrivals.counts)
        ctx.record, ctx.dynamics = record, dynamics
        # a record is read by the backend that wrote it
        ctx.gradients = implementation_of("timing_gradients", weight.device)
        sample, neuron = record.sample, record.neuron.long()
        ctx.mark_non_differentiable(sample, neuron)
        return record.when.detach(), potential, sample, neuron  # the record must not hold what holds it

    @staticmethod
    @first_only("spike_times")
    def backward(ctx: Any, grad_when: Tensor, grad_potential: Tensor, *_: Any):  # type: ignore[no-untyped-def]
        times, weight, delays, neurons, counts = ctx.saved_tensors
        arrivals = InputSpikes(times, neurons, counts, delays)
        found = ctx.gradients(arrivals, weight, ctx.dynamics, ctx.record, grad_when.double(), grad_potential.double())
        grads = [None if g is None else g.to(x.dtype) for g, x in zip(found, (times, weight, delays), strict=True)]
        return *grads, None, None


def _check(times: Tensor, neurons: Tensor, weight: Tensor, delays: Tensor | None) -> None:
    check_operands("spike_times", optional=("delays",), times=times, weight=weight, delays=delays)
    check_tensors("spike_times", floating=False, neurons=neurons)
    if times.dim() != 2 or neurons.shape != times.shape or neurons.dtype != torch.int64:
        found = f"times {tuple(times.shape)} and neurons {tuple(neurons.shape)} of {neurons.dtype}"
        raise ShapeError("spike_times", found, "(sample, slot) twice, neurons int64", "make them with Events")
    if weight.dim() != 2:
        fix = "give one weight for each pair of neurons"
        raise ShapeError("spike_times", f"weight {tuple(weight.shape)}", "(post, pre)", fix)
    post, pre = weight.shape
    if neurons.numel() and not (0 <= int(neurons.min()) and int(neurons.max()) < pre):
        found = f"neurons {int(neurons.min())}..{int(neurons.max())}"
        fix = "give the events of these neurons, or another weight"
        raise ShapeError("spike_times", found, f"0..{pre - 1}, as weight {tuple(weight.shape)} has them", fix)
    if delays is not None and delays.shape not in {(1, 1), (1, pre), (post, 1), (post, pre)}:
        expected = f"(1, 1), (1, {pre}), ({post}, 1) or ({post}, {pre})"
        raise ShapeError("spike_times", f"delays {tuple(delays.shape)}", expected, "give delays of such a shape")
