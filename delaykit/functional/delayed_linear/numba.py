"""The sums over delayed synapses for the CPU, by Numba: backend ``cpu``.

They work on rows, see :mod:`delaykit.functional.llvm.rows`, of as many rows of the batch at a time as a vector register
has numbers; without these kernels they are torch's. Spikes that are mostly silent are replaced by lists of events.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from delaykit.functional.compiled import DOT_PRODUCTS, arrays, compiled, in_threads
from delaykit.functional.delayed_linear import torch as plain

try:
    from delaykit.functional.llvm import rows as vectors
except ImportError as error:  # the folder may be deleted
    if error.name != "delaykit.functional.llvm":
        raise
    vectors = None  # type: ignore[assignment]

VECTOR_BYTES = 64
NEAR_BYTES = 40960  # of rows that all outputs read again and again, most of it from the first cache
MOST_OUTPUTS = 256  # whose sums lie in the second cache
FEWEST = 64  # outputs, below which it is a dense product that is faster
SPARSE = 0.35  # share of numbers that are not 0 up to which a product by them is faster
EVENT_DENSITY = {torch.float32: 0.025, torch.float64: 0.05}  # below, a list of events beats a vectorised row


def synapse_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_filter`."""
    (time, batch, _), outputs, events = x.shape, index.shape[1], _events(x) if causal else None
    if events is not None:
        return _scattered(events, (time, batch, outputs), index, value)
    if vectors is None:
        return plain.synapse_filter(x, index, value, causal)
    out, (given,) = torch.empty(time, batch, outputs, dtype=x.dtype), arrays(x)
    listed: dict[int, Any] = {}
    longest = _longest(index, time)
    for row, width in _shares(x):
        rows = _Rows(x, longest, width, -width if causal else width)
        source, start = rows.lay(given, row, rows.silence if causal else 0)
        if width not in listed:
            listed[width] = rows.taps(index, value)[:3]
        operands = source, start, time * width, rows.lanes, *listed[width], out.numpy(), row, width

        def mix(first: int, last: int, operands: Any = operands) -> None:
            for begin in range(first, last, MOST_OUTPUTS):
                vectors.mix_rows(*operands, begin, min(last, begin + MOST_OUTPUTS))

        in_threads(mix, outputs, time * width * index.numel())
    return out


def synapse_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate synapses; see :func:`delaykit.functional.delayed_linear.torch.synapse_correlation`."""
    time, outputs, events = len(x), index.shape[1], _events(x)
    if events is not None:
        return _gathered(events, x, y, index)
    if vectors is None:
        return plain.synapse_correlation(x, y, index)
    listed: dict[int, Any] = {}
    out, longest = torch.zeros(index.shape, dtype=x.dtype), _longest(index, time)
    total, (early, late) = np.zeros(0), arrays(x, y)
    for row, width in _shares(x):
        rows = _Rows(x, longest, width, -width)
        source, start = rows.lay(early, row, rows.silence)
        if width not in listed:
            listed[width] = rows.taps(index, None)
        first, place, _, slot = listed[width]
        total = total if len(total) else np.zeros(len(place), out.numpy().dtype)
        target, _ = rows.lay(late, row, 0)
        operands = source, start, target, time * width, rows.stride, rows.lanes, first, place, total
        in_threads(functools.partial(vectors.dot_rows, *operands), outputs, time * width * index.numel())
    for _, _, _, (slot, order) in list(listed.values())[:1]:
        turned = out.permute(order).contiguous()
        vectors.pick(total, slot, turned.view(-1).numpy())
        out = turned.permute(order)
    return out


def event_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply; see :func:`delaykit.functional.delayed_linear.torch.event_product`."""
    few = len(weight) >= FEWEST and _few(x)
    if vectors is None or not few or not bool(weight.sum().isfinite()):  # 0 times infinity is not nothing
        return plain.event_product(x, weight, bias)
    out = x.new_zeros(len(x), len(weight)) if bias is None else bias.detach().expand(len(x), -1).contiguous()
    operands = *arrays(x, weight.T), out.numpy(), VECTOR_BYTES // x.element_size()
    in_threads(lambda first, last: vectors.add_events(*operands, first, last), len(x), x.numel() * len(weight))
    return out


def event_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Multiply; see :func:`delaykit.functional.delayed_linear.torch.event_gradient`."""
    if vectors is None or grad.shape[1] < FEWEST or not _few(x) or not bool(grad.sum().isfinite()):
        return plain.event_gradient(grad, x)
    out = x.new_zeros(x.shape[1], grad.shape[1])
    operands, work = (*arrays(x, grad), out.numpy(), VECTOR_BYTES // x.element_size()), x.numel() * grad.shape[1]
    in_threads(lambda first, last: vectors.correlate_events(*operands, first, last), len(out), work)
    return out.T.contiguous()


def _few(x: Tensor) -> bool:
    return x.dtype in EVENT_DENSITY and bool(x.numel()) and _used(x) <= SPARSE * x.numel()


def _used(x: Tensor) -> int:
    """Count what is not 0; torch takes five times as long."""
    return int(torch.count_nonzero(x) if vectors is None else vectors.count_used(*arrays(x.flatten())))


def _shares(x: Tensor) -> Iterator[tuple[int, int]]:
    """Divide the batch: first row and number of rows of each share."""
    batch, lanes = x.shape[1], VECTOR_BYTES // x.element_size()
    for row in range(0, batch if x.numel() else 0, lanes):
        yield row, min(lanes, batch - row)


def _longest(index: Tensor, time: int) -> int:
    return min(int(index.max()) if index.numel() else 0, time)


class _Rows:
    """How the sequences of a share of a batch lie in memory, and where the taps of synapses read them.

    Args:
        x: ``(time, batch, neuron)``.
        longest: steps that the farthest tap within the sequence looks away.
        width: rows of the batch.
        late: offset of a tap that looks one step away.
    """

    def __init__(self, x: Tensor, longest: int, width: int, late: int) -> None:
        self.time, self.width, self.late = len(x), width, late
        self.lanes = VECTOR_BYTES // x.element_size()
        self.silence = width * longest
        lines = -(-(self.silence + self.time * width) // self.lanes)
        self.stride = self.lanes * (lines | 1)  # odd: neighbouring rows fall into different parts of a cache
        widest = min(self.lanes, x.shape[1])  # all shares list their taps in the same order
        near = (widest * longest + vectors.REGISTERS * self.lanes) * x.element_size()
        self.few = max(vectors.TOGETHER, NEAR_BYTES // near)

    def lay(self, x: np.ndarray, row: int, pad: int) -> tuple[np.ndarray, int]:
        """Lay out rows ``row ..`` of the batch behind ``pad`` zeros; return them flat, and where the first begins."""
        rows = torch.empty(x.shape[2] * self.stride, dtype=torch.from_numpy(x[:0]).dtype).numpy()
        vectors.lay_rows(x, row, self.width, pad, self.stride, rows)
        return rows, pad

    def taps(self, index: Tensor, value: Tensor | None) -> tuple[Any, ...]:
        """List the taps of every output, those of few inputs at a time.

        Without values, every different step of a synapse is listed once, and the last says where, for the taps in
        another order of dimensions.
        """
        taps, outputs, inputs = index.shape
        turned = not index.is_contiguous() and index.transpose(1, 2).is_contiguous()
        order = (0, 2, 1) if turned else (0, 1, 2)
        flat = index.permute(order).contiguous().view(-1)
        weights = torch.zeros(0, dtype=torch.float32) if value is None else value.permute(order).contiguous().view(-1)
        blocks = -(-inputs // self.few)
        first = np.empty((blocks, outputs + 1), np.int64)
        small, room = inputs * self.stride < 2**31, index.numel() + vectors.TOGETHER * blocks * outputs
        place = np.empty(room, np.int32 if small else np.int64)
        weight = np.empty(0 if value is None else room, weights.numpy().dtype)
        slot = np.empty(len(flat) if value is None else 0, np.int32 if room < 2**31 else np.int64)
        moves = inputs * outputs, 1 if turned else inputs, outputs if turned else 1, self.late, self.stride
        given, shape = arrays(flat, weights), (taps, outputs, inputs, self.few)
        vectors.list_taps(*given, self.time, shape, moves, first, place, weight, slot)
        return first, place, weight, (slot, order)


def _scattered(events: tuple[np.ndarray, ...], shape: tuple[int, int, int], index: Tensor, value: Tensor) -> Tensor:
    time, batch, outputs = shape
    rows = torch.zeros(outputs, time * batch, dtype=value.dtype)
    given = (*events, batch, *arrays(index, value), rows.numpy())
    in_threads(lambda first, last: _scatter_events(*given, first, last), outputs, time * batch * index.numel())
    return rows.T.reshape(shape)


def _gathered(events: tuple[np.ndarray, ...], x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    time, batch, _ = x.shape
    out = torch.zeros(index.shape, dtype=x.dtype)
    given = (*events, batch, *arrays(index), _rows(y).numpy(), out.numpy())
    in_threads(lambda first, last: _gather_events(*given, first, last), index.shape[1], time * batch * index.numel())
    return out


def _rows(x: Tensor) -> Tensor:
    """Turn ``(time, batch, neuron)`` into contiguous ``(neuron, time * batch)``."""
    return x.detach().flatten(0, 1).T.contiguous()


def _events(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """List the non-zero entries of each row, (first event of a row, position, size), or None where there are many."""
    if not x.numel() or _used(x) > EVENT_DENSITY[x.dtype] * x.numel():
        return None
    (rows,) = arrays(x.flatten(0, 1))
    first = np.zeros(rows.shape[1] + 1, np.int64)
    _count_events(rows, first)
    first = first.cumsum()
    position, size = np.empty(first[-1], np.int64), np.empty(first[-1], rows.dtype)
    _place_events(rows, first.copy(), position, size)
    return first, position, size


@compiled()
def _count_events(x, count):  # type: ignore[no-untyped-def]
    """Count the numbers of each column that are not 0, each one place late."""
    rows, columns = x.shape
    for r in range(rows):
        for n in range(columns):
            count[n + 1] += x[r, n] != 0


@compiled()
def _place_events(x, at, position, size):  # type: ignore[no-untyped-def]
    """Write down where they are, column by column."""
    rows, columns = x.shape
    for r in range(rows):
        for n in range(columns):
            if x[r, n] != 0:
                position[at[n]], size[at[n]] = r, x[r, n]
                at[n] += 1


@compiled()
def _scatter_events(first_event, position, size, batch, index, value, out, first, last):  # type: ignore[no-untyped-def]
    """Let each event of row q arrive in ``out[r]`` after its delay."""
    taps, _, inputs = index.shape
    for r in range(first, last):
        target = out[r]
        for m in range(taps):
            for q in range(inputs):
                weight, delay = value[m, r, q], index[m, r, q] * batch
                if weight != 0:
                    for event in range(first_event[q], first_event[q + 1]):
                        arrival = position[event] + delay
                        if arrival >= target.shape[0]:
                            break
                        target[arrival] += weight * size[event]


@compiled(DOT_PRODUCTS)
def _gather_events(first_event, position, size, batch, index, target, out, first, last):  # type: ignore[no-untyped-def]
    """Sum ``target[r]`` over the arrivals of row q's events."""
    taps, _, inputs = index.shape
    for r in range(first, last):
        y = target[r]
        for q in range(inputs):
            where, sizes = position[first_event[q] : first_event[q + 1]], size[first_event[q] : first_event[q + 1]]
            for m in range(taps):
                delay, total, repeated = index[m, r, q] * batch, out.dtype.type(0), False
                for earlier in range(m):
                    if index[earlier, r, q] == index[m, r, q]:
                        total, repeated = out[earlier, r, q], True
                        break
                if not repeated:
                    in_time = np.searchsorted(where, y.shape[0] - delay)
                    for event in range(in_time):
                        total += y[where[event] + delay] * sizes[event]
                out[m, r, q] = total
