"""Whether a graph can be run at all: its edges, and the shapes that travel along them; told before anything runs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from delaykit.errors import ConfigError
from delaykit.nir.modules import text
from delaykit.nir.network import NIRNetwork
from delaykit.nir.values import whole

Edges = Sequence[tuple[str, str]]


def edges_of(graph: Any, where: str) -> list[tuple[str, str]]:
    """Return the edges of one graph.

    Args:
        graph: of NIR.
        where: its name, for messages.

    Raises:
        ConfigError: an edge that is no pair of its nodes, or twice the same.
    """
    edges: list[tuple[str, str]] = []
    for edge in _listed(graph.edges, where):
        if not isinstance(edge, (tuple, list)) or len(edge) != 2:
            raise ConfigError(where, f"an edge {edge!r}", "a pair of names of nodes", "correct the graph's edges")
        one, two = (text(end) for end in edge)
        for end in (one, two):
            if end not in graph.nodes:
                known = ", ".join(map(str, graph.nodes))
                fix = "correct the graph's edges"
                raise ConfigError(end, f"an edge ({one}, {two}) of a node that is not there", f"one of {known}", fix)
        if (one, two) in edges:
            raise ConfigError(two, f"the edge ({one}, {two}) twice", "each edge once", "double a weight instead")
        edges.append((one, two))
    return edges


def _listed(values: Any, where: str) -> list[Any]:
    if not isinstance(values, Iterable):
        raise ConfigError(where, f"edges {values!r}", "a list of pairs of names", "correct the graph's edges")
    return list(values)


def check_connected(names: Iterable[str], edges: Edges, ports: tuple[str, str]) -> None:
    """Raise unless every node is on a way from the input to the output.

    Args:
        names: of all nodes.
        edges: who hears whom.
        ports: names of the input and of the output.

    Raises:
        ConfigError: a node, by its name.
    """
    for one, two in edges:
        if two == ports[0] or one == ports[1]:
            expected, fix = "ports at the graph's ends", "correct the graph's edges"
            raise ConfigError(two if two == ports[0] else one, f"an edge ({one}, {two})", expected, fix)
    heard = _reached(ports[0], edges)
    leads = _reached(ports[1], [(b, a) for a, b in edges])
    for name in names:
        if name not in heard:
            raise ConfigError(name, "a node that nothing from the input gets to", "a connected graph", "connect it")
        if name not in leads:
            raise ConfigError(name, "a node from which nothing gets to the output", "a connected graph", "remove it")


def _reached(start: str, edges: Edges) -> set[str]:
    after: dict[str, list[str]] = {}
    for one, two in edges:
        after.setdefault(one, []).append(two)
    todo, seen = [start], {start}
    while todo:
        fresh = [name for name in after.get(todo.pop(), ()) if name not in seen]
        seen.update(fresh)
        todo += fresh
    return seen


def check_shapes(net: NIRNetwork, nodes: Mapping[str, Any]) -> None:
    """Raise unless every node is given features of the shape it takes.

    Args:
        net: the network.
        nodes: what it was read from, by name.

    Raises:
        ConfigError: a node, by its name.
    """
    given: dict[str, tuple[int, ...]] = {}
    returns = {net.ports[0]: net.shapes[0]}
    for name in net.order[1:]:
        heard = {a: returns[a] for a in net.sources[name] if (a, name) not in net.back}
        source, shape = next(iter(heard.items()))
        for other, another in heard.items():
            if another != shape:
                found = f"features of shape {shape} from {source} and {another} from {other}"
                raise ConfigError(name, found, "one shape: the edges of a node add up", "give its sources one shape")
        given[name] = shape
        if name == net.ports[1]:
            _expect(name, shape, net.shapes[1])
        else:
            returns[name] = _shape_behind(name, net.module(name), shape, getattr(nodes[name], "input_shape", None))
    for one, two in sorted(net.back):
        _expect(two, returns[one], given[two])


def _expect(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ConfigError(name, f"features of shape {found}", f"shape {expected}", "mend the graph's sizes")


def _shape_behind(name: str, module: nn.Module, shape: tuple[int, ...], declared: Any) -> tuple[int, ...]:
    own: Any = getattr(module, "shape", None)
    if own is not None:
        _expect(name, shape, own)
        return shape
    if isinstance(module, nn.Linear):
        _expect(name, shape, (module.in_features,))
        return (module.out_features,)
    rank = 2 if isinstance(module, nn.Conv1d) else 3
    if not isinstance(module, nn.Flatten) and len(shape) != rank:
        fix = "correct the shapes of the nodes"
        raise ConfigError(name, f"features of shape {shape}", f"{rank} dimensions, channels first", fix)
    if declared is not None:
        _expect(name, shape[1:], whole(f"{name}.input_shape", declared, 1, len(shape) - 1))
    try:  # the device "meta" computes shapes and nothing else
        behind = copy.deepcopy(module).to("meta")(torch.empty((1, *shape), dtype=torch.double, device="meta"))
    except (RuntimeError, ValueError, IndexError) as error:
        fix = "correct the shapes of the nodes"
        raise ConfigError(name, f"features of shape {shape}: {error}", "features that it takes", fix) from None
    return tuple(behind.shape[1:])
