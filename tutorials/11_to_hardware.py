# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # To hardware
#
# A chip has whole delays, up to a cap, in few bits. This tutorial takes a network there: train it with whole delays,
# fit a chip's budget and see what that costs, write a NIR graph, and run the file in a simulator that has never heard
# of delaykit. The task is a wave that passes a ring of sixteen sensors: where does it come from? Every sensor fires
# once, so counting says nothing, and only delays can bring the spikes of a wave together.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import snntorch as snn
import torch
from snntorch import surrogate

import delaykit as dk
from delaykit import plotting
from delaykit_lab import MovingWave

torch.set_num_threads(1)
task = MovingWave(samples=512, held=256)
splits = task.splits(seed=0)
EPOCHS = 20

# %% [markdown]
# ## A network that a chip can be told
#
# NIR's neurons are reset in the very step of their spike, to a value. snnTorch's are by default reset a step later, by
# subtraction; such a network cannot be exported, and `dk.to_nir` says so. So the choice is made before the training.


# %%
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(16, 16)
        self.lif = snn.Leaky(beta=0.6, spike_grad=surrogate.atan(alpha=5.0), reset_mechanism="zero", reset_delay=False)
        self.readout = torch.nn.Linear(16, 8, bias=False)
        self.out = snn.Leaky(beta=0.9, spike_grad=surrogate.atan(alpha=5.0), reset_mechanism="zero", reset_delay=False)
        with torch.no_grad():
            self.fc.weight *= 3.0  # torch's default leaves the layer almost silent
            self.readout.weight *= 2.0

    def forward(self, spikes):
        first, last, out = self.lif.init_leaky(), self.out.init_leaky(), []
        for step in spikes:
            hidden, first = self.lif(self.fc(step), first)
            fired, last = self.out(self.readout(hidden), last)
            out.append(fired)
        return torch.stack(out)


def accuracy(net, frames=splits.validation):
    """How often the neuron of the right direction fires most; validation waves, until all is chosen."""
    spikes, labels = frames.batch(torch.arange(len(frames)))
    with torch.no_grad():
        return float((net(spikes).sum(0).argmax(1) == labels).float().mean())


def trained(delay):
    torch.manual_seed(1)
    example = splits.train.batch(torch.arange(2))[0]
    net = dk.wrap_(Net(), {"fc": delay}, example=example)
    run = dk.fused(net, example=example)  # layer by layer, the same numbers, faster
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=5e-3, delay_lr=0.1))
    dk.attach(optimizer, net)
    order = torch.Generator().manual_seed(0)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(splits.train), generator=order).split(64):
            spikes, labels = splits.train.batch(index)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(run(spikes).sum(0), labels).backward()
            optimizer.step()
        dk.advance_(net, (epoch + 1) / EPOCHS)
    return net


# %% [markdown]
# ## Whole delays are trained whole
#
# Once with real delays, which are rounded at the end, and once with delays that are whole in every forward pass
# (`rounding="straight-through"`), while their gradients are those of the real ones. Start, optimizer, rates and epochs
# are the same; one rate was tried, so another may suit either of them better. Arrivals are wide triangles at first,
# which lets gradients cross gaps, and narrow until they are single steps.

# %%
wide = {"kernel": "triangle", "spread": 4.0, "spread_decay": 0.93}
nets = {rounding: trained(dk.FreeDelay("synaptic", max_delay=16, rounding=rounding, **wide))
        for rounding in ("none", "straight-through")}  # fmt: skip
for rounding, net in nets.items():
    real = accuracy(net)
    with dk.discretized(net):
        print(f"{rounding:17} as trained {real:.3f}   whole delays {accuracy(net):.3f}")
print(f"one seed, {len(splits.validation)} validation waves; chance 0.125")

# %% [markdown]
# ## The budget
#
# `dk.discretized(net, max_delay=, bits=, step=)` tries a budget and gives the delays back. How few bits would do?
# Bits are a choice like a learning rate, so validation waves make it.

# %%
net = nets["straight-through"]
bits = (1, 2, 3, 4, 5)
with plotting.style():
    figure, ax = plt.subplots(figsize=(5.2, 3.2))
    for label, options in {"cap": {"step": 1}, "grid of 2 steps": {"step": 2}}.items():
        found = []
        for number in bits:
            with dk.discretized(net, bits=number, **options):
                found.append(100 * accuracy(net))
        ax.plot(bits, found, "o-", label=label)
    ax.axhline(12.5, color=plotting.GREY, linestyle=":", label="chance")
    ax.set(xlabel="bits of a stored delay", ylabel="validation accuracy (%)")
    ax.set_xticks(bits)
    ax.legend()
    plt.show()

# %% [markdown]
# `dk.fit_hardware_` fits a target's caps for good, and tells what was clipped, what was rounded and what it costs.
# Now nothing is left to choose, and the network that goes out meets the test waves, once.

# %%
report = dk.fit_hardware_(net, "loihi", score=accuracy)
print(report)
print(f"test accuracy {accuracy(net, splits.test):.3f}, {len(splits.test)} waves, one seed")

# %% [markdown]
# ## The way out
#
# The export watches one run, sees who hears whom, and proves on it that the graph fires the same spikes.

# %%
path = Path(tempfile.mkdtemp()) / "wave.nir"
spikes, labels = splits.test.batch(torch.arange(12))
graph = dk.to_nir(net, spikes, dt_ms=task.step_ms(), path=path)
kinds = [type(node).__name__ for node in graph.nodes.values()]
print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
print(f"{path.stat().st_size / 1024:.0f} KiB")

# %% [markdown]
# ## A stranger reads it
#
# sc-neurocore (AGPL, so it runs in a process of its own) reads NIR and steps it. Where it is not installed, delaykit's
# own reader runs the file. `DELAYKIT_STRANGERS` may name a Python that has it.

# %%
SCRIPT = """
import sys, numpy as np
from sc_neurocore.nir_bridge import from_nir
graph, given, out = sys.argv[1:]
fired = []
for sample in np.load(given):
    net = from_nir(graph, dt=0.001, reset_mode="reset")
    fired.append([net.step({net.input_nodes[0]: x})[net.output_nodes[0]] for x in sample])
np.save(out, np.array(fired))
"""


def elsewhere(path, spikes):
    given, out = path.with_name("given.npy"), path.with_name("out.npy")
    np.save(given, spikes.transpose(0, 1).numpy())
    python = os.environ.get("DELAYKIT_STRANGERS", sys.executable)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", SCRIPT, str(path), str(given), str(out)]
    done = subprocess.run(command, capture_output=True, env=clean)
    if done.returncode:
        return "dk.from_nir", dk.from_nir(path).float()(spikes).detach()
    return "sc-neurocore", torch.as_tensor(np.load(out)).transpose(0, 1)


with torch.no_grad():
    ours = net(spikes)
who, theirs = elsewhere(path, spikes)
print(f"{who}: {int((ours != theirs).sum())} of {int(ours.sum())} spikes differ")

# %%
with plotting.style():
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharex=True)
    rasters = {"the wave": spikes[:, 0], "delaykit": ours[:, 0], who: theirs[:, 0]}
    for ax, (title, raster), colour in zip(axes, rasters.items(), (plotting.GREY, *plotting.CATEGORIES), strict=False):
        step, channel = raster.nonzero().T
        ax.scatter(step, channel, s=16, color=colour)
        ax.set(title=title, xlabel="step", xlim=(0, len(raster)))
    axes[0].set_ylabel("sensor")
    axes[1].set_ylabel("direction")
    for ax in axes[1:]:
        ax.axhline(int(labels[0]), color=plotting.GREY, linestyle=":")
        ax.set_ylim(-0.5, 7.5)
    plt.show()

# %% [markdown]
# ## Where to go from here
#
# - Rules, limits and the table of what becomes what: the how-to *Export to hardware*.
# - `DelayPruning` sets the delays that matter least to 0 while their synapses stay: fewer lines on the chip.
# - A target of your own: `dk.Target("mine", max_delay=30, step=2, delay_bits=4)`.
