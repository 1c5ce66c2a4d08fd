"""A graph as a PyTorch module that runs whole sequences, step by step, and whose weights can be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.errors import ConfigError, ShapeError


class NIRNetwork(nn.Module):
    """Run nodes in the order of their edges; an edge that closes a circle brings the output of the step before.

    Args:
        modules: a module for each node that computes.
        stateful: names of those that keep a state: ``output, state = module(input, state)``.
        edges: who hears whom, ``input`` and ``output`` ports included.
        ports: names of the input and of the output.
        shapes: of the features of both.

    Call it with ``(time, batch, *features)`` or, for no batch, ``(time, *features)``; it begins at rest each time.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        stateful: Sequence[str],
        edges: Sequence[tuple[str, str]],
        ports: tuple[str, str],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.nodes, self._keys = nn.ModuleDict(), dict[str, str]()
        for name, module in modules.items():
            key = name.replace(".", "_")
            while hasattr(self.nodes, key):  # taken by another name, or by a method of the dictionary
                key += "_"
            self._keys[name], self.nodes[key] = key, module
        self.stateful, self.ports, self.shapes = frozenset(stateful), ports, shapes
        self.order, self.back = _ordered([ports[0], *modules, ports[1]], edges)
        self.sources = {name: sorted(a for a, b in edges if b == name) for name in self.order}  # as sums are rounded

    def module(self, name: str) -> nn.Module:
        """Return the module of a node."""
        return self.nodes[self._keys[name]]

    def forward(self, spikes: Tensor) -> Tensor:
        """Run a sequence; return what reaches the output."""
        return self.run(spikes)[self.ports[1]]

    def run(self, spikes: Tensor) -> dict[str, Tensor]:
        """Run a sequence; return the output of every node, ``(time, batch, *features)``."""
        rank = len(self.shapes[0])
        batched = spikes.dim() == rank + 2
        if tuple(spikes.shape[spikes.dim() - rank :]) != self.shapes[0] or spikes.dim() not in (rank + 1, rank + 2):
            expected = f"(time, batch, {', '.join(map(str, self.shapes[0]))})"
            fix = "give the sequence time first"
            raise ShapeError("NIRNetwork", f"input of shape {tuple(spikes.shape)}", expected, fix)
        if not len(spikes):
            raise ShapeError("NIRNetwork", "a sequence of no step", "one step or more", "give one step or more")
        spikes = spikes.to(next(self.parameters(), spikes).dtype)
        sequence = spikes if batched else spikes.unsqueeze(1)
        states: dict[str, Any] = {}
        before: dict[str, Tensor] = {}
        steps: dict[str, list[Tensor]] = {name: [] for name in self.order}
        for step in sequence:
            values = {self.ports[0]: step}
            for name in self.order[1:]:
                values[name] = self._step(name, values, before, states)
            for name, value in values.items():
                steps[name].append(value)
            before = values
        out = {name: torch.stack(found) for name, found in steps.items()}
        return out if batched else {name: value.squeeze(1) for name, value in out.items()}

    def _step(self, name: str, values: dict[str, Tensor], before: dict[str, Tensor], states: dict[str, Any]) -> Tensor:
        heard = [before.get(a) if (a, name) in self.back else values[a] for a in self.sources[name]]
        found = [x for x in heard if x is not None]
        if not found:
            raise ConfigError(name, "a node that hears nobody in the first step", "an input", "connect it")
        total = found[0]
        for more in found[1:]:
            total = total + more
        if name == self.ports[1]:
            return total
        module = self.module(name)
        if name not in self.stateful:
            return module(total)
        output, states[name] = module(total, states.get(name))
        return output


def _ordered(names: list[str], edges: Sequence[tuple[str, str]]) -> tuple[list[str], set[tuple[str, str]]]:
    """Order nodes so that each comes after those it hears, but for the edges that close a circle, which are returned.

    An edge a -> b closes a circle where every way from the input to a leads through b. So it does not matter in which
    order nodes and edges are listed: a search from the input, depth first, meets each such edge where b is a node whose
    followers it is still among, and meets no other edge there unless a circle has two entries, which is refused.
    """
    after = {name: [b for a, b in edges if a == name] for name in names}
    closed: list[str] = []
    state: dict[str, str] = {}
    back: set[tuple[str, str]] = set()
    for root in names:
        todo = [(root, iter(after[root]))] if root not in state else []
        if todo:
            state[root] = "open"
        while todo:
            name, rest = todo[-1]
            following = next(rest, None)
            if following is None:
                state[name] = "closed"
                closed.append(name)
                todo.pop()
            elif following not in state:
                state[following] = "open"
                todo.append((following, iter(after[following])))
            elif state[following] == "open":
                opened = [name for name, _ in todo]
                _check_entries(opened[opened.index(following) :], names[0], after)
                back.add((name, following))
    order = closed[::-1]
    order.remove(names[0])
    return [names[0], *order], back


def _check_entries(circle: list[str], start: str, after: Mapping[str, list[str]]) -> None:
    """Raise where spikes get into a circle elsewhere than at its first node: which edge closes it would be a guess."""
    entry, todo, seen = circle[0], [start], {start}
    if start == entry:
        return
    while todo:
        fresh = [name for name in after[todo.pop()] if name not in seen and name != entry]
        seen.update(fresh)
        todo += fresh
    if circle[-1] not in seen:
        return
    outside = [name for name in seen if name not in circle]
    others = sorted(name for name in circle[1:] if any(name in after[a] for a in outside))
    found = f"a circle {' -> '.join([*circle, entry])} that spikes enter at {' and at '.join([entry, *others])}"
    expected = "one entry: the edge back to it is the one that brings the output of the step before"
    fix = (
        "let the input reach the circle at one of its nodes alone; NIR does not say which edge of this one costs a step"
    )
    raise ConfigError(entry, found, expected, fix)
