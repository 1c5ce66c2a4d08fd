"""Histories: when a connection forgets, and how it knows.

A :class:`History` is a plain object, not a buffer: it is in no state dict, DDP does not broadcast it, and a copy or a
pickle of it is empty. It compares the *moment* it belongs to with the present one: the serial number of the root call
(:class:`RootScope`), the generation of the neuron it follows (:class:`NeuronWatch`), or neither (manual).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from delaykit.errors import HistoryError

if TYPE_CHECKING:
    from delaykit.synapse import Engine, Product, Stepper, Synapse

Policy = Literal["root", "follow", "carried", "manual"]
POLICIES: tuple[str, ...] = ("root", "follow", "carried", "manual")


@dataclasses.dataclass(frozen=True)
class Timing:
    """How a site lives in time, decided by the plan.

    Args:
        policy: when its history is cleared.
        time_dim: dimension of its input that is time, if it sees whole sequences; None in step mode.
        streams: number of independent streams that take turns within one step (a shared layer called n times a step).
        asked: True where the policy is the user's own choice, not the plan's.
    """

    policy: Policy = "root"
    time_dim: int | None = None
    streams: int = 1
    asked: bool = False


class RootScope:
    """Counts the calls of the wrapped root, the outermost ones only."""

    def __init__(self) -> None:
        self.serial, self.depth = 0, 0
        self.histories: list[History] = []

    def enter(self) -> None:
        """Begin a call; only the outermost one counts."""
        self.depth += 1
        if self.depth == 1:
            self.serial += 1

    def leave(self, failed: bool) -> None:
        """End a call; at the end of the outermost one the histories are let go."""
        self.depth -= 1
        if self.depth == 0:
            for history in self.histories:
                history.close(check=not failed)

    def __deepcopy__(self, memo: dict[int, Any]) -> RootScope:
        copy = memo[id(self)] = RootScope()
        copy.histories = [memo.setdefault(id(h), History()) for h in self.histories]
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"serial": 0, "depth": 0, "histories": self.histories}


class NeuronWatch:
    """Knows whether a neuron's membrane is the one that the neuron's own last step left behind.

    ``generation`` grows when the membrane was replaced (a reset), ``cuts`` when it only lost its graph (TBPTT).
    """

    def __init__(self) -> None:
        self.generation, self.cuts, self.steps = 0, 0, 0
        self.inside = False
        self.followers: list[History] = []
        self._left: Tensor | None = None  # shares the membrane's storage, so its address cannot be reused
        self._left_graph, self._left_version = False, 0

    def look(self, membrane: Tensor | None) -> Literal["same", "cut", "fresh"]:
        """Compare a membrane with the one left behind."""
        left = self._left
        if left is None or membrane is None or membrane.numel() == 0:
            return "fresh"
        if membrane.data_ptr() != left.data_ptr() or membrane.shape != left.shape:
            return "fresh"
        if _version(membrane) != self._left_version and not bool(membrane.detach().any()):
            return "fresh"  # zeroed in place
        return "cut" if self._left_graph and not membrane.requires_grad else "same"

    def moment(self, membrane: Tensor | None) -> tuple[int, int]:
        """Return (generation, cuts) as of now, counting a reset that the neuron itself has not met yet."""
        if self.inside:
            return self.generation, self.cuts
        seen = self.look(membrane)
        return self.generation + (seen == "fresh"), self.cuts + (seen == "cut")

    def enter(self, held: Tensor | None, given: Tensor | None, where: str) -> None:
        """Begin a step: ``held`` is the neuron's own membrane, ``given`` one that was passed explicitly, if any."""
        seen = self.look(held if given is None else given)
        if given is not None and seen == "fresh" and self.look(held) != "fresh":
            stale = [h for h in self.followers if h.age > 1]
            if stale:
                raise HistoryError(
                    where,
                    "a fresh state passed by hand after its delayed inputs were stepped with the old history",
                    "a reset that can be seen before the step (neuron.reset_mem(), snntorch.utils.reset)",
                    "wrap with reset='manual' and call dk.reset(net) before each sequence",
                )
        self.generation += seen == "fresh"
        self.cuts += seen == "cut"
        self.steps += 1
        self.inside = True

    def leave(self, membrane: Tensor | None) -> None:
        """End a step and remember the membrane it left."""
        self.inside = False
        if membrane is None:
            self._left = None
            return
        self._left, self._left_graph, self._left_version = membrane.detach(), membrane.requires_grad, _version(membrane)

    def __deepcopy__(self, memo: dict[int, Any]) -> NeuronWatch:
        copy = memo[id(self)] = NeuronWatch()
        copy.followers = [memo.setdefault(id(h), History()) for h in self.followers]
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return NeuronWatch, (), {"followers": self.followers}


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # inference tensors do not count their changes


class History:
    """The past of one connection: an engine (this segment's parameters) and one tape for each stream."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.engine: Engine | None = None
        self.tapes: list[Stepper | None] = []
        self._kinds: list[Any] = []
        self.moment: tuple[Any, Any] | None = None
        self.age = 0
        self.last_output: Tensor | None = None  # of the neuron, where the loop is delaykit's own
        self._last_step: tuple[int, Tensor] | None = None

    def detach(self) -> None:
        """Keep the remembered spikes, forget their graph; parameters are read anew."""
        self.engine = None
        self.last_output = None if self.last_output is None else self.last_output.detach()
        for tape in self.tapes:
            if tape is not None:
                tape.detach()

    def close(self, check: bool = True) -> None:
        """End of a root call: forget, and check that all streams were stepped equally often."""
        calls, streams = self.age, max(1, len(self.tapes))
        self.clear()
        if check and calls % streams:
            raise HistoryError(
                "net",
                f"a shared layer called {calls} times",
                f"a multiple of the {streams} streams seen when wrapping",
                "wrap again with an example that runs the streams as you do now",
            )  # fmt: skip

    def enter(self, clear_at: Any, detach_at: Any) -> None:
        """Compare the moment of this call with the last one's."""
        if self.moment is None or self.moment[0] != clear_at:
            self.clear()
        elif self.moment[1] != detach_at:
            self.detach()
        self.moment = (clear_at, detach_at)

    def step(self, synapse: Synapse, product: Product, spikes: Tensor, streams: int = 1) -> Tensor:
        """Run one step (batch, pre, *space) -> (batch, post, *space) of the stream whose turn it is."""
        if self.engine is None:
            self.engine = synapse.engine(product)
            for tape in self.tapes:
                if tape is not None:
                    self.engine.rebind(tape)
        if len(self.tapes) != streams:
            self.tapes, self._kinds = [None] * streams, [None] * streams
        turn, kind = self.age % streams, (spikes.shape, spikes.dtype, spikes.device)
        tape = self.tapes[turn]
        if tape is None or self._kinds[turn] != kind:  # another batch size, device or dtype is another sequence
            tape, self._kinds[turn] = self.engine.tape(), kind
            self.tapes[turn] = tape
        self.age += 1
        return self.engine.step(tape, spikes)

    def once_a_step(self, neuron_step: int, run: Any) -> Tensor:
        """Push once per neuron step: a neuron that calls its recurrent connection twice gets the same current twice."""
        if self._last_step is None or self._last_step[0] != neuron_step:
            self._last_step = (neuron_step, run())
        return self._last_step[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> History:
        return memo.setdefault(id(self), History())

    def __reduce__(self) -> tuple[Any, ...]:
        return History, ()
