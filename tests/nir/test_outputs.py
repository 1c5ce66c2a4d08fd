"""What a graph returns is what the model returns: spikes that are also fed back, and membranes refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("nir", reason="writes NIR graphs")
snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")

from nir_nets import PRE, check, louder_, spikes, whole  # noqa: E402

import delaykit as dk  # noqa: E402
from delaykit.testing.nets.reference import surrogate_spike  # noqa: E402

OPTIONS = {"reset_mechanism": "zero", "reset_delay": False, "spike_grad": surrogate_spike}


class Pair(nn.Module):
    """Two populations; the second is heard by the first a step later, and driven by the input too if asked."""

    def __init__(self, driven: bool = False, returned: str = "spikes") -> None:
        super().__init__()
        self.fc1, self.fc2, self.back = (nn.Linear(n, 5, bias=False) for n in (PRE, 5, 5))
        self.also = nn.Linear(PRE, 5, bias=False) if driven else None
        self.lif1, self.lif2 = (snn.Leaky(beta=0.8, threshold=0.5, **OPTIONS) for _ in range(2))
        self.returned = returned

    def forward(self, x):
        mem1, mem2, spk2 = self.lif1.init_leaky(), self.lif2.init_leaky(), x.new_zeros(x.shape[1], 5)
        out = {"spikes": [], "membranes": []}
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step) + self.back(spk2), mem1)
            drive = self.fc2(spk1) if self.also is None else self.fc2(spk1) + self.also(step)
            spk2, mem2 = self.lif2(drive, mem2)
            out["spikes"].append(spk2), out["membranes"].append(mem2)
        out = {name: torch.stack(values) for name, values in out.items()}
        return tuple(out.values()) if self.returned == "both" else out.get(self.returned, out["spikes"].sum(0))


def pair(**options):
    torch.manual_seed(0)
    net = louder_(Pair(**options).double(), 2.5)
    return dk.wrap_(net, {"back": whole("axonal"), "fc2": whole("synaptic")}, example=spikes(4, 1, PRE))


def test_spikes_that_are_returned_and_fed_back(tmp_path):
    graph = check(pair(), (PRE,), tmp_path)
    assert ("lif2", "output") in [(a, name) for name, heard in graph.sources.items() for a in heard]


def test_spikes_among_other_things(tmp_path):
    dk.to_nir(pair(returned="both"), spikes(20, 2, PRE), dt_ms=1.0)


@pytest.mark.parametrize(("returned", "reason"), [("membranes", "0 outputs"), ("sum", "0 outputs")])
def test_a_circle_of_which_nothing_is_returned_has_no_output(returned, reason):
    with pytest.raises(dk.ConfigError, match=reason):
        dk.to_nir(pair(returned=returned), spikes(20, 2, PRE), dt_ms=1.0)


def test_two_populations_that_drive_each_other_and_both_hear_the_input():
    with pytest.raises(dk.ConfigError, match="that spikes enter at"):
        dk.to_nir(pair(driven=True), spikes(20, 2, PRE), dt_ms=1.0)


class Readout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(PRE, 5), snn.Leaky(beta=0.8, threshold=0.5, **OPTIONS)

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for step in x:
            _, mem = self.lif(self.fc(step), mem)
            out.append(mem)
        return torch.stack(out)


def test_membranes_are_not_what_the_graph_returns():
    net = dk.wrap_(Readout().double(), {"fc": whole("axonal")}, example=spikes(4, 1, PRE))
    with pytest.raises(dk.ConfigError, match="membranes"):
        dk.to_nir(net, spikes(20, 2, PRE), dt_ms=1.0)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    net, example = pair(), spikes(20, 2, PRE)
    path = tmp_path / "new" / "net.nir"
    dk.to_nir(net, example, dt_ms=1.0, path=path)
    before = path.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(dk.CheckpointError, match="net.nir"):
        dk.to_nir(net, example, dt_ms=1.0, path=tmp_path / "file" / "net.nir")

    def full(path, graph):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nir.write", full)
    with pytest.raises(dk.CheckpointError, match="No space"):
        dk.to_nir(net, example, dt_ms=1.0, path=path)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
