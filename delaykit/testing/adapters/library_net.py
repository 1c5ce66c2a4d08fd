"""A small network of some library as its users write it, and the same network with its delays written by hand."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from delaykit.testing.nets.tiny import seeded

INPUTS, RATE = 6, 0.4
Kind = Literal["kept", "carried", "sequence"]


class LibraryNet(ABC):
    """Describe one network: how to make it, how its users run one sequence, and what an adapter must find in it.

    Its connections must be modules that one step calls once, or the whole sequence at once along ``time_dims``; for
    others, override :meth:`by_hand`.

    Args:
        name: for test names.
        sites: its connections that can be delayed, as rules name them.
        neurons: ``{path: kind}``: ``kept`` where the neuron keeps its state, ``carried`` where the caller carries it,
            ``sequence`` where one call runs a whole sequence.
        refused: ``{site: words}``: connections that cannot be delayed, and words of the reason that users read.
        options: options of :class:`delaykit.At` that users of such a network must give.
        time_dims: ``{site: dimension}`` of connections that see whole sequences.
    """

    name: ClassVar[str]
    sites: ClassVar[tuple[str, ...]] = ()
    neurons: ClassVar[Mapping[str, Kind]] = {}
    refused: ClassVar[Mapping[str, str]] = {}
    options: ClassVar[Mapping[str, Any]] = {}
    time_dims: ClassVar[Mapping[str, int]] = {}

    @abstractmethod
    def make(self) -> nn.Module:
        """Make the bare network with random weights from torch's global generator; it must fire on :func:`spikes`."""

    @abstractmethod
    def run(self, net: nn.Module, spikes: Tensor) -> Tensor:
        """Run one whole sequence ``(time, batch, 6)`` from rest, as a user of the library does; return all it gives."""

    def build(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Make the bare network; the same seed makes the same weights, torch's generator is left alone."""
        return seeded(self.make, seed).to(dtype)

    def example(self, net: nn.Module) -> Callable[[], Tensor]:
        """Return the example for :func:`delaykit.plan`: one short run."""
        return lambda: self.run(net, input_spikes(5, 2, dtype=next(net.parameters()).dtype))

    def by_hand(self, net: nn.Module, spikes: Tensor, delays: Mapping[str, Tensor], granularity: str) -> Tensor:
        """Run the bare network with each connection's input (dendritic: its output) late; shares no code with delaykit.

        Args:
            net: the bare network.
            spikes: ``(time, batch, 6)``.
            delays: one delay in steps for each site.
            granularity: ``layer`` or ``dendritic``.
        """
        with contextlib.ExitStack() as stack:
            for site, delay in delays.items():
                module = net.get_submodule(site)
                stack.enter_context(_late(module, delay, granularity == "dendritic", self.time_dims.get(site)))
            return self.run(net, spikes)

    def __repr__(self) -> str:
        return self.name


def input_spikes(time: int = 18, batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw input ``(time, batch, 6)`` of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(time, batch, INPUTS, generator=generator) < RATE).to(dtype)


def late(past: list[Tensor], delay: Tensor) -> Tensor:
    """Interpolate linearly between the last steps, two-sided at whole numbers: ``sum_k (1 - |k - d|)+ x[t - k]``."""
    weights = (1 - (torch.arange(len(past)) - delay).abs()).clamp(min=0)
    return torch.einsum("k,k...->...", weights.to(past[0]), torch.stack(past[::-1]))


@contextlib.contextmanager
def _late(module: nn.Module, delay: Tensor, behind: bool, time_dim: int | None) -> Iterator[None]:
    """Let a bare connection hear its input, or be heard, late."""
    past: list[Tensor] = []

    def shift(x: Tensor) -> Tensor:
        if time_dim is not None:
            steps = list(x.unbind(time_dim))
            return torch.stack([late(steps[: t + 1], delay) for t in range(len(steps))], time_dim)
        past.append(x)
        return late(past, delay)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        return (shift(inputs[0]), *inputs[1:])

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        bias: Any = module.forward(torch.zeros_like(inputs[0]))  # what the connection gives without a spike
        return shift(output - bias) + bias

    handle = module.register_forward_hook(after) if behind else module.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
