"""The two parts of the demo: which task, which network, which settings, the same for every row of its table."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit_lab.demo.variants import Variant, add_delays_, builder, count_numbers, delay_of, equal_size
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.task import Task
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels
from delaykit_lab.tasks.moving_wave import MovingWave
from delaykit_lab.tasks.spike_files import SpikeFiles

PROOF = 10  # steps of the example that a fused run is proven on


@dataclasses.dataclass(frozen=True)
class Part(ABC):
    """What the parts share. Each row trains all seeds at all ``rates``; their mean validation accuracy chooses one.

    The settings as they stand here were searched once, with records; :meth:`known_rates` tells what was found.

    Args:
        seeds: number of seeds, >= 1.
        epochs: epochs of each run, >= 1.
        rates: initial learning rates of the weights to choose from, each > 0.
        delay_lr: initial learning rate of the delays, in steps, > 0.
        max_delay: largest delay in steps, >= 1.
        hidden: hidden neurons of the nets with delays; the bare net gets as many more as their delays are numbers.
        device: ``cpu``, ``cuda``, or ``auto``.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str]
    found: ClassVar[Mapping[str, float]]
    """The rate of each row that the search on record chose, with the settings as they stand here."""
    fits: ClassVar[bool] = True
    """Whether a network of this size can learn its training samples by heart, so that one that does not has failed."""

    _: dataclasses.KW_ONLY
    seeds: int
    epochs: int
    rates: tuple[float, ...]
    delay_lr: float
    max_delay: int
    hidden: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))
        if not self.rates:
            raise dk.ConfigError("demo.rates", "none", "at least one learning rate", "list the rates to try")
        whole = {name: getattr(self, name) for name in ("seeds", "epochs", "hidden", "max_delay")}
        for name, value in [*whole.items(), ("delay_lr", self.delay_lr), *(("rates", rate) for rate in self.rates)]:
            if not 0 < value < math.inf:
                raise dk.ConfigError(f"demo.{name}", f"{value}", "a positive number", "correct its value")

    def known_rates(self) -> Mapping[str, float]:
        """Return the rate of each row where a search with these settings is on record; none where one differs.

        Example:
            >>> WaveConfig(epochs=3).known_rates()
            {}
        """
        asked = self.standard().items()
        same = all(getattr(self, name) == value for name, value in asked if name not in ("seeds", "device"))
        return self.found if same else {}

    @classmethod
    def standard(cls) -> dict[str, Any]:
        """Return the settings as they stand here, by name."""
        return {field.name: field.default for field in dataclasses.fields(cls)}

    @abstractmethod
    def task(self) -> Task:
        """The task that these settings name."""

    @abstractmethod
    def network(self, task: Task, variant: Variant, example: Tensor, seed: int) -> nn.Module:
        """Build the network of one row, with its delays; all rows of a seed begin with the same weights and delays."""

    def runner(self, net: nn.Module, example: Tensor) -> Callable[..., Any]:
        """Return what runs ``net`` over a batch."""
        return net

    @abstractmethod
    def network_title(self) -> str:
        """Say what is trained, for the head of the table."""


@dataclasses.dataclass(frozen=True)
class WaveConfig(Part):
    """A wave passes sixteen sensors: nothing but the order of their spikes tells where it came from.

    One hidden layer whose membranes halve at every step, with a delay for each of its input synapses.

    Example:
        >>> WaveConfig(seeds=1).task().title()
        'a wave from 8 directions over 16 sensors'
    """

    name: ClassVar[str] = "wave"
    found: ClassVar[Mapping[str, float]] = {"bare": 0.1, "frozen": 0.1, "learned": 0.03, "whole": 0.03}
    fits: ClassVar[bool] = False

    _: dataclasses.KW_ONLY
    seeds: int = 5
    epochs: int = 20
    rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1, 3e-1)
    delay_lr: float = 0.2
    max_delay: int = 16
    hidden: int = 8

    def task(self) -> MovingWave:
        return MovingWave(samples=1024, held=512)

    def network(self, task: Task, variant: Variant, example: Tensor, seed: int) -> nn.Module:
        def build(hidden: int) -> nn.Module:
            return ModelSpec("snn", (hidden,)).build(task, seed)

        if not variant.delays:
            delays = task.channels * self.hidden
            return build(equal_size(build, count_numbers(build(self.hidden)) + delays, self.hidden))
        rule = dk.At(delay_of(variant, "synaptic", self.max_delay), time_dim=0)
        generator = torch.Generator().manual_seed(seed)
        return dk.wrap_(build(self.hidden), {"fc1": rule}, example=example, generator=generator)

    def network_title(self) -> str:
        return f"{self.hidden} hidden neurons, a delay for each input synapse"


@dataclasses.dataclass(frozen=True)
class DemoConfig(Part):
    """Recorded speech: development numbers, as test accuracies were seen while nets and encoding were settled.

    Args:
        library: ``snntorch`` or ``norse``.
        data: folder or file of spike trains in SHD's layout; None: JapaneseVowels.
        limit: at most that many training samples of ``data``; None: all.
    """

    name: ClassVar[str] = "speech"
    found: ClassVar[Mapping[str, float]] = {"bare": 0.02, "frozen": 0.02, "learned": 0.01, "whole": 0.02}

    library: str = "snntorch"
    data: str | None = None
    _: dataclasses.KW_ONLY
    seeds: int = 3
    epochs: int = 40
    rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2, 4e-2)
    delay_lr: float = 0.2
    max_delay: int = 25
    hidden: int = 48
    limit: int | None = 1000

    def task(self) -> Task:
        return JapaneseVowels() if self.data is None else SpikeFiles(self.data, limit=self.limit)

    def network(self, task: Task, variant: Variant, example: Tensor, seed: int) -> nn.Module:
        build, hidden = builder(self.library, task, seed), self.hidden
        if not variant.delays:  # what the delays cost, the bare net may spend on neurons
            hidden = equal_size(build, count_numbers(build(hidden)) + task.channels + hidden, hidden)
        return add_delays_(build(hidden), self.library, variant, self.max_delay, example, seed)

    def runner(self, net: nn.Module, example: Tensor) -> Callable[..., Any]:
        return fused_(net, example)

    def network_title(self) -> str:
        return f"{self.library}, {self.hidden} recurrent neurons, a delay for each input channel and neuron"


def fused_(net: nn.Module, example: Tensor) -> Callable[..., Any]:
    """Return what runs ``net`` layer by layer over whole sequences, proven for training and for evaluation.

    Args:
        net: a network with its time loop inside; its mode is restored.
        example: spikes ``(time, batch, channel)``; a few steps are enough.
    """
    fast = dk.fused(net)
    for training in (False, True):
        net.train(training)
        fast.prove(example[:PROOF])
    return fast
