"""Other exporters of graphs, which know a module's weight and nothing of its delay: refused while they trace."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import torch
from torch import nn

from delaykit.errors import ConfigError

FIX = (
    "call dk.to_nir(net, example, dt_ms=...), which writes delays as nir.Delay nodes, or export a bare model: "
    "dk.unwrap_(net)"
)
FORGETS = "a delayed connection of delaykit, of which a record would forget the spikes under way, in"
RUNS, BARE = "a model that runs, or torch.compile", "export the bare model: dk.unwrap_(net), or of a copy"


def refuse_exporters(where: str, *arguments: Any) -> None:
    """Raise while nirtorch watches the calls of modules, or traces by placeholders: its graph would lack the delays.

    Args:
        where: the connection, neuron or model that is being called.
        *arguments: what it is called with; a tracer hands over placeholders in place of tensors.

    Raises:
        ConfigError: an exporter is at work.
    """
    if "nirtorch" not in sys.modules:
        return
    if getattr(nn.Module.__call__, "__module__", "").startswith("nirtorch"):
        _give_up(nn.Module.__call__)
        found = "an exporter to NIR that drops delays (snnTorch's, Norse's and others go through nirtorch)"
        raise ConfigError(where, found, "delaykit's own", FIX)
    refuse_placeholders(where, *arguments)


def _give_up(watching: Any) -> None:
    """Let nirtorch leave its half-made graph as it is: pruning it on the way out fails, and hides why it was left."""
    for cell in getattr(watching, "__closure__", None) or ():
        graph = cell.cell_contents
        if hasattr(graph, "ignore_tensors") and hasattr(graph, "_discover_inputs"):
            graph.ignore_tensors = lambda graph=graph: graph
            graph._discover_inputs = lambda edges: None


def refuse_placeholders(where: str, *arguments: Any) -> None:
    """Raise where nirtorch traces by placeholders: asked first, since a loop over one fails with torch's own words.

    Args:
        where: the connection, neuron or model that is being called.
        *arguments: what it is called with.

    Raises:
        ConfigError: an argument is a placeholder of nirtorch's.
    """
    if "nirtorch" not in sys.modules:
        return
    for value in arguments:
        if isinstance(value, torch.fx.Proxy) and type(value.tracer).__module__.startswith("nirtorch"):
            found = "a tracer's placeholder: its graph would hold weights without delays (nirtorch does so)"
            raise ConfigError(where, found, "tensors", FIX)


def refuse_recordings(where: str) -> None:
    """Raise while ``torch.jit.trace``, ``torch.export`` or an ONNX exporter records a wrapped model.

    What it would write has no spikes under way, or the numbers of this very run. ``torch.compile`` is let through.

    Raises:
        ConfigError: such a recording is under way.
    """
    if torch.compiler.is_compiling():
        if torch.compiler.is_dynamo_compiling():
            if torch.compiler.is_exporting():  # it runs no constructor of an exception of ours
                torch._dynamo.graph_break(msg=f"{where}: found {FORGETS} torch.export. To go on: {BARE}")
            return
        what = "torch.export"
    elif torch.jit.is_tracing():
        what = "torch.jit.trace"
    else:
        return
    raise ConfigError(where, f"{FORGETS} {what}", RUNS, BARE)


def refuse_compiling(module: nn.Module) -> NoReturn:
    """Raise where ``torch.jit.script`` asks a module how it wants to be compiled: it would read a class, and no state.

    Raises:
        ConfigError: always.
    """
    found = "a wrapped module under torch.jit.script, which knows nothing of the spikes under way"
    raise ConfigError(type(module).__name__, found, RUNS, BARE)
