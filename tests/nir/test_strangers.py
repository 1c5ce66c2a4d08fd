"""A file that delaykit wrote runs in simulators that know nothing of delaykit, with the same spikes.

sc-neurocore is under the AGPL and runs in a process of its own, as does Brian2. ``pip install delaykit[dev]`` brings
both; ``DELAYKIT_STRANGERS`` names a Python that has them, if this one does not::

    DELAYKIT_STRANGERS=.venv/bin/python python -m pytest -rs tests/nir/test_strangers.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

nir = pytest.importorskip("nir", reason="writes NIR graphs")
snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")

from nir_nets import PRE, spikes, whole  # noqa: E402

import delaykit as dk  # noqa: E402
from delaykit.testing.nets.reference import surrogate_spike  # noqa: E402

HERE, PYTHON, N = Path(__file__).parent, os.environ.get("DELAYKIT_STRANGERS", sys.executable), 12
NOT_HERE = 77  # what a script returns where its simulator is not installed


def run_elsewhere(script: str, *arguments: object) -> None:
    """Skip where the simulator is not installed; whatever else goes wrong with it is a failure."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [PYTHON, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean)
    if done.returncode == NOT_HERE:
        pytest.skip(f"{PYTHON}: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]


class Recurrent(nn.Module):
    def __init__(self, reset: str) -> None:
        super().__init__()
        options = {"reset_mechanism": reset, "reset_delay": False, "spike_grad": surrogate_spike}
        self.fc = nn.Linear(PRE, N)
        self.lif = snn.RLeaky(beta=0.8, linear_features=N, **options)

    def forward(self, x):
        (spk, mem), out = self.lif.init_rleaky(), []
        for step in x:
            spk, mem = self.lif(self.fc(step), spk, mem)
            out.append(spk)
        return torch.stack(out)


@pytest.mark.parametrize("reset", ["zero", pytest.param("subtract", marks=pytest.mark.slow)])
def test_axonal_recurrent_delays_in_sc_neurocore(reset, tmp_path):
    torch.manual_seed(1)
    net = Recurrent(reset).double()
    with torch.no_grad():  # each row of both weights adds up to less than a threshold: none is passed twice in a step
        net.fc.weight.abs_().mul_(0.75 / net.fc.weight.sum(1, keepdim=True))
        net.lif.recurrent.weight.mul_(0.2 / net.lif.recurrent.weight.abs().sum(1, keepdim=True))
        net.fc.bias.zero_(), net.lif.recurrent.bias.zero_()
    delays = {"lif.recurrent": dk.FreeDelay("axonal", max_delay=11, init=[float(d) for d in range(12)])}
    dk.wrap_(net, delays, example=spikes(4, 1, PRE))
    how = "value" if reset == "zero" else "subtract"
    dk.to_nir(net, spikes(60, 2, PRE, seed=1), dt_ms=1.0, reset=how, path=tmp_path / "net.nir")
    x = spikes(200, PRE, seed=2)
    np.save(tmp_path / "x.npy", x.numpy())
    mode = "reset" if reset == "zero" else "subtract"
    run_elsewhere("sc_neurocore_run.py", tmp_path / "net.nir", tmp_path / "x.npy",
                  tmp_path / "y.npy", 0.001, mode)  # fmt: skip
    with torch.no_grad():
        wanted = net(x.unsqueeze(1)).squeeze(1)
    found = torch.as_tensor(np.load(tmp_path / "y.npy"))
    assert wanted.sum() > 300 and float(wanted.mean()) < 0.5
    print(f"{int((found != wanted).sum())} of {int(wanted.sum())} spikes differ")
    assert torch.equal(found, wanted)


SLOWLY = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("conv", "depthwise")]  # which are groups, too


@pytest.mark.parametrize("kind", ["linear", "groups", *SLOWLY])
def test_synaptic_delays_in_brian2(kind, tmp_path):
    torch.manual_seed(3)
    lif = snn.Leaky(0.8, 0.7, surrogate_spike, reset_mechanism="zero", reset_delay=False, init_hidden=True)
    groups = {"conv": 1, "groups": 2, "depthwise": 4}.get(kind)
    shape, first = (PRE,), nn.Linear(PRE, N, bias=False)
    if groups is not None:
        shape, first = (4, 5), nn.Conv1d(4, 4, 3, padding=1, groups=groups, bias=False)
    net = nn.Sequential(first, lif).double()
    with torch.no_grad():
        net[0].weight.mul_(1.5 if kind == "linear" else 3.0)
    dk.wrap_(net, {"0": whole("synaptic")}, example=spikes(1, *shape), generator=torch.Generator().manual_seed(0))

    def run(x):
        from snntorch import utils

        utils.reset(net)
        return torch.stack([net(step) for step in x])

    graph = dk.to_nir(net, lambda: run(spikes(40, 1, *shape, seed=1)), dt_ms=1.0, path=tmp_path / "net.nir")
    assert sum(isinstance(node, nir.Delay) for node in graph.nodes.values()) > (5 if kind == "linear" else 2)
    x = spikes(200, 1, *shape, seed=2)
    np.save(tmp_path / "x.npy", x.flatten(1).numpy())
    run_elsewhere("brian2_run.py", tmp_path / "net.nir", tmp_path / "x.npy", tmp_path / "y.npy", 0.001)
    with torch.no_grad():
        wanted = run(x).squeeze(1)
    found = torch.as_tensor(np.load(tmp_path / "y.npy")).reshape(wanted.shape)
    assert torch.equal(dk.from_nir(tmp_path / "net.nir")(x).squeeze(1), wanted)
    assert wanted.sum() > 200
    print(f"{int((found != wanted).sum())} of {int(wanted.sum())} spikes differ")
    assert torch.equal(found, wanted)
