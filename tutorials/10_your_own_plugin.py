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
# # Your own plugin
#
# A method for delays is a config, a torch module, and one line of registration. Here a delay is invented, written in
# a few lines, put into a network, compared with the reference that it defines itself, and trained.
#
# The idea: the delays of a connection are *evenly spaced* over the input channels, as along a cable. Two numbers,
# where the cable begins and how long it takes from one channel to the next, make the delays of all channels.

# %%
import dataclasses
from typing import ClassVar, Literal

import matplotlib.pyplot as plt
import torch

import delaykit as dk
from delaykit import plotting
from delaykit.arrivals import Linear

# %% [markdown]
# ## The method
#
# `PointDelay` is the interface for one arrival per spike and synapse. It asks for the delays, in steps, and for the
# shape of an arrival; `Linear` shares a spike between the two steps around it, which gives delays their gradient.
# Bounds are kept in `project_`, after the optimizer's step: a clamp in the forward pass would have no gradient at the
# bound.


# %%
class CableDelay(dk.PointDelay):
    granularity = "axonal"  # one delay for each input channel

    def __init__(self, config, site):
        super().__init__()
        self.max_delay, self.channels = config.max_delay, site.pre
        self.start = torch.nn.Parameter(torch.tensor(float(config.start)))
        self.spacing = torch.nn.Parameter(torch.tensor(float(config.spacing)))

    def delays(self):
        return (self.start + self.spacing * torch.arange(self.channels, device=self.start.device)).reshape(1, -1)

    def kernel(self):
        return Linear()

    @torch.no_grad()
    def project_(self):
        self.start.clamp_(0.0, self.max_delay)
        self.spacing.clamp_(0.0, (self.max_delay - float(self.start)) / max(1, self.channels - 1))


# %% [markdown]
# ## The config
#
# What users write: a frozen dataclass of plain values, so that it can be saved as JSON, and `build`, which gets the
# site (its name, the numbers of neurons before and behind it) and makes the module.


# %%
@dataclasses.dataclass(frozen=True)
class Cable(dk.ComponentConfig):
    kind: ClassVar[Literal["delay"]] = "delay"
    name: ClassVar[str] = "cable"

    max_delay: float = 20.0
    start: float = 0.0
    spacing: float = 0.5

    def build(self, site, generator=None):
        return CableDelay(self, site)


# %% [markdown]
# ## In a network
#
# That is all: plan, wrap, save and unwrap know what to do with it. `time_dim=0` says that the layer is called once
# with the whole sequence, time first.

# %%
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 3, bias=False))
dk.wrap_(net, {"0": dk.At(Cable(spacing=1.3), time_dim=0)})
print(net)

# %% [markdown]
# The impulse response is the specification of a synapse: a spike that enters at step 0 leaves at step `tau` times
# `K[post, pre, tau]`. A causal convolution with it is what the fast operators have to equal.

# %%
spikes = (torch.rand(40, 2, 8) < 0.2).float()
with torch.no_grad():
    response = net[0].dk.impulse_response(net[0].weight)
    slow = sum(
        torch.einsum("tbi,ji->tbj", torch.nn.functional.pad(spikes, (0, 0, 0, 0, tau, 0))[: len(spikes)], taps)
        for tau, taps in enumerate(response.unbind(-1))
    )
    print("largest difference from the reference:", f"{(net(spikes) - slow).abs().max():.1e}")

# %% [markdown]
# ## Train it
#
# A wave runs along the channels, 0.8 steps from one to the next; which two numbers bring all spikes together? Weights
# stay fixed, so only the cable can learn. The loss asks that the sum of the output has a high peak.

# %%
wave = torch.zeros(40, 1, 8)
for channel in range(8):
    wave[round(10 + 0.8 * (7 - channel)), 0, channel] = 1.0  # the last channel fires first
with torch.no_grad():
    net[0].weight.fill_(1.0)
net[0].weight.requires_grad_(False)
optimizer = torch.optim.Adam(net[0].dk.parameters(), lr=0.02)
dk.attach(optimizer, net)
before = net(wave).detach()
for _ in range(150):
    loss = -net(wave)[..., 0].square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = net(wave).detach()
delay = net[0].dk.delay
print(f"spacing {delay.spacing.item():.2f} steps; the wave asks for about 0.8")

# %%
with plotting.style():
    fig, ax = plt.subplots(figsize=(6.4, 2.8))
    ax.plot(before[:, 0, 0], color=plotting.GREY, label="before")
    ax.plot(after[:, 0, 0], color=plotting.CATEGORIES[1], label="after")
    ax.set(xlabel="time (steps)", ylabel="input current", title="the spikes of the wave come together")
    ax.legend()
    plt.show()

# %% [markdown]
# ## A distribution of its own
#
# `delaykit new cable` writes the folder of a plugin that works, with one line that registers it,
#
# ```python
# yield dk.Component("delay", "cable", "delaykit_cable.config:Cable", "evenly spaced delays", paper="You 2026")
# ```
#
# and a class of tests, `delaykit.testing.ComponentConformance`, that holds it to the laws of every component: nothing
# changes at zero delay, steps equal sequences, nothing arrives before it was sent, every parameter gets a gradient,
# and wrapping can be undone. The how-to page *Write a plugin* goes through it file by file.
