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
# # Ninety per cent fewer synapses
#
# A trained network rarely needs all its synapses. *Static* pruning removes the weak ones once and trains the rest a
# little more. *Dynamic* sparsification writes zeros after **each epoch** and lets them grow again in between, so that
# the network learns which synapses to do without. This tutorial trains a recurrent network with a delay for each
# synapse on recorded speech (nine speakers, two Japanese vowels; the files ship inside the `sktime` wheel), removes
# nine synapses of ten both ways, looks at what is left, and makes it smaller and faster in fact.

# %%
import copy
import functools
import time

import matplotlib.pyplot as plt
import snntorch as snn
import torch
from snntorch import surrogate

import delaykit as dk
from delaykit import plotting
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels
from delaykit_sparsify import (
    DynamicSparsity,
    compact_,
    connectivity,
    masks,
    parameter_report,
    turnover,
)
from delaykit_sparsify.plotting import degree_histogram, kept_fraction

torch.set_num_threads(1)  # the layers are small: a second thread would only wait
task = JapaneseVowels()
splits = task.splits(seed=0)
HIDDEN, EPOCHS, RATES = 64, 40, (2e-3, 5e-3)

# %% [markdown]
# ## One rule more
#
# `DynamicSparsity(0.9)` stands beside the delay in the rule of a connection. The readout is in no rule: it stays full.
# The published schedule prunes to the target after the first epoch. Here the epochs are short, and a synapse could
# not grow strong enough within one to come back; so sparsity rises slowly instead (`schedule="cubic"`).


# %%
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(24, HIDDEN)
        self.lif = snn.RLeaky(beta=0.5, linear_features=HIDDEN, spike_grad=surrogate.atan(alpha=5.0))
        self.readout = torch.nn.Linear(HIDDEN, 9)
        torch.nn.init.orthogonal_(self.lif.recurrent.weight, gain=0.5)
        with torch.no_grad():
            self.fc.weight *= 3.0  # torch's default leaves the layer almost silent

    def forward(self, spikes):
        hidden, _ = dk.rollout(self.lif, self.fc(spikes))
        return self.readout(hidden).sum(0)


def build(*pruning):
    torch.manual_seed(0)
    delay = dk.FreeDelay("synaptic", max_delay=20)
    rules = {
        "fc": dk.At(delay, *pruning, reset="root", time_dim=0),
        "lif.recurrent": dk.At(delay, *pruning, reset="root"),
    }
    return dk.wrap_(Net(), rules)


def accuracy(net, frames):
    with torch.no_grad():
        spikes, labels = frames.batch(torch.arange(len(frames)))
        return float((net(spikes).argmax(1) == labels).float().mean())


def train(net, rate, epochs=EPOCHS):
    """Train; prune at the end of each epoch; return validation accuracy, masks and state after each."""
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=rate, delay_lr=5e-2))
    dk.attach(optimizer, net)
    generator, curve, kept, states = torch.Generator().manual_seed(0), [], [], []
    for epoch in range(epochs):
        for index in torch.randperm(len(splits.train), generator=generator).split(32):
            spikes, labels = splits.train.batch(index)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(spikes), labels).backward()
            optimizer.step()
        dk.advance_(net, (epoch + 1) / epochs)
        curve.append(accuracy(net, splits.validation))
        kept.append(masks(net))
        states.append(copy.deepcopy(net.state_dict()))
    return curve, kept, states


def tuned(make, epochs=EPOCHS):
    """Train at each rate; validation samples choose one."""
    runs = []
    for rate in RATES:
        net = make()
        runs.append((net, *train(net, rate, epochs)))
    best = max(range(len(RATES)), key=lambda k: runs[k][1][-1])
    print(f"learning rate {RATES[best]:g} chosen, {runs[best][1][-1]:.3f} on validation")
    return runs[best]


def drawn(kept):
    """Keep the strongest synapses of the random start, before any training, and no others."""
    net = build(DynamicSparsity(1 - kept, regrow="none"))
    dk.advance_(net, 1 / EPOCHS)
    return net


dense, dense_curve, _, dense_states = tuned(build)
sparse, sparse_curve, kept, _ = tuned(lambda: build(DynamicSparsity(0.9, schedule="cubic", ramp=0.75)))
control, control_curve, _, _ = tuned(lambda: drawn(0.1))

# %% [markdown]
# ## Dynamic against static
#
# All get equal chances: 40 epochs in all, the same optimizer, the same two rates, of which validation samples choose
# one, and ten epochs at the final sparsity. Static pruning takes the dense network after 30 epochs, removes the weakest
# synapses once, and goes on training what is left for ten (`regrow="none"`: a synapse that is gone stays gone). The
# *control* trains a tenth that was drawn before anything was learned: what it reaches needs no pruning at all. Test
# samples are looked at once a network, after its last epoch.

# %% tags=["thumbnail"]
FINE = EPOCHS // 4
fractions, static, untuned = (0.05, 0.1, 0.2, 0.5), [], []


def cut(fraction):
    pruned = build(DynamicSparsity(1 - fraction, regrow="none"))
    pruned.load_state_dict(dense_states[EPOCHS - FINE - 1], strict=False)
    dk.advance_(pruned, 1.0)
    return pruned


for fraction in fractions:
    untuned.append(accuracy(cut(fraction), splits.test))
    static.append(accuracy(tuned(functools.partial(cut, fraction), FINE)[0], splits.test))
full, dynamic, random = (accuracy(net, splits.test) for net in (dense, sparse, control))

with plotting.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    curves = {"all synapses": dense_curve, "a tenth, dynamic": sparse_curve, "a tenth, drawn at first": control_curve}
    plotting.learning_curves(curves, left, chance=1 / 9)
    right.plot(fractions, [100 * a for a in untuned], "^:", color=plotting.GREY, label="static, not trained on")
    right.plot([*fractions, 1], [100 * a for a in [*static, full]], "s--", label="static, trained on")
    right.plot([0.1], [100 * dynamic], "o", ms=9, label="dynamic")
    right.plot([0.1], [100 * random], "D", ms=7, label="drawn before training")
    right.set(xscale="log", xlabel="fraction of synapses kept", ylabel="test accuracy (%)")
    right.set_xticks([*fractions, 1], [f"{f:g}" for f in [*fractions, 1]])
    right.minorticks_off()
    right.legend()
    plt.show()
print(f"all {full:.3f}   a tenth: dynamic {dynamic:.3f}, static {static[1]:.3f}, not trained on {untuned[1]:.3f},")
print(f"drawn before training {random:.3f}")
print(f"one seed, {len(splits.test)} test samples: a difference below about four points is within the error")

# %% [markdown]
# Nine synapses of ten can go at a cost of a few points, in every way that trains on afterwards. *Choosing* them well is
# not what this shows: the tenth that was drawn before training is not behind dynamic pruning, and dynamic is not ahead
# of static beyond the error. Have such a control beside every pruning of yours; where it is behind, the choice is
# worth its trouble. Every network took the higher of the two rates, so a still higher one may lift each further.
#
# ## What is left
#
# The count is exact on every matrix. `turnover` tells how many synapses went and how many are new between two epochs.
# Neurons that lost all their inputs are counted.

# %%
print(parameter_report(sparse))
half = EPOCHS // 2
for name, change in turnover(kept[half], kept[-1]).items():
    print(f"{name}: {change.before} kept at half time, {change.after} now: {change.removed} gone, {change.created} new")
graphs = connectivity(sparse, communities=True)
for graph in graphs.values():
    print(graph)

# %%
with plotting.style():
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    weight = sparse.lif.recurrent.weight.detach()
    top = float(weight.abs().max())
    image = axes[0].imshow(weight, cmap=plotting.COLOUR_MAPS["signed"], vmin=-top, vmax=top)
    axes[0].set(xlabel="presynaptic neuron", ylabel="postsynaptic neuron", title="recurrent weights")
    axes[0].grid(False)
    figure.colorbar(image, ax=axes[0], label="weight")
    degree_histogram(graphs["lif.recurrent"], axes[1])
    kept_fraction(sparse.fc.dk.delay.delays(), masks(sparse)["fc"], axes[2], bins=8)
    axes[2].set_title("fc")
    plt.show()

# %% [markdown]
# ## Smaller and faster in fact
#
# A matrix full of zeros costs as much as one without. `compact_` lets the zeros go, with their delays: each spike then
# visits the synapses that are left and nothing else. The network computes what it computed before.

# %%
small = copy.deepcopy(sparse)
print(compact_(small))
spikes, _ = splits.test.batch(torch.arange(100))
with torch.no_grad():
    print("largest difference of the scores:", float((small(spikes) - sparse(spikes)).abs().max()))

# %% [markdown]
# This network is small, so there is little to gain. A connection between 300 neurons, step by step, shows more:

# %%
generator = torch.Generator().manual_seed(0)
inputs = (torch.rand(100, 32, 300, generator=generator) < 0.05).float()


def matrix(sparsity):
    net = torch.nn.Sequential(torch.nn.Linear(300, 300, bias=False))
    delay = dk.FreeDelay("synaptic", max_delay=25)
    dk.wrap_(net, {"0": dk.At(delay, DynamicSparsity(sparsity), reset="manual")})
    dk.advance_(net, 1.0)
    return net


def milliseconds(net):
    """Run 100 steps of 32 sequences; the best of five."""
    best = float("inf")
    for _ in range(5):
        dk.reset(net)
        start = time.process_time()
        with torch.no_grad():
            for step in inputs:
                net(step)
        best = min(best, 1e3 * (time.process_time() - start))
    return best


nets = {
    "all synapses": matrix(0.0),
    "90 % zeros": matrix(0.9),
    "90 % compact": matrix(0.9),
    "99 % compact": matrix(0.99),
}
for name, net in nets.items():
    if "compact" in name:
        compact_(net)
times = {name: milliseconds(net) for name, net in nets.items()}

with plotting.style():
    figure, ax = plt.subplots(figsize=(6.4, 2.4))
    ax.barh(list(times), list(times.values()), color=plotting.CATEGORIES[0])
    ax.invert_yaxis()
    ax.set(xlabel="CPU time of 100 steps (ms)", title="300 -> 300 neurons, a delay for each synapse")
    ax.grid(axis="y", visible=False)
    plt.show()

# %% [markdown]
# ## Where to go from here
#
# - `regrow="gradient"` (RigL) and `regrow="random"` (SET) are other ways to choose what grows; `scope="global"` ranks
#   all matrices together; `schedule="constant"` is the published one.
# - `Sparsifier` prunes models that are not wrapped, and any parameter by its name.
# - A compact network is for inference: keep the checkpoint it came from.
