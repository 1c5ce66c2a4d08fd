"""What is written and read back fires the same spikes at the same steps, on spikes that the writer never saw."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

nir = pytest.importorskip("nir", reason="writes and reads NIR graphs")
snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")

from nir_nets import HIDDEN, PRE, cells, check, convolutional, louder_, recurrent, spikes, whole  # noqa: E402

import delaykit as dk  # noqa: E402
from delaykit.testing.nets.reference import surrogate_spike  # noqa: E402

LINES = ("layer", "axonal", "dendritic", "synaptic")


@pytest.mark.parametrize("lines", [*((g, g, g) for g in LINES), ("axonal", "synaptic", "dendritic")], ids="-".join)
def test_snntorch_recurrent(lines, tmp_path):
    check(recurrent(*lines, seed=2), (PRE,), tmp_path)


@pytest.mark.parametrize("lines", [(g, g, g) for g in LINES], ids="-".join)
def test_norse_cells(lines, tmp_path):
    pytest.importorskip("norse", reason="wraps Norse models")
    check(cells(*lines, seed=1), (PRE,), tmp_path, None)


@pytest.mark.parametrize(
    "lines", [*itertools.product(("axonal", "layer"), ("layer", "axonal", "dendritic", "synaptic"))], ids="-".join
)
def test_convolution(lines, tmp_path):
    check(convolutional(*lines), (2, PRE), tmp_path)


def test_subtracting_resets_where_the_importer_is_told(tmp_path):
    net = recurrent("axonal", "axonal", "axonal", reset="subtract")
    with torch.no_grad():
        for layer, bound in ((net.fc1, 0.84), (net.lif1.recurrent, 0.05), (net.fc2, 0.58)):
            layer.weight.abs_().div_(layer.weight.sum(1, keepdim=True)).mul_(bound)  # nothing gets to twice a threshold
            if layer.bias is not None:
                layer.bias.zero_()
        net.lif2.alpha.zero_()
    with pytest.raises(dk.ConfigError, match="reset='subtract'"):
        dk.to_nir(net, spikes(20, 1, PRE), 1.0)
    check(net, (PRE,), tmp_path, reset="subtract")


def test_a_membrane_beyond_twice_its_threshold_is_seen_in_the_example():
    net = recurrent("axonal", "axonal", "axonal", reset="subtract")
    with pytest.raises(dk.ConfigError, match="twice the threshold"):
        dk.to_nir(net, spikes(60, 2, PRE, seed=1), 1.0, reset="subtract")


class OneToOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        options = {"reset_mechanism": "zero", "reset_delay": False, "spike_grad": surrogate_spike}
        self.fc = nn.Linear(PRE, 7)
        self.lif = snn.RLeaky(beta=0.8, threshold=0.6, all_to_all=False, V=torch.rand(7) - 0.3, **options)

    def forward(self, x):
        (spk, mem), out = self.lif.init_rleaky(), []
        for step in x:
            spk, mem = self.lif(self.fc(step), spk, mem)
            out.append(spk)
        return torch.stack(out)


@pytest.mark.parametrize("line", ["layer", "axonal", "dendritic"])
def test_delays_of_one_to_one_recurrence(line, tmp_path):
    torch.manual_seed(1)
    net = louder_(OneToOne().double(), 3.0)
    check(dk.wrap_(net, {"lif.recurrent": whole(line)}, example=spikes(4, 1, PRE)), (PRE,), tmp_path)


def test_recurrent_delays_are_written_as_d_in_seconds():
    net = recurrent("axonal", "axonal", "axonal")
    graph = dk.to_nir(net, spikes(20, 1, PRE), dt_ms=0.5)
    steps = dk.status(net).delays["lif1.recurrent"].flatten()
    node = graph.nodes["lif1_recurrent_delay"]
    assert torch.equal(torch.as_tensor(node.delay) / 0.0005, steps.double()) and node.delay.shape == (HIDDEN,)
    assert graph.metadata["dt"] == 0.0005 and node.metadata["granularity"] == "axonal"


def test_shared_spikes_are_written_as_taps_where_asked(tmp_path):
    net = recurrent("axonal", "synaptic", "layer", seed=2)
    with torch.no_grad():
        for site in dk.wrapped_sites(net):
            site.synapse.delay.delay.mul_(0.77)
    with pytest.raises(dk.ConfigError, match="dk.discretized"):
        dk.to_nir(net, spikes(20, 1, PRE), 1.0)
    check(net, (PRE,), tmp_path, fractions="taps")
    with dk.discretized(net):
        check(net, (PRE,), tmp_path)


def test_a_new_recurrent_connection(tmp_path):
    import snntorch as snn
    from snntorch import utils

    from delaykit.testing.nets.reference import surrogate_spike

    torch.manual_seed(0)
    lif = snn.Leaky(0.8, 0.5, surrogate_spike, reset_mechanism="zero", reset_delay=False, init_hidden=True)
    net = torch.nn.Sequential(torch.nn.Linear(PRE, 5), lif).double()
    rules = {"0": dk.FreeDelay("axonal", init=2), "1": dk.Recurrent(dk.FreeDelay("axonal", init=3), bias=True)}
    dk.wrap_(net, rules, example=spikes(1, PRE))

    def run(x):
        utils.reset(net)
        return torch.stack([net(step) for step in x])

    x = spikes(80, 2, PRE, seed=3)
    dk.to_nir(net, lambda: run(x), 1.0, path=tmp_path / "net.nir")
    y = spikes(90, 2, PRE, seed=4)
    wanted = run(y)
    assert 0.05 < float(wanted.mean()) < 0.7
    assert torch.equal(dk.from_nir(tmp_path / "net.nir")(y), wanted)


def test_the_smaller_of_bank_and_fan_out():
    from delaykit.nir.connections import Writing, _taps

    few, one = torch.zeros(4, 3, 6), torch.zeros(4, 3, 6)
    few[:, 0, 2], few[:, 1, 4], few[:, 2, 5] = 1.0, 2.0, 3.0
    one[..., 2] = 1.0
    assert any("fan_out" in name for name in _taps("fc", "fc", few, None, Writing(0.001)).nodes)
    assert list(_taps("fc", "fc", one, None, Writing(0.001)).nodes) == ["fc_delay_2", "fc_tap_2"]


def test_trained_further_after_import(tmp_path):
    net = recurrent("axonal", "axonal", "axonal")
    twin = dk.from_nir(dk.to_nir(net, spikes(30, 2, PRE, seed=1), 1.0))
    twin(spikes(40, 2, PRE)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in twin.parameters())
    assert float(twin.nodes["fc1"].weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("build", [recurrent, cells])
def test_learned_time_constants_go_along(build, tmp_path):
    pytest.importorskip("norse", reason="wraps Norse models")
    net, gen = build("axonal", "axonal", "axonal", seed=1), torch.Generator().manual_seed(3)
    first, second = (name for name, m in net.named_children() if name in ("lif1", "lif2", "cell", "out"))
    rules = {
        first: dk.TimeConstants("membrane", init="uniform", low=0.4, high=0.75),
        second: dk.TimeConstants("membrane", per="layer", init=0.6),
    }
    dk.wrap_(net, rules, example=spikes(4, 1, PRE), generator=gen)
    twin = check(net, (PRE,), tmp_path, 1.0 if build is recurrent else None)
    torch.testing.assert_close(
        twin.nodes[first].dynamics.decay, getattr(net, first).dk_constants["membrane"].decay.detach().double()
    )


@pytest.mark.parametrize("second", ["axonal", "synaptic"])
def test_convolution_with_a_delay_a_pair_of_channels(second, tmp_path):
    check(convolutional("synaptic", second, seed=1), (2, PRE), tmp_path)


def test_pairs_of_channels_between_steps_are_refused_or_written_as_taps(tmp_path):
    net = convolutional("axonal", "axonal")
    dk.unwrap_(net)
    dk.wrap_(net, {"conv": dk.FreeDelay("synaptic", max_delay=5)}, example=spikes(4, 1, 2, PRE))
    with pytest.raises(dk.ConfigError, match="dk.discretized"):
        dk.to_nir(net, spikes(20, 1, 2, PRE), 1.0)
    check(net, (2, PRE), tmp_path, fractions="taps")


def test_a_step_that_is_no_number_is_told():
    net = recurrent("axonal", "axonal", "axonal")
    with pytest.raises(dk.ConfigError, match="dt_ms"):
        dk.to_nir(net, spikes(20, 1, PRE), dt_ms="1")
    with pytest.raises(dk.ConfigError, match="dt_ms"):
        dk.from_nir(dk.to_nir(net, spikes(20, 1, PRE), dt_ms=1.0), dt_ms="1")
