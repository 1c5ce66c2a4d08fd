"""From a NIR graph, or a ``.nir`` file, to a PyTorch module."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from delaykit.errors import ConfigError, DataError
from delaykit.nir.checking import check_connected, check_shapes, edges_of
from delaykit.nir.modules import STATEFUL, module_of, shape_of, text
from delaykit.nir.network import NIRNetwork
from delaykit.nir.values import nir_package

DEEPEST = 32
SECONDS, BYTES_A_SECOND = 60.0, 2e6  # that reading a file may take
MEMORY, PACKED = 4 * 2**30, 1032  # bytes that any file may take, and the most that deflate makes of one
READ_APART = """
import sys
try:
    import resource
    for kind, allowed in ((resource.RLIMIT_DATA, int(sys.argv[2])), (resource.RLIMIT_CPU, int(sys.argv[3]))):
        most, hardest = resource.getrlimit(kind)
        if most < 0 or most > allowed:  # -1 is no limit
            resource.setrlimit(kind, (allowed, hardest))
except (ImportError, OSError, ValueError):  # there is no such limit everywhere
    pass
import nir
nir.read(sys.argv[1])
"""


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
        fix = "pass what nir.read returns, or a path"
        raise ConfigError("from_nir", f"a {type(graph).__name__}", "a nir.NIRGraph or the path of a .nir file", fix)
    metadata = graph.metadata if isinstance(graph.metadata, Mapping) else {}
    dt = _dt(metadata, dt_ms)
    how = reset or text(metadata.get("reset", "value"))
    if how not in ("value", "subtract"):
        fix = "leave reset out, or name one of the two"
        raise ConfigError("from_nir reset", repr(how), "'value' or 'subtract'", fix)
    nodes, edges = _flat("", graph)
    ports = _ports(graph, "graph")
    check_connected(nodes, edges, ports)
    modules = {n: module_of(n, node, dt, how == "subtract") for n, node in nodes.items() if n not in ports}
    stateful = [name for name, node in nodes.items() if type(node).__name__ in STATEFUL]
    shapes = shape_of(ports[0], nodes[ports[0]].input_type), shape_of(ports[1], nodes[ports[1]].output_type)
    net = NIRNetwork(modules, stateful, edges, ports, shapes).double()
    check_shapes(net, nodes)
    return net


def _read(path: Path) -> Any:
    """Read a file, after a process of its own has: a damaged one can send the HDF5 library round a cycle, or end it."""
    try:
        size = path.stat().st_size
        allowed = SECONDS + size / BYTES_A_SECOND
        limits = str(MEMORY + PACKED * size), str(math.ceil(allowed))  # it keeps to them if this process is killed, too
        command = [sys.executable, "-c", READ_APART, str(path), *limits]
        done = subprocess.run(command, capture_output=True, text=True, timeout=allowed, check=False)
        if not done.returncode:
            return nir_package().read(str(path))
        said = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        said = f"its reader did not come back within {allowed:.0f} s"
    except Exception as error:  # whatever a damaged file makes of h5py and nir
        said = f"{type(error).__name__}: {error}"
    fix = "check the path, and write the graph with nir.write"
    raise DataError(str(path), f"no NIR graph ({said:.300})", "a .nir file, as nir.write makes it", fix)


def _dt(metadata: Mapping[str, Any], dt_ms: float | None) -> float:
    if dt_ms is None and "dt" not in metadata:
        fix = "pass dt_ms=: NIR counts seconds and leaves the step to whoever runs it"
        raise ConfigError("from_nir dt_ms", "None, and no dt in the metadata", "milliseconds a step", fix)
    if dt_ms is not None and (isinstance(dt_ms, bool) or not isinstance(dt_ms, Real)):
        raise ConfigError("from_nir dt_ms", repr(dt_ms), "a number of milliseconds", "pass e.g. dt_ms=1.0")
    try:
        dt = float(metadata["dt"]) if dt_ms is None else float(dt_ms) / 1000
    except (TypeError, ValueError, OverflowError):
        found = f"dt = {metadata.get('dt', dt_ms)!r:.80}"
        raise ConfigError("from_nir dt_ms", found, "seconds", "pass dt_ms=") from None
    if not (math.isfinite(dt) and dt > 0):
        fix = "pass dt_ms=, the ms of a step"
        raise ConfigError("from_nir dt_ms", f"a step of {dt * 1000:g} ms", "a finite number > 0", fix)
    return dt


def _ports(graph: Any, where: str) -> tuple[str, str]:
    """Return the names of a graph's input and output."""
    nir = nir_package()
    inputs, outputs = ([n for n, x in graph.nodes.items() if isinstance(x, k)] for k in (nir.Input, nir.Output))
    if len(inputs) != 1 or len(outputs) != 1:
        found = f"the inputs {', '.join(inputs) or 'none'} and the outputs {', '.join(outputs) or 'none'}"
        fix = "read the parts one by one; a node that nothing is connected to is given ports of its own by NIR"
        raise ConfigError(where, found, "one of each", fix)
    return inputs[0], outputs[0]


def _flat(prefix: str, graph: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Open graphs within the graph: their ports stay as nodes, which pass on what they are given."""
    nir = nir_package()
    where = prefix.rstrip(".") or "graph"
    if prefix.count(".") > DEEPEST:
        raise ConfigError(where, f"more than {DEEPEST} graphs one in another", "fewer", "nest fewer graphs")
    if not isinstance(graph.nodes, Mapping) or not all(isinstance(name, str) and name for name in graph.nodes):
        fix = "pass what nir.read returns"
        raise ConfigError(where, f"nodes {type(graph.nodes).__name__}", "a dictionary of nodes by name", fix)
    nodes: dict[str, Any] = {}
    edges = []
    ends: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        full = f"{prefix}{name}"
        inner = {full: node}
        if isinstance(node, nir.NIRGraph):
            inner, inner_edges = _flat(f"{full}.", node)
            edges += inner_edges
            entry, exit_ = _ports(node, full)
            ends[name] = f"{full}.{entry}", f"{full}.{exit_}"
        for other in inner:
            if other in nodes:
                raise ConfigError(other, "two nodes of this name", "a name for each", "rename one")
        nodes |= inner
    for a, b in edges_of(graph, where):
        edges.append((ends[a][1] if a in ends else f"{prefix}{a}", ends[b][0] if b in ends else f"{prefix}{b}"))
    return nodes, edges
