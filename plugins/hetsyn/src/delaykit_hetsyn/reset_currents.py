r"""What a neuron's own spikes take from its membrane, as currents beside the synaptic ones.

    J_m[t] = kappa_m J_m[t - 1] + c_m s[t - 1]          (c_m: a jump for every spike)
    V[t]   = sum_i I_i[t] - sum_m J_m[t]

One current of jump theta is a delayed subtractive reset. A second, slow one of a small jump is an adapting threshold:
V falls by what the threshold would rise. Where kappa is the decay of the neuron's synapses, too, the neuron is the
usual leaky one.

Reference:
    Deng et al., "HetSyn"; the second current is a recurrence of its own, never one on V.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError


class Jumps(NamedTuple):
    """All reset currents of a layer, made ready for one rollout.

    Args:
        decay: kappa, ``(currents, post)``, in [0, 1].
        amplitude: constant jump for a spike, ``(currents, post)``.
        wipes: ``(currents,)``, bool: True adds ``kappa V`` to the jump, a reset to zero.
    """

    decay: Tensor
    amplitude: Tensor
    wipes: Tensor


class SelfCurrent(nn.Module, ABC):
    """A current that a neuron's own spikes start.

    Args:
        decay: kappa, factor a step in [0, 1], a number or one a neuron; None: the decay of the layer's synapses,
            which must then be one a layer or a neuron.
        learn: train kappa (not where it is the synapses').
    """

    kappa: Tensor | None

    def __init__(self, decay: float | Tensor | None, learn: bool = False) -> None:
        super().__init__()
        checks.flag(f"{type(self).__name__}.learn", learn)
        if decay is None:
            if learn:
                fix = "give decay=, or leave learn out"
                raise ConfigError(type(self).__name__, "learn=True without a decay", "a decay of its own", fix)
            self.kappa = None
            return
        if not isinstance(decay, Tensor):
            checks.number(f"{type(self).__name__}.decay", decay, least=0, most=1)
        value = torch.as_tensor(decay, dtype=torch.get_default_dtype()).detach().clone()
        if value.dim() > 1 or not bool(((value >= 0) & (value <= 1)).all()):
            fix = "correct decay"
            raise ConfigError(type(self).__name__, f"decay {decay}", "numbers in [0, 1], one or one a neuron", fix)
        if learn:
            self.kappa = nn.Parameter(value)
        else:
            self.register_buffer("kappa", value)

    @abstractmethod
    def jump(self, like: Tensor) -> Tensor:
        """Return the constant jump for a spike, ``()`` or ``(post,)``, in the dtype and on the device of ``like``."""

    @property
    def wipes(self) -> bool:
        """Whether a spike adds ``kappa V`` as well."""
        return False

    def decay(self, synapses: Tensor | None) -> Tensor:
        """Return kappa; ``synapses`` is the decay of the layer's synapses, ``(post,)`` or ``(1,)``, if it has one."""
        if self.kappa is not None:
            return self.kappa
        if synapses is None:
            expected = "synapses with one decay a layer or a postsynaptic neuron"
            raise ConfigError(type(self).__name__, "no decay of its own", expected, "give decay=")
        return synapses

    @torch.no_grad()
    def project_(self) -> None:
        """Bring a trained kappa back into [0, 1]."""
        if self.kappa is not None:
            self.kappa.clamp_(0.0, 1.0)


@checks.annotated
class ResetCurrent(SelfCurrent):
    """The reset: every spike takes theta, ``J[t] = kappa J[t - 1] + theta s[t - 1]``.

    Args:
        decay: kappa, in [0, 1]; None: that of the synapses (the usual leaky neuron).
        theta: what a spike takes, usually the threshold.
        learn: train kappa.

    Example:
        >>> ResetCurrent(0.9).decay(None)
        tensor(0.9000)
    """

    def __init__(self, decay: float | Tensor | None = None, theta: float = 1.0, learn: bool = False) -> None:
        super().__init__(decay, learn)
        checks.number("ResetCurrent.theta", theta)
        self.theta = float(theta)

    def jump(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.theta)

    def extra_repr(self) -> str:
        return f"theta={self.theta:g}"


@checks.annotated
class AdaptationCurrent(SelfCurrent):
    """An adapting threshold: every spike adds a small, slow current, ``J[t] = rho J[t - 1] + a s[t - 1]``.

    Args:
        decay: rho, in [0, 1], near 1.
        amplitude: a, what a spike adds.
        learn: train rho.
    """

    def __init__(self, decay: float | Tensor, amplitude: float, learn: bool = False) -> None:
        super().__init__(decay, learn)
        self.amplitude = float(amplitude)

    def jump(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.amplitude)

    def extra_repr(self) -> str:
        return f"amplitude={self.amplitude:g}"


class ZeroReset(SelfCurrent):
    """A reset to zero: every spike takes the whole membrane, ``J[t] = kappa (J[t - 1] + s[t - 1] V[t - 1])``.

    Args:
        decay: kappa, in [0, 1]; None: that of the synapses (snnTorch's ``Leaky`` with ``reset_mechanism="zero"``).
        learn: train kappa.
    """

    def jump(self, like: Tensor) -> Tensor:
        return like.new_tensor(0.0)

    @property
    def wipes(self) -> bool:
        return True


def gather(currents: list[SelfCurrent], synapses: Tensor | None, like: Tensor, post: int) -> Jumps:
    """Make the currents of a layer ready for a rollout.

    Args:
        currents: any number, none included.
        synapses: decay of the layer's synapses, ``(post,)`` or ``(1,)``, or None.
        like: a tensor of the dtype and device to work in.
        post: number of neurons.
    """
    if not currents:
        nothing = like.new_zeros(0, post)
        return Jumps(nothing, nothing, torch.zeros(0, dtype=torch.bool, device=like.device))
    decays = [c.decay(synapses).to(like) for c in currents]
    for one in decays:
        if one.shape not in (torch.Size(()), torch.Size((1,)), torch.Size((post,))):
            found, fix = f"a decay of shape {tuple(one.shape)}", "give one number, or one for each neuron"
            raise ShapeError("reset current", found, f"() or ({post},)", fix)
    decay = torch.stack([one.expand(post) for one in decays])
    amplitude = torch.stack([c.jump(like).expand(post) for c in currents])
    return Jumps(decay, amplitude, torch.tensor([c.wipes for c in currents], device=like.device))
