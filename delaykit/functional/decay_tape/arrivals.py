"""Step mode of synapses that delay and decay, each in its own way: states in place, no number a synapse and step.

With ``R`` the impulse response of weights and delays, and ``gap = decay - leak``:

    a_ji[t] = sum_tau R[j, i, tau] x_i[t - tau]                       what arrives at a synapse
    y_j[t]  = bias_j + sum_i a_ji[t] + gap_ji X_ji[t-1],              X_ji[t] = decay_ji X_ji[t-1] + a_ji[t]

Backwards ``P_ji[t] = grad_y_j[t+1] + decay_ji P_ji[t+1]`` and its derivative by the decay, ``Q_ji[t] = P_ji[t+1] +
decay_ji Q_ji[t+1]``, move back in place, and what arrived is computed again from the inputs, which alone were kept:

    grad_a_ji[t] = grad_y_j[t] + gap_ji P_ji[t]
    grad_gap_ji  = sum_t a_ji[t] P_ji[t],    grad_decay_ji = gap_ji sum_t a_ji[t] Q_ji[t]

Arrays of synapses are ``(pre, post)``, their states ``(pre, batch, post)``, so that products over tau are batched ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.step_tape.filters import ChannelFilter
from delaykit.functional.step_tape.operator import Tape
from delaykit.functional.step_tape.recording import ByteRecording, Recording
from delaykit.functional.step_tape.segment_operators import Gradients, SegmentOperator
from delaykit.functional.taps import Taps


class ArrivalTape(Tape):
    """Let every synapse answer a spike by a response of its own, and let that answer linger.

    Args:
        response: ``(post, pre, depth)``, weights included.
        decay: factor a step, broadcastable to ``(post, pre)``, in [0, 1].
        bias: ``(post,)`` or None; it does not linger.
        leak: decay of the neuron's own state, ``(1, 1)`` or ``(post, 1)``; None for a neuron without.
        remember: see :class:`~delaykit.functional.step_tape.Tape`.

    Example:
        >>> tape = ArrivalTape(torch.tensor([[[0.0, 2.0]]]), torch.tensor([[0.5]]))
        >>> [tape.step(torch.tensor([[x]])).item() for x in (1.0, 0.0, 0.0, 0.0)]
        [0.0, 2.0, 1.0, 0.5]
    """

    def __init__(
        self,
        response: Tensor,
        decay: Tensor,
        bias: Tensor | None = None,
        leak: Tensor | None = None,
        *,
        remember: int | None = None,
    ) -> None:
        super().__init__(remember)
        self._state: Tensor | None = None
        self._bind(response, decay, bias, leak)

    def rebind(self, response: Tensor, decay: Tensor, bias: Tensor | None = None, leak: Tensor | None = None) -> None:
        """Start a new segment with these parameters; what has arrived goes on as it is."""
        self._rebind()
        self._bind(response, decay, bias, leak)

    def detach(self) -> None:
        """Keep what lingers and the remembered inputs, forget their graph."""
        if self._segment is not None and isinstance(self._segment.operator, ArrivalOperator):
            self._state = self._segment.operator.state
        super().detach()

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether nothing lingers and nothing is remembered."""
        operator = None if self._segment is None else self._segment.operator
        state = operator.state if isinstance(operator, ArrivalOperator) else self._state
        return (state is None or not bool(state.any())) and super().silent(before_last)

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach what lingers or is under way: inputs, and the response."""
        operator = None if self._segment is None or not self.recorded else self._segment.operator
        lingers = isinstance(operator, ArrivalOperator) and operator.lingers
        return lingers or super().graph_under_way()

    def _bind(self, response: Tensor, decay: Tensor, bias: Tensor | None, leak: Tensor | None) -> None:
        with torch.enable_grad():  # a segment may begin under no_grad and train later
            each = decay.to(response.dtype).expand(response.shape[:2])
            self._parameters = (response, each, each if leak is None else each - leak, bias)

    def _operator(self, x: Tensor) -> SegmentOperator:
        post, pre, _ = self._parameters[0].shape
        if x.dim() != 2 or x.shape[1] != pre:
            found = f"an input {tuple(x.shape)} for {post} x {pre} synapses"
            raise ShapeError("ArrivalTape", found, f"(batch, {pre})", "pass one time step")
        return ArrivalOperator(*self._parameters, x, self._state)


class ArrivalOperator(SegmentOperator):
    """One segment of an :class:`ArrivalTape`.

    Args:
        response: ``(post, pre, depth)``.
        decay: ``(post, pre)``.
        gap: ``(post, pre)``, decay minus leak.
        bias: ``(post,)`` or None.
        x: an input like those to come.
        state: what an earlier segment left, ``(pre, batch, post)``; taken over and changed in place.
    """

    recording = ByteRecording

    def __init__(
        self, response: Tensor, decay: Tensor, gap: Tensor, bias: Tensor | None, x: Tensor, state: Tensor | None
    ) -> None:
        last = torch.full((1, 1, 1), response.shape[2] - 1, device=x.device)
        reaching = ChannelFilter(Taps(last, response.new_ones(1, 1, 1).detach(), 0), x.shape[1], response.dtype)
        super().__init__(reaching, False, x.shape, response.dtype, x.device, None, bias)
        self._given = (response, decay, gap, bias)
        self.answer = response.detach().permute(1, 2, 0).flip(1).contiguous()  # (pre, depth, post), oldest first
        self.decay, self.gap = (t.detach().t().unsqueeze(1).contiguous() for t in (decay, gap))
        pre, _, post = self.answer.shape
        self.state = response.new_zeros(pre, len(x), post) if state is None else state
        # Made once: between outputs that stay, numbers of this size would leave holes that nothing fits grad_arrived.
        self._seen = response.new_empty(pre, response.shape[2], len(x))
        self._arrived, self._current = torch.empty_like(self.state), torch.empty_like(self.state)
        self.starts: dict[int, Tensor] = {}  # states before a step that is recorded and after one that is not, by row
        self.needs_grad_x = self._recorded = self._paused = False

    @property
    def parameters(self) -> tuple[Tensor | None, ...]:
        return self._given

    def arrive(self, recording: Recording, row: int) -> tuple[Tensor, Tensor]:
        """Give what arrives in this row and the inputs it comes from, ``(pre, depth, batch)``; valid until the next."""
        self._seen.copy_(recording.rows[:, row + 1 - self.answer.shape[1] : row + 1])
        return torch.bmm(self._seen.transpose(1, 2), self.answer, out=self._arrived), self._seen

    def pause(self) -> None:
        self._paused = True

    @property
    def lingers(self) -> bool:
        """Whether the last step has left currents with a graph."""
        return self._recorded and not self._paused

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        if self._paused:
            self._paused = self._recorded = False
        elif keep is None and not self._recorded:
            self._recorded = True
            if bool(self.state.any()):
                self.starts[row] = self.state.clone()
        self.needs_grad_x = self.needs_grad_x or x.requires_grad
        arriving, _ = self.arrive(recording, row)
        out = torch.addcmul(arriving, self.gap, self.state, out=self._current).sum(0)
        self.state.mul_(self.decay).add_(arriving)
        return (out if self.bias is None else out.add_(self.bias)).to(x.dtype)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return _Arrivals(self, recording, last)


class _Arrivals(Gradients[ArrivalOperator]):
    """The sums P and Q of one backward pass, as they stand before the rows that have arrived."""

    def __init__(self, operator: ArrivalOperator, recording: Recording, last: int) -> None:
        self.operator, self.last, self.oldest, self.recording = operator, last, last + 1, recording
        self.later, self.slope = torch.zeros_like(operator.state), torch.zeros_like(operator.state)
        self.product = torch.empty_like(operator.state)
        self.grad_gap, self.grad_slope = (torch.zeros_like(operator.gap[:, 0]) for _ in range(2))
        self.grad_answer = torch.zeros_like(operator.answer)
        self.grad_bias = operator.answer.new_zeros(operator.answer.shape[2])
        pre, batch, _ = operator.state.shape
        self.grad_rows = operator.answer.new_zeros(pre, last + 1 if operator.needs_grad_x else 0, batch)

    def skip_to(self, row: int) -> None:
        if row < self.oldest - 1:  # what a step without a gradient leaves has no graph
            self._begin_at(self.oldest)
            self.later.zero_()
            self.slope.zero_()
        self.oldest = row

    def _begin_at(self, row: int) -> None:
        """Give its gradients to what lingered before ``row``, which acts like one more arrival."""
        state = self.operator.starts.get(row)
        if state is not None:
            self.grad_gap += (state * self.later).sum(1)
            self.grad_slope += (state * self.slope).sum(1)

    def push(self, row: int, grad: Tensor | None) -> None:
        operator = self.operator
        arrived, window = operator.arrive(self.recording, row)
        self.grad_gap += torch.mul(arrived, self.later, out=self.product).sum(1)
        self.grad_slope += torch.mul(arrived, self.slope, out=self.product).sum(1)
        grad_arrived = torch.mul(operator.gap, self.later, out=self.product)
        if grad is not None:
            grad_arrived += grad.to(grad_arrived.dtype)
            self.grad_bias += grad.sum(0)
        self.grad_answer.baddbmm_(window, grad_arrived)
        if operator.needs_grad_x:
            reached = self.grad_rows[:, row + 1 - operator.answer.shape[1] : row + 1]
            reached += torch.bmm(operator.answer, grad_arrived.transpose(1, 2))
        self.slope.mul_(operator.decay).add_(self.later)
        self.later.mul_(operator.decay)
        if grad is not None:
            self.later += grad.to(grad_arrived.dtype)

    def input(self, row: int) -> Tensor:
        return self.grad_rows[:, row].t()

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        operator = self.operator
        self._begin_at(first)
        grad_decay = (self.grad_slope * operator.gap[:, 0]).t()
        grad_response = self.grad_answer.flip(1).permute(2, 0, 1)
        return operator.wanted(grad_response, grad_decay, self.grad_gap.t(), self.grad_bias)
