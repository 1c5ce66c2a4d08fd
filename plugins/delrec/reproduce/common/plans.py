"""What is trained, how, and on what: the paper's configurations (tables of arXiv 2509.24852) and reductions of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch.nn import functional

from common.networks import Shape
from delaykit_delrec import DCLS, RECIPES, DelRec, Recipe
from delaykit_lab import SHD, SSC, locate
from delaykit_lab.task import Frames, Splits
from delaykit_lab.tasks.japanese_vowels import JapaneseVowels
from delaykit_lab.tasks.mnist import MNIST
from delaykit_lab.tasks.spike_files import SpikeFiles

SPEECH = Shape((64,), (True,), tau=2.0, alpha=5.0, normalize=True, readout="leaky")


SHD_NET = Shape((256, 256), (False, True), 1.05, True, 5.0, True, 0.4, "leaky")
PUBLISHED = {"shd": SHD, "ssc": SSC}  # which refuse files that are not the published ones
TASKS = ("vowels", "speech", "shd", "ssc", "psmnist")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One task: its reduction or the paper's configuration.

    Args:
        shape: the network with learned delays.
        recipe: optimizer and schedules.
        delrec: recurrent delays.
        dcls: feed-forward delays.
        epochs: passes over the training samples.
        batch_size: samples a step.
        clip: largest norm of a gradient. The paper clips its vanilla control alone; here every row is clipped.
        tripled: train on the recordings and on two altered copies of each.
    """

    shape: Shape
    recipe: Recipe
    delrec: DelRec
    dcls: DCLS
    epochs: int
    batch_size: int
    clip: float = 1.0
    tripled: bool = False


def plan_of(task: str, full: bool) -> Plan:
    """Return the paper's configuration or its reduction; ``speech`` in full has SHD's network and recipe."""
    recipe = RECIPES[task if task in RECIPES else "shd"]
    return full_plan(task, recipe) if full and task != "vowels" else reduced_plan(task, recipe)


def full_plan(task: str, recipe: Recipe) -> Plan:
    """Return the paper's configuration.

    SSC: three layers of 256, half-normal delays of scale 12, learned spread, dropout .1 and .3. PS-MNIST: 64, 212, 212,
    the same with recurrent dropout .2. SHD: 256 plain neurons, then 256 with delays from U(10, 30), tau 1.05, hard
    reset, arctan of alpha 5, BatchNorm, dropout .4 and .2, no learned spread.
    """
    sizes = recipe.epochs, recipe.batch_size
    if task in ("shd", "speech"):
        delrec = DelRec(max_delay=40, init="uniform", low=10.0, high=30.0, dropout=0.2)
        return Plan(SHD_NET, recipe, delrec, DCLS(25), *sizes, tripled=True)
    half_normal = DelRec(max_delay=60, init="half-normal", scale=12.0, learn_spread=True)
    if task == "ssc":
        delrec = dataclasses.replace(half_normal, dropout=0.3)
        return Plan(Shape((256,) * 3, (True,) * 3, dropout=0.1), recipe, delrec, DCLS(31), *sizes)
    delrec = dataclasses.replace(half_normal, dropout=0.2)
    shape = Shape((64, 212, 212), (True,) * 3, dropout=0.1, scale=1 / 255)
    return Plan(shape, recipe, delrec, DCLS(31), *sizes)


def reduced_plan(task: str, recipe: Recipe) -> Plan:
    """Return a network of one small layer and few epochs."""
    small = DelRec(max_delay=25, init="half-normal", scale=8.0, sigma=5.0)
    shape = dataclasses.replace(SPEECH, widths=(32,) if task == "vowels" else (64,))
    if task == "psmnist":
        shape = Shape((64,), (True,), scale=1 / 255)
        recipe = dataclasses.replace(recipe, peak_lr=5e-3)  # for epochs as few as these
    sizes = {"vowels": (40, 32), "psmnist": (8, 64)}
    return Plan(shape, recipe, small, DCLS(15, sigma=5.0), *sizes.get(task, (12, 64)))


def data_of(task: str, folder: str | Path | None, full: bool, seed: int) -> Splits:
    """Read one task."""
    if task == "vowels":
        return JapaneseVowels().splits(seed)
    if task == "psmnist":
        images = MNIST(path=folder, validation=0.17, limit=None if full else 6000).images(seed)

        def scan(part) -> Frames:
            pixels = part.values.unflatten(1, (28, 28))
            if not full:  # a quarter of the steps: every other pixel is the mean of four
                pixels = functional.avg_pool2d(pixels.unsqueeze(1), 2).squeeze(1)
            pixels = (pixels.flatten(1) * 255).round().to(torch.uint8)
            order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(0))
            return Frames(pixels[:, order].T.unsqueeze(-1).contiguous(), part.labels)

        return Splits(scan(images.train), scan(images.validation), scan(images.test))
    options = {"shd": (10.0, 1000.0), "ssc": (5.6, 1400.0), "speech": (10.0, 1000.0)}[task]
    dt_ms, duration = options if full else (20.0, 1000.0)
    named = {"dt_ms": dt_ms, "duration_ms": duration, "validation": 0.2, "limit": None if full else 1500}
    return (SpikeFiles if task == "speech" else PUBLISHED[task])(folder or "", **named).splits(seed)


def files_of(task: str, folder: str | Path | None) -> list[Path]:
    """Return the files that a task reads, for their checksums."""
    if task == "vowels" or folder is None:
        return []
    if task == "psmnist":
        return sorted(Path(folder).glob("*ubyte*"))
    if task in PUBLISHED:
        return sorted((Path(folder) / task.upper()).glob("*.h5"))
    return [locate(folder, part) for part in ("train", "test")]
