r"""Run a recurrent layer over a whole sequence: delayed recurrent connection and neuron, with one hand-written adjoint.

    x_t   = s_{t-1}                                                 the recurrent connection's own input
    rec_t = mask (bias + sum_j sum_tau W_ij h_ij(tau) x_{t-tau,j})
    s_t, state_t = neuron(currents_t + rec_t, state_{t-1})          see :mod:`delaykit.functional.dynamics`

Forward keeps spikes, membrane and the delayed spikes, O(time batch post); backward costs one product a step; the
surrogate's derivative is taken after the loop, on the recorded membrane, and so do weight, bias, taps and the
neuron's numbers get their gradients. Reading the taps costs O(batch post m) a step, whatever the delays and the spread.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from delaykit.errors import ConfigError, HistoryError, ShapeError
from delaykit.functional.dispatch import chosen
from delaykit.functional.dynamics import PARAMETERS, LIFDynamics
from delaykit.functional.recurrence.connection import RecurrentConnection, connect
from delaykit.functional.recurrence.correlation import Inputs
from delaykit.functional.recurrence.decay import Fading, Lingering
from delaykit.functional.recurrence.delay import Sparse
from delaykit.functional.recurrence.grid import GridSynaptic, grid_for
from delaykit.functional.recurrence.neuron import BackwardNeuron, ForwardNeuron, pack
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Grid, Tents


class RolloutState(NamedTuple):
    """State between two sequences, each ``(batch, post)`` or None for its value at rest.

    Args:
        spikes: spikes of the last step.
        synapse: synaptic current as the neuron's library keeps it; None where the neuron has none.
        membrane: membrane after the last step.
    """

    spikes: Tensor | None = None
    synapse: Tensor | None = None
    membrane: Tensor | None = None


def rollout(
    currents: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    taps: Taps | Tents | Fading | None,
    dynamics: LIFDynamics,
    state: RolloutState | None = None,
    recurrent_mask: Tensor | None = None,
    connection: RecurrentConnection | None = None,
) -> tuple[Tensor, Tensor, RolloutState]:
    r"""Run a leaky neuron with a delayed recurrent connection over a sequence.

    ``s_t = neuron(currents_t + mask (bias + sum_j sum_tau W_ij h_ij(tau) s_{t-1-tau,j}))``

    Args:
        currents: external drive ``(time, batch, post)``, time >= 1; half precision is computed in float32.
        weight: recurrent weight ``(post, post)``; None for no recurrence.
        bias: ``(post,)``, part of the recurrent current; None for none.
        taps: delays of the recurrent connection, ``(m, 1, 1)``, ``(m, 1, post)`` axonal, ``(m, post, 1)`` dendritic or
            ``(m, post, post)`` synaptic; None for none. A tap at 0 reads the spikes of the step before.
            :class:`~delaykit.functional.tents.Tents` where the kernel has them, which are faster for synapses;
            :class:`~delaykit.functional.recurrence.decay.Fading` where currents linger instead.
        dynamics: the neuron.
        state: where to start; None for rest. Spikes before the last step are not part of it, so ``state.spikes`` is
            refused where there are delays.
        recurrent_mask: ``(batch, post)``, factor on the recurrent current (recurrent dropout, one mask a sequence).
        connection: runs the recurrent connection in place of ``weight`` and ``taps``, which are then None.

    Returns:
        Spikes and membrane, both ``(time, batch, post)``, as the neuron's library returns them, and the final state.

    Raises:
        ShapeError: a tensor does not fit the currents.
        ConfigError: a recurrent connection of a neuron that does not spike.
        HistoryError: a delayed connection is to continue from spikes that it does not remember.

    Example:
        >>> neuron = LIFDynamics(decay=0.5, surrogate=lambda x: (x > 0).to(x.dtype))
        >>> drive = torch.zeros(6, 1, 2)
        >>> drive[0] = 2.0                                     # both neurons spike at step 0 and again at step 1 or 3
        >>> from delaykit.arrivals import Linear
        >>> taps = Linear().taps(torch.tensor([[0.0, 2.0]]))   # presynaptic delays
        >>> spikes, membrane, state = rollout(drive, 2 * torch.eye(2), None, taps, neuron)
        >>> spikes[:, 0].T.tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]

    Reference:
        Queant et al. 2025 (DelRec), arXiv 2509.24852, eq. 5-9; the adjoint is ours.
    """
    _check(currents, weight, bias, taps, dynamics, recurrent_mask)
    if currents.dtype in (torch.float16, torch.bfloat16):
        currents = currents.float()
    state = state or RolloutState()
    if taps is not None and weight is not None and state.spikes is not None and taps.memory() > 1:
        raise HistoryError(
            "rollout",
            "a state with spikes for a connection with delays, which needs the spikes before them too",
            "state.spikes=None",
            "run the whole sequence at once, or start anew",
        )
    compiled, grid = _kernels_for(currents) is not None, None
    order, index, value = 0, None, None
    if isinstance(taps, Tents) and weight is not None:
        grid = grid_for(taps, currents) if compiled else None
        if grid is not None:
            value = taps.delays
            weight = weight if (scale := taps.scale()) is None else weight * scale.to(weight)
        else:
            taps = taps.taps()
    if isinstance(taps, Taps) and weight is not None:
        index, value, order = Sparse.of(taps, currents)
    if isinstance(taps, Fading) and weight is not None:
        value = torch.stack([taps.decay, taps.beyond]).to(currents)
    start = [_placed(tensor, currents) for tensor in _start(state, dynamics, currents[0])]
    parameters = dynamics.parameters(currents)
    carried = start[1]
    if not dynamics.synapse_state_decayed:  # the adjoint carries alpha i_t
        carried = parameters["synapse_decay"] * carried
    fit: Callable[[Tensor | None], Tensor | None] = lambda x: None if x is None else x.to(currents)  # noqa: E731
    plan = _Plan(dynamics, order, compiled, connection, grid)
    with torch.autocast(currents.device.type, enabled=False):
        spikes, membrane, current = _Rollout.apply(
            plan, currents, fit(weight), fit(bias), index, value, fit(recurrent_mask),
            start[0], carried, start[2], *(parameters[name] for name in PARAMETERS),
        )  # fmt: skip
    synapse = None
    if dynamics.synapse_decay is not None:
        synapse = parameters["synapse_decay"] * current if dynamics.synapse_state_decayed else current
    return spikes, membrane, RolloutState(spikes[-1], synapse, membrane[-1])


def rollout_generic(
    step: Callable[[Tensor, Tensor], Tensor],
    currents: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    taps: Taps | Tents | None,
    recurrent_mask: Tensor | None = None,
) -> Tensor:
    """Run any neuron with a delayed recurrent connection over a sequence, step by step and by plain autograd.

    ``s_t = step(currents_t + mask (bias + sum_j sum_tau W_ij h_ij(tau) s_{t-1-tau,j}), s_{t-1})``

    Args:
        step: ``(drive (batch, post), spikes of the step before (batch, post)) -> spikes (batch, post)``; it keeps its
            other states itself.
        currents: external drive ``(time, batch, post)``.
        weight: as for :func:`rollout`, as the other arguments.
        bias: ``(post,)`` or None.
        taps: delays or None.
        recurrent_mask: ``(batch, post)`` or None.

    Returns:
        Spikes ``(time, batch, post)``.

    Raises:
        ShapeError: a tensor does not fit the currents.

    Example:
        >>> spikes = rollout_generic(lambda drive, last: (drive > 0.5).float(), torch.ones(3, 1, 2), None, None, None)
        >>> spikes.shape
        torch.Size([3, 1, 2])
    """
    _check(currents, weight, bias, taps, None, recurrent_mask)
    taps = taps.taps() if isinstance(taps, Tents) else taps
    response = None
    if weight is not None and taps is not None:
        depth = min(int(taps.index.max()) + 1, len(currents))
        response = weight.unsqueeze(-1) * taps.response(depth).to(weight)
    spikes = [torch.zeros_like(currents[0])]
    for drive in currents:
        if weight is not None:
            delayed = _naive_current(spikes, weight, response)
            delayed = delayed if bias is None else delayed + bias
            drive = drive + (delayed if recurrent_mask is None else recurrent_mask * delayed)
        spikes.append(step(drive, spikes[-1]))
    return torch.stack(spikes[1:])


def _naive_current(spikes: list[Tensor], weight: Tensor, response: Tensor | None) -> Tensor:
    """Sum the last spikes through the dense response, newest first."""
    if response is None:
        return torch.nn.functional.linear(spikes[-1], weight)
    window = torch.stack(spikes[: -response.shape[-1] - 1 : -1])  # (tau, batch, pre)
    return torch.einsum("tbj,ijt->bi", window, response[..., : len(window)])


class _Plan(NamedTuple):
    """What the adjoint needs besides tensors."""

    dynamics: LIFDynamics
    order: int
    compiled: bool
    connection: RecurrentConnection | None = None
    grid: Grid | None = None


class _Rollout(torch.autograd.Function):
    """Spikes, membrane and last synaptic current of a whole sequence, and their adjoint."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, drive: Tensor, weight: Tensor | None, bias: Tensor | None, index: Tensor | None,
                value: Tensor | None, mask: Tensor | None, spikes: Tensor, synapse: Tensor, membrane: Tensor,
                *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        p = pack(plan.dynamics, parameters)
        steps, batch, neurons = drive.shape
        connection = _connection(plan, steps, weight, index, value)
        if connection is not None:
            connection.begin(steps, batch)
        needs = ctx.needs_input_grad
        neuron = ForwardNeuron(
            plan.dynamics, p, drive.detach().contiguous(), synapse.detach(), membrane.detach(),
            p.new_zeros(neurons) if bias is None else bias.detach(), None if mask is None else mask.contiguous(),
            any(needs[11:13]), plan.compiled,
        )  # fmt: skip
        newest = spikes.detach()
        for t in range(steps):
            newest = neuron.step(t, None if connection is None else connection.current(t, newest))
        ctx.set_materialize_grads(False)  # the membrane's gradient is often absent, and large
        ctx.plan, ctx.posts = plan, plan.dynamics.immediate_reset
        ctx.save_for_backward(
            p, weight, index, value, mask, spikes, membrane, neuron.first_reset, neuron.spikes, neuron.membrane,
            neuron.u if ctx.posts else None, neuron.current if neuron.keep else None,
            None if connection is None else connection.delayed,
        )  # fmt: skip
        return neuron.spikes, neuron.membrane, neuron.current[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_membrane: Tensor | None, grad_current: Tensor | None
    ) -> tuple[Any, ...]:
        p, weight, index, value, mask, spikes0, membrane0, first, spikes, membrane, u, current, kept = ctx.saved_tensors
        plan, needs, steps = ctx.plan, ctx.needs_input_grad, len(spikes)
        neuron = BackwardNeuron(
            plan.dynamics, p, spikes, membrane, u if ctx.posts else membrane, membrane0.detach(), first,
            torch.zeros_like(spikes) if grad_spikes is None else grad_spikes,
            torch.zeros_like(first).unsqueeze(0) if grad_membrane is None else grad_membrane,
            None if mask is None else mask.contiguous(),
            2 if any(needs[14:]) else int(any(needs[10:14])), plan.compiled,
        )  # fmt: skip
        connection = _connection(plan, steps, weight, index, value)
        x = Inputs(spikes0.detach(), spikes)
        if isinstance(connection, Lingering) or (isinstance(connection, GridSynaptic) and (needs[2] or needs[5])):
            connection.inputs = x
        if connection is not None:
            connection.begin_backward(steps, spikes.shape[1])
        back = None
        for t in range(steps - 1, -1, -1):
            g = neuron.step(t, back)
            if t == steps - 1 and grad_current is not None:
                g = neuron.add_to_current(t, grad_current)
            back = None if connection is None else connection.pull(t, g)
        neuron.finish()
        grad_weight = grad_bias = grad_value = None
        if connection is not None and any((needs[2], needs[3], needs[5])):
            flow = neuron.grad_drive if mask is None else neuron.grad_drive * mask
            grad_bias = flow.sum((0, 1)) if needs[3] else None
            if needs[2] or needs[5]:
                grad_weight, grad_value = connection.gradients(x, kept, flow, (needs[2], needs[5]))
        return (
            None, neuron.grad_drive, grad_weight, grad_bias, None, grad_value, None,
            None if back is None else back.clone(), neuron.gi, neuron.gv,
            *neuron.parameter_gradients(current, needs[10:]),
        )  # fmt: skip


def _connection(
    plan: _Plan, steps: int, weight: Tensor | None, index: Tensor | None, value: Tensor | None
) -> RecurrentConnection | None:
    if weight is None:
        return plan.connection
    if plan.grid is not None and value is not None:
        return GridSynaptic(weight.detach(), value.detach(), plan.grid, steps)
    if index is None and value is not None:
        return Lingering(weight.detach(), value.detach(), steps, plan.compiled)
    taps = None if index is None or value is None else Sparse(index, value.detach(), plan.order)
    return connect(weight.detach(), taps, steps, plan.compiled)


def _kernels_for(like: Tensor) -> str | None:
    """Name the backend of the compiled steps for tensors like this one; None for plain torch."""
    wanted = chosen() in (None, "cpu") and like.device.type == "cpu"
    return "cpu" if wanted and importlib.util.find_spec("numba") is not None else None


def _start(state: RolloutState, dynamics: LIFDynamics, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    synapse, membrane = dynamics.start(like)
    return (
        torch.zeros_like(like) if state.spikes is None else state.spikes,
        synapse if state.synapse is None else state.synapse,
        membrane if state.membrane is None else state.membrane,
    )


def _placed(tensor: Tensor, currents: Tensor) -> Tensor:
    try:
        return tensor.to(currents).expand(currents.shape[1:]).contiguous()
    except RuntimeError:
        raise ShapeError("rollout(state)", f"shape {tuple(tensor.shape)}", f"{tuple(currents.shape[1:])}") from None


def _check(currents: Tensor, weight: Tensor | None, bias: Tensor | None, taps: Taps | Tents | Fading | None,
           dynamics: LIFDynamics | None, mask: Tensor | None) -> None:  # fmt: skip
    if currents.dim() != 3 or not currents.is_floating_point() or 0 in currents.shape[:1]:
        found = f"{currents.dtype} of shape {tuple(currents.shape)}"
        raise ShapeError("rollout(currents)", found, "floating point (time >= 1, batch, post)")
    _, batch, post = currents.shape
    expected = {"weight": (weight, (post, post)), "bias": (bias, (post,)), "recurrent_mask": (mask, (batch, post))}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            found = f"shape {tuple(tensor.shape)} for currents {tuple(currents.shape)}"
            raise ShapeError(
                f"rollout({name})", found, f"{shape}", "one current for each neuron, behind time and batch"
            )
    if taps is not None and any(size not in (1, post) for size in taps.shape):
        raise ShapeError("rollout(taps)", f"delays of shape {taps.shape}", f"1 or {post} in both places")
    if weight is not None and dynamics is not None and not dynamics.spiking:
        raise ConfigError(
            "rollout", "a recurrent weight for a neuron without surrogate", "a spiking neuron", "pass weight=None"
        )
