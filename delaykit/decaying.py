"""A synapse whose current lingers: decay, alone or behind a delay (they commute), times weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from delaykit.functional.delay_line import delay_line
from delaykit.functional.filtered_linear import filtered_linear
from delaykit.functional.reference import causal_convolution
from delaykit.functional.tape import LineTape
from delaykit.functional.taps import Taps
from delaykit.interfaces import PointDelay

if TYPE_CHECKING:
    from delaykit.synapse import Synapse


class Decaying:
    """Parameters of one segment: where the delay sits (before, behind or inside the synapses), decay, weight, bias.

    Args:
        synapse: with a heterogeneity, and a delay or none.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None; it does not linger.
    """

    def __init__(self, synapse: Synapse, weight: Tensor, bias: Tensor | None) -> None:
        assert synapse.heterogeneity is not None
        self.synapse, self.weight, self.bias = synapse, weight, bias
        self.decay = synapse.heterogeneity.decay().to(weight.dtype)
        self.before: Taps | None = None
        self.behind: Taps | None = None
        self.inside: Tensor | None = None
        delay = synapse.delay
        if isinstance(delay, PointDelay) and delay.granularity != "synaptic":
            taps = delay.kernel().taps(delay.delays())
            self.before, self.behind = (None, taps) if delay.granularity == "dendritic" else (taps, None)
        elif delay is not None:
            self.inside = delay.impulse_response(weight)

    def sequence(self, spikes: Tensor) -> Tensor:
        """Run (time, batch, pre) -> (time, batch, post)."""
        if self.inside is not None:
            current = causal_convolution(spikes, self.synapse.impulse_response(self.weight, spikes.shape[0]))
        else:
            drive = spikes if self.before is None else delay_line(spikes, self.before)
            current = filtered_linear(drive, self.weight, self.decay)
            current = current if self.behind is None else delay_line(current, self.behind)
        return current if self.bias is None else current + self.bias


class DecayTape:
    """Step mode of a lingering synapse, by plain autograd: right for any decay, lean for decays shared by neurons.

    A decay for each synapse keeps (batch, post, pre) a step here; a plugin's fused operator is the fast way.

    Args:
        parameters: this segment's parameters.
        remember: steps the delay lines keep when their graph is cut.
    """

    def __init__(self, parameters: Decaying, remember: int | None = None) -> None:
        self.remember = remember
        self.current: Tensor | None = None
        self.past: list[Tensor] = []
        self.lines: dict[str, LineTape] = {}
        self.rebind(parameters)

    def rebind(self, parameters: Decaying) -> None:
        """Start a new segment with these parameters."""
        self.parameters = parameters
        for name, taps in (("before", parameters.before), ("behind", parameters.behind)):
            if taps is not None and name in self.lines:
                self.lines[name].rebind(taps)
            elif taps is not None:
                self.lines[name] = LineTape(taps, remember=self.remember)

    def detach(self) -> None:
        """Cut the graph, keep currents and remembered spikes."""
        self.current = None if self.current is None else self.current.detach()
        self.past = [spikes.detach() for spikes in self.past]
        for line in self.lines.values():
            line.detach()

    def step(self, spikes: Tensor) -> Tensor:
        """Run (batch, pre) -> (batch, post)."""
        p = self.parameters
        if "before" in self.lines:
            spikes = self.lines["before"].step(spikes)
        if p.decay.shape[0] == 1 and p.inside is None:  # filter the spikes, multiply once
            output = torch.nn.functional.linear(self._linger(spikes), p.weight)
        elif p.decay.shape[1] == 1 and p.inside is None:
            output = self._linger(torch.nn.functional.linear(spikes, p.weight))
        else:
            output = self._linger(self._arrivals(spikes)).sum(-1)
        if "behind" in self.lines:
            output = self.lines["behind"].step(output)
        return output if p.bias is None else output + p.bias

    def _linger(self, arrivals: Tensor) -> Tensor:
        decay = self.parameters.decay
        if arrivals.ndim == 2:
            decay = decay.reshape(-1)
        self.current = arrivals if self.current is None else decay * self.current + arrivals
        return self.current

    def _arrivals(self, spikes: Tensor) -> Tensor:
        """Return what arrives at each synapse now, (batch, post, pre)."""
        response = self.parameters.inside
        if response is None:
            return spikes.unsqueeze(1) * self.parameters.weight
        self.past = [spikes, *self.past[: response.shape[-1] - 1]]
        window = torch.stack(self.past, -1)  # (batch, pre, tau)
        return (window.unsqueeze(1) * response[..., : window.shape[-1]]).sum(-1)
