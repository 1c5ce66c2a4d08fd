"""A damaged graph is refused by ``from_nir`` with the name of the node, or it is read as NIR's equations say."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

nir = pytest.importorskip("nir", reason="reads NIR graphs")

import nir_reference  # noqa: E402

import delaykit as dk  # noqa: E402

ONE = np.full(3, 1.0)
NEURON = {"r": ONE, "v_leak": 0 * ONE}
SPIKES = {"v_threshold": ONE, "v_reset": 0 * ONE}
NODES = {
    "LIF": lambda: nir.LIF(tau=0.01 * ONE, **NEURON, **SPIKES),
    "LI": lambda: nir.LI(tau=0.01 * ONE, **NEURON),
    "IF": lambda: nir.IF(r=ONE, **SPIKES),
    "I": lambda: nir.I(r=ONE),
    "CubaLIF": lambda: nir.CubaLIF(tau_syn=0.01 * ONE, tau_mem=0.02 * ONE, **NEURON, **SPIKES, w_in=ONE),
    "CubaLI": lambda: nir.CubaLI(tau_syn=0.01 * ONE, tau_mem=0.02 * ONE, **NEURON, w_in=ONE),
    "Delay": lambda: nir.Delay(0.002 * ONE),
    "Linear": lambda: nir.Linear(np.ones((3, 3))),
    "Affine": lambda: nir.Affine(np.ones((3, 3)), ONE),
    "Scale": lambda: nir.Scale(ONE),
    "Threshold": lambda: nir.Threshold(ONE),
    "Conv1d": lambda: nir.Conv1d(5, np.ones((2, 2, 3)), 1, 1, 1, 1, np.ones(2)),
    "Conv2d": lambda: nir.Conv2d((5, 5), np.ones((2, 2, 3, 3)), 1, 1, 1, 1, np.ones(2)),
    "AvgPool2d": lambda: nir.AvgPool2d(np.array([1, 1]), np.array([1, 1]), np.array([0, 0])),
    "SumPool2d": lambda: nir.SumPool2d(np.array([1, 1]), np.array([1, 1]), np.array([0, 0])),
    "Flatten": lambda: nir.Flatten({"input": np.array([3])}, 0, -1),
}
SHAPES = {"Conv1d": (2, 5), "Conv2d": (2, 5, 5), "AvgPool2d": (2, 4, 4), "SumPool2d": (2, 4, 4)}
BAD = {
    "nan": lambda v: v * np.nan,
    "one-nan": lambda v: np.where(np.arange(v.size).reshape(v.shape) == 0, np.nan, v),
    "inf": lambda v: v * 0 + np.inf,
    "minus-inf": lambda v: v * 0 - np.inf,
    "complex": lambda v: v * 1j,
    "none": lambda v: None,
    "letters": lambda v: np.array(["x"] * v.size).reshape(v.shape),
    "objects": lambda v: np.full(v.shape, None, dtype=object),
    "empty": lambda v: v[:0] if v.ndim else v.reshape(1)[:0],
    "more": lambda v: np.ones((7, *v.shape)),
    "ragged": lambda v: [[1.0], [1.0, 2.0]],
}


def graph_of(node, shape, name="part"):
    ends = {"input": nir.Input({"input": np.array(shape)}), "output": nir.Output({"output": np.array(shape)})}
    nodes = {"input": ends["input"], name: node, "output": ends["output"]}
    return nir.NIRGraph(nodes, [("input", name), (name, "output")], type_check=False)


def fields(kind):
    hidden = ("input_type", "output_type", "metadata", "input_shape")
    return [field.name for field in dataclasses.fields(NODES[kind]()) if field.name not in hidden]


@pytest.mark.parametrize("kind", NODES)
def test_sound_nodes_are_read(kind):
    shape = SHAPES.get(kind, (3,))
    y = dk.from_nir(graph_of(NODES[kind](), shape), dt_ms=1.0)(torch.ones(4, 2, *shape))
    assert y.shape == (4, 2, *shape) and bool(y.isfinite().all())


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in NODES for field in fields(kind)])
def test_every_number_of_every_node(kind, field):
    let_through = []
    for bad, change in BAD.items():
        node = NODES[kind]()
        setattr(node, field, change(np.asarray(getattr(node, field))))
        try:
            dk.from_nir(graph_of(node, SHAPES.get(kind, (3,))), dt_ms=1.0)
        except dk.ConfigError as error:
            if "part" in str(error):
                continue
        let_through.append(bad)
    assert not let_through


@pytest.mark.parametrize(("kind", "field", "value"), [
    ("LIF", "tau", 0 * ONE), ("LIF", "tau", -ONE), ("LIF", "tau", 1e-4 * ONE),
    ("CubaLI", "tau_syn", 1e-4 * ONE), ("CubaLIF", "w_in", 1e308 * ONE), ("Delay", "delay", 1e6 * ONE),
    ("Delay", "delay", 1e300 * ONE), ("Delay", "delay", 0.0015 * ONE), ("Delay", "delay", -0.001 * ONE),
    ("Delay", "delay", np.array(0.001)), ("Linear", "weight", np.ones((4, 5))), ("Linear", "weight", np.ones((2, 3))),
    ("Linear", "weight", np.ones((3, 3, 3))), ("Affine", "bias", np.ones(1)), ("Affine", "bias", np.ones((3, 3))),
    ("Conv1d", "groups", 2), ("Conv1d", "groups", 0), ("Conv1d", "stride", 1.5), ("Conv1d", "stride", 2),
    ("Conv1d", "padding", "round"), ("Conv1d", "padding", -1), ("Conv1d", "dilation", 0), ("Conv1d", "input_shape", 9),
    ("Conv1d", "bias", np.ones(1)), ("Conv2d", "weight", np.ones((2, 3, 3, 3))), ("Conv2d", "padding", (1, 1, 1)),
    ("AvgPool2d", "kernel_size", np.array([9, 9])), ("SumPool2d", "stride", np.array([0, 0])),
    ("Scale", "scale", np.ones(4)), ("Threshold", "threshold", np.ones(4)), ("Flatten", "start_dim", 5),
])  # fmt: skip
def test_numbers_out_of_reach(kind, field, value):
    node = NODES[kind]()
    if field == "w_in":
        node.r = value
    setattr(node, field, value)
    with pytest.raises(dk.ConfigError, match="part|output: found features of shape"):
        dk.from_nir(graph_of(node, SHAPES.get(kind, (3,))), dt_ms=1.0)


def chain(**more):
    w = np.eye(3)
    ends = nir.Input(np.array([3])), nir.Output(np.array([3]))
    nodes = {"input": ends[0], "fc": nir.Linear(w), "lif": NODES["LIF"](), "output": ends[1]}
    return nodes | more, [("input", "fc"), ("fc", "lif"), ("lif", "output")]


def broken(change):
    nodes, edges = chain()
    change(nodes, edges)
    graph = nir.NIRGraph(nodes, [], type_check=False)
    graph.edges = edges
    return graph


@pytest.mark.parametrize(("change", "named"), [
    (lambda n, e: e.append(("lif", "zz")), "zz"),
    (lambda n, e: e.append(("zz", "lif")), "zz"),
    (lambda n, e: e.append(("fc", "lif")), "lif"),
    (lambda n, e: e.append(("fc", "lif", "x")), "graph"),
    (lambda n, e: e.append(7), "graph"),
    (lambda n, e: e.append(("lif", "input")), "input"),
    (lambda n, e: e.append(("output", "lif")), "output"),
    (lambda n, e: e.append(("input", "output")) or n.update(output=nir.Output(np.array([4]))), "output"),
    (lambda n, e: n.update(alone=NODES["LIF"]()), "alone"),
    (lambda n, e: n.update(end=NODES["LIF"]()) or e.append(("fc", "end")), "end"),
    (lambda n, e: n.update(begin=NODES["LIF"]()) or e.append(("begin", "lif")), "begin"),
    (lambda n, e: n.update(wide=nir.Linear(np.ones((4, 3)))) or e.extend([("fc", "wide"), ("wide", "lif")]), "lif"),
    (lambda n, e: n.update(wide=nir.Linear(np.ones((4, 3)))) or e.extend([("lif", "wide"), ("wide", "lif")]), "lif"),
    (lambda n, e: n.update(output=nir.Output(np.array([4]))), "output"),
    (lambda n, e: n.update(input=nir.Input(np.array([4]))), "fc"),
    (lambda n, e: n.update(input=nir.Input({"input": None})), "input"),
    (lambda n, e: n["input"].input_type.update(input="three"), "input"),
    (lambda n, e: n["input"].input_type.update(input=np.array([np.nan])), "input"),
    (lambda n, e: n["input"].input_type.update(input=np.array([2.5])), "input"),
    (lambda n, e: n["output"].output_type.update(output=np.array(4)), "output"),
    (lambda n, e: n.pop("output"), "output"),
    (lambda n, e: n.update(second=nir.Input(np.array([3]))) or e.append(("second", "fc")), "second"),
    (lambda n, e: n.update(fc=object()), "fc"),
    (lambda n, e: n.update(fc=nir.NIRGraph({}, [], type_check=False)), "fc"),
    (lambda n, e: n.update({7: NODES["LIF"]()}), "graph"),
    (lambda n, e: e.clear(), "input"),
])  # fmt: skip
def test_edges_and_sizes(change, named):
    with pytest.raises(dk.ConfigError, match=named):
        dk.from_nir(broken(change), dt_ms=1.0)


def test_a_graph_in_a_graph():
    inner = nir.NIRGraph(*chain())
    nodes = {"input": nir.Input(np.array([3])), "inner": inner, "line": nir.Delay(0.002 * ONE),
             "output": nir.Output(np.array([3]))}  # fmt: skip
    edges = [("input", "inner"), ("inner", "line"), ("line", "inner"), ("inner", "output")]
    x = (torch.rand(30, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5).double() * 4
    flat, flat_edges = chain(line=nir.Delay(0.002 * ONE))
    both = nir.NIRGraph(flat, [*flat_edges, ("lif", "line"), ("line", "fc")]), nir.NIRGraph(nodes, edges)
    one, two = (dk.from_nir(graph, dt_ms=1.0)(x) for graph in both)
    assert torch.equal(one, two) and 0.02 < float(one.detach().mean()) < 0.98
    inner.nodes["input"] = nir.Input(np.array([4]))
    with pytest.raises(dk.ConfigError, match="inner"):
        dk.from_nir(both[1], dt_ms=1.0)


def test_a_node_that_nir_gave_ports_of_its_own_is_named():
    nodes, edges = chain(alone=NODES["LIF"]())
    with pytest.raises(dk.ConfigError, match="input_alone"):
        dk.from_nir(nir.NIRGraph(nodes, edges), dt_ms=1.0)


def test_a_graph_within_itself():
    graph = broken(lambda n, e: None)
    graph.nodes["fc"] = graph
    with pytest.raises(dk.ConfigError, match="one in another"):
        dk.from_nir(graph, dt_ms=1.0)


@pytest.mark.parametrize("metadata", [{"dt": "soon"}, {"dt": np.ones(3)}, {"dt": np.nan}, {}, None, {"dt": None}])
def test_metadata_that_says_no_step(metadata):
    graph = broken(lambda n, e: None)
    graph.metadata = metadata
    with pytest.raises(dk.ConfigError, match="dt_ms"):
        dk.from_nir(graph)


def test_names_that_would_meet_in_pytorch_stay_apart():
    nodes, edges = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}, []
    before = "input"
    for k, name in enumerate(("a.b", "a_b", "keys", "training", "forward", "a b/c")):
        nodes[name] = nir.Scale(ONE * (k + 2))
        edges.append((before, name))
        before = name
    net = dk.from_nir(nir.NIRGraph(nodes, [*edges, (before, "output")]), dt_ms=1.0)
    assert net(torch.ones(1, 3)).flatten().tolist() == [5040.0] * 3


def test_flatten_from_the_dimension_it_says():
    flat = nir.Flatten({"input": np.array([2, 3, 4])}, start_dim=1, end_dim=-1)
    nodes = {"input": nir.Input(np.array([2, 3, 4])), "flat": flat, "output": nir.Output(np.array([2, 12]))}
    net = dk.from_nir(nir.NIRGraph(nodes, [("input", "flat"), ("flat", "output")]), dt_ms=1.0)
    assert net(torch.ones(5, 2, 3, 4)).shape == (5, 2, 12)


def test_a_sequence_of_no_step():
    with pytest.raises(dk.ShapeError, match="no step"):
        dk.from_nir(broken(lambda n, e: None), dt_ms=1.0)(torch.zeros(0, 3))


def test_a_file_that_is_no_graph(tmp_path):
    import h5py

    (tmp_path / "text.nir").write_text("nothing")
    with h5py.File(tmp_path / "bare.nir", "w") as file:
        file.create_group("node").create_dataset("type", data="NIRGraph")
    nir.write(tmp_path / "cut.nir", broken(lambda n, e: None))
    whole = (tmp_path / "cut.nir").read_bytes()
    (tmp_path / "cut.nir").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "bare", "cut", "none"):
        with pytest.raises(dk.DataError, match=f"{name}.nir"):
            dk.from_nir(tmp_path / f"{name}.nir", dt_ms=1.0)


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_random_damage_is_refused_or_read_as_the_equations_say(first):
    outcomes = {"refused": 0, "compared": 0}
    for seed in range(first, first + 50):
        draw = random.Random(seed)
        graph = nir_reference.sound(draw)
        size = int(graph.nodes["input"].input_type["input"][0])
        for _ in range(draw.randint(0, 2)):
            nir_reference.damage(graph, draw)
        x = (np.random.default_rng(seed).random((12, size)) < 0.5).astype(float)
        try:
            net = dk.from_nir(graph, dt_ms=1.0)
        except dk.ConfigError:
            outcomes["refused"] += 1
            continue
        wanted = nir_reference.run(graph, x, 0.001)
        assert wanted is not None, f"seed {seed}: the graph leaves open which edge of a circle costs the step"
        outcomes["compared"] += 1
        found = net(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=f"seed {seed}")
    assert outcomes["refused"] > 8 and outcomes["compared"] > 8, outcomes
