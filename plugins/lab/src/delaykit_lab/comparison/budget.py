"""Widths at which rows cost the same: the widest network of each row that does not exceed the budget."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import delaykit as dk
from delaykit_lab.comparison.config import Comparison
from delaykit_lab.comparison.rows import Row
from delaykit_lab.task import Splits, Task
from delaykit_lab.training.costs import costs, count_parameters
from delaykit_lab.training.trainer import build, make_optimizer

Sizes = dict[str, tuple[int, ...]]  # of each row's layers
WIDEST = 64  # times the model's own width
FREE = ("none",)  # rows that keep their own size


def search_widths(comparison: Comparison, task: Task, splits: Splits) -> tuple[Sizes, float | None]:
    """Return the layer sizes of each row, and the budget.

    Args:
        comparison: what to compare.
        task: its task.
        splits: its data; synaptic operations and times are measured on validation samples, before training.

    Raises:
        ConfigError: a budget that a row exceeds at its smallest, or cannot reach.
    """
    base, rows = comparison.base_sizes(), comparison.rows()
    if comparison.equal == "nothing" or not base:
        return {row.name: base for row in rows}, None

    def cost(row: Row, width: int) -> float:
        return _cost(comparison, row, _sizes(base, width), task, splits)

    limited = [row for row in rows if row.name not in FREE]
    budget = comparison.budget
    if budget is None:
        budget = max(cost(row, base[0]) for row in limited) if limited else 0.0
    found = {row.name: base for row in rows if row.name in FREE}
    for row in limited:
        where = f"{row.name}, equal {comparison.equal}"
        found[row.name] = _sizes(base, widest(functools.partial(cost, row), budget, base[0], where))
    return {row.name: found[row.name] for row in rows}, budget


def widest(cost: Callable[[int], float], budget: float, start: int, where: str) -> int:
    """Find the largest width whose cost is within the budget, by doubling and halving from ``start``.

    Raises:
        ConfigError: not even one neuron is within it, or any width is.

    Example:
        >>> widest(lambda width: 10.0 * width, 95.0, 4, "example")
        9
    """
    low, high = 0, start
    while cost(high) <= budget:
        low, high = high, 2 * high
        if high > WIDEST * start:
            fix = "give a smaller --budget or a larger --model"
            found = f"a budget of {budget:g} that {low} neurons do not use up"
            raise dk.ConfigError(where, found, "a smaller one", fix)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    if low == 0:
        found = f"a budget of {budget:g}, where one neuron already costs {cost(1):g}"
        raise dk.ConfigError(where, found, "a budget that every method can meet", "give a larger --budget")
    return low


def _sizes(base: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Scale all layers like the first one."""
    return tuple(max(1, round(size * width / base[0])) for size in base)


def _cost(comparison: Comparison, row: Row, sizes: tuple[int, ...], task: Task, splits: Splits) -> float:
    job = comparison.job(row, sizes, comparison.rates[0], 0)
    net = build(job, task, splits)
    if comparison.equal == "parameters":
        return count_parameters(net)
    index = torch.arange(min(64, len(splits.validation)))
    spikes, labels = splits.validation.batch(index)
    if comparison.equal == "synaptic-operations":
        operations = costs(net, spikes).synaptic_operations
        if operations is None:
            expected = "a model whose operations are counted"
            raise dk.ConfigError(row.name, "convolutions", expected, "use --equal parameters")
        return operations
    optimizer = make_optimizer(net, job)
    return statistics.median(_step(net, optimizer, spikes, labels) for _ in range(5))


def _step(net: nn.Module, optimizer: torch.optim.Optimizer, spikes: torch.Tensor, labels: torch.Tensor) -> float:
    began = time.process_time()
    loss = nn.functional.cross_entropy(net(spikes), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.process_time() - began
