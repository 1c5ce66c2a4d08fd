"""What adapters report, held to the model: paths and sizes, products, states in which histories ride, decays.

What kind an answer is was asked where it was given, by :mod:`delaykit.checks.answers`; whether it is so is asked here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.connection.products import CONVOLUTIONS, channel_space
from delaykit.attaching.neuron.reported_numbers import has_as_many
from delaykit.attaching.retyping import original_class
from delaykit.checks.answers import MEND, answer_of
from delaykit.errors import DelaykitError, PluginError
from delaykit.functional.delayed_convolution import Convolution
from delaykit.planning.trace import Call
from delaykit.synapse import Product
from delaykit.time_constants import STATES


def check_found(
    adapter: NeuronAdapter, path: str, modules: Mapping[str, nn.Module], found: list[Spot], neuron: Neuron | None
) -> None:
    """Raise where what an adapter found at a path cannot be: another path or module, a size or a step that is none."""
    wrong = [fault for spot in found for fault in _spot_faults(adapter, modules, spot)]
    if neuron is not None:
        if neuron.path != path:
            wrong.append(f"a Neuron with path={neuron.path!r}, asked about {path!r}")
        if neuron.module is not modules[path]:
            wrong.append(f"a Neuron with a module that is not the one at {path!r}")
        if (name := _other_name_of_state(adapter, neuron)) is not None:
            call, fix = f"{type(neuron.module).__name__}(input, {name})", "call that argument of forward state"
            raise PluginError(answer_of(adapter, "find"), f"a Neuron {path!r} of {call}", "(input, state)", fix)
        if neuron.dt_ms is not None and not 0 < neuron.dt_ms < math.inf:
            wrong.append(f"a Neuron with dt_ms={neuron.dt_ms}")
    if wrong:
        expected = "the path asked about, modules at their paths, sizes, none below 0, milliseconds above 0 or None"
        raise PluginError(answer_of(adapter, "find"), wrong[0], expected, MEND)


def _other_name_of_state(adapter: NeuronAdapter, neuron: Neuron) -> str | None:
    """Return what a neuron calls the state that it is given, if that is not ``state``; None where its adapter reads it.

    A call by another name would be taken for one without a state, which begins a sequence.
    """
    if neuron.follows or neuron.style != "step" or type(adapter).given_state is not NeuronAdapter.given_state:
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [name for name, p in inspect.signature(neuron.module.forward).parameters.items() if p.kind in kinds]
    return None if len(names) < 2 or "state" in names else names[1]


def _spot_faults(adapter: NeuronAdapter, modules: Mapping[str, nn.Module], spot: Spot) -> list[str]:
    sizes = [(name, getattr(spot, name)) for name in ("pre", "post")]
    wrong = [f"a Spot with {name}={size}" for name, size in sizes if size is not None and size < 0]
    if modules.get(spot.path) is not spot.module:
        wrong.append(f"a Spot with path={spot.path!r}, where its module is not")
    if type(spot.adapter or adapter).attach_ is NeuronAdapter.attach_:  # it knows whole modules, called at each step
        if spot.slot:
            wrong.append(f"a Spot with slot={spot.slot!r} for {spot.path!r}, and no attach_() for that")
        elif spot.carried and spot.owner is None:
            wrong.append(f"a Spot with carried=True and no owner for {spot.path!r}, and no attach_() for that")
    return wrong


def check_owners(spots: list[Spot], modules: Mapping[str, nn.Module], neurons: Iterable[Neuron]) -> None:
    """Raise for a connection inside a neuron that nobody found."""
    known = {id(neuron.module) for neuron in neurons}
    for spot in spots:
        if spot.owner is not None and spot.adapter is not None and id(modules.get(spot.owner)) not in known:
            found, expected = f"a Spot with owner={spot.owner!r} for {spot.name!r}", "the path of a Neuron, or None"
            raise PluginError(answer_of(spot.adapter, "find"), found, expected, MEND)


def check_spot(spot: Spot, pre: int, post: int, calls: list[Call]) -> None:
    """Raise where the sizes or the product of a connection are not those that it has.

    Args:
        spot: what an adapter reported; one with a slot is its adapter's own affair.
        pre: number of its input channels, as they are believed to be.
        post: of its output channels.
        calls: of the connection in the example; empty without one.

    Raises:
        PluginError: it names the adapter that found the connection.
    """
    adapter = spot.adapter
    if spot.slot or adapter is None:
        return
    space = channel_space(spot.module)
    if spot.product is not None:
        space = _product(spot, adapter, pre, post).space
    for name, size, real in zip(("pre", "post"), (pre, post), _sizes(spot, space, calls), strict=True):
        if real is not None and real != size:
            found = f"a Spot with {name}={size} for {spot.name!r}, which has {real}"
            raise PluginError(answer_of(adapter, "find"), found, "the sizes of the connection", MEND)


def _sizes(spot: Spot, space: int, calls: list[Call]) -> tuple[int | None, int | None]:
    """Return the channels that a connection has, None where nobody knows."""
    module: Any = spot.module
    if spot.product is None and isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if spot.product is None and isinstance(module, CONVOLUTIONS):
        return module.in_channels, module.out_channels
    shapes = (calls[0].input_shape, calls[0].output_shape) if calls else ((), ())
    pre, post = (shape[-1 - space] if len(shape) > space else None for shape in shapes)
    return pre, post


def _product(spot: Spot, adapter: NeuronAdapter, pre: int, post: int) -> Product:
    """Ask a connection for its product; raise where it is none of ``pre`` and ``post`` channels."""
    assert spot.product is not None
    try:
        answer = spot.product(spot.module, spot.module.forward)
        wrong = _no_product(answer, pre, post, spot.has_matrix)
    except DelaykitError:
        raise
    except Exception as error:  # whatever an author's function does
        answer, wrong = None, f"{type(error).__name__}: {error}"
    if wrong:
        found = f"a Spot for {spot.name!r} whose product= answers {wrong}"
        weight = f"with a weight ({post}, {pre})" if spot.has_matrix else f"of {pre} to {post} channels"
        raise PluginError(answer_of(adapter, "find"), found, f"a delaykit.adapters.Product {weight}", MEND)
    product: Any = answer
    return product


def _no_product(answer: Any, pre: int, post: int, has_matrix: bool) -> str:
    """Say what is wrong with a product; "" where nothing is."""
    if not isinstance(answer, Product):
        return checks.shown(answer)
    for name in ("with_bias", "without_bias"):
        if not callable(getattr(answer, name)):
            return f"a Product with {name}={checks.shown(getattr(answer, name))}"
    weight, bias, space = answer.weight, answer.bias, answer.space
    shapes = {"weight": (weight, (post, pre)), "bias": (bias, (post,))}
    for name, (tensor, shape) in shapes.items():
        if tensor is not None and not (isinstance(tensor, Tensor) and tuple(tensor.shape) == shape):
            has = f"of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else checks.shown(tensor)
            return f"a Product with a {name} {has}"
    if type(space) is not int or space < 0:
        return f"a Product with space={checks.shown(space)}"
    if answer.convolution is not None and not isinstance(answer.convolution, Convolution):
        return f"a Product with convolution={checks.shown(answer.convolution)}"
    return "a Product without a weight, for a Spot with has_matrix=True" if has_matrix and weight is None else ""


def check_state(neuron: Neuron, calls: list[Call]) -> None:
    """Raise for a neuron whose histories are to ride in its state, where that is no NamedTuple."""
    for call in calls:
        if call.handed and not (issubclass(call.state, tuple) and hasattr(call.state, "_fields")):
            found = f"a Neuron {neuron.path!r} without recurrent_refusal, whose state is a {call.state.__name__}"
            expected = "a NamedTuple, in which delay histories can ride, or the reason why there can be none"
            raise PluginError(answer_of(neuron.adapter, "find"), found, expected, MEND)


def check_membranes(neuron: Neuron, calls: list[Call]) -> None:
    """Raise where what an adapter finds behind the steps of the example cannot be the membrane that a neuron keeps."""
    looks = [call for call in calls if call.odd]
    if looks:
        found, expected = f"{looks[0].odd} of neuron {neuron.path!r}", "the tensor that the neuron keeps"
        method = "given_membrane" if looks[0].odd.endswith("call") else "membrane"
        raise PluginError(answer_of(neuron.adapter, method), found, expected, MEND)
    if len(calls) > 1 and all(call.untouched for call in calls):
        found = f"a tensor that none of {len(calls)} steps of neuron {neuron.path!r} changed"
        raise PluginError(answer_of(neuron.adapter, "membrane"), found, "the tensor that a step leaves behind", MEND)


def check_decays(neuron: Neuron, decays: dict[str, Tensor], features: tuple[int, ...] | None) -> None:
    """Raise for decays of a state that has no name here, that are no decays, or as many as it has nothing of."""
    sizes = {1} if features is None else {1, *features[:1], math.prod(features)}
    for state, decay in decays.items():
        if features is not None and decay.numel() not in sizes and not has_as_many(neuron.module, decay.numel()):
            found = f"{decay.numel()} decays of {state!r} for a {original_class(neuron.module).__name__}"
            expected = f"one number, or one each of {math.prod(features)} neurons"
            raise PluginError(answer_of(neuron.adapter, "decays"), found, expected, MEND)
        sound = not decay.is_complex() and bool((torch.isfinite(decay) & (decay <= 1)).all())
        if state not in STATES or not sound:
            values, kind = decay.detach().flatten()[:4].tolist(), original_class(neuron.module).__name__
            found = f"a decay of {values} of {state!r} for a {kind}"
            expected = f"finite numbers of at most 1, by {' or '.join(map(repr, STATES))}"
            raise PluginError(answer_of(neuron.adapter, "decays"), found, expected, MEND)
