"""No steps, no rows: every component runs on them, in every library, by sequence, step and rollout, backwards too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
norse = pytest.importorskip("norse.torch", reason="wraps Norse models")

PRE, POST = 6, 6


def of(package, name, *values, **options):
    def components():
        return (getattr(pytest.importorskip(package, reason="needs that plugin"), name)(*values, **options),)

    return components


def free(granularity, **options):
    return lambda: (dk.FreeDelay(granularity, max_delay=5, init=2.5, **options),)


HETSYN, HARD = of("delaykit_hetsyn", "HetSyn"), {"kernel": "hard", "learn": False}
COMPONENTS = {
    **{granularity: free(granularity) for granularity in ("layer", "axonal", "dendritic", "synaptic")},
    "triangle": free("axonal", kernel="triangle", spread=4.0),
    "gaussian": free("synaptic", kernel="gaussian", spread=0.5),
    "hard": free("synaptic", **HARD),
    "spatial": of("delaykit_spatial", "Spatial", dims=2, scale=2.0),
    "hetsyn": HETSYN,
    "hetsyn axonal": of("delaykit_hetsyn", "HetSyn", "axonal"),
    "hetsyn groups": of("delaykit_hetsyn", "HetSyn", groups=5),
    "motif": of("delaykit_motifs", "Motif", depth=4, scale=0.1),
    "dcls": of("delaykit_delrec", "DCLS", kernel_size=5),
    "sparse": of("delaykit_sparsify", "DynamicSparsity", 0.5),
    **{
        f"hetsyn behind {kind}": lambda kind=kind: free(kind)() + HETSYN()
        for kind in ("axonal", "dendritic", "synaptic")
    },
}


QUICK = ("axonal", "hetsyn", "motif")


def looped(net, x, state=None):
    outputs = []
    for step in x:
        output, state = net(step, state)
        outputs.append(output)
    return torch.stack(outputs) if outputs else x.new_zeros(0, x.shape[1], POST)


def hidden(net, x):
    net[1].reset_mem()
    outputs = [net(step) for step in x]
    return torch.stack(outputs) if outputs else x.new_zeros(0, x.shape[1], POST)


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(PRE, POST), snn.Leaky(0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for current in self.fc(x):
            _, mem = self.lif(current, mem)
            out.append(mem)
        return torch.stack(out) if out else x.new_zeros(0, x.shape[1], POST)


def rolled(neuron, x):
    return dk.rollout(neuron, x)[0]


RIGS = {
    "snnTorch step": (lambda: nn.Sequential(nn.Linear(PRE, POST), snn.Leaky(0.9, init_hidden=True)), "0", hidden, {}),
    "snnTorch sequence": (Sequences, "fc", lambda net, x: net(x), {}),
    "snnTorch recurrent": (
        lambda: nn.Sequential(nn.Linear(PRE, POST), snn.RLeaky(0.9, linear_features=POST, init_hidden=True)),
        "1.recurrent", hidden, {},
    ),
    "snnTorch rollout": (lambda: snn.RLeaky(0.9, linear_features=PRE), "recurrent", rolled, {"reset": "manual"}),
    "Norse step": (lambda: norse.SequentialState(nn.Linear(PRE, POST), norse.LIFCell()), "0", looped, {}),
    "Norse recurrent": (lambda: norse.LIFRecurrentCell(PRE, POST), "*", looped, {}),
    "Norse rollout": (lambda: norse.LIFRecurrentCell(PRE, POST), "*", rolled, {"reset": "carried"}),
}  # fmt: skip


@pytest.mark.parametrize("rig", RIGS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in COMPONENTS])
def test_no_steps_and_no_rows(name, rig):
    build, site, run, options = RIGS[rig]
    net, x = build(), torch.rand(3, 2, PRE)
    loop = run if run is not rolled else looped
    example = None if rig == "snnTorch rollout" else x if rig == "snnTorch sequence" else lambda: loop(net, x)
    dk.wrap_(net, {site: dk.At(*COMPONENTS[name](), **options)}, example=example)
    for time, batch in ((3, 2), (3, 0), (0, 2), (0, 0)):
        for gradients in (True, False):
            x = torch.rand(time, batch, PRE, requires_grad=gradients)
            with torch.set_grad_enabled(gradients):
                output = run(net, x)
            assert output.shape == (time, batch, POST)
            if output.requires_grad:
                output.sum().backward()
                assert x.grad is None or x.grad.shape == x.shape


def test_norse_cells_whose_inputs_are_not_as_many_as_their_neurons():
    cell = norse.LIFRecurrentCell(3, 5)
    dk.wrap_(cell, {"recurrent": dk.FreeDelay("axonal", init=2.0)}, example=lambda: cell(torch.zeros(2, 3)))
    spikes, membranes = dk.rollout(cell, torch.zeros(0, 2, 3))
    assert spikes.shape == membranes.shape == (0, 2, 5)
