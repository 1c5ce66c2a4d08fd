"""A convolution as nodes: delay lines a channel, or for pairs of channels a line and masked kernels a step.

NIR has ``groups`` and kernels of any size, but its type inference reads neither: it takes the second size of the weight
for the number of channels, and the first size of the kernel for both. So groups are written as zeros between them, and
zeros make a kernel square; what is computed is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.errors import ConfigError
from delaykit.interfaces import PointDelay
from delaykit.nir.connections import Piece, Writing, array, delay_of, response_of, whole_delays
from delaykit.nir.values import nir_package
from delaykit.synapse import Synapse


def convolution_piece(
    name: str, site: str, synapse: Synapse | None, module: nn.Module, shapes: tuple[Any, Any], how: Writing
) -> Piece:
    """Write a convolution with its delays.

    Args:
        name: what to call its nodes.
        site: its site name.
        synapse: its parts, or None where it is bare.
        module: ``Conv1d`` or ``Conv2d``.
        shapes: of its input and output features, channel first.
        how: how to write delays.

    Raises:
        ConfigError: another convolution, or a delay that no node describes.
    """
    conv = _known(site, module)
    delay = delay_of(site, synapse)
    piece = Piece()
    if delay is None:
        piece.chain((name, _node(site, conv, shapes[0], conv.weight, True)))
        return piece
    assert isinstance(delay, PointDelay)
    if delay.granularity == "synaptic":
        return _pairs(name, site, delay, conv, shapes[0], how)
    steps, peak = whole_delays(site, delay, how) or (None, None)
    if steps is None or peak is None or bool((peak != 1).any()):
        fix = "export inside `with dk.discretized(net):`"
        raise ConfigError(site, "delays between two steps on a convolution", "whole delays", fix)
    late = delay.granularity == "dendritic"
    if late and conv.bias is not None:
        found = "a dendritic delay and a bias, which is not delayed, on a convolution"
        raise ConfigError(site, found, "one of them", "use an axonal delay, or bias=False")
    shape = shapes[late]
    each = steps.reshape(-1 if steps.numel() > 1 else 1, *[1] * (len(shape) - 1)).expand(shape)
    line = (f"{name}_delay", how.delay(site, delay.granularity, each.contiguous()))
    node = (name, _node(site, conv, shapes[0], conv.weight, True))
    piece.chain(*([node, line] if late else [line, node]))
    return piece


def _pairs(name: str, site: str, delay: PointDelay, module: Any, shape: Any, how: Writing) -> Piece:
    """Write delays of pairs of channels: for each step at which one arrives, a line and the kernels of its pairs."""
    weight = module.weight.detach()
    response = response_of(site, delay, torch.ones_like(delay.delays()), how).to(weight)
    response = response.reshape(*response.shape, *[1] * (weight.dim() - 2))
    arrives = (response * (weight != 0).unsqueeze(2)).movedim(2, 0).flatten(1).any(1)
    used = [int(k) for k in arrives.nonzero().flatten()] or [0]
    piece = Piece()
    for k in used:
        tap = (f"{name}_tap_{k}", _node(site, module, shape, weight * response[:, :, k], k == used[0]))
        line = (f"{name}_delay_{k}", how.delay(site, "synaptic", torch.full(tuple(shape), k)))
        piece.chain(*([line, tap] if k else [tap]))
    return piece


def _known(site: str, module: nn.Module) -> Any:
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
        found = f"{type(module).__name__}, a convolution NIR has no node for"
        raise ConfigError(site, found, "Conv1d or Conv2d", "replace it by a Conv1d or Conv2d, or export the rest")
    if module.padding_mode != "zeros":
        fix = "use padding_mode='zeros', or pad before the layer"
        raise ConfigError(site, f"padding_mode={module.padding_mode!r}", "padding by zeros", fix)
    return module


def _node(site: str, module: Any, shape: tuple[int, ...], weight: Tensor, biased: bool) -> Any:
    """Write one convolution with these kernels, and with the module's bias where asked."""
    nir = nir_package()
    bias = module.bias if biased and module.bias is not None else weight.new_zeros(module.out_channels)
    kernels, padding = _square(site, _dense(weight.detach(), module.groups), module)
    common = {"weight": array(kernels), "bias": array(bias), "groups": 1}
    if isinstance(module, nn.Conv1d):
        pads = padding if isinstance(padding, str) else padding[0]
        stride, dilation = module.stride[0], module.dilation[0]
        return nir.Conv1d(input_shape=shape[-1], stride=stride, padding=pads, dilation=dilation, **common)
    options = {"stride": module.stride, "padding": padding, "dilation": module.dilation}
    return nir.Conv2d(input_shape=tuple(shape[-2:]), **options, **common)


def _dense(weight: Tensor, groups: int) -> Tensor:
    """Return the kernels of all pairs of channels: zeros where a group does not hear a channel."""
    post, fan_in, *size = weight.shape
    if groups == 1:
        return weight
    own = torch.arange(groups)
    out = weight.new_zeros(groups, post // groups, groups, fan_in, *size)
    out[own, :, own] = weight.unflatten(0, (groups, post // groups))
    return out.reshape(post, groups * fan_in, *size)


def _square(site: str, weight: Tensor, module: Any) -> tuple[Tensor, Any]:
    """Surround the kernels with zeros until they are square, and pad as much more; return both."""
    sizes, padding = weight.shape[2:], module.padding
    more = [max(sizes) - size for size in sizes]
    if not any(more) or padding == "same":
        return weight, padding
    if any(count % 2 for count in more):
        found = f"kernels of {'x'.join(map(str, sizes))}: NIR's type inference takes the first size for both"
        raise ConfigError(site, found, "sizes that are all odd, or all even", "use such a kernel, or padding='same'")
    pads = [0] * len(sizes) if padding == "valid" else padding
    each = [count // 2 for count in more]
    around = [n for count in reversed(each) for n in (count, count)]
    wider = tuple(p + d * n for p, d, n in zip(pads, module.dilation, each, strict=True))
    return nn.functional.pad(weight, around), wider
