"""Compact connections compute what the dense ones did, are smaller, and say so where they cannot."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import delaykit as dk
from delaykit.arrivals import Gaussian, Linear, Triangle
from delaykit.functional.reference import causal_convolution
from delaykit.functional.taps import Taps
from delaykit.plugins import registry
from delaykit.testing.nets.reference import surrogate_spike
from delaykit_sparsify import CompactLinear, DynamicSparsity, compact_, sparse_filter
from delaykit_sparsify.compact_parts import CompactDelay
from delaykit_sparsify.sparse import Ring, arrivals_of_response, arrivals_of_taps, dense_response

TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pruned(post, pre, kept=0.3, seed=0):
    weight = random(post, pre, seed=seed)
    return weight * (random(post, pre, seed=seed + 1) < torch.distributions.Normal(0, 1).icdf(torch.tensor(kept)))


def recurrent_net(config, delay, hidden=20):
    """A wrapped snnTorch net in float64 that fires, with pruned connections."""
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, hidden)
            self.lif = snn.RLeaky(beta=0.8, linear_features=hidden, spike_grad=surrogate_spike)
            self.out = nn.Linear(hidden, 3)

        def forward(self, x):
            spikes, membrane = self.lif.init_rleaky()
            steps = []
            for now in x:
                spikes, membrane = self.lif(3 * self.fc(now), spikes, membrane)
                steps.append(torch.cat([self.out(spikes), membrane], -1))
            return torch.stack(steps)

    net = Net().double()
    dk.wrap_(net, {"fc": (delay, config), "lif.recurrent": (delay, config)}, example=torch.zeros(3, 2, 6).double())
    dk.advance_(net, 1.0)
    return net


@pytest.mark.parametrize("kernel", [Linear(), Triangle(torch.tensor(2.0)), Gaussian(torch.tensor(1.5))])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (4, 5)])
def test_listing_arrivals_loses_nothing(kernel, shape):
    weight, taps = pruned(4, 5), kernel.taps(random(*shape).abs() * 4)
    response = weight.unsqueeze(-1) * taps.response(taps.depth()).to(weight)
    found = dense_response(arrivals_of_taps(weight, taps))
    torch.testing.assert_close(found, response[..., : found.shape[-1]], **TOLERANCE)
    assert not bool(response[..., found.shape[-1] :].any())


@pytest.mark.parametrize("backend", ["torch", "cpu", "reference"])
@given(
    time=st.integers(1, 12), batch=st.integers(1, 3), pre=st.integers(1, 6), post=st.integers(1, 6),
    depth=st.integers(1, 15), kept=st.floats(0.05, 0.9), rate=st.floats(0.01, 1.0), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_sequence_and_steps_equal_the_dense_convolution(backend, time, batch, pre, post, depth, kept, rate, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, density):
        there = torch.rand(*shape, generator=generator) < density
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * there

    response, spikes = draw(post, pre, depth, density=kept), draw(time, batch, pre, density=rate)
    arrivals, bias = arrivals_of_response(response), torch.randn(post, generator=generator, dtype=torch.float64)
    wanted = causal_convolution(spikes, response)
    with dk.backend(backend):
        torch.testing.assert_close(sparse_filter(spikes, arrivals, bias), wanted + bias, **TOLERANCE)
        run = registry.implementation("sparsify_filter", backend)
        torch.testing.assert_close(run(spikes, *arrivals), wanted, **TOLERANCE)
        for given in (None, bias):
            ring, then = Ring(arrivals, given), wanted if given is None else wanted + given
            torch.testing.assert_close(torch.stack([ring.push(x) for x in spikes]), then, **TOLERANCE)


def test_threads_change_no_bit():
    arrivals = arrivals_of_response(random(40, 50, 9) * (random(40, 50, 9, seed=1) > 1.2))
    sparse, dense = (random(30, 40, 50, seed=2) > 1.5).double(), random(30, 40, 50, seed=3)
    before = torch.get_num_threads()
    for x in (sparse, dense):
        out = []
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                out.append(sparse_filter(x, arrivals))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(*out)


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
def test_a_compact_net_computes_the_same_in_every_sequence(granularity):
    net = recurrent_net(DynamicSparsity(0.8), dk.FreeDelay(granularity, max_delay=7))
    inputs = [random(15, batch, 6, seed=batch).abs().round() for batch in (3, 3, 5)]
    with torch.no_grad():
        wanted = [net(x) for x in inputs]
        spikes, membrane = dk.rollout(net.lif, random(15, 3, 20, seed=9).abs())
        report = compact_(net)
        assert [c.name for c in report.connections if not c.reason] == ["fc", "lif.recurrent"]
        assert 0.02 < float(spikes.mean()) < 0.6
        for x, before in zip(inputs, wanted, strict=True):
            torch.testing.assert_close(net(x), before, **TOLERANCE)
        for now, before in zip(dk.rollout(net.lif, random(15, 3, 20, seed=9).abs()), (spikes, membrane), strict=True):
            torch.testing.assert_close(now, before, **TOLERANCE)
    assert "compact: 80 of 400 synapses" in repr(net) and "compact" in str(dk.status(net))


def test_whole_sequences_and_no_delay():
    net = nn.Sequential(nn.Linear(12, 10), nn.Tanh()).double()
    dk.wrap_(net, {"0": dk.At(DynamicSparsity(0.9), time_dim=0, reset="root")})
    dk.advance_(net, 1.0)
    x = random(7, 2, 12)
    with torch.no_grad():
        before = net(x)
        compact_(net)
        torch.testing.assert_close(net(x), before, **TOLERANCE)


def test_motif_taps_become_sparse_too():
    motifs = pytest.importorskip("delaykit_motifs", reason="needs the plugin delaykit-motifs")
    net = nn.Sequential(nn.Linear(6, 5)).double()
    dk.wrap_(net, {"0": dk.At(motifs.Motif(depth=4, scale=0.5), DynamicSparsity(0.7), time_dim=0, reset="root")})
    dk.advance_(net, 1.0)
    x = random(9, 2, 6)
    with torch.no_grad():
        before = net(x)
        report = compact_(net)
        torch.testing.assert_close(net(x), before, **TOLERANCE)
    assert not report.connections[0].reason


def test_norse_cells_and_added_loops():
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    torch.manual_seed(0)
    cell = norse.LIFRecurrentCell(6, 12).double()
    delay = dk.FreeDelay("synaptic", max_delay=5)
    net = nn.Sequential(cell)
    x = 6 * random(12, 2, 6).abs().round()

    def run():
        state, out = None, []
        for now in x:
            spikes, state = net[0](now, state)
            out.append(torch.cat([spikes, state.v], -1))
        return torch.stack(out)

    rule = (delay, DynamicSparsity(0.7))
    dk.wrap_(net, {"0.input": rule, "0.recurrent": rule}, example=run)
    dk.advance_(net, 1.0)
    with torch.no_grad():
        before = run()
        report = compact_(net)
        torch.testing.assert_close(run(), before, **TOLERANCE)
    assert bool(before[..., :12].any()) and [c.reason for c in report.connections] == ["", ""]


def test_plain_linear_layers_keep_their_identity():
    net = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4)).double()
    with torch.no_grad():
        net[0].weight.mul_(random(20, 30, seed=4) > 1.4)
        x, layer = random(3, 5, 30), net[0]
        before = net(x)
        report = compact_(net)
        torch.testing.assert_close(net(x), before, **TOLERANCE)
    assert net[0] is layer and isinstance(layer, CompactLinear) and type(net[2]) is nn.Linear
    assert report.memory < 0.25 and "left dense: 100%" in str(report)
    again = pickle.loads(pickle.dumps(net))
    with torch.no_grad():
        torch.testing.assert_close(again(x), before, **TOLERANCE)
    assert compact_(net).connections[0].name == "2"  # once is enough


def test_memory_is_below_a_quarter_at_ninety_per_cent():
    net = nn.Sequential(nn.Linear(300, 300, bias=False))
    rule = dk.At(dk.FreeDelay("synaptic"), DynamicSparsity(0.9), time_dim=0, reset="root")
    dk.wrap_(net, {"0": rule})
    dk.advance_(net, 1.0)
    dense = stored(net)
    assert compact_(net).memory < 0.25 and stored(net) < 0.25 * dense


def stored(net):
    tensors = [*net.parameters(), *net.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_float32_is_exact_to_rounding():
    weight, spikes = pruned(300, 300, 0.1).float(), (random(40, 4, 300) > 1.5).float()
    taps = Linear().taps(random(300, 300).abs().float() * 9)
    exact = causal_convolution(spikes.double(), weight.double().unsqueeze(-1) * taps.response(taps.depth()).double())
    dense = causal_convolution(spikes, weight.unsqueeze(-1) * taps.response(taps.depth()))
    found = sparse_filter(spikes, arrivals_of_taps(weight, taps))
    assert (found - exact).abs().max() <= 2 * (dense - exact).abs().max() + 1e-6


def test_what_cannot_be_compact_says_why():
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Linear(3, 3))
    rules = {"0": dk.At(dk.FreeDelay("axonal"), DynamicSparsity(0.5), reset="manual"),
             "1": dk.At(dk.FreeDelay("layer"), reset="manual")}  # fmt: skip
    dk.wrap_(net, rules)
    dk.advance_(net, 1.0)
    reasons = {c.name: c.reason for c in compact_(net).connections}
    assert "not a matrix" in reasons["0"] and "100%" in reasons["1"]
    with pytest.raises(dk.ConfigError, match="density"):
        compact_(net, density=0.0)


def test_a_compact_net_refuses_to_learn_to_unwrap_and_to_save(tmp_path):
    net = recurrent_net(DynamicSparsity(0.8), dk.FreeDelay("synaptic", max_delay=5))
    compact_(net)
    x = random(4, 2, 6).requires_grad_()
    with pytest.raises(dk.TrainingError, match="no_grad"):
        net(x)
    with pytest.raises(dk.TrainingError, match="no_grad"):
        dk.rollout(net.lif, random(4, 2, 20).requires_grad_())[1].sum().backward()
    with pytest.raises(dk.ConfigError, match="compact"):
        dk.unwrap_(net)
    with pytest.raises(dk.CheckpointError, match="compact"):
        dk.save(net, tmp_path / "net")
    assert bool(net.fc.weight.isnan().all())  # nobody computes with the placeholder unnoticed


def test_wrong_shapes_are_refused():
    arrivals = arrivals_of_taps(pruned(3, 4), Taps(torch.zeros(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1)))
    with pytest.raises(dk.ShapeError, match="time, batch, 4"):
        sparse_filter(torch.zeros(2, 2, 3).double(), arrivals)


def test_a_loop_reads_the_synapses_once(monkeypatch):
    """The placeholder that stands for the weight is no number, and yet the same at every step."""
    made, own = [], CompactDelay.engine
    monkeypatch.setattr(CompactDelay, "engine", lambda self, *given: made.append(own(self, *given)) or made[-1])
    net = nn.Sequential(nn.Linear(30, 20))
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("synaptic", max_delay=5), DynamicSparsity(0.9), reset="manual")})
    dk.advance_(net, 1.0)
    compact_(net)
    with torch.no_grad():
        before = [net(x) for x in random(6, 2, 30, dtype=torch.float32)]
    assert len(made) == 1
    net[0].dk.delay.value.mul_(2.0)  # read anew
    dk.reset(net)
    with torch.no_grad():
        after = [net(x) for x in random(6, 2, 30, dtype=torch.float32)]
    assert len(made) == 2
    bias = net[0].bias.detach()
    torch.testing.assert_close(torch.stack(after) - bias, 2 * (torch.stack(before) - bias))
