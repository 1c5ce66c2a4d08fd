"""The interfaces of delaykit, readable in five minutes.

A connection is a causal filter, ``I[t, b, j] = sum_i sum_tau K[j, i, tau] s[t - tau, b, i]``, and ``K`` is built from
up to three parts: a :class:`Delay` (how late), a :class:`Heterogeneity` (how long) and a :class:`Pruning` (whether).
A plugin subclasses one of them, gives it a frozen-dataclass :class:`ComponentConfig`, and registers a
:class:`Component` record (a string that points at the config) through the hook ``delaykit_components``.

Dimension words: ``time batch pre post depth``. Delays are real numbers of steps, >= 0.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.arrivals import Kernel
from delaykit.checks.values import fields_taken
from delaykit.errors import PROJECT, ConfigError, DelayRangeError
from delaykit.functional.draws import drawn
from delaykit.functional.engine_base import Engine
from delaykit.functional.recurrence.connection.base import RecurrentConnection
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents, Tents
from delaykit.plugins.records import API_VERSION as API_VERSION
from delaykit.plugins.records import Component as Component
from delaykit.sizes import hold_component_

GRANULARITIES = ("layer", "axonal", "dendritic", "synaptic")
Granularity = Literal["layer", "axonal", "dendritic", "synaptic"]
ESTIMATORS = ("interp", "exact", "none")
Estimator = Literal["interp", "exact", "none"]


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in a model where a component can be put: one connection. Pure description, no tensors.

    Args:
        name: the name rules match, e.g. ``fc1``, ``rlif1.recurrent``, ``cell.input``.
        pre: number of input channels (presynaptic neurons).
        post: number of output channels (postsynaptic neurons).
        has_matrix: True where the connection is one ``(post, pre)`` weight matrix, so that per-synapse
            components fit; False for convolutions, which take delays, and element-wise connections, which take lines.
        recurrent: True where the input is the neuron's own previous output.
        neuron: site path of the neuron this connection drives, if the plan found one.
        dt_ms: length of a step in milliseconds where the library knows it (Norse), else None.
        fan_in: of a convolution, the number of input channels that one output channel hears; None elsewhere.
    """

    name: str
    pre: int
    post: int
    has_matrix: bool = True
    recurrent: bool = False
    neuron: str | None = None
    dt_ms: float | None = None
    fan_in: int | None = None

    def delay_shape(self, granularity: Granularity) -> tuple[int, int]:
        """Two-dimensional shape of one delay per layer, pre neuron, post neuron or synapse (of a convolution: pair).

        Raises:
            ConfigError: there is no such granularity.
        """
        checks.choice("Site.delay_shape", granularity, GRANULARITIES)
        return {
            "layer": (1, 1),
            "axonal": (1, self.pre),
            "dendritic": (self.post, 1),
            "synaptic": (self.post, self.pre if self.fan_in is None else self.fan_in),
        }[granularity]


class ComponentConfig(ABC):
    """What a user writes: a frozen dataclass, validated at construction, JSON both ways.

    Subclasses are ``@dataclasses.dataclass(frozen=True)``, set ``kind`` and ``name``, hold only JSON values
    (numbers, strings, booleans, lists, tuples) or tensors given as nested lists, and validate in ``__post_init__``.
    ``initial`` names the fields that only say where a training begins: a checkpoint loads whatever they are.
    """

    kind: ClassVar[Literal["delay", "heterogeneity", "pruning"]]
    name: ClassVar[str]
    initial: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *values: Any, **named: Any) -> ComponentConfig:
        """Refuse arguments that the fields do not take, before the dataclass does so in its own words."""
        fields_taken(cls, values, named)
        return super().__new__(cls)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hold_component_(cls, ComponentConfig)

    @abstractmethod
    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Make the module (or :class:`Pruning`) for this site; random values come from ``generator``."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, enough for :meth:`from_json` to make an equal config."""
        out: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            out[field.name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ComponentConfig:
        """Inverse of :meth:`to_json`; unknown or missing fields raise :class:`ConfigError`."""
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                cls.__name__, f"unknown field(s) {unknown}", f"only {sorted(known)}", "use a matching delaykit version"
            )
        return cls(**values)


class Delay(nn.Module, ABC):
    """How late: any causal, finite impulse response. All that is required is :meth:`impulse_response`.

    ``dropout`` is the probability with which, in training, a neuron's current from this connection is dropped for a
    whole sequence. ``estimator`` says how a gradient sees the time of an arrival; only a point delay has a choice.
    """

    dropout: float = 0.0
    estimator: Estimator = "interp"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hold_component_(cls, Delay)

    @abstractmethod
    def impulse_response(self, weight: Tensor) -> Tensor:
        """Response of every synapse: weight ``(post, pre)`` -> ``(post, pre, depth)``, differentiable."""

    holds_weight: ClassVar[bool] = False
    """True where the delay holds the synapses' weights itself, so that the module's own is an empty placeholder."""

    def engine(self, weight: Tensor, bias: Tensor | None) -> Engine | None:
        """Return an operator of your own for this delay on a matrix, bound to this segment's parameters, or None.

        The way in for a plugin's fast path; it must equal :meth:`impulse_response`, which the conformance laws check.
        """
        return None

    def recurrence(self) -> Taps | Tents | OwnTents | RecurrentConnection | None:
        """Return how :func:`delaykit.rollout` runs this delay on a recurrent matrix; None: step by step.

        Taps or tents go with the connection's weight, a connection of your own holds its weights itself.
        """
        return self.rollout_connection()

    def rollout_connection(self) -> RecurrentConnection | None:
        """Do what :meth:`recurrence` does, for connections only: its former name, which still may be overridden."""
        return None

    def draw(self, like: Tensor, name: str = "") -> Tensor:
        """Return numbers in [0, 1), drawn once a sequence: for a delay that is random in training.

        Args:
            like: shape, dtype and device.
            name: tells several draws of one delay apart.
        """
        return drawn(name, like)

    def project_(self) -> None:  # noqa: B027 - optional hook
        """Bring parameters back into their bounds; called after each optimizer step."""

    def advance_(self, progress: float) -> None:  # noqa: B027 - optional hook
        """Follow schedules; ``progress`` in [0, 1], called once an epoch."""

    def discretize_(self) -> None:  # noqa: B027 - optional hook
        """Round to what hardware runs (integer delays, spread 0). The caller saves and restores the state dict."""

    def fit_(self, step: int, largest: int | None) -> None:
        """Bring delays that :meth:`discretize_` rounded onto a grid, and under a cap; refuse where that cannot be.

        Args:
            step: delays become multiples of this many steps.
            largest: larger ones become this, a multiple of ``step``; None: no cap.

        Raises:
            ConfigError: this delay has no numbers that could be moved, and does not fit as it is.
        """
        if self._fits(step, largest):
            return
        found = f"{type(self).__name__}, whose delays cannot be moved one by one"
        expected = f"multiples of {step}" + ("" if largest is None else f" up to {largest} steps")
        raise ConfigError(type(self).__name__, found, expected, "give it a smaller range of delays before training")

    def _fits(self, step: int, largest: int | None) -> bool:
        longest = self.longest()
        return step == 1 and (largest is None or (longest is not None and longest <= largest + 1))

    def longest(self) -> int | None:
        """Return how many steps back a spike can ever matter, if bounded; histories cut by TBPTT keep that many."""
        return None

    def check(self) -> None:  # noqa: B027 - optional hook
        """Raise a :class:`~delaykit.errors.DelayRangeError` for parameters that cannot run; called once a segment."""

    def meet_(self, earlier: Sequence[Delay]) -> None:  # noqa: B027 - optional hook
        """Meet the delays that were wrapped before this one, once, before it is attached.

        The moment to share parameters: make one of theirs your own. A :class:`~delaykit.errors.DelaykitError` refuses
        the plan. Never change ``earlier``: when a plan is made they may belong to a model in use.
        """


class PointDelay(Delay):
    """One arrival per spike and synapse, smeared by a :class:`~delaykit.arrivals.Kernel`.

    ``estimator``, to be set by a subclass that offers the choice:

    - ``interp``: a spike arrives smeared over neighbouring steps, and the delay's gradient is that of the kernel.
    - ``exact``: a spike arrives whole at ``round(d)``; delays, weights and earlier spike times get the gradient of the
      continuous-time network. It needs a neuron with a synaptic current, which the plan checks.
    - ``none``: the values of ``interp``; the delays get no gradient.
    """

    granularity: Granularity

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hold_component_(cls, PointDelay)

    @abstractmethod
    def delays(self) -> Tensor:
        """Delays in steps, >= 0, differentiable; shape (1, 1), (1, pre), (post, 1) or (post, pre)."""

    @abstractmethod
    def kernel(self) -> Kernel:
        """The shape of an arrival: linear, triangle(spread), gaussian(spread) or hard."""

    def check(self) -> None:
        delays = self.delays().detach()
        if not bool(torch.isfinite(delays).all()):
            raise DelayRangeError(
                type(self).__name__, "NaN or infinite delays", "finite delays >= 0", "reload a checkpoint"
            )
        if bool((delays < 0).any()):
            fix = PROJECT
            raise DelayRangeError(type(self).__name__, f"a delay of {float(delays.min()):g} steps", "delays >= 0", fix)

    def _fits(self, step: int, largest: int | None) -> bool:
        delays = self.delays().detach()
        wanted = (delays / step).round() * step
        return torch.equal(delays, wanted if largest is None else wanted.clamp(max=largest))

    def taps(self) -> Taps:
        """Return the sparse response of this segment, as the estimator wants it: what every fast path runs on."""
        delays = self.delays()
        if self.estimator == "exact":
            return self.kernel().whole(delays)
        return self.kernel().taps(delays.detach() if self.estimator == "none" else delays)

    def recurrence(self) -> Taps | Tents | OwnTents | RecurrentConnection | None:
        """Return the form that a rollout of synapses runs fastest on; None for exact gradients."""
        own = super().recurrence()
        if own is not None or self.estimator == "exact":
            return own
        if self.estimator == "none":
            return self.taps()
        kernel, delays = self.kernel(), self.delays()
        return kernel.tents(delays) or kernel.own_tents(delays) or kernel.taps(delays)

    def impulse_response(self, weight: Tensor) -> Tensor:
        if self.estimator == "interp":
            response = self.kernel().response(self.delays())  # (1|post, 1|pre, depth)
        else:
            taps = self.taps()
            response = taps.response(max(taps.depth(), 1))
        return weight.unsqueeze(-1) * response


class LeakyNeuron(Protocol):
    """The neuron that a connection drives, as far as a lingering current must know it."""

    def leak(self) -> Tensor:
        """Return the decay a step of the state that takes the input in, (1, 1) or (post, 1), differentiable."""


class Heterogeneity(nn.Module, ABC):
    """How long: each synapse's current decays by a factor in [0, 1] per step."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hold_component_(cls, Heterogeneity)

    @abstractmethod
    def decay(self) -> Tensor:
        """Decay factors in [0, 1], differentiable; shape (1, 1), (1, pre), (post, 1) or (post, pre)."""

    needs_neuron: ClassVar[bool] = False
    """True where :meth:`bind_neuron_` must be told which neuron the connection drives, or that it drives none."""

    neuron: LeakyNeuron | None = None

    def bind_neuron_(self, neuron: LeakyNeuron | None) -> None:
        """Learn of the neuron that the connection drives, once, when it is built; None where no neuron hears it."""
        self.neuron = neuron

    def meet_delay_(self, delay: Delay | None) -> None:  # noqa: B027 - optional hook
        """Learn of the delay on the same synapse, once, when it is built; a DelaykitError refuses the plan."""

    def leak(self) -> Tensor | None:
        """Return the decay of the driven neuron's own state, (1, 1) or (post, 1), differentiable; None for none.

        The current is then what that state must be fed to hold ``sum_i I_ji``: ``I[t] - leak I[t-1]``.
        """
        return None

    def linger(self, response: Tensor) -> Tensor:
        """Let the response ``(post, pre, depth)`` of a connection linger: the reference.

        ``K[tau] = I[tau] - leak I[tau-1]``, ``I[tau] = decay I[tau-1] + response[tau]``
        """
        decay, leak = self.decay(), self.leak()
        beyond = decay if leak is None else decay - leak.to(decay)
        past, out = torch.zeros_like(response[..., 0]), []
        for k in range(response.shape[-1]):
            out.append(response[..., k] + beyond * past)
            past = decay * past + response[..., k]
        return torch.stack(out, -1)

    def engine(self, weight: Tensor, bias: Tensor | None, delay: Delay | None) -> Engine | None:
        """Return an operator of your own for this decay (behind ``delay``, if any) on a matrix, or None."""
        return None

    def project_(self) -> None:  # noqa: B027 - optional hook
        """Bring parameters back into their bounds; called after each optimizer step."""

    def advance_(self, progress: float) -> None:  # noqa: B027 - optional hook
        """Follow schedules; ``progress`` in [0, 1], called once an epoch."""

    def check(self) -> None:
        """Raise :class:`~delaykit.errors.DelayRangeError` unless every decay is in [0, 1]; called once a segment."""
        decay = self.decay().detach()
        if not bool(((decay >= 0) & (decay <= 1)).all()):
            fix = PROJECT
            raise DelayRangeError(type(self).__name__, "a decay that is NaN or outside [0, 1]", "decays in [0, 1]", fix)


@dataclasses.dataclass(frozen=True)
class PruningReport:
    """What one pruning step did to one weight, in numbers of synapses.

    Args:
        total: synapses that there could be.
        kept: synapses that there are.
        pruned: synapses that there were after the step before (or at the start), and are no more.
        regrown: synapses that there were not after the step before.
        isolated: postsynaptic neurons without any input left.
    """

    total: int
    kept: int
    pruned: int
    regrown: int
    isolated: int = 0


class Pruning(ABC):
    """Whether: writes zeros into the weight, once an epoch."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        hold_component_(cls, Pruning)

    @abstractmethod
    def step_(self, weight: Tensor, progress: float) -> PruningReport:
        """Set the weakest synapses of ``weight`` to zero in place; ``progress`` in [0, 1]."""

    def bind_(self, delay: Delay | None, heterogeneity: Heterogeneity | None) -> None:  # noqa: B027 - optional hook
        """Learn of the other parts of the synapse, once, when it is built."""

    def attached_(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027 - optional hook
        """Learn of an optimizer that :func:`delaykit.attach` was given; it need not be the one that has the weight."""

    @property
    def needs_optimizer(self) -> bool:
        """Whether the optimizer that trains the weight must be among those that are attached."""
        return False

    def survey(self, pruned: Sequence[tuple[Pruning, Tensor]], progress: float) -> None:  # noqa: B027 - optional hook
        """See all weights of the model that are about to be pruned, before the first step of an epoch."""

    def project_(self, weight: Tensor) -> None:  # noqa: B027 - optional hook
        """Keep pruned synapses at zero, if that is what the method wants; called after each optimizer step."""

    def state(self) -> dict[str, Tensor]:
        """Return what an interrupted training needs to go on, e.g. which synapses there are; part of checkpoints."""
        return {}

    def load_state_(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - optional hook
        """Take back what :meth:`state` returned, or start anew from an empty one.

        Raises:
            CheckpointError: it does not fit; then nothing is changed.
        """
