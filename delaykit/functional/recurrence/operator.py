r"""Run a recurrent layer over a whole sequence: delayed recurrent connection and neuron, with one hand-written adjoint.

    x_t   = s_{t-1}                                                 the recurrent connection's own input
    rec_t = mask (bias + sum_j sum_tau W_ij h_ij(tau) x_{t-tau,j})
    s_t, state_t = neuron(currents_t + rec_t, state_{t-1})          see :mod:`delaykit.functional.dynamics`

Forward keeps spikes, membrane and the delayed spikes, O(time batch post); backward costs one product a step; the
surrogate's derivative is taken after the loop, on the recorded membrane, and so do weight, bias, taps and the
neuron's numbers get their gradients. Reading the taps costs O(batch post m) a step, whatever the delays and the spread.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.eager import eager
from delaykit.functional.inputs import as_it_is
from delaykit.functional.recurrence import torch as plain
from delaykit.functional.recurrence.connection.base import Fading, RecurrentConnection
from delaykit.functional.recurrence.state import HALF, Recurrence, RolloutState, check, check_state
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents


@eager  # its adjoint works on memory, step by step
def rollout(
    currents: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    taps: Taps | Tents | OwnTents | Fading | None,
    dynamics: LIFDynamics,
    state: RolloutState | None = None,
    recurrent_mask: Tensor | None = None,
    connection: RecurrentConnection | None = None,
) -> tuple[Tensor, Tensor, RolloutState]:
    r"""Run a leaky neuron with a delayed recurrent connection over a sequence.

    ``s_t = neuron(currents_t + mask (bias + sum_j sum_tau W_ij h_ij(tau) s_{t-1-tau,j}))``

    Args:
        currents: external drive ``(time, batch, post)``; half precision is computed in float32.
        weight: recurrent weight ``(post, post)``; None for no recurrence.
        bias: ``(post,)``, part of the recurrent current; None for none.
        taps: delays of the recurrent connection, ``(m, 1, 1)``, ``(m, 1, post)`` axonal, ``(m, post, 1)`` dendritic or
            ``(m, post, post)`` synaptic; None for none. A tap at 0 reads the spikes of the step before.
            :class:`~delaykit.functional.tents.Tents` or :class:`~delaykit.functional.tents.OwnTents`, faster for
            synapses; :class:`~delaykit.functional.recurrence.Fading` where currents linger.
        dynamics: the neuron.
        state: where to start; None for rest. Spikes before the last step are not part of it, so ``state.spikes`` is
            refused where there are delays.
        recurrent_mask: ``(batch, post)``, factor on the recurrent current (recurrent dropout, one mask a sequence).
        connection: runs the recurrent connection in place of ``weight`` and ``taps``, which are then None.

    Returns:
        Spikes and membrane, both ``(time, batch, post)``, as the neuron's library returns them, and the final state.

    Raises:
        ShapeError: a tensor does not fit the currents.
        ConfigError: a recurrent connection of a neuron that does not spike, or a surrogate that is not elementwise.
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
    check(currents, weight, bias, taps, dynamics, recurrent_mask)
    currents = currents.float() if currents.dtype in HALF else currents
    state = state or RolloutState()
    check_state(state, weight, taps)
    if not len(currents):
        return currents.clone(), currents.clone(), state
    given = Recurrence(_kept(weight), bias, taps) if connection is None else Recurrence(None, bias, connection)
    own = connection is not None and wants_reference()  # which has no other form than its own
    run = plain.recurrence if own else implementation_of("recurrence", currents.device)
    with torch.autocast(currents.device.type, enabled=False):
        return run(currents, given, dynamics, state, recurrent_mask)


def _kept(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else as_it_is(weight)
