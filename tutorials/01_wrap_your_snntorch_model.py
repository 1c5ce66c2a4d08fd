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
# # Wrap your snnTorch model
#
# You have a spiking network that works. In this tutorial it gets *learnable delays* in its connections, in one call,
# is trained on recorded speech, and is then given back as it was.
#
# Everything runs in under a minute on two CPU cores; the recordings (nine speakers, two Japanese vowels) ship inside
# the `sktime` wheel, which `delaykit-lab` installs.

# %%
import matplotlib.pyplot as plt
import snntorch as snn
import torch
from snntorch import surrogate

import delaykit as dk
from delaykit import plotting
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels

torch.manual_seed(0)
torch.set_num_threads(1)  # the layers are small: a second thread would only wait
task = JapaneseVowels(start="mean", threshold=0.1)
splits = task.splits(seed=0)
spikes, labels = splits.train.batch(torch.arange(64))
print(task.title())
print("one batch: (time, batch, channel) =", tuple(spikes.shape))

# %% [markdown]
# One utterance. Each of the twelve cepstral coefficients drives an ON and an OFF channel, which spike when the
# coefficient has risen or fallen by a step.

# %%
with plotting.style():
    fig, ax = plt.subplots(figsize=(7, 3))
    plotting.raster(spikes[:, 0], ax, dt_ms=task.step_ms())
    ax.set_title(f"speaker {int(labels[0]) + 1}")
    plt.show()

# %% [markdown]
# ## An ordinary model
#
# Nothing here knows about delays: two `Linear` layers, a recurrent `RLeaky`, a leaky readout, and a time loop.


# %%
class Net(torch.nn.Module):
    def __init__(self, hidden=40):
        super().__init__()
        self.fc1 = torch.nn.Linear(24, hidden)
        self.lif1 = snn.RLeaky(
            beta=0.9, linear_features=hidden, spike_grad=surrogate.atan(alpha=5.0), reset_mechanism="zero"
        )
        self.fc2 = torch.nn.Linear(hidden, 9)
        self.out = snn.Leaky(beta=0.9, reset_mechanism="none")
        with torch.no_grad():
            self.fc1.weight *= 2.0  # torch's default leaves the layer almost silent
            torch.nn.init.orthogonal_(self.lif1.recurrent.weight, gain=0.5)

    def forward(self, x):
        spk, mem1 = self.lif1.reset_mem()
        mem2 = self.out.reset_mem()
        score = 0.0
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), spk, mem1)
            _, mem2 = self.out(self.fc2(spk), mem2)
            score = score + mem2.softmax(-1)
        return score


net = Net()
bare_scores = net(spikes)

# %% [markdown]
# ## Plan, then wrap
#
# Rules map connection names to components. `dk.plan` runs one example, finds the time loop and the neuron behind each
# connection, and says what would be done; the model is left untouched, its state and random numbers included.

# %%
rules = {
    "fc1": dk.FreeDelay("axonal", max_delay=20, init="half-normal", scale=4.0),
    "lif1.recurrent": dk.FreeDelay("axonal", max_delay=20, init="half-normal", scale=4.0),
}
plan = dk.plan(net, rules, example=spikes)
print(plan)

# %% [markdown]
# `dk.wrap_` carries the plan out in place. The modules stay the same objects, with the same names and weights.

# %%
fc1 = net.fc1
dk.wrap_(net, plan)
print(net.fc1 is fc1, isinstance(net.fc1, torch.nn.Linear))
print(net)

# %% [markdown]
# ## What a delay does
#
# A connection is a causal filter: a spike that enters at step 0 leaves at step `tau`, times `K[post, pre, tau]`.
# A delay of 2.5 steps is shared by the steps 2 and 3, which is what makes it learnable. A wider arrival lets a gradient
# see further.

# %%
from delaykit.arrivals import Linear, Triangle  # noqa: E402

with plotting.style():
    fig, axes = plt.subplots(1, 2, figsize=(7.5, 2.6), sharey=True)
    for ax, kernel, title in zip(axes, (Linear(), Triangle(3.0)), ("linear", "triangle, spread 3"), strict=True):
        plotting.kernel(kernel.response(torch.tensor([[2.5, 8.0]]), 14)[0], ax, labels=["d = 2.5", "d = 8"])
        ax.set_title(title)
    plt.show()

# %% [markdown]
# ## Train
#
# Delays are large numbers next to weights, so they get a group of their own with a larger learning rate.
# `dk.attach` keeps them between 0 and `max_delay` after every step, and says so if the optimizer does not hold them.


# %%
def accuracy(model, frames):
    x, y = frames.batch(torch.arange(len(frames)))
    with torch.no_grad():
        return float((model(x).argmax(-1) == y).float().mean())


def train(model, groups, epochs=12):
    optimizer = torch.optim.Adam(groups)
    if isinstance(groups, list):
        dk.attach(optimizer, model)
    generator, curve = torch.Generator().manual_seed(1), []
    for epoch in range(epochs):
        for index in torch.randperm(len(splits.train), generator=generator).split(36):
            x, y = splits.train.batch(index)
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if isinstance(groups, list):
            dk.advance_(model, (epoch + 1) / epochs)
        curve.append(accuracy(model, splits.validation))
    return curve


before = dk.status(net).delays["fc1"]
with_delays = train(net, dk.param_groups(net, lr=4e-3, delay_lr=0.1))

torch.manual_seed(0)
plain = Net(hidden=41)  # one more neuron than the wrapped net: at least as many parameters
without = train(plain, plain.parameters())
size = {name: sum(p.numel() for p in m.parameters()) for name, m in (("with", net), ("without", plain))}
print("parameters:", size)

# %%
with plotting.style():
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3))
    plotting.learning_curves({"delays": with_delays, "no delays": without}, axes[0], chance=1 / 9)
    axes[0].set_title("learning")
    plotting.delay_histogram(dk.status(net).delays["fc1"], axes[1], before=before, max_delay=20)
    axes[1].set_title("input delays")
    plt.show()
for name, model in (("delays", net), ("no delays", plain)):
    print(f"test accuracy, {name}: {accuracy(model, splits.test):.3f} (chance 0.111)")

# %% [markdown]
# One seed of a small network proves little: `delaykit demo` runs three seeds, with frozen random delays as the control
# that separates *having* delays from *learning* them.
#
# ## Integer delays, for hardware
#
# Neuromorphic chips delay by whole steps. Inside `dk.discretized` delays are rounded and spreads are 0; the real ones
# come back afterwards.


# %%
def first_delays(model):
    return [round(d, 2) for d in dk.status(model).delays["fc1"].flatten()[:5].tolist()]


with dk.discretized(net):
    print(f"rounded delays: {accuracy(net, splits.test):.3f}", first_delays(net))
print(f"real delays:    {accuracy(net, splits.test):.3f}", first_delays(net))
print(dk.status(net))

# %% [markdown]
# ## The fused path
#
# Your loop runs step by step. Where the whole input is known, `dk.rollout` runs a recurrent layer at once, by one
# hand-written adjoint, and gives the same numbers.

# %%
with torch.no_grad():
    drive = torch.randn(58, 8, 40)
    fused, _ = dk.rollout(net.lif1, drive)
    print("spikes in the fused run:", int(fused.sum()))

# %% [markdown]
# ## Save, load, undo
#
# `dk.save` writes what delaykit added (safetensors and JSON, never a pickle). `dk.unwrap_` takes it all back: the bare
# model of the beginning, with trained weights.

# %%
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    dk.save(net, Path(folder) / "delays")
    twin = Net()
    dk.load(twin, Path(folder) / "delays")
twin.load_state_dict(net.state_dict())
print("same scores after load:", torch.equal(twin(spikes), net(spikes)))

dk.unwrap_(net)
print(type(net.fc1).__name__, net.fc1 is fc1, any(".dk." in key for key in net.state_dict()))
