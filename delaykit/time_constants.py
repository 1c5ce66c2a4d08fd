"""Time constants of the neurons themselves: how fast a membrane or a synaptic current decays, learned and kept."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import PROJECT, ConfigError, DelayRangeError, ShapeError
from delaykit.functional.inputs import initial_values
from delaykit.interfaces import ComponentConfig, Site
from delaykit.precision import keep_single
from delaykit.sizes import check_sizes, remember_sizes_

STATES = ("membrane", "synapse")
INITS = ("own", "uniform")
PER = ("layer", "channel", "neuron")


@dataclasses.dataclass(frozen=True)
class TimeConstants(ComponentConfig):
    r"""Let the neurons' own time constants be learned, as decays a step, ``state[t] = decay state[t-1] + ...``.

    The value of a neuron's name in the rules; no synapse changes. The neuron computes as before, with ``decay`` in the
    place of its own number: snnTorch's ``beta`` (membrane) or ``alpha`` (synapse); in Norse, which steps by Euler,
    ``tau_mem_inv`` or ``tau_syn_inv = (1 - decay) / dt``. ``decay = exp(-dt / tau)`` is the exact step,
    ``1 - dt / tau`` Norse's. The numbers are parameters of the model: saved with it, moved and cast with it.

    Args:
        state: ``membrane``, or ``synapse`` for the current of neurons that have one.
        per: one number a ``layer``, a ``channel`` (the first of a neuron's dimensions) or a ``neuron``.
        init: ``own``, the neuron's own decay, which changes nothing; ``uniform`` in [low, high]; a number; or a nested
            list or tensor of one number each.
        low: smallest decay a step, >= 0. Kept by projection after each optimizer step (``dk.attach``).
        high: largest decay a step, <= 1.
        learn: whether they are trained. ``False``: heterogeneous and fixed.

    Raises:
        ConfigError: a value of another type or outside its range.

    Example:
        >>> import torch, snntorch as snn, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(beta=0.9, init_hidden=True))
        >>> _ = dk.wrap_(net, {"1": dk.TimeConstants("membrane")}, example=torch.zeros(1, 3))
        >>> net[1].beta
        Parameter containing:
        tensor([0.9000, 0.9000], requires_grad=True)

    Reference:
        Perez-Nieves et al. 2021, Neural heterogeneity promotes robust learning, Nature Communications 12, 5791: one
        time constant a neuron, learned. Fang et al. 2021 (arXiv 2007.05785): one a layer.
    """

    kind: ClassVar[Literal["heterogeneity"]] = "heterogeneity"
    name: ClassVar[str] = "time_constants"
    initial: ClassVar[tuple[str, ...]] = ("init",)

    state: str = "membrane"
    _: dataclasses.KW_ONLY
    per: str = "neuron"
    init: Any = "own"
    low: float = 0.0
    high: float = 1.0
    learn: bool = True

    def __post_init__(self) -> None:
        checks.choice("TimeConstants.state", self.state, STATES)
        checks.choice("TimeConstants.per", self.per, PER)
        checks.number("TimeConstants.high", self.high, least=0.0, most=1.0)
        checks.number("TimeConstants.low", self.low, least=0.0, most=self.high)
        checks.flag("TimeConstants.learn", self.learn)
        object.__setattr__(self, "init", initial_values("TimeConstants.init", self.init, INITS))
        if isinstance(self.init, str):
            checks.choice("TimeConstants.init", self.init, INITS)
            return
        values = torch.as_tensor(self.init, dtype=torch.float64)
        _check_range("TimeConstants.init", values, self.low, self.high, "give decays a step, exp(-dt / tau)")

    def shape(self, where: str, features: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return the shape of the decays of a neuron with these features, channel first.

        Raises:
            ShapeError: nobody knows the features.
        """
        if self.per == "layer":
            return ()
        if not features:
            expected = "an example run that shows (batch, channel, ...)"
            raise ShapeError(where, "neurons that nobody has counted", expected, "pass example=, or per='layer'")
        return features if self.per == "neuron" else (features[0], *[1] * (len(features) - 1))

    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Refuse: it has no synapse. See :meth:`build_neuron`."""
        found, fix = "TimeConstants, which are a neuron's own", "name the neuron in the rules, not a connection"
        raise ConfigError(site.name, found, "a component of a connection", fix)

    def build_neuron(
        self, where: str, shape: tuple[int, ...], own: Tensor, generator: torch.Generator | None = None
    ) -> NeuronDecays:
        """Make the module for one neuron.

        Args:
            where: its name, for messages.
            shape: of the decays.
            own: the decays that the neuron has, one for all or of this shape.
            generator: source of random initial values.
        """
        return NeuronDecays(self, where, shape, own, generator)


class NeuronDecays(nn.Module):
    """Hold the decays of one state of one neuron: ``decay``, in [low, high]."""

    size: torch.Size | None = None  # of the decay; pickles of earlier versions know none

    def __init__(
        self,
        config: TimeConstants,
        where: str,
        shape: tuple[int, ...],
        own: Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config, self.where, self.off = config, where, False
        values = _initial(config, where, shape, own.detach(), generator)
        self.decay = nn.Parameter(values, requires_grad=config.learn)
        self.size = values.shape
        remember_sizes_(self)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the decays into [low, high]."""
        self.decay.clamp_(self.config.low, self.config.high)

    def check(self) -> None:
        """Raise :class:`DelayRangeError` for a decay that is NaN or out of its bounds, or replaced by another size."""
        check_sizes(self.where, self)
        _check_range(self.where, self.decay.detach(), self.config.low, self.config.high)

    def _apply(self, fn: Any, recurse: bool = True) -> NeuronDecays:
        keep_single(self, lambda: super(NeuronDecays, self)._apply(fn, recurse))
        return self

    def extra_repr(self) -> str:
        decay, kind = self.decay.detach(), "learned" if self.config.learn else "fixed"
        of = f"{self.config.state} decay a {self.config.per}"
        if decay.numel() == 1:
            return f"{of}, {float(decay):.3f}, {kind}"
        return f"{of}, {float(decay.min()):.3f}..{float(decay.max()):.3f}, mean {float(decay.mean()):.3f}, {kind}"


def _check_range(where: str, decay: Tensor, low: float, high: float, fix: str = "") -> None:
    slack = 1e-6
    if decay.numel() == 0 or bool(((decay >= low - slack) & (decay <= high + slack)).all()):
        return
    if not bool(torch.isfinite(decay).all()):
        found, fix = "NaN or infinite decays", fix or "lower delay_lr or clip gradients; reload the last checkpoint"
    else:
        found = f"decays from {float(decay.min()):g} to {float(decay.max()):g}"
    fix = fix or PROJECT
    raise DelayRangeError(where, found, f"decays a step in [{low:g}, {high:g}]", fix)


def _initial(
    config: TimeConstants, where: str, shape: tuple[int, ...], own: Tensor, generator: torch.Generator | None
) -> Tensor:
    own = own.to(torch.promote_types(own.dtype, torch.float32))  # no half precision holds 0.9995
    if config.init == "uniform":
        drawn = config.low + (config.high - config.low) * torch.rand(shape, generator=generator)
        return drawn.to(own.device, own.dtype)
    values = own if isinstance(config.init, str) else torch.as_tensor(config.init).to(own)
    if isinstance(config.init, str):
        fix = "set low and high so that the neuron's own decay lies between them, or pass init="
        _check_range(where, values, config.low, config.high, fix)
    if values.numel() == 1:
        return values.reshape(()).expand(shape).clone()
    try:
        return values.expand(shape).clone()
    except RuntimeError:
        found = f"decays of shape {tuple(values.shape)}"
        fix = "pass per='neuron' or 'channel', or one number"
        raise ShapeError(where, found, f"one number, or shape {shape}", fix) from None
