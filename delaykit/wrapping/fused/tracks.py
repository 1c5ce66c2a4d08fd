"""One unit in one run: its whole sequence, and the answer of each step, given only for inputs that were foreseen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.fused_parts import FusedParts
from delaykit.attaching.history.connection_states import AheadState, Handed
from delaykit.attaching.neuron.reported_numbers import by_dynamics, check_start, dynamics_of
from delaykit.attaching.wiring import wiring_of
from delaykit.errors import DelaykitError
from delaykit.functional.dynamics import PARAMETERS, LIFDynamics
from delaykit.functional.engine_base import version_of
from delaykit.functional.recurrence.state import RolloutState
from delaykit.wrapping.fused.evaluate import Timed
from delaykit.wrapping.fused.glue import OTHERWISE
from delaykit.wrapping.fused.graph import Miss, NotAhead
from delaykit.wrapping.fused.held import Kept, changed, held_by, state_behind
from delaykit.wrapping.fused.units import ConnectionUnit, Layer, NeuronUnit, Unit, refuse_autocast
from delaykit.wrapping.rollout import run_fused

GOES_ON = "its delays go on from an earlier run"
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-11}


class Foreseen:
    """What a unit is going to be called with.

    Args:
        unit: path of the unit.
        timed: the inputs of all steps.
    """

    def __init__(self, unit: str, timed: Timed) -> None:
        self.unit, self.tensor, self.handed = unit, timed.tensor, timed.handed
        self.constant, self.steps = timed.constant, None
        self.version = version_of(self.tensor)

    steps: tuple[Tensor, ...] | None

    def check(self, step: int, given: Any) -> None:
        """Raise :class:`Miss` where ``given`` is not the input that was foreseen for this step."""
        if version_of(self.tensor) != self.version:
            raise Miss(self.unit, "what it was given had been changed in place")
        if self.handed is not None:  # equal values may have other gradients
            if given is not self.handed[0 if self.constant else step]:
                raise Miss(self.unit, OTHERWISE)
            return
        if self.steps is None and not self.constant:
            self.steps = self.tensor.unbind(0)
        expected = self.tensor if self.steps is None else self.steps[step]
        if not isinstance(given, Tensor) or not _same(given, expected):
            raise Miss(self.unit, OTHERWISE)


def _same(given: Tensor, expected: Tensor) -> bool:
    if given.shape != expected.shape or given.dtype != expected.dtype or given.requires_grad != expected.requires_grad:
        return False
    if given.data_ptr() == expected.data_ptr() and given.stride() == expected.stride():
        return True
    if torch.equal(given, expected):
        return True
    near = CLOSE.get(given.dtype)
    return near is not None and torch.allclose(given, expected, rtol=near, atol=near, equal_nan=True)


class Unread(Tensor):
    """Stands for a synaptic current that a model only passes on; whoever reads it stops the run ahead."""

    unit: str
    stands_in = True

    @staticmethod
    def of(unit: str, like: Tensor) -> Unread:
        """Make one in the shape of a step's current."""
        made: Unread = Tensor._make_wrapper_subclass(Unread, like.shape, dtype=like.dtype, device=like.device)
        made.unit = unit
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "__get__":  # its shape and dtype are no secret
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return cls._stop(args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return cls._stop(args, kwargs)

    @classmethod
    def _stop(cls, args: Any, kwargs: Any) -> Any:
        unit = next(leaf.__dict__["unit"] for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Unread))
        raise Miss(unit, "its synaptic current is read")


class Track(ABC):
    """One unit's sequence in one run.

    Args:
        unit: the unit.
        foreseen: what it is going to be called with.
    """

    def __init__(self, unit: Unit, foreseen: Foreseen, length: int) -> None:
        self.unit, self.foreseen, self.length = unit, foreseen, length
        self.grad = torch.is_grad_enabled()
        self.made: list[tuple[Tensor, int | None]] = []
        self.handed: list[tuple[Tensor, ...]] = []
        self.kept: Kept = []

    def keep(self, sequence: Tensor) -> tuple[Tensor, ...]:
        """Hand a sequence out step by step; it must not be changed in place."""
        self.made.append((sequence, version_of(sequence)))
        self.handed.append(sequence.unbind(0))
        return self.handed[-1]

    def hold(self) -> None:
        """Note what the sequence was made with."""
        self.kept = list(held_by(self.unit))

    def check(self, step: int, given: Any) -> None:
        """Raise :class:`Miss` where this call is not the one that was foreseen."""
        if step >= self.length:
            raise Miss(None, f"{self.unit.path!r} is called for more steps than there were")
        if torch.is_grad_enabled() != self.grad:
            raise Miss(self.unit.path, "gradients are switched on or off between its steps")
        self.foreseen.check(step, given)
        self.check_made()

    def check_made(self) -> None:
        """Raise :class:`Miss` where what it handed out was changed in place."""
        for sequence, before in self.made:
            if version_of(sequence) != before:
                raise Miss(self.unit.path, "its output is changed in place")

    def check_kept(self) -> None:
        """Raise :class:`Miss` where the run has changed what the sequence was made with, or asks steps for gradients.

        The gradient of a step that was handed out lacks what reaches it through layers that ran ahead.
        """
        if changed(self.kept):
            raise Miss(self.unit.path, "its weights or constants are changed within a run")
        if self.grad and any(step._backward_hooks or step.retains_grad for steps in self.handed for step in steps):
            raise Miss(self.unit.path, "a hook looks at the gradient of its output")

    @abstractmethod
    def leaf(self, number: int) -> Timed:
        """Return one tensor of its answers, for all steps."""

    @abstractmethod
    def answer(self, step: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one call."""


class FeedForward(Track):
    """A connection, or a layer without memory."""

    def __init__(self, unit: ConnectionUnit | Layer, timed: Timed, length: int, args: Any, kwargs: Any) -> None:
        super().__init__(unit, Foreseen(unit.path, timed), length)
        refuse_autocast(timed.tensor)
        self.carried = isinstance(unit, ConnectionUnit) and unit.carried
        if self.carried and _handed(unit.path, args, kwargs).state is not None:
            raise NotAhead(GOES_ON)
        inputs = timed.tensor
        if timed.constant:
            inputs = inputs.unsqueeze(0).expand(length, *inputs.shape)
            bare = isinstance(unit, Layer) or unit.attachment is None
            output = unit.sequence(inputs[:1]) if bare else unit.sequence(inputs)
            output = output.expand(length, *output.shape[1:])
        else:
            output = unit.sequence(inputs)
        self.output = Timed(output, self.keep(output))
        self.tokens: list[Any] = [None]
        self.hold()

    def leaf(self, number: int) -> Timed:
        return self.output

    def answer(self, step: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.check(step, args[0] if args else next(iter(kwargs.values()), None))
        assert self.output.handed is not None
        output = self.output.handed[step]
        if not self.carried:
            return output
        handed = _handed(self.unit.path, args, kwargs)
        if handed.state is not self.tokens[step]:
            raise Miss(self.unit.path, "its state is changed between steps")
        handed.state = AheadState()
        self.tokens.append(handed.state)
        return output

    def leave(self) -> None:
        """Let the state behind the last step be one to go on from."""
        if self.carried and len(self.tokens) > 1:
            inputs, module, kept = self.inputs(), self.unit.module, self.kept
            self.tokens[-1].behind(lambda: state_behind(module, inputs, kept, self.grad))

    def inputs(self) -> list[Tensor]:
        """Return what each step was given."""
        made, steps = self.foreseen, len(self.tokens) - 1
        rows = made.handed or (made.steps if made.steps is not None else (made.tensor,))
        return [rows[0 if made.constant else k] for k in range(steps)]


class Spiking(Track):
    """A neuron whose equations are known, with the recurrent connection that it may have."""

    def __init__(self, unit: NeuronUnit, timed: Timed, length: int, args: Any, kwargs: Any) -> None:
        super().__init__(unit, Foreseen(unit.path, timed), length)
        inputs = timed.tensor
        refuse_autocast(inputs)
        if timed.constant:
            inputs = inputs.unsqueeze(0).expand(length, *inputs.shape)
        adapter, module = unit.neuron.adapter, unit.module
        dynamics, parts = dynamics_of(adapter, module), adapter.fused_parts(module)
        start = adapter.state_of_call(module, args, kwargs)
        if dynamics is None or parts is None or start is None:
            raise NotAhead("as it is called here it runs step by step only")
        check_start(adapter, start)
        with by_dynamics(adapter, module):
            dynamics.check_surrogate(inputs)
        wiring = wiring_of(module)
        if wiring is not None and wiring.watch is not None:
            wiring.watch.check_begins(start.membrane)
        self.last: Any = None
        self.whole = 0  # 1 where spikes are handed back, too
        spikes, membrane, after = _run(dynamics, parts, inputs, _from_rest(start, dynamics))
        current = None
        if dynamics.synapse_decay is not None:
            last = Unread.of(unit.path, inputs[0]) if after.synapse is None else after.synapse
            current = (*(Unread.of(unit.path, inputs[0]) for _ in range(length - 1)), last)
        handed = self.keep(spikes), current, self.keep(membrane)
        self.states = [RolloutState(*(None if h is None else h[t] for h in handed)) for t in range(length)]
        whole = adapter.answer(module, RolloutState(spikes, None if current is None else current[0], membrane))
        self.leaves = tensors_in(whole)
        self.timed = {id(spikes): Timed(spikes, handed[0]), id(membrane): Timed(membrane, handed[2])}
        self.hold()

    def leaf(self, number: int) -> Timed:
        found = self.timed.get(id(self.leaves[number]))
        if found is None:
            raise NotAhead(f"it reads the synaptic current of {self.unit.path!r}")
        return found

    def answer(self, step: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        unit: Any = self.unit
        self.check(step, args[0] if args else next(iter(kwargs.values()), None))
        adapter = unit.neuron.adapter
        if step == 1:
            self.whole = int(type(self.last) is tuple and len(args) == len(self.last) + 1)
        if step == 1 or (step > 1 and not self._returns(args, kwargs)):
            given = adapter.state_of_call(unit.module, args, kwargs)
            before = self.states[step - 1]
            handed = [part for part in before if part is not None]
            passed = tensors_in((args[1:], list(kwargs.values())[not args :]))
            kept = given is not None and given.membrane is before.membrane and _is_or_none(given.spikes, before.spikes)
            kept = kept and given.synapse is before.synapse
            if not kept or any(all(x is not part for part in handed) for x in passed):
                raise Miss(unit.path, "its state is changed between steps")
        self.last = adapter.answer(unit.module, self.states[step])
        return self.last

    def _returns(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Tell at a glance whether the call gives back the very answer before, or its state, as the second call did."""
        last = self.last
        if kwargs or len(args) < 2 or type(last) is not tuple or len(args) != len(last) + self.whole:
            return False
        return all(a is b for a, b in zip(args[1:], last[1 - self.whole :], strict=True))


def _is_or_none(given: Any, before: Any) -> bool:
    return given is None or given is before


def _handed(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handed:
    state = args[1] if len(args) > 1 else kwargs.get("state")
    if not isinstance(state, Handed):
        raise Miss(path, "its forward is called, and not the layer")
    return state


def _from_rest(start: RolloutState, dynamics: LIFDynamics) -> RolloutState | None:
    """Leave out what is at rest; None for a run from rest."""
    rests = isinstance(dynamics.rest, (int, float)) and dynamics.rest == 0
    parts = [
        None if part is None or (at_zero and not part.requires_grad and not bool(part.any())) else part
        for part, at_zero in zip(start, (True, True, rests), strict=True)
    ]
    return None if all(part is None for part in parts) else RolloutState(*parts)


def _run(
    dynamics: LIFDynamics, parts: FusedParts, inputs: Tensor, start: RolloutState | None
) -> tuple[Tensor, Tensor, RolloutState]:
    """Run a neuron over ``(time, ..., post)``; more dimensions than a batch are neurons that do not meet."""
    _refuse_numbers(dynamics, inputs)
    shape, joined = inputs.shape, parts.drive is not None or parts.recurrence != type(parts.recurrence)()
    if inputs.ndim > 3 and joined:
        raise NotAhead("its recurrent connection is fed more than (batch, neuron)")
    flat = inputs if inputs.ndim == 3 else inputs.reshape(shape[0], -1, shape[-1])
    if start is not None and inputs.ndim != 3:
        start = RolloutState(*(None if x is None else x.expand(shape[1:]).reshape(flat.shape[1:]) for x in start))
    try:
        spikes, membrane, after = run_fused(dynamics, parts, flat, None, start)
    except DelaykitError as error:
        raise NotAhead(str(error)) from error
    if inputs.ndim != 3:
        spikes, membrane = (x.reshape(shape) for x in (spikes, membrane))
        after = RolloutState(*(None if x is None else x.reshape(shape[1:]) for x in after))
    return spikes, membrane, after


def _refuse_numbers(dynamics: LIFDynamics, inputs: Tensor) -> None:
    if inputs.ndim < 2 or inputs.dtype not in CLOSE:
        raise NotAhead(f"it is fed {inputs.dtype} of shape {tuple(inputs.shape)} over time")
    for name in PARAMETERS:
        value = getattr(dynamics, name)
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape[-1] != value.numel():
            raise NotAhead(f"its {name} has the shape {tuple(value.shape)}")
    if dynamics.surrogate is not None:
        fired = dynamics.surrogate(inputs.new_zeros(1)).dtype
        if fired != inputs.dtype:
            raise NotAhead(f"its surrogate turns {inputs.dtype} into {fired}")
