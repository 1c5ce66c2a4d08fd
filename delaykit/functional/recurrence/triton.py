"""The recurrence for CUDA, by Triton: one program keeps a tile of the batch on the chip for the whole sequence.

Neurons without a connection, and those whose connection is bare or delays by taps of single steps, axonal, dendritic or
synaptic, run so where they fire by a threshold; everything else runs step by step in plain torch, on the device. This
module imports Triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.adjoint import Chip, run
from delaykit.functional.recurrence.connection import taps as connections
from delaykit.functional.recurrence.connection import torch as plain_connection
from delaykit.functional.recurrence.connection.base import RecurrentConnection
from delaykit.functional.recurrence.connection.triton import LINE_PRODUCT, NONE, PRODUCT, PRODUCT_LINE, SYNAPSES
from delaykit.functional.recurrence.neuron import torch as plain
from delaykit.functional.recurrence.neuron.base import slope
from delaykit.functional.recurrence.neuron.triton import run_backward, run_forward
from delaykit.functional.recurrence.state import Recurrence, RolloutState

ROWS, DEEP = 16, 16  # samples of a program, and the depth of a step of its product: the least that tensor cores take
WIDEST = 1024  # neurons, all of which one program holds

FORWARD: dict[type, Any] = {
    type(None): NONE, connections.Bare: PRODUCT, connections.Axonal: LINE_PRODUCT,
    connections.Dendritic: PRODUCT_LINE, connections.Synaptic: SYNAPSES,
}  # fmt: skip
BACKWARD = FORWARD | {connections.Axonal: PRODUCT_LINE, connections.Dendritic: LINE_PRODUCT}


class ForwardNeuron(plain.ForwardNeuron):
    """Runs the neuron forward."""

    def run(self) -> None:
        self.run_through(None, self.drive[:0])

    def run_through(self, connection: RecurrentConnection | None, newest: Tensor) -> None:
        neuron, w = self.neuron, self.switches
        if not _fits(connection, self.drive) or (neuron.spiking and not neuron.heaviside):
            _by_steps(super(), connection, newest)
            return
        steps, batch, neurons = self.drive.shape
        history = self.drive
        if connection is not None:
            history = self.drive.new_zeros(steps + 1, batch, neurons)  # what the connection is given
            history[0] = newest
        kept, matrix, index, value = _operands(connection, self.drive, FORWARD)
        run_forward[(triton.cdiv(batch, ROWS),)](
            self.drive, history, self.spikes, kept, matrix, index, value, self.p, self.bias.contiguous(),
            self.bias if self.mask is None else self.mask, self.synapse.contiguous(), self.v.contiguous(), self.r,
            self.u, self.membrane, self.current, steps, batch, neurons, KIND=FORWARD[type(connection)].value,
            TAPS=0 if value is matrix else len(value), FIRES=neuron.spiking, MASKED=self.mask is not None,
            KEEP=self.keep, NEXT=self.spike_resets_next, BOTH=neuron.delayed_reset and neuron.reset_when == "both",
            IMMEDIATE=neuron.immediate_reset, ZERO_OLD=w.zero_old, WIPE=w.wipe, ZERO_NOW=w.zero_now, **_tiles(self.p),
        )  # fmt: skip
        if isinstance(connection, connections.Axonal):
            connection.delayed = kept


class BackwardNeuron(plain.BackwardNeuron):
    """Runs the adjoint."""

    def run(self, last: int) -> None:
        self.run_through(None, last, None)

    def run_through(
        self, connection: RecurrentConnection | None, steps: int, grad_current: Tensor | None
    ) -> Tensor | None:
        if not _fits(connection, self.spikes):
            return super().run_through(connection, steps, grad_current)
        w, spikes = self.switches, self.spikes
        _, batch, neurons = spikes.shape
        kept, matrix, index, value = _operands(connection, spikes, BACKWARD)
        resets = self._resets().contiguous()
        gradients = spikes if connection is None else torch.empty_like(spikes)
        grad_x, steep = torch.zeros_like(self.grad_v), slope(self.neuron, self.u, self.p[4])
        run_backward[(triton.cdiv(batch, ROWS),)](
            self.grad_spikes, self.grad_membrane, steep, spikes, resets, self.u, self.membrane,
            self.start.contiguous(), self.p, grad_x if self.mask is None else self.mask,
            torch.zeros_like(grad_x) if grad_current is None else grad_current.contiguous(), gradients, kept, matrix,
            index, value, self.grad_v, self.grad_i, self.grad_r, grad_x, self.grad_drive, self.grad_sums,
            self.grad_after_reset, self.grad_through_spike, steps, batch, neurons,
            KIND=BACKWARD[type(connection)].value,
            TAPS=0 if value is matrix else len(value), MASKED=self.mask is not None,
            ONE_MEMBRANE=len(self.grad_membrane) == 1 < steps, ONE_RESET=len(resets) == 1 < steps,
            SUM=self.record > 0 and self.grad_sums is not self.grad_drive, RECORD=self.record, ZERO_OLD=w.zero_old,
            WIPE=w.wipe, ZERO_NOW=w.zero_now, THROUGH_NOW=w.through_now, THROUGH_OLD=w.through_old, **_tiles(self.p),
        )  # fmt: skip
        if isinstance(connection, connections.Axonal):
            connection.arrived = kept.transpose(1, 2)
        elif isinstance(connection, (connections.Dendritic, connections.Synaptic)):
            connection.grad_current = gradients.transpose(1, 2)
        if isinstance(connection, connections.Dendritic):
            connection.grad_product = kept
        return None if connection is None else grad_x


def _fits(connection: RecurrentConnection | None, like: Tensor) -> bool:
    """Tell whether one program can run all steps."""
    taps = connection.taps if isinstance(connection, connections.Tapped) else None
    known = type(connection) in FORWARD and (taps is None or taps.order == 0)
    return known and like.numel() > 0 and like.shape[2] <= WIDEST


def _operands(connection: Any, like: Tensor, kinds: dict[type, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what is kept between line and product, the matrix ``(from, to)``, index and value of the taps."""
    if connection is None:
        return like, like, like, like
    forwards = kinds is FORWARD
    weight = connection.weight
    matrix = (weight.t() if forwards else weight).contiguous()
    kind = kinds[type(connection)]
    kept = torch.empty_like(like) if kind.value in (LINE_PRODUCT.value, PRODUCT_LINE.value) else like
    if connection.taps is None:
        return kept, matrix, matrix, matrix
    index, value = connection.taps.index, connection.taps.value
    if kind.value != SYNAPSES.value:
        return kept, matrix, index.flatten(1).contiguous(), value.flatten(1).contiguous()
    value = weight * value
    if forwards:
        index, value = index.transpose(1, 2), value.transpose(1, 2)
    return kept, matrix, index.contiguous(), value.contiguous()


def _tiles(p: Tensor) -> dict[str, Any]:
    block = max(DEEP, triton.next_power_of_2(p.shape[1]))
    return {"ROWS": ROWS, "BLOCK": block, "DEEP": DEEP, "DOT": p.dtype == torch.float32}


def _by_steps(neuron: Any, connection: RecurrentConnection | None, newest: Tensor) -> None:
    neuron.run() if connection is None else neuron.run_through(connection, newest)


CHIP = Chip(ForwardNeuron, BackwardNeuron, plain_connection.PARTS)


def recurrence(
    currents: Tensor, given: Recurrence, dynamics: LIFDynamics, state: RolloutState, mask: Tensor | None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run :func:`delaykit.functional.recurrence.rollout`, whose arguments these are, checked."""
    return run(CHIP, currents, given, dynamics, state, mask)
