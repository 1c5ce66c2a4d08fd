"""How far it is from one neuron to another: metrics by name, and a root whose gradient is finite everywhere.

A metric is a function ``(r_post, r_pre) -> squared distance`` of positions ``(post, dims)`` and ``(pre, dims)``,
result ``(post, pre)``, differentiable. It is squared because the floor is added under the root,
``d = sqrt(floor + |r_j - r_i|^2)``. One that has a registered name can be saved with a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from delaykit import ConfigError, ShapeError, checks

Metric = Callable[[Tensor, Tensor], Tensor]


def euclidean(post: Tensor, pre: Tensor) -> Tensor:
    """Return ``sum_k (r_jk - r_ik)^2``.

    Example:
        >>> euclidean(torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0], [0.0, 0.0]])).tolist()
        [[25.0, 9.0]]
    """
    return (post.unsqueeze(1) - pre.unsqueeze(0)).square().sum(-1)


@dataclasses.dataclass(frozen=True)
class Torus:
    """Measure on a torus: what leaves at one side comes in at the other, so no neuron sits at the edge.

    Args:
        period: circumference in every direction, in the unit of the positions, > 0.

    Example:
        >>> Torus(10.0)(torch.tensor([[1.0]]), torch.tensor([[9.0], [3.0]])).tolist()
        [[4.0, 4.0]]
    """

    period: float

    def __post_init__(self) -> None:
        checks.number("Torus.period", self.period, above=0)

    def __call__(self, post: Tensor, pre: Tensor) -> Tensor:
        """Return the squared length of the shortest way, ``(post, pre)``."""
        way = post.unsqueeze(1) - pre.unsqueeze(0)
        turns = (way.detach() / self.period).round()
        return (way - self.period * turns).square().sum(-1)


METRICS: dict[str, Metric] = {"euclidean": euclidean}


@checks.annotated
def register_metric(name: str, metric: Metric) -> Metric:
    """Give a metric a name, under which models that use it are saved and loaded.

    Args:
        name: a new name, or one that stands for an equal metric already.
        metric: see the module's description.

    Raises:
        ConfigError: the name stands for another metric.

    Example:
        >>> register_metric("torus-of-10", Torus(10.0)).period
        10.0
    """
    if not isinstance(name, str) or not name:
        raise ConfigError("register_metric", repr(name), "a name", "pass a string")
    if METRICS.setdefault(name, metric) != metric:
        fix = "choose another name"
        raise ConfigError("register_metric", f"{name!r}, which is {METRICS[name]!r} already", "a new name", fix)
    return metric


def metric_named(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METRICS:
        fix = f"call delaykit_spatial.register_metric({name!r}, your_metric) before"
        raise ConfigError("metric", repr(name), f"one of {', '.join(sorted(METRICS))}", fix)
    return METRICS[name]


def name_of(metric: Metric | str) -> str | None:
    """Return the registered name of a metric, or None."""
    if isinstance(metric, str):
        return metric
    return next((name for name, known in METRICS.items() if known == metric), None)


def check_squared(metric: Metric, squared: Tensor, shape: tuple[int, int], where: str) -> None:
    """Raise for what is no squared distance: the root would make 0 of it, or spread one number over all synapses.

    Args:
        metric: whose result it is.
        squared: the result.
        shape: (post, pre).
        where: for messages.

    Raises:
        ShapeError: another shape.
        ConfigError: NaN or negative numbers.
    """
    where, fix = f"{where}, metric {getattr(metric, '__name__', metric)}", "see delaykit_spatial.geometry"
    if squared.shape != shape:
        found = f"a result of shape {tuple(squared.shape)}"
        raise ShapeError(where, found, f"squared distances (post, pre) = {shape}", fix)
    if not bool((squared >= 0).all()):
        found = "NaN" if bool(squared.isnan().any()) else "negative numbers"
        raise ConfigError(where, found, "squared distances >= 0", fix)


def safe_sqrt(squared: Tensor) -> Tensor:
    """Return the root; where it is 0 its gradient is 0 instead of infinite (two neurons at one place).

    Example:
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> safe_sqrt(x).sum().backward()
        >>> x.grad.tolist()
        [0.0, 0.25]
    """
    positive = squared > 0
    root = torch.where(positive, squared, torch.ones_like(squared)).sqrt()
    return torch.where(positive, root, torch.zeros_like(squared))


def clip_value(values: Tensor, least: float, most: float | None = None) -> Tensor:
    """Clip the values, not their gradient: at a bound a parameter can still be pulled back.

    Example:
        >>> x = torch.tensor([-1.0, 2.0, 9.0], requires_grad=True)
        >>> clip_value(x, 0.0, 5.0).sum().backward()
        >>> clip_value(x, 0.0, 5.0).tolist(), x.grad.tolist()
        ([0.0, 2.0, 5.0], [1.0, 1.0, 1.0])
    """
    now = values.detach()
    return now.clamp(least, most) + (values - now)
