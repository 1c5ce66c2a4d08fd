"""Sparse synapses with delays, for inference: what is kept is listed, what is not costs neither time nor memory.

A connection is a list of arrivals, sorted by presynaptic neuron (the columns of a sparse matrix, one for each delay):

    current[t, b, j] = sum over arrivals (i -> j, tau, value):  value spikes[t - tau, b, i]

A spike visits the arrivals of its own neuron and nothing else, so the cost is spikes times kept synapses per neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError, TrainingError
from delaykit.functional.dispatch import implementation_of, wants_reference
from delaykit.functional.inputs import check_tensors
from delaykit.functional.reference import causal_convolution
from delaykit.functional.taps import Taps

LARGEST = 2**31 - 1


class SparseSynapses(NamedTuple):
    """The synapses of one connection.

    Args:
        first: ``(pre + 1,)``, int32: arrivals ``first[i] .. first[i + 1] - 1`` belong to presynaptic neuron i.
        place: ``(arrival,)``, int32: ``tau * outputs + j``, where in the currents to come a spike of now arrives.
        value: ``(arrival,)``: the weight that arrives.
        outputs: number of postsynaptic neurons.
    """

    first: Tensor
    place: Tensor
    value: Tensor
    outputs: int

    def depth(self) -> int:
        """Return how many steps the response lasts: 1 + the largest delay. Host sync."""
        return int(self.place.max()) // self.outputs + 1 if len(self.place) else 1

    def nbytes(self) -> int:
        """Count the bytes of the three lists."""
        return sum(x.numel() * x.element_size() for x in (self.first, self.place, self.value))


Arrivals = SparseSynapses  # its former name


def list_arrivals(post: Tensor, pre: Tensor, tau: Tensor, value: Tensor, shape: tuple[int, int]) -> SparseSynapses:
    """Sort arrivals by presynaptic neuron, delay and postsynaptic neuron.

    Args:
        post: ``(arrival,)``, int64, as the next two.
        pre: presynaptic neurons.
        tau: delays in steps.
        value: ``(arrival,)``.
        shape: number of postsynaptic and of presynaptic neurons.

    Raises:
        ShapeError: delays times neurons do not fit into 32 bits.
    """
    outputs, inputs = shape
    place = tau * outputs + post
    if len(place) and int(place.max()) > LARGEST:
        found = f"{outputs} neurons with delays up to {int(tau.max())} steps"
        raise ShapeError("compact_", found, f"neurons times steps <= {LARGEST}", "leave this connection dense")
    order = place.argsort(stable=True)
    order = order[pre[order].argsort(stable=True)]
    counts = torch.bincount(pre, minlength=inputs)
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
    return SparseSynapses(first, place[order].to(torch.int32), value[order].contiguous(), outputs)


def arrivals_of_taps(weight: Tensor, taps: Taps) -> SparseSynapses:
    """List the arrivals of a weight matrix behind the taps of any point delay.

    Args:
        weight: ``(post, pre)``.
        taps: delays of a layer, of neurons or of synapses.

    Example:
        >>> from delaykit.arrivals import Linear
        >>> weight = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> arrivals_of_taps(weight, Linear().taps(torch.tensor([[1.0, 0.25]]))).value.tolist()
        [2.0, 3.0, 1.0]
    """
    if taps.order:
        return arrivals_of_response(weight.unsqueeze(-1) * taps.response(taps.depth()).to(weight))
    strength = taps.value.to(weight) * weight
    m, post, pre = strength.nonzero(as_tuple=True)
    tau = taps.index.expand(-1, *weight.shape)[m, post, pre]
    return list_arrivals(post, pre, tau, strength[m, post, pre], (weight.shape[0], weight.shape[1]))


def arrivals_of_response(response: Tensor) -> SparseSynapses:
    """List the arrivals of any impulse response ``(post, pre, depth)``."""
    post, pre, tau = response.nonzero(as_tuple=True)
    return list_arrivals(post, pre, tau, response[post, pre, tau], (response.shape[0], response.shape[1]))


def dense_response(arrivals: SparseSynapses) -> Tensor:
    """Write the impulse response out, ``(post, pre, depth)``: the inverse of :func:`arrivals_of_response`."""
    first, place, value, outputs = arrivals
    inputs = len(first) - 1
    pre = torch.repeat_interleave(torch.arange(inputs, device=first.device), first.diff().long())
    out = value.new_zeros(outputs, inputs, arrivals.depth())
    where = place % outputs, pre, place // outputs
    return out.index_put(tuple(x.long() for x in where), value, accumulate=True)


def sparse_filter(spikes: Tensor, arrivals: SparseSynapses, bias: Tensor | None = None) -> Tensor:
    """Run a whole sequence through sparse synapses; inference only.

    ``current[t, b, j] = sum over arrivals (i -> j, tau, value): value spikes[t - tau, b, i] + bias[j]``

    Args:
        spikes: ``(time, batch, pre)``.
        arrivals: the synapses.
        bias: ``(post,)`` or None.

    Returns:
        Current ``(time, batch, post)``.

    Raises:
        ShapeError: the spikes do not fit the synapses.
        TrainingError: the spikes want a gradient.

    Example:
        >>> weight = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> sparse_filter(torch.eye(2).view(2, 1, 2), arrivals_of_response(weight.unsqueeze(-1))).tolist()
        [[[2.0, 0.0]], [[0.0, 4.0]]]
    """
    check_inference("sparse_filter", spikes)
    if not isinstance(arrivals, SparseSynapses):
        found, fix = checks.shown(arrivals), "pass arrivals_of_taps(weight, taps)"
        raise ShapeError("sparse_filter", found, "SparseSynapses", fix)
    check_tensors("sparse_filter", optional=("bias",), bias=bias)
    if bias is not None and bias.shape != (arrivals.outputs,):
        fix = "give one number for each output"
        raise ShapeError("sparse_filter", f"bias of shape {tuple(bias.shape)}", f"({arrivals.outputs},)", fix)
    if spikes.dim() != 3 or spikes.shape[2] != len(arrivals.first) - 1:
        expected = f"(time, batch, {len(arrivals.first) - 1})"
        raise ShapeError("sparse_filter", f"spikes {tuple(spikes.shape)}", expected, "check the layer before it")
    if wants_reference():
        out = causal_convolution(spikes.detach().to(arrivals.value), dense_response(arrivals))
        return out if bias is None else out + bias.detach()
    out = implementation_of("sparsify_filter", spikes.device)(spikes.detach().to(arrivals.value.dtype), *arrivals)
    return out if bias is None else out + bias.detach()


def check_inference(where: str, spikes: Tensor) -> None:
    """Raise :class:`TrainingError` rather than cut a gradient silently, :class:`ShapeError` for what is no spikes."""
    check_tensors(where, spikes=spikes)
    if torch.is_grad_enabled() and spikes.requires_grad:
        fix = "run under torch.no_grad(); train the model that compact_ was called on a copy of"
        raise TrainingError(where, "an input that wants a gradient", "inference: compact synapses do not learn", fix)


class Ring:
    """Step mode: currents that are still to come, ``(batch, depth, post)``; a spike is delivered when it happens.

    Args:
        arrivals: the synapses.
        bias: ``(post,)``, part of every step's current, or None.

    Example:
        >>> from delaykit.arrivals import Linear
        >>> ring = Ring(arrivals_of_taps(torch.ones(1, 1), Linear().taps(torch.tensor([[1.0]]))))
        >>> [ring.push(torch.tensor([[x]])).item() for x in (1.0, 0.0, 2.0)]
        [0.0, 1.0, 0.0]
    """

    def __init__(self, arrivals: SparseSynapses, bias: Tensor | None = None) -> None:
        self.arrivals, self.depth, self.slot = arrivals, arrivals.depth(), 0
        self.bias = None if bias is None else bias.detach().to(arrivals.value)
        self._deliver: Callable[[Tensor, int], Tensor] | None = None

    def push(self, spikes: Tensor) -> Tensor:
        """Take the spikes of this step, ``(batch, pre)``, and give its current, ``(batch, post)``."""
        x = spikes.detach().to(self.arrivals.value.dtype)
        if self._deliver is None:
            with torch.inference_mode(False):
                currents = x.new_zeros(x.shape[0], self.depth, self.arrivals.outputs)
            self._deliver = implementation_of("sparsify_deliver", x.device)(*self.arrivals[:3], currents, self.bias)
        out = self._deliver(x, self.slot)
        self.slot = (self.slot + 1) % self.depth
        return out
