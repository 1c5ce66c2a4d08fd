"""The operators' inner sums for CUDA, by Triton: backend ``gpu``.

Same layout as on the CPU: a neuron's whole sequence is one row of ``time * batch`` numbers, so that a delay is an
offset, and a block of threads reads neighbouring numbers whatever the delay. Sums have a fixed order: results repeat.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from delaykit.functional.dispatch import register

BLOCK = 256
PARTS = 64  # shares of a channel's correlation, as channels alone may be too few to fill the device


@register("tap_filter", "gpu")
def tap_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter channels; see :func:`delaykit.functional.portable.tap_filter`."""
    x, index, value = x.contiguous(), index.contiguous(), value.contiguous()
    out = torch.zeros_like(x)
    time, batch, channels, space = x.shape
    if x.numel():
        sizes = (x.numel(), time, batch * channels * space, channels, space, -1 if causal else 1)
        grid = (_blocks(x.numel()),)
        _kernels().filter_channels[grid](x, index, value, out, *sizes, TAPS=len(index), BLOCK=BLOCK)
    return out


@register("tap_correlation", "gpu")
def tap_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate channels; see :func:`delaykit.functional.portable.tap_correlation`."""
    x, y, index = x.contiguous(), y.contiguous(), index.contiguous()
    time, batch, channels, space = x.shape
    parts = max(1, min(PARTS, _blocks(time * batch * space)))
    out = x.new_zeros(*index.shape, parts)
    if x.numel():
        sizes = (time, batch, channels, space, parts)
        _kernels().correlate_channels[(index.numel(), parts)](x, y, index, out, *sizes, BLOCK=BLOCK)
    return out.sum(-1)


@register("synapse_filter", "gpu")
def synapse_filter(x: Tensor, index: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Filter synapses; see :func:`delaykit.functional.portable.synapse_filter`."""
    time, batch, pre = x.shape
    taps, post, _ = index.shape
    rows, index, value = _rows(x), index.contiguous(), value.contiguous()
    out = x.new_zeros(post, time * batch)
    if x.numel():
        sizes = (time * batch, batch, post, pre, -1 if causal else 1)
        grid = (post, _blocks(time * batch))
        _kernels().filter_synapses[grid](rows, index, value, out, *sizes, TAPS=taps, BLOCK=BLOCK)
    return out.T.reshape(time, batch, post)


@register("synapse_correlation", "gpu")
def synapse_correlation(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Correlate synapses; see :func:`delaykit.functional.portable.synapse_correlation`."""
    time, batch, pre = x.shape
    taps, post, _ = index.shape
    index = index.contiguous()
    out = torch.zeros_like(index, dtype=x.dtype)
    if x.numel():
        sizes = (time * batch, batch, post, pre)
        _kernels().correlate_synapses[(post, pre)](_rows(x), _rows(y), index, out, *sizes, TAPS=taps, BLOCK=BLOCK)
    return out


@register("running_sum", "gpu")
def running_sum(x: Tensor, decay: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Accumulate over time; see :func:`delaykit.functional.portable.running_sum`."""
    out = x.clone(memory_format=torch.contiguous_format)
    if x.numel():
        factor = x.new_ones(()) if decay is None else decay
        factor = factor.expand(x.shape[1:]).reshape(-1).contiguous()
        width = factor.numel()
        _kernels().accumulate[(_blocks(width),)](out, factor, len(x), width, BLOCK=BLOCK, REVERSE=reverse)
    return out


def _rows(x: Tensor) -> Tensor:
    return x.flatten(0, 1).T.contiguous()


def _blocks(numbers: int) -> int:
    return -(-numbers // BLOCK)


def _kernels() -> Any:
    return importlib.import_module("delaykit.functional.triton_kernels")
