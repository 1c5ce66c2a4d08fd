"""Rules: patterns on site names, and what to put there."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from delaykit import checks
from delaykit.attaching.clocks import POLICIES
from delaykit.errors import ConfigError, DelaykitError, UnknownNameError
from delaykit.functional.inputs import check_tensors
from delaykit.interfaces import ComponentConfig
from delaykit.time_constants import TimeConstants

Options = TypeVar("Options", bound=object)
RECURRENT_WEIGHTS = ("orthogonal", "zeros")
OF_WHOLE = "another reset: a call with a whole sequence begins anew, since nobody says where one in pieces ends"
ASK_WHOLE = (
    "write reset='root', and each call begins anew; give pieces of one sequence to Norse's SequentialState, or to a "
    "layer before a neuron that keeps its state (reset='follow'), or take it step by step"
)
NONE_HERE = {
    "connection": "connections are Linear and convolution layers, and the weights of neurons that an adapter knows",
    "neuron": "neurons are those that an adapter knows: snnTorch's, Norse's and those of installed plugins",
}


def _shows_arguments(cls: type[Options]) -> type[Options]:
    """Let ``help`` and editors show the arguments of ``__init__``, where they would show those of ``__new__``."""
    _, *arguments = inspect.signature(cls.__init__).parameters.values()
    cls.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    return cls


@_shows_arguments
@dataclasses.dataclass(frozen=True, init=False)
class At:
    """Components for a site, with options of the site.

    Args:
        components: configs, e.g. ``FreeDelay("axonal")``; at most one delay and one heterogeneity.
        reset: ``auto`` (the plan decides), ``root``, ``follow``, ``carried``, or, for layers that are called at every
            step, ``manual``.
        time_dim: dimension of the connection's input that is time, when it is called once for a whole sequence.

    Example:
        >>> from delaykit import At, FreeDelay
        >>> At(FreeDelay("axonal"), reset="manual").reset
        'manual'
    """

    components: tuple[ComponentConfig, ...]
    reset: str = "auto"
    time_dim: int | None = None

    def __new__(cls, *components: Any, **named: Any) -> At:
        """Refuse options that there are not, before Python does so in its own words."""
        checks.known("At", named, ("reset", "time_dim"))
        return super().__new__(cls)

    def __init__(self, *components: ComponentConfig, reset: str = "auto", time_dim: int | None = None) -> None:
        object.__setattr__(self, "components", _configs("At", components))
        object.__setattr__(self, "reset", reset)
        object.__setattr__(self, "time_dim", time_dim)
        if not components:
            raise ConfigError("At", "no component", "one or several", "pass e.g. At(FreeDelay('axonal'), ...)")
        if not isinstance(reset, str) or reset not in ("auto", *POLICIES):
            fix = "leave reset out, and the plan decides"
            raise ConfigError("At.reset", checks.shown(reset), f"one of auto, {', '.join(POLICIES)}", fix)
        if time_dim is not None and (not isinstance(time_dim, int) or isinstance(time_dim, bool)):
            fix = "pass 0 where the input is (time, batch, channel)"
            raise ConfigError("At.time_dim", checks.shown(time_dim), "an integer dimension or None", fix)
        if time_dim is not None and reset == "manual":
            raise ConfigError("At.reset", f"'manual' with time_dim={time_dim}", OF_WHOLE, ASK_WHOLE)


@_shows_arguments
@dataclasses.dataclass(frozen=True, init=False)
class Recurrent:
    """Give a neuron a delayed all-to-all recurrent connection; used as the value of a neuron's name.

    Args:
        components: configs for the new connection.
        weight: ``orthogonal``, ``zeros``, or a (neuron, neuron) tensor.
        bias: whether the connection has a bias (zero at first).
        reset: as in :class:`At`.

    Example:
        >>> from delaykit import FreeDelay, Recurrent
        >>> Recurrent(FreeDelay("axonal"), weight="zeros").weight
        'zeros'
    """

    components: tuple[ComponentConfig, ...]
    weight: Any = "orthogonal"
    bias: bool = False
    reset: str = "auto"

    def __new__(cls, *components: Any, **named: Any) -> Recurrent:
        """Refuse options that there are not, before Python does so in its own words."""
        checks.known("Recurrent", named, ("weight", "bias", "reset"))
        return super().__new__(cls)

    def __init__(
        self, *components: ComponentConfig, weight: str | Tensor = "orthogonal", bias: bool = False, reset: str = "auto"
    ) -> None:
        object.__setattr__(self, "components", _configs("Recurrent", components))
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "reset", reset)
        if isinstance(weight, str) and weight not in RECURRENT_WEIGHTS:
            expected, fix = f"one of {', '.join(RECURRENT_WEIGHTS)} or a tensor", "name one of them, or pass the matrix"
            raise ConfigError("Recurrent.weight", checks.shown(weight), expected, fix)
        if not isinstance(weight, (str, Tensor)):
            expected = f"one of {', '.join(RECURRENT_WEIGHTS)} or a tensor"
            raise ConfigError("Recurrent.weight", type(weight).__name__, expected, "torch.as_tensor(weight)")
        if isinstance(weight, Tensor):
            if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
                fix = "give one weight for each pair of neurons"
                raise ConfigError("Recurrent.weight", f"shape {tuple(weight.shape)}", "a square matrix", fix)
            check_tensors("Recurrent", weight=weight)
            if not bool(torch.isfinite(weight).all()):
                raise ConfigError("Recurrent.weight", "NaN or infinite values", "finite values", "correct the weights")
        checks.flag("Recurrent.bias", bias)
        if not isinstance(reset, str) or reset not in ("auto", *POLICIES):
            fix = "leave reset out, and the plan decides"
            raise ConfigError("Recurrent.reset", checks.shown(reset), f"one of auto, {', '.join(POLICIES)}", fix)


ON_NEURONS = (Recurrent, TimeConstants)
One = ComponentConfig | At | Recurrent
Rule = One | tuple[One, ...]


def select(
    rules: Mapping[str, Rule], sites: Iterable[str], neurons: Iterable[str]
) -> tuple[dict[str, Any], dict[tuple[str, str], TimeConstants], list[DelaykitError]]:
    """Match every rule against site and neuron names; a later rule wins where two match.

    Returns:
        ``{name: At or Recurrent}``, ``{(neuron, state): TimeConstants}`` and the problems found.
    """
    site_names, neuron_names = list(sites), list(neurons)
    chosen: dict[str, Any] = {}
    constants: dict[tuple[str, str], TimeConstants] = {}
    problems: list[DelaykitError] = []
    if not isinstance(rules, Mapping) or not rules:
        problems.append(
            ConfigError("rules", checks.shown(rules), "a dict {site pattern: component}", "e.g. {'fc*': FreeDelay()}")
        )
        return chosen, constants, problems
    for pattern, value in rules.items():
        try:
            parts = as_rules(pattern, value)
        except DelaykitError as error:
            problems.append(error)
            continue
        for rule in parts:
            names = neuron_names if isinstance(rule, ON_NEURONS) else site_names
            hits = [n for n in names if fnmatch.fnmatchcase(n, pattern)]
            if not hits:
                problems.append(_no_match(pattern, isinstance(rule, ON_NEURONS), site_names, neuron_names))
            if isinstance(rule, TimeConstants):
                constants.update({(name, rule.state): rule for name in hits})
            else:
                chosen.update(dict.fromkeys(hits, rule))
    return chosen, constants, problems


def as_rules(pattern: str, value: Any) -> list[At | Recurrent | TimeConstants]:
    """Bring a rule's value into its parts: what goes on neurons, and one :class:`At` for the connections."""
    if not isinstance(pattern, str):
        raise ConfigError("rules", f"{pattern!r} for a name", "a string", f"write {str(pattern)!r}")
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not values:
        fix = "leave the rule out, or pass e.g. FreeDelay('axonal')"
        raise ConfigError(f"rule {pattern!r}", "no component", "one or several", fix)
    if len(values) == 1 and isinstance(values[0], At):
        return [values[0]]
    rules: list[At | Recurrent | TimeConstants] = [part for part in values if isinstance(part, ON_NEURONS)]
    states = [part.state for part in rules if isinstance(part, TimeConstants)]
    if len(set(states)) < len(states) or sum(isinstance(part, Recurrent) for part in rules) > 1:
        fix = "leave one of them out"
        raise ConfigError(f"rule {pattern!r}", "two of a kind for one neuron", "one for each of its states", fix)
    rest = _configs(f"rule {pattern!r}", [part for part in values if not isinstance(part, ON_NEURONS)])
    return [*rules, At(*rest)] if rest or not rules else rules


def _configs(where: str, components: Sequence[Any]) -> tuple[ComponentConfig, ...]:
    for component in components:
        if not isinstance(component, ComponentConfig):
            raise ConfigError(
                where,
                checks.shown(component),
                "component configs such as FreeDelay('axonal')",
                "pass an instance of a component config",
            )
    return tuple(components)


def _no_match(pattern: str, wants_neuron: bool, sites: list[str], neurons: list[str]) -> UnknownNameError:
    kind = "neuron" if wants_neuron else "connection"
    here, other = (neurons, sites) if wants_neuron else (sites, neurons)
    near = difflib.get_close_matches(pattern, here, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else "use one of the names above" if here else NONE_HERE[kind]
    if any(fnmatch.fnmatchcase(n, pattern) for n in other):
        fix = (
            "that name is a connection; dk.Recurrent and dk.TimeConstants go on a neuron"
            if wants_neuron
            else "that name is a neuron: use dk.Recurrent(...) to give it a connection, or name the one into it"
        )
    expected = f"a {kind} among {', '.join(here)}" if here else f"a {kind}, but this model has none"
    return UnknownNameError(f"rule {pattern!r}", f"no {kind} of that name", expected, fix)
