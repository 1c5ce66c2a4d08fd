"""Training of a memory: teacher forcing, which is convex for each neuron, and a polish through free running time.

Teacher forcing feeds the true contexts. With ``s*`` the patterns, ``u`` the membranes that they cause (and reset) and
a margin m, the loss is a squared hinge,

    L = ( sum_{s* = 1} relu(theta + m - u)^2 + sum_{s* = 0} relu(u - (theta - m))^2 ) / (number of target spikes)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError
from delaykit_motifs.memory import MotifMemory
from delaykit_motifs.metrics import f1
from delaykit_motifs.patterns import check_patterns
from delaykit_motifs.tape import TappedTape

Watch = Callable[[int, float], None]


class Training(NamedTuple):
    """What a training run did.

    Args:
        losses: loss before each step, and the last one behind the last step.
        seconds: process CPU time.
    """

    losses: list[float]
    seconds: float

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return len(self.losses) - 1


@checks.annotated
def hinge_loss(membrane: Tensor, target: Tensor, theta: float, margin: float = 0.3) -> Tensor:
    """Ask membranes to pass the threshold by a margin at target spikes and to stay below it by one elsewhere.

    Args:
        membrane: ``(time, pattern, neuron)``.
        target: spikes of the same shape.
        theta: threshold.
        margin: >= 0, in units of the membrane.

    Returns:
        A scalar: both sums of squares over the number of target spikes.

    Example:
        >>> float(hinge_loss(torch.tensor([1.0, 0.5]), torch.tensor([1, 0]), theta=0.7, margin=0.3))
        0.0099999...
    """
    if not membrane.is_floating_point() or membrane.shape != target.shape:
        found = f"membranes {tuple(membrane.shape)}, {membrane.dtype}, and spikes {tuple(target.shape)}"
        raise ShapeError("hinge_loss", found, "floating point numbers, and spikes of the same shape", "see membrane")
    wanted = target != 0
    short = torch.where(wanted, theta + margin - membrane, membrane - (theta - margin)).clamp(min=0)
    return short.square().sum() / wanted.sum().clamp(min=1)


def f1_loss(spikes: Tensor, target: Tensor, pooled: bool = True) -> Tensor:
    """Return ``1 - F1`` of spikes, ``F1 = 2 sum s s* / (sum s + sum s*)``.

    Args:
        spikes: ``(time, pattern, neuron)``, with a graph.
        target: the same shape and dtype, 0 or 1.
        pooled: sum over all patterns; False: the mean of the patterns' F1, as published.

    Returns:
        A scalar.

    Example:
        >>> spikes, target = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[1.0], [1.0]]])
        >>> round(float(f1_loss(spikes, target)), 3), float(f1_loss(spikes, target, pooled=False))
        (0.333, 0.5)

    Reference: arXiv 2604.14096.
    """
    over = (0, 1, 2) if pooled else (0, 2)
    total = (spikes.sum(over) + target.sum(over)).clamp(min=1e-9)
    return (1 - 2 * (spikes * target).sum(over) / total).mean()


@checks.annotated
def train_teacher_forced(
    memory: MotifMemory,
    patterns: Tensor,
    *,
    steps: int = 100,
    lr: float = 5e-3,
    margin: float = 0.3,
    tolerance: float = 1e-6,
    watch: Watch | None = None,
) -> Training:
    """Train the taps so that true contexts drive true spikes (squared hinge, Adam).

    A step costs one event-driven pass and its adjoint: the sum over the active (neuron, delay) pairs of each context
    is an embedding bag, and no dense context is ever made.

    Args:
        memory: trained in place.
        patterns: spikes ``(time, pattern, neuron)``.
        steps: at most so many.
        lr: Adam's learning rate.
        margin: see :func:`hinge_loss`.
        tolerance: stop where the loss is below.
        watch: called with the step and its loss, e.g. to show progress.

    Returns:
        The losses and the CPU time.

    Raises:
        ConfigError: fewer than one step.

    Reference: the teacher of arXiv 2604.14096 is the free-running network, see :func:`train_free_running`; this one
    replaces it, as it needs no spike of the network to find where spikes are missing.
    """
    check_patterns("train_teacher_forced patterns", patterns, memory.neurons)
    checks.number("train_teacher_forced lr", lr, least=0)
    target = patterns[memory.depth :]

    def loss() -> Tensor:
        return hinge_loss(memory.membrane(patterns), target, memory.dynamics.theta, margin)

    optimizer = torch.optim.Adam([memory.taps], lr=lr)
    return _descend(optimizer, loss, steps, lambda value: value < tolerance, watch)


@checks.annotated
def train_free_running(
    memory: MotifMemory,
    patterns: Tensor,
    *,
    steps: int = 40,
    lr: float = 1e-3,
    slope: float = 15.0,
    clip: float = 1.0,
    pooled: bool = True,
    watch: Watch | None = None,
) -> Training:
    """Train through the network's own spikes, by back-propagation in time with the loss ``1 - F1``.

    The published method. From random taps it stalls, as a silent network shows no gradient where spikes are missing;
    behind :func:`train_teacher_forced` it is a polish.

    Args:
        memory: trained in place; it keeps the taps of the best step.
        patterns: spikes ``(time, pattern, neuron)``.
        steps: at most so many; it ends where F1 is 1.
        lr: Adam's learning rate.
        slope: of the surrogate ``ds/du = 1 / (1 + slope |u - theta|)^2`` (fast sigmoid).
        clip: largest norm of the gradient.
        pooled: take F1 over all patterns at once; False: the mean of their F1, as published.
        watch: called with the step and its loss.

    Returns:
        The losses (``1 - F1``) and the CPU time.

    Raises:
        ConfigError: fewer than one step.

    Reference: arXiv 2604.14096.
    """
    check_patterns("train_free_running patterns", patterns, memory.neurons)
    checks.number("train_free_running lr", lr, least=0)
    target = patterns[memory.depth :].to(memory.taps.dtype)
    best, kept = 2.0, memory.taps.detach().clone()

    def loss() -> Tensor:
        nonlocal best
        spikes = free_running_spikes(memory, patterns, slope)
        value = f1_loss(spikes, target, pooled)
        if float(value.detach()) < best:
            best = float(value.detach())
            kept.copy_(memory.taps.detach())
        return value

    optimizer = torch.optim.Adam([memory.taps], lr=lr)
    report = _descend(optimizer, loss, steps, lambda value: value <= 0, watch, clip)
    with torch.no_grad():
        memory.taps.copy_(kept)
    return report


@checks.annotated
def free_running_spikes(memory: MotifMemory, patterns: Tensor, slope: float = 15.0) -> Tensor:
    """Recall with a graph: spikes of the free network, with surrogate gradients through its own past.

    Args:
        memory: runs behind a cue of ``memory.depth`` steps.
        patterns: spikes ``(time, pattern, neuron)``; only the cue is shown.
        slope: of the surrogate.

    Returns:
        ``(time - depth, pattern, neuron)``, 0 or 1; the values of :meth:`MotifMemory.recall`.
    """
    check_patterns("free_running_spikes patterns", patterns, memory.neurons)
    dynamics, cue = memory.dynamics, patterns[: memory.depth].to(memory.taps.dtype)
    tape = TappedTape(memory.taps)
    for spikes in cue[:-1]:
        tape.step(spikes)
    before = cue[-1]
    u, fired, out = torch.zeros_like(before), torch.zeros_like(before), []
    for _ in range(len(patterns) - memory.depth):
        rest = dynamics.beta * u * (1 - fired)
        if dynamics.reset == "subtractive":
            rest = dynamics.beta * u - dynamics.theta * fired
        u = rest + tape.step(before)
        before = _FastSigmoid.apply(u - dynamics.theta, slope)
        fired = before.detach()  # no gradient through the reset
        out.append(before)
    return torch.stack(out)


@checks.annotated
def recall_score(memory: MotifMemory, patterns: Tensor) -> float:
    """Recall all patterns from clean cues and return the pooled F1 behind them.

    Args:
        memory: the trained network.
        patterns: what it stored.
    """
    check_patterns("recall_score patterns", patterns, memory.neurons)
    return f1(memory.recall(patterns[: memory.depth], len(patterns)).spikes, patterns, memory.depth)


def _descend(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    steps: int,
    enough: Callable[[float], bool],
    watch: Watch | None,
    clip: float | None = None,
) -> Training:
    if steps < 1:
        raise ConfigError("training.steps", repr(steps), "at least one step", "pass steps=100")
    start, losses = time.process_time(), []
    for step in range(steps + 1):
        value = loss()
        losses.append(float(value.detach()))
        if watch is not None:
            watch(step, losses[-1])
        if step == steps or enough(losses[-1]):
            break
        optimizer.zero_grad()
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
        optimizer.step()
    optimizer.zero_grad()
    return Training(losses, time.process_time() - start)


class _FastSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad / (1 + ctx.slope * x.abs()).square(), None
