"""What all laws stand on: the component under test, wrapped into tiny nets or alone on one matrix, and the judge.

Tolerances live here and nowhere else; a test class cannot change them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.functional.event_gradients.rule import NeuronConstants
from delaykit.functional.reference import causal_convolution
from delaykit.interfaces import ComponentConfig, PointDelay, Site
from delaykit.synapse import Product, Synapse
from delaykit.testing.nets.tiny import LIBRARIES, Record, TinyNet, input_spikes
from delaykit.wrapping.controls import wrapped_sites

VALUE_TOLERANCE = 1e-10  # float64 membranes and currents
GRADIENT_TOLERANCE = 1e-9  # float64 gradients
FIRING = (0.02, 0.30)  # fraction of steps at which a neuron fires; outside, a comparison of spikes proves little
FIRING_LINGERING = (0.02, 0.90)  # where currents linger, the same weights drive harder
TIME, BATCH, OPERATOR_SITE = 24, 3, Site("operator", 5, 4)

Law = TypeVar("Law", bound=Callable[..., Any])


def law(*kinds: str, speaks_of: Callable[[TinyNet, Collection[str]], bool] | None = None) -> Callable[[Law], Law]:
    """Say for which kinds of component a law holds, and of which nets and their wrapped sites it speaks: None, all."""

    def mark(method: Law) -> Law:
        method.kinds, method.speaks_of = kinds, speaks_of  # type: ignore[attr-defined]
        return method

    return mark


def require(condition: bool, message: str) -> None:
    """Raise an :class:`AssertionError` that says what broke; pytest does not rewrite the asserts of this package."""
    if not condition:
        raise AssertionError(message)


def assert_equal(found: Iterable[Tensor], wanted: Iterable[Tensor], tolerance: float, what: str) -> None:
    """Compare tensors pairwise, absolute and relative."""
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}")


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return gradients, zeros where a parameter is not used."""
    return list(torch.autograd.grad(loss, list(parameters), allow_unused=True, materialize_grads=True))


def loss_of(record: Record, seed: int = 7) -> Tensor:
    """Weigh every spike and membrane of every step at random, so that no gradient can hide in a sum."""
    generator = torch.Generator().manual_seed(seed)
    shape = record.membranes.shape
    weights = torch.randn((2, *shape), generator=generator, dtype=torch.float64).to(record.membranes.dtype)
    return (weights[0] * record.spikes).sum() + (weights[1] * record.membranes).sum()


@torch.no_grad()
def stir_(parts: Iterable[Any], seed: int = 3) -> None:
    """Move trained parameters off their start: off zero, off whole numbers, off their bounds, and apart."""
    generator = torch.Generator().manual_seed(seed)
    for part in parts:
        for parameter in part.parameters():
            if parameter.requires_grad:
                random = torch.rand(parameter.shape, generator=generator).to(parameter)
                parameter.mul_(0.6 + 0.25 * random).add_(0.07 + 0.1 * random)
        part.project_()


def parts_of(net: nn.Module) -> list[Any]:
    """Return the delay and heterogeneity modules of a wrapped net."""
    found = [part for site in wrapped_sites(net) for part in (site.synapse.delay, site.synapse.heterogeneity)]
    return [part for part in found if part is not None]


def new_parameters(net: nn.Module) -> list[Tensor]:
    """Return the trainable parameters that wrapping added."""
    unique = {id(p): p for part in parts_of(net) for p in part.parameters() if p.requires_grad}
    return list(unique.values())


class _Listener:
    """The neuron behind a lone operator with exact gradients; its input is data."""

    hears_spikes = False

    def constants(self) -> NeuronConstants:
        """Return two time constants."""
        return NeuronConstants(torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64))


class LoneOperator:
    """The component alone on one ``(4, 5)`` matrix, and the dense convolution that judges it.

    Args:
        config: the component.
        stir: move its parameters off their start.
    """

    def __init__(self, config: ComponentConfig, stir: bool = True) -> None:
        generator = torch.Generator().manual_seed(11)
        self.synapse = Synapse(OPERATOR_SITE, (config,), generator).double()
        if self.synapse.delay is not None and self.synapse.delay.estimator == "exact":
            self.synapse.listener = _Listener()
        self.parts = [p for p in (self.synapse.delay, self.synapse.heterogeneity) if p is not None]
        if stir:
            stir_(self.parts)
        shape = OPERATOR_SITE.post, OPERATOR_SITE.pre
        self.weight = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        self.bias = torch.randn(shape[0], generator=generator, dtype=torch.float64).requires_grad_()

    def spikes(self, time: int = TIME, batch: int = BATCH) -> Tensor:
        """Draw real-valued input ``(time, batch, pre)``."""
        generator = torch.Generator().manual_seed(5)
        return torch.randn(time, batch, OPERATOR_SITE.pre, generator=generator, dtype=torch.float64).requires_grad_()

    def leaves(self, spikes: Tensor) -> list[Tensor]:
        """Return everything a gradient must reach."""
        return [spikes, self.weight, self.bias, *(p for p in self.synapse.parameters() if p.requires_grad)]

    def product(self) -> Product:
        """Return the linear map around which the synapse runs."""

        def linear(x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight)

        return Product(lambda x: linear(x) + self.bias, linear, self.weight, self.bias)

    def sequence(self, spikes: Tensor) -> Tensor:
        """Run the whole-sequence operator."""
        return self.synapse.engine(self.product()).sequence(spikes)

    def steps(self, spikes: Tensor) -> Tensor:
        """Run step by step."""
        engine = self.synapse.engine(self.product())
        tape = engine.tape()
        return torch.stack([engine.step(tape, x) for x in spikes])

    def judge(self, spikes: Tensor) -> Tensor:
        """Run the convolution with the component's own impulse response."""
        return causal_convolution(spikes, self.synapse.impulse_response(self.weight, len(spikes))) + self.bias

    def loss(self, current: Tensor) -> Tensor:
        """Weigh every current at random."""
        generator = torch.Generator().manual_seed(13)
        return (current * torch.randn(current.shape, generator=generator, dtype=torch.float64)).sum()


class Kit:
    """What a test class says about its component, and the nets and judges that the laws use.

    ``config``: the component under test, with delays that fit into 24 steps.
    ``identity_config``: the same component where it must be the bare model; None: ``config`` itself is.
    ``libraries``: whose nets to use. ``skip``: ``{law: reason}``. ``rules``: override where one config does not fit
    all sites.
    """

    config: ClassVar[ComponentConfig]
    identity_config: ClassVar[ComponentConfig | None] = None
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES
    sites: ClassVar[str] = "*"
    skip: ClassVar[Mapping[str, str]] = {}

    def rules(self, tiny: TinyNet, config: ComponentConfig) -> dict[str, Any]:
        """Return the rules that put ``config`` into a net; by default on every site that ``sites`` matches."""
        return {site: config for site in tiny.sites if fnmatch.fnmatchcase(site, self.sites)}

    def wrap_(
        self, tiny: TinyNet, net: nn.Module, config: ComponentConfig | None = None, only: tuple[str, ...] | None = None
    ) -> nn.Module:
        """Wrap a bare net in place as a user does; ``only`` some of its sites."""
        rules = self.rules(tiny, config or self.config)
        rules = {site: rule for site, rule in rules.items() if only is None or site in only}
        return dk.wrap_(net, rules, example=self.example(tiny, net), generator=torch.Generator().manual_seed(17))

    def example(self, tiny: TinyNet, net: nn.Module) -> Callable[[], Record]:
        """Return what one run of the net looks like."""
        spikes = input_spikes(4, 2, dtype=next(net.parameters()).dtype)
        return lambda: tiny.run(net, spikes)

    def wrapped(self, tiny: TinyNet, stir: bool = True, only: tuple[str, ...] | None = None) -> nn.Module:
        """Build and wrap a float64 net whose new parameters sit at arbitrary, legal values."""
        net = self.wrap_(tiny, tiny.build(), only=only)
        if stir:
            stir_(parts_of(net))
        return net

    def responses(self, tiny: TinyNet, net: nn.Module, time: int = TIME) -> dict[str, Tensor]:
        """Return the impulse response of every site of a wrapped net, by its definition."""
        responses = tiny.bare_responses(net)
        for site in wrapped_sites(net):
            weight = tiny.connection(net, site.name)[0]
            responses[site.name] = site.synapse.impulse_response(weight, time)
        return responses

    def lines_behind(self, tiny: TinyNet, net: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """Return weight and response ``(post, depth)`` of the sites whose line lies behind the weight (dendritic)."""
        lines = {}
        for site in wrapped_sites(net):
            delay = site.synapse.delay
            if isinstance(delay, PointDelay) and delay.granularity == "dendritic":
                weight = tiny.connection(net, site.name)[0]
                lines[site.name] = weight, delay.impulse_response(weight.new_ones(len(weight), 1))[:, 0]
        return lines

    def judge(self, tiny: TinyNet, net: nn.Module, spikes: Tensor) -> Record:
        """Run the second implementation of the net with the impulse responses of its synapses."""
        return tiny.reference(net, spikes, self.responses(tiny, net, len(spikes)))

    def check_firing(self, record: Record) -> None:
        """Refuse to compare nets that are silent or saturated."""
        low, high = FIRING_LINGERING if self.config.kind == "heterogeneity" else FIRING
        spikes = record.spikes.detach()
        rate, last = float(spikes.mean()), float(spikes[..., -1 - spikes.shape[-1] // 4 :].mean())
        message = f"the tiny net fires {rate:.1%} of the time, outside {low:.0%}..{high:.0%}: nothing would be proved"
        require(low <= rate <= high and last > 0, f"{message}; test a config with delays well below {TIME} steps")


def anatomy(net: nn.Module) -> dict[str, Any]:
    """Return which objects a net is made of, and which attributes they have."""
    modules = {name: (id(m), type(m), sorted(m.__dict__)) for name, m in net.named_modules(remove_duplicate=False)}
    tensors = {name: id(p) for name, p in net.named_parameters(remove_duplicate=False)}
    return {"modules": modules, "parameters": tensors, "keys": list(net.state_dict())}
