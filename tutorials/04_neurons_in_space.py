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
# # Neurons in space
#
# A spike takes time because its target is somewhere else. Here neurons get positions, the delay of a synapse is the
# distance between its two neurons, and training *moves the neurons* (Landsmeer, Movahedin et al. 2025, Spatial Spiking
# Neural Networks). N neurons in D dimensions take D N numbers for all their delays, where free delays take one for each
# synapse; and what comes out can be laid out on a chip.

# %%
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import snntorch as snn
import torch
from snntorch import surrogate

import delaykit as dk
from delaykit import plotting
from delaykit_spatial import (
    LIF,
    PositionHistory,
    Spatial,
    Torus,
    delay_against_distance,
    export_positions,
    late_arrivals,
    parameter_accounting,
    position_map,
    register_metric,
    spatial_param_groups,
    spatial_report,
)

torch.manual_seed(0)
torch.set_num_threads(1)  # the layers are small: a second thread would only wait
SENSORS, DIRECTIONS, TIME, SWEEP = 16, 8, 48, 6.0


# %% [markdown]
# ## The task: where does the wave come from?
#
# Sixteen sensors stand in a ring. A wave comes from one of eight directions and makes each sensor fire once: the
# nearest first, the farthest 12 ms later. Every sensor fires once whatever the direction, so spike counts tell nothing;
# a step is 1 ms.

# %%
around = torch.arange(SENSORS) * 2 * math.pi / SENSORS


def draw(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(DIRECTIONS, (samples,), generator=generator)
    source = labels * 2 * math.pi / DIRECTIONS
    start = torch.rand(samples, 1, generator=generator) * 6 + 2
    when = start + SWEEP * (1 - torch.cos(around - source[:, None]))
    when += 0.7 * torch.randn(samples, SENSORS, generator=generator)
    spikes = (torch.rand(TIME, samples, SENSORS, generator=generator) < 0.01).float()
    spikes.scatter_(0, when.round().clamp(0, TIME - 1).long().unsqueeze(0), 1.0)
    return spikes, labels


train_x, train_y = draw(1024, seed=1)
valid_x, valid_y = draw(512, seed=2)
test_x, test_y = draw(1024, seed=3)

with plotting.style():
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True)
    for ax, label in zip(axes, (2, 4), strict=True):
        plotting.raster(train_x[:, int((train_y == label).nonzero()[0])], ax, dt_ms=1.0, channel="sensor")
        ax.set(title=f"wave from {label * 360 // DIRECTIONS}°", yticks=range(0, SENSORS, 5))
    plt.show()


# %% [markdown]
# ## An ordinary model
#
# One hidden layer that forgets within about two steps. Little in it can tell one order of sensors from another.
# `dk.rollout` runs a layer of neurons over a whole sequence of currents, `(time, batch, neuron)`, at once; it gives
# what a loop over the steps gives, in less time, and does so without delays, too.


# %%
class Net(torch.nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.fc1 = torch.nn.Linear(SENSORS, hidden)
        self.lif = snn.Leaky(beta=0.6, spike_grad=surrogate.atan(alpha=3.0), reset_mechanism="zero")
        self.fc2 = torch.nn.Linear(hidden, DIRECTIONS)
        with torch.no_grad():
            self.fc1.weight.uniform_(0.1, 0.3)
            self.fc1.bias.zero_()

    def forward(self, x):
        spikes, _ = dk.rollout(self.lif, self.fc1(x))
        return self.fc2(spikes).sum(0)


# %% [markdown]
# ## Wrap it
#
# `Spatial(2, pre=..., post=...)` names two populations. The sensors start where they stand, in a ring of radius 12; the
# hidden neurons start together in the middle. Distances are in ms (`velocity=1`). `dims` is one argument: 0 leaves only
# weights, `math.inf` gives every synapse a free delay.
#
# `time_dim=0` says that `fc1` is called once, with the whole sequence, and that time is the first dimension of what it
# gets. Positions learn at one rate in all rows, 0.09 ms a step.

# %%
EPOCHS, RATES = 24, (3e-3, 1e-2)
MIDDLE = torch.randn(24, 2, generator=torch.Generator().manual_seed(7)).tolist()
RING = {"pre": "sensors", "post": "hidden", "pre_init": "circle", "scale": 12.0}


def accuracy(net, x, y):
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


def train(config, lr):
    torch.manual_seed(1)
    net, history, curve = Net(27 if config.dims == 0 else 24), PositionHistory(), []
    rule = dk.At(config, time_dim=0)
    dk.wrap_(net, {"fc1": rule}, example=train_x[:, :2], generator=torch.Generator().manual_seed(4))
    optimizer = torch.optim.Adam(spatial_param_groups(net, lr=lr, factor=0.09 / lr))
    dk.attach(optimizer, net)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    order = torch.Generator().manual_seed(2)
    for _ in range(EPOCHS):
        if config.has_positions:
            history.record(net)
        for index in torch.randperm(len(train_y), generator=order).split(64):
            loss = torch.nn.functional.cross_entropy(net(train_x[:, index]), train_y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        curve.append(accuracy(net, valid_x, valid_y))
    if config.has_positions:
        history.record(net)
    return net, history, curve


configs = {
    "weights only (0-D)": Spatial(0),
    "2-D, nobody moves": Spatial(2, init=MIDDLE, learn=False, **RING),
    "2-D, learned": Spatial(2, init=MIDDLE, **RING),
    "free delays (inf-D)": Spatial(math.inf, mean=12.0, scale=2.0),
}
runs = {}
for name, config in configs.items():
    trained = {lr: train(config, lr) for lr in RATES}
    best = max(trained, key=lambda lr: trained[lr][2][-1])
    runs[name] = trained[best]
    print(f"{name}: learning rate {best:g} chosen")
net, history, _ = runs["2-D, learned"]
print(net)

# %%
with plotting.style():
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    plotting.learning_curves({name: run[2] for name, run in runs.items()}, ax, chance=1 / DIRECTIONS)
    plt.show()
for name, (model, _, _) in runs.items():
    delays = sum(p.numel() for p in model.fc1.dk.parameters() if p.requires_grad)
    print(f"{name:22} test accuracy {accuracy(model, test_x, test_y):.3f}, {delays:3} trained delay parameters")

# %% [markdown]
# Each row had the same epochs and the same two rates of the weights; validation samples chose one. The row of weights
# alone has 27 neurons, as many numbers as 24 neurons with positions. All rows chose the higher rate, so a still higher
# one may lift the lowest row further; and one seed of a toy task ranks nothing. `make demo` compares such rows over
# several seeds.
#
# ## Where did they go?
#
# Open circles: the start. Lines: the way of each neuron. The strongest connections have the colour of their delay.

# %%
with plotting.style():
    ax = position_map(net, history=history, connections=80)
    ax.set_title("neurons move to where their wave arrives all at once")
    plt.show()

# %% [markdown]
# A neuron hears a wave from direction φ all at once if its delays make up for the order in which the sensors fire: far
# from those that fire first. The exact answer for a large ring is a place 6 ms from the middle, on the side *opposite*
# to the wave. Is that where neurons went that vote for φ?

# %%
places = net.fc1.dk.delay.post_positions.detach()
vote = net.fc2.weight.detach().argmax(0) * 360 / DIRECTIONS
angle = torch.rad2deg(torch.atan2(places[:, 1], places[:, 0])) % 360
moved = history.positions["hidden"]
print(f"mean distance from the middle: {moved[0].norm(dim=1).mean():.1f} -> {moved[-1].norm(dim=1).mean():.1f} ms")
with plotting.style():
    fig, ax = plt.subplots(figsize=(4.2, 4))
    ax.plot([0, 180], [180, 360], color=plotting.GREY, linestyle=":", label="opposite")
    ax.plot([180, 360], [0, 180], color=plotting.GREY, linestyle=":")
    ax.scatter(vote, angle, color=plotting.CATEGORIES[1], marker="s", s=24)
    ax.set(xlabel="wave it votes for (°)", ylabel="direction it moved to (°)", xticks=range(0, 361, 90))
    ax.set(yticks=range(0, 361, 90), xlim=(-15, 375), ylim=(-15, 375))
    ax.legend(loc="upper right")
    plt.show()

# %% [markdown]
# ## What it costs, and what to look out for
#
# Positions are counted once, however many connections share them. A delay may be longer than the sequence: such a spike
# never arrives, which is allowed, and counted.

# %%
print(parameter_accounting(net))
print()
print(spatial_report(net, steps=TIME))
print(late_arrivals(net.fc1.dk.delay, test_x))
print(f"test accuracy with whole delays: {accuracy(net, test_x, test_y):.3f} -> ", end="")
with dk.discretized(net):
    print(f"{accuracy(net, test_x, test_y):.3f}")

# %% [markdown]
# ## More room: three dimensions, winding paths
#
# With `tortuosity=0.5` the path of each synapse is up to 1.5 times as long as the straight line, and how much longer is
# learned, one number a synapse. (Neurons that all start in one plane would never leave it: by symmetry no slope leads
# out. So the cloud is round.)

# %%
cloud = 2 * torch.randn(24, 3, generator=torch.Generator().manual_seed(7))
solid, solid_history, curve = train(Spatial(3, init=cloud, tortuosity=0.5, **RING), RATES[-1])
print(f"validation accuracy {curve[-1]:.3f}, at one rate; not a row of the comparison above")
with plotting.style():
    fig = plt.figure(figsize=(11, 4.6))
    ax = position_map(solid, fig.add_subplot(121, projection="3d"), history=solid_history, connections=60)
    ax.view_init(elev=35)
    delay_against_distance(solid, "fc1", fig.add_subplot(122))
    plt.show()

# %% [markdown]
# ## Take it to a chip
#
# Positions go to a CSV or JSON file with their units; `velocity` is the speed of a spike.

# %%
with TemporaryDirectory() as folder:
    export_positions(net, Path(folder, "placement.csv"))
    print("\n".join(Path(folder, "placement.csv").read_text().splitlines()[:4]))

# %% [markdown]
# ## Another space
#
# A metric is a function. On a torus nobody sits at the edge. Registered under a name it is saved with the model.

# %%
register_metric("torus of 40 ms", Torus(40.0))
curled = dk.wrap_(Net(), {"fc1": dk.At(Spatial(2, metric="torus of 40 ms", scale=12.0), time_dim=0)})
print(curled.fc1)

# %% [markdown]
# ## Layers of your own, and exact gradients
#
# `LIF` and `AdEx` are layers in space with input and recurrent connections, integrated exactly. With
# `estimator="exact"` positions get the gradient of the continuous network: that of spike times, without a surrogate.

# %%
layer = LIF(SENSORS, 24, Spatial(2, **RING), name="hidden", dt_ms=1.0, factors=(200.0, 20.0), estimator="exact")
run = layer(train_x[:, :32])
fired = run.spikes.sum()
late = ((torch.arange(TIME).view(-1, 1, 1) + run.clock) * run.spikes.detach()).sum() / fired.detach()
late.backward()
slope = layer.input.delay.post_positions.grad
print(
    f"{int(fired)} spikes, at {late.item():.1f} ms on average; moving a neuron by 1 ms shifts that by up to "
    f"{slope.norm(dim=1).max():.2f} ms"
)
