"""Exact gradients as operators that a compiler keeps whole: the same sums as in the reference, by Numba, for the CPU.

Kept for backward are sequences of neurons: spikes, the membrane's slope at them, and for AdEx the upstroke's factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional import exact_kernels as kernels
from delaykit.functional import exact_reference
from delaykit.functional.backend import register
from delaykit.functional.compiled import in_threads
from delaykit.functional.exact_neurons import ExactAdEx, Neuron

BLOCK = 2048  # neurons, over the batch, that go through the steps together: their states stay in the nearest cache
SPARSE = 0.25  # spikes a step and row of the batch, below which arrivals are written to their places one by one

register("exact_arrivals", "torch")(exact_reference.arrivals)
register("exact_rollout", "torch")(exact_reference.rollout)


@register("exact_arrivals", "cpu")
def arrivals(
    spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Sum the jumps of current and membrane; see :func:`delaykit.functional.exact_reference.arrivals`."""
    i_jump, v_jump, _ = _arrivals(spikes, clock, weight, delay, slots, tau_syn, dt)
    return i_jump, v_jump


@register("exact_rollout", "cpu")
def rollout(
    i_jump: Tensor, v_jump: Tensor | None, neuron: Neuron, weight: Tensor | None, delay: Tensor | None,
    slots: Tensor | None, once: bool, rescale_every: int, min_slope: float, timed: bool, surrogate: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the neuron; see :func:`delaykit.functional.exact_reference.rollout`."""
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
    out = _empty(spikes, steps, batch, len(weight))
    (events,) = _arrays(spikes)
    sparse, given = [True], [events, *_arrays(weight.t(), slots.t())]

    def one_by_one(first: int, last: int) -> None:
        sparse[0] &= kernels.scatter_sparse(*given, out.numpy(), SPARSE * steps, first, last)

    in_threads(one_by_one, batch, out.numel() + spikes.numel())
    if not sparse[0]:
        turned, at, late = _turned(weight, slots, steps)
        given = [events, *_arrays(turned, at)]
        work = lambda first, last: kernels.scatter(*given, late, out.numpy(), first, last)  # noqa: E731
        in_threads(work, batch, out.numel() + spikes.numel())
    return out, _zeros(out), torch.tensor(sparse[0])


@torch.library.custom_op(
    "delaykit::exact_arrivals_backward",
    mutates_args=(),
    schema="(Tensor into_i, Tensor into_v, Tensor spikes, Tensor weight, Tensor slots, float tau_syn, float dt,"
    " bool timed, Tensor sparse) -> (Tensor, Tensor, Tensor)",
)
def _arrivals_backward(
    into_i: Tensor, into_v: Tensor, spikes: Tensor, weight: Tensor, slots: Tensor, tau_syn: float, dt: float,
    timed: bool, sparse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    steps, batch, _ = spikes.shape
    clock = _empty(spikes, *(spikes.shape if timed else (0, 0, 0)))
    numbers = spikes.new_zeros(21)
    numbers[kernels.DT], numbers[kernels.TAU_SYN], numbers[kernels.ONE] = dt, tau_syn, 1.0
    (events,), into = _arrays(spikes), _arrays(into_i, into_v, numbers)
    sums = _Sums(weight.t())
    if bool(sparse):
        given = [events, *_arrays(weight.t(), slots.t()), *into]
        kernel = kernels.gather_sparse
    else:
        turned, at, late = _turned(weight, slots, steps)
        given = [events, *_arrays(turned, at), late, *into]  # type: ignore[list-item]
        kernel = kernels.gather

    def work(first: int, last: int) -> None:
        kernel(*given, *sums.share(first), clock.numpy(), first, last)

    in_threads(work, batch, into_i.numel() + spikes.numel())
    by_weight, by_time = sums.total()
    return by_weight, weight * by_time, clock


@torch.library.custom_op(
    "delaykit::exact_rollout",
    mutates_args=(),
    schema="(Tensor i_jump, Tensor? v_jump, Tensor? weight, Tensor? delay, Tensor? slots, float[] numbers, bool adex,"
    " int rescale_every, bool surrogate) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _rollout(
    i_jump: Tensor, v_jump: Tensor | None, weight: Tensor | None, delay: Tensor | None, slots: Tensor | None,
    numbers: list[float], adex: bool, rescale_every: int, surrogate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    steps, batch, post = i_jump.shape
    spikes, membrane, slope = (_empty(i_jump, *i_jump.shape) for _ in range(3))
    before, factor = (_empty(i_jump, *(i_jump.shape if used else (0, 0, 0))) for used in (surrogate, adex))
    alive = i_jump.new_empty(batch, post)
    turned, at, late = _recurrent(i_jump, weight, slots)
    given = _arrays(i_jump, turned, at)
    arrays = _arrays(i_jump.new_tensor(numbers), spikes, membrane, before, slope)
    tail = _arrays(*((factor, alive) if adex else (alive,)))
    kernel = kernels.adex_forward if adex else kernels.lif_forward

    def work(first: int, last: int) -> None:
        for start, stop in _blocks(first, last, post, weight is not None):
            kernel(*given, late, *arrays, *tail, start, stop)

    in_threads(work, batch, 8 * i_jump.numel())
    return spikes, _zeros(spikes), membrane, before, slope, factor, alive


@torch.library.custom_op(
    "delaykit::exact_rollout_backward",
    mutates_args=(),
    schema="(Tensor? into_clock, Tensor? into_membrane, Tensor? into_before, Tensor spikes, Tensor slope,"
    " Tensor factor, Tensor alive, Tensor? weight, Tensor? slots, float[] numbers, int rescale_every)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _rollout_backward(
    into_clock: Tensor | None, into_membrane: Tensor | None, into_before: Tensor | None, spikes: Tensor,
    slope: Tensor, factor: Tensor, alive: Tensor, weight: Tensor | None, slots: Tensor | None, numbers: list[float],
    rescale_every: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _, batch, post = spikes.shape
    none = spikes.new_empty(0, 0, 0)
    turned, at, late = _recurrent(spikes, weight, slots)
    given = [none if x is None else x for x in (into_clock, into_membrane, into_before)]
    given += [spikes, slope, factor, alive, turned, at]
    arrays = _arrays(*given)
    values = spikes.new_tensor(numbers).numpy()
    into_i, into_v = _empty(spikes, *spikes.shape), _empty(spikes, *spikes.shape)
    sums = _Sums(turned)

    def work(first: int, last: int) -> None:
        share = sums.share(first)
        for start, stop in _blocks(first, last, post, weight is not None):
            kernels.backward(
                *arrays, late, values, rescale_every, into_i.numpy(), into_v.numpy(), *share, start, stop
            )  # fmt: skip

    in_threads(work, batch, 16 * spikes.numel())
    by_weight, by_time = sums.total()
    return into_i, into_v, by_weight, by_time if weight is None else weight * by_time


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
        by_weight, by_time = (torch.stack(x).sum(0).t().contiguous() for x in zip(*pairs, strict=True))
        return by_weight, by_time


def _turned(weight: Tensor, slots: Tensor, steps: int) -> tuple[Tensor, Tensor, int]:
    """Turn a connection to ``(pre, post)``: weight, place in the flat buffer, rows of that after the sequence."""
    late = slots.clamp(max=steps)  # further on, all is lost alike
    post = len(weight)
    at = late.t() * post + torch.arange(post)
    return weight.t().contiguous(), at.contiguous(), int(late.max()) if late.numel() else 0


def _recurrent(like: Tensor, weight: Tensor | None, slots: Tensor | None) -> tuple[Tensor, Tensor, int]:
    if weight is None or slots is None:
        return like.new_empty(0, 0), torch.empty(0, 0, dtype=torch.int64), 0
    return _turned(weight, slots + 1, len(like))


def _blocks(first: int, last: int, post: int, recurrent: bool) -> list[tuple[int, int]]:
    size = 1 if recurrent else max(1, BLOCK // max(post, 1))
    return [(start, min(start + size, last)) for start in range(first, last, size)]


def _zeros(like: Tensor) -> Tensor:
    """Zeros without memory: nobody writes into them."""
    return like.new_zeros(1).expand(like.shape)


@_arrivals.register_fake
def _(spikes: Tensor, clock: Tensor | None, weight: Tensor, delay: Tensor, slots: Tensor, tau_syn: float,
      dt: float) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    out = spikes.new_empty(*spikes.shape[:2], weight.shape[0])
    return out, _zeros(out), out.new_empty((), dtype=torch.bool)


@_arrivals_backward.register_fake
def _(into_i: Tensor, into_v: Tensor, spikes: Tensor, weight: Tensor, slots: Tensor, tau_syn: float, dt: float,
      timed: bool, sparse: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    clock = spikes.new_empty(spikes.shape if timed else (0, 0, 0))
    return weight.new_empty(weight.shape), weight.new_empty(weight.shape), clock


@_rollout.register_fake
def _(i_jump: Tensor, v_jump: Tensor | None, weight: Tensor | None, delay: Tensor | None, slots: Tensor | None,
      numbers: list[float], adex: bool, rescale_every: int, surrogate: bool) -> tuple[Tensor, ...]:  # fmt: skip
    full, none = (lambda: i_jump.new_empty(i_jump.shape)), (lambda: i_jump.new_empty(0, 0, 0))
    before, factor = full() if surrogate else none(), full() if adex else none()
    return full(), _zeros(i_jump), full(), before, full(), factor, i_jump.new_empty(i_jump.shape[1:])


@_rollout_backward.register_fake
def _(into_clock: Tensor | None, into_membrane: Tensor | None, into_before: Tensor | None, spikes: Tensor,
      slope: Tensor, factor: Tensor, alive: Tensor, weight: Tensor | None, slots: Tensor | None,
      numbers: list[float], rescale_every: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    shape = (0, 0) if weight is None else weight.shape
    full = spikes.new_empty(spikes.shape)
    return full, torch.empty_like(full), spikes.new_empty(shape), spikes.new_empty(shape)


def _keep_arrivals(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    spikes, _, weight, delay, slots, ctx.tau_syn, ctx.dt = inputs
    ctx.delay = delay.shape
    ctx.save_for_backward(spikes, weight, slots, output[2])


def _backward_of_arrivals(ctx: Any, into_i: Tensor, into_v: Tensor, _: None) -> tuple[Tensor | None, ...]:
    spikes, weight, slots, sparse = ctx.saved_tensors
    timed = ctx.needs_input_grad[1]
    by_weight, by_delay, clock = _arrivals_backward(
        into_i, into_v, spikes, weight, slots, ctx.tau_syn, ctx.dt, timed, sparse
    )
    return None, clock if timed else None, by_weight, by_delay.sum_to_size(ctx.delay), None, None, None


def _keep_rollout(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, weight, delay, slots, ctx.numbers, _, ctx.rescale_every, _ = inputs
    spikes, _, _, _, slope, factor, alive = output
    ctx.delay = None if delay is None else delay.shape
    ctx.save_for_backward(spikes, slope, factor, alive, weight, slots)
    ctx.mark_non_differentiable(spikes, slope, factor, alive)
    ctx.set_materialize_grads(False)


def _backward_of_rollout(ctx: Any, *into: Tensor | None) -> tuple[Tensor | None, ...]:
    spikes, slope, factor, alive, weight, slots = ctx.saved_tensors
    into_i, into_v, by_weight, by_delay = _rollout_backward(
        into[1], into[2], into[3], spikes, slope, factor, alive, weight, slots, ctx.numbers, ctx.rescale_every
    )
    grads: list[Tensor | None] = [into_i, into_v, None, None]
    if weight is not None:
        grads[2:] = by_weight, by_delay.sum_to_size(ctx.delay)
    return *(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False)), *[None] * 5


_arrivals.register_autograd(_backward_of_arrivals, setup_context=_keep_arrivals)
_rollout.register_autograd(_backward_of_rollout, setup_context=_keep_rollout)
