"""How the papers train: optimizer, rates and schedules of weights and of delays."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit import checks
from delaykit.functional.inputs import check_tensors

WARM_UP, LOWEST = 0.3, 1e-4  # one-cycle: share of the epochs that rise, and last rate over highest


@checks.annotated
@dataclasses.dataclass(frozen=True)
class Recipe:
    """One paper's optimizer for a wrapped net: weights and delays in groups of their own.

    Args:
        optimizer: ``Adam`` or ``AdamW``.
        lr: rate of the weights at the start.
        peak_lr: highest rate of the weights in a one-cycle schedule; None: a cosine from ``lr`` to 0.
        delay_lr: highest rate of the delays.
        delay_schedule: ``one-cycle`` or ``cosine``.
        weight_decay: of the weights; delays get none.
        epochs: epochs in the paper.
        batch_size: samples a step in the paper.

    Reference: Queant et al. 2025, arXiv 2509.24852 (ssc, psmnist, shd); Hammouamri et al. 2024, arXiv 2306.17670
    (dcls).
    """

    optimizer: str
    lr: float
    peak_lr: float | None
    delay_lr: float
    delay_schedule: str
    weight_decay: float
    epochs: int
    batch_size: int

    def __post_init__(self) -> None:
        optimizers = [name for name, one in vars(torch.optim).items() if isinstance(one, type)]
        checks.choice("Recipe.optimizer", self.optimizer, [name for name in optimizers if name != "Optimizer"])
        checks.choice("Recipe.delay_schedule", self.delay_schedule, ("one-cycle", "cosine"))
        for name in ("lr", "delay_lr", "peak_lr"):
            if getattr(self, name) is not None:
                checks.number(f"Recipe.{name}", getattr(self, name), above=0)
        checks.number("Recipe.weight_decay", self.weight_decay, least=0)
        for name in ("epochs", "batch_size"):
            checks.whole(f"Recipe.{name}", getattr(self, name), least=1)

    @checks.annotated
    def groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Split a wrapped net's parameters: weights, and what delaykit added, without decay."""
        lr = self.lr if self.peak_lr is None else self.peak_lr
        return dk.param_groups(net, lr=lr, delay_lr=self.delay_lr, weight_decay=self.weight_decay)

    @checks.annotated
    def make_optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer; ``dk.attach`` keeps the delays within their bounds."""
        optimizer: torch.optim.Optimizer = getattr(torch.optim, self.optimizer)(self.groups(net))
        if optimizer.param_groups[1]["params"]:
            dk.attach(optimizer, net)
        return optimizer

    @checks.annotated
    def make_scheduler(self, optimizer: torch.optim.Optimizer, epochs: int) -> torch.optim.lr_scheduler.LambdaLR:
        """Make the schedule of both groups; step it once an epoch.

        Args:
            optimizer: from :meth:`make_optimizer`.
            epochs: length of the training.

        Example:
            >>> import delaykit as dk
            >>> net = dk.wrap_(nn.Sequential(nn.Linear(2, 1)), {"0": dk.At(dk.FreeDelay(init=2.0), reset="manual")})
            >>> optimizer = RECIPES["shd"].make_optimizer(net)
            >>> scheduler = RECIPES["shd"].make_scheduler(optimizer, epochs=2)
            >>> [round(group["lr"], 5) for group in optimizer.param_groups]
            [0.005, 0.05]
        """
        checks.whole("Recipe.make_scheduler epochs", epochs, least=1)
        start = 1.0 if self.peak_lr is None else self.lr / self.peak_lr

        def weights(epoch: int) -> float:
            return _cosine(epoch / epochs) if self.peak_lr is None else _one_cycle(epoch / epochs, start)

        def delays(epoch: int) -> float:
            return _cosine(epoch / epochs) if self.delay_schedule == "cosine" else _one_cycle(epoch / epochs, 1 / 25)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, [weights, delays])


# peak rates of one-cycle recipes: the table of the paper gives the peak, the start is a 25th of it (PyTorch's own)
RECIPES = {
    "ssc": Recipe("Adam", 1e-3 / 25, 1e-3, 5e-2, "one-cycle", 1e-5, 100, 128),
    "psmnist": Recipe("AdamW", 1e-3 / 25, 1e-3, 5e-2, "one-cycle", 1e-2, 200, 256),
    "shd": Recipe("AdamW", 5e-3, None, 5e-2, "cosine", 1e-5, 150, 256),
    "dcls": Recipe("Adam", 1e-3, 5e-3, 1e-1, "cosine", 1e-5, 150, 256),
}


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _one_cycle(progress: float, start: float) -> float:
    if progress < WARM_UP:
        return start + (1.0 - start) * (1.0 - _cosine(progress / WARM_UP))
    return LOWEST + (1.0 - LOWEST) * _cosine((progress - WARM_UP) / (1.0 - WARM_UP))


def spike_penalty(spikes: Tensor, strength: float) -> Tensor:
    """Return what a layer's activity costs, ``strength mean(S^2) / 2``.

    Args:
        spikes: any shape.
        strength: lambda, >= 0; the paper scans 1e-4 to 10.

    Example:
        >>> float(spike_penalty(torch.tensor([1.0, 0.0]), 4.0))
        1.0
    """
    check_tensors("spike_penalty", spikes=spikes)
    checks.number("spike_penalty strength", strength, least=0)
    return strength * spikes.pow(2).mean() / 2
