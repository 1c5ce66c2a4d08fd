"""A synapse whose current lingers: decay, alone or behind a delay (they commute), times weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.engines.linear import reach_of
from delaykit.functional.decay_tape.arrivals import ArrivalTape
from delaykit.functional.decay_tape.operator import SynapseTape
from delaykit.functional.delay_line.operator import delay_line
from delaykit.functional.dispatch import wants_reference
from delaykit.functional.engine import Engine, SegmentParameters, Stepper
from delaykit.functional.filtered_linear.operator import filtered_linear
from delaykit.functional.recurrence.connection.base import Fading
from delaykit.functional.reference import causal_convolution
from delaykit.functional.step_tape.operator import LineTape
from delaykit.functional.step_tape.segment import Passes, chained, refuse_second_derivatives
from delaykit.functional.taps import Taps
from delaykit.interfaces import Delay, Heterogeneity, PointDelay


class Decaying(SegmentParameters):
    """Parameters of one segment: where the delay sits (before, behind or inside the synapses), decay, weight, bias.

    Args:
        heterogeneity: how long currents linger.
        delay: of the same synapses, or None.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None; it does not linger.
    """

    def __init__(
        self, heterogeneity: Heterogeneity, delay: Delay | None, weight: Tensor, bias: Tensor | None
    ) -> None:
        self.heterogeneity, self.delay, self.weight, self.bias = heterogeneity, delay, weight, bias
        self.decay = heterogeneity.decay().to(weight.dtype)
        leak = heterogeneity.leak()
        self.leak = None if leak is None else leak.to(weight.device, weight.dtype)
        self.gap = None if self.leak is None else self.decay - self.leak
        self.beyond = None if self.gap is None else self.weight * self.gap
        self.before: Taps | None = None
        self.behind: Taps | None = None
        self.inside: Tensor | None = None
        if isinstance(delay, PointDelay) and delay.granularity != "synaptic":
            taps = delay.taps()
            self.before, self.behind = (None, taps) if delay.granularity == "dendritic" else (taps, None)
        elif isinstance(delay, PointDelay):
            self.inside = _written_out(delay.taps(), weight)
        elif delay is not None:
            self.inside = delay.impulse_response(weight)

    @property
    def each(self) -> bool:
        """Whether every synapse has a decay of its own, and takes its spikes as they come."""
        return self.inside is None and self.decay.shape == self.weight.shape and min(self.weight.shape) > 1

    def fading(self) -> Fading:
        """Return how currents linger on a recurrent connection without delays."""
        gap = self.decay if self.gap is None else self.gap
        return Fading(self.decay.expand_as(self.weight), self.weight * gap)

    def response(self, depth: int) -> Tensor:
        """Write out the first steps: the judge of every faster path."""
        return lingering_response(self.heterogeneity, self.delay, self.weight, depth)

    def sequence(self, spikes: Tensor) -> Tensor:
        """Run (time, batch, pre) -> (time, batch, post)."""
        if self.inside is not None and wants_reference():
            current = causal_convolution(spikes, self.response(len(spikes)))
        elif self.inside is not None:
            tape = ArrivalTape(self.inside, self.decay, self.bias, self.leak)
            outputs = [tape.step(x) for x in spikes]
            return torch.stack(outputs) if outputs else spikes.new_empty(0, spikes.shape[1], len(self.weight))
        else:
            drive = spikes if self.before is None else delay_line(spikes, self.before)
            if self.behind is None:
                return filtered_linear(drive, self.weight, self.decay, self.bias, self.leak)
            current = delay_line(filtered_linear(drive, self.weight, self.decay, None, self.leak), self.behind)
        return current if self.bias is None else current + self.bias


def lingering_response(
    heterogeneity: Heterogeneity | None, delay: Delay | None, weight: Tensor, depth: int | None
) -> Tensor:
    """Convolve the parts: weight (post, pre) -> (post, pre, depth); ``depth`` None: all that the delay needs."""
    response = weight.unsqueeze(-1) if delay is None else delay.impulse_response(weight)
    if depth is not None:
        response = nn.functional.pad(response, (0, max(0, depth - response.shape[-1])))[..., :depth]
    return response if heterogeneity is None else heterogeneity.linger(response)


def _written_out(taps: Taps, weight: Tensor) -> Tensor:
    """Write the taps of every synapse, times its weight, into ``(post, pre, depth)``; keeps nothing of that size."""
    depth = int(taps.index.max()) + 1 if taps.index.numel() else 1
    index, value = taps.index.permute(1, 2, 0), (taps.value * weight).permute(1, 2, 0)
    response = value.new_zeros(*weight.shape, depth).scatter_add(2, index.expand_as(value), value)
    for _ in range(taps.order):
        response = response.cumsum(2)
    return response.to(weight.dtype)


class DecayTape:
    """Step mode of a lingering synapse.

    A decay for each synapse runs on a :class:`~delaykit.functional.decay_tape.SynapseTape`, one behind a delay of each
    synapse's own on an :class:`~delaykit.functional.decay_tape.arrivals.ArrivalTape`. Decays that neurons share need
    one number a neuron and step, and go by plain autograd.

    Args:
        parameters: this segment's parameters.
        remember: steps the delay lines keep when their graph is cut.
    """

    def __init__(self, parameters: Decaying, remember: int | None = None) -> None:
        self.remember = remember
        self.state: Tensor | None = None
        self.lines: dict[str, LineTape] = {}
        self.synapses: SynapseTape | ArrivalTape | None = None
        self.earlier: SynapseTape | None = None  # currents that were made with another weight
        self._made_with: Tensor | None = None
        self._cut = self._recorded = False  # whether the state holds constants, and whether it has a graph
        self._since: Tensor | None = None  # its share that has come since it was cut
        self.passes = Passes()
        self.rebind(parameters)

    def rebind(self, parameters: Decaying) -> None:
        """Start a new segment with these parameters."""
        self.parameters = p = parameters
        self._cut_state()
        self._settle(p)
        for name, taps in (("before", p.before), ("behind", p.behind)):
            if taps is not None and name in self.lines:
                self.lines[name].rebind(taps)
            elif taps is not None:
                self.lines[name] = LineTape(taps, remember=self.remember)
        if p.inside is not None:
            if isinstance(self.synapses, ArrivalTape):
                self.synapses.rebind(p.inside, p.decay, p.bias, p.leak)
            else:
                self.synapses = ArrivalTape(p.inside, p.decay, p.bias, p.leak, remember=self.remember)
        elif p.each:
            own = (p.decay, p.weight, None if "behind" in self.lines else p.bias, p.leak)
            if isinstance(self.synapses, SynapseTape):
                self.synapses.rebind(*own)
            else:
                self.synapses = SynapseTape(*own)

    def _settle(self, p: Decaying) -> None:
        """Turn what lingers as spikes into currents where the weight is another one now: they keep what they summed."""
        made_with, lingers = self._made_with, self._lingering_spikes()
        if p.inside is None and p.decay.shape[1] > 1:
            self._made_with = p.weight.detach().clone()
        each = p.decay.expand_as(p.weight)
        if self.earlier is not None:
            self.earlier.rebind(each, torch.ones_like(each), None, p.leak)
        if lingers is None or made_with is None or torch.equal(made_with, p.weight):
            return
        currents = lingers * made_with.t()
        if self.earlier is None:
            self.earlier = SynapseTape(each, torch.ones_like(each), None, p.leak)
        self.earlier.add_(currents)
        if isinstance(self.synapses, SynapseTape):
            self.synapses.forget()
        self.state, self._cut = None, False

    def _lingering_spikes(self) -> Tensor | None:
        """Return the spikes that linger at each synapse, (batch, pre, post); None where nothing does, or currents."""
        if isinstance(self.synapses, SynapseTape):
            self.synapses.detach()
            return self.synapses.lingering()
        if self.synapses is not None or self.state is None or self._made_with is None:
            return None
        return self.state.detach().unsqueeze(2)

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether nothing lingers and nothing is under way."""
        tapes = [tape for tape in (*self.lines.values(), self.synapses, self.earlier) if tape is not None]
        lingers = self.state is not None and bool(self.state.any())
        return not lingers and all(tape.silent(before_last) for tape in tapes)

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach an input of this segment, or the weight that made a current."""
        tapes = [tape for tape in (*self.lines.values(), self.synapses, self.earlier) if tape is not None]
        return self._recorded or any(tape.graph_under_way() for tape in tapes)

    def _cut_state(self) -> None:
        """Make constants of the currents that linger."""
        self._cut, self._recorded, self._since = self.state is not None, False, None
        self.state = None if self.state is None else self.state.detach()

    def detach(self) -> None:
        """Cut the graph, keep currents and remembered spikes."""
        self.passes = Passes()
        self._cut_state()
        for tape in (*self.lines.values(), self.synapses, self.earlier):
            if tape is not None:
                tape.detach()

    def step(self, spikes: Tensor) -> Tensor:
        """Run (batch, pre) -> (batch, post)."""
        p = self.parameters
        if "before" in self.lines:
            spikes = self.lines["before"].step(spikes)
        bias = None if "behind" in self.lines else p.bias
        if self.synapses is not None:
            output = self.synapses.step(spikes)
        else:
            before = self.state
            linked = before is not None and any(x is not None and x.requires_grad for x in (before, p.beyond))
            output = chained(self._lingering(spikes, bias), self.passes, linked)
            if not torch.is_grad_enabled():  # what such a step leaves are constants
                self._cut_state()
            self._recorded = self._recorded or output.requires_grad
        if self.earlier is not None:
            output = output + self.earlier.step(torch.zeros_like(spikes))
        if "behind" not in self.lines:
            return output
        output = self.lines["behind"].step(output)
        return output if p.bias is None else output + p.bias

    def _lingering(self, spikes: Tensor, bias: Tensor | None) -> Tensor:
        """Return the current of this step, with what is left of earlier ones."""
        p = self.parameters
        if p.decay.shape[1] == 1:  # one product, and its result lingers
            output = nn.functional.linear(spikes, p.weight)
            leak = None if p.leak is None else p.leak.reshape(-1)
            output = output + self._rest(output, p.decay.reshape(-1), leak)
            return output if bias is None else output + bias
        decay, earlier = p.decay.reshape(-1), self._since
        before = self._remember(spikes, decay)
        if self._cut and torch.is_grad_enabled():
            new = spikes.detach()
            self._since = new.clone() if earlier is None else torch.addcmul(new, decay.detach(), earlier)
        gap = p.gap
        if p.beyond is None or gap is None:  # the spikes linger, and one product is enough
            assert self.state is not None
            return self._product(self.state, self._since, None, p.weight, bias)
        if before is not None and self._cut and torch.is_grad_enabled() and len(gap) == 1:  # one product is enough, too
            since = spikes.detach() if earlier is None else torch.addcmul(spikes.detach(), gap.detach(), earlier)
            return self._product(torch.addcmul(spikes, gap, before), since, None, p.weight, bias)
        output = nn.functional.linear(spikes, p.weight, bias)
        return output if before is None else output + self._product(before, earlier, gap, p.beyond, None)

    def _product(
        self, lingers: Tensor, since: Tensor | None, gap: Tensor | None, factor: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Return ``linear(lingers, factor, bias)``; the gradient of the weight is that of ``since`` behind a cut."""
        if not self._cut or not torch.is_grad_enabled():
            return nn.functional.linear(lingers, factor, bias)
        output: Tensor = _BehindACut.apply(lingers, since, self.parameters.weight, gap, factor.detach(), bias)
        return output

    def _rest(self, arrivals: Tensor, decay: Tensor, leak: Tensor | None) -> Tensor:
        """Return what is left of earlier arrivals beyond the neuron's leak, and remember these."""
        before = self._remember(arrivals, decay)
        return torch.zeros_like(arrivals) if before is None else (decay if leak is None else decay - leak) * before

    def _remember(self, arrivals: Tensor, decay: Tensor) -> Tensor | None:
        """Return the sum of earlier arrivals, each as far as it has decayed; take these into it."""
        before = self.state
        self.state = arrivals.clone() if before is None else decay * before + arrivals  # the caller may write over his
        return before


class _BehindACut(torch.autograd.Function):
    """``linear(lingers, weight * gap, bias)``, where what came before a cut is a current that no weight makes any more.

    The gradient of ``weight`` counts ``since``, that part of ``lingers`` which has come since the cut, the gradient of
    ``gap`` all of it. ``factor`` has the values of the product; ``gap`` None is 1.
    """

    @staticmethod
    def forward(
        ctx: Any, lingers: Tensor, since: Tensor | None, weight: Tensor, gap: Tensor | None, factor: Tensor,
        bias: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(lingers if ctx.needs_input_grad[3] else None, since, weight, gap, factor)
        return nn.functional.linear(lingers, factor, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        refuse_second_derivatives()
        lingers, since, weight, gap, factor = ctx.saved_tensors
        into_lingers, _, into_weight, into_gap, _, into_bias = ctx.needs_input_grad
        grad, grad_weight = grad.to(weight.dtype), None
        if into_weight and since is not None:
            grad_weight = grad.t() @ since
            grad_weight = grad_weight if gap is None else grad_weight * gap
        grad_gap = weight * (grad.t() @ lingers) if into_gap else None
        grad_lingers = grad @ factor if into_lingers else None
        return grad_lingers, None, grad_weight, grad_gap, None, grad.sum(0) if into_bias else None


class DecayEngine(Engine):
    """A heterogeneity on a matrix, alone or with any delay."""

    def __init__(self, parameters: Decaying) -> None:
        self.parameters = parameters

    def sequence(self, spikes: Tensor) -> Tensor:
        return self.parameters.sequence(spikes)

    def tape(self) -> Stepper:
        return DecayTape(self.parameters, self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(self.parameters)

    def holds(self) -> int:
        p = self.parameters
        lines = [reach_of(taps) for taps in (p.before, p.behind) if taps is not None]
        return max(0 if p.inside is None else p.inside.shape[2], *lines, 0)
