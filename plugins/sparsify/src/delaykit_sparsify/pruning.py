"""Pruning of one weight: which synapses stay, which grow, and what goes with those that are pruned."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from delaykit import (
    CheckpointError,
    ConfigError,
    Delay,
    DelayRangeError,
    Heterogeneity,
    Pruning,
    PruningReport,
    Site,
    TrainingError,
    checks,
)
from delaykit_sparsify.config import DynamicSparsity


@checks.annotated
class DynamicPruning(Pruning):
    """Write zeros into one weight of any shape, its first dimension being the postsynaptic one.

    Args:
        config: what to do.
        site: the connection.
        generator: source of the seed of random regrowth.
    """

    def __init__(self, config: DynamicSparsity, site: Site, generator: torch.Generator | None = None) -> None:
        self.config, self.site = config, site
        self.active: Tensor | None = None  # synapses kept by the last step, in the weight's shape
        self.autapses: bool | None = None  # whether a neuron may excite itself; None before the first step
        self._progress, self._draws = -1.0, 0
        self._quota: int | None = None  # this epoch's share of a global ranking
        self._seed = int(torch.randint(2**31, (1,), generator=generator)) if config.regrow == "random" else 0
        self._optimizers: list[weakref.ref[torch.optim.Optimizer]] = []
        self._delay: Delay | None = None

    def bind_(self, delay: Delay | None, heterogeneity: Heterogeneity | None) -> None:
        """Remember the delay, if a pruned synapse is to lose its own."""
        if self.config.loses == "weight":
            return
        shape = (self.site.post, self.site.pre)
        if delay is None or not any(p.shape == shape for p in delay.parameters()):
            fix = "use loses='weight', or FreeDelay('synaptic')"
            raise ConfigError(self.site.name, "loses='delay' without synaptic delays", "a delay for each synapse", fix)
        self._delay = delay

    def attached_(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember an optimizer; running averages of pruned synapses are reset if the config asks for it."""
        self._optimizers = [known for known in self._optimizers if known() not in (None, optimizer)]
        self._optimizers.append(weakref.ref(optimizer))

    @property
    def needs_optimizer(self) -> bool:
        """Whether zeros or running averages are written when the weight's own optimizer steps."""
        return self.config.regrow != "free" or self.config.moments == "reset"

    def __getstate__(self) -> dict[str, Any]:  # a copy is trained by another optimizer
        return {**self.__dict__, "_optimizers": []}

    def survey(self, pruned: Sequence[tuple[Pruning, Tensor]], progress: float) -> None:
        """Share the synapses out over all weights that one ``global`` config prunes: one ranking for all."""
        for pruning, weight in pruned:
            if pruning is self:
                self._check(weight)
        if self.config.scope == "matrix":
            return
        mine = [(p, w) for p, w in pruned if isinstance(p, DynamicPruning) and p.config == self.config]
        if mine[0][0] is not self:
            return
        scores = [_scores(p._candidates(w), w.abs())[p._fitting(w)] for p, w in mine]
        total = sum(len(s) for s in scores)
        kept = _strongest(torch.cat(scores), self.config.keeps(total, progress))
        for (pruning, _), part in zip(mine, kept.split([len(s) for s in scores]), strict=True):
            pruning._quota = int(part.sum())

    @torch.no_grad()
    def step_(self, weight: Tensor, progress: float) -> PruningReport:
        """Prune ``weight`` in place to the sparsity of ``progress``; grow synapses where the config says so.

        Raises:
            DelayRangeError: the weight has a NaN or an infinite value.
            TrainingError: a gradient or the optimizer is needed and not there, or pruned synapses have grown by
                themselves.
        """
        self._check(weight)
        eligible = self._fitting(weight)
        total = int(eligible.sum())
        quota = self.config.keeps(total, progress) if self._quota is None else self._quota
        before = (weight != 0) if self.active is None else self.active
        grown = self._grown(weight, quota, progress)
        stays = _strongest(_scores(self._candidates(weight) & ~grown, weight.abs()), quota - int(grown.sum()))
        stays &= self._candidates(weight) & ~grown
        if self.config.regrow in ("free", "none"):
            stays &= weight != 0
        active = stays | grown
        weight.masked_fill_(~stays, 0.0)  # what grows, grows from zero
        self._forget_(weight, (before & ~active) | grown, active)
        self.active, self._progress, self._quota = active, progress, None
        inputs = active.flatten(1).any(1) if active.ndim > 1 else active
        return PruningReport(
            total=total,
            kept=int(active.sum()),
            pruned=int((before & ~active).sum()),
            regrown=int((active & ~before).sum()),
            isolated=int((~inputs).sum()),
        )

    @torch.no_grad()
    def project_(self, weight: Tensor) -> None:
        """Write the zeros again after an optimizer step, unless they may regrow freely."""
        if self.config.regrow != "free" and self.active is not None:
            weight.masked_fill_(~self.active.to(weight.device), 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return the synapses there are, how far the schedule is and the state of random regrowth."""
        if self.active is None:
            return {}
        numbers = {"progress": torch.tensor(self._progress, dtype=torch.float64)}
        numbers |= {"draws": torch.tensor(self._draws), "seed": torch.tensor(self._seed)}
        numbers["autapses"] = torch.tensor(bool(self.autapses))
        return {"active": self.active.clone(), **numbers}

    def load_state_(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` returned; an empty one means that nothing was pruned yet.

        Raises:
            CheckpointError: entries are missing, unknown, of another shape or type, or out of range.
        """
        if not state:
            self.active, self.autapses, self._progress, self._draws = None, None, -1.0, 0
            return
        fit = {"active": torch.bool, "progress": torch.float64, "draws": torch.int64, "seed": torch.int64}
        fit["autapses"] = torch.bool
        kinds = {name: value.dtype for name, value in state.items()}
        numbers = [value for name, value in state.items() if name != "active"]
        shape = (self.site.post, self.site.pre)
        if kinds != fit or any(value.ndim for value in numbers) or not 0 <= float(state["progress"]) <= 1:
            fix = "use an earlier checkpoint"
            raise CheckpointError(self.site.name, "a damaged memory of pruning", "one written by dk.save", fix)
        if self.site.has_matrix and tuple(state["active"].shape) != shape:
            found = f"synapses of shape {tuple(state['active'].shape)}"
            raise CheckpointError(self.site.name, found, f"shape {shape}", "load into the model it was saved from")
        self.active, self.autapses = state["active"].clone(), bool(state["autapses"])
        self._progress, self._draws, self._seed = (
            float(state["progress"]), int(state["draws"]), int(state["seed"]),
        )  # fmt: skip

    def _check(self, weight: Tensor) -> None:
        """Refuse weights that cannot be ranked, and ones that nobody kept at zero."""
        if not bool(torch.isfinite(weight).all()):
            fix = "lower the learning rate or clip gradients"
            raise DelayRangeError(self.site.name, "NaN or infinite weights", "finite weights", fix)
        if self.config.regrow == "free" or self.active is None or self.active.shape != weight.shape:
            return
        if bool(weight.detach().masked_fill(self.active.to(weight.device), 0.0).any()):
            found = f"pruned synapses that have grown again, in spite of regrow={self.config.regrow!r}"
            fix = "call dk.attach(optimizer, net) before training; a copy of a model needs its own"
            raise TrainingError(self.site.name, found, "zeros after each optimizer step", fix)

    def _fitting(self, weight: Tensor) -> Tensor:
        """Find the synapses that may exist: no autapses where there were none at the first step."""
        if self.autapses is None:
            self.autapses = not (self.site.recurrent and no_autapses(weight))
        eligible = torch.ones_like(weight, dtype=torch.bool)
        return eligible if self.autapses else eligible.fill_diagonal_(False)

    def _candidates(self, weight: Tensor) -> Tensor:
        """Find the synapses that may stay."""
        eligible = self._fitting(weight)
        if self.config.regrow == "free" or self.active is None:
            return eligible
        self.active = self.active.to(weight.device)
        return eligible & self.active

    def _grown(self, weight: Tensor, quota: int, progress: float) -> Tensor:
        """Choose the synapses that SET or RigL grow now, in place of the weakest of those there are."""
        none = torch.zeros_like(weight, dtype=torch.bool)
        if self.config.regrow in ("free", "none") or self.active is None or progress <= self._progress:
            return none
        there = self._candidates(weight)
        count = int(self._drop(progress) * min(quota, int(there.sum())))
        survivors = _strongest(_scores(there, weight.abs()), min(quota, int(there.sum())) - count) & there
        free = self._fitting(weight) & ~survivors
        count = min(count, int(free.sum()))
        return _strongest(_scores(free, self._appeal(weight)), count) & free if count else none

    def _drop(self, progress: float) -> float:
        if self.config.regrow == "gradient":
            return self.config.drop * (1 + math.cos(math.pi * progress)) / 2  # Evci et al. 2020, f_decay
        return 0.0 if progress >= 1 else self.config.drop  # what is new at the end could not learn any more

    def _appeal(self, weight: Tensor) -> Tensor:
        """Score the synapses that could grow: at random (SET) or by the gradient of the last batch (RigL)."""
        if self.config.regrow == "random":
            self._draws += 1
            generator = torch.Generator().manual_seed(self._seed + self._draws)
            return torch.rand(weight.shape, generator=generator).to(weight.device)
        if weight.grad is None:
            fix = "call dk.advance_ before optimizer.zero_grad(), while the gradients of the last batch are there"
            raise TrainingError(self.site.name, "no gradient", "one in weight.grad, for regrow='gradient'", fix)
        return weight.grad.abs()

    def _forget_(self, weight: Tensor, gone: Tensor, active: Tensor) -> None:
        """Take from the pruned synapses what the config says that they lose."""
        lost = [weight]
        if self._delay is not None:
            delays = [p for p in self._delay.parameters() if p.shape == weight.shape]
            for delay in delays:
                delay.masked_fill_(~active, 0.0)
            lost += delays
        if self.config.moments == "keep":
            return
        optimizers = [optimizer for known in self._optimizers if (optimizer := known()) is not None]
        if not optimizers:
            fix = "call dk.attach(optimizer, net), or use moments='keep'"
            raise TrainingError(self.site.name, "moments='reset' without an optimizer", "the optimizer", fix)
        averages = [optimizer.state.get(parameter, {}) for parameter in lost for optimizer in optimizers]
        for value in (value for state in averages for value in state.values()):
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(gone, 0.0)


def no_autapses(weight: Tensor) -> bool:
    """Tell whether a recurrent matrix comes without autapses, as Norse's do: its diagonal, and not all of it, is 0."""
    square = weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    return square and not bool(weight.diagonal().any()) and bool(weight.any())


def _scores(allowed: Tensor, score: Tensor) -> Tensor:
    """Rank what is not allowed behind all that is."""
    return torch.where(allowed, score, torch.full_like(score, -1.0))


def _strongest(scores: Tensor, count: int) -> Tensor:
    """Mark the ``count`` largest scores; of equal ones those that come first."""
    order = scores.flatten().argsort(descending=True, stable=True)
    out = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    out[order[: max(0, count)]] = True
    return out.view(scores.shape)
