"""NIR's equations by Euler steps in numpy, slow and obvious; and random graphs, sound ones and damaged ones.

An edge costs a step where it closes a circle: where every way from the input to its beginning leads through its end.
"""

from __future__ import annotations

import nir
import numpy as np


def sound(draw):
    """Two to four layers of Linear or Affine, Delay, Scale or LIF, some with a recurrent connection."""
    rng = np.random.default_rng(draw.randrange(2**31))
    size = draw.randint(2, 4)
    nodes, edges, last = {"input": nir.Input(np.array([size]))}, [], "input"
    for k in range(draw.randint(2, 4)):
        post = draw.randint(2, 4)
        weight = rng.normal(size=(post, size))
        nodes[f"fc{k}"] = nir.Linear(weight) if draw.random() < 0.5 else nir.Affine(weight, rng.normal(size=post))
        nodes[f"line{k}"] = nir.Delay(rng.integers(0, 4, post) * 0.001)
        nodes[f"lif{k}"] = neurons(rng, post)
        edges += [(last, f"fc{k}"), (f"fc{k}", f"line{k}"), (f"line{k}", f"lif{k}")]
        if draw.random() < 0.5:
            nodes[f"rec{k}"] = nir.Linear(rng.normal(size=(post, post)))
            edges += [(f"lif{k}", f"rec{k}"), (f"rec{k}", f"lif{k}")]
        last, size = f"lif{k}", post
    nodes["output"] = nir.Output(np.array([size]))
    return nir.NIRGraph(nodes, [*edges, (last, "output")])


def neurons(rng, n):
    tau = 0.001 * rng.uniform(1.5, 8.0, n)
    rest, back = rng.normal(size=(2, n)) * 0.1
    return nir.LIF(tau, rng.uniform(1, 4, n), rest, rng.uniform(0.3, 1, n), back)


def damage(graph, draw):
    """Change one thing: an edge, a node, a number or a size."""
    rng = np.random.default_rng(draw.randrange(2**31))
    names = list(graph.nodes)
    inner = [name for name in names if name not in ("input", "output")] or names
    kind = draw.randrange(8)
    if kind == 0 and graph.edges:
        graph.edges.pop(draw.randrange(len(graph.edges)))
    elif kind == 1:
        graph.edges.append((draw.choice(names), draw.choice([*names, "nobody"])))
    elif kind == 2 and graph.edges:
        k = draw.randrange(len(graph.edges))
        graph.edges[k] = graph.edges[k][::-1]
    elif kind == 3:
        graph.nodes.pop(draw.choice(names), None)
    elif kind == 4:
        graph.nodes[draw.choice(inner)] = neurons(rng, draw.randint(2, 4))
    else:
        node = graph.nodes[draw.choice(inner)]
        held = [key for key, value in vars(node).items() if isinstance(value, np.ndarray)]
        if held:
            key = draw.choice(held)
            setattr(node, key, _other(np.array(getattr(node, key), dtype=float), draw, kind))


def _other(value, draw, kind):
    if kind == 5:  # one number, which may make no sense
        value.flat[draw.randrange(value.size)] = draw.choice([np.nan, np.inf, -1.0, 0.0, 1e9, 0.001, 0.0025, 0.5])
        return value
    if kind == 6:  # all numbers, and they still do
        return value * draw.choice([1.0, 2.0])
    return draw.choice([value[:-1], np.concatenate([value, value]), value.reshape(1, *value.shape), value.T])


def closing(graph):
    """Return the edges that close a circle; None where the graph does not say which one does."""

    def reached(without):
        seen, todo = set(), [n for n in ("input",) if n != without]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += [b for a, b in graph.edges if a == name and b != without]
        return seen

    late = {(a, b) for a, b in graph.edges if a not in reached(b)}
    rest = [edge for edge in graph.edges if edge not in late]
    names = list(graph.nodes)
    while names:
        free = [name for name in names if not any(b == name and a in names for a, b in rest)]
        if not free:
            return None
        names = [name for name in names if name not in free]
    return late


def run(graph, x, dt):
    """Run ``(time, *features)`` from rest; None where the graph leaves open which edge closes a circle."""
    late = closing(graph)
    if late is None:
        return None
    state, before, out = {}, {}, []
    for step in x:
        values = {"input": step}
        while len(values) < len(graph.nodes):
            for name, node in graph.nodes.items():
                heard = [(a, before.get(a) if (a, b) in late else values.get(a)) for a, b in graph.edges if b == name]
                if name in values or any(v is None for a, v in heard if (a, name) not in late):
                    continue
                total = sum(v for _, v in heard if v is not None)
                values[name] = _step(node, total, state.setdefault(name, {}), dt)
        before = values
        out.append(values["output"])
    return np.stack(out)


def _step(node, x, state, dt):
    if isinstance(node, nir.Output):
        return x
    if isinstance(node, nir.Linear):
        return node.weight @ x
    if isinstance(node, nir.Affine):
        return node.weight @ x + node.bias
    if isinstance(node, nir.Delay):
        past = state.setdefault("past", [])
        past.append(x)
        ages = np.round(node.delay / dt).astype(int)
        return np.array([past[-1 - d][i] if d < len(past) else 0.0 for i, d in enumerate(ages)])
    v = state.get("v", node.v_leak)
    v = v + dt / node.tau * (node.v_leak - v + node.r * x)
    spikes = v > node.v_threshold
    state["v"] = np.where(spikes, node.v_reset, v)
    return spikes.astype(float)
