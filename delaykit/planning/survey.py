"""What is in a model: its connections, its neurons, and what cannot be wrapped."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from delaykit import checks
from delaykit.attaching.adapter import Neuron, NeuronAdapter, Spot
from delaykit.attaching.retyping import original_class
from delaykit.attaching.wiring import wiring_of
from delaykit.errors import ConfigError, DelaykitError, PluginError, ShapeError
from delaykit.planning.between.products import has_own_forward
from delaykit.planning.reports import check_found, check_owners
from delaykit.planning.rules import Recurrent
from delaykit.planning.trace import Trace
from delaykit.plugins import registry
from delaykit.plugins.records import ADAPTER_API
from delaykit.synapse import Synapse

_on_trial: contextvars.ContextVar[tuple[type[NeuronAdapter], ...]] = contextvars.ContextVar("_on_trial", default=())


def adapters() -> list[NeuronAdapter]:
    """Return one of every registered adapter, the plain one last: libraries claim their own modules first."""
    names = sorted((c.name for c in registry.components("adapter")), key=lambda name: (name == "torch", name))
    on_trial = {getattr(cls, "name", cls.__name__): cls for cls in _on_trial.get()}
    classes = on_trial | {n: registry.resolve("adapter", n) for n in names if n not in on_trial}
    return [_checked(name, cls) for name, cls in classes.items()]


@contextlib.contextmanager
def adapter_on_trial(cls: type[NeuronAdapter]) -> Iterator[None]:
    """Use an adapter that no plugin registers, or in the place of one of the same name, inside the block.

    Args:
        cls: the adapter.
    """
    token = _on_trial.set((*_on_trial.get(), cls))
    try:
        yield
    finally:
        _on_trial.reset(token)


def _checked(name: str, cls: type[NeuronAdapter]) -> NeuronAdapter:
    if not issubclass(cls, NeuronAdapter):
        raise PluginError(f"adapter {name!r}", f"the class {cls.__name__}", "a subclass of NeuronAdapter", "derive it")
    version, own = getattr(cls, "api", None), getattr(cls, "name", None)
    if not isinstance(own, str) or not own.strip():
        found = f"{cls.__name__}.name = {checks.shown(own)}"
        raise PluginError(f"adapter {name!r}", found, "the name of its library", 'write name = "..." in the class')
    if type(version) is not int or version != ADAPTER_API:
        newer = type(version) is int and version > ADAPTER_API
        fix = "upgrade delaykit" if newer else f"upgrade its plugin, or disable it: DELAYKIT_DISABLE={name}"
        raise PluginError(f"adapter {name!r}", f"interface version {version!r}", f"version {ADAPTER_API}", fix)
    learned = cls.learned
    if learned is not None and not isinstance(learned, type):
        found = f"{cls.__name__}.learned = {checks.shown(learned)}"
        raise PluginError(f"adapter {name!r}", found, "a mixin class, or None", "name the class itself")
    if learned is not None and not _is_mixin(learned):
        found = f"{cls.__name__}.learned = {learned.__name__}, which no neuron can be given in front of its class"
        raise PluginError(f"adapter {name!r}", found, "a plain mixin of properties, or None", "write one")
    if not isinstance(cls.fits, Mapping) or not all(isinstance(names, str) for names in cls.fits.values()):
        found = f"{cls.__name__}.fits = {checks.shown(cls.fits)}"
        raise PluginError(f"adapter {name!r}", found, 'names of neurons by method, {"leak": "..."}', "name them so")
    try:
        return cls()
    except Exception as error:  # whatever an author's __init__ does; an abstract class lacks a method
        found = f"{type(error).__name__} from {cls.__name__}(): {error}"
        raise PluginError(f"adapter {name!r}", found, "a class that is made without arguments", "mend it") from error


@functools.cache
def _is_mixin(cls: type) -> bool:
    """Tell whether a class can go in front of a module's: no module itself, and of Python's usual layout."""
    if issubclass(cls, nn.Module):
        return False
    module = nn.Module()
    try:
        module.__class__ = type(cls.__name__, (cls, nn.Module), {})
    except TypeError:
        return False
    return True


def survey(net: nn.Module) -> tuple[list[Spot], dict[str, Neuron]]:
    """List the connections and neurons of a model; a shared module is listed under each of its names."""
    spots: list[Spot] = []
    neurons: dict[str, Neuron] = {}
    claimed: set[int] = set()
    names = {path: m for path, m in net.named_modules(remove_duplicate=False) if "dk" not in path.split(".")}
    aliases: dict[int, list[str]] = {}
    for path, module in names.items():
        aliases.setdefault(id(module), []).append(path)
    for adapter in adapters():
        for path, module in names.items():
            found, neuron = adapter.find(path, module)
            check_found(adapter, path, names, found, neuron)
            if neuron is not None and id(module) not in {id(n.module) for n in neurons.values()}:
                neurons[path] = neuron
            for spot in found:
                if not spot.slot and id(spot.module) in claimed:
                    continue
                if not spot.slot:
                    claimed.add(id(spot.module))
                spots.append(dataclasses.replace(spot, adapter=spot.adapter or adapter))
    check_owners(spots, names, neurons.values())
    for spot in list(spots):
        if not spot.slot:
            others = [a for a in aliases.get(id(spot.module), []) if a != spot.path]
            spots += [dataclasses.replace(spot, path=a) for a in others]
    return spots, neurons


def primary(spot: Spot, spots: list[Spot]) -> Spot:
    """Return the first listed spot of the same module and slot: a shared module is one site."""
    return next(s for s in spots if s.module is spot.module and s.slot == spot.slot)


def refuse_model(net: nn.Module) -> list[DelaykitError]:
    """Say which wrappers around a model must come after delaykit."""
    kind = type(net).__name__
    if isinstance(net, nn.DataParallel):
        fix = "use DistributedDataParallel: wrap the inner model with delaykit, then DDP"
        return [ConfigError("model", "nn.DataParallel", "a plain model: replicas would share no history", fix)]
    if isinstance(net, nn.parallel.DistributedDataParallel):
        return [
            ConfigError(
                "model", kind, "the inner model", "first dk.wrap_(model, ...), then DistributedDataParallel(model)"
            )
        ]
    if hasattr(net, "_orig_mod"):
        return [
            ConfigError(
                "model", "a compiled model", "the eager model", "first dk.wrap_(model, ...), then torch.compile(model)"
            )
        ]
    if isinstance(net, torch.jit.ScriptModule):
        return [ConfigError("model", "a TorchScript module", "the eager model", "wrap the model before scripting it")]
    if not isinstance(net, nn.Module):
        return [ConfigError("model", f"a {kind}", "a torch.nn.Module", "pass the model first, then the rules")]
    taken = [path for path, module in net.named_modules() if _has_own_dk(module)]
    if taken:
        found = f"a part of its own that is called 'dk' in {', '.join(repr(path) for path in taken)}"
        fix = "rename that part: delaykit hangs what it adds into a module under this name"
        return [ConfigError("model", found, "no module, parameter or buffer called 'dk'", fix)]
    lazy = [name for name, p in net.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        return [
            ConfigError("model", f"lazy {', '.join(lazy)}", "initialised weights", "run the model once before wrapping")
        ]
    return []


def _has_own_dk(module: nn.Module) -> bool:
    """Tell whether a module holds something called ``dk`` that delaykit did not put there."""
    wiring = wiring_of(module)
    if wiring is not None and wiring.sites:
        return False
    return any("dk" in held for held in (module._modules, module._parameters, module._buffers))


def refuse_spot(spot: Spot) -> None:
    """Raise for a connection that cannot take a synapse now."""
    where, found = spot.name, type(spot.module).__name__
    child = spot.module._modules.get("dk")
    if isinstance(child, Synapse) or (child is not None and spot.slot in child._modules):
        raise ConfigError(
            where, "a wrapped connection", "a bare one", "call dk.unwrap_(net) first, then wrap with all rules"
        )
    refuse_taken(where, spot.module)
    if spot.refusal:
        raise ConfigError(where, found, "a connection that adds its input linearly", spot.refusal)
    if "forward" in vars(spot.module):  # it would go before the forward of any class, and with it before the delay
        fix = "delete the attribute, or give the module a class of its own"
        raise ConfigError(where, f"{found} whose forward was replaced on the object", "the forward of its class", fix)
    if parametrize.is_parametrized(spot.module):
        fix = "wrap first, then register the parametrization"
        raise ConfigError(where, "a parametrized module", "a module without parametrizations", fix)


def refuse_taken(where: str, module: nn.Module) -> None:
    """Raise for a module that has an attribute of its own under the name of delaykit's part."""
    if wiring_of(module) is None and hasattr(module, "dk"):
        found = f"{type(module).__name__} with an attribute of its own that is called 'dk'"
        raise ConfigError(where, found, "no attribute called 'dk'", "rename it: delaykit hangs what it adds there")


def refuse_ends(spot: Spot, driven: list[Neuron]) -> None:
    """Raise for a connection that leads to a neuron to which a spike that comes later means nothing."""
    for neuron in driven:
        if neuron.refusal:
            found = f"{original_class(neuron.module).__name__} {neuron.path!r} behind it"
            raise ConfigError(spot.name, found, "a neuron that adds its currents up step by step", neuron.refusal)


def refuse_own_forward(spot: Spot, trace: Trace | None) -> None:
    """Raise for a Linear whose own ``forward`` is not its product: a delayed one computes the product only."""
    if spot.slot or spot.product is not None or not has_own_forward(spot.module):
        return
    where, found = spot.name, f"{type(spot.module).__name__}, a Linear with a forward of its own"
    if trace is None:
        raise ConfigError(where, found, "an example run that shows what it computes", "pass example=")
    if not all(call.linear for call in trace.sites.get(spot.name, [])):
        fix = "compute its weight by torch.nn.utils.parametrize, registered after dk.wrap_; give anything else that it "
        fix += "does to a module of its own before or behind an nn.Linear"
        found += "; its output is not x W' + b, in evaluation and in training"
        raise ConfigError(where, found, "the product of its input and its weight", fix)


def channels(spot: Spot, trace: Trace | None) -> tuple[int, int]:
    """Return (pre, post), from the module or, for one-to-one connections, from the example."""
    if spot.pre is not None and spot.post is not None:
        return spot.pre, spot.post
    calls = (trace.sites if trace else {}).get(spot.name, [])
    if not calls or not calls[0].input_shape:
        raise _unseen(spot.name, "connection", trace)
    return calls[0].input_shape[-1], calls[0].input_shape[-1]


def neuron_size(neuron: Neuron, rule: Recurrent, trace: Trace | None) -> int:
    """Return the number of neurons that a new recurrent connection joins."""
    given = rule.weight.shape[0] if isinstance(rule.weight, torch.Tensor) else None
    calls = trace.neurons.get(neuron.path, []) if trace else []
    if given is not None and trace is None:
        return given
    if not calls:
        raise _unseen(neuron.path, "neuron", trace)
    shape = calls[0].input_shape
    if given is None and len(shape) != 2:
        raise ShapeError(
            neuron.path, f"input of shape {shape}", "(batch, neuron)", "dk.Recurrent joins flat layers only"
        )
    if given is not None and shape[-1:] != (given,):
        found = f"dk.Recurrent(weight=) for {given} neurons, and an input of shape {shape}"
        raise ShapeError(neuron.path, found, "a weight (neuron, neuron)", "give it the number of neurons there are")
    return shape[-1]


def _unseen(where: str, kind: str, trace: Trace | None) -> ShapeError:
    """Say that nobody knows the size of what no run of the model has called."""
    if trace is None:
        found = f"a {kind} whose size only a run can tell"
        return ShapeError(where, found, "an example run that calls it", "pass example=")
    found, fix = f"a {kind} that the example never called", "leave it out of the rules, or check the example"
    return ShapeError(where, found, f"a {kind} that the model uses", fix)
