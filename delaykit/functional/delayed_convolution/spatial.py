"""What a convolution does to space, pair of channels by pair: a delay of a pair commutes with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Convolution:
    """The linear map of a convolution or transposed convolution in one, two or three dimensions, without its bias.

    A *pair* is an output channel and one of the ``fan_in = pre / groups`` input channels of its group.

    Args:
        weight: ``(post, fan_in, *kernel)``; transposed: ``(pre, post / groups, *kernel)``.
        groups: of channels.
        options: stride, padding and dilation (and output_padding), as torch's functions take them.
        transposed: whether it is a transposed one.
        pads: what to pad beforehand, and how, where the padding is not of zeros; else None.
    """

    weight: Tensor
    groups: int
    options: dict[str, Any]
    transposed: bool = False
    pads: tuple[list[int], str] | None = None

    @property
    def post(self) -> int:
        """Number of output channels."""
        return self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]

    @property
    def pre(self) -> int:
        """Number of input channels."""
        return self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.groups

    @property
    def fan_in(self) -> int:
        """Number of input channels of an output channel."""
        return self.pre // self.groups

    def kernels(self) -> Tensor:
        """Return the kernel of every pair, ``(post, fan_in, *kernel)``."""
        if not self.transposed:
            return self.weight
        apart = self.weight.unflatten(0, (self.groups, self.fan_in))
        return apart.transpose(1, 2).flatten(0, 1)

    def by_input(self, pairs: Tensor) -> Tensor:
        """Turn ``(post, fan_in, ...)`` into ``(pre, post / groups, ...)``: the pairs of every input channel."""
        return pairs.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def sources_of(self, first: int, last: int) -> Tensor:
        """List the input channels of the pairs of outputs ``first .. last - 1``, one pair after the other."""
        group = torch.arange(first, last, device=self.weight.device) // (self.post // self.groups)
        return (group.unsqueeze(1) * self.fan_in + torch.arange(self.fan_in, device=group.device)).flatten()

    def targets_of(self, first: int, last: int) -> Tensor:
        """List the output channels of the pairs of inputs ``first .. last - 1``, one pair after the other."""
        each = self.post // self.groups
        group = torch.arange(first, last, device=self.weight.device) // self.fan_in
        return (group.unsqueeze(1) * each + torch.arange(each, device=group.device)).flatten()

    def into(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Sum over pairs: ``x (batch, outputs * fan_in, *space)``, ``kernels (outputs, fan_in, *kernel)``."""
        outputs, fan_in = kernels.shape[:2]
        if self.transposed:
            kernels = kernels.reshape(outputs * fan_in, 1, *kernels.shape[2:])
        return self._run(x, kernels, outputs, None)

    def out_of(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Keep pairs apart: ``x (batch, inputs, *space)``, ``kernels (inputs, fan_out, *kernel)``, all of them out."""
        inputs, fan_out = kernels.shape[:2]
        if not self.transposed:
            kernels = kernels.reshape(inputs * fan_out, 1, *kernels.shape[2:])
        return self._run(x, kernels, inputs, None)

    def whole(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Run the convolution itself, to the bit."""
        return self._run(x, self.weight, self.groups, bias)

    def _run(self, x: Tensor, weight: Tensor, groups: int, bias: Tensor | None) -> Tensor:
        if self.pads is not None:
            x = F.pad(x, *self.pads)
        name = f"conv_transpose{weight.dim() - 2}d" if self.transposed else f"conv{weight.dim() - 2}d"
        out: Tensor = getattr(F, name)(x, weight, bias, groups=groups, **self.options)
        return out
