"""One connection's synapse: the parts composed, and the operator that runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from delaykit.engines.decay import Decaying, DecayTape
from delaykit.engines.dropout import DropoutTape, mask_sequence
from delaykit.errors import ConfigError, ShapeError
from delaykit.functional.delay_line.operator import delay_line
from delaykit.functional.delayed_linear.operator import delayed_linear
from delaykit.functional.reference import causal_convolution
from delaykit.functional.step_tape.operator import LinearTape, LineTape, ResponseTape
from delaykit.functional.taps import Taps
from delaykit.interfaces import ComponentConfig, Delay, Heterogeneity, PointDelay, Pruning, Site

if TYPE_CHECKING:
    from delaykit.engines.exact import Listener


INTERFACES = {"delay": Delay, "heterogeneity": Heterogeneity, "pruning": Pruning}


class Product:
    """The wrapped module's own linear map, seen from the synapse.

    Args:
        with_bias: the module's untouched forward.
        without_bias: the same map without its bias.
        weight: the ``(post, pre)`` matrix, or None for convolutions and element-wise connections.
        bias: the module's bias, or None.
        space: number of dimensions behind the channel (0 for Linear, 2 for Conv2d).
    """

    def __init__(
        self,
        with_bias: Callable[[Tensor], Tensor],
        without_bias: Callable[[Tensor], Tensor],
        weight: Tensor | None,
        bias: Tensor | None,
        space: int = 0,
    ) -> None:
        self.with_bias, self.without_bias = with_bias, without_bias
        self.weight, self.bias, self.space = weight, bias, space


class Stepper(Protocol):
    """The remembered past of one stream in step mode, e.g. a :class:`~delaykit.functional.step_tape.Tape`."""

    def step(self, x: Tensor) -> Tensor:
        """Run one step: (batch, pre, *space) -> (batch, post, *space)."""

    def detach(self) -> None:
        """Cut the graph (truncated BPTT); :meth:`Engine.rebind` hands the parameters over anew."""


class Engine(ABC):
    """One segment's parameters, computed once (from a reset or detach to the next) and ready to run."""

    remember: int | None = None  # how many steps a tape keeps when its graph is cut

    @abstractmethod
    def sequence(self, spikes: Tensor) -> Tensor:
        """Run a whole sequence: (time, batch, pre, *space) -> (time, batch, post, *space), bias included."""

    @abstractmethod
    def tape(self) -> Stepper:
        """Start an empty history for step mode."""

    @abstractmethod
    def rebind(self, tape: Any) -> None:
        """Start a new segment on a tape that keeps its remembered spikes (truncated BPTT)."""

    def step(self, tape: Stepper, spikes: Tensor) -> Tensor:
        """Run one step: (batch, pre, *space) -> (batch, post, *space), bias included."""
        return tape.step(spikes)


class MatrixEngine(Engine):
    """A point delay on a ``(post, pre)`` matrix, any granularity."""

    def __init__(self, taps: Taps, weight: Tensor, bias: Tensor | None) -> None:
        self.parameters = (taps, weight, bias)

    def sequence(self, spikes: Tensor) -> Tensor:
        taps, weight, bias = self.parameters
        return delayed_linear(spikes, weight, taps, bias)

    def tape(self) -> Stepper:
        return LinearTape(*self.parameters, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(*self.parameters)


class ResponseEngine(Engine):
    """Any impulse response on a matrix: the general, slow fallback."""

    def __init__(self, response: Tensor, bias: Tensor | None) -> None:
        self.parameters = (response, bias)

    def sequence(self, spikes: Tensor) -> Tensor:
        response, bias = self.parameters
        current = causal_convolution(spikes, response)
        return current if bias is None else current + bias

    def tape(self) -> Stepper:
        return ResponseTape(*self.parameters, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(*self.parameters)


class DecayEngine(Engine):
    """A heterogeneity on a matrix, alone or with any delay."""

    def __init__(self, parameters: Decaying) -> None:
        self.parameters = parameters

    def sequence(self, spikes: Tensor) -> Tensor:
        return self.parameters.sequence(spikes)

    def tape(self) -> Stepper:
        return DecayTape(self.parameters, self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(self.parameters)


class LineEngine(Engine):
    """A delay line before (layer, axonal) or behind (dendritic) any linear module, e.g. a convolution."""

    def __init__(self, taps: Taps, product: Product, before: bool) -> None:
        self.taps, self.product, self.before = taps, product, before
        self.identity = taps.is_identity()

    def sequence(self, spikes: Tensor) -> Tensor:
        time, batch = spikes.shape[:2]

        def over_time(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            return run(x.flatten(0, 1)).unflatten(0, (time, batch))

        if self.before:
            return over_time(self.product.with_bias, delay_line(spikes, self.taps))
        current = over_time(self.product.without_bias, spikes)
        if self.identity:
            return self._same_value(over_time(self.product.with_bias, spikes), delay_line(current.detach(), self.taps))
        return self._add_bias(delay_line(current, self.taps))

    def tape(self) -> Stepper:
        return LineTape(self.taps, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.rebind(self.taps)

    def step(self, tape: Stepper, spikes: Tensor) -> Tensor:
        if self.before:
            return self.product.with_bias(tape.step(spikes))
        current = self.product.without_bias(spikes)
        if self.identity:
            return self._same_value(self.product.with_bias(spikes), tape.step(current.detach()))
        return self._add_bias(tape.step(current))

    @staticmethod
    def _same_value(current: Tensor, delayed: Tensor) -> Tensor:
        # At zero delay the module's own result is returned to the bit; the delays still get their gradient.
        return current + (delayed - delayed.detach())

    def _add_bias(self, current: Tensor) -> Tensor:
        bias = self.product.bias
        return current if bias is None else current + bias.reshape(-1, *[1] * self.product.space)


class DropoutEngine(Engine):
    """Any engine, its current (bias included) masked by :attr:`Delay.dropout`."""

    def __init__(self, engine: Engine, delay: Delay) -> None:
        self.engine, self.delay = engine, delay

    def sequence(self, spikes: Tensor) -> Tensor:
        return mask_sequence(self.delay, self.engine.sequence(spikes))

    def tape(self) -> Stepper:
        return DropoutTape(self.engine.tape(), self.delay)

    def rebind(self, tape: Any) -> None:
        self.engine.rebind(tape.tape)

    def step(self, tape: Any, spikes: Tensor) -> Tensor:
        return tape.mask(self.engine.step(tape.tape, spikes))


class Synapse(nn.Module):
    """What a wrapped connection holds as its child ``dk``: delay, heterogeneity and pruning of one site.

    Args:
        site: the connection.
        configs: at most one config of each kind ``delay`` and ``heterogeneity``, any number of ``pruning``.
        generator: source of random initial values.

    Raises:
        ConfigError: two parts of one kind, or a part that needs a weight matrix where there is none.
    """

    def __init__(
        self, site: Site, configs: Sequence[ComponentConfig], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.site = site
        self.configs = tuple(configs)
        self.delay: Delay | None = None
        self.heterogeneity: Heterogeneity | None = None
        self.prunings: list[Pruning] = []
        self.listener: Listener | None = None  # set where exact gradients need to know the neuron
        for config in configs:
            part = _built(config, site, generator)
            if config.kind == "pruning":
                self.prunings.append(part)
            elif getattr(self, config.kind) is not None:
                raise ConfigError(site.name, f"two {config.kind} components", "at most one", "keep one of them")
            else:
                setattr(self, config.kind, part)
        if self.heterogeneity is not None:
            self.heterogeneity.meet_delay_(self.delay)
        for pruning in self.prunings:
            pruning.bind_(self.delay, self.heterogeneity)
        if not site.has_matrix and not self._runs_as_lines():
            raise ConfigError(
                site.name,
                "a component that needs a (post, pre) weight matrix",
                "a layer, axonal or dendritic delay on this connection",
                "use FreeDelay('axonal'), or put the component on a Linear or recurrent connection",
            )

    def _runs_as_lines(self) -> bool:
        if self.heterogeneity is not None:
            return False
        if self.delay is None:
            return True
        return isinstance(self.delay, PointDelay) and self.delay.granularity != "synaptic"

    def impulse_response(self, weight: Tensor, depth: int | None = None) -> Tensor:
        """Convolve the parts: weight (post, pre) -> (post, pre, depth). The judge of every faster path.

        Args:
            weight: (post, pre).
            depth: number of steps to return; needed with a heterogeneity, whose response has no end.
        """
        response = weight.unsqueeze(-1) if self.delay is None else self.delay.impulse_response(weight)
        if depth is not None:
            response = nn.functional.pad(response, (0, max(0, depth - response.shape[-1])))[..., :depth]
        if self.heterogeneity is None:
            return response
        return self.heterogeneity.linger(response)

    def engine(self, product: Product) -> Engine:
        """Compute this segment's parameters once and pick the operator that runs them.

        Raises:
            DelayRangeError: a delay is NaN, infinite, negative or too large.
        """
        self.check()
        with torch.enable_grad():  # a segment may begin under no_grad and train later
            engine = self._engine(product)
        if self.delay is None:
            return engine
        engine.remember = self.delay.longest()
        return DropoutEngine(engine, self.delay) if self.delay.dropout > 0 else engine

    def _engine(self, product: Product) -> Engine:
        if self.delay is not None and self.delay.estimator == "exact":
            from delaykit.engines.exact import exact_engine

            return exact_engine(self, product)
        if product.weight is None:
            return self._line_engine(product)
        weight, bias = product.weight, product.bias
        if self.heterogeneity is not None:
            own = self.heterogeneity.engine(weight, bias, self.delay)
            return own or DecayEngine(Decaying(self, weight, bias))
        if self.delay is None:
            return MatrixEngine(identity_taps(weight), weight, bias)
        own = self.delay.engine(weight, bias)
        if own is not None:
            return own
        if isinstance(self.delay, PointDelay):
            return MatrixEngine(self.delay.taps(), weight, bias)
        response = self.delay.impulse_response(weight)
        if response.ndim != 3 or response.shape[:2] != weight.shape:
            where, found = f"{type(self.delay).__name__}.impulse_response()", f"shape {tuple(response.shape)}"
            expected = f"(post, pre, depth), here ({weight.shape[0]}, {weight.shape[1]}, depth)"
            raise ShapeError(where, found, expected, "tau is the last dimension")
        return ResponseEngine(response, bias)

    def _line_engine(self, product: Product) -> Engine:
        if self.delay is None:
            return LineEngine(identity_taps(next(self.parameters(), None)), product, before=True)
        assert isinstance(self.delay, PointDelay)
        taps = self.delay.taps()
        return LineEngine(taps, product, before=self.delay.granularity != "dendritic")

    def check(self) -> None:
        """Validate the parameters of this segment; costs a host sync, so it is done once a segment."""
        for part in (self.delay, self.heterogeneity):
            if part is not None:
                part.check()

    def extra_repr(self) -> str:
        return self.site.name


def _built(config: ComponentConfig, site: Site, generator: torch.Generator | None) -> Any:
    part, wanted = config.build(site, generator), INTERFACES.get(config.kind)
    if wanted is None or not isinstance(part, wanted):
        found = f"{type(config).__name__}.build() of kind {config.kind!r} returned {type(part).__name__}"
        expected = f"a {wanted.__name__}" if wanted else f"a kind among {', '.join(INTERFACES)}"
        raise ConfigError(site.name, found, expected, "return the module that the config describes")
    return part


def identity_taps(like: Tensor | None = None) -> Taps:
    """Return the taps of no delay at all, one tap of 1 at tau 0, on the device and in the dtype of ``like``."""
    value = torch.ones(1, 1, 1) if like is None else like.new_ones(1, 1, 1)
    return Taps(value.new_zeros(1, 1, 1, dtype=torch.int64), value, 0)
