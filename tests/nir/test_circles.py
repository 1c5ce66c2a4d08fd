"""Which edge of a circle costs a step is a property of the graph, whatever the order of its nodes and edges."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

nir = pytest.importorskip("nir", reason="reads NIR graphs")

import nir_reference  # noqa: E402

import delaykit as dk  # noqa: E402

SIZE = 2


def shuffled(graph, draw):
    nodes, edges = list(graph.nodes.items()), list(graph.edges)
    draw.shuffle(nodes), draw.shuffle(edges)
    return nir.NIRGraph(dict(nodes), edges, type_check=False)


def drawn(draw):
    """A ring of two to six nodes at random places, and as many edges again from anywhere to anywhere."""
    rng = np.random.default_rng(draw.randrange(2**31))
    names = [f"n{k}" for k in range(draw.randint(2, 6))]
    nodes = {"input": nir.Input(np.array([SIZE])), "output": nir.Output(np.array([SIZE]))}
    for name in names:
        nodes[name] = draw.choice([
            nir.Affine(rng.normal(size=(SIZE, SIZE)) / 2, rng.normal(size=SIZE)),
            nir.Delay(rng.integers(0, 3, SIZE) * 0.001),
            nir_reference.neurons(rng, SIZE),
        ])  # fmt: skip
    edges = {(a, b) for a, b in zip(names, [*names[1:], names[0]], strict=True) if draw.random() < 0.8}
    edges |= {(draw.choice(names), draw.choice(names)) for _ in range(draw.randint(0, len(names)))}
    edges |= {("input", name) for name in draw.sample(names, draw.choice([1, 1, 1, 2]))}
    edges |= {(draw.choice(names), "output")}
    return nir.NIRGraph(nodes, sorted(edges), type_check=False)


def ran(graph, x):
    """Return what a graph returns, or the reason why it is refused."""
    try:
        return dk.from_nir(graph, dt_ms=1.0)(torch.from_numpy(x)).detach().numpy()
    except dk.ConfigError as error:
        reasons = {"that spikes enter at": "entries", "gets to": "no way"}
        return next((short for words, short in reasons.items() if words in str(error)), str(error))


def test_shuffled_nodes_and_edges_change_nothing():
    outcomes = dict.fromkeys(("circles", "entries", "no way"), 0)
    for seed in range(90):
        draw = random.Random(seed)
        graph = drawn(draw)
        x = (np.random.default_rng(seed).random((9, SIZE)) < 0.5).astype(float)
        first = ran(graph, x)
        for _ in range(2):
            other = ran(shuffled(graph, draw), x)
            assert type(other) is type(first) and np.array_equal(other, first), f"seed {seed}: {first} and {other}"
        if isinstance(first, str):
            assert first in outcomes, f"seed {seed}: {first}"
            outcomes[first] += 1
            assert first != "entries" or nir_reference.closing(graph) is None, f"seed {seed}"
            continue
        np.testing.assert_allclose(first, nir_reference.run(graph, x, 0.001), rtol=1e-9, atol=1e-9, err_msg=f"{seed}")
        outcomes["circles"] += bool(nir_reference.closing(graph))
    assert min(outcomes.values()) > 8, outcomes


def entered(*edges):
    nodes = {name: nir.Affine(np.eye(SIZE), np.ones(SIZE)) for pair in edges for name in pair}
    nodes |= {"input": nir.Input(np.array([SIZE])), "output": nir.Output(np.array([SIZE]))}
    return nir.NIRGraph(nodes, list(edges), type_check=False)


def test_a_circle_with_two_entries_is_refused_by_the_names_of_both():
    graph = entered(("input", "a"), ("input", "b"), ("a", "b"), ("b", "a"), ("b", "output"))
    for seed in range(20):
        with pytest.raises(dk.ConfigError, match="circle (a -> b -> a|b -> a -> b)") as caught:
            dk.from_nir(shuffled(graph, random.Random(seed)), dt_ms=1.0)
        assert "enter at a and at b" in str(caught.value) or "enter at b and at a" in str(caught.value)
        assert "one of its nodes alone" in str(caught.value)


def test_a_circle_within_a_circle_has_entries_of_its_own():
    inner = ("input", "h"), ("h", "a"), ("h", "b"), ("a", "b"), ("b", "a"), ("b", "h"), ("a", "output")
    with pytest.raises(dk.ConfigError, match="enter at"):
        dk.from_nir(entered(*inner), dt_ms=1.0)
    one = ("input", "h"), ("h", "a"), ("a", "b"), ("b", "a"), ("b", "h"), ("a", "output")
    assert dk.from_nir(entered(*one), dt_ms=1.0).back == {("b", "a"), ("b", "h")}
