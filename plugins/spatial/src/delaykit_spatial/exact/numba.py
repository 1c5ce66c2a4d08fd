"""Exact gradients as operators that a compiler keeps whole: the same sums as in plain torch, by Numba, for the CPU.

Kept for backward are sequences of neurons: spikes, their clock, the membrane's slope at them and whether they came
before the arrivals of their step, and for AdEx the upstroke's factor.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import in_threads
from delaykit.functional.derivatives import refuse_second
from delaykit.functional.event_gradients import warn_of_explosion
from delaykit_spatial.exact import arrival_kernels as kernels
from delaykit_spatial.exact import neuron_kernels
from delaykit_spatial.exact.neuron import ExactAdEx, Neuron

BLOCK = 2048  # neurons, over the batch, that go through the steps together: their states stay in the nearest cache
SPARSE = 0.25  # spikes a step and row of the batch, below which arrivals are written to their places one by one


def arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Sum the jumps of current and membrane; see :func:`delaykit_spatial.exact.torch.arrivals`."""
    i_jump, v_jump, _ = _arrivals(spikes, clock, weight, delay, slots, tau_syn, dt)
    return i_jump, v_jump


def rollout(
    i_jump: Tensor, v_jump: Tensor | None, neuron: Neuron, weight: Tensor | None, delay: Tensor | None,
    slots: Tensor | None, once: bool, rescale_every: int, min_slope: float, timed: bool, surrogate: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron; see :func:`delaykit_spatial.exact.torch.rollout`."""
    numbers = [*neuron.constants(), 0.0, 1.0, float(once), float(timed), min_slope]
    adex = isinstance(neuron, ExactAdEx)
    out = _rollout(i_jump, v_jump, weight, delay, slots, numbers, adex, rescale_every, surrogate)
    return out[0], out[1], out[2], out[3]


@torch.library.custom_op(
    "delaykit::exact_arrivals",
    mutates_args=(),
    schema="(Tensor spikes, Tensor? clock, Tensor weight, Tensor delay, Tensor slots, float tau_syn, float dt)"
    " -> (Tensor, Tensor, Tensor)",
)
def _arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float
) -> tuple[Tensor, Tensor, Tensor]:
    steps, batch, _ = spikes.shape
    out_i, out_v = (_empty(spikes, steps, batch, len(weight)) for _ in range(2))
    events, ticks, values = _arrays(spikes, _given(clock, spikes), _decay(spikes, tau_syn, dt))
    way, out = _turned(weight, delay, slots, tau_syn, dt), (values, out_i.numpy(), out_v.numpy())
    sparse = [True]

    def one_by_one(first: int, last: int) -> None:
        most = SPARSE * steps
        sparse[0] &= kernels.scatter_sparse(events, ticks, *way.arrays, way.slots, most, *out, first, last)

    def by_a_buffer(first: int, last: int) -> None:
        kernels.scatter(events, ticks, *way.arrays, *way.places(steps), *out, first, last)

    in_threads(one_by_one, batch, out_i.numel() + spikes.numel())
    if not sparse[0]:
        in_threads(by_a_buffer, batch, out_i.numel() + spikes.numel())
    return out_i, out_v, torch.tensor(sparse[0])


@torch.library.custom_op(
    "delaykit::exact_arrivals_backward",
    mutates_args=(),
    schema="(Tensor grad_i, Tensor grad_v, Tensor spikes, Tensor? clock, Tensor weight, Tensor delay, Tensor slots,"
    " float tau_syn, float dt, bool timed, Tensor sparse) -> (Tensor, Tensor, Tensor)",
)
def _arrivals_backward(
    grad_i: Tensor, grad_v: Tensor, spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor,
    slots: Tensor, tau_syn: float, dt: float, timed: bool, sparse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    steps, batch, _ = spikes.shape
    grad_clock = _empty(spikes, *(spikes.shape if timed else (0, 0, 0)))
    way, sums = _turned(weight, delay, slots, tau_syn, dt), _Sums(weight.t())
    events, ticks = _arrays(spikes, _given(clock, spikes))
    grads = _arrays(grad_i, grad_v, _decay(spikes, tau_syn, dt))

    def work(first: int, last: int) -> None:
        out = (*sums.share(first), grad_clock.numpy(), first, last)
        if bool(sparse):
            kernels.gather_sparse(events, ticks, *way.arrays[1:], way.slots, *grads, *out)
        else:
            kernels.gather(events, ticks, *way.arrays[1:], *way.places(steps), *grads, *out)

    in_threads(work, batch, grad_i.numel() + spikes.numel())
    return *way.gradients(sums, weight, tau_syn, dt), grad_clock


@torch.library.custom_op(
    "delaykit::exact_rollout",
    mutates_args=(),
    schema="(Tensor i_jump, Tensor? v_jump, Tensor? weight, Tensor? delay, Tensor? slots, float[] numbers, bool adex,"
    " int rescale_every, bool surrogate) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _rollout(
    i_jump: Tensor, v_jump: Tensor | None, weight: Tensor | None, delay: Tensor | None, slots: Tensor | None,
    numbers: list[float], adex: bool, rescale_every: int, surrogate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    steps, batch, post = i_jump.shape
    spikes, clock, membrane, slope = (_empty(i_jump, *i_jump.shape) for _ in range(4))
    order = torch.from_numpy(np.empty(i_jump.shape, np.int8))
    before = _empty(i_jump, *(i_jump.shape if surrogate else (0, 0, 0)))
    factor = _empty(i_jump, *((2, *i_jump.shape) if adex else (0, 0, 0, 0)))
    alive = i_jump.new_empty(batch, post)
    way = _recurrent(i_jump, weight, delay, slots, numbers)
    given = [*_arrays(i_jump, _given(v_jump, i_jump)), *way.arrays, *way.places(steps)]
    arrays = _arrays(i_jump.new_tensor(numbers), spikes, clock, membrane, before, slope, order)
    tail = _arrays(*((factor, alive) if adex else (alive,)))
    kernel = neuron_kernels.adex_forward if adex else neuron_kernels.lif_forward

    def work(first: int, last: int) -> None:
        for start, stop in _blocks(first, last, post, weight is not None):
            kernel(*given, *arrays, *tail, start, stop)

    in_threads(work, batch, 8 * i_jump.numel())
    return spikes, clock, membrane, before, slope, order, factor, alive


@torch.library.custom_op(
    "delaykit::exact_rollout_backward",
    mutates_args=(),
    schema="(Tensor? grad_clock, Tensor? grad_membrane, Tensor? grad_before, Tensor spikes, Tensor clock,"
    " Tensor slope, Tensor order, Tensor factor, Tensor alive, Tensor? weight, Tensor? delay, Tensor? slots,"
    " float[] numbers, int rescale_every) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _rollout_backward(
    grad_clock: Tensor | None, grad_membrane: Tensor | None, grad_before: Tensor | None, spikes: Tensor,
    clock: Tensor, slope: Tensor, order: Tensor, factor: Tensor, alive: Tensor, weight: Tensor | None,
    delay: Tensor | None, slots: Tensor | None, numbers: list[float], rescale_every: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    steps, batch, post = spikes.shape
    way = _recurrent(spikes, weight, delay, slots, numbers)
    given = [_given(x, spikes) for x in (grad_clock, grad_membrane, grad_before)]
    arrays = _arrays(*given, spikes, clock, slope, order, factor, alive)
    values = spikes.new_tensor(numbers).numpy()
    grad_i, grad_v = _empty(spikes, *spikes.shape), _empty(spikes, *spikes.shape)
    sums = _Sums(way.weight)

    def work(first: int, last: int) -> None:
        out = (values, rescale_every, grad_i.numpy(), grad_v.numpy(), *sums.share(first))
        for start, stop in _blocks(first, last, post, weight is not None):
            neuron_kernels.backward(*arrays, *way.arrays[1:], *way.places(steps), *out, start, stop)

    in_threads(work, batch, 16 * spikes.numel())
    warn_of_explosion(grad_i[0], "exact_rollout", "pass rescale_every=10")
    tau_syn, dt = numbers[neuron_kernels.TAU_SYN], numbers[neuron_kernels.DT]
    return grad_i, grad_v, *way.gradients(sums, way.weight.t() if weight is None else weight, tau_syn, dt)


def _empty(like: Tensor, *shape: int) -> Tensor:
    """Make a tensor in NumPy's memory: it comes in huge pages, which cost a tenth of torch's to touch first."""
    return torch.from_numpy(np.empty(shape, str(like.dtype).removeprefix("torch.")))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [x.detach().contiguous().numpy() for x in tensors]


class _Sums:
    """Sums over synapses ``(pre, post)``, one pair for every share of the batch."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.shares = like.contiguous(), dict[int, tuple[Tensor, Tensor]]()

    def share(self, first: int) -> tuple[Any, Any]:
        """Make a pair of arrays to add to, for the share that begins with row ``first``."""
        pair = torch.zeros_like(self.like), torch.zeros_like(self.like)
        self.shares[first] = pair
        return pair[0].numpy(), pair[1].numpy()

    def total(self) -> tuple[Tensor, Tensor]:
        """Return the sums over the shares, ``(post, pre)``, in the order of the batch whichever thread was first."""
        pairs = [self.shares[first] for first in sorted(self.shares)]
        grad_weight, grad_time = (torch.stack(x).sum(0).t().contiguous() for x in zip(*pairs, strict=True))
        return grad_weight, grad_time


class _Way(NamedTuple):
    """A connection turned to ``(pre, post)``: weight, w e and lack as the kernels say, and whole steps."""

    weight: Tensor
    kept: Tensor
    lack: Tensor
    steps: Tensor

    @property
    def arrays(self) -> list[np.ndarray]:
        return _arrays(self.weight, self.kept, self.lack)

    @property
    def slots(self) -> np.ndarray:
        return _arrays(self.steps)[0]

    def places(self, steps: int) -> tuple[np.ndarray, int]:
        """Return the places in the flat buffer, and the rows it has after the sequence."""
        late = self.steps.clamp(max=steps + 1)  # further on, all is lost alike
        at = late * self.steps.shape[1] + torch.arange(self.steps.shape[1])
        return at.contiguous().numpy(), int(late.max()) if late.numel() else 0

    def gradients(self, sums: _Sums, weight: Tensor, tau_syn: float, dt: float) -> tuple[Tensor, Tensor]:
        """Return the gradients of weights and delays, ``(post, pre)``."""
        grad_kept, grad_rest = sums.total()
        grad_kept = grad_kept * torch.exp(self.lack.t() * (-dt / tau_syn))
        return grad_kept + tau_syn * grad_rest, weight * grad_kept * (dt / tau_syn)


def _turned(weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float) -> _Way:
    lack = (delay.detach().ceil() - delay.detach()).expand(weight.shape)
    kept = weight * torch.exp(lack * (-dt / tau_syn))
    return _Way(*(x.t().contiguous() for x in (weight, kept, lack, slots)))


def _recurrent(
    like: Tensor, weight: Tensor | None, delay: Tensor | None, slots: Tensor | None, numbers: list[float]
) -> _Way:
    if weight is None or delay is None or slots is None:
        none = like.new_empty(0, 0)
        return _Way(none, none, none, torch.empty(0, 0, dtype=torch.int64))
    return _turned(weight, delay, slots + 1, numbers[neuron_kernels.TAU_SYN], numbers[neuron_kernels.DT])


def _decay(like: Tensor, tau_syn: float, dt: float) -> Tensor:
    """List the numbers of ``arrival_kernels``."""
    return like.new_tensor([0.0, 1.0, tau_syn, dt / tau_syn, math.exp(dt / tau_syn)])


def _given(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0, 0, 0) if x is None else x


def _blocks(first: int, last: int, post: int, recurrent: bool) -> list[tuple[int, int]]:
    size = 1 if recurrent else max(1, BLOCK // max(post, 1))
    return [(start, min(start + size, last)) for start in range(first, last, size)]


@_arrivals.register_fake
def _(spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float,
      dt: float) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    out = spikes.new_empty(*spikes.shape[:2], weight.shape[0])
    return out, torch.empty_like(out), out.new_empty((), dtype=torch.bool)


@_arrivals_backward.register_fake
def _(grad_i: Tensor, grad_v: Tensor, spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor,
      slots: Tensor, tau_syn: float, dt: float, timed: bool, sparse: Tensor
      ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    grad_clock = spikes.new_empty(spikes.shape if timed else (0, 0, 0))
    return weight.new_empty(weight.shape), weight.new_empty(weight.shape), grad_clock


@_rollout.register_fake
def _(i_jump: Tensor, v_jump: Tensor | None, weight: Tensor | None, delay: Tensor | None, slots: Tensor | None,
      numbers: list[float], adex: bool, rescale_every: int, surrogate: bool) -> tuple[Tensor, ...]:  # fmt: skip
    full = lambda: i_jump.new_empty(i_jump.shape)  # noqa: E731
    before = i_jump.new_empty(i_jump.shape if surrogate else (0, 0, 0))
    factor = i_jump.new_empty((2, *i_jump.shape) if adex else (0, 0, 0, 0))
    order = i_jump.new_empty(i_jump.shape, dtype=torch.int8)
    return full(), full(), full(), before, full(), order, factor, i_jump.new_empty(i_jump.shape[1:])


@_rollout_backward.register_fake
def _(grad_clock: Tensor | None, grad_membrane: Tensor | None, grad_before: Tensor | None, spikes: Tensor,
      clock: Tensor, slope: Tensor, order: Tensor, factor: Tensor, alive: Tensor, weight: Tensor | None,
      delay: Tensor | None, slots: Tensor | None, numbers: list[float], rescale_every: int
      ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    shape = (0, 0) if weight is None else weight.shape
    full = spikes.new_empty(spikes.shape)
    return full, torch.empty_like(full), spikes.new_empty(shape), spikes.new_empty(shape)


def _keep_arrivals(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    spikes, clock, weight, delay, slots, ctx.tau_syn, ctx.dt = inputs
    ctx.save_for_backward(spikes, clock, weight, delay, slots, output[2])


def _backward_of_arrivals(ctx: Any, grad_i: Tensor, grad_v: Tensor, _: None) -> tuple[Tensor | None, ...]:
    spikes, clock, weight, delay, slots, sparse = ctx.saved_tensors
    timed = ctx.needs_input_grad[1]
    grad_weight, grad_delay, grad_clock = _arrivals_backward(
        grad_i, grad_v, spikes, clock, weight, delay, slots, ctx.tau_syn, ctx.dt, timed, sparse
    )
    return None, grad_clock if timed else None, grad_weight, grad_delay.sum_to_size(delay.shape), None, None, None


def _keep_rollout(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, weight, delay, slots, ctx.numbers, _, ctx.rescale_every, _ = inputs
    spikes, clock, _, _, slope, order, factor, alive = output
    ctx.save_for_backward(spikes, clock, slope, order, factor, alive, weight, delay, slots)
    ctx.mark_non_differentiable(spikes, slope, order, factor, alive)
    ctx.set_materialize_grads(False)


def _backward_of_rollout(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
    *kept, weight, delay, slots = ctx.saved_tensors
    grad_i, grad_v, grad_weight, grad_delay = _rollout_backward(
        given[1], given[2], given[3], *kept, weight, delay, slots, ctx.numbers, ctx.rescale_every
    )
    grads: list[Tensor | None] = [grad_i, grad_v, None, None]
    if weight is not None:
        grads[2:] = grad_weight, grad_delay.sum_to_size(delay.shape)
    return *(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False)), *[None] * 5


_arrivals.register_autograd(_backward_of_arrivals, setup_context=_keep_arrivals)
_rollout.register_autograd(_backward_of_rollout, setup_context=_keep_rollout)
refuse_second(_arrivals_backward, "exact_arrivals")
refuse_second(_rollout_backward, "exact_rollout")
