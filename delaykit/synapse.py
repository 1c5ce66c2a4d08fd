"""One connection's synapse: the parts composed, and the operator that runs them."""

from __future__ import annotations

import contextlib
import itertools
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.arrivals import Hard, Linear, Triangle, check_spread
from delaykit.engines.cells import cells_engine
from delaykit.engines.decay import DecayEngine, Decaying, lingering_response
from delaykit.engines.dropout import DropoutEngine
from delaykit.engines.exact_gradients import Listener, exact_engine, refuse_exact
from delaykit.engines.linear import (
    ConvolutionEngine,
    LineEngine,
    MatrixEngine,
    Product,
    ResponseEngine,
    identity_taps,
    response_of,
)
from delaykit.engines.tents import tents_engine
from delaykit.errors import ConfigError, PluginError
from delaykit.functional.draws import Draws, drawing
from delaykit.functional.engine_base import Engine, Stepper
from delaykit.functional.recurrence.state import Recurrence
from delaykit.functional.taps import checked
from delaykit.interfaces import (
    ESTIMATORS,
    GRANULARITIES,
    ComponentConfig,
    Delay,
    Heterogeneity,
    PointDelay,
    Pruning,
    Site,
)
from delaykit.sizes import MEND, SITE, check_sizes, method_of, remember_sizes_

__all__ = ["Engine", "Product", "Stepper", "Synapse"]

MEMORY = "#pruning"  # a part of a state_dict's keys: what prunings remember
INTERFACES = {"delay": Delay, "heterogeneity": Heterogeneity, "pruning": Pruning}


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
        if not site.has_matrix:
            self._refuse_what_needs_a_matrix(site)

    def _refuse_what_needs_a_matrix(self, site: Site) -> None:
        delay, fan_in = self.delay, site.fan_in
        lines = self.heterogeneity is None and (delay is None or isinstance(delay, PointDelay))
        synaptic = isinstance(delay, PointDelay) and delay.granularity == "synaptic"
        if not lines or (synaptic and (fan_in is None or delay is None or delay.estimator == "exact")):
            raise ConfigError(
                site.name,
                "a component that needs a (post, pre) weight matrix",
                "a delay with the estimator 'interp' on a convolution; of a layer, axonal or dendritic elsewhere",
                "use FreeDelay('axonal'), or put the component on a Linear or recurrent connection",
            )
        if synaptic and isinstance(delay, PointDelay) and delay.delays().shape != (site.post, fan_in):
            found = f"{tuple(delay.delays().shape)} delays"
            expected = f"({site.post}, {fan_in}): an output channel and the input channels of its group"
            raise ConfigError(site.name, found, expected, "use FreeDelay('synaptic') on a convolution in groups")

    def impulse_response(self, weight: Tensor, depth: int | None = None) -> Tensor:
        """Convolve the parts: weight (post, pre) -> (post, pre, depth). The judge of every faster path.

        Args:
            weight: (post, pre).
            depth: number of steps to return; needed with a heterogeneity, whose response has no end.
        """
        return lingering_response(self.heterogeneity, self.delay, weight, depth)

    def engine(self, product: Product, draws: Draws | None = None) -> Engine:
        """Compute this segment's parameters once and pick the operator that runs them.

        Args:
            product: the module's own linear map.
            draws: random numbers of the sequence that the segment belongs to; None: it is all of one.

        Raises:
            DelayRangeError: a delay is NaN, infinite, negative or too large.
        """
        self.check()
        own = contextlib.nullcontext() if draws is None else drawing(draws)
        with torch.enable_grad(), own:  # a segment may begin under no_grad and train later
            engine = self._engine(product)
        engine.read_from(product.weight_of(engine), product.bias)
        if self.delay is None:
            return engine
        engine.remember = self.delay.longest()
        return DropoutEngine(engine, self.delay) if self.delay.dropout > 0 else engine

    def traced_engine(self, product: Product) -> Engine | None:
        """Do what :meth:`engine` does under ``torch.compile``; None where that cannot become part of a graph.

        What is computed once a segment is then computed by the graph at every call, and the delays are looked at.
        """
        delay, weight = self.delay, product.weight
        known = isinstance(delay, PointDelay) and type(delay).taps is PointDelay.taps
        if weight is None or self.heterogeneity is not None or not known:
            return None
        assert isinstance(delay, PointDelay)
        own = type(delay).engine is not Delay.engine or not isinstance(delay.kernel(), (Linear, Triangle, Hard))
        if own or delay.estimator == "exact" or delay.dropout > 0:
            return None
        taps, behind = delay.taps(), delay.granularity == "dendritic"
        return MatrixEngine(taps, checked(weight, delay.delays().detach()), product.bias, behind)

    def _engine(self, product: Product) -> Engine:
        if self.delay is not None and self.delay.estimator == "exact":
            refuse_exact(self.site, self.delay, self.heterogeneity)
            assert isinstance(self.delay, PointDelay)
            return exact_engine(self.site.name, self.delay, self.listener, product)
        if product.weight is None:
            return self._line_engine(product)
        weight, bias = product.weight, product.bias
        if self.heterogeneity is not None:
            own = self.heterogeneity.engine(weight, bias, self.delay)
            return own or DecayEngine(Decaying(self.heterogeneity, self.delay, weight, bias))
        if self.delay is None:
            return MatrixEngine(identity_taps(weight), weight, bias)
        own = self.delay.engine(weight, bias)
        if own is not None:
            return own
        if isinstance(self.delay, PointDelay):
            by_cells = tents_engine(self.delay, weight, bias) or cells_engine(self.delay, weight, bias)
            return by_cells or MatrixEngine(self.delay.taps(), weight, bias, self.delay.granularity == "dendritic")
        return ResponseEngine(response_of(self.delay, weight), bias)

    def _line_engine(self, product: Product) -> Engine:
        if self.delay is None:
            return LineEngine(identity_taps(next(self.parameters(), None)), product, before=True)
        assert isinstance(self.delay, PointDelay)
        taps = self.delay.taps()
        if self.delay.granularity == "synaptic":
            if product.convolution is None:
                found, fix = "a convolution with a product of its own", "use FreeDelay('axonal')"
                raise ConfigError(self.site.name, found, "one of torch's convolutions", fix)
            return ConvolutionEngine(taps, product.convolution, product.bias)
        return LineEngine(taps, product, before=self.delay.granularity != "dendritic")

    def recurrence(self, weight: Tensor, bias: Tensor | None) -> Recurrence | None:
        """Pick how a rollout runs this connection with a recurrent weight ``(post, post)``; None: step by step.

        Raises:
            DelayRangeError: a delay or a decay cannot run.
        """
        self.check()
        if self.heterogeneity is not None:
            if self.delay is not None or self.heterogeneity.engine(weight, None, None) is not None:
                return None
            return Recurrence(weight, bias, Decaying(self.heterogeneity, None, weight, None).fading())
        if self.delay is None:
            return Recurrence(weight, bias)
        through = self.delay.recurrence()
        return None if through is None else Recurrence(weight, bias, through)

    def check(self) -> None:
        """Validate the parameters of this segment; costs a host sync, so it is done once a segment."""
        if self.delay is not None:
            _check_attributes(self.delay)
        for part in (self.delay, self.heterogeneity):
            if part is not None:
                check_sizes(self.site.name, part)
                part.check()
        if isinstance(self.delay, PointDelay):
            check_spread(method_of(self.delay, "kernel"), self.delay.kernel())

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for number, pruning in enumerate(self.prunings):
            for name, value in pruning.state().items():
                destination[f"{prefix}{MEMORY}.{number}.{name}"] = value

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        found = any(key.startswith(prefix) for key in state_dict)
        for number, pruning in enumerate(self.prunings):
            start = f"{prefix}{MEMORY}.{number}."
            mine = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(start)}
            if found:  # without one there was nothing pruned yet
                pruning.load_state_({key.removeprefix(start): value for key, value in mine.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw delays and decays anew, from torch's generator, as they were drawn when the connection was wrapped.

        Parameters stay the same objects, shared ones shared; prunings forget which synapses there were.

        Raises:
            ConfigError: the parts are no longer those that the configs describe.
        """
        fresh = Synapse(self.site, self.configs)
        if self.heterogeneity is not None and fresh.heterogeneity is not None and self.heterogeneity.needs_neuron:
            fresh.heterogeneity.bind_neuron_(self.heterogeneity.neuron)
        mine, drawn = _parameters_and_buffers(self), _parameters_and_buffers(fresh)
        if [(name, v.shape) for name, v in mine.items()] != [(name, v.shape) for name, v in drawn.items()]:
            fix = "unwrap and wrap again, or wrap a new model"
            raise ConfigError(self.site.name, "parts that were replaced", "those that it was wrapped with", fix)
        for name, values in mine.items():
            values.copy_(drawn[name])
        for pruning in self.prunings:
            pruning.load_state_({})

    def extra_repr(self) -> str:
        return self.site.name


def introduce_(net: nn.Module, synapses: Sequence[Synapse]) -> None:
    """Let each new delay meet the delays that ``net`` has already and the new ones before it.

    Nothing of ``net`` changes: a new delay may take parameters over from an earlier one, never the other way.

    Raises:
        DelaykitError: a delay refuses the others.
    """
    earlier: list[Delay] = [m.delay for m in net.modules() if isinstance(m, Synapse) and m.delay is not None]
    for synapse in synapses:
        if synapse.delay is not None:
            synapse.delay.meet_(tuple(earlier))
            earlier.append(synapse.delay)


def _parameters_and_buffers(synapse: Synapse) -> dict[str, Tensor]:
    return dict(itertools.chain(synapse.named_parameters(), synapse.named_buffers()))


def _built(config: ComponentConfig, site: Site, generator: torch.Generator | None) -> Any:
    part, wanted = config.build(site, generator), INTERFACES.get(config.kind)
    if wanted is None or not isinstance(part, wanted):
        found = f"{method_of(config, 'build')} of kind {config.kind!r} returned {type(part).__name__}"
        expected = f"a {wanted.__name__}" if wanted else f"a kind among {', '.join(INTERFACES)}"
        raise ConfigError(site.name, found, expected, "return the module that the config describes")
    if isinstance(part, nn.Module):
        if "_parameters" not in vars(part):
            expected = "one whose __init__ calls super().__init__() first"
            raise PluginError(method_of(config, "build"), f"an unfinished {type(part).__name__}", expected, MEND)
        remember_sizes_(part)
        vars(part)[SITE] = site
    if isinstance(part, Delay):
        _check_attributes(part)
    return part


def _check_attributes(delay: Delay) -> None:
    """Refuse a delay whose granularity, estimator or dropout is none.

    Raises:
        PluginError: with the attribute of the delay's class.
    """
    words = {"estimator": ESTIMATORS} | ({"granularity": GRANULARITIES} if isinstance(delay, PointDelay) else {})
    dropout = delay.dropout
    wrong = {name: one_of for name, one_of in words.items() if not _among(getattr(delay, name, None), one_of)}
    for name, one_of in wrong.items():
        found, expected = checks.shown(getattr(delay, name, None)), f"one of {', '.join(one_of)}"
        raise PluginError(f"{type(delay).__name__}.{name}", found, expected, "set it in the component's class")
    if isinstance(dropout, bool) or not (isinstance(dropout, numbers.Real) and 0 <= dropout < 1):
        fix = "set it in the component's class"
        raise PluginError(f"{type(delay).__name__}.dropout", checks.shown(dropout), "a number in [0, 1)", fix)


def _among(value: Any, words: Sequence[str]) -> bool:
    return isinstance(value, str) and value in words
