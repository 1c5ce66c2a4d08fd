"""A node of NIR as a PyTorch module, its numbers checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor, nn

from delaykit.errors import ConfigError
from delaykit.nir.delay_nodes import DelayLine, whole_steps
from delaykit.nir.neurons import CONSTANTS, Spike, read_neuron
from delaykit.nir.values import real, whole

STATEFUL = (*CONSTANTS, "Delay")
KNOWN = f"{', '.join(CONSTANTS)}, Delay, Linear, Affine, Conv1d, Conv2d, Flatten, pools, Scale, Threshold"


def module_of(name: str, node: Any, dt: float, subtract: bool) -> nn.Module:
    """Make the module of one node.

    Args:
        name: of the node.
        node: of NIR.
        dt: seconds a step.
        subtract: whether a spike subtracts the threshold instead of setting ``v_reset``.

    Raises:
        ConfigError: an unknown kind, or a number that no such node can hold.
    """
    kind = type(node).__name__
    if kind in CONSTANTS:
        return read_neuron(name, node, dt, subtract)
    if kind == "Delay":
        return DelayLine(whole_steps(name, getattr(node, "delay", None), dt))
    if kind in ("Linear", "Affine"):
        return _linear(name, node, kind == "Affine")
    if kind in ("Conv1d", "Conv2d"):
        return _convolution(name, node, int(kind[4]))
    if kind in ("Input", "Output"):  # of a graph within the graph
        return Port(shape_of(name, getattr(node, f"{kind.lower()}_type", None)))
    if kind == "Flatten":
        return _flatten(name, node)
    if kind in ("AvgPool2d", "SumPool2d"):
        return Pool(name, node, kind == "SumPool2d")
    if kind in ("Scale", "Threshold"):
        return Elementwise(kind, real(f"{name}.{kind.lower()}", getattr(node, kind.lower(), None)))
    raise ConfigError(name, f"a node {kind}", KNOWN, "read this graph with the importer of its own library")


def shape_of(name: str, types: Any) -> tuple[int, ...]:
    """Read the shape of a port.

    Raises:
        ConfigError: the graph does not say it.
    """
    value = next(iter(types.values()), None) if isinstance(types, dict) else None
    if value is None:
        raise ConfigError(name, "a port without a shape", "the shape of its features", "give the port an input_type")
    if (isinstance(value, np.ndarray) and not value.size) or (isinstance(value, (list, tuple)) and not value):
        return ()
    given = real(f"{name}.shape", value).flatten()
    return whole(f"{name}.shape", given, 1, len(given))


def _linear(name: str, node: Any, affine: bool) -> nn.Linear:
    weight = real(f"{name}.weight", getattr(node, "weight", None))
    if weight.dim() != 2:
        raise ConfigError(f"{name}.weight", f"shape {tuple(weight.shape)}", "(post, pre)", "correct the node's weight")
    bias = real(f"{name}.bias", getattr(node, "bias", None)) if affine else None
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=affine, device="meta")
    _fill_(name, module, weight, bias)
    return module


def _convolution(name: str, node: Any, rank: int) -> nn.Module:
    weight = real(f"{name}.weight", getattr(node, "weight", None))
    if weight.dim() != rank + 2:
        fix = "correct the node's weight"
        raise ConfigError(f"{name}.weight", f"shape {tuple(weight.shape)}", f"{rank + 2} dimensions", fix)
    (groups,) = whole(f"{name}.groups", getattr(node, "groups", None), 1, 1)
    options: dict[str, Any] = {"stride": 1, "dilation": 1, "padding": 0}
    for key, least in options.items():
        value = getattr(node, key, None)
        said = isinstance(value, (str, bytes))
        options[key] = text(value) if said and key == "padding" else whole(f"{name}.{key}", value, least, rank)
    make: Any = (nn.Conv1d, nn.Conv2d)[rank - 1]
    channels = weight.shape[1] * groups, weight.shape[0]
    try:
        module = make(*channels, tuple(weight.shape[2:]), groups=groups, device="meta", **options)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(name, str(error), "a convolution as torch computes it", "correct the node") from None
    _fill_(name, module, weight, real(f"{name}.bias", getattr(node, "bias", None)))
    return module


def _fill_(name: str, module: Any, weight: Tensor, bias: Tensor | None) -> None:
    module.weight = nn.Parameter(weight)
    if bias is not None:
        if tuple(bias.shape) != (weight.shape[0],):
            fix = "correct the node's bias"
            raise ConfigError(f"{name}.bias", f"shape {tuple(bias.shape)}", f"({weight.shape[0]},)", fix)
        module.bias = nn.Parameter(bias)


def _flatten(name: str, node: Any) -> nn.Flatten:
    ends = [real(f"{name}.{key}", getattr(node, key, None)) for key in ("start_dim", "end_dim")]
    if any(end.numel() != 1 or float(end) != round(float(end)) for end in ends):
        fix = "correct the node"
        raise ConfigError(name, f"start_dim and end_dim {[end.tolist() for end in ends]}", "two whole numbers", fix)
    start, stop = (int(end) for end in ends)
    return nn.Flatten(start + (start >= 0), stop + (stop >= 0))  # NIR counts without the batch


def text(value: Any) -> str:
    """Return what a file says in letters."""
    return value.decode("utf8", "replace") if isinstance(value, bytes) else str(value)


class Port(nn.Module):
    """The input or output of a graph within the graph: its values as they are.

    Args:
        shape: of its features.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return it."""
        return x


class Pool(nn.Module):
    """Means or sums over windows of the plane.

    Args:
        name: of the node.
        node: ``AvgPool2d`` or ``SumPool2d``.
        adds: whether to add up.
    """

    def __init__(self, name: str, node: Any, adds: bool) -> None:
        super().__init__()
        least = {"kernel_size": 1, "stride": 1, "padding": 0}
        found = (whole(f"{name}.{key}", getattr(node, key, None), n, 2) for key, n in least.items())
        self.size, self.stride, self.padding = found
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(batch, channels, height, width)``."""
        mean = nn.functional.avg_pool2d(x, self.size, self.stride, self.padding)
        return mean * math.prod(self.size) if self.adds else mean


class Elementwise(nn.Module):
    """A factor a feature, or a threshold.

    Args:
        kind: ``"Scale"`` or ``"Threshold"``.
        value: of the features' shape.
    """

    value: Tensor

    def __init__(self, kind: str, value: Tensor) -> None:
        super().__init__()
        self.kind, self.shape = kind, tuple(value.shape)
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, or compare."""
        if self.kind == "Scale":
            return x * self.value
        spikes: Tensor = Spike.apply(x - self.value)
        return spikes
