"""What a connection is made of after ``compact_``: its kept synapses, event by event, in whatever form it is run."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from delaykit import Delay, TrainingError
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence.connection import RecurrentConnection
from delaykit.synapse import Engine
from delaykit_sparsify.rollout import rollout
from delaykit_sparsify.sparse import Ring, SparseSynapses, check_inference, dense_response, sparse_filter


class CompactDelay(Delay):
    """The kept synapses of one connection, weights and delays in one list; does not learn.

    Args:
        arrivals: the synapses.
        kept: their number (a fractional delay makes two arrivals of one synapse).
    """

    holds_weight = True
    first: Tensor
    place: Tensor
    value: Tensor

    def __init__(self, arrivals: SparseSynapses, kept: int) -> None:
        super().__init__()
        self.outputs, self.kept, self.depth = arrivals.outputs, kept, arrivals.depth()
        self.register_buffer("first", arrivals.first)
        self.register_buffer("place", arrivals.place)
        self.register_buffer("value", arrivals.value)

    def arrivals(self) -> SparseSynapses:
        """Return the synapses as the operators take them."""
        return SparseSynapses(self.first, self.place, self.value, self.outputs)

    def impulse_response(self, weight: Tensor) -> Tensor:
        """Write the response out densely; ``weight`` is a placeholder and is not read."""
        return dense_response(self.arrivals())

    def engine(self, weight: Tensor, bias: Tensor | None) -> Engine:
        """Run event by event."""
        return CompactEngine(self.arrivals(), bias)

    def recurrence(self) -> RecurrentConnection:
        """Run event by event inside ``dk.rollout``, too."""
        return CompactRecurrence(self.arrivals())

    def advance_(self, progress: float) -> None:
        """Refuse: there is nothing left to prune."""
        raise TrainingError("advance_", "a compact connection", "a model in training", "prune before compact_")

    def longest(self) -> int:
        """Return the largest delay."""
        return self.depth

    def extra_repr(self) -> str:
        inputs = len(self.first) - 1
        return f"compact: {self.kept} of {self.outputs * inputs} synapses, delays up to {self.depth - 1} steps"


class CompactEngine(Engine):
    """Sparse synapses, ready to run."""

    copies = False  # the weight is a placeholder, of no numbers that could change

    def __init__(self, arrivals: SparseSynapses, bias: Tensor | None) -> None:
        self.arrivals, self.bias = arrivals, bias

    def sequence(self, spikes: Tensor) -> Tensor:
        return sparse_filter(spikes, self.arrivals, self.bias)

    def tape(self) -> CompactStepper:
        return CompactStepper(Ring(self.arrivals, self.bias))

    def rebind(self, tape: Any) -> None:
        """Do nothing: the synapses never change, and the ring holds no graph."""


class CompactRecurrence(RecurrentConnection):
    """Sparse synapses inside a rollout; forward only."""

    def __init__(self, arrivals: SparseSynapses) -> None:
        self.arrivals = arrivals

    def begin(self, steps: int, batch: int) -> None:
        """Start with no current on its way."""
        self.ring = Ring(self.arrivals)

    def current(self, t: int, x: Tensor) -> Tensor:
        """Deliver the newest spikes and return the current of this step."""
        return self.ring.push(x)

    def at_once(
        self, currents: Tensor, bias: Tensor | None, mask: Tensor | None, dynamics: LIFDynamics
    ) -> tuple[Tensor, Tensor] | None:
        """Run all steps in one compiled loop, where there is one."""
        return rollout(self.arrivals, currents, bias, mask, dynamics)

    def begin_backward(self, steps: int, batch: int) -> None:
        """Refuse: there is nothing that could learn."""
        raise _nothing_learns()

    def pull(self, t: int, g: Tensor) -> Tensor:
        """Refuse, as :meth:`begin_backward` does."""
        raise _nothing_learns()

    def gradients(self, x: Any, delayed: Any, g: Tensor, want: Any) -> tuple[Tensor | None, Tensor | None]:
        """Refuse, as :meth:`begin_backward` does."""
        raise _nothing_learns()


def _nothing_learns() -> TrainingError:
    fix = "run under torch.no_grad(); train a copy made before compact_"
    return TrainingError("rollout", "a backward pass through compact synapses", "inference", fix)


class CompactStepper:
    """One stream in step mode."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def step(self, x: Tensor) -> Tensor:
        """Run one step: (batch, pre) -> (batch, post)."""
        check_inference("compact connection", x)
        return self.ring.push(x)

    def detach(self) -> None:
        """Do nothing: there is no graph."""


class CompactLinear(nn.Module):
    """What a plain ``nn.Linear`` is after :func:`compact_`: it has ``compact`` in place of ``weight``."""

    in_features: int
    out_features: int
    bias: nn.Parameter | None
    compact: CompactDelay

    def recurrence(self) -> RecurrentConnection:
        """Run event by event inside ``dk.rollout`` where a neuron has it as its bare ``recurrent``."""
        return self.compact.recurrence()

    def forward(self, input: Tensor) -> Tensor:
        """Run the sparse product: (..., pre) -> (..., post)."""
        rows = input.reshape(1, -1, input.shape[-1])
        out = sparse_filter(rows, self.compact.arrivals(), self.bias)
        return out.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return self.compact.extra_repr()
