"""Sparse impulse responses: the few taps at which a point delay lets a spike arrive.

A delay of ``d`` steps, smeared by a kernel, has a response that is zero almost everywhere. :class:`Taps` lists the
steps ``tau`` at which it is not (and those where its *derivative* is not), so that a filter costs a handful of reads
however long the delay is.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from delaykit.errors import DelayRangeError, ShapeError
from delaykit.functional.inputs import check_tensors


class Taps(NamedTuple):
    """Hold the sparse causal response of a layer, of channels, or of every synapse.

    ``response[a, b, tau] = sum_m value[m, a, b] [tau == index[m, a, b]]``, and for ``order == 2`` the running sum
    of the running sum of that over ``tau``: second differences describe a triangle of any width by at most six numbers.

    The clock counts from the connection's own input: a delay of 0 is the bare connection.

    Args:
        index: int64 ``(m, A, B)``, steps, >= 0; ``A`` is 1 or post, ``B`` is 1 or pre. A tap that is switched off
            repeats an index that is in use, has value 0 and passes no gradient on.
        value: ``(m, A, B)``, differentiable with respect to the delay and the spread. Always float64 for order 2,
            where two running sums would make a drift out of a float32 rounding error.
        order: 0 or 2.

    Example:
        >>> from delaykit.arrivals import Linear
        >>> taps = Linear().taps(torch.tensor([[1.25]]))
        >>> taps.response(4).tolist()
        [[[0.0, 0.75, 0.25, 0.0]]]
    """

    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, which nobody needs here
    value: Tensor
    order: int = 0

    def response(self, depth: int) -> Tensor:
        """Write the response out densely, ``(A, B, depth)``: slow, obvious, differentiable.

        Args:
            depth: number of steps; what lies beyond is left out.

        Returns:
            Response ``(A, B, depth)`` in the dtype of :attr:`value`.
        """
        tau = torch.arange(depth, device=self.index.device)
        hit = self.index.unsqueeze(-1) == tau
        out = torch.where(hit, self.value.unsqueeze(-1), torch.zeros_like(self.value).unsqueeze(-1)).sum(0)
        for _ in range(self.order):
            out = out.cumsum(-1)
        return out

    def memory(self) -> int:
        """Count the newest inputs a reader must remember: 1 + the largest index with a non-zero value. Host sync."""
        used = torch.where(self.value != 0, self.index + 1, torch.zeros_like(self.index))
        return int(used.max()) if used.numel() else 0

    def depth(self) -> int:
        """Count the steps of the response: 1 + the largest tau at which it is not zero. Host sync."""
        return max(self.memory() - self.order, 0)

    def is_identity(self) -> bool:
        """Tell whether every response is exactly 1 at tau 0 and 0 elsewhere. Host sync."""
        one_synapse = Taps(self.index[:, :1, :1], self.value[:, :1, :1], self.order)  # a cheap way to a common no
        return one_synapse._all_identities() and self._all_identities()

    def _all_identities(self) -> bool:
        expected = [1.0, -2.0, 1.0] if self.order == 2 else [1.0]
        zero = torch.zeros_like(self.value)
        wrong = torch.where(self.index >= len(expected), self.value, zero).ne(0).any()
        for tau, number in enumerate(expected):
            wrong = wrong | torch.where(self.index == tau, self.value, zero).sum(0).ne(number).any()
        return not bool(wrong)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(A, B)`` of the delays: (1, 1) layer, (1, pre) axonal, (post, 1) dendritic, (post, pre) synaptic."""
        return self.index.shape[1], self.index.shape[2]


def check_matrix(where: str, delays: Tensor) -> None:
    """Do what :func:`check_causal` does, for delays that a connection has: pre and post cannot be taken for each other.

    Args:
        where: who asks, for the message.
        delays: ``(A, B)``, steps.

    Raises:
        ShapeError: they have another number of dimensions.
        DelayRangeError: a delay is NaN, infinite or negative.
    """
    check_causal(where, delays)
    if delays.dim() != 2:
        expected = "(1, 1), (1, pre), (post, 1) or (post, pre)"
        fix = "write one a presynaptic neuron as delays.view(1, -1), one a postsynaptic neuron as delays.view(-1, 1)"
        raise ShapeError(where, f"delays of shape {tuple(delays.shape)}", expected, fix)


def check_causal(where: str, delays: Tensor) -> None:
    """Raise unless every delay is a finite number of steps >= 0: no spike arrives before it was sent, or never.

    Whoever turns delays into a response begins so, once a segment. Host sync; left out while ``torch.compile`` traces.

    Args:
        where: who asks, for the message.
        delays: any shape, steps.

    Raises:
        DelayRangeError: a delay is NaN, infinite or negative.
    """
    check_tensors(where, delays=delays)
    if torch.compiler.is_compiling() or not delays.numel():
        return
    low, high = torch.stack(torch.aminmax(delays.detach())).tolist()
    if not 0 <= low <= high < math.inf:
        found = f"a delay of {low:g} steps" if low < 0 else "NaN or infinite delays"
        fix = "project the delays before they are used; dk.attach(optimizer, net) does it after each step"
        raise DelayRangeError(where, found, "finite delays >= 0", fix)


@torch.library.custom_op("delaykit::checked", mutates_args=(), schema="(Tensor x, Tensor delays) -> Tensor")
def checked(x: Tensor, delays: Tensor) -> Tensor:
    """Return a copy of ``x`` once :func:`check_causal` has looked at the delays: a check that a graph carries out."""
    check_causal("delays in a compiled graph", delays)
    return x.clone()


@checked.register_fake
def _(x: Tensor, delays: Tensor) -> Tensor:
    return torch.empty_like(x)


def _unchanged(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad, None


checked.register_autograd(_unchanged)
