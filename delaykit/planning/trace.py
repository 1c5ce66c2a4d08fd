"""One run of the example, watched: which connection is called when, and which neuron hears it.

Every tensor that a connection or a neuron returns is tagged with the call that made it, and a dispatch mode passes the
tags on through whatever lies between (pooling, normalisation, addition, indexing). So the plan knows which neuron a
connection drives and which calls of a neuron form one stream.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _len_torch_dispatch_stack, _pop_mode_temporarily
from torch.utils.weak import WeakTensorKeyDictionary

from delaykit.attaching.adapter import Neuron, Spot
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.connection.products import channel_space
from delaykit.attaching.neuron.membrane_checks import is_untouched, odd_membrane
from delaykit.attaching.retyping import become_, mixins_of, original_class, retyped_class
from delaykit.attaching.trial_runs import lines_aside
from delaykit.functional.engine_base import version_of
from delaykit.planning.between.layout import CALLS, RowMarks
from delaykit.planning.between.products import has_own_forward, is_product, stays_product
from delaykit.planning.modules_between import Alterations, SeesDropout
from delaykit.planning.snapshot import restored

FORGETFUL = ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_full", "zero_", "fill_")
Tag = tuple[str, str, int]  # ("site" | "state", path, number of the call)
BEGIN = "begin"  # of a tag: the membrane that a neuron had when the model was called, path, 0


@dataclasses.dataclass
class Call:
    """One call of a connection or neuron during the example."""

    number: int
    root: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...] = ()
    tags: frozenset[Tag] = frozenset()
    state_tags: frozenset[Tag] = frozenset()
    given: str = "none"  # neuron: no explicit state | "held": the very membrane that it keeps | "fresh": another one
    kept: bool = False  # neuron: it went on from a state that it had before this call of the model began
    anew: bool = False  # neuron: this call of the model has given it another state before its first step
    given_input: Tensor | None = None  # neuron: its input, held so that its address is its own
    left: bool = False  # neuron: it keeps a membrane that its adapter can find, for the next call
    odd: str = ""  # neuron: what is wrong with the membrane that its adapter found behind it, or in the call
    untouched: bool = False  # neuron: its membrane is the very tensor of before, and nobody wrote to it
    handed: bool = True  # neuron: called as `output, state = neuron(input, state)`, as far as can be seen
    state: type = type(None)  # neuron: of what kind the state is that it returned
    outside: bool = False  # connection: after the model was called, and not inside such a call
    steps: dict[str, int] = dataclasses.field(default_factory=dict)  # connection: those of each neuron before it
    linear: bool = True  # connection: the output was the product of input and weight, and nothing else

    def same_input(self, other: Call) -> bool:
        """Tell whether both calls were given the very same tensor: a constant, not slices of a sequence."""
        mine, theirs = self.given_input, other.given_input
        return mine is not None and theirs is not None and mine.data_ptr() == theirs.data_ptr() and mine.numel() > 0


@dataclasses.dataclass
class Trace:
    """What the example run showed."""

    roots: int = 0
    inside: int = 0  # how deep in calls of the model the run is
    sites: dict[str, list[Call]] = dataclasses.field(default_factory=dict)
    neurons: dict[str, list[Call]] = dataclasses.field(default_factory=dict)
    order: list[str] = dataclasses.field(default_factory=list)  # neuron paths, in the order of their first call
    before: dict[str, Any] = dataclasses.field(default_factory=dict)  # membranes when the present root call began
    between: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)  # site: operation: neuron it came to
    rows: RowMarks = dataclasses.field(default_factory=RowMarks)

    def consumers(self, site: str, call: int) -> list[tuple[str, Call]]:
        """Return the neuron calls that heard this call of a connection, directly or through other connections."""
        tag: Tag = ("site", site, call)
        heard = [(path, c) for path, calls in self.neurons.items() for c in calls if tag in c.tags]
        if heard:
            return heard
        later = [(name, c.number) for name, calls in self.sites.items() for c in calls if tag in c.tags]
        return [found for name, number in later for found in self.consumers(name, number)]


class _Provenance(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # which imports it, for seconds
        return False

    def __init__(self, rows: RowMarks) -> None:
        super().__init__()
        self.tags = WeakTensorKeyDictionary()
        self.alterations = Alterations()
        self.rows = rows

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        ahead = self.rows.ahead(func, args, kwargs)
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in FORGETFUL:  # a reset: the values of the old tensor are gone
            self.forget(output)
            return output
        self.rows.behind(ahead, output)
        tags = self.of((args, kwargs))
        if tags:
            for tensor in tensors_in(output):
                self.tags[tensor] = self.tags.get(tensor, frozenset()) | tags
            self.alterations.note(func.overloadpacket.__name__, tags, (args, kwargs), output)
        return output

    def of(self, values: Any) -> frozenset[Tag]:
        found = [self.tags.get(tensor, frozenset()) for tensor in tensors_in(values)]
        return frozenset().union(*found) if found else frozenset()

    def forget(self, output: Tensor) -> None:
        self.tags.pop(output, None)
        self.rows.forget(output)
        self.alterations.forget(output)

    def add(self, tensor: Tensor | None, tag: Tag) -> None:
        if tensor is not None:
            self.tags[tensor] = self.of(tensor) | {tag}

    def mark(self, values: Any, tag: Tag) -> None:
        self.alterations.forget(values)
        for tensor in tensors_in(values):
            self.tags[tensor] = frozenset((tag,))


class _OutsideDynamo(_Provenance):
    """Where the model may be compiled: what the plan does then is not."""

    __torch_dispatch__ = torch._disable_dynamo(cast(Any, _Provenance).__torch_dispatch__, recursive=True)


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    """Let operations of the plan itself pass by what watches those of the model."""
    with _pop_mode_temporarily() if _len_torch_dispatch_stack() else contextlib.nullcontext():
        yield


Witness = Callable[[str, Any, Any], None]  # path of a connection or neuron, its arguments, what it returned


def chains_of(calls: list[Call]) -> list[int]:
    """Number the streams of a neuron's calls: a call continues the stream whose state it was given."""
    chains: list[int] = []
    fresh = 0
    for call in calls:
        before = [tag[2] for tag in call.state_tags if tag[2] < call.number]
        if before:
            chains.append(chains[max(before)])
        else:
            chains.append(fresh)
            fresh += 1
    return chains


def run_example(
    net: nn.Module, example: Any, spots: Sequence[Spot], neurons: Sequence[Neuron], witness: Witness | None = None
) -> Trace:
    """Run the example once, in eval mode without gradients, and restore everything it touched.

    Args:
        net: the model.
        example: a batch, a tuple of arguments, or a callable that runs one sequence.
        spots: the connections to watch.
        neurons: the neurons to watch.
        witness: is shown every call that is watched, after it.
    """
    witness = witness or (lambda path, arguments, output: None)
    trace = Trace()
    provenance = (_OutsideDynamo if "torch._dynamo" in sys.modules else _Provenance)(trace.rows)
    with lines_aside(net), restored(net), contextlib.ExitStack() as stack, torch.no_grad():
        net.eval()
        # Neurons first, then the connections inside them, then the root: mixins stack on the same module.
        for neuron in neurons:
            stack.enter_context(spied(neuron.module, _neuron_spy(trace, provenance, neuron, witness)))
        for spot in {id(s.module): s for s in spots if not s.slot}.values():
            names = [s.name for s in spots if s.module is spot.module]
            stack.enter_context(spied(spot.module, _site_spy(trace, provenance, names[0], spot.module, witness)))
        stack.enter_context(spied(net, _root_spy(trace, provenance, neurons)))
        with SeesDropout(provenance), provenance:
            _call(net, example)
    return trace


def _call(net: nn.Module, example: Any) -> None:
    if isinstance(example, tuple):
        net(*example)
    elif isinstance(example, Tensor) or not callable(example):
        net(example)
    else:
        example()


def _site_spy(
    trace: Trace, provenance: _Provenance, name: str, module: nn.Module, witness: Witness
) -> Callable[..., Any]:
    own = has_own_forward(module)

    def spy(base: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls = trace.sites.setdefault(name, [])
        call = Call(len(calls), trace.roots, _shape(args, kwargs), tags=provenance.of((args, kwargs)))
        calls.append(call)
        call.outside = trace.roots > 0 and not trace.inside
        call.steps = {path: len(steps) for path, steps in trace.neurons.items()}
        lead = len(call.input_shape) - 1 - channel_space(module)
        with _unwatched():
            trace.rows.arrive("state", name, (args, kwargs), lead)
        output = base(*args, **kwargs)
        call.output_shape = _shape((output,), {})
        call.linear = not own or is_product(module, output, args, kwargs)
        if own and not call.number:
            call.linear = call.linear and stays_product(module, base, args, kwargs)
        provenance.mark(output, ("site", name, call.number))
        if call.number < CALLS:
            with _unwatched():
                trace.rows.begin("site", name, output, lead)
        witness(name, (args, kwargs), output)
        return output

    return spy


def _neuron_spy(trace: Trace, provenance: _Provenance, neuron: Neuron, witness: Witness) -> Callable[..., Any]:
    adapter, module = neuron.adapter, neuron.module

    def spy(base: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if neuron.path not in trace.neurons:
            trace.order.append(neuron.path)
        calls = trace.neurons.setdefault(neuron.path, [])
        given = adapter.given_state(module, args, kwargs)
        held = adapter.held_state(module) if neuron.follows else []
        call = Call(len(calls), trace.roots, _shape(args, kwargs), tags=provenance.of(args[:1]))
        for tag, operation in provenance.alterations.of(args[:1]):
            trace.between.setdefault(tag[1], {}).setdefault(operation, neuron.path)
        call.given_input = args[0] if args and isinstance(args[0], Tensor) else None
        call.state_tags = frozenset(t for t in provenance.of(given or held) if t[0] == "state" and t[1] == neuron.path)
        membrane = adapter.membrane(module) if neuron.follows else None
        if given:
            call.given = "held" if any(g is membrane for g in given) else "fresh"
        began = trace.roots == 0 or (calls and calls[-1].root == trace.roots)
        call.kept = neuron.follows and not given and not began and membrane is trace.before.get(neuron.path)
        if neuron.follows and not began and call.given != "fresh":
            call.anew = membrane is not None and (BEGIN, neuron.path, 0) not in provenance.of(membrane)
        calls.append(call)
        passed = adapter.given_membrane(module, args, kwargs) if neuron.follows else None
        before = None if membrane is None or membrane.is_meta else (version_of(membrane), membrane.clone())
        with _unwatched():
            trace.rows.arrive("site", neuron.path, args[:1], 2)
        trace.rows.pause(1)
        try:
            output = base(*args, **kwargs)
        finally:
            trace.rows.pause(-1)
        call.output_shape = _shape((output,), {})
        if neuron.follows:
            after = adapter.membrane(module)
            call.odd = odd_membrane(after, passed, output)
            call.untouched = after is membrane and not call.odd and is_untouched(after, before, args)
        else:
            call.handed = _is_handed_on(args, output)
            call.state = type(output[1]) if call.handed else call.state
        left = adapter.held_state(module) if neuron.follows else []
        call.left = neuron.follows and adapter.membrane(module) is not None
        provenance.mark((output, left), ("state", neuron.path, call.number))
        trace.rows.forget((output, left))
        if call.number < CALLS:
            with _unwatched():
                trace.rows.begin("state", neuron.path, output, 2)
        witness(neuron.path, (args, kwargs), output)
        return output

    return spy


def _is_handed_on(args: tuple[Any, ...], output: Any) -> bool:
    """Tell whether a call may be ``output, state = neuron(input, state)``; what is passed by name may be."""
    pair = isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor)
    return pair and (not args or isinstance(args[0], Tensor))


def _root_spy(trace: Trace, provenance: _Provenance, neurons: Sequence[Neuron]) -> Callable[..., Any]:
    def spy(base: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if trace.inside == 0:
            trace.roots += 1
            trace.before = {n.path: n.adapter.membrane(n.module) for n in neurons if n.follows}
            for path, membrane in trace.before.items():
                provenance.add(membrane, (BEGIN, path, 0))
        trace.inside += 1
        try:
            return base(*args, **kwargs)
        finally:
            trace.inside -= 1

    return spy


def _shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    tensors = tensors_in((args, kwargs))
    return tuple(tensors[0].shape) if tensors else ()


@contextlib.contextmanager
def spied(module: nn.Module, spy: Callable[..., Any]) -> Iterator[None]:
    """Send every call of a module, by ``()`` or ``.forward``, through ``spy``; the class is given back afterwards."""
    before = module.__class__
    busy = False

    def through(base: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal busy
        if busy:  # __call__ leads to forward: one call, seen once
            return base(*args, **kwargs)
        busy = True
        try:
            return spy(base, args, kwargs)
        finally:
            busy = False

    class Spy:
        keeps_signature = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return through(super().__call__, args, kwargs)  # type: ignore[misc]

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return through(super().forward, args, kwargs)  # type: ignore[misc]

    mixins = (*mixins_of(module), Spy)
    become_(module, retyped_class.__wrapped__(original_class(module), mixins))  # not cached: it refers to this run
    try:
        yield
    finally:
        module.__class__ = before
