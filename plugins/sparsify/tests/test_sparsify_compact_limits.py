"""What a compact model still does, and what it refuses instead of computing with weights that are gone."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit_sparsify import CompactLinear, DynamicSparsity, compact_, parameter_report

TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def spikes(*shape):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(3)) < 0.3).double()


def sparse_(module, kept=0.1):
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        module.weight.mul_(torch.rand(module.weight.shape, generator=generator) < kept)


def wrapped(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 4)).double()
    delay = dk.FreeDelay("synaptic", max_delay=5)
    dk.wrap_(net, {"0": dk.At(delay, DynamicSparsity(0.9), reset="root", time_dim=0)})
    dk.advance_(net, 1.0)
    return net


def test_a_bare_recurrent_layer_runs_in_a_rollout():
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)
    net = nn.Sequential(snn.RLeaky(beta=0.8, linear_features=20, spike_grad=lambda x: (x > 0).to(x.dtype))).double()
    sparse_(net[0].recurrent)
    drive = torch.rand(12, 3, 20).double()
    with torch.no_grad():
        before, untouched = dk.rollout(net[0], drive), net[0].mem
        assert compact_(net).memory < 0.3
        for now, then in zip(dk.rollout(net[0], drive), before, strict=True):
            torch.testing.assert_close(now, then, **TOLERANCE)
        assert net[0].mem is untouched  # not step by step
        spikes, membrane = torch.zeros(2, 3, 20).double()
        for now, then in zip(drive, before[1], strict=True):
            spikes, membrane = net[0](now, spikes, membrane)
            torch.testing.assert_close(membrane, then, **TOLERANCE)
    assert isinstance(net[0].recurrent, CompactLinear) and 0.02 < float(before[0].mean()) < 0.6


def test_finalized_delays_become_compact_and_ones_that_are_to_come_back_do_not():
    net = wrapped()
    dk.finalize_(net)
    with torch.no_grad():
        before = net(spikes(9, 2, 30))
        compact_(net)
        torch.testing.assert_close(net(spikes(9, 2, 30)), before, **TOLERANCE)
    with pytest.raises(dk.ConfigError, match="finalize_"), dk.discretized(other := wrapped()):
        compact_(other)


def test_copies_and_files_compute_the_same():
    net = wrapped()
    compact_(net)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    with torch.no_grad():
        for twin in (copy.deepcopy(net), torch.load(file, weights_only=False)):
            assert torch.equal(twin(spikes(9, 2, 30)), net(spikes(9, 2, 30)))
        before = net(spikes(9, 2, 30))
        torch.testing.assert_close(net.float()(spikes(9, 2, 30).float()), before.float())


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        (lambda net: dk.advance_(net, 1.0), dk.TrainingError, "prune before"),
        (parameter_report, dk.ConfigError, "before compact_"),
        (lambda net: dk.disabled(net).__enter__(), dk.ConfigError, "before compact_"),
        (lambda net: dk.wrap_(net, {"0": dk.FreeDelay("axonal")}), dk.WrapError, "wrapped"),
        (lambda net: dk.wrap_(nn.Sequential(net[2]), {"0": dk.FreeDelay("axonal")}), dk.WrapError, "no connection"),
    ],
)
def test_what_needs_the_weights_is_refused(use, error, says):
    net = wrapped()
    sparse_(net[2])
    compact_(net)
    with pytest.raises(error, match=says):
        use(net)


def test_every_connection_is_in_the_report():
    norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
    net = nn.Sequential(nn.Linear(6, 5), nn.Conv1d(5, 5, 3), norse.LIFRecurrentCell(5, 7), nn.Linear(7, 2, bias=False))
    sparse_(net[0])
    found = {c.name: c.reason for c in compact_(net).connections}
    assert list(found) == ["0", "1", "2.input_weights", "2.recurrent_weights", "3"]
    assert not found["0"] and "not a matrix" in found["1"] and "100%" in found["3"]
    assert "not wrapped" in found["2.input_weights"] and compact_(net).connections[0].name == "1"
    torch.manual_seed(0)
    again = wrapped()
    compact_(again)
    assert str(compact_(again)).splitlines()[0] == "0: 90 of 900 synapses, compact already"


@pytest.mark.parametrize("granularity", ["synaptic", "axonal"])
def test_exact_delays_become_compact(granularity):
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 12)
            self.lif = snn.RSynaptic(0.7, 0.8, linear_features=12, spike_grad=lambda x: (x > 0).to(x.dtype))

        def forward(self, x):
            spikes, current, membrane = self.lif.init_rsynaptic()
            out = []
            for now in x:
                spikes, current, membrane = self.lif(3 * self.fc(now), spikes, current, membrane)
                out.append(torch.cat([spikes, membrane], -1))
            return torch.stack(out)

    net, x = Net().double(), spikes(15, 3, 6)
    rule = dk.FreeDelay(granularity, max_delay=4, estimator="exact"), DynamicSparsity(0.8)
    dk.wrap_(net, {"fc": rule, "lif.recurrent": rule}, example=x)
    dk.advance_(net, 1.0)
    with torch.no_grad():
        before = net(x)
        assert [c.reason for c in compact_(net).connections] == ["", ""]
        torch.testing.assert_close(net(x), before, **TOLERANCE)
    assert 0.02 < float(before[..., :12].mean()) < 0.6
