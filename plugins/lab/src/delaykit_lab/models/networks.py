"""Networks by name, ``rsnn:256,256``: layers of spiking neurons and a readout, code that knows of no delays."""

from __future__ import annotations

import dataclasses
from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

import delaykit as dk
from delaykit_lab.models.adaptive import AdaptiveLeaky
from delaykit_lab.models.detectors import Detectors
from delaykit_lab.task import Task
from delaykit_lab.words import nearest

KINDS = {
    "rsnn": "recurrent layers of leaky neurons, sizes as in rsnn:256,256",
    "snn": "the same without recurrent connections",
    "norse": "recurrent layers of Norse's cells, sizes as in norse:256,256",
    "conv": "two-dimensional convolutions for event cameras, channels as in conv:16,32",
    "detectors": "one neuron a class and no readout",
}
NEURONS = ("leaky", "heterogeneous", "adaptive")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a model's name says.

    Args:
        kind: one of `KINDS`.
        sizes: neurons (or channels) of each layer.
        neuron: ``leaky``, ``heterogeneous`` (a learned decay for each) or ``adaptive`` (a threshold that rises).
        beta: decay of membranes a step, in [0, 1).

    Example:
        >>> ModelSpec.parse("rsnn:64,32,beta=0.9")
        ModelSpec(kind='rsnn', sizes=(64, 32), neuron='leaky', beta=0.9)
        >>> str(ModelSpec.parse("detectors"))
        'detectors'
    """

    kind: str
    sizes: tuple[int, ...] = ()
    neuron: str = "leaky"
    beta: float = 0.5

    def __post_init__(self) -> None:
        where = "model"
        if self.kind not in KINDS:
            fix = "name one of them"
            raise dk.ConfigError(where, f"{self.kind!r}{nearest(self.kind, KINDS)}", f"one of {', '.join(KINDS)}", fix)
        if self.kind != "detectors" and (not self.sizes or any(size < 1 for size in self.sizes)):
            example = f"e.g. {self.kind}:64 or {self.kind}:64,32"
            raise dk.ConfigError(where, f"sizes {self.sizes}", "a size >= 1 for each layer", example)
        if self.neuron not in NEURONS:
            found = f"neuron {self.neuron!r}{nearest(self.neuron, NEURONS)}"
            raise dk.ConfigError(where, found, f"one of {', '.join(NEURONS)}", "name one of them")
        if self.kind in ("norse", "conv", "detectors") and self.neuron != "leaky":
            raise dk.ConfigError(f"model {self.kind}", f"neuron={self.neuron}", "leaky neurons", "use rsnn: or snn:")
        if not 0 <= self.beta < 1:
            raise dk.ConfigError(where, f"beta={self.beta}", "a decay in [0, 1)", "pass e.g. beta=0.9")

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Read ``kind:size,size,option=value``."""
        kind, _, rest = text.partition(":")
        sizes: list[int] = []
        options: dict[str, Any] = {}
        for word in filter(None, (word.strip() for word in rest.split(","))):
            name, is_option, value = word.partition("=")
            readers: dict[str, Any] = {"": int, "beta": float, "neuron": str}
            read = readers.get(name if is_option else "")
            if read is None:
                found = f"option {name!r}{nearest(name, ('beta', 'neuron'))}"
                raise dk.ConfigError(f"model {text!r}", found, "beta= or neuron=", "correct the option")
            try:
                number = read(value if is_option else word)
            except ValueError:
                fix = "write e.g. 'rsnn:128,beta=0.9'"
                raise dk.ConfigError(f"model {text!r}", repr(word), "a whole number, or option=value", fix) from None
            if is_option:
                options[name] = number
            else:
                sizes.append(number)
        return cls(kind.strip(), tuple(sizes), **options)

    def __str__(self) -> str:
        own = {f.name: f.default for f in dataclasses.fields(self) if f.name in ("neuron", "beta")}
        words = [str(size) for size in self.sizes]
        words += [f"{name}={getattr(self, name)}" for name, default in own.items() if getattr(self, name) != default]
        return f"{self.kind}:{','.join(words)}" if words else self.kind

    def build(self, task: Task, seed: int) -> nn.Module:
        """Make the network for a task; its weights come from ``seed``, torch's own generator is left as it was.

        Raises:
            ConfigError: convolutions for a task without images, or a library that is not installed.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.kind == "detectors":
                return Detectors(task.channels, task.classes, self.beta)
            if self.kind == "conv":
                from delaykit_lab.models.convolutions import ConvNet

                image = getattr(task, "image", None)
                if image is None:
                    expected = "an event camera's, e.g. nmnist"
                    fix = "choose another model, or a task with images"
                    raise dk.ConfigError("model conv", f"the task {task.name}, which has no images", expected, fix)
                return ConvNet(image, self.sizes, task.classes, self.beta)
            if self.kind == "norse":
                from delaykit_lab.models.norse_layers import NorseLayers

                return NorseLayers(task.channels, self.sizes, task.classes, self.beta)
            return Network(task.channels, self, task.classes)


class Network(nn.Module):
    """Layers ``fc1 -> lif1 -> fc2 -> lif2 ... -> out``; class scores are summed over time.

    The recipe of Queant et al. 2025 (arXiv 2509.24852) for spoken commands: membranes that decay by half a step,
    threshold 1, soft reset, sum of the scores. Input weights are three times torch's, which leave a layer silent.

    Args:
        channels: number of input channels.
        spec: what to build.
        classes: number of classes.

    Example:
        >>> net = Network(24, ModelSpec.parse("rsnn:16,8"), 9)
        >>> net(torch.zeros(58, 2, 24)).shape
        torch.Size([2, 9])
        >>> net.forward_sites, net.recurrent_sites
        (('fc1', 'fc2'), ('lif1.recurrent', 'lif2.recurrent'))
    """

    def __init__(self, channels: int, spec: ModelSpec, classes: int) -> None:
        super().__init__()
        self.depth = len(spec.sizes)
        recurrent = spec.kind == "rsnn"
        for layer, size in enumerate(spec.sizes, start=1):
            connection = nn.Linear(channels, size)
            neuron = _neuron(spec, size, recurrent)
            with torch.no_grad():
                connection.weight *= 3.0
                if recurrent:
                    nn.init.orthogonal_(neuron.recurrent.weight, gain=0.5)
            self.add_module(f"fc{layer}", connection)
            self.add_module(f"lif{layer}", neuron)
            channels = size
        self.out = nn.Linear(channels, classes)
        self.forward_sites = self.whole_sites = tuple(f"fc{layer}" for layer in range(1, self.depth + 1))
        delayed = recurrent and spec.neuron != "adaptive"  # its recurrent connection is no library's
        self.recurrent_sites = tuple(f"lif{k}.recurrent" for k in range(1, self.depth + 1)) if delayed else ()

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        return self.out(self.layers(spikes)[-1].sum(0))

    def layers(self, spikes: Tensor) -> list[Tensor]:
        """Return the spikes of the input and of each layer, ``(time, batch, neuron)``."""
        found = [spikes]
        for layer in range(1, self.depth + 1):
            neuron, currents = getattr(self, f"lif{layer}"), getattr(self, f"fc{layer}")(found[-1])
            found.append(_run(neuron, currents))
        return found


def _neuron(spec: ModelSpec, size: int, recurrent: bool) -> Any:
    if spec.neuron == "adaptive":
        return AdaptiveLeaky(size, spec.beta, recurrent=recurrent)
    options: dict[str, Any] = {"beta": spec.beta, "spike_grad": surrogate.atan(alpha=5.0)}
    if spec.neuron == "heterogeneous":  # time constants spread around the common one, and learned
        spread = torch.rand(size) * 0.6 + 0.2 if size > 1 else torch.full((1,), spec.beta)
        options |= {"beta": spread, "learn_beta": True}
    return snn.RLeaky(linear_features=size, **options) if recurrent else snn.Leaky(**options)


def _run(neuron: nn.Module, currents: Tensor) -> Tensor:
    if isinstance(neuron, AdaptiveLeaky):
        return neuron(currents)[0]
    return dk.rollout(neuron, currents)[0]
