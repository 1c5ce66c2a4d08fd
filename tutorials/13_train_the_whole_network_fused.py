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
# # Train the whole network fused
#
# A time loop in Python costs more than the arithmetic in it, and delays make each of its steps dearer. `dk.fused`
# takes a model as it is, loop and all, and runs its layers one after the other, each over the whole sequence at once.
# Here a two-layer network with delays is trained both ways: the same numbers come out, in less time.

# %%
import time

import matplotlib.pyplot as plt
import snntorch as snn
import torch
from snntorch import surrogate

import delaykit as dk
from delaykit import plotting
from delaykit_lab import MovingWave

torch.manual_seed(0)
torch.set_num_threads(1)  # the layers are small: a second thread would only wait
splits = MovingWave(samples=256, held=256).splits(seed=0)
spikes, labels = splits.train.batch(torch.arange(64))


# %% [markdown]
# ## A model with its own loop
#
# Nothing in it knows of delays, or of being fused.


# %%
class Net(torch.nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(16, hidden), torch.nn.Linear(hidden, hidden)
        grad = surrogate.atan(alpha=5.0)
        self.lif1, self.lif2 = snn.Leaky(beta=0.5, spike_grad=grad), snn.Leaky(beta=0.5, spike_grad=grad)
        self.out = torch.nn.Linear(hidden, 8)
        with torch.no_grad():
            self.fc1.weight *= 3.0
            self.fc2.weight *= 3.0

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        score = 0.0
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            score = score + self.out(spk2)
        return score


def build():
    torch.manual_seed(0)
    rules = {"fc1": dk.FreeDelay("synaptic", max_delay=16), "fc2": dk.FreeDelay("axonal", max_delay=8)}
    return dk.wrap_(Net(), rules, example=spikes[:, :2], generator=torch.Generator().manual_seed(1))


# %% [markdown]
# ## Fuse it
#
# `dk.fused` proves itself on the example, in double precision: outputs and all gradients are compared with those of
# the model's own loop, before anything is used. Printing it shows which layers run ahead of the loop, and why others
# do not.

# %%
net = build()
fast = dk.fused(net, example=spikes[:10, :2])
print(fast)

# %% [markdown]
# `net` keeps its parameters; `fast` is another way to call it. In single precision the two differ by rounding.

# %%
with torch.no_grad():
    print(f"largest difference of a score: {(fast(spikes) - net(spikes)).abs().max():.1e}")


# %% [markdown]
# ## Train both ways
#
# Same weights and delays at the start, same optimizer, rates, epochs and order of samples. The clock counts processor
# time; the comparison is within this run on this machine, and says nothing of another.


# %%
def train(net, run, epochs=6):
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=1e-2, delay_lr=0.2))
    dk.attach(optimizer, net)
    order, losses, spent = torch.Generator().manual_seed(1), [], 0.0
    for _ in range(epochs):
        for index in torch.randperm(len(splits.train), generator=order).split(64):
            x, y = splits.train.batch(index)
            start = time.process_time()
            loss = torch.nn.functional.cross_entropy(run(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            spent += time.process_time() - start
            losses.append(loss.item())
    return losses, spent


def validation(net):
    x, y = splits.validation.batch(torch.arange(len(splits.validation)))
    with torch.no_grad():
        return float((net(x).argmax(-1) == y).float().mean())


rows = {}
for name in ("its own loop", "fused"):
    net = build()
    run = net if name == "its own loop" else dk.fused(net, example=spikes[:10, :2])
    run(spikes)  # what compiles, compiles here
    losses, spent = train(net, run)
    rows[name] = losses
    print(f"{name:13} {spent:.2f} s of processor time, validation accuracy {validation(net):.3f}")

# %%
with plotting.style():
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    for (name, losses), color, dash in zip(rows.items(), plotting.CATEGORIES, ("-", "--"), strict=False):
        ax.plot(losses, dash, color=color, label=name)
    ax.set(xlabel="training step", ylabel="loss (nats)", title="the same training, by two ways")
    ax.legend()
    plt.show()

# %% [markdown]
# The lines lie on each other until rounding lets a spike fall on the other side of its threshold.
#
# What runs step by step, and the proof on real batches (`check="always"`), is in *Train the whole network fused*
# among the how-to pages; figures on a quiet machine are in `benchmarks/README.md`.
