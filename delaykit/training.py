"""Training: parameter groups, projection after the step, schedules, and integer delays for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from delaykit import checks
from delaykit.attaching.root import wrapping_of
from delaykit.errors import ConfigError, TrainingError
from delaykit.interfaces import PointDelay, Pruning, PruningReport
from delaykit.wrapping.controls import Wrapped, wrapped_sites
from delaykit.wrapping.discretizing import discretized as discretized
from delaykit.wrapping.discretizing import finalize_ as finalize_
from delaykit.wrapping.discretizing import grid as grid
from delaykit.wrapping.optimizer_hooks import Projection


def param_groups(
    net: nn.Module, lr: float, delay_lr: float | None = None, weight_decay: float = 0.0, **options: Any
) -> list[dict[str, Any]]:
    """Split a model's parameters for an optimizer: the model's own, and those of the synapses' parts.

    Delays are large numbers next to weights and want a larger rate; they get no weight decay, which would pull them
    to zero. A part is what a wrapped connection has, or any module with a method ``project_`` in a layer of one's own.

    Args:
        net: a wrapped model, or one whose own layers have such parts.
        lr: learning rate of the model's own parameters, > 0.
        delay_lr: rate of delays, decays, spreads and positions; default ``50 * lr`` (Queant et al. 2025 use 5e-2
            beside 1e-3).
        weight_decay: for the model's own parameters only.
        **options: passed into both groups, e.g. ``betas``.

    Returns:
        Two groups, named ``model`` and ``delaykit``; parameters with ``requires_grad=False`` are left out.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal"), reset="manual")})
        >>> [(g["name"], len(g["params"]), g["lr"]) for g in dk.param_groups(net, lr=1e-3)]
        [('model', 2, 0.001), ('delaykit', 1, 0.05)]
    """
    checks.is_model("param_groups", net)
    for name, value in (("lr", lr), ("delay_lr", lr if delay_lr is None else delay_lr)):
        checks.number(f"param_groups {name}", value, above=0, fix="pass e.g. lr=1e-3")
    checks.number("param_groups weight_decay", weight_decay, least=0, fix="pass e.g. weight_decay=1e-4")
    if "params" in options or "name" in options:
        found, expected = "an option params= or name=", "options of an optimizer's groups"
        raise ConfigError("param_groups", found, expected, "leave it out: parameters come from the model")
    extra = _extra_parameters(net)
    own = [p for p in net.parameters() if p.requires_grad and id(p) not in {id(e) for e in extra}]
    return [
        {"params": own, "lr": lr, "weight_decay": weight_decay, "name": "model", **options},
        {
            "params": extra,
            "lr": 50 * lr if delay_lr is None else delay_lr,
            "weight_decay": 0.0,
            "name": "delaykit",
            **options,
        },
    ]


def attach(optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer], net: nn.Module) -> RemovableHandle:
    """Project delays (and other bounded parameters) back into their bounds after every optimizer step.

    A clamp in the forward pass would kill the gradient at the bound, so bounds are kept here. Pruning that keeps its
    zeros writes them here, too. A layer of one's own takes part by modules with a method ``project_``. A closure that
    tries other places (LBFGS, SAM) sees them projected. Several optimizers are given together, or one after the other.
    :func:`~delaykit.unwrap_` takes all of it away.

    Args:
        optimizer: the optimizer that trains the model; or one that wraps it and names it ``optimizer``, as those of
            Hugging Face accelerate and Lightning do.
        net: a wrapped model, or one whose own layers have parts with bounds.

    Returns:
        A handle; ``handle.remove()`` stops the projection.

    Raises:
        TrainingError: a trainable parameter of a component is in no group of the optimizer.

    Warns:
        UserWarning: delays share a group, and so a learning rate, with weights.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=5, init=5), reset="manual")})
        >>> optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1))
        >>> _ = dk.attach(optimizer, net)
        >>> delay = net[0].dk.delay.delay
        >>> delay.grad = torch.tensor([-1.0, 0.2])  # one wants to be later than the largest
        >>> optimizer.step()
        >>> delay.tolist()
        [5.0, 4.0]
    """
    checks.is_model("attach, second argument", net)
    given = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    several = isinstance(given, Sequence) and not isinstance(given, str)
    optimizers = [_that_steps(one) for one in given] if several else [_that_steps(given)]
    roots = [root for m in net.modules() if (root := wrapping_of(m)) is not None]
    earlier = [one for root in roots for known in root.projections for one in known.optimizers()]
    parts, prunings = _parts(net), _prunings(net)
    _check_held([*optimizers, *earlier], net, prunings)
    _warn_of_one_rate(optimizers, net)
    for pruning, _ in prunings:
        for one in optimizers:
            pruning.attached_(one)
    projection = Projection(optimizers, parts, prunings)
    for root in roots:
        root.projections.append(projection)
    return projection


def _check_held(optimizers: Sequence[Any], net: nn.Module, prunings: Sequence[tuple[Pruning, Tensor]]) -> None:
    """Raise where a trainable delay, or a weight whose pruning needs its optimizer, is in no group of these."""
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    names = {id(p): name for name, p in net.named_parameters()}
    wanted = _named_extra(net) + [(names.get(id(w), "weight"), w) for p, w in prunings if p.needs_optimizer]
    missing = [name for name, p in wanted if p.requires_grad and id(p) not in held]
    if missing:
        raise TrainingError(
            "optimizer", f"no group that holds {', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''}",
            "every trainable delay in a group, and every weight whose pruned synapses the optimizer must know",
            "build the optimizer after dk.wrap_, with dk.param_groups(net, lr=...); of several give all at once: "
            "dk.attach([one, other], net)",
        )  # fmt: skip


def _warn_of_one_rate(optimizers: Sequence[Any], net: nn.Module) -> None:
    """Warn where delays, which are steps, are trained in one group with weights, which are far smaller numbers."""
    delays = {id(p) for m in net.modules() if isinstance(m, PointDelay) for p in m.parameters() if p.requires_grad}
    for group in [group for optimizer in optimizers for group in optimizer.param_groups if "lr" in group]:
        together = [id(p) in delays for p in group["params"] if p.requires_grad]
        if any(together) and not all(together):
            found = f"found delays and weights in one group with lr={group['lr']:g}"
            expected = "a larger rate of their own for delays, which are numbers of steps"
            fix = "pass dk.param_groups(net, lr=..., delay_lr=...)"
            warnings.warn(f"attach: {found}; expected {expected}. To go on: {fix}.", UserWarning, stacklevel=3)
            return


def advance_(net: nn.Module, progress: float) -> dict[str, PruningReport]:
    """Follow all schedules, once an epoch: spreads anneal, sparsity is applied.

    Args:
        net: a wrapped model.
        progress: fraction of the training that is done, in [0, 1], e.g. ``(epoch + 1) / epochs``.

    Returns:
        What pruning did, by site name; empty without pruning.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> wide = dk.FreeDelay("axonal", kernel="triangle", spread=4.0, spread_decay=0.95)
        >>> _ = dk.wrap_(net, {"0": dk.At(wide, reset="manual")})
        >>> for epoch in range(10):
        ...     _ = dk.advance_(net, (epoch + 1) / 10)
        >>> round(net[0].dk.delay.spread.item(), 3)
        0.024
    """
    checks.is_model("advance_, first argument", net)
    checks.number("advance_ progress", progress, least=0, most=1, fix="pass (epoch + 1) / epochs")
    reports: dict[str, PruningReport] = {}
    pruned = _prunings(net)
    for pruning, _ in pruned:
        pruning.survey(pruned, progress)
    for site in wrapped_sites(net):
        for part in (site.synapse.delay, site.synapse.heterogeneity):
            if part is not None:
                part.advance_(progress)
        for pruning in site.synapse.prunings:
            if site.weight is not None:
                with torch.no_grad():
                    reports[site.name] = pruning.step_(site.weight, progress)
    return reports


def _parts(net: nn.Module) -> list[Any]:
    """List what has bounds: delays and decays of wrapped connections, and of layers of one's own."""
    return [module for module in net.modules() if callable(getattr(module, "project_", None))]


def _sites(net: nn.Module) -> list[Wrapped]:
    """List the wrapped connections; there may be none where a layer of one's own has parts."""
    try:
        return wrapped_sites(net)
    except ConfigError:
        if _parts(net):
            return []
        raise


def _that_steps(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer inside wrappers: hooks of a wrapper are never called, or not there at all."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    if not hasattr(optimizer, "param_groups"):
        fix = "pass e.g. torch.optim.AdamW(dk.param_groups(net, lr=1e-3)), then the model"
        raise ConfigError("attach, first argument", f"a {type(optimizer).__name__}", "an optimizer, or several", fix)
    return optimizer


def _prunings(net: nn.Module) -> list[tuple[Pruning, Tensor]]:
    sites = [site for site in _sites(net) if site.weight is not None]
    return [(pruning, site.weight) for site in sites for pruning in site.synapse.prunings if site.weight is not None]


def _named_extra(net: nn.Module) -> list[tuple[str, Tensor]]:
    named = {id(p): name for name, p in net.named_parameters()}
    seen: dict[int, Tensor] = {}
    for module in (*(site.synapse for site in _sites(net)), *_parts(net)):
        seen.update({id(p): p for p in module.parameters()})
    return [(named.get(key, "delay"), p) for key, p in seen.items()]


def _extra_parameters(net: nn.Module) -> list[Tensor]:
    return [p for _, p in _named_extra(net) if p.requires_grad]
