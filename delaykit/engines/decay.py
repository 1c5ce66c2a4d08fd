"""A synapse whose current lingers: decay, alone or behind a delay (they commute), times weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.engines.linear import reach_of, response_of
from delaykit.functional.decay_tape.arrivals import ArrivalTape
from delaykit.functional.decay_tape.operator import SynapseTape
from delaykit.functional.delay_line.operator import delay_line
from delaykit.functional.dispatch import wants_reference
from delaykit.functional.engine_base import Engine, SegmentParameters, Stepper
from delaykit.functional.filtered_linear.operator import filtered_linear
from delaykit.functional.recurrence.connection.base import Fading
from delaykit.functional.reference import causal_convolution
from delaykit.functional.step_tape.operator import LineTape
from delaykit.functional.step_tape.segment import Passes, chained
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

    def __init__(self, heterogeneity: Heterogeneity, delay: Delay | None, weight: Tensor, bias: Tensor | None) -> None:
        self.heterogeneity, self.delay, self.weight, self.bias = heterogeneity, delay, weight, bias
        self.decay = heterogeneity.decay().to(weight.dtype)
        leak = heterogeneity.leak()
        self.leak = None if leak is None else leak.to(weight.device, weight.dtype)
        self.gap = None if self.leak is None else self.decay - self.leak
        leaks_apart = self.gap is not None and len(self.decay) < len(self.gap)
        self.beyond = weight * self.gap if self.gap is not None and leaks_apart else None
        self.before: Taps | None = None
        self.behind: Taps | None = None
        self.inside: Tensor | None = None
        if isinstance(delay, PointDelay) and delay.granularity != "synaptic":
            taps = delay.taps()
            self.before, self.behind = (None, taps) if delay.granularity == "dendritic" else (taps, None)
        elif isinstance(delay, PointDelay):
            self.inside = _written_out(delay.taps(), weight)
        elif delay is not None:
            self.inside = response_of(delay, weight)

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
        self.left: Tensor | None = None  # spikes from before a cut: their currents are constants, whatever the weight
        self._recorded = False  # whether what lingers has a graph, or leads to a weight
        self.passes = Passes()
        self.parameters = parameters
        self.rebind(parameters)

    def rebind(self, parameters: Decaying) -> None:
        """Start a new segment with these parameters."""
        self._cut_state()
        self.parameters = p = parameters
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
        self.left = None

    def _lingering_spikes(self) -> Tensor | None:
        """Return the spikes that linger at each synapse, (batch, pre, post); None where nothing does, or currents."""
        if isinstance(self.synapses, SynapseTape):
            self.synapses.detach()
            return self.synapses.lingering()
        return None if self.left is None else self.left.unsqueeze(2)

    def silent(self, before_last: bool = False) -> bool:
        """Tell whether nothing lingers and nothing is under way."""
        tapes = [tape for tape in (*self.lines.values(), self.synapses, self.earlier) if tape is not None]
        lingers = any(state is not None and bool(state.any()) for state in (self.state, self.left))
        return not lingers and all(tape.silent(before_last) for tape in tapes)

    def graph_under_way(self) -> bool:
        """Tell whether a later gradient has to reach an input of this segment, or the weight that made a current."""
        tapes = [tape for tape in (*self.lines.values(), self.synapses, self.earlier) if tape is not None]
        return self._recorded or any(tape.graph_under_way() for tape in tapes)

    def _cut_state(self) -> None:
        """Make constants of the currents that linger; those of spikes are told apart from later ones."""
        self._recorded = False
        state, left = (None if x is None else x.detach().clone() for x in (self.state, self.left))
        if self.parameters.decay.shape[1] == 1:
            self.state = state
        else:
            self.state, self.left = None, left if state is None else state if left is None else left + state

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
            if not torch.is_grad_enabled() and self.left is not None:
                self._cut_state()
                self.state, self.left = self.left, None  # all that such a step leaves is a constant
            elif torch.is_grad_enabled() and not self._recorded:
                self._cut_state()
            past = [x for x in (self.state, self.left) if x is not None]
            shared = () if p.gap is None else (p.gap, p.weight)
            linked = bool(past) and any(x.requires_grad for x in (*past, *shared))
            output = chained(self._lingering(spikes, bias), self.passes, linked)
            held = (self.state, self.left, p.weight)
            learns = self._recorded or any(x is not None and x.requires_grad for x in held)
            self._recorded = learns and torch.is_grad_enabled()
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
        before, left, held = self._remember(spikes, p.decay.reshape(-1)), self.left, p.weight.detach()
        self.left = None if left is None else p.decay.reshape(-1) * left
        if p.beyond is not None and p.gap is not None:  # neurons that leak each at its own rate
            output = nn.functional.linear(spikes, p.weight, bias)
            output = output if before is None else output + nn.functional.linear(before, p.beyond)
            return output if left is None else output + nn.functional.linear(left, p.gap * held)
        assert self.state is not None
        now, then = self.state, self.left
        if p.gap is not None:
            now = spikes if before is None else torch.addcmul(spikes, p.gap, before)
            then = None if left is None else p.gap * left
        output = nn.functional.linear(now, p.weight, bias)
        return output if then is None else output + nn.functional.linear(then, held)

    def _rest(self, arrivals: Tensor, decay: Tensor, leak: Tensor | None) -> Tensor:
        """Return what is left of earlier arrivals beyond the neuron's leak, and remember these."""
        before = self._remember(arrivals, decay)
        return torch.zeros_like(arrivals) if before is None else (decay if leak is None else decay - leak) * before

    def _remember(self, arrivals: Tensor, decay: Tensor) -> Tensor | None:
        """Return the sum of earlier arrivals, each as far as it has decayed; take these into it."""
        before = self.state
        # A copy, as the caller may write over his.
        self.state = arrivals.clone() if before is None else torch.addcmul(arrivals, decay, before)
        return before


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
