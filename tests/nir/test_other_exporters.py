"""Exporters that know nothing of delays: a wrapped model, or a part of one, is refused in words, never in silence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

nir = pytest.importorskip("nir", reason="an exporter of NIR")
nirtorch = pytest.importorskip("nirtorch", reason="an exporter of NIR")

import delaykit as dk  # noqa: E402

SAYS = "dk.to_nir"


def delayed(*more: nn.Module) -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2), *more)
    return dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=2), reset="manual")}, example=torch.ones(1, 2))


def follow(net, x):
    return nirtorch.extract_nir_graph(net, lambda m: nir.Linear(m.weight.detach().numpy()), x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nirtorch_by_calls():
    with pytest.raises(dk.DelaykitError, match=SAYS):
        follow(delayed(), torch.ones(1, 2))


def part():
    return delayed()[0]


def model(place):
    """A bare model with a wrapped connection in it: alone, behind others, before others, or as a whole model."""
    bare = [nn.Linear(2, 2) for _ in range(3)]
    return {
        "itself": part, "alone": lambda: nn.Sequential(part()), "first": lambda: nn.Sequential(part(), *bare),
        "second": lambda: nn.Sequential(bare[0], part()), "last": lambda: nn.Sequential(*bare, part()),
        "root": lambda: nn.Sequential(bare[0], bare[1], delayed()),
    }[place]()  # fmt: skip


PLACES = ["itself", "alone", "first", "second", "last", "root"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["calls", "placeholders", "snntorch", "norse"])
@pytest.mark.parametrize("place", PLACES)
def test_a_part_of_a_bare_model(place, way):
    net = model(place)
    with pytest.raises(dk.DelaykitError, match=SAYS):
        if way == "calls":
            follow(net, torch.ones(1, 2))
        elif way == "placeholders":
            nirtorch.torch_to_nir(net, {})
        elif way == "snntorch":
            pytest.importorskip("snntorch.export_nir", reason="an exporter of NIR").export_to_nir(net, torch.ones(2))
        else:
            norse = pytest.importorskip("norse.torch.utils.export_nir", reason="an exporter of NIR")
            norse.to_nir(net, torch.ones(1, 2))
    assert nn.Module.__call__.__module__.startswith("torch.")  # the tracer has left


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_recurrent_neuron_of_a_bare_model():
    snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
    lif = snn.Leaky(beta=torch.full((2,), 0.9), init_hidden=True)
    net = nn.Sequential(nn.Linear(2, 2), lif)
    dk.wrap_(net, {"1": dk.Recurrent(dk.FreeDelay("axonal", init=2))}, example=torch.ones(1, 2))
    bare = nn.Sequential(nn.Linear(2, 2), net[1])
    with pytest.raises(dk.DelaykitError, match=SAYS):
        follow(bare, torch.ones(1, 2))
    with pytest.raises(dk.DelaykitError, match=SAYS):
        nirtorch.torch_to_nir(bare, {snn.Leaky: lambda m: nir.Linear(m.recurrent.weight)})


class Loop(nn.Module):
    """A loop over time in forward, which no placeholder goes through."""

    def __init__(self) -> None:
        snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
        super().__init__()
        self.fc, self.lif = nn.Linear(2, 2), snn.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for step in x:
            spk, mem = self.lif(self.fc(step), mem)
            out.append(spk)
        return torch.stack(out)


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def looped():
    return dk.wrap_(Loop(), {"fc": dk.FreeDelay("axonal", init=2)}, example=torch.ones(4, 1, 2))


def cells(site):
    norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
    net = norse.SequentialState(nn.Linear(2, 2), norse.LIFRecurrentCell(2, 2))
    return dk.wrap_(net, {site: dk.FreeDelay("axonal", init=2)}, example=lambda: net(torch.ones(1, 2)))


@pytest.mark.parametrize(
    "make",
    [delayed, looped, lambda: Around(delayed()), lambda: Around(looped()), lambda: cells("0"),
     lambda: cells("1.recurrent")],
    ids=["outer-loop", "loop", "within-outer-loop", "within-loop", "norse", "norse-recurrent"],
)  # fmt: skip
def test_nirtorch_by_placeholders(make):
    net = make()
    with pytest.raises(dk.DelaykitError, match=SAYS):
        nirtorch.torch_to_nir(net, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("recurrent", [False, True])
def test_snntorch(recurrent):
    snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(0)
    lif = snn.Leaky(beta=torch.full((2,), 0.9), init_hidden=True)
    net = nn.Sequential(nn.Linear(2, 2), lif)
    delay = dk.FreeDelay("axonal", init=2)
    rules = {"1": dk.Recurrent(delay)} if recurrent else {"0": delay}
    dk.wrap_(net, rules, example=torch.ones(1, 2))
    with pytest.raises(dk.DelaykitError, match=SAYS):
        export_to_nir(net, torch.ones(2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("site", ["0", "1.input"])
def test_norse(site):
    norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
    from norse.torch.utils.export_nir import to_nir

    net = norse.SequentialState(nn.Linear(2, 2), norse.LIFRecurrentCell(2, 2))
    dk.wrap_(net, {site: dk.FreeDelay("axonal", init=2)}, example=lambda: net(torch.ones(1, 2)))
    with pytest.raises(dk.DelaykitError, match=SAYS):
        to_nir(net, torch.ones(1, 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_bare_model_is_nobodys_business():
    net = dk.unwrap_(delayed(nn.Linear(2, 3)))
    assert len(follow(net, torch.ones(1, 2)).nodes) == 4
