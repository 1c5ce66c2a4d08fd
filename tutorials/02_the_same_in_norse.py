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
# # The same in Norse
#
# Norse neurons are functions of an explicit state. So the memory of a delay *rides in that state*: `None` begins a new
# sequence, and two streams through one cell never mix. This tutorial wraps a Norse network, trains it on recorded
# speech (nine speakers, two Japanese vowels; the files ship inside the `sktime` wheel), and shows where the history is.

# %%
import matplotlib.pyplot as plt
import norse.torch as norse
import torch

import delaykit as dk
from delaykit import plotting
from delaykit_lab.comparison.counts import count_accuracy
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels

torch.manual_seed(0)
torch.set_num_threads(1)  # the layers are small: a second thread would only wait
task = JapaneseVowels(start="mean", threshold=0.1)
splits = task.splits(seed=0)
spikes, labels = splits.train.batch(torch.arange(64))

# %% [markdown]
# ## An ordinary model
#
# A recurrent LIF cell holds two weight matrices, `input_weights` and `recurrent_weights`. delaykit lists them as the
# connections `cell.input` and `cell.recurrent`.


# %%
class Net(torch.nn.Module):
    def __init__(self, hidden=40):
        super().__init__()
        p = norse.LIFParameters(
            tau_mem_inv=torch.tensor(100.0), tau_syn_inv=torch.tensor(300.0), v_th=torch.tensor(0.3)
        )
        self.cell = norse.LIFRecurrentCell(24, hidden, p=p)
        self.readout = torch.nn.Linear(hidden, 9)
        self.li = norse.LICell()

    def forward(self, x):
        state, li_state, score = None, None, 0.0
        for step in x:
            z, state = self.cell(step, state)
            v, li_state = self.li(self.readout(z), li_state)
            score = score + v.softmax(-1)
        return score


net = Net()
rules = {
    "cell.input": dk.FreeDelay("axonal", max_delay=20, init="half-normal", scale=4.0),
    "cell.recurrent": dk.FreeDelay("axonal", max_delay=20, init="half-normal", scale=4.0),
}
print(dk.plan(net, rules, example=spikes))

# %% [markdown]
# Both sites say `reset: carried`: the history travels with the state. At zero delay the wrapped network computes what
# the bare one computed, to the last bit.

# %%
zero = dk.wrap(net, {"cell.*": dk.FreeDelay("axonal", init=0.0)}, example=spikes)
print("bit-identical at zero delay:", torch.equal(zero(spikes), net(spikes)))

dk.wrap_(net, rules, example=spikes)
_, state = net.cell(spikes[0], None)
print("a", type(state).__mro__[1].__name__, "of", len(state), "fields, with a history beside them")

# %% [markdown]
# A state keeps its history through `_replace` and `tree_map`. One that was rebuilt without it is refused, instead of
# silently forgetting what is still on its way.

# %%
rebuilt = norse.LIFState(*(value + 0.1 for value in state))
try:
    net.cell(spikes[1], rebuilt)
except dk.HistoryError as error:
    print(error)

# %% [markdown]
# ## What the delays do to the current
#
# The same spikes into one wrapped connection, once without and once with delays.

# %%
first = net.cell.dk["input"]
with torch.no_grad():
    response = first.impulse_response(net.cell.input_weights)  # (post, pre, depth)
with plotting.style():
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
    plotting.raster(spikes[:, 0], axes[0], dt_ms=task.step_ms())
    axes[0].set_title("input spikes")
    plotting.kernel(response[0], axes[1], dt_ms=task.step_ms())
    axes[1].set_title("impulse responses into neuron 0")
    plt.show()

# %% [markdown]
# ## Train
#
# Three rows with the same data, epochs, optimizer and two rates of the weights, of which validation samples choose one
# for each row: without delays (one neuron more, so that it has as many numbers), with random ones that are never
# trained, and learned. In this encoding the *number* of spikes already tells the speakers apart, which a linear
# classifier shows; so this comparison cannot show what delays are worth. Tutorial 01 has a task that can.


# %%
def accuracy(model, frames):
    x, y = frames.batch(torch.arange(len(frames)))
    with torch.no_grad():
        return float((model(x).argmax(-1) == y).float().mean())


def train(row, lr, epochs=10):
    torch.manual_seed(0)
    model, generator = Net(hidden=41 if row == "no delays" else 40), torch.Generator().manual_seed(1)
    if row == "no delays":
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    else:
        delay = dk.FreeDelay("axonal", max_delay=20, init="half-normal", scale=4.0, learn=row == "learned delays")
        dk.wrap_(model, {"cell.*": delay}, example=spikes, generator=torch.Generator().manual_seed(2))
        optimizer = torch.optim.Adam(dk.param_groups(model, lr=lr, delay_lr=0.1))
        dk.attach(optimizer, model)
    before, curve = dict(dk.status(model).delays) if row != "no delays" else {}, []
    for _ in range(epochs):
        for index in torch.randperm(len(splits.train), generator=generator).split(36):
            x, y = splits.train.batch(index)
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curve.append(accuracy(model, splits.validation))
    return model, curve, before


runs = {}
for row in ("no delays", "frozen random delays", "learned delays"):
    trained = {lr: train(row, lr) for lr in (4e-3, 1e-2)}
    best = max(trained, key=lambda lr: trained[lr][1][-1])
    runs[row] = trained[best]
    print(f"{row}: learning rate {best:g} chosen")
net, _, before = runs["learned delays"]

with plotting.style():
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3))
    plotting.learning_curves({row: run[1] for row, run in runs.items()}, axes[0], chance=1 / 9)
    axes[0].set_title("learning (validation samples)")
    after = dk.status(net).delays["cell.input"]
    axes[1].scatter(before["cell.input"], after, s=24, color=plotting.CATEGORIES[0])
    axes[1].plot([0, 20], [0, 20], color=plotting.GREY, linestyle=":")
    axes[1].set(title="input delays", xlabel="before (steps)", ylabel="after (steps)")
    plt.show()
for row, (model, _, _) in runs.items():
    print(f"{row:21} test accuracy {accuracy(model, splits.test):.3f}")
print(f"spike counts alone    test accuracy {count_accuracy(splits):.3f} (chance 0.111; one seed)")

# %% [markdown]
# All rows took the higher of the two rates, so a still higher one may lift each of them further; and one seed ranks
# nothing.
#
# ## `SequentialState`
#
# A `Linear` inside `SequentialState` has no state of its own. When it gets a delay, delaykit sets its flag, so that its
# history rides in the list of states like every other; the outer loop stays as it was.

# %%
chain = norse.SequentialState(torch.nn.Linear(24, 40), norse.LIFRecurrentCell(40, 40), norse.LICell())
dk.wrap_(
    chain,
    {"0": dk.FreeDelay("axonal", max_delay=9), "1.recurrent": dk.FreeDelay("synaptic", max_delay=9)},
    example=spikes[0],
)
state = None
for step in spikes:
    output, state = chain(step, state)
print(dk.status(chain))

# %% [markdown]
# ## Undo

# %%
dk.unwrap_(net)
print(type(net.cell).__name__, any("dk" in key.split(".") for key in net.state_dict()))
