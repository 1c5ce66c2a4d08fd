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
# # Delays in convolutions, on an event camera's recordings
#
# An event camera tells of each pixel when it became brighter or darker, and nothing else. N-MNIST (Orchard et al. 2015)
# are MNIST's digits before such a camera that makes three quick turns, *saccades*, in 300 ms. In this tutorial a
# convolutional network of snnTorch's neurons reads such files through [tonic](https://tonic.readthedocs.io); its
# convolutions get a delay for each pair of channels, and we look whether they are worth having.
#
# **The data here are not N-MNIST.** So that the tutorial runs without a download, it makes a few hundred event files in
# N-MNIST's layout, from scikit-learn's 8 x 8 digits and a simulated camera. With the genuine files on your disk, set
# `FOLDER` to the folder that holds `NMNIST/Train` and `NMNIST/Test`; everything below stays the same.

# %%
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import snntorch as snn
import torch
from snntorch import surrogate

import delaykit as dk
from delaykit import plotting
from delaykit_lab import NMNIST
from delaykit_lab.comparison.counts import count_accuracy
from delaykit_lab.tasks.mnist import MNIST

torch.manual_seed(0)
torch.set_num_threads(1)  # the layers are small: a second thread would only wait
FOLDER = None  # or the folder of the genuine recordings

# %% [markdown]
# ## Event files
#
# Each file is a list of events of five bytes: column, row, and a bit of polarity before 23 bits of time in
# microseconds. Files lie in `Train/<digit>` and `Test/<digit>`.
#
# The simulated camera looks at 34 x 34 pixels. It turns along the three sides of a triangle, 100 ms each; a pixel fires
# whenever its brightness has changed by a quarter since it last fired.


# %%
def recordings(images, generator, size=34, frames=50):
    """Return for each image (time in us, column, row, polarity) of its events, sorted by time."""
    corners = 1.5 * np.array([[-1, -1], [1, -1], [0, 1], [-1, -1]])
    path = np.concatenate([np.linspace(a, b, frames // 3 + 1)[1:] for a, b in zip(corners, corners[1:], strict=False)])
    base = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    seen, found = None, [[] for _ in images]
    for k, (dx, dy) in enumerate(path):
        grid = torch.stack([xs + dx * 2 / size, ys + dy * 2 / size], -1).expand(len(images), -1, -1, -1) * 1.2
        now = torch.nn.functional.grid_sample(base, grid, align_corners=False)[:, 0].numpy()
        if seen is None:
            seen = now.copy()
        change = now - seen
        fires = np.abs(change) > 0.25
        seen[fires] = now[fires]
        for n, y, x in zip(*np.nonzero(fires), strict=True):
            when = int((k + generator.random()) * 300_000 / len(path))
            found[n].append((when, x, y, change[n, y, x] > 0))
    return [sorted(events) for events in found]


def write(folder, images, labels, generator):
    for k, (events, label) in enumerate(zip(recordings(images, generator), labels, strict=True)):
        when, x, y, up = (np.array(column, dtype=np.int64) for column in zip(*events, strict=True))
        rows = [x, y, up << 7 | when >> 16, when >> 8 & 255, when & 255]
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        np.stack(rows, 1).astype(np.uint8).tofile(folder / str(label) / f"{k:05d}.bin")


if FOLDER is None:
    FOLDER = tempfile.mkdtemp()
    digits, generator = MNIST().images(seed=0), np.random.default_rng(0)
    for split, part, count in (("Train", digits.train, 300), ("Test", digits.test, 200)):
        write(Path(FOLDER) / "NMNIST" / split, part.values[:count].tolist(), part.labels[:count].tolist(), generator)

# %% [markdown]
# ## tonic reads, delaykit bins
#
# `NMNIST` is a task of `delaykit-lab`: tonic's data set, binned into counts. Here 2 x 2 pixels are one, and a step is
# 20 ms. `subset=True` admits that this is not the published set of 60 000 files, and the title says so. A fifth of the
# training files is held out for validation.

# %%
task = NMNIST(FOLDER, shrink=2, dt_ms=20.0, subset=True, validation=0.2, limit=300)
splits = task.splits(seed=0)
spikes, labels = splits.train.batch(torch.arange(64))
print(task.title(), "|", {name: len(getattr(splits, name)) for name in ("train", "validation", "test")})
print("one batch: (time, batch, channel) =", tuple(spikes.shape), "| an image is", task.image)

with plotting.style():
    fig, axes = plt.subplots(1, 4, figsize=(9, 2.5))
    sample = spikes[:, 0].view(-1, *task.image)
    for ax, first in zip(axes, (0, 4, 8, 11), strict=True):
        up, down = sample[first : first + 4].sum(0).flip(0)
        ax.imshow(up - down, cmap=plotting.COLOUR_MAPS["signed"], vmin=-4, vmax=4)
        ax.set(title=f"{first * 20} - {first * 20 + 80} ms", xticks=[], yticks=[])
        ax.grid(False)
    fig.suptitle(f"a {int(labels[0])}: brighter (red), darker (blue)")
    plt.show()

# %% [markdown]
# ## An ordinary convolutional network
#
# Two convolutions, each followed by leaky neurons and pooling, and a loop over the steps.


# %%
class Net(torch.nn.Module):
    def __init__(self, second=12):
        super().__init__()
        grad = surrogate.atan(alpha=5.0)
        self.conv1, self.lif1 = torch.nn.Conv2d(2, 6, 3, stride=2, padding=1), snn.Leaky(beta=0.5, spike_grad=grad)
        self.conv2, self.lif2 = torch.nn.Conv2d(6, second, 3, padding=1), snn.Leaky(beta=0.5, spike_grad=grad)
        self.pool = torch.nn.AvgPool2d(3)
        self.out = torch.nn.Linear(second * 9, 10)
        with torch.no_grad():  # torch's default leaves the layers almost silent
            self.conv1.weight *= 3.0
            self.conv2.weight *= 3.0

    def forward(self, x):
        mem1, mem2, score = self.lif1.reset_mem(), self.lif2.reset_mem(), 0.0
        for step in x:
            spk1, mem1 = self.lif1(self.conv1(step.view(-1, 2, 17, 17)), mem1)
            spk2, mem2 = self.lif2(self.conv2(spk1), mem2)
            score = score + self.out(self.pool(spk2).flatten(1))
        return score


# %% [markdown]
# ## Wrap it
#
# In a convolution *synaptic* means a delay for each pair of channels (*axonal*: for each channel that comes in,
# *dendritic*: for each that goes out). All pixels of a channel share it, as they share the weights.


# %%
def rules(learn=True):
    delay = dk.FreeDelay("synaptic", max_delay=5, init="uniform", learn=learn)
    return {"conv1": delay, "conv2": delay}


print(dk.plan(Net(), rules(), example=spikes[:, :2]))

# %% [markdown]
# ## Three rows, trained alike
#
# Without delays (one channel more in the second layer, so that it has no fewer numbers), with random delays that are
# never trained, and with learned ones. Same optimizer, epochs and two rates of the weights, of which validation samples
# choose one for each row; test samples are looked at once, at the end. `dk.fused` runs the loop layer by layer, after
# it has proven on an example that outputs and gradients are the same (tutorial 13).


# %%
def accuracy(model, frames):
    x, y = frames.batch(torch.arange(len(frames)))
    with torch.no_grad():
        return float((model(x).argmax(-1) == y).float().mean())


def train(row, rate, epochs=6):
    torch.manual_seed(0)
    if row == "no delays":
        model = Net(second=13)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    else:
        learn = row == "learned delays"
        model = dk.wrap_(Net(), rules(learn), example=spikes[:, :2], generator=torch.Generator().manual_seed(1))
        optimizer = torch.optim.Adam(dk.param_groups(model, lr=rate, delay_lr=0.1))
        dk.attach(optimizer, model)
    start = {} if row == "no delays" else dict(dk.status(model).delays)
    run = dk.fused(model, example=spikes[:8, :2])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order, curve = torch.Generator().manual_seed(1), []
    for _ in range(epochs):
        for index in torch.randperm(len(splits.train), generator=order).split(40):
            x, y = splits.train.batch(index)
            loss = torch.nn.functional.cross_entropy(run(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        curve.append(accuracy(run, splits.validation))
    return model, curve, start


runs = {}
for row in ("no delays", "frozen random delays", "learned delays"):
    trained = {rate: train(row, rate) for rate in (3e-3, 1e-2)}
    best = max(trained, key=lambda rate: trained[rate][1][-1])
    runs[row] = trained[best]
    print(f"{row}: learning rate {best:g} chosen")

# %%
for row, (model, _, _) in runs.items():
    numbers = sum(p.numel() for p in model.parameters())
    print(f"{row:21} test accuracy {accuracy(model, splits.test):.3f}, {numbers} numbers")
tested = len(splits.test)
error = math.sqrt(0.7 * 0.3 / tested)
print(f"event counts alone    test accuracy {count_accuracy(splits):.3f}")
print(f"chance 0.100; one seed, {tested} test files: an accuracy of 0.7 has a standard error of {error:.3f}")

net, _, before = runs["learned delays"]
with plotting.style():
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    plotting.learning_curves({row: run[1] for row, run in runs.items()}, axes[0], chance=0.1)
    axes[0].set_title("learning (validation files)")
    after = dk.status(net).delays["conv2"]
    plotting.delay_pairs(before["conv2"], after, axes[1])
    axes[1].set_title("conv2: a delay for each pair of channels")
    plt.show()

# %% [markdown]
# A linear classifier on the *number* of events of each pixel does at least as well as any row: where something moved
# is what tells these digits apart, and not when. The rows differ by one or two standard errors, and none has learned
# all it could: after two epochs the row without delays lags far behind, most of which is gone four epochs later, and
# all rows took the higher of the two rates, so that a still higher one may do better. So this is no task on which
# delays can show much. The frozen row and the counts tell that in a minute, before one trains for a week; they would
# tell it of N-MNIST's own files, too. Tutorial 01 has a task in which time is everything.
#
# ## Undo

# %%
dk.unwrap_(net)
print(type(net.conv2).__name__, any(".dk." in key for key in net.state_dict()))
