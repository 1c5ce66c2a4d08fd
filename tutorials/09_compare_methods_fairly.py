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
# # Compare methods fairly
#
# "With delays 94 %, without 52 %" may tell of delays, or of a learning rate that suited one of the two, of fifty per
# cent more parameters, of a lucky seed, or of a choice that was made on the test set. `delaykit compare` rules these
# out one by one. This tutorial runs it on a wave that passes a ring of sixteen sensors: where does it come from? Every
# sensor fires once, so that spike counts say nothing.

# %%
import json
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import image

from delaykit import plotting
from delaykit_lab import Comparison, compare
from delaykit_lab.comparison.findings import paired
from delaykit_lab.comparison.report import protocol, table_rows

warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, where notebooks have no widgets
torch.set_num_threads(1)

# %% [markdown]
# ## What is compared
#
# Four rows, of which two are controls. `wider` has no delays, and spends on neurons what delays cost. `frozen-dcls`
# has the same delays as `dcls`, random and never trained: having delays and *learning* them are two questions.
#
# - **Equal cost.** `none` is the network as it is. Every other row is as wide as one number of parameters allows.
# - **Equal effort.** The same learning rates are tried for each row, on all seeds; validation data choose among them.
# - **Pairs.** Seed 0 of each row sees the same waves in the same order as seed 0 of every other row.
# - **One look.** The test set is scored once a run, after all of that.

# %%
comparison = Comparison(
    "moving-wave", ("none", "wider", "frozen-dcls", "dcls"), {"samples": 512, "held": 256}, model="snn:16",
    max_delay=16, equal="parameters", rates=(0.01, 0.03, 0.1), seeds=4, epochs=10,
)  # fmt: skip
folder = Path(tempfile.mkdtemp())
results = compare(comparison, folder)  # about 40 seconds; in a terminal: delaykit compare, options by the same names

# %%
timing = json.loads((folder / "timing.json").read_text())
head = ["row", "neurons", "numbers", "test", "whole delays", "spikes", "syn. ops", "CPU s", "rate"]
for cells in [head, *table_rows(results, timing)]:
    print("  ".join(f"{cell:>13}" for cell in cells))
print(f"\nmean ± standard error over {comparison.seeds} seeds; chance {100 * results['chance']:.1f} %")

# %% [markdown]
# ## What may be said
#
# A difference counts if its interval leaves out zero. The interval is Student's, of the differences seed by seed: what
# all rows have in common, an easy draw of waves for instance, drops out of it.

# %%
for sentence in results["findings"]["sentences"]:
    print("-", sentence)

# %%
accuracy = {row["name"]: [run["test"] for run in row["runs"]] for row in results["rows"]}
found = results["findings"]["differences"]
with plotting.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained")
    for seed in range(comparison.seeds):
        left.plot([100 * values[seed] for values in accuracy.values()], "o-", color=plotting.GREY, alpha=0.6)
    left.axhline(100 * results["chance"], color=plotting.GREY, linestyle=":", label="chance")
    left.set_xticks(range(len(accuracy)), list(accuracy))
    left.set(ylabel="test accuracy (%)", title="a line is a seed", ylim=(0, 100))
    left.legend()
    for place, one in enumerate(reversed(found)):
        colour = plotting.GREY if one["verdict"] == "within" else plotting.CATEGORIES[0]
        right.plot([one["low"], one["high"]], [place, place], color=colour)
        right.plot(one["difference"], place, "o", color=colour)
    right.axvline(0, color=plotting.GREY, linestyle=":")
    right.set_yticks(range(len(found)), [f"{one['row']} - {one['against']}" for one in reversed(found)])
    right.set(xlabel="points of test accuracy, 95 % interval", title="differences, paired by seed")
    plt.show()

# %% [markdown]
# Sentences at the end warn: a row that did not fit its training data tells of training, not of what such a network
# could do, and one that took the last of the rates tried, as `wider` did here, may do better beyond it. Ten epochs are
# few; this is a tutorial.
#
# ## Four ways to be wrong with the same runs
#
# 1. **One rate for all, chosen for the new method, or none for the old one.** Each line below is a row, at each rate
#    that was tried. Between the best rate of one row and an unlucky one of another anything can be shown.

# %%
with plotting.style():
    figure, ax = plt.subplots(figsize=(5.4, 3.4))
    for row, colour in zip(results["rows"], plotting.CATEGORIES, strict=False):
        rates = [float(rate) for rate in row["tried"]]
        ax.plot(rates, [100 * value for value in row["tried"].values()], "o-", label=row["name"], color=colour)
        ax.plot(row["rate"], 100 * row["tried"][str(row["rate"])], "o", markersize=11, mfc="none", color=colour)
    ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel="validation accuracy (%)", title="mean over seeds; circle: chosen")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    plt.show()

tried = {row["name"]: row["tried"] for row in results["rows"]}
best, worst = max(tried["dcls"].values()), min(tried["none"].values())
print(f"dcls at its best rate, none at its worst: {100 * (best - worst):.1f} points more (on validation)")

# %% [markdown]
# 2. **More parameters.** `none` has fewer numbers than the rows with delays. `wider` answers how much of the
#    difference that may be.
# 3. **No frozen control.** What random delays give already is not due to learning them.

# %%
samples = results["samples"]["test"]
for row, against, what in (("dcls", "none", "delays, learned, against nothing"),
                           ("dcls", "wider", "against as many parameters"),
                           ("dcls", "frozen-dcls", "against the same delays, not learned")):  # fmt: skip
    one = paired(accuracy[row], accuracy[against], samples)
    print(f"{what:38} {one['difference']:+5.1f} points ({one['low']:+.1f} to {one['high']:+.1f})")

# %% [markdown]
# 4. **One seed.** From four seeds of two rows, sixteen papers with one run each could be written.

# %%
pairs = [100 * (a - b) for a in accuracy["wider"] for b in accuracy["none"]]
print(f"wider against none, one run each: from {min(pairs):+.1f} to {max(pairs):+.1f} points")
one = paired(accuracy["wider"], accuracy["none"], samples)
said = "within the error" if one["verdict"] == "within" else "beyond the error"
print(f"paired, with interval: {one['difference']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f}): {said}")

# %% [markdown]
# ## What a chip would make of it
#
# The test set is scored once more with the delays rounded to whole steps. Delays that were trained as real numbers may
# lose much of what they gained; [tutorial 11](11_to_hardware.ipynb) trains them whole.

# %%
whole = {row["name"]: [run["test_whole"] for run in row["runs"]] for row in results["rows"]}
lost = 100 * (np.mean(accuracy["dcls"]) - np.mean(whole["dcls"]))
kept = paired(whole["dcls"], accuracy["wider"], samples)
print(f"dcls, rounded: {lost:.1f} points less; against wider then {kept['difference']:+.1f} "
      f"({kept['low']:+.1f} to {kept['high']:+.1f})")  # fmt: skip

# %% [markdown]
# ## The report
#
# The folder holds `results.json`, a file a run, and `report.html` with pictures, table and protocol. The protocol is
# what a paper has to say, and it is written from what was run.

# %%
for line in protocol(results):
    print("-", line)

# %%
figure, ax = plt.subplots(figsize=(9, 6.3))
ax.imshow(image.imread(folder / "costs.png"))
ax.axis("off")
plt.show()

# %% [markdown]
# ## Your task
#
# In a terminal, with a progress bar and runs side by side:
#
#     delaykit compare --task shd --set path=data --model rsnn:128 \
#         --methods none,wider,frozen,both,hetsyn,adaptive-neurons --rates 0.003,0.01,0.03 --seeds 5 --epochs 50
#
# If it is interrupted, the same command with `--resume` goes on and ends in the same file. What is equal can also be
# the synaptic operations of a sample or the time of a training step (`--equal`). The how-to "Compare methods on a task
# of yours" has the rest, and the page "Open questions on delays" six comparisons with answers.
