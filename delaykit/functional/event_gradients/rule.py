r"""The rule of exact gradients in step mode: what an arrival, a spike and a reset do to a gradient.

A neuron with a synaptic current, ``i' = -rate_s i + sum w delta(t - t_arrival)``, ``v' = -rate_m (v - rest) + i``,
is advanced a step at a time by ``i <- alpha (i + arrivals)``, ``v <- beta v + K i``: exact between events if

    alpha = exp(-rate_s), beta = exp(-rate_m), K = (alpha - beta) / (rate_m - rate_s)

all in steps. A library's current is ``x = K i / gain``. With tangents taken at a fixed time, v' before a spike written
v'-, after it v'+:

- arrival of weight w at t:  ``T[x jump] = T[w] + w rate_s T[t]``,  ``T[v jump] = -(gain w / K) T[t]``
- spike:  ``T[t] = -T[v] / v'-``
- reset:  ``T[v+] = (v'+ / v'-) T[v-]``

Backward, a connection sees one gradient only, ``g[t]``, that of its current x. The membrane's own is in it: from
``x[t] = alpha x[t-1] + arrivals`` and ``v[t] = beta v[t-1] + gain x[t]`` follows ``g[t] = gain g_v[t] + alpha g[t+1]``,
so that the gradient of an arrival's time is ``w h[t]`` with

    h[t] = rate_s g[t] - (beta / K) (g[t] - alpha g[t+1])

Spikes tell their time to the neuron that emitted them beside the graph: the connection leaves the gradient at the
:class:`Emission` node, which autograd visits later, because the spikes came from it. So readouts of the spikes'
values keep the library's surrogate.

Reference: Wunderlich & Pehle 2021 (EventProp); Landsmeer et al. 2025, eq. 14, 23 (signs of eq. 16 and 27 corrected).
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import torch
from torch import Tensor

from delaykit.errors import HistoryError
from delaykit.functional.taps import Taps

LEAST_SLOPE = 2e-3  # thresholds a synaptic time constant: 1e-3 per ms at 2 ms, where grazing spikes are cut off
PASSING = frozenset("Alias Clone Div Mul NativeDropout ReshapeAlias Squeeze ToCopy Unsqueeze UnsafeView View".split())
"""Operations that keep spikes spikes, one for one: casts, reshapes, masks and factors."""

_graph_task = torch._C._current_graph_task_id


@dataclasses.dataclass(frozen=True)
class NeuronConstants:
    """The two time constants of a receiving neuron, as decays a step, detached; one value or one a neuron.

    Args:
        alpha: decay of the synaptic current, in (0, 1].
        beta: decay of the membrane, in (0, 1].
        gain: of the current on the membrane, > 0.
        rest: membrane that it decays to.

    Example:
        >>> neuron = NeuronConstants(torch.tensor(0.5).double(), torch.tensor(0.5).double())
        >>> round(float(neuron.response()), 12)
        0.5
    """

    alpha: Tensor
    beta: Tensor
    gain: Tensor | float = 1.0
    rest: Tensor | float = 0.0

    def rates(self) -> tuple[Tensor, Tensor]:
        """Return ``(rate_s, rate_m)``, one over the time constants in steps."""
        return -self.alpha.double().log(), -self.beta.double().log()

    def response(self) -> Tensor:
        """Return K: the membrane one step after a unit of current arrived."""
        rate_s, rate_m = self.rates()
        x = rate_m - rate_s
        ratio = torch.where(x.abs() < 1e-6, 1 - x / 2, -torch.expm1(-x) / torch.where(x == 0, torch.ones_like(x), x))
        return self.alpha.double() * ratio

    def arrival(self) -> tuple[Tensor, Tensor]:
        """Return (now, next): the gradient of an arrival's time is ``w (now g[t] + next g[t+1])``."""
        rate_s, _ = self.rates()
        turn = self.beta.double() / self.response()
        return rate_s - turn, turn * self.alpha.double()

    def slope(self) -> tuple[Tensor, Tensor]:
        """Return (current, membrane): at the end of a step ``v' = current alpha x - membrane (v - rest)``."""
        return torch.as_tensor(self.gain, dtype=torch.float64) / self.response(), self.rates()[1]

    def least(self, threshold: Tensor | float) -> Tensor:
        """Return the slope below which a spike counts as grazing, per step."""
        size = torch.as_tensor(threshold).detach().double().abs()
        return (LEAST_SLOPE * self.rates()[0]).clamp(min=1e-6) * size


class _Whole(torch.autograd.Function):
    """1 for every delay; what an exact filter returns as this tap's gradient is the delay's."""

    @staticmethod
    def forward(ctx: Any, delays: Tensor) -> Tensor:
        return torch.ones_like(delays)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def whole_taps(delays: Tensor) -> Taps:
    """List one tap of value 1 at ``round(d)``; its gradient stands for the delay's and only an exact tape knows it.

    Args:
        delays: ``(A, B)``, steps, >= 0.

    Example:
        >>> whole_taps(torch.tensor([[1.8]])).response(3).tolist()
        [[[0.0, 0.0, 1.0]]]
    """
    value = _Whole.apply(delays) if delays.requires_grad else torch.ones_like(delays)
    return Taps(delays.detach().round().long().unsqueeze(0), value.unsqueeze(0))


class Emission(torch.autograd.Function):
    """Spikes as the library made them, whose times have a gradient: ``dL/dv = -(dL/dt) / v'-`` where one was fired.

    Readouts' gradients of the spikes' values go on to the library's surrogate.
    """

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, membrane: Tensor, slope: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(spikes, slope)
        ctx.times = {}
        return spikes.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        time = ctx.times.pop(_graph_task(), None)
        if time is None:
            return grad, None, None
        spikes, slope = ctx.saved_tensors
        return grad, (-time.reshape(spikes.shape) * spikes / slope).to(slope.dtype), None


def deliver(emission: Any, time: Tensor) -> None:
    """Leave the gradient of spike times at the node that emitted them, for this backward pass."""
    task = _graph_task()
    known = emission.times.get(task)
    emission.times[task] = time if known is None else known + time


class Continued(torch.autograd.Function):
    """``value``, a membrane behind its reset, with the gradient times ``ratio``: v'+ / v'-, 1 without reset."""

    @staticmethod
    def forward(ctx: Any, membrane: Tensor, ratio: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(ratio)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (ratio,) = ctx.saved_tensors
        return grad * ratio, None, None


class Replaced(torch.autograd.Function):
    """The library's value, with the gradient handed to another tensor where ``where`` is 1, and nowhere else to it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, instead: Tensor, where: Tensor) -> Tensor:
        ctx.save_for_backward(where)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (where,) = ctx.saved_tensors
        there = grad * where
        return grad - there, there, None


class _Rescaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor) -> Tensor:
        return state.view_as(state)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / (1 + grad.flatten(1).norm(dim=1).view(-1, *[1] * (grad.dim() - 1)))


def rescale_gradient(state: Tensor) -> Tensor:
    """Return a state as it is; backward, each row's gradient g becomes ``g / (1 + |g|)``.

    Exact gradients multiply by v'+ / v'- at every spike, so that over long sequences they may explode. Called on a
    neuron's states every ten steps or so, this bounds them; the direction stays, the length does not.

    Args:
        state: a membrane or a synaptic current, ``(batch, ...)``.

    Example:
        >>> state = torch.zeros(1, 2, requires_grad=True)
        >>> torch.autograd.grad((rescale_gradient(state) * torch.tensor([3.0, 4.0])).sum(), state)[0].tolist()
        [[0.5, 0.6666666865348816]]

    Reference: Landsmeer et al. 2025, published code.
    """
    return _Rescaled.apply(state)


def warn_of_explosion(grad: Tensor, where: str, fix: str) -> None:
    """Warn where an exact gradient is infinite or NaN: it multiplies by v'+ / v'- at every spike, and may overflow.

    Args:
        grad: a gradient that all later ones have gone into.
        where: what computed it.
        fix: what to do.
    """
    if not bool(torch.isfinite(grad).all()):
        found = "exact gradients that are infinite or NaN: they grow at every spike, most of all where neurons fire in"
        warnings.warn(f"{where}: found {found} most steps. To go on: {fix}, or shorten the sequence", stacklevel=2)


def emission_of(x: Tensor, where: str, expected: bool) -> Any:
    """Find the node that emitted these spikes, through casts, reshapes and masks; None for data.

    Args:
        x: input of a connection.
        where: site name, for the message.
        expected: whether spikes of a neuron come here.

    Raises:
        HistoryError: spikes were expected, and something that mixes or shifts them stands between.
    """
    return _emitted(_source(x.grad_fn), where, expected)


def emissions_of(sequence: Tensor, where: str, expected: bool) -> list[Any]:
    """Find the nodes behind a sequence, stacked along its first dimension; one entry a step."""
    node = _source(sequence.grad_fn)
    if node is not None and node.name() == "StackBackward0" and node._saved_dim == 0:
        return [_emitted(_source(n), where, expected) for n, _ in node.next_functions]
    if node is not None and expected:
        raise _lost(where, node)
    return [None] * len(sequence)


def _emitted(node: Any, where: str, expected: bool) -> Any:
    if node is None or isinstance(node, Emission._backward_cls):
        return node
    if expected:
        raise _lost(where, node)
    return None


def _source(node: Any) -> Any:
    """Go back through whatever keeps spikes spikes."""
    while node is not None and (node.name().partition("Backward")[0] in PASSING or _stays(node)):
        inputs = [n for n, _ in node.next_functions if n is not None]
        if len(inputs) != 1:  # a product of two things that learn
            break
        node = inputs[0]
    return node


def _stays(node: Any) -> bool:
    """Tell a permutation that changes nothing, which ``movedim`` makes, from others."""
    return node.name() == "PermuteBackward0" and list(node._saved_dims) == list(range(len(node._saved_dims)))


def _lost(where: str, node: Any) -> HistoryError:
    return HistoryError(
        where,
        f"spikes that went through {node.name()} on their way",
        "the spikes of one neuron, at most cast, reshaped or masked",
        "put the connection directly behind the neuron, or use estimator='interp'",
    )
