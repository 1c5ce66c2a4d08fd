"""The nodes and edges of a network, part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from delaykit.errors import ConfigError
from delaykit.nir.connections import Piece, Writing, piece_of
from delaykit.nir.convolutions import convolution_piece
from delaykit.nir.neurons import node_of, refuse_neuron
from delaykit.nir.observing import Observed, Part, node_name
from delaykit.nir.proving import prove
from delaykit.nir.values import nir_package


class Building:
    """Makes the nodes of one graph, part by part."""

    def __init__(self, seen: Observed, how: Writing, subtract: bool) -> None:
        self.seen, self.how, self.subtract = seen, how, subtract
        self.pieces: dict[str, Piece] = {}
        self.biases: dict[str, Tensor] = {}  # of recurrent connections, by neuron
        self.taken = {"input", "output"}  # names of nodes
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def build(self) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Return the nodes by name, and the edges."""
        nir = nir_package()
        parts = self.seen.parts
        self._check_circles()
        first = [part for part in parts.values() if not part.sources]
        last = self.seen.ends()
        self._check_ports(first, last)
        self.nodes["input"] = nir.Input({"input": _features(first[0].inputs)})
        for part in parts.values():
            self.pieces[part.name] = self._piece(part)
        for name, bias in self.biases.items():
            self._place_bias(name, bias)
        for piece in self.pieces.values():
            self.nodes.update(piece.nodes)
            self.edges += piece.edges
        for part in parts.values():
            sources = [exit for name in part.sources for exit in self.pieces[name].exits] or ["input"]
            self.edges += [(source, entry) for entry in self.pieces[part.name].entries for source in sources]
        self.nodes["output"] = nir.Output({"output": _features(last[0].outputs)})
        self.edges += [(exit, "output") for exit in self.pieces[last[0].name].exits]
        return self.nodes, self.edges

    def fired(self) -> dict[str, str]:
        """Return the node that gives what a neuron gives, by the neuron's path."""
        parts = self.seen.parts.values()
        return {part.name: self.pieces[part.name].exits[0] for part in parts if part.kind == "neuron"}

    def _check_ports(self, first: list[Part], last: list[Part]) -> None:
        for part in first[1:]:
            if part.inputs.shape != first[0].inputs.shape or not torch.equal(part.inputs, first[0].inputs):
                found = f"another input than that of {first[0].name}"
                raise ConfigError(part.name, found, "one input of the network", "export each part by itself")
        self.seen.calls.check_input(first[0].name, first[0].inputs)
        if len(last) != 1:
            found = f"{len(last)} outputs: {', '.join(part.name for part in last)}"
            expected = "one: a layer that no other hears, or whose spikes alone the model returns"
            raise ConfigError("model", found, expected, "return the spikes of one layer, or export each part by itself")
        if self.seen.returns(last[0]) is False:
            found = f"other values than {last[0].name} gives, such as its membranes"
            fix = "return its spikes, or read membranes out of a neuron without threshold (Norse's LI), which NIR knows"
            raise ConfigError("model", f"a model that returns {found}", "what the graph would return", fix)

    def _check_circles(self) -> None:
        """Raise where a step is lost that no circle accounts for: in NIR only an edge that closes one costs a step."""
        parts = self.seen.parts
        for part in parts.values():
            for source, lag in part.sources.items():
                if lag and not _reaches(parts, part.name, source):
                    found = f"spikes of {source} that come a step later, though nothing leads back to it"
                    raise ConfigError(part.name, found, "spikes of the same step", "use dk.FreeDelay(init=1) instead")

    def _named(self, path: str, make: Callable[..., Piece], *parts: Any) -> Piece:
        """Make the nodes of a path, ``make(name, *parts)``, with a number behind the name where others have theirs."""
        name, count = node_name(path), 1
        while not self.taken.isdisjoint((piece := make(name, *parts)).nodes):
            count += 1
            name = f"{node_name(path)}_{count}"
        self.taken.update(piece.nodes)
        return piece

    def _piece(self, part: Part) -> Piece:
        if part.kind == "connection":
            return self._named(part.name, self._connection, part)
        if part.kind == "shaping":
            return self._named(part.name, _row, [_shaping(part)])
        return self._neuron(part)

    def _connection(self, name: str, part: Part) -> Piece:
        module: Any = part.module
        site = self.seen.wrapped.get(part.name)
        synapse = None if site is None or site.attachment.off else site.synapse
        if site is not None and site.attachment.product is not None:
            fix = "export a model whose connection is an nn.Linear or a convolution as it stands"
            raise ConfigError(part.name, "a connection with a product of its own", "one that its weight describes", fix)
        if isinstance(module, nn.Linear):
            return piece_of(name, part.name, synapse, module.weight, module.bias, self.how)
        shapes = tuple(part.inputs.shape[2:]), tuple(part.outputs.shape[2:])
        return convolution_piece(name, part.name, synapse, module, shapes, self.how)

    def _neuron(self, part: Part) -> Piece:
        """Write a neuron with the connections it holds: its input weight before it, its recurrent one behind it."""
        assert part.neuron is not None
        adapter, module = part.neuron.adapter, part.module
        dynamics = adapter.dynamics(module)
        refuse_neuron(part.name, module, dynamics, self.subtract)
        assert dynamics is not None
        nodes = node_of(part.name, dynamics, _features(part.outputs), self.how.dt)
        piece = self._named(part.name, _row, nodes)
        (name,) = piece.entries
        inside = [s for s in self.seen.spots.values() if s.owner == part.name]
        loops = [
            w for w in self.seen.wrapped.values() if w.synapse.site.recurrent and w.synapse.site.neuron == part.name
        ]
        held = {s.name: (s.recurrent, *self._held(s.name, s)) for s in inside}
        held |= {
            w.name: (True, w.synapse, w.weight, getattr(w.holder, "bias", None)) for w in loops if w.name not in held
        }
        for site, (recurrent, synapse, weight, bias) in held.items():
            if weight is None:
                fix = "use all-to-all recurrence by a Linear (all_to_all=True)"
                raise ConfigError(site, "a recurrent connection that is no matrix", "a matrix", fix)
            if recurrent and bias is not None:
                self.biases[part.name] = bias.detach() + self.biases.get(part.name, 0.0)
            own = self._named(site, piece_of, site, synapse, weight, None if recurrent else bias, self.how)
            piece.nodes.update(own.nodes)
            piece.edges += own.edges
            piece.edges += [(exit, name) for exit in own.exits]
            if recurrent:
                piece.edges += [(piece.exits[0], entry) for entry in own.entries]
            else:
                piece.entries = own.entries
        if not held:
            prove(part, nodes, self.how.dt, self.subtract)
        return piece

    def _place_bias(self, name: str, bias: Tensor) -> None:
        """Add the bias of a recurrent connection to what drives the neuron: a back edge is silent in the first step."""
        nir = nir_package()
        neuron = self.pieces[name]
        for source in self.seen.parts[name].sources:
            alone = sum(source in other.sources for other in self.seen.parts.values()) == 1
            piece = self.pieces[source]
            exits = [e for e in piece.exits if type(piece.nodes[e]).__name__ in ("Linear", "Affine")]
            if alone and exits and not any(self.seen.parts[source].sources.values()):
                node = piece.nodes[exits[0]]
                before = getattr(node, "bias", np.zeros(len(bias)))
                piece.nodes[exits[0]] = nir.Affine(node.weight, before + bias.cpu().numpy())
                return
        own = self._named(f"{name}.bias", _row, [nir.Affine(np.eye(len(bias)), bias.cpu().numpy())])
        (entry,) = own.entries
        neuron.nodes |= own.nodes
        neuron.edges += [(entry, target) for target in neuron.entries]
        neuron.entries = [entry]

    def _held(self, name: str, spot: Any) -> tuple[Any, Tensor | None, Tensor | None]:
        """Return the parts, weight and bias of a connection that a neuron holds."""
        site = self.seen.wrapped.get(name)
        if spot.slot:  # a weight of the cell itself
            weight = site.weight if site is not None else getattr(spot.module, f"{spot.slot}_weights")
            return (None if site is None or site.attachment.off else site.synapse), weight, None
        module: Any = spot.module
        synapse = None if site is None or site.attachment.off else site.synapse
        if isinstance(module, nn.Linear):
            return synapse, module.weight, module.bias
        one_to_one = getattr(module, "V", None)
        if isinstance(one_to_one, Tensor) and one_to_one.dim() == 1:
            return synapse, torch.diag(one_to_one), None
        return None, None, None


def _row(name: str, nodes: list[Any]) -> Piece:
    """Put a node, or one and the threshold behind it, into a piece."""
    piece = Piece()
    piece.chain(*zip([name, f"{name}_spikes"], nodes, strict=False))
    return piece


def _shaping(part: Part) -> Any:
    nir, module = nir_package(), part.module
    if isinstance(module, nn.Flatten):
        if part.outputs.dim() != 3:
            raise ConfigError(part.name, f"{module}", "a Flatten of all features", "use nn.Flatten()")
        return nir.Flatten(input_type={"input": _features(part.inputs)}, start_dim=0, end_dim=-1)
    assert isinstance(module, nn.AvgPool2d)
    size, stride, padding = (_pair(v) for v in (module.kernel_size, module.stride, module.padding))
    if module.ceil_mode or module.divisor_override or any(padding):
        fix = "replace it by an AvgPool2d of that kind"
        raise ConfigError(part.name, f"{module}", "AvgPool2d without padding, ceil_mode or divisor_override", fix)
    return nir.AvgPool2d(kernel_size=size, stride=stride, padding=padding)


def _pair(value: Any) -> Any:
    return np.array(value if isinstance(value, tuple) else (value, value))


def _features(value: Tensor) -> Any:
    return tuple(value.shape[2:])


def _reaches(parts: dict[str, Part], start: str, end: str) -> bool:
    """Tell whether spikes of ``start`` get to ``end`` within a step."""
    todo, seen = [end], set()
    while todo:
        name = todo.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            todo += [source for source, lag in parts[name].sources.items() if not lag]
    return False
