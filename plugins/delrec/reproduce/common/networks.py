"""The papers' networks: leaky layers with the reset in the step of the spike, and ordinary Linear connections."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from delaykit.engines.dropout import draw_mask
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout

ADAPTATION, JUMP = math.exp(-1 / 20), 0.1  # the adaptive control's decay a step, and its first jump of the threshold


class ArcTangent(torch.autograd.Function):
    """Spike at ``x >= 0``; the surrogate gradient is ``a / 2 / (1 + (pi a x / 2)^2)``."""

    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ctx.alpha / 2 / (1 + (math.pi / 2 * ctx.alpha * x) ** 2), None


class Triangular(torch.autograd.Function):
    """Spike at ``x >= 0``; the surrogate gradient is ``max(0, 1 - |x|)``."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.abs()).clamp(min=0)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a network is made of.

    Args:
        widths: neurons of each hidden layer.
        recurrent: whether each hidden layer may have a recurrent connection.
        tau: membrane time constant in steps: ``V = (1 - 1/tau) V + I``.
        hard: reset to 0 (gradient detached), or subtract the threshold.
        alpha: of the arctan surrogate; None: the triangle.
        normalize: BatchNorm behind each feed-forward connection.
        dropout: of spikes between layers.
        readout: ``leaky``: sum over time of the softmax of a membrane that never spikes; ``linear``: sum of logits.
        scale: factor on the input.
    """

    widths: tuple[int, ...]
    recurrent: tuple[bool, ...]
    tau: float = 2.0
    hard: bool = False
    alpha: float | None = None
    normalize: bool = False
    dropout: float = 0.0
    readout: str = "linear"
    scale: float = 1.0


class Layer(nn.Module):
    """Linear, perhaps BatchNorm, and leaky neurons, perhaps with a recurrent connection.

    ``adaptive`` gives each neuron a threshold that a spike raises by a learned jump and that falls back within 20
    steps, about a delay's length: as many numbers as axonal delays take, and memory without any delay.
    """

    def __init__(self, pre: int, post: int, recurrent: bool, shape: Shape, adaptive: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(pre, post, bias=not shape.normalize)
        self.norm = nn.BatchNorm1d(post) if shape.normalize else None
        self.recurrent = nn.Linear(post, post, bias=False) if recurrent else None
        if self.recurrent is not None:
            nn.init.orthogonal_(self.recurrent.weight)
        surrogate = Triangular.apply if shape.alpha is None else lambda x: ArcTangent.apply(x, shape.alpha)
        self.neuron = LIFDynamics(
            decay=1 - 1 / shape.tau, surrogate=surrogate, reset="zero" if shape.hard else "subtract",
            reset_when="same", detach_reset=shape.hard,
        )  # fmt: skip
        self.dropout = nn.Dropout(shape.dropout)
        self.jump = nn.Parameter(torch.full((post,), JUMP)) if adaptive else None

    def forward(self, spikes: Tensor) -> Tensor:
        """(time, batch, pre) -> (time, batch, post)."""
        current = self.fc(spikes)
        if self.norm is not None:
            current = self.norm(current.flatten(0, 1)).unflatten(0, current.shape[:2])
        weight = taps = mask = None
        if self.recurrent is not None:
            weight = self.recurrent.weight
            if hasattr(self.recurrent, "dk"):
                delay = self.recurrent.dk.delay
                delay.check()
                kernel, delays = delay.kernel(), delay.delays()
                taps = kernel.tents(delays) or kernel.taps(delays)
                mask = draw_mask(delay, current.shape[1:], current)
        if self.jump is not None:
            found = adaptive_rollout(current, weight, self.neuron, self.jump)
        else:
            found, _, _ = rollout(current, weight, None, taps, self.neuron, recurrent_mask=mask)
        keep = self.dropout(torch.ones_like(found[0])) if self.training else None  # one mask a sequence
        return found if keep is None else found * keep


def adaptive_rollout(current: Tensor, weight: Tensor | None, neuron: LIFDynamics, jump: Tensor) -> Tensor:
    """Run neurons whose threshold rises with their spikes, step by step, by autograd.

    ``a_t = rho a_{t-1} + jump s_{t-1}``; a spike is due at ``threshold + a_t``, and resets by the threshold alone.

    Args:
        current: ``(time, batch, neuron)``.
        weight: of the recurrent connection, or None.
        neuron: resets in the step of the spike.
        jump: ``(neuron,)``.
    """
    membrane = fired = raised = torch.zeros_like(current[0])
    out = []
    for drive in current:
        raised = ADAPTATION * raised + jump * fired
        membrane = neuron.decay * membrane + drive + (0 if weight is None else fired @ weight.T)
        fired = neuron.surrogate(membrane - neuron.threshold - raised)
        reset = fired.detach() if neuron.detach_reset else fired
        membrane = membrane - reset * (membrane if neuron.reset == "zero" else neuron.threshold)
        out.append(fired)
    return torch.stack(out)


class Net(nn.Module):
    """Hidden layers and a readout; ``(time, batch, channel)`` -> scores ``(batch, class)``."""

    def __init__(self, channels: int, classes: int, shape: Shape, adaptive: bool = False) -> None:
        super().__init__()
        sizes = (channels, *shape.widths)
        plan = zip(sizes, shape.widths, shape.recurrent, strict=False)
        self.layers = nn.ModuleList(Layer(*one, shape, adaptive and one[2]) for one in plan)
        self.readout = nn.Linear(sizes[-1], classes)
        self.shape = shape

    def hidden(self, spikes: Tensor) -> Tensor:
        """Return the spikes of the last hidden layer."""
        spikes = spikes * self.shape.scale
        for layer in self.layers:
            spikes = layer(spikes)
        return spikes

    def forward(self, spikes: Tensor) -> Tensor:
        """Score."""
        current = self.readout(self.hidden(spikes))
        if self.shape.readout == "linear":
            return current.sum(0)
        _, membrane, _ = rollout(current, None, None, None, LIFDynamics(decay=1 - 1 / self.shape.tau))
        return membrane.softmax(-1).sum(0)
