"""``dk.fused``: a model that runs layer by layer over whole sequences, with the results of its own loop."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_flatten, tree_map

from delaykit import checks
from delaykit.attaching.batch.tensors import tensors_in
from delaykit.errors import ConfigError, DelaykitError, HistoryError, ShapeError
from delaykit.functional.eager import eager
from delaykit.functional.engine_base import version_of
from delaykit.planning.snapshot import Snapshot
from delaykit.tables import text_table
from delaykit.wrapping.fused.finding import find_loop
from delaykit.wrapping.fused.graph import Miss, stops_checkpoint, told
from delaykit.wrapping.fused.program import Program, outer_loop, own_loop
from delaykit.wrapping.fused.proof import disprove, learn
from delaykit.wrapping.fused.run import Layout, Run
from delaykit.wrapping.fused.units import units_of

MOST_PROOFS = 8  # a bound where every batch has a size of its own, or every call its own numbers
Check = Literal["first", "always"] | int
_TURNS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()  # of a model's runs


def fused(
    net: nn.Module, example: Any = None, *, check: Check = "first", loop: Literal["inside", "outside"] | None = None
) -> FusedModel:
    """Run a model, wrapped or bare, layer by layer over whole sequences, with the results of its own time loop.

    The model's own ``forward`` still runs. At its first call a connection or neuron computes its whole sequence by
    delaykit's operators, and from then on hands out one step after the other, each only for the very input that was
    foreseen. Whatever else the model does with spikes and membranes between its layers (record, add up, pool, a loss at
    every step) is done by its own code. If a call is not the one that was foreseen, the run is taken back and done step
    by step.

    Args:
        net: the model. It is not changed, and its parameters stay where they are; train and save it as before.
        example: what the result will be called with, a tensor or a tuple of arguments; whole sequences, of at least
            three steps. The model is proven at once; without an example, at the first call.
        check: ``"first"``: outputs and all gradients are compared with the step loop, on a copy in float64, whenever
            arguments of another kind (ranks, dtypes, flags of training) come in. ``"always"``, or every ``n``-th call:
            on real batches, too.
        loop: ``"inside"``: ``net(sequence)`` holds the time loop. ``"outside"``: the model is called once a step; the
            result then takes ``(time, ...)``, begins at rest, returns all outputs stacked along time, and after them
            the last state of a model that carries its state. A wrapped ``SequentialState`` goes on from it, with its
            spikes under way; delayed recurrent cells do not. None: found from the example, and printed why.

    Returns:
        A callable with the model's signature; printing it shows which layers run ahead and why others do not.

    Raises:
        ConfigError: an argument that is none of these.
        ShapeError: the model does not run the example; what it raised by itself is said.
        HistoryError: a check on a real batch found another result.

    Example:
        >>> import torch, snntorch as snn, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> fast = dk.fused(net, example=torch.rand(10, 2, 3))
        >>> fast(torch.rand(10, 2, 3)).shape
        torch.Size([10, 2, 4])
        >>> print(fast)
        layer  kind    runs
        0      Linear  ahead
        1      Leaky   ahead
        the time loop is taken to be outside the model, which is called once a step: net(example) calls no neuron ...
    """
    checks.is_model("fused", net)
    if isinstance(net, torch.jit.ScriptModule) or hasattr(net, "_orig_mod"):
        found = f"{type(net).__name__}, what torch.jit or torch.compile made of a model"
        raise ConfigError("fused", found, "the model itself", "call dk.fused on the model, and compile nothing")
    often = check in ("first", "always") if isinstance(check, str) else type(check) is int and check >= 1
    if not often:
        fix = "leave check out, or pass one of these"
        raise ConfigError("fused", f"check={checks.shown(check)}", "'first', 'always', or a number of calls", fix)
    if loop is not None and not (isinstance(loop, str) and loop in ("inside", "outside")):
        fix = "leave loop out, or name where the time loop is"
        raise ConfigError("fused", f"loop={checks.shown(loop)}", "'inside', 'outside' or None", fix)
    if isinstance(example, tuple) and not example:
        raise ConfigError("fused", "example=()", "the arguments of one call", "pass a batch, or leave example out")
    made = FusedModel(net, check, loop)
    if example is not None:
        _prove_on(made, example if isinstance(example, tuple) else (example,))
    return made


def _prove_on(made: FusedModel, example: tuple[Any, ...]) -> None:
    try:
        made.prove(*example)
    except DelaykitError:
        raise
    except Exception as error:  # the user's model may raise anything
        found, notes = f"{type(error).__name__}: {error}", getattr(error, "__notes__", [])
        fix = "pass a batch, or a tuple of arguments, as the model takes it"
        raise ShapeError("example", "; ".join([found, *notes]), "an example that the model runs", fix) from error


class FusedModel:
    """What :func:`fused` returns.

    Args:
        net: the model.
        check: when to compare with the step loop.
        loop: where the time loop is; None: found at the first call.
    """

    def __init__(self, net: nn.Module, check: Check, loop: str | None) -> None:
        self.net, self.check, self.loop = net, check, loop
        self.known: dict[Any, Layout] = {}  # by kind of the arguments, and their sizes where these matter
        self.sizes: dict[Any, Any] = {}  # of the first proof of a kind
        self.by_size: set[Any] = set()
        self.precision, self.taken = "", ""
        self.last: Layout | None = None
        self.calls = 0
        self.__name__ = f"fused_{type(net).__name__}"  # torch.jit.trace asks every callable for one

    @eager  # it looks at identities
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model over a sequence; threads take turns, since a model has one state."""
        if torch.jit.is_tracing():
            found, fix = "dk.fused under torch.jit.trace", "trace the bare model: dk.unwrap_(net), or of a copy"
            raise ConfigError("fused", found, "a call that runs: a record would hold the numbers of this one", fix)
        with _TURNS.setdefault(self.net, threading.RLock()):
            return self._called(args, kwargs)

    def _called(self, args: Any, kwargs: Any) -> Any:
        layout = self.prove(*args, **kwargs)
        self.calls += 1
        if self.check == "always" or (isinstance(self.check, int) and self.calls % self.check == 0):
            self._check_run_ahead(layout, args, kwargs)
        if not layout.fused:
            return self._program(self.net, *args, **kwargs)
        reasons = dict(layout.reasons)
        try:
            return self._run(layout, reasons, args, kwargs)
        finally:
            if layout.reasons != reasons:
                self._tell_sizes_apart(layout, reasons, args, kwargs)

    def _run(self, layout: Layout, reasons: dict[str, str], args: Any, kwargs: Any) -> Any:
        """Run ahead; where that fails, take it back and run step by step."""
        given, marks = _copied_containers((args, kwargs)), _marks(self.net, args, kwargs)
        before = Snapshot(self.net)
        try:
            output = self._ahead(layout, args, kwargs)
            if not before.weights_changed():
                return output
            self._give_up(layout, "a weight of the model is changed within a run")
        except Miss as miss:
            self._disprove(layout, miss)
        except HistoryError:  # a call that the step loop refuses, too: the next may run ahead
            pass
        except Exception as error:  # also what the model raises by itself: step by step it will again
            if stops_checkpoint(error):
                raise
            self._give_up(layout, f"ahead of time the model fails: {told(error)}")
        before.restore()
        if marks != _marks(self.net, args, kwargs):
            raise HistoryError(
                "fused", "a run that has to be taken back, of a model that edits its arguments or takes gradients",
                "a forward that can be run twice", "call it again with a fresh batch and fresh gradients: it now runs "
                "step by step",
            )  # fmt: skip
        args, kwargs = given
        try:
            return self._program(self.net, *args, **kwargs)
        except Exception:  # its own loop fails, too: nothing is known that was not known before
            layout.reasons = reasons
            raise

    def _tell_sizes_apart(self, layout: Layout, reasons: dict[str, str], args: Any, kwargs: Any) -> None:
        """Blame other sizes than those of the proof first: a model may write a batch size down."""
        sizes, (key, proven) = _sizes(args, kwargs), next((k for k, one in self.known.items() if one is layout), (0, 0))
        if proven is None and self.sizes.get(key) not in (None, sizes) and len(self.known) < MOST_PROOFS:
            layout.reasons = reasons
            self.by_size.add(key)

    def step_by_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model over a sequence by its own loop."""
        self._find_loop(args, kwargs)
        return self._program(self.net, *args, **kwargs)

    def prove(self, *args: Any, **kwargs: Any) -> Layout:
        """Prove the run ahead for arguments like these, if that was not done yet; return what is known."""
        if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in tensors_in((args, kwargs))):
            with torch.inference_mode(False):  # a proof takes gradients
                args, kwargs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, (args, kwargs))
                return self.prove(*args, **kwargs)
        self._find_loop(args, kwargs)
        kind, sizes = self._kind(args, kwargs), _sizes(args, kwargs)
        if (kind, None) not in self.known and len(self.known) >= MOST_PROOFS:
            kind = next((k for k, _ in reversed(self.known) if k[:-1] == kind[:-1]), kind)  # but for these numbers
        apart = kind in self.by_size and sizes != self.sizes[kind] and (len(self.known) < MOST_PROOFS)
        key = (kind, sizes if apart or (kind, sizes) in self.known else None)
        if key not in self.known:
            given = _copied_containers((args, kwargs))
            self.known[key], self.precision = learn(self.net, self._program, *given)
            self.sizes.setdefault(kind, sizes)
        self.last = self.known[key]
        return self.last

    def _find_loop(self, args: Any, kwargs: Any) -> None:
        if self.loop is None:
            self.loop, self.taken = find_loop(self.net, args, kwargs)

    @property
    def _program(self) -> Program:
        return outer_loop if self.loop == "outside" else own_loop

    def _kind(self, args: Any, kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        kinds = tuple((x.ndim, x.dtype, x.device.type) if isinstance(x, Tensor) else _plain(x) for x in leaves)
        return kinds, str(spec), tuple(m.training for m in self.net.modules()), _numbers(self.net)

    def _ahead(self, layout: Layout, args: Any, kwargs: Any) -> Any:
        arguments = tree_flatten((args, kwargs))[0]
        return Run(self.net, layout, units_of(self.net), arguments)(lambda: self._program(self.net, *args, **kwargs))

    def _give_up(self, layout: Layout, reason: str) -> None:
        layout.reasons |= dict.fromkeys(layout.fused, reason)

    def _disprove(self, layout: Layout, miss: Miss) -> None:
        if miss.unit is not None:
            layout.reasons[miss.unit] = miss.reason
            return
        for key in [key for key, one in self.known.items() if one is layout]:  # learned anew at the next call
            del self.known[key]

    def _check_run_ahead(self, layout: Layout, args: Any, kwargs: Any) -> None:
        problem = disprove(self.net, self._program, layout, self.precision, *_copied_containers((args, kwargs)))
        if problem:
            raise HistoryError(
                "fused", f"a batch for which the run ahead differs from the model's own loop: {problem}",
                "a model that does what it did when it was proven", "call dk.fused again, with this batch as its "
                "example",
            )  # fmt: skip

    def report(self) -> dict[str, str]:
        """Say of each layer ``"ahead"``, or why it runs step by step, as of the last call."""
        if self.last is None:
            return {}
        ahead = set(self.last.fused)
        why = {path: self.last.reasons.get(path, "it was not called") for path in units_of(self.net)}
        return {path: "ahead" if path in ahead else f"step by step: {reason}" for path, reason in why.items()}

    def __str__(self) -> str:
        if self.last is None:
            return "not run yet"
        modules = dict(self.net.named_modules())
        said = self.report() | dict.fromkeys(_beside(self.net), "as the model's own code")
        rows = [(path, type(modules[path]).__name__, said[path]) for path in modules if path in said]
        table = text_table([("layer", "kind", "runs"), *rows])
        return f"{table}\n{self.taken}" if self.taken else table

    __repr__ = __str__


def _beside(net: nn.Module) -> list[str]:
    """Return paths of the layers with parameters that are no unit: what they do is done between the units."""
    units, modules = units_of(net), [(path, module) for path, module in net.named_modules() if path]
    whole = [path for path, module in modules if is_parametrized(module)]
    inside = tuple(f"{path}." for path in (*units, *whole))
    with_parameters = [path for path, module in modules if module._parameters or path in whole]
    return [path for path in with_parameters if path not in units and not path.startswith(inside)]


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool, type(None))) else type(value)


def _copied_containers(values: Any) -> Any:
    """Rebuild lists and dicts, which a model may change; everything else is the same object."""
    return tree_map(lambda leaf: leaf, values)


def _numbers(net: nn.Module) -> Any:
    """Return the numbers and flags that a model's own modules hold: they may change gradients and no values."""
    inside = tuple(f"{path}." for path in units_of(net))
    return tuple(
        (path, name, value) for path, module in net.named_modules() if not f"{path}.".startswith(inside)
        for name, value in vars(module).items() if type(value) in (float, bool) and not name.startswith("_")
    )  # fmt: skip


def _sizes(args: Any, kwargs: Any) -> Any:
    return tuple(tensor.shape for tensor in tensors_in((args, kwargs)))


def _marks(net: nn.Module, args: Any, kwargs: Any) -> list[Any]:
    """Note what no run can take back: edits of its arguments, and gradients that it adds to."""
    tensors = tensors_in((args, kwargs))
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return [(id(x), version_of(x)) for x in (*tensors, *gradients)]
