"""Where the time loop of a model is, found from an example: within its forward, or around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from delaykit.attaching.trial_runs import lines_aside
from delaykit.planning.snapshot import Snapshot
from delaykit.planning.survey import adapters
from delaykit.wrapping.fused.graph import Constant, Node, Operation, Result, held_tensors, told
from delaykit.wrapping.fused.program import outer_loop
from delaykit.wrapping.fused.proof import uncompiled
from delaykit.wrapping.fused.units import NeuronUnit, Unit, units_of
from delaykit.wrapping.fused.watch import Seen, Watch, answering

PICKS = ("unbind", "__iter__", "select", "split", "chunk", "tensor_split")
OUTSIDE = (
    "the time loop is taken to be outside the model, which is called once a step: {}; loop='inside' says otherwise"
)


def find_loop(net: nn.Module, args: Any, kwargs: Any) -> tuple[str, str]:
    """Tell where the time loop is: outside, where one call of the model calls every neuron at most once.

    A model that takes whole sequences without a loop, by ``dk.rollout`` for one, calls none more than once either; it
    cannot take a single step, or holds modules that take sequences, or no neuron that is stepped.

    Returns:
        ``"inside"`` or ``"outside"``, and for the latter why.

    Raises:
        Exception: what the model raises for the example, where its loop is inside or it cannot take a single step.
    """
    units = units_of(net)
    whole, error = _tried(net, units, args, lambda: net(*args, **kwargs))
    sequence = args[0] if args and isinstance(args[0], Tensor) and args[0].ndim else None
    begun = _picks_steps(whole) and (error is not None or (sequence is not None and len(sequence) == 1))
    if error is not None and not whole.failed and not begun and not _repeats(whole, units):  # too short for its loop?
        if hasattr(error, "add_note"):  # of Python 3.11
            error.add_note("if the model is called once a step, pass loop='outside'")
        raise error
    if _repeats(whole, units) or begun or (error is None and _takes_sequences(net, units)):
        if error is not None:
            raise error
        return "inside", ""
    one = () if sequence is None else (sequence[:1],)
    step, other = _tried(net, units, args, lambda: outer_loop(net, *one, *args[1:], **kwargs))
    if other is None and not _repeats(step, units) and not (error is not None and _picks_steps(step, *one)):
        found = "net(example) calls no neuron twice" if error is None else f"net(example) raises {told(error)}"
        return "outside", OUTSIDE.format(found)
    if error is not None:
        if other is not None and hasattr(error, "add_note"):
            error.add_note(f"dk.fused also called the model once a step, which raised {told(other)}")
        raise error
    if other is not None and one and _tried(net, units, args, lambda: net(one[0][0], *args[1:], **kwargs))[1] is None:
        raise other  # a step, whose states nobody hands on
    return "inside", ""


def _tried(net: nn.Module, units: dict[str, Unit], args: Any, run: Callable[[], Any]) -> tuple[Seen, Exception | None]:
    """Watch a run, leave the model as it was, and return what was seen until it ended or raised."""
    before = Snapshot(net)
    watcher = Watch(units, tree_leaves(args), held_tensors(net))
    try:
        with lines_aside(net), torch.enable_grad(), uncompiled(), answering(watcher.spies()), watcher:
            run()
    except Exception as error:
        return watcher.seen, error
    finally:
        before.restore()
    return watcher.seen, None


def _takes_sequences(net: nn.Module, units: dict[str, Unit]) -> bool:
    """Tell whether what runs over time is fed whole sequences, by modules that hold the loop, and no neuron's step."""
    if not any(isinstance(unit, NeuronUnit) for unit in units.values()):
        return True
    known = adapters()
    found = (adapter.find(path, module)[1] for path, module in net.named_modules() for adapter in known)
    loops = any(neuron is not None and neuron.style != "step" for neuron in found)
    return loops or any(isinstance(module, nn.RNNBase) for module in net.modules())


def _repeats(seen: Seen, units: dict[str, Unit]) -> bool:
    """Tell whether a neuron was called twice; a step may use a Linear twice."""
    neurons = [path for path, unit in units.items() if isinstance(unit, NeuronUnit)]
    return any(len(seen.calls[path]) > 1 for path in neurons or seen.calls)


def _picks_steps(seen: Seen, around: Any = None) -> bool:
    """Tell whether a unit was fed a part of something that was cut along a dimension, as time loops cut sequences.

    Not of ``around``, which the loop around the model cuts.
    """
    fed = [call.input for calls in seen.calls.values() for call in calls if call.input is not None]
    return any(_picked(node, around) for node in fed)


def _picked(node: Node, around: Any) -> bool:
    if not isinstance(node, Result):
        return False
    operation: Operation = node.operation
    name, index = getattr(operation.function, "__name__", ""), operation.args[1:]
    if name in PICKS or (name == "__getitem__" and any(type(x) is int for x in tree_leaves(index))):
        base = next(iter(tree_leaves((operation.args, operation.kwargs))), None)
        return not (isinstance(base, Constant) and base.tensor is around)
    return any(isinstance(x, Node) and _picked(x, around) for x in tree_leaves((operation.args, operation.kwargs)))
