"""Convolutions in groups, and with kernels that are no squares: NIR's type inference reads neither, the graph does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

nir = pytest.importorskip("nir", reason="writes and reads NIR graphs")
snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")

from nir_nets import check, spikes, whole  # noqa: E402

import delaykit as dk  # noqa: E402
from delaykit.testing.nets.reference import surrogate_spike  # noqa: E402


class Conv(nn.Module):
    """A convolution and its neurons."""

    def __init__(self, conv: nn.Module, loud: float = 3.0) -> None:
        super().__init__()
        self.conv = conv
        self.lif = snn.Leaky(0.7, 0.4, surrogate_spike, reset_mechanism="zero", reset_delay=False)
        with torch.no_grad():
            conv.weight.mul_(loud)

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for step in x:
            spk, mem = self.lif(self.conv(step), mem)
            out.append(spk)
        return torch.stack(out)


def wrapped(make, options, granularity, shape):
    torch.manual_seed(0)
    net = Conv(make(**options)).double()
    if granularity is not None:
        rules, draw = {"conv": whole(granularity)}, torch.Generator().manual_seed(1)
        dk.wrap_(net, rules, example=spikes(3, 1, *shape), generator=draw)
    return net


ONE = {
    "two": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2},
    "depthwise": {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4, "padding": 1},
    "twice": {"in_channels": 3, "out_channels": 6, "kernel_size": 2, "groups": 3, "stride": 2, "dilation": 2},
    "same": {"in_channels": 4, "out_channels": 2, "kernel_size": 3, "groups": 2, "padding": "same"},
}
TWO = {
    "two": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "stride": (1, 2)},
    "depthwise": {"in_channels": 4, "out_channels": 8, "kernel_size": (3, 1), "groups": 4, "padding": (1, 0)},
    "wide": {"in_channels": 2, "out_channels": 3, "kernel_size": (1, 5), "dilation": (1, 2), "padding": (0, 3)},
    "tall": {"in_channels": 2, "out_channels": 3, "kernel_size": (4, 2), "stride": 2, "padding": "valid"},
    "same": {"in_channels": 2, "out_channels": 4, "kernel_size": (5, 2), "groups": 2, "padding": "same"},
}


@pytest.mark.parametrize("granularity", [None, "layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("how", ONE)
def test_one_dimension(how, granularity, tmp_path):
    options, shape = ONE[how] | {"bias": granularity != "dendritic"}, (ONE[how]["in_channels"], 9)
    check(wrapped(nn.Conv1d, options, granularity, shape), shape, tmp_path)


@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
@pytest.mark.parametrize("how", TWO)
def test_two_dimensions(how, granularity, tmp_path):
    shape = (TWO[how]["in_channels"], 7, 8)
    check(wrapped(nn.Conv2d, TWO[how], granularity, shape), shape, tmp_path)


def test_taps_of_a_convolution_in_groups(tmp_path):
    torch.manual_seed(0)
    net = Conv(nn.Conv1d(4, 6, 3, groups=2)).double()
    dk.wrap_(net, {"conv": dk.FreeDelay("synaptic", max_delay=5)}, example=spikes(3, 1, 4, 9))
    with pytest.raises(dk.ConfigError, match="dk.discretized"):
        dk.to_nir(net, spikes(20, 1, 4, 9), 1.0)
    check(net, (4, 9), tmp_path, fractions="taps")


def test_a_kernel_that_zeros_cannot_make_square_is_refused():
    net = wrapped(nn.Conv2d, {"in_channels": 2, "out_channels": 3, "kernel_size": (3, 2)}, "axonal", (2, 7, 8))
    with pytest.raises(dk.ConfigError, match="conv: found kernels of 3x2"):
        dk.to_nir(net, spikes(20, 1, 2, 7, 8), 1.0)


@pytest.mark.parametrize("circular", [False, True])
def test_what_nir_has_no_node_for_is_refused(circular):
    conv = nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular") if circular else nn.ConvTranspose1d(4, 6, 3)
    net = Conv(conv).double()
    with pytest.raises(dk.ConfigError, match="conv"):
        dk.to_nir(net, spikes(20, 1, 4, 9), 1.0)


def test_a_graph_of_others_with_groups_is_read():
    torch.manual_seed(0)
    conv = nn.Conv1d(4, 6, 3, groups=2).double()
    numbers = {"weight": conv.weight.detach().numpy(), "bias": conv.bias.detach().numpy()}
    node = nir.Conv1d(None, stride=1, padding=0, dilation=1, groups=2, **numbers)
    ends = nir.Input({"input": torch.tensor([4, 9]).numpy()}), nir.Output({"output": torch.tensor([6, 7]).numpy()})
    graph = nir.NIRGraph({"input": ends[0], "c": node, "output": ends[1]}, [("input", "c"), ("c", "output")])
    x = spikes(5, 2, 4, 9)
    assert torch.equal(dk.from_nir(graph, 1.0)(x), torch.stack([conv(step) for step in x]))
