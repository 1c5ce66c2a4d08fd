"""Step mode of synapses that decay each at its own rate: one state in place, whatever the loop around it.

Beside its input a step keeps nothing for backward. Forward, ``X_ji`` moves on in place; backward, the two sums P and Q
of :mod:`delaykit.functional.filtered_linear` move back in place, and every gradient is collected on the way. Where no
input wants a gradient, nobody waits for a step: then all is done in one sweep, with no state at all.

    y_j[t] = bias_j + sum_i weight_ji x_i[t] + sum_i beyond_ji X_ji[t-1],      X_ji[t] = decay_ji X_ji[t-1] + x_i[t]

with ``beyond = weight (decay - leak)``. Arrays of synapses are ``(pre, post)``, their states ``(batch, pre, post)``.

What an earlier segment left are currents, constants that go on decaying: the gradient of the weight counts the inputs
of its own segment, those of decay and leak all that lingers,

    grad_weight_ji = sum_t grad_y_j[t] x_i[t] + gap_ji sum_t x_i[t] P_ji[t]
    grad_gap_ji    = weight_ji (sum_t x_i[t] P_ji[t] + X_ji[0] P_ji[0]),      gap = decay - leak
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.dispatch import implementation_of
from delaykit.functional.step_tape.filters import ChannelFilter
from delaykit.functional.step_tape.operator import Tape
from delaykit.functional.step_tape.recording import ByteRecording, Recording
from delaykit.functional.step_tape.segment_operators import Gradients, SegmentOperator
from delaykit.functional.taps import Taps

AT_ONCE = 4  # rows of the batch whose inputs are turned to numbers for one sweep: all at once would cost much memory


class SynapseTape(Tape):
    """Let every synapse decay at its own rate, step by step.

    Args:
        decay: ``(post, pre)``, in [0, 1].
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
        leak: decay of the neuron's own state, ``(1, 1)`` or ``(post, 1)``; see
            :func:`~delaykit.functional.filtered_linear.filtered_linear`. None for a neuron without.

    Example:
        >>> tape = SynapseTape(torch.tensor([[0.5]]), torch.tensor([[2.0]]))
        >>> [tape.step(torch.tensor([[x]])).item() for x in (1.0, 0.0, 0.0)]
        [2.0, 1.0, 0.5]
    """

    def __init__(self, decay: Tensor, weight: Tensor, bias: Tensor | None = None, leak: Tensor | None = None) -> None:
        super().__init__()
        self._state: Tensor | None = None
        self._bind(decay, weight, bias, leak)

    def rebind(self, decay: Tensor, weight: Tensor, bias: Tensor | None = None, leak: Tensor | None = None) -> None:
        """Start a new segment with these parameters; what lingers goes on as constants, scaled by the new weights."""
        self._rebind()
        self._bind(decay, weight, bias, leak)

    def lingering(self) -> Tensor | None:
        """Return what lingers after :meth:`detach`, ``(batch, pre, post)``, spikes that the weight has yet to scale."""
        return self._state

    def forget(self) -> None:
        """Let nothing linger from now on; after :meth:`detach`."""
        self._state = None

    def add_(self, lingering: Tensor) -> None:
        """Let ``(batch, pre, post)`` linger, too."""
        self.detach()
        self._state = lingering.contiguous() if self._state is None else self._state + lingering
        self._bound = True

    def detach(self) -> None:
        """Keep what lingers, forget its graph."""
        if self._segment is not None and isinstance(self._segment.operator, DecayOperator):
            self._state = self._segment.operator.state
        super().detach()

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether nothing lingers and nothing is remembered."""
        operator = None if self._segment is None else self._segment.operator
        state = operator.state if isinstance(operator, DecayOperator) else self._state
        return (state is None or _rests(state)) and super().silent(before_last)

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach what lingers: inputs of this segment, and the weight."""
        return self.recorded

    def _bind(self, decay: Tensor, weight: Tensor, bias: Tensor | None, leak: Tensor | None) -> None:
        if decay.shape != weight.shape:
            found = f"decay {tuple(decay.shape)} for weight {tuple(weight.shape)}"
            raise ShapeError("SynapseTape", found, "twice (post, pre)", "give every synapse a decay")
        with torch.enable_grad():  # a segment may begin under no_grad and train later
            self._parameters = (decay, weight, decay if leak is None else decay - leak, bias)

    def _operator(self, x: Tensor) -> SegmentOperator:
        weight = self._parameters[1]
        if x.dim() != 2 or x.shape[1] != weight.shape[1]:
            found = f"an input {tuple(x.shape)} for weight {tuple(weight.shape)}"
            raise ShapeError("SynapseTape", found, "(batch, pre) and (post, pre)", "pass one time step")
        return DecayOperator(*self._parameters, x, self._state)


def _rests(state: Tensor) -> bool:
    """Tell whether nothing lingers, ``(batch, pre, post)``; one row of a running net mostly says so alone."""
    return not (bool(state[:1].any()) or bool(state[1:].any()))


class DecayOperator(SegmentOperator):
    """One segment of a :class:`SynapseTape`.

    Args:
        decay: ``(post, pre)``.
        weight: ``(post, pre)``.
        gap: ``(post, pre)``, decay minus leak.
        bias: ``(post,)`` or None.
        x: an input like those to come.
        state: what an earlier segment left, ``(batch, pre, post)``; taken over and changed in place.
    """

    recording = ByteRecording

    def __init__(
        self, decay: Tensor, weight: Tensor, gap: Tensor, bias: Tensor | None, x: Tensor, state: Tensor | None
    ) -> None:
        at_once = Taps(decay.new_zeros(1, 1, 1, dtype=torch.int64), decay.new_ones(1, 1, 1), 0)
        direct = ChannelFilter(at_once, weight.shape[1], weight.dtype)
        super().__init__(direct, True, x.shape, weight.dtype, x.device, weight, bias)
        self.decay, self.gap = decay, gap
        # Copies, also of a single row: the parameters' own storages stay as they are (see `compiled.array`).
        self.factors = tuple(t.detach().t().clone(memory_format=torch.contiguous_format) for t in (decay, weight * gap))
        self.state = weight.new_zeros(len(x), *self.factors[0].shape) if state is None else state
        self.first: Tensor | None = None  # the state before the first recorded step
        self.needs_grad_x = self._recorded = False
        self._advance = implementation_of("decay_step", x.device)

    @property
    def parameters(self) -> tuple[Tensor | None, ...]:
        return self.decay, self.weight, self.gap, self.bias

    @property
    def outlasts(self) -> int:
        """A state that one step left without a graph has none, as in plain autograd."""
        return 0

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        if keep is None and not self._recorded:
            self._recorded = True
            self.first = None if _rests(self.state) else self.state.clone()
        self.needs_grad_x = self.needs_grad_x or x.requires_grad
        x, out = x.to(self.dtype), x.dtype
        assert self.weight is not None
        return F.linear(x, self.weight, self.bias).add_(self._advance(self.state, x, *self.factors)).to(out)

    def by_parameter(
        self, decay: Tensor, at_once: Tensor, beyond: Tensor, of_left: Tensor | None, bias: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Turn the sums of a backward pass, ``(post, pre)``, into the gradients of the parameters.

        Args:
            decay: gradient of the decay.
            at_once: gradient of the weight on inputs of the same step.
            beyond: gradient of ``weight * gap`` by inputs of this segment.
            of_left: the same by what an earlier segment left; None where nothing was.
            bias: gradient of the bias.
        """
        assert self.weight is not None
        weight, gap = self.weight.detach(), self.gap.detach()
        grad_gap = weight * (beyond if of_left is None else beyond + of_left)
        return self.wanted(decay, at_once.addcmul_(beyond, gap), grad_gap, bias)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        kind = _AtOnce if self.first is None and not self.needs_grad_x else _StepByStep
        return kind(self, recording, last)


class _AtOnce(Gradients[DecayOperator]):
    """A backward pass whose inputs want no gradient: one sweep of the sequence operator, after the last row came."""

    def __init__(self, operator: DecayOperator, recording: Recording, last: int) -> None:
        self.operator, self.last, self.oldest, self.recording = operator, last, last + 1, recording
        self.rows = operator.decay.new_zeros(last + 1 - recording.pad, operator.batch, len(operator.decay))

    def push(self, row: int, grad: Tensor | None) -> None:
        if grad is not None:
            self.rows[row - self.recording.pad] = grad

    def input(self, row: int) -> Tensor:
        raise AssertionError("no input of this segment wants a gradient")

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        operator, y = self.operator, self.rows[first - self.recording.pad :]
        rows = self.recording.rows[:, first : self.last + 1]  # (pre, time, batch)
        pull = implementation_of("decay_filter_gradient", operator.device)
        factors = tuple(t.t().contiguous() for t in operator.factors)
        grad_decay, grad_beyond = torch.zeros_like(factors[0]), torch.zeros_like(factors[1])
        grad_weight = torch.zeros_like(factors[0])
        for part, grad in zip(rows.split(AT_ONCE, 2), y.split(AT_ONCE, 1), strict=True):
            x = part.permute(1, 2, 0).to(operator.dtype, memory_format=torch.contiguous_format)
            _, of_decay, of_beyond = pull(x[:-1], grad[1:], *factors, False)
            grad_decay += of_decay
            grad_beyond += of_beyond
            grad_weight.addmm_(grad.flatten(0, 1).t(), x.flatten(0, 1))
        return operator.by_parameter(grad_decay, grad_weight, grad_beyond, None, y.sum((0, 1)))


class _StepByStep(Gradients[DecayOperator]):
    """The sums P and Q of one backward pass, as they stand before the rows that have arrived."""

    def __init__(self, operator: DecayOperator, recording: Recording, last: int) -> None:
        self.operator, self.last, self.oldest, self.recording = operator, last, last + 1, recording
        self.later, self.slope = torch.zeros_like(operator.state), torch.zeros_like(operator.state)
        self.grad_decay, self.grad_beyond = (torch.zeros_like(operator.factors[0]) for _ in range(2))
        assert operator.weight is not None
        self.grad_weight, self.grad_bias = torch.zeros_like(operator.weight), operator.weight.new_zeros(())
        self._retreat = implementation_of("decay_step_back", operator.device)

    def push(self, row: int, grad: Tensor | None) -> None:
        weight = self.operator.weight
        x = self.recording.rows[:, row].t().to(self.grad_weight.dtype, memory_format=torch.contiguous_format)
        given = None if grad is None else grad.to(x.dtype)
        self.grad_x = self._retreat(
            self.later, self.slope, given, x, *self.operator.factors, self.grad_decay, self.grad_beyond
        )
        if given is not None and weight is not None:
            self.grad_x.addmm_(given, weight.detach())
            self.grad_weight.addmm_(given.t(), x)
            self.grad_bias = self.grad_bias + given.sum(0)

    def input(self, row: int) -> Tensor:
        return self.grad_x

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        operator, of_left = self.operator, None
        if operator.first is not None:  # it acts like an input of each synapse's own, for all but the weight
            of_left = (operator.first * self.later).sum(0).t()
            self.grad_decay += (operator.first * self.slope).sum(0)
        grad_decay = (self.grad_decay * operator.factors[1]).t()
        return operator.by_parameter(grad_decay, self.grad_weight, self.grad_beyond.t(), of_left, self.grad_bias)
