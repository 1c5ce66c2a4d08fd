r"""A layer of HetSyn neurons over a whole sequence, with an exact adjoint that keeps no synapse's state.

    R_ji[t] = r_ji R_ji[t - 1] + u_ji s_i[t - 1]              recurrent synapses
    J_m[t]  = kappa_m J_m[t - 1] + c_m s[t - 1]               reset currents; c_m = a_m, or a_m + kappa_m V[t - 1]
    V[t]    = drive[t] + sum_i R_i[t] - sum_m J_m[t],         s[t] = [V[t] > threshold]

Backwards, all chains run from the last step to the first (psi = ds/dV, everything after the end is 0):

    grad_s[t] = dL/ds[t] + sum_k u_kj p_kj[t + 1] + sum_m c_m q_m[t + 1]    (without the last where resets are detached)
    grad_V[t] = dL/dV[t] + psi[t] grad_s[t] (+ kappa_m s[t] q_m[t + 1] where a reset takes the membrane)
    q_m[t]  = kappa_m q_m[t + 1] - grad_V[t]
    p_ji[t] = r_ji p_ji[t + 1] + grad_V_j[t],    e_ji[t] = r_ji e_ji[t + 1] + p_ji[t + 1]
    grad_u_ji = sum_t s_i[t - 1] p_ji[t],        grad_r_ji = u_ji sum_t s_i[t - 1] e_ji[t]

e is dp/dr, so the gradient by a decay, like the one by a weight, is found where a spike meets a chain: nothing is
recomputed forwards, nothing is divided by r, and silent steps cost no more than the chains themselves.
"""  # noqa: E501 - one equation a line

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError
from delaykit.functional.derivatives import first_only
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import check_operands
from delaykit_hetsyn import reference
from delaykit_hetsyn.reset_currents import Jumps
from delaykit_hetsyn.surrogates import Surrogate


@torch.compiler.disable
def rollout(
    drive: Tensor,
    weight: Tensor | None,
    decay: Tensor | None,
    jumps: Jumps,
    surrogate: Surrogate,
    threshold: float = 1.0,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run a layer of spiking neurons over a sequence.

    Args:
        drive: everything that flows in from outside, already filtered by its synapses, ``(time, batch, post)``.
        weight: of the recurrent synapses, ``(post, post)``, or None.
        decay: of the recurrent synapses, ``(post, post)``, ``(post, 1)``, ``(1, post)`` (one a presynaptic neuron) or
            ``(1, 1)``, in [0, 1]; None without them.
        jumps: the reset currents, from :func:`delaykit_hetsyn.reset_currents.gather`.
        surrogate: slope of the spikes in the backward pass.
        threshold: a spike is due where the membrane is above it.
        detach_reset: True lets no gradient through the spikes that start reset currents (snnTorch's way).

    Returns:
        ``(spikes, membrane)``, each ``(time, batch, post)``.

    Raises:
        ShapeError: shapes that do not fit each other.

    Example:
        >>> from delaykit_hetsyn.surrogates import TriangularSurrogate
        >>> from delaykit_hetsyn.reset_currents import ResetCurrent, gather
        >>> drive = torch.full((4, 1, 1), 1.5)
        >>> jumps = gather([ResetCurrent(0.5)], None, drive, 1)
        >>> spikes, membrane = rollout(drive, None, None, jumps, TriangularSurrogate())
        >>> membrane.flatten().tolist()
        [1.5, 0.5, 1.0, 1.25]

    Reference:
        Deng et al., "HetSyn"; the adjoint is ours.
    """
    _check(drive, weight, decay, jumps, threshold)
    work = torch.promote_types(torch.promote_types(drive.dtype, torch.float32), jumps.decay.dtype)
    post = drive.shape[2]
    if weight is None or decay is None:
        rows = factors = drive.new_zeros((0, post), dtype=work)
    else:
        work = torch.promote_types(work, torch.promote_types(weight.dtype, decay.dtype))
        rows = weight.T
        # One a presynaptic neuron runs as one a synapse; expanding is differentiable, so its gradient is the sum.
        factors = decay.T.expand(1, post) if decay.shape[1] == 1 else decay.T.expand(post, post)
    if wants_reference():
        return reference.layer(drive.to(work), weight, decay, jumps, surrogate, threshold, detach_reset)
    tensors = [t.to(work).contiguous() for t in (drive, rows, factors, jumps.decay, jumps.amplitude)]
    return _Rollout.apply(*tensors, jumps.wipes, surrogate, threshold, detach_reset)


def _check(drive: Tensor, weight: Tensor | None, decay: Tensor | None, jumps: Jumps, threshold: float) -> None:
    where = "rollout"
    check_operands(where, optional=("weight", "decay"), drive=drive, weight=weight, decay=decay)
    if drive.dim() != 3:
        fix = "give the whole sequence, time first"
        raise ShapeError(where, f"drive {tuple(drive.shape)}", "(time, batch, post)", fix)
    post = drive.shape[2]
    checks.number(f"{where} threshold", threshold)
    if not isinstance(jumps, Jumps):
        raise ConfigError(where, checks.shown(jumps), "reset currents", "pass layer.jumps(drive)")
    if (weight is None) != (decay is None):
        fix = "give both, or leave both out"
        raise ShapeError(where, "one of weight and decay without the other", "both, or none", fix)
    if weight is not None and weight.shape != (post, post):
        fix = "give one weight for each pair of neurons"
        raise ShapeError(where, f"weight {tuple(weight.shape)}", f"({post}, {post})", fix)
    if decay is not None and (decay.dim() != 2 or any(n not in (1, post) for n in decay.shape)):
        fix = "give decays of such a shape"
        raise ShapeError(where, f"decay {tuple(decay.shape)}", f"1 or {post} rows and columns", fix)
    count = len(jumps.wipes)
    if jumps.decay.shape != (count, post) or jumps.amplitude.shape != (count, post):
        found = f"reset currents {tuple(jumps.decay.shape)} and {tuple(jumps.amplitude.shape)}"
        raise ShapeError(where, found, f"({count}, {post})", "give one row for each reset current")


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, weight: Tensor, decay: Tensor, kappa: Tensor, amplitude: Tensor, wipes: Tensor,
        surrogate: Surrogate, threshold: float, detach_reset: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        given = (weight, decay, kappa, amplitude, wipes)
        spikes, membrane = implementation_of("hetsyn_rollout", drive.device)(drive, *given, threshold)
        ctx.save_for_backward(spikes, membrane, *given)
        ctx.settings = surrogate, threshold, detach_reset
        ctx.set_materialize_grads(True)
        return spikes, membrane

    @staticmethod
    @first_only("rollout")
    def backward(ctx: Any, grad_spikes: Tensor, grad_membrane: Tensor) -> tuple[Tensor | None, ...]:
        spikes, membrane, *given = ctx.saved_tensors
        surrogate, threshold, detach_reset = ctx.settings
        slope = surrogate.slope(membrane - threshold).contiguous()
        run = implementation_of("hetsyn_rollout_adjoint", spikes.device)
        grads = run(
            grad_spikes.contiguous(), grad_membrane.contiguous(), slope, spikes, membrane, *given, not detach_reset
        )
        return (*grads, None, None, None, None)
