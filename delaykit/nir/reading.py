"""From a NIR graph, or a ``.nir`` file, to a PyTorch module."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from delaykit.errors import ConfigError, DataError
from delaykit.nir.lines import DelayLine, whole_steps
from delaykit.nir.network import NIRNetwork
from delaykit.nir.neurons import Spike, read_neuron
from delaykit.nir.package import nir_package

NEURONS = ("LIF", "LI", "IF", "I", "CubaLIF", "CubaLI")


def from_nir(graph: Any, dt_ms: float | None = None, *, reset: str | None = None) -> NIRNetwork:
    """Read a graph, delays included, as a module that runs sequences ``(time, batch, *features)`` from rest.

    Args:
        graph: a ``nir.NIRGraph``, or the path of a ``.nir`` file.
        dt_ms: length of a step in milliseconds; None: what the metadata says.
        reset: ``"value"`` as NIR has it, ``"subtract"`` for writers that mean a subtraction (snnTorch); None: what the
            metadata says, else ``"value"``.

    Returns:
        A module in float64 whose weights are parameters; its neurons' constants are fixed.

    Raises:
        ConfigError: a node that is unknown, a delay that is no whole number of steps, no dt.
        DataError: the file cannot be read.

    Example:
        >>> import nir, numpy as np, torch, delaykit as dk
        >>> nodes = nir.Linear(np.ones((1, 2))), nir.Delay(np.array([0.002]))
        >>> net = dk.from_nir(nir.NIRGraph.from_list(*nodes), dt_ms=1.0)
        >>> net(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)).flatten().tolist()
        [0.0, 0.0, 1.0]
    """
    nir = nir_package()
    if isinstance(graph, (str, Path)):
        graph = _read(Path(graph))
    if not isinstance(graph, nir.NIRGraph):
        raise ConfigError("from_nir", f"a {type(graph).__name__}", "a nir.NIRGraph or the path of a .nir file")
    metadata = dict(graph.metadata)
    dt = _dt(metadata, dt_ms)
    how = reset or _text(metadata.get("reset", "value"))
    if how not in ("value", "subtract"):
        raise ConfigError("from_nir reset", repr(how), "'value' or 'subtract'")
    nodes, edges = _flat("", graph)
    inputs = [n for n, node in nodes.items() if isinstance(node, nir.Input)]
    outputs = [n for n, node in nodes.items() if isinstance(node, nir.Output)]
    if len(inputs) != 1 or len(outputs) != 1:
        found = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise ConfigError("from_nir", found, "one of each", "read the parts one by one")
    modules = {n: _module(n, node, dt, how == "subtract") for n, node in nodes.items() if n not in (*inputs, *outputs)}
    stateful = [name for name, node in nodes.items() if type(node).__name__ in (*NEURONS, "Delay")]
    ports = inputs[0], outputs[0]
    shapes = _shape(nodes[ports[0]].input_type["input"]), _shape(nodes[ports[1]].output_type["output"])
    return NIRNetwork(modules, stateful, edges, ports, shapes).double()


def _read(path: Path) -> Any:
    try:
        return nir_package().read(str(path))
    except (OSError, KeyError, ValueError, AssertionError) as error:
        found = f"no NIR graph ({type(error).__name__}: {error})"
        raise DataError(str(path), found, "a .nir file, as nir.write makes it") from error


def _dt(metadata: dict[str, Any], dt_ms: float | None) -> float:
    if dt_ms is None and "dt" not in metadata:
        fix = "pass dt_ms=: NIR counts seconds and leaves the step to whoever runs it"
        raise ConfigError("from_nir dt_ms", "None, and no dt in the metadata", "milliseconds a step", fix)
    if dt_ms is not None and not isinstance(dt_ms, (int, float)):
        raise ConfigError("from_nir dt_ms", repr(dt_ms), "a number of milliseconds", "pass e.g. dt_ms=1.0")
    dt = float(metadata["dt"]) if dt_ms is None else dt_ms / 1000
    if not (math.isfinite(dt) and dt > 0):
        raise ConfigError("from_nir dt_ms", f"a step of {dt * 1000:g} ms", "a finite number > 0")
    return dt


def _text(value: Any) -> str:
    return value.decode("utf8") if isinstance(value, bytes) else str(value)


def _flat(prefix: str, graph: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Open graphs within the graph: their ports vanish, and whoever met at a port meets directly."""
    nir = nir_package()
    nodes: dict[str, Any] = {}
    edges = [(f"{prefix}{a}", f"{prefix}{b}") for a, b in graph.edges]
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[f"{prefix}{name}"] = node
            continue
        inner, inner_edges = _flat(f"{prefix}{name}.", node)
        entry = [n for n, part in inner.items() if isinstance(part, nir.Input)]
        exit_ = [n for n, part in inner.items() if isinstance(part, nir.Output)]
        if len(entry) != 1 or len(exit_) != 1:
            raise ConfigError(f"{prefix}{name}", "a graph with several ports", "one input and one output")
        edges = [(exit_[0] if a == prefix + name else a, entry[0] if b == prefix + name else b) for a, b in edges]
        edges += inner_edges
        nodes |= inner
        for port in (entry[0], exit_[0]):
            before, after = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
            edges = [e for e in edges if port not in e] + [(a, b) for a in before for b in after]
            del nodes[port]
    return nodes, edges


def _module(name: str, node: Any, dt: float, subtract: bool) -> nn.Module:
    kind = type(node).__name__
    if kind in NEURONS:
        return read_neuron(name, node, dt, subtract)
    if kind == "Delay":
        return DelayLine(whole_steps(name, node.delay, dt))
    if kind in ("Linear", "Affine"):
        return _linear(node)
    if kind in ("Conv1d", "Conv2d"):
        return _convolution(node, kind)
    if kind == "Flatten":
        return nn.Flatten()
    if kind in ("AvgPool2d", "SumPool2d"):
        return _Pool(node, kind == "SumPool2d")
    if kind in ("Scale", "Threshold"):
        return _Elementwise(kind, torch.as_tensor(np.asarray(node.scale if kind == "Scale" else node.threshold)))
    known = f"{', '.join(NEURONS)}, Delay, Linear, Affine, Conv1d, Conv2d, Flatten, pools, Scale, Threshold"
    raise ConfigError(name, f"a node {kind}", known, "read this graph with the importer of its own library")


def _linear(node: Any) -> nn.Linear:
    weight = torch.as_tensor(np.asarray(node.weight))
    bias = getattr(node, "bias", None)
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    module.weight = nn.Parameter(weight.clone())
    if bias is not None:
        module.bias = nn.Parameter(torch.as_tensor(np.asarray(bias)).clone())
    return module


def _convolution(node: Any, kind: str) -> nn.Module:
    weight = torch.as_tensor(np.asarray(node.weight))
    options = {key: _numbers(getattr(node, key)) for key in ("stride", "padding", "dilation")}
    make: Any = getattr(nn, kind)
    channels = weight.shape[1] * int(node.groups), weight.shape[0]
    module = make(*channels, tuple(weight.shape[2:]), groups=int(node.groups), device="meta", **options)
    module.weight = nn.Parameter(weight.clone())
    module.bias = nn.Parameter(torch.as_tensor(np.asarray(node.bias)).clone())
    return module


def _numbers(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return _text(value)
    many = tuple(int(v) for v in np.asarray(value).flatten())
    return many[0] if len(many) == 1 else many


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.asarray(value).flatten())


class _Pool(nn.Module):
    def __init__(self, node: Any, adds: bool) -> None:
        super().__init__()
        self.size, self.stride, self.padding = (_numbers(v) for v in (node.kernel_size, node.stride, node.padding))
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        mean = nn.functional.avg_pool2d(x, self.size, self.stride, self.padding)
        area = self.size**2 if isinstance(self.size, int) else math.prod(self.size)
        return mean * area if self.adds else mean


class _Elementwise(nn.Module):
    value: Tensor

    def __init__(self, kind: str, value: Tensor) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("value", value.double())

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "Scale":
            return x * self.value
        return Spike.apply(x - self.value)
