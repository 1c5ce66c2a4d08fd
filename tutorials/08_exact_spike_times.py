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
# # Learning with exact spike times
#
# A layer of `delaykit-timing` has no time steps. Spikes go in as real numbers and come out as real numbers, as often
# as a neuron likes to fire, and every spike time has an exact gradient with respect to every weight, every input spike
# and every delay. No surrogate.
#
# $$I' = -I/\tau_I + \sum_k w_k\,\delta(t - t_k - d_k), \qquad V' = -V/\tau_V + I, \qquad V \leftarrow 0
# \text{ at } V = 1$$
#
# (Yamamoto, Sakemi, Aihara 2022, arXiv 2211.16113; delays are ours.) It runs in well under a minute on two CPU cores.

# %%
import matplotlib.pyplot as plt
import snntorch as snn
import torch

import delaykit as dk
from delaykit import plotting
from delaykit_lab.tasks.mnist import MNIST
from delaykit_timing import (
    Events,
    MultiSpikeLIF,
    TimingNet,
    compare_spike_times,
    from_raster,
    latency_encode,
    output_norm,
    potential_cross_entropy,
    project_after_steps,
    spike_count_penalty,
    to_events,
)
from delaykit_timing.plotting import event_raster, membrane, spike_histogram

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## One neuron
#
# Three input spikes. Between two spikes the potential is a difference of two exponentials, so the time at which it
# meets the threshold is found in closed form (for $\tau_I = 2\tau_V$) or by Newton's method (for any other ratio).

# %%
inputs = Events.of([[0.1, 0.3, 0.45]], [[0, 1, 2]], size=3)
neuron = MultiSpikeLIF(3, 1, tau_synapse=0.4, end=1.0).double()
neuron.weight.data = torch.tensor([[5.0, 8.0, 6.0]], dtype=torch.float64)
output = neuron(inputs)
print("spikes at", [f"{t:.10f}" for t in output.times[0].tolist()])

with plotting.style():
    fig, ax = plt.subplots(figsize=(7, 3.2))
    membrane(neuron, inputs, [0], ax)
    for t in inputs.times[0].tolist():
        ax.axvline(t, color=plotting.GREY, linewidth=0.8, zorder=0)
    ax.set_title("input spikes (grey lines), potential, exact output spikes (triangles)")
    plt.show()

# %% [markdown]
# ## The gradient is the slope
#
# Move one weight and watch all spike times. The gradient that `backward` gives is the tangent of each curve. Where a
# curve ends, a spike is born or dies: there is no slope to follow across, which is why training needs a little help
# for silent neurons (below). Where it has a corner, the spike passes the arrival of another input.

# %%
weights = torch.linspace(1.0, 10.0, 400, dtype=torch.float64)
curves = [[] for _ in range(4)]
for w in weights:
    neuron.weight.data[0, 1] = w
    times = neuron(inputs).times[0].detach()
    for k, curve in enumerate(curves):
        curve.append(float(times[k]) if k < len(times) else float("nan"))

with plotting.style():
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for k, curve in enumerate(curves):
        ax.plot(weights, curve, color=plotting.CATEGORIES[k], label=f"spike {k + 1}")
    neuron.weight.data[0, 1] = 8.0
    for t in neuron(inputs).times[0]:
        (slope,) = torch.autograd.grad(t, neuron.weight, retain_graph=True)
        x = torch.tensor([7.0, 9.0])
        ax.plot(
            x, float(t.detach()) + float(slope[0, 1]) * (x - 8.0), "--", color=plotting.INK, linewidth=1.6, zorder=5
        )
        ax.plot(8.0, float(t.detach()), "o", color=plotting.INK, markersize=5, zorder=6)
    ax.set(xlabel="weight of the second input", ylabel="spike time")
    ax.set_title("spike times and their gradients at 8 (dashed)")
    ax.legend()
    plt.show()

# %% [markdown]
# ## Fire then, and then, and then
#
# Twenty inputs at random times; the neuron shall fire at 0.25, 0.5 and 0.8. Gradient descent on the squared distance
# of its first three spikes. The second one comes where the potential is almost flat, so that its time answers wildly
# to any change; `slope_floor` bounds such gradients.

# %%
generator = torch.Generator().manual_seed(1)
when = torch.rand(1, 20, generator=generator, dtype=torch.float64).sort(1).values
inputs = Events(when, torch.arange(20).unsqueeze(0), 20)
neuron = MultiSpikeLIF(
    20, 1, tau_synapse=0.4, weight_mean=1.6, weight_std=0.2, slope_floor=0.1, generator=generator
).double()
target = torch.tensor([0.25, 0.5, 0.8], dtype=torch.float64)
optimizer = torch.optim.Adam(neuron.parameters(), lr=0.03)
losses, before = [], neuron(inputs).times[0].detach()
for _ in range(600):
    times = neuron(inputs).times[0, :3]
    loss = (times - target).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("before", [f"{t:.3f}" for t in before.tolist()])
print("after ", [f"{t:.3f}" for t in neuron(inputs).times[0].tolist()])

with plotting.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), width_ratios=(1, 2))
    left.semilogy(losses)
    left.set(xlabel="step", ylabel="squared distance")
    membrane(neuron, inputs, [0], right)
    for t in target.tolist():
        right.axvline(t, color=plotting.CATEGORIES[4], linestyle="--", linewidth=1.2)
    right.set_title("after learning; dashed: the targets")
    plt.show()

# %% [markdown]
# ## Delays
#
# Any point delay of delaykit plugs in: `FreeDelay` of a layer, an axon, a dendrite or a synapse. A component counts
# steps, an event layer has a unit of time, so `dt` says how long a step is. The arrival is `t + d dt`, exactly, and so
# is its gradient.
#
# Here only the delays learn. Four inputs fire one after the other, and what arrives closer together lifts the
# potential higher. The neuron fires at 0.71 and shall fire at 0.65.

# %%
inputs = Events.of([[0.1, 0.25, 0.4, 0.55]], [[0, 1, 2, 3]], size=4)
delay = dk.FreeDelay("axonal", max_delay=60, init=[20.0, 18.0, 16.0, 14.0])
neuron = MultiSpikeLIF(4, 1, tau_synapse=0.2, delay=delay, dt=0.01).double()
neuron.weight.data.fill_(8.0)
neuron.weight.requires_grad_(False)
optimizer = torch.optim.Adam([neuron.delay.delay], lr=0.5)
project_after_steps(optimizer, neuron)


def arrivals(ax, color, label):
    d = neuron.delays().detach()[0]
    ax.plot(inputs.times[0] + d, torch.arange(4), "o", color=color, label=label)


with plotting.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    left.plot(inputs.times[0], torch.arange(4), "|", color=plotting.INK, markersize=14, label="spike")
    arrivals(left, plotting.CATEGORIES[1], "arrival, before")
    print(f"before: fires at {neuron(inputs).times[0, 0].item():.3f}")
    for _ in range(200):
        loss = (neuron(inputs).times[0, 0] - 0.65).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"after:  fires at {neuron(inputs).times[0, 0].item():.3f}")
    arrivals(left, plotting.CATEGORIES[0], "arrival, after")
    left.set(xlabel="time", ylabel="input", yticks=range(4))
    left.legend()
    membrane(neuron, inputs, [0], right)
    right.axvline(0.65, color=plotting.CATEGORIES[4], linestyle="--", linewidth=1.2)
    right.set_title("after learning; dashed: the target")
    plt.show()

# %% [markdown]
# ## Handwritten digits
#
# Each pixel of an image fires once, bright ones early: $t = 1 - x$. The hidden neurons fire as often as they like (or
# at most once, for comparison), the output neurons never: their potential at $t = 1$ is the score. The images are
# scikit-learn's 8 x 8 digits, which ship with it; `MNIST(path=...)` reads MNIST's own files.
#
# Three terms make the loss: cross-entropy of the scores, a small norm that keeps them from growing, and a penalty that
# pulls the potential of *dead* neurons (those that fire on less than a tenth of the batch) towards the threshold.

# %%
task = MNIST()
images = task.images(seed=0)
print(task.title(), "|", len(images.train), "training,", len(images.validation), "validation images")
sample = latency_encode(images.train.values[:1])
with plotting.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 2))
    left.imshow(images.train.values[0].reshape(8, 8), cmap=plotting.COLOUR_MAPS["count"])
    left.set(xticks=[], yticks=[], title=f"a {int(images.train.labels[0])}")
    left.grid(False)
    event_raster(sample, right)
    right.set(title="its spikes", ylabel="pixel")
    plt.show()


# %%
@torch.no_grad()
def evaluate(net, part):
    out = net(latency_encode(part.values))
    return float((out.scores.argmax(1) == part.labels).double().mean()), out.hidden[0].spike_counts()


def train(single_spike, rate, epochs=15):
    generator = torch.Generator().manual_seed(0)
    options = {"tau_synapse": 0.8, "single_spike": single_spike, "generator": generator}
    net = TimingNet((64, 120, 10), readout={"weight_std": 0.1}, **options)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    accuracies = []
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rate * 0.85**epoch
        for index in torch.randperm(len(images.train), generator=generator).split(50):
            out = net(latency_encode(images.train.values[index]))
            loss = potential_cross_entropy(out.scores, images.train.labels[index])
            loss = loss + output_norm(out.scores) + spike_count_penalty(out.hidden[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracies.append(evaluate(net, images.validation)[0])
    return net, accuracies


nets, curves, histograms = {}, {}, {}
for name, single in (("many spikes", False), ("at most one spike", True)):
    trained = {rate: train(single, rate) for rate in (1e-2, 2e-2)}
    best = max(trained, key=lambda rate: trained[rate][1][-1])
    nets[name], curves[name] = trained[best]
    accuracy, counts = evaluate(nets[name], images.test)  # once, after the validation images chose the rate
    histograms[name] = torch.bincount(counts.flatten()) / counts.numel()
    print(f"{name}: learning rate {best:g}, test {100 * accuracy:.1f} %, {counts.double().mean():.2f} spikes a neuron")
print(f"chance 10 %; {len(images.test)} test images; one seed")

with plotting.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
    plotting.learning_curves(curves, left, chance=0.1)
    for name, shares in histograms.items():
        spike_histogram(shares, right, label=name)
    plt.show()

# %% [markdown]
# Both have the same weights, optimizer, epochs and rates, and both took the higher of the two rates, so a still higher
# one may do better. Both learn the digits; on 359 test images a difference of a per cent is three or four images, so
# this says nothing about which is better. The comparison on MNIST is in the plugin's README.
#
# What the hidden neurons do with one image:

# %%
with plotting.style():
    fig, ax = plt.subplots(figsize=(8, 3.4))
    hidden = nets["many spikes"].hidden[0]
    busy = hidden(sample).spike_counts()[0].argsort(descending=True)[[0, 8, 25]].tolist()
    membrane(hidden, sample, busy, ax)
    ax.set_title("three hidden neurons")
    plt.show()

# %% [markdown]
# ## From a discrete layer and back
#
# A trained snnTorch `Synaptic` (or Norse `LIFCell`) with reset to zero has the same dynamics in steps. `to_events`
# makes the event layer of it, `compare_spike_times` says how far apart their spikes are: up to a neuron's first spike
# nothing but rounding, then less than a step's worth for each reset.

# %%
linear = torch.nn.Linear(10, 5, bias=False)
torch.nn.init.normal_(linear.weight, 0.006, 0.006)
synaptic = snn.Synaptic(alpha=0.95, beta=0.9, reset_mechanism="zero", reset_delay=False)
layer = to_events(linear, synaptic, dt=1.0, end=100.0)
raster = (torch.rand(100, 8, 10) < 0.08).float()
print(layer)
print(compare_spike_times(linear, synaptic, layer, raster, dt=1.0))

syn = mem = torch.zeros(8, 5)
potentials = []
for current in linear(raster).detach():
    _, syn, mem = synaptic(current, syn, mem)
    potentials.append(mem[0])
with plotting.style():
    fig, ax = plt.subplots(figsize=(8, 3.2))
    chosen = int(layer(from_raster(raster, 1.0)).spike_counts()[0].argmax())
    membrane(layer, from_raster(raster, 1.0), [chosen], ax, unit="steps")
    ax.plot(torch.arange(100) + 1, torch.stack(potentials)[:, chosen], ".", color=plotting.INK, markersize=4)
    ax.set_title("exact potential (line), snnTorch's at the end of each step (dots)")
    plt.show()
