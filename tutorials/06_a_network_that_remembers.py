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
# # A network that remembers sixteen spike patterns
#
# A synapse need not have *one* delay. Give it a weight for each delay, `taps[post, pre, tau]`, and a neuron can listen
# for a whole *motif*: spikes of many neurons, each at its own moment, that arrive together. A recurrent network of such
# neurons is a working memory. It is shown the first 41 ms of a pattern and completes the second that follows, spike for
# spike. The taps are written down at once, by Hebb's rule; nothing is trained.
#
# Paper: Perrinet 2026, arXiv 2604.14096. Plugin: `delaykit-motifs`.

# %%
import time

import matplotlib.pyplot as plt
import torch

import delaykit as dk
import delaykit_motifs as motifs
from delaykit import plotting
from delaykit_motifs import MotifDynamics, MotifMemory

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)

# %% [markdown]
# ## Sixteen patterns
#
# 512 neurons, 1000 steps of 1 ms, every neuron about one spike a second. Time comes first, patterns are the batch.

# %%
patterns = motifs.bernoulli_patterns(1000, 16, 512, 1e-3, generator)
print(f"{tuple(patterns.shape)} = (time, pattern, neuron), {int(patterns.sum())} spikes")

# %% [markdown]
# ## Writing
#
# A *context* is what the network did in the last 41 steps: about twenty spikes. Hebb's rule connects each spike of a
# pattern to the spikes of its context, each at its own delay, and divides by how many there are:
#
# $$W_{ji}(d) = \sum_{\mu,\,t} \frac{s^\mu_j(t)\; s^\mu_i(t-d)}{|c^\mu_t|^2}$$
#
# So a complete context drives its neuron to exactly 1, just above the threshold 0.95. The tensor has 10.7 million taps.

# %%
start = time.process_time()
taps = motifs.hebbian(patterns, depth=41)
memory = MotifMemory(taps, MotifDynamics(theta=0.95, beta=0.7))
run = memory.recall(patterns[:41], steps=1000)  # a cue of 41 steps, then the network is alone
print(memory)
print(f"F1 = {motifs.f1(run.spikes, patterns, start=41)} in {time.process_time() - start:.1f} CPU seconds")

# %%
with plotting.style():
    _, ax = plt.subplots(figsize=(10, 4))
    motifs.plot_recall(run.spikes[:, 0], patterns[:, 0], 41, ax, neurons=120)
    ax.set_title("pattern 0, the first 120 of 512 neurons")
    plt.show()

# %% [markdown]
# Is it the delays? The same rule with room for a single step (`depth=1`) sees one spike's worth of the past; and the
# same weights with each synapse's delays shuffled have everything but the right times. F1 is the harmonic mean of the
# share of recalled spikes that are right and of right spikes that are recalled; 0 is none.


# %%
def shuffled(taps):
    order = torch.argsort(torch.rand(taps.shape, generator=torch.Generator().manual_seed(1)), dim=-1)
    return taps.gather(-1, order)


for name, control in (("one delay", motifs.hebbian(patterns, depth=1)), ("delays shuffled", shuffled(taps))):
    recalled = MotifMemory(control, MotifDynamics(theta=0.95, beta=0.7)).recall(patterns[:41], steps=1000)
    print(f"{name:16} F1 = {motifs.f1(recalled.spikes, patterns, start=41):.3f}")

# %% [markdown]
# Every mark above is a spike at the right neuron in the right millisecond. Recall is fast because a spike is an event:
# it adds its 41 rows of weights to the currents to come, and a neuron that is silent costs nothing.
#
# ## What a neuron listens for
#
# One row of the tensor is the motif of one neuron: each mark is a spike of someone else, so many steps before. On the
# right its membrane while the network recalls one pattern. Nothing adds up, most of the time; then a context is
# complete, and its twenty small currents meet in one millisecond.

# %%
neuron = int(patterns.sum((0, 1)).argmax())
pattern = int(patterns[41:, :, neuron].sum(0).argmax())
with torch.no_grad():
    membrane = memory.membrane(patterns[:, [pattern]])[:, 0, neuron]
with plotting.style():
    _, axes = plt.subplots(1, 2, figsize=(11, 4))
    motifs.plot_motif(memory.taps, neuron, axes[0])
    axes[1].plot(range(41, 1000), membrane, color=plotting.INK, linewidth=0.9)
    axes[1].axhline(0.95, color=plotting.CATEGORIES[4], linewidth=1.2, label="threshold")
    fired = run.spikes[:, pattern, neuron].nonzero()[:, 0]
    axes[1].plot(fired, [1.18] * len(fired), "v", color=plotting.CATEGORIES[0], label="its spikes")
    axes[1].set(
        xlabel="time (steps)", ylabel="membrane", title=f"neuron {neuron} in pattern {pattern}", ylim=(-0.05, 1.4)
    )
    axes[1].legend(loc="upper right", ncols=2)
    plt.show()

# %% [markdown]
# An experimenter would call the rule averaged spike-timing-dependent plasticity: pre before post, up to 41 steps, is
# strengthened. `motifs.cross_correlogram` counts the same pairs of spikes by their lag.
#
# ## Wrong cues
#
# Two missing spikes out of twenty bring a context to 0.9, below 0.95. With a threshold of 0.65 clean cues still recall
# everything, and a third of a context may be missing.

# %%
levels = (0.0, 0.1, 0.2, 0.3, 0.4)
with plotting.style():
    _, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True)
    for ax, noise, label in zip(axes, ("flip", "truncate"), ("spikes moved elsewhere", "cue cut off"), strict=True):
        for k, theta in enumerate((0.95, 0.8, 0.65)):
            tested = MotifMemory(taps, MotifDynamics(theta))
            given = [1 - level if noise == "truncate" else level for level in levels]
            scores = [motifs.robustness(tested, patterns, noise, x, torch.Generator().manual_seed(0)) for x in given]
            ax.plot(levels, scores, marker="o", color=plotting.CATEGORIES[k], label=f"threshold {theta}")
        ax.set(xlabel=f"share of {label}", ylim=(-0.03, 1.05))
    axes[0].set_ylabel("F1 behind the cue")
    axes[0].legend()
    plt.show()

# %% [markdown]
# ## Beyond the rule: training
#
# With more spikes contexts overlap, and Hebb's rule alone fails. *Teacher forcing* feeds the true contexts and asks
# every membrane to pass the threshold at its own spikes and to stay below elsewhere (a squared hinge), which is convex
# for each neuron. From random taps, it is done in a second or two. F1 over time shows how recall emerges near the cue
# and moves forward.

# %%
small = motifs.bernoulli_patterns(300, 4, 128, 5e-3, torch.Generator().manual_seed(0))
student = MotifMemory(0.02 * torch.randn(128, 128, 21, generator=generator), MotifDynamics(theta=0.7))
print(f"before: F1 = {motifs.recall_score(student, small):.3f}")
runs, done = {}, 0
for steps in (6, 9, 12, 60):
    motifs.train_teacher_forced(student, small, steps=steps - done)
    done = steps
    runs[f"{steps} steps"] = (student.recall(small[:21], 300).spikes, small)
print(f"after {done} steps: F1 = {motifs.recall_score(student, small):.3f}")

# %%
with plotting.style():
    _, ax = plt.subplots(figsize=(10, 3.6))
    motifs.plot_f1_over_time(runs, 21, ax, width=25)
    plt.show()

# %% [markdown]
# ## Few taps, and delays
#
# Chips have room for few delays. Keep the strongest taps of each synapse; with one tap left, a motif tensor *is* a
# matrix of weights and a matrix of delays, and becomes an ordinary `FreeDelay` (and back).

# %%
print("taps a synapse   share of all taps in use   F1")
for count in (41, 3, 2, 1):
    fewer = motifs.strongest_taps(taps, count)
    share = torch.count_nonzero(fewer) / torch.count_nonzero(taps)
    score = motifs.recall_score(MotifMemory(fewer, MotifDynamics(0.65)), patterns)
    print(f"{count:14d}   {share:24.1%}   {score:.3f}")

weight, config = motifs.to_free_delay(motifs.strongest_taps(student.taps, 1))
print(f"as delays: {config.granularity}, up to {config.max_delay} steps, for {tuple(weight.shape)} synapses")

# %% [markdown]
# ## In your own model
#
# `Motif(depth=D)` is a component like any other: it starts as the connection it is put on, to the bit, and trains.

# %%
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 10))
x = (torch.rand(50, 8, 64, generator=generator) < 0.02).float()
before = torch.stack([net(step) for step in x])
dk.wrap_(net, {"0": dk.At(motifs.Motif(depth=20), reset="manual")}, example=x[0])
dk.reset(net)
after = torch.stack([net(step) for step in x])
print("the same to the bit:", torch.equal(before, after))
print(net[0].dk.delay)
