"""Tiny networks that really fire, in the shapes people write them, each with an obvious second implementation."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from delaykit.errors import ConfigError
from delaykit.testing.nets.reference import Layer, ReferenceRun

LIBRARIES = ("snntorch", "norse")
MORE_NETS = ("snntorch-synaptic",)
"""Nets of a library that are only used when asked for: neurons with a synaptic current."""

PRE, HIDDEN, OUT = 6, 8, 4
INPUT_RATE = 0.35


class Record(NamedTuple):
    """What one run left behind, all layers side by side: spikes and membranes, both ``(time, batch, neuron)``."""

    spikes: Tensor
    membranes: Tensor

    @classmethod
    def of(cls, steps: list[tuple[Tensor, Tensor]]) -> Record:
        """Stack single steps."""
        spikes, membranes = zip(*steps, strict=True)
        return cls(torch.stack(spikes), torch.stack(membranes))


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Call ``make`` with torch's global generator at a seed, and leave that generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # no other is put back
        return make()


class TinyNet(ABC):
    """One shape of network: how to build it, how its users run it, and what it means.

    ``sites`` are its connections by name; ``segment_sites`` those whose history outlives a call, so that truncated
    BPTT makes sense for them; ``loop_inside`` tells that one call of the root runs a whole sequence.
    """

    name: str
    library: str
    sites: tuple[str, ...]
    segment_sites: tuple[str, ...] = ()
    loop_inside: bool = False

    @abstractmethod
    def make(self) -> nn.Module:
        """Make the bare network with random weights from torch's global generator."""

    @abstractmethod
    def start(self, net: nn.Module) -> Any:
        """Begin a new sequence as a user of the library does; return the state, or None."""

    @abstractmethod
    def advance(self, net: nn.Module, spikes: Tensor, state: Any) -> tuple[Record, Any]:
        """Run ``(time, batch, pre)`` from ``state`` on; return what happened and the new state."""

    @abstractmethod
    def cut(self, net: nn.Module, state: Any) -> Any:
        """Detach the state as a user of the library does between segments of truncated BPTT."""

    @abstractmethod
    def layers(self, net: nn.Module) -> list[Layer]:
        """Return what the network means: a chain of layers at rest."""

    @abstractmethod
    def connection(self, net: nn.Module, site: str) -> tuple[Tensor, Tensor | None]:
        """Return weight (post, pre) and bias of a site."""

    def build(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Make the bare network; the same seed makes the same weights, torch's generator is left alone."""
        return seeded(self.make, seed).to(dtype)

    def run(self, net: nn.Module, spikes: Tensor) -> Record:
        """Run one whole sequence from rest."""
        return self.advance(net, spikes, self.start(net))[0]

    def segments(self, net: nn.Module, spikes: Tensor, length: int) -> Iterator[Record]:
        """Run a sequence in segments of ``length`` steps whose graphs are cut from each other."""
        state = self.start(net)
        for k, part in enumerate(spikes.split(length)):
            state = self.cut(net, state) if k else state
            record, state = self.advance(net, part, state)
            yield record

    def reference_run(self, net: nn.Module) -> ReferenceRun:
        """Begin the judge's sequence with the neurons and biases of ``net``, wrapped or not."""
        return ReferenceRun(self.layers(net), {site: self.connection(net, site)[1] for site in self.sites})

    def reference(self, net: nn.Module, spikes: Tensor, responses: Mapping[str, Tensor]) -> Record:
        """Run the same network with every connection replaced by a dense impulse response.

        Args:
            net: gives neurons and biases.
            spikes: ``(time, batch, pre)``.
            responses: ``(post, pre, depth)`` of each site.
        """
        run = self.reference_run(net)
        return Record.of([run.step(x, responses) for x in spikes])

    def bare_responses(self, net: nn.Module) -> dict[str, Tensor]:
        """Return the impulse responses of the bare connections: the weight at tau = 0."""
        return {site: self.connection(net, site)[0].unsqueeze(-1) for site in self.sites}

    def __repr__(self) -> str:
        return self.name


class LoopInside(TinyNet):
    """A net with its time loop and its states inside ``forward``; its connections are Linears."""

    loop_inside = True

    def start(self, net: nn.Module) -> Any:
        return None

    def advance(self, net: nn.Module, spikes: Tensor, state: Any) -> tuple[Record, Any]:
        return net(spikes), None

    def cut(self, net: nn.Module, state: Any) -> Any:
        fix = "run it in one piece, or take a net whose time loop is outside"
        raise ConfigError(f"tiny net {self.name}", "several pieces of a sequence", "one: its loop is inside", fix)

    def connection(self, net: nn.Module, site: str) -> tuple[Tensor, Tensor | None]:
        module: Any = net.get_submodule(site)
        return module.weight, module.bias


def input_spikes(time: int = 24, batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw input for the tiny nets: ``(time, batch, 6)`` of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(time, batch, PRE, generator=generator) < INPUT_RATE).to(dtype)


def missing(library: str) -> str:
    """Return why the nets of a library cannot be built, or ``""``."""
    package = library.partition("-")[0]
    return "" if importlib.util.find_spec(package) else f"{package} is not installed"


def tiny_nets(library: str) -> tuple[TinyNet, ...]:
    """Return the networks of one library.

    Args:
        library: ``snntorch`` or ``norse``.

    Raises:
        ConfigError: a library that delaykit has no networks of.

    Example:
        >>> [net.name for net in tiny_nets("norse")]
        ['norse-cell-loop', 'norse-sequential-state']
    """
    if library not in LIBRARIES + MORE_NETS:
        raise ConfigError("tiny_nets", repr(library), f"one of {', '.join(LIBRARIES + MORE_NETS)}", "name one of them")
    return _nets_of(library).NETS


def shared_net(library: str) -> TinyNet:
    """Return the net of one library in which one connection has two names, ``a`` and ``b``, before two layers."""
    return _nets_of(library).SHARED


def _nets_of(library: str) -> Any:
    return importlib.import_module(f"delaykit.testing.nets.{library.replace('-', '_')}")
